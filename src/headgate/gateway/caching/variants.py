"""One kept response, and the responses of one key that differ by what the request said.

Theory of operation. Without `Vary` a key holds one response. With it, a key holds a `Slot`: groups
of responses that name the same fields, in each group one response for every normalised content of
these fields (RFC 9111 4.1). A request fits a response if all the fields that it names agree; so a
request has at most one response in each group. Of several that fit, one with `Vary` goes before one
without, since origins forget the field on their default answer, and then the one with the most
recent Date.

What comes in replaces whatever would have been chosen for the request that it answers: otherwise a
server that stops varying, or varies by other fields, would be asked for ever beside a response that
wins by its old `Vary`.

A server, or a client through a careless server, can make as many variants as it likes. So a slot
holds `VARIANTS_MAX`, the oldest go out, of `GROUPS_MAX` sets of names; and a response that names
more than `NAMES_MAX` fields is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.cache.http.vary import NAMES_MAX, normal
from headgate.wire.message import Header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.cache.http.stored import Stored
    from headgate.wire.message import ResponseHead

__all__ = ["GROUPS_MAX", "VARIANTS_MAX", "Kept", "Slot", "can_vary", "size_of"]

VARIANTS_MAX: Final = 50
GROUPS_MAX: Final = 4

_RESPONSE_BYTES: Final = 1600
"""The objects of one response beside its texts, its places in the indices among them; measured."""
_FIELD_BYTES: Final = 165
"""The two texts and the pair of one field, without what they say."""
_TAG_BYTES: Final = 200
"""A tag as a text, and its place in the index; a set of one more if others have the same."""

Names = tuple[bytes, ...]


class Kept:
    """A response in the store. `is_live` is false once it is replaced, evicted or struck."""

    __slots__ = (
        "body",
        "head",
        "head_second",
        "hits",
        "is_live",
        "is_soft_struck",
        "keep_until",
        "key",
        "seat",
        "seen",
        "size",
        "stamp",
        "stored",
        "trailers",
        "url",
    )

    def __init__(
        self,
        key: str,
        url: str,
        stored: Stored,
        body: bytes,
        trailers: tuple[Header, ...] = (),
        *,
        stamp: int = 0,
        seen: int = 0,
        keep_until: float = 0.0,
        is_soft_struck: bool = False,
    ) -> None:
        self.key = key
        self.url = url
        """`scheme://authority/path?query`, as purges name it."""
        self.stored = stored
        self.body = body
        self.trailers = trailers
        self.stamp = stamp
        """The clock of the barriers before it was asked for."""
        self.seen = seen
        """`version` of the barriers when it was last judged."""
        self.keep_until = keep_until
        """Wall clock; of no use to anybody afterwards."""
        self.is_soft_struck = is_soft_struck
        self.is_live = True
        self.hits = 0
        self.head: ResponseHead | None = None
        """What was last made of it to be sent, and in which second."""
        self.head_second = 0
        self.seat = -1
        """Where it stands in the store's list."""
        self.size = size_of(self)

    def __repr__(self) -> str:
        # Keys and bodies may hold what belongs to one user.
        state = "live" if self.is_live else "gone"
        return f"<Kept {self.stored.status} {len(self.body)} bytes, {state}>"


def size_of(kept: Kept) -> int:
    """Bytes of memory: all that hangs on it, counted rather too high."""
    stored = kept.stored
    size = _RESPONSE_BYTES + len(kept.body) + 2 * (len(kept.key) + len(kept.url))
    size += sum(len(name) + len(value) + _FIELD_BYTES for name, value in stored.vary)
    # The texts twice: what is sent of them is prepared as one piece.
    size += sum(2 * (len(name) + len(value)) + _FIELD_BYTES for name, value in stored.headers)
    size += sum(len(name) + len(value) + _FIELD_BYTES for name, value in kept.trailers)
    size += sum(len(tag) + _TAG_BYTES for tag in stored.tags)
    return size + len(stored.reason) + len(stored.etag or b"") + 100 * len(stored.stripped_fields)


def can_vary(stored: Stored) -> bool:
    """Whether a later request can be told to fit: `Vary: *` never does."""
    vary = stored.vary
    return len(vary) <= NAMES_MAX and all(name != b"*" for name, _ in vary)


class Slot:
    """The responses of one key. The groups, and the responses in each, stand oldest first."""

    __slots__ = ("_count", "_groups", "size")

    def __init__(self) -> None:
        self._groups: dict[Names, dict[tuple[Header, ...], Kept]] = {}
        self._count = 0
        self.size = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Kept]:
        for group in self._groups.values():
            yield from group.values()

    def choose(self, fields: tuple[Header, ...]) -> Kept | None:
        best: Kept | None = None
        for names, group in self._groups.items():
            found = group.get(normal(names, fields)) if names else group.get(())
            if found is not None and (best is None or _goes_before(found, best)):
                best = found
        return best

    def fitting(self, fields: tuple[Header, ...]) -> list[Kept]:
        """Every response that this request fits: those that a new one replaces."""
        found = (group.get(normal(names, fields)) for names, group in self._groups.items())
        return [kept for kept in found if kept is not None]

    def add(self, kept: Kept) -> list[Kept]:
        """Take it in; what had to go for it."""
        vary = kept.stored.vary
        names = tuple(name for name, _ in vary)
        group = self._groups.pop(names, None)
        gone: list[Kept] = []
        if group is None:
            group = {}
            if len(self._groups) >= GROUPS_MAX:
                gone = list(self._groups[next(iter(self._groups))].values())
        # The group last added to stands last, so that the first is the one to go.
        self._groups[names] = group
        before = group.pop(vary, None)
        if before is not None:
            # Taken out here, since it has no longer a place of its own.
            self._count -= 1
            self.size -= before.size
        group[vary] = kept
        self._count += 1
        self.size += kept.size
        for each in gone:
            self.remove(each)
        if before is not None:
            gone.append(before)
        while self._count > VARIANTS_MAX:
            gone.append(self._oldest_but(kept))
            self.remove(gone[-1])
        return gone

    def shrink(self, bytes_max: int, but: Kept) -> list[Kept]:
        """Let the oldest go until the rest is no larger; what went."""
        gone: list[Kept] = []
        while self.size > bytes_max and self._count > 1:
            gone.append(self._oldest_but(but))
            self.remove(gone[-1])
        return gone

    def _oldest_but(self, kept: Kept) -> Kept:
        return next(each for each in self if each is not kept)

    def remove(self, kept: Kept) -> bool:
        vary = kept.stored.vary
        names = tuple(name for name, _ in vary)
        group = self._groups.get(names)
        if group is None or group.get(vary) is not kept:
            return False
        del group[vary]
        if not group:
            del self._groups[names]
        self._count -= 1
        self.size -= kept.size
        return True


def _goes_before(one: Kept, other: Kept) -> bool:
    if bool(one.stored.vary) != bool(other.stored.vary):
        return bool(one.stored.vary)
    return _made(one.stored) >= _made(other.stored)


def _made(stored: Stored) -> float:
    """Its Date, as corrected by what it said of its age."""
    return stored.received_at - stored.initial_age_s
