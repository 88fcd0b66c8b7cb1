"""What one service's instances are, when several sources name them.

Theory of operation. A claim is what one owner (a source, and which of that kind) says of one
instance. Of an id the claim of the highest source counts: who is nearest to the process knows best,

    self  over  directory  over  dns  over  file

and of several of one kind the one whose key is last in the alphabet. Of several ids at one URL one
is listed, or the process would get twice its share: again that of the highest source, then one that
is up, then the one registered last. The others are hidden, and listed when that one goes. So a file
may name what registers itself: its weight and zone count while nobody is registered there. It stays
in use after the registration has ended, since the file says so; the health checks decide.

Everything is done by id and URL: what one change costs does not grow with the service, unless
hundreds claim one URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from headgate.mesh.registry.model import Instance, Source
from headgate.wire.instance_url import InstanceUrl

__all__ = ["SELF", "Claim", "Diff", "Listing", "Owner"]

_RANKS: Final[dict[Source, int]] = {"file": 0, "dns": 1, "directory": 2, "self": 3}


class Owner(NamedTuple):
    source: Source
    key: str
    """Which of its kind: the name in DNS, the folder."""


SELF: Final = Owner("self", "")


@dataclass(frozen=True, slots=True)
class Claim:
    instance: Instance
    owner: Owner
    place: InstanceUrl


class Diff(NamedTuple):
    """What is listed otherwise than before."""

    what: Literal["came", "changed", "went"]
    instance: Instance
    is_aside: bool
    """Not the one that was claimed, but another at the same URL."""


class Listing:
    """Claims of one service, and what is listed of them."""

    __slots__ = ("_at", "_best", "_claims", "shown")

    def __init__(self) -> None:
        self._claims: dict[str, dict[Owner, Claim]] = {}
        self._best: dict[str, Claim] = {}
        """Of an id, the claim that counts."""
        self._at: dict[InstanceUrl, dict[str, None]] = {}
        """Ids by the URL of the claim that counts."""
        self.shown: dict[str, Instance] = {}

    @property
    def is_empty(self) -> bool:
        return not self._claims

    def claims(self) -> Iterator[Claim]:
        for by_owner in self._claims.values():
            yield from by_owner.values()

    def owner_of(self, instance_id: str) -> Owner:
        """Whose claim counts."""
        return self._best[instance_id].owner

    def listed(self, instance_id: str, owner: Owner) -> Instance | None:
        """As it is listed, if it is by this one's claim."""
        best = self._best.get(instance_id)
        return self.shown.get(instance_id) if best is not None and best.owner == owner else None

    def put(self, claim: Claim) -> list[Diff]:
        """A claim, new or in place of the same owner's."""
        instance_id = claim.instance.id
        self._claims.setdefault(instance_id, {})[claim.owner] = claim
        return self._settle(instance_id)

    def drop(self, instance_id: str, owner: Owner) -> list[Diff]:
        by_owner = self._claims.get(instance_id)
        if by_owner is None or by_owner.pop(owner, None) is None:
            return []
        if not by_owner:
            del self._claims[instance_id]
        return self._settle(instance_id)

    def stamp(self, instance: Instance) -> None:
        """What a diff has told is listed so, with its revision."""
        self.shown[instance.id] = instance

    def _settle(self, instance_id: str) -> list[Diff]:
        was = self._best.pop(instance_id, None)
        by_owner = self._claims.get(instance_id)
        best = max(by_owner.values(), key=_of_one_id) if by_owner else None
        places = dict.fromkeys(claim.place for claim in (was, best) if claim is not None)
        if best is not None:
            self._best[instance_id] = best
        if was is not None and (best is None or best.place != was.place):
            ids = self._at[was.place]
            del ids[instance_id]
            if not ids:
                del self._at[was.place]
        if best is not None and (was is None or best.place != was.place):
            self._at.setdefault(best.place, {})[instance_id] = None

        chosen: dict[str, Instance] = {}
        touched = {instance_id: None}
        for place in places:
            ids = self._at.get(place, {})
            if not ids:
                continue
            first = max((self._best[each] for each in ids), key=_of_one_url).instance
            chosen[first.id] = first
            touched[first.id] = None
            for each in ids:
                if each in self.shown:
                    touched[each] = None
        diffs: list[Diff] = []
        for each in touched:
            old, new = self.shown.get(each), chosen.get(each)
            if new is None:
                if old is not None:
                    del self.shown[each]
                    diffs.append(Diff("went", old, each != instance_id))
            elif old is None:
                diffs.append(Diff("came", new, each != instance_id))
            elif not _is_same(old, new):
                diffs.append(Diff("changed", new, each != instance_id))
        diffs.sort(key=lambda diff: diff.what != "went")
        return diffs


def _of_one_id(claim: Claim) -> tuple[int, str]:
    return _RANKS[claim.owner.source], claim.owner.key


def _of_one_url(claim: Claim) -> tuple[int, bool, int, str]:
    instance = claim.instance
    return _RANKS[instance.source], instance.state == "up", instance.fence, instance.id


def _is_same(old: Instance, new: Instance) -> bool:
    return replace(new, revision=old.revision, since=old.since) == old
