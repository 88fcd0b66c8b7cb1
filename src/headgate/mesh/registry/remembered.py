"""What the registry has to keep over a restart, as its home writes and reads it.

Theory of operation. The book says what has changed since it was last asked (`Unsaved`); the home
writes that whole or not at all, and may be given it together with later ones. Beats are not
written: after a start every lease has a full ttl to be heard. What other sources named is written
too: a name server that is away at the start must not take anybody's instances, and what a source no
longer names after a restart is told as gone to whoever resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final, get_args

from headgate.mesh.registry.asked import Refused, instance_of, ttl_of
from headgate.mesh.registry.listing import Owner
from headgate.mesh.registry.model import Change, Health, Instance, Source, State
from headgate.policy.registering import RegistryRules

__all__ = ["UNREADABLE", "LeaseRow", "Remembered", "Unsaved", "judged", "judged_lease"]

UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    Refused,
)
"""What reading a row may raise, whatever is in it."""


@dataclass(frozen=True, slots=True)
class LeaseRow:
    instance: Instance
    ttl_s: float
    beaten: float
    """When it was heard last, in wall time, as far as that was written."""
    suspect_since: float | None = None
    drain_until: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "instance": self.instance.to_json(),
            "ttl_s": self.ttl_s,
            "beaten": self.beaten,
            "suspect_since": self.suspect_since,
            "drain_until": self.drain_until,
        }

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> LeaseRow:
        return cls(
            Instance.of_json(row["instance"]),
            float(row["ttl_s"]),
            float(row["beaten"]),
            row.get("suspect_since"),
            row.get("drain_until"),
        )


@dataclass(frozen=True, slots=True)
class Unsaved:
    """To be written in one go."""

    epoch: str
    revision: int
    fence: int
    leases: Sequence[LeaseRow] = ()
    gone: Sequence[tuple[str, str]] = ()
    """Services and ids of leases that ended."""
    named: Mapping[Owner, Sequence[Instance]] = field(default_factory=dict)
    """An owner that names nothing any more has nothing here."""
    changes: Sequence[Change] = ()
    is_all: bool = False
    """What stood there before and is not in this is gone."""

    @property
    def is_nothing(self) -> bool:
        return not (self.leases or self.gone or self.named or self.changes or self.is_all)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a home knows at the start."""

    epoch: str | None = None
    """Of the run before, if it ended in order: everything it told is in here. Else watchers must
    ask anew, and there is another."""
    revision: int = 0
    fence: int = 0
    leases: Sequence[LeaseRow] = ()
    named: Mapping[Owner, Sequence[Instance]] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    lost: Sequence[str] = ()
    """In words: what could not be read, and where it is now."""


def judged(instance: Instance, rules: RegistryRules) -> Instance:
    """As it was read. Raises one of `UNREADABLE` for what would not have been taken: somebody else
    may have written it, and the rules may be narrower than they were.
    """
    instance_of(instance, rules)
    numbers: tuple[Any, ...] = (instance.fence, instance.revision)
    if not (
        all(isinstance(each, int) for each in numbers)
        and isfinite(instance.since)
        and instance.source in get_args(Source)
        and instance.state in get_args(State)
        and instance.health in get_args(Health)
    ):
        raise ValueError("it is none that we wrote")
    return instance


def judged_lease(row: LeaseRow, rules: RegistryRules) -> LeaseRow:
    """Likewise."""
    for at in (row.beaten, row.suspect_since, row.drain_until):
        if at is not None and not isfinite(at):
            raise ValueError("a time is none")
    return replace(row, instance=judged(row.instance, rules), ttl_s=ttl_of(row.ttl_s, rules))
