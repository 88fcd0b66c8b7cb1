"""A client's place in a fill. To its exchange it is an upstream like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from headgate.cache.http.answering import answer, is_unchanged
from headgate.cache.http.reuse import may_serve_on_error, may_share
from headgate.cache.http.vary import selects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.cache.http.asked import Asked
    from headgate.cache.http.rules import CacheRules
    from headgate.cache.http.stored import Stored
    from headgate.gateway.caching.exchange import Cached
    from headgate.gateway.caching.fill import Fill
    from headgate.wire.message import Forward, Header


class Reader:
    made: ClassVar[None] = None
    """It has no connection of its own."""

    __slots__ = ("asked", "at", "fields", "fill", "has_head", "is_first", "is_paused", "outer")

    def __init__(
        self, fill: Fill, outer: Cached, asked: Asked, fields: tuple[Header, ...], *, is_first: bool
    ) -> None:
        self.fill = fill
        self.outer = outer
        self.asked = asked
        self.fields = fields
        self.is_first = is_first
        """The fill was begun for this one, who gets the answer whatever it is."""
        self.has_head = False
        self.is_paused = False
        self.at = 0
        """Pieces of the body that it has been given."""

    def is_of(self, stored: Stored) -> bool:
        """Whether that is the variant it asks for."""
        return selects(stored, self.fields)

    def may_have(self, stored: Stored, wall: float, on_error: CacheRules | None = None) -> bool:
        """To be kept is not enough: what has to be validated each time is for the one who asked.
        `on_error`: it stands in for an error, as these rules say.
        """
        if not self.is_of(stored):
            return False
        if on_error is not None:
            return may_serve_on_error(stored, self.asked, wall, on_error)
        return may_share(stored, self.asked, wall)

    def left_out(self, stored: Stored | None) -> frozenset[bytes] | None:
        """The fields that a 304 goes without, where its client's own copy is what has come; None
        where the client has to be given the whole.
        """
        asked = self.asked
        if stored is None or stored.status != 200 or not is_unchanged(stored, asked):
            return None
        said = frozenset(name for name, _ in answer(stored, asked, 0).headers)
        return frozenset(name for name, _ in stored.headers) - said

    def send_request(self, ex: object, forward: Forward, body: bytes, end: bool) -> None:
        """Nothing: the fill has its own."""

    def send_data(self, data: bytes) -> None:
        """Nothing: who reads a fill has no body."""

    def send_end(self, trailers: Sequence[Header]) -> None:
        """Nothing, likewise."""

    def cancel(self) -> None:
        self.fill.leave(self)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self.fill.catch_up(self)


def can_share(stored: Stored) -> bool:
    """Whether others may wait for a validation of this one, going by what it has said of itself."""
    return not stored.needs_validation and stored.fresh_s + stored.stale_while_revalidate_s > 0.0
