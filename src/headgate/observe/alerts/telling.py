"""Which receiver is told what, and when: groups, repeats, escalations, acknowledgements.

Theory of operation
-------------------
`Telling.turn(alerts, now)` is given every alert of all rules and answers the notifications to send
now. It goes by what is, not by what changed, so nothing is lost between two turns: a group
remembers which alerts its receivers were told of, at which level, and compares.

A group is a node of the tree and the values of its `group_by` labels. Its first notification goes
`group_wait` after its first alert; later ones `group_interval` apart when an alert came, went or
changed its level, and without change after `repeat_interval`. A level that rises does not wait.
An alert that ended before it was told is not told.

Who was told of an alert hears its end: an alert that leaves its group because its level changed
its route stays followed by the old group, and silences, inhibitions and mute windows keep back
beginnings and repeats, never ends.

Escalation goes to further receivers when alerts have fired for so long without anybody's
acknowledgement; they hear of everything after that. An acknowledgement stops repeats and
escalation of that alert until it ends.

The caller keeps `dump()` and the notifications in one transaction: then no notification is lost or
decided twice, whatever ends the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headgate.observe.alerts.alert import Alert, Labels, fingerprint, sorted_labels
from headgate.observe.alerts.muting import Silence, inhibited, silenced_by
from headgate.observe.alerts.notification import Kind, Notification
from headgate.observe.alerts.routing import Node, Routing, group_labels
from headgate.observe.alerts.rules import RANK

__all__ = ["Ack", "Muted", "Telling"]

_MOST_TOLD: Final = 100
"""Alerts in one notification; the note says how many more there are."""


@dataclass(frozen=True, slots=True)
class Ack:
    alert: str
    by: str
    comment: str
    at: float
    fired_at: float
    """Of which firing: the next one is not acknowledged."""

    def to_json(self) -> dict[str, Any]:
        return {
            "alert": self.alert,
            "by": self.by,
            "comment": self.comment,
            "at": self.at,
            "fired_at": self.fired_at,
        }


@dataclass(frozen=True, slots=True)
class Muted:
    """Why an alert is not told, for lists."""

    silenced_by: str | None = None
    inhibited_by: str | None = None


@dataclass(slots=True)
class _Group:
    key: str
    node: Node
    labels: Labels
    began: float
    due: float
    told: dict[str, Alert] = field(default_factory=dict)
    """Alert id -> as it was told last; those that have ended are gone from here."""
    first_told_at: float | None = None
    last_told_at: float = 0.0
    sequence: int = 0
    steps: int = 0
    """How many escalations were taken."""
    is_ack_told: bool = False

    @property
    def dedup(self) -> str:
        return hashlib.sha256(f"{self.key}\x00{self.began!r}".encode()).hexdigest()[:32]

    @property
    def receivers(self) -> list[str]:
        found = [self.node.receiver]
        for each in self.node.escalate[: self.steps]:
            if each.to not in found:
                found.append(each.to)
        return found


class Telling:
    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._groups: dict[str, _Group] = {}
        self.acks: dict[str, Ack] = {}
        self.silences: dict[str, Silence] = {}
        self.muted: dict[str, Muted] = {}

    def reroute(self, routing: Routing) -> None:
        """Take up another tree. Groups of nodes that are still there go on; the alerts of the
        others are told anew, by the routes they have now.
        """
        nodes = {each.id: each for each in routing.root.all()}
        self.routing = routing
        for key, group in list(self._groups.items()):
            node = nodes.get(group.node.id)
            if node is None or node.group_by != group.node.group_by:
                del self._groups[key]
            else:
                group.node = node
                group.steps = min(group.steps, len(node.escalate))

    # --------------------------------------------------------------------------------- turns

    def turn(self, alerts: Sequence[Alert], now: float) -> list[Notification]:
        """What is to be sent now. `now` is wall time."""
        known = {each.id: each for each in alerts}
        firing = {ident: each for ident, each in known.items() if each.state == "firing"}
        self._tidy(firing, now)
        self.muted = self._mutes(firing.values(), now)
        members = self._members(firing, now)
        said: list[Notification] = []
        for key, group in list(self._groups.items()):
            said += self._tell(group, members.get(key, {}), known, now)
            if not group.told and key not in members:
                self._groups.pop(key, None)
        return said

    def _tidy(self, firing: Mapping[str, Alert], now: float) -> None:
        for ident, ack in list(self.acks.items()):
            alert = firing.get(ident)
            if alert is None or alert.fired_at != ack.fired_at:
                del self.acks[ident]
        for ident, silence in list(self.silences.items()):
            if silence.ends <= now:
                del self.silences[ident]

    def _mutes(self, firing: Iterable[Alert], now: float) -> dict[str, Muted]:
        alerts = list(firing)
        explained = inhibited(self.routing.inhibitions, alerts)
        active = [each for each in self.silences.values() if each.is_active(now)]
        found = {}
        for alert in alerts:
            silence = silenced_by(active, alert, now)
            other = explained.get(alert.id)
            if silence is not None or other is not None:
                found[alert.id] = Muted(silence, other)
        return found

    def _members(self, firing: Mapping[str, Alert], now: float) -> dict[str, dict[str, Alert]]:
        """Group key -> the alerts that it may tell now, or is to follow."""
        members: dict[str, dict[str, Alert]] = {}
        # Grouped by severity, an alert that gets worse would else be told by two groups.
        homes = {
            (group.node.id, ident): key
            for key, group in self._groups.items()
            for ident in group.told
        }
        for alert in firing.values():
            labels = alert.matched
            for node in self.routing.root.taking(labels):
                home = homes.get((node.id, alert.id))
                if home is not None:
                    members.setdefault(home, {})[alert.id] = alert
                    continue
                own = sorted_labels(group_labels(node, labels))
                key = f"{node.id}:{fingerprint(own)}"
                if key not in self._groups:
                    if alert.id in self.muted:
                        continue
                    self._groups[key] = _Group(key, node, own, now, now + node.group_wait_s)
                members.setdefault(key, {})[alert.id] = alert
        for key, group in self._groups.items():
            for ident in group.told:
                if ident in firing:
                    members.setdefault(key, {})[ident] = firing[ident]
        return members

    def _tell(
        self,
        group: _Group,
        members: Mapping[str, Alert],
        known: Mapping[str, Alert],
        now: float,
    ) -> list[Notification]:
        open_members = {ident: each for ident, each in members.items() if ident not in self.muted}
        is_quiet = any(each.holds(now) for each in group.node.mute)
        if is_quiet:
            open_members = {}
        raised = any(
            ident in group.told and RANK[each.level] > RANK[group.told[ident].level]
            for ident, each in open_members.items()
        )
        said: list[Notification] = []
        if now >= group.due or (raised and group.first_told_at is not None):
            said += self._flush(group, open_members, members, known, now)
        said += self._escalate(group, open_members, now)
        said += self._tell_ack(group, members, now)
        return said

    def _flush(
        self,
        group: _Group,
        open_members: Mapping[str, Alert],
        members: Mapping[str, Alert],
        known: Mapping[str, Alert],
        now: float,
    ) -> list[Notification]:
        """Tell what changed since the last time, or all again when that is long ago."""
        ended = [
            _ended(each, known.get(ident), now)
            for ident, each in group.told.items()
            if ident not in members
        ]
        changed = [
            each
            for ident, each in open_members.items()
            if ident not in group.told or _differs(group.told[ident], each)
        ]
        note = ""
        if not ended and not changed:
            waits = now - group.last_told_at < group.node.repeat_interval_s
            unacked = [each for each in open_members if each not in self.acks]
            if waits or not unacked or not any(each in group.told for each in unacked):
                return []
            note = "still firing"
        # Told again are those that were told and still fire, muted since or not: a message that
        # left them out would read as if they had ended.
        fires = {ident: members[ident] for ident in group.told if ident in members}
        fires.update(open_members)
        group.told = dict(fires)
        group.last_told_at = now
        group.due = now + group.node.group_interval_s
        if fires and group.first_told_at is None:
            group.first_told_at = now
        if changed:
            group.is_ack_told = False
        kind: Kind = "firing" if fires else "resolved"
        told = [*sorted(fires.values(), key=_order), *sorted(ended, key=_order)]
        if not fires:
            self._groups.pop(group.key, None)
        return self._notify(group, kind, told, note, group.receivers, now)

    def _escalate(
        self, group: _Group, open_members: Mapping[str, Alert], now: float
    ) -> list[Notification]:
        said: list[Notification] = []
        if group.first_told_at is None or group.key not in self._groups:
            return said
        unacked = [
            each
            for ident, each in open_members.items()
            if ident in group.told and ident not in self.acks
        ]
        while unacked and group.steps < len(group.node.escalate):
            step = group.node.escalate[group.steps]
            if now - group.first_told_at < step.after_s:
                break
            before = group.receivers
            group.steps += 1
            if step.to in before:
                continue
            fires = sorted(group.told.values(), key=_order)
            said += self._notify(
                group, "firing", fires, "escalated: nobody has acknowledged it", [step.to], now
            )
        return said

    def _tell_ack(
        self, group: _Group, members: Mapping[str, Alert], now: float
    ) -> list[Notification]:
        if group.is_ack_told or not group.told or group.key not in self._groups:
            return []
        acks = [self.acks.get(ident) for ident in group.told if ident in members]
        if not acks or any(each is None for each in acks):
            return []
        group.is_ack_told = True
        last = max((each for each in acks if each is not None), key=lambda each: each.at)
        note = f"acknowledged by {last.by}" + (f": {last.comment}" if last.comment else "")
        fires = sorted(group.told.values(), key=_order)
        return self._notify(group, "acknowledged", fires, note, group.receivers, now)

    def _notify(
        self,
        group: _Group,
        kind: Kind,
        alerts: Sequence[Alert],
        note: str,
        receivers: Iterable[str],
        now: float,
    ) -> list[Notification]:
        more = len(alerts) - _MOST_TOLD
        if more > 0:
            note = f"{note}; " * bool(note) + f"and {more} more alerts"
        said = []
        for receiver in receivers:
            group.sequence += 1
            said.append(
                Notification(
                    id=f"{group.dedup}-{group.sequence}",
                    dedup=group.dedup,
                    kind=kind,
                    receiver=receiver,
                    at=now,
                    group=dict(group.labels),
                    alerts=tuple(alerts[:_MOST_TOLD]),
                    note=note,
                )
            )
        return said

    # -------------------------------------------------------------------------------- orders

    def acknowledge(self, alert: Alert, by: str, comment: str, now: float) -> Ack | None:
        """None when the alert does not fire."""
        if alert.state != "firing" or alert.fired_at is None:
            return None
        made = Ack(alert.id, by, comment, now, alert.fired_at)
        self.acks[alert.id] = made
        return made

    # ------------------------------------------------------------------------ over a restart

    def shift(self, by_s: float) -> None:
        """The clock was set by so much. Silences stay: people gave them times of the clock."""
        for group in self._groups.values():
            group.due += by_s
            group.last_told_at += by_s
            if group.first_told_at is not None:
                group.first_told_at += by_s
            group.told = {ident: _shifted(each, by_s) for ident, each in group.told.items()}
        self.acks = {
            ident: Ack(ack.alert, ack.by, ack.comment, ack.at + by_s, ack.fired_at + by_s)
            for ident, ack in self.acks.items()
        }

    def dump(self) -> dict[str, Any]:
        return {
            "groups": [
                {
                    "key": each.key,
                    "node": each.node.id,
                    "labels": dict(each.labels),
                    "began": each.began,
                    "due": each.due,
                    "told": [alert.to_json() for alert in each.told.values()],
                    "first_told_at": each.first_told_at,
                    "last_told_at": each.last_told_at,
                    "sequence": each.sequence,
                    "steps": each.steps,
                    "is_ack_told": each.is_ack_told,
                }
                for each in self._groups.values()
            ],
            "acks": [each.to_json() for each in self.acks.values()],
            "silences": [each.to_json() for each in self.silences.values()],
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        nodes = {each.id: each for each in self.routing.root.all()}
        for row in said.get("groups", ()):
            node = nodes.get(str(row["node"]))
            if node is None:
                continue
            labels = sorted_labels({str(k): str(v) for k, v in row["labels"].items()})
            if str(row["key"]) != f"{node.id}:{fingerprint(labels)}":
                continue
            told = [Alert.of_json(each) for each in row["told"]]
            first = row["first_told_at"]
            self._groups[str(row["key"])] = _Group(
                key=str(row["key"]),
                node=node,
                labels=labels,
                began=float(row["began"]),
                due=float(row["due"]),
                told={each.id: each for each in told},
                first_told_at=None if first is None else float(first),
                last_told_at=float(row["last_told_at"]),
                sequence=int(row["sequence"]),
                steps=min(int(row["steps"]), len(node.escalate)),
                is_ack_told=bool(row["is_ack_told"]),
            )
        for row in said.get("acks", ()):
            ack = Ack(
                str(row["alert"]),
                str(row["by"]),
                str(row["comment"]),
                float(row["at"]),
                float(row["fired_at"]),
            )
            self.acks[ack.alert] = ack
        for row in said.get("silences", ()):
            silence = Silence.of_json(row)
            self.silences[silence.id] = silence


def muted_reason(muted: Muted) -> str:
    if muted.silenced_by is not None:
        return f"silence {muted.silenced_by}"
    return f"explained by {muted.inhibited_by}"


def _differs(told: Alert, now: Alert) -> bool:
    """Whether its receivers should hear of it again. Another value alone is no news."""
    return (
        told.level != now.level
        or (now.is_flapping and not told.is_flapping)
        # It ended and began again between two notifications; while it flaps that is no news.
        or (told.fired_at != now.fired_at and not now.is_flapping)
    )


def _shifted(alert: Alert, by_s: float) -> Alert:
    fired_at, resolved_at = alert.fired_at, alert.resolved_at
    return replace(
        alert,
        since=alert.since + by_s,
        fired_at=None if fired_at is None else fired_at + by_s,
        resolved_at=None if resolved_at is None else resolved_at + by_s,
    )


def _ended(told: Alert, known: Alert | None, now: float) -> Alert:
    """The alert as it ended; a rule that was taken away ends its alerts, too."""
    if known is not None and known.state == "resolved":
        return known
    return Alert(
        id=told.id,
        rule=told.rule,
        labels=told.labels,
        level=told.level,
        state="resolved",
        value=told.value if known is None else known.value,
        since=told.since,
        fired_at=None,
        resolved_at=now,
        summary=told.summary,
        description=told.description,
        runbook=told.runbook,
    )


def _order(alert: Alert) -> tuple[int, str, Labels]:
    return -RANK[alert.level], alert.rule, alert.labels
