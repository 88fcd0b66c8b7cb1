"""Where an alert is told: a tree of routes, walked as Alertmanager walks it.

Theory of operation. An alert enters at the root, which takes every one. Of a node's children the
first whose matchers hold takes it, and further ones only after a child with `goes_on`; a node no
child of which takes it keeps it. What a node does not say it has from the one above; that is
settled when the tree is made (`settle`), so a `Node` holds every value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from headgate.observe.alerts.matching import LabelMatcher, all_match
from headgate.observe.alerts.muting import Inhibition, MuteWindow
from headgate.observe.alerts.rules import AlertDefaults

__all__ = ["ALL", "Escalation", "Node", "Routing", "group_labels"]

_D: Final = AlertDefaults()
ALL: Final = "..."
"""In `group_by`: every alert is a group of its own."""


@dataclass(frozen=True, slots=True)
class Escalation:
    after_s: float
    to: str


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    """Its place in the tree and what it is for; groups are found by it after a reload."""
    receiver: str
    matchers: tuple[LabelMatcher, ...] = ()
    group_by: tuple[str, ...] = ("alertname",)
    group_wait_s: float = _D.group_wait_s
    group_interval_s: float = _D.group_interval_s
    repeat_interval_s: float = _D.repeat_interval_s
    mute: tuple[MuteWindow, ...] = ()
    escalate: tuple[Escalation, ...] = ()
    goes_on: bool = False
    routes: tuple[Node, ...] = ()

    def taking(self, labels: Mapping[str, str]) -> Iterator[Node]:
        """The nodes that take an alert which this node has been given."""
        is_taken = False
        for each in self.routes:
            if all_match(each.matchers, labels):
                is_taken = True
                yield from each.taking(labels)
                if not each.goes_on:
                    return
        if not is_taken:
            yield self

    def all(self) -> Iterator[Node]:
        yield self
        for each in self.routes:
            yield from each.all()


@dataclass(frozen=True, slots=True)
class Routing:
    root: Node
    inhibitions: tuple[Inhibition, ...] = ()
    per_hour: Mapping[str, int] = field(default_factory=dict)
    """Receiver -> notifications an hour; 0 or not there is without a bound."""


def group_labels(node: Node, labels: Mapping[str, str]) -> dict[str, str]:
    if ALL in node.group_by:
        return dict(labels)
    return {name: labels[name] for name in node.group_by if name in labels}
