"""One instance as its balancer knows it, and the small interface of the algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from headgate.policy.balancer.rules import BalanceRules

__all__ = ["Algorithm", "Member", "MemberSpec"]

TRIES: Final = 16
"""How often chance or the cycle may come up with an excluded member before all are looked at."""


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """An instance as the file or the registry gives it."""

    id: str
    weight: int = 1
    """0: listed, but out of work."""
    priority: int = 0
    """0 is used first; higher numbers are backups."""
    zone: str = ""
    leaving: bool = False
    """It is about to go, by its own word. Whether it still gets requests is for whoever keeps the
    group to say; the group is told of it as of any other that is out of work."""


class Member:
    """An instance of a service; compared by identity. Only the group and its algorithm write it."""

    __slots__ = (
        "burden",
        "done",
        "done_s",
        "drained",
        "effective",
        "entry",
        "ewma_s",
        "home",
        "id",
        "in_flight",
        "index",
        "out_reason",
        "priority",
        "seen_at",
        "since",
        "spec",
        "turn",
        "usable",
        "warming",
        "weight",
        "zone",
    )

    def __init__(self, spec: MemberSpec, now: float) -> None:
        self.id = spec.id
        self.spec: MemberSpec | None = None
        """What weight, priority and zone were taken from; None: from more than one."""
        self.weight = spec.weight
        self.priority = spec.priority
        self.zone = spec.zone
        self.index = -1
        """Place in `Group.members`; -1 once removed."""
        self.in_flight = 0
        self.done = 0
        """Requests that have ended, since whoever counts them took the number away."""
        self.done_s = 0.0
        """How long they took, together."""
        self.usable = True
        self.out_reason: str | None = None
        self.drained = False
        """Out of work by an operator's word, as with weight 0: not used in panic either, and not
        missing from its tier."""
        self.since = now
        """When it joined, went out or came back."""
        self.warming = False
        """In slow start."""
        self.effective = float(spec.weight)
        """The weight that counts now, slow start included."""
        self.burden = 1.0
        """What one request weighs on it: 1.0 at the mean weight of those in use with it, 0.5 at
        twice that."""
        self.home: Algorithm | None = None
        """The algorithm that picks it now, if that one wants to hear what starts and ends."""
        # What algorithms keep. It stands here and not in tables of theirs, so that it costs no
        # look-up and stays when an instance moves to another tier.
        self.ewma_s = 0.0
        self.seen_at = now
        self.turn = 0.0
        self.entry: tuple[float, float, int, Member] | None = None

    def __repr__(self) -> str:
        return f"<Member {self.id} weight={self.weight} in_flight={self.in_flight}>"


class Algorithm(ABC):
    """Picks one of the members in use. What it must answer for is `pick`; the rest may stay."""

    __slots__ = ("members", "rng", "rules")

    WARMS: bool = True
    """Whether slow start means anything to it."""
    LISTENS: bool = False
    """Whether it wants `started` and `finished`; where not, they cost nothing."""

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        self.rules = rules
        self.rng = rng
        self.members: Sequence[Member] = ()

    def know(self, members: Sequence[Member]) -> None:  # noqa: B027 - few want to hear it
        """All members there are, usable or not. Called when the list or a weight changed."""

    def use(self, members: Sequence[Member]) -> None:
        """Pick from these from now on. Their `effective` and `burden` are set."""
        self.members = members

    @abstractmethod
    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        """A member in use that is not excluded; None if there is none."""

    def started(self, member: Member) -> None:  # noqa: B027 - for those that listen
        """One more in flight there; `in_flight` has been raised."""

    def finished(  # noqa: B027 - for those that listen
        self, member: Member, took_s: float, failed: bool, now: float
    ) -> None:
        """One less in flight there; `in_flight` has been lowered."""

    def rest(self, excluded: Collection[Member]) -> Member | None:
        """By chance from those not excluded, looking at all: the last resort of a retry."""
        left = [member for member in self.members if member not in excluded]
        if not left:
            return None
        return self.rng.choices(left, [member.effective for member in left])[0]
