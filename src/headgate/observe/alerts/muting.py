"""What keeps an alert from being told: a silence, another alert, or the time of the week.

Theory of operation. None of these ends an alert or hides it from lists; only no notification begins
while it holds. An alert that was told before still has its end told. A silence is made by a person
for a time and always ends; an inhibition says that one alert explains another; a mute window is a
time of the week at which a route stays quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.matching import LabelMatcher, all_match, parse_matcher

__all__ = ["DAYS", "Inhibition", "MuteWindow", "Silence", "inhibited", "silenced_by"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Silence:
    id: str
    matchers: tuple[LabelMatcher, ...]
    starts: float
    ends: float
    author: str
    comment: str
    created: float

    def is_active(self, wall: float) -> bool:
        return self.starts <= wall < self.ends

    def mutes(self, labels: Mapping[str, str], wall: float) -> bool:
        return self.is_active(wall) and all_match(self.matchers, labels)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "matchers": [str(each) for each in self.matchers],
            "starts": self.starts,
            "ends": self.ends,
            "author": self.author,
            "comment": self.comment,
            "created": self.created,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Silence:
        return cls(
            id=str(said["id"]),
            matchers=tuple(parse_matcher(str(text)) for text in said["matchers"]),
            starts=float(said["starts"]),
            ends=float(said["ends"]),
            author=str(said["author"]),
            comment=str(said["comment"]),
            created=float(said["created"]),
        )


def silenced_by(silences: Iterable[Silence], alert: Alert, wall: float) -> str | None:
    """The id of a silence that holds."""
    labels = alert.matched
    return next((each.id for each in silences if each.mutes(labels, wall)), None)


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While an alert like `source` fires, those like `target` with the same `equal` labels are not
    told. An alert that is both source and target is not kept quiet by another such one, or two
    would silence each other.
    """

    source: tuple[LabelMatcher, ...]
    target: tuple[LabelMatcher, ...]
    equal: tuple[str, ...] = ()


def inhibited(rules: Sequence[Inhibition], alerts: Sequence[Alert]) -> dict[str, str]:
    """Alert id -> id of a firing alert that explains it. Linear in alerts for each rule."""
    found: dict[str, str] = {}
    firing = [(each, each.matched) for each in alerts if each.state == "firing"]
    for rule in rules:
        sources: dict[tuple[str, ...], list[tuple[str, bool]]] = {}
        for alert, labels in firing:
            if all_match(rule.source, labels):
                key = tuple(labels.get(name, "") for name in rule.equal)
                is_both = all_match(rule.target, labels)
                sources.setdefault(key, []).append((alert.id, is_both))
        if not sources:
            continue
        for alert, labels in firing:
            if alert.id in found or not all_match(rule.target, labels):
                continue
            is_source = all_match(rule.source, labels)
            key = tuple(labels.get(name, "") for name in rule.equal)
            for ident, is_both in sources.get(key, ()):
                if ident != alert.id and not (is_source and is_both):
                    found[alert.id] = ident
                    break
    return found


@dataclass(frozen=True, slots=True)
class MuteWindow:
    """Hours of some days of the week, in a time zone. Of a window over midnight, the day is that of
    its beginning.
    """

    name: str
    days: frozenset[int] = frozenset(range(7))
    from_minute: int = 0
    to_minute: int = 24 * 60
    zone: str = "UTC"

    def holds(self, wall: float) -> bool:
        at = datetime.fromtimestamp(wall, ZoneInfo(self.zone))
        minute = at.hour * 60 + at.minute
        today = at.weekday()
        if self.from_minute < self.to_minute:
            return today in self.days and self.from_minute <= minute < self.to_minute
        yesterday = (at - timedelta(days=1)).weekday()
        return (today in self.days and minute >= self.from_minute) or (
            yesterday in self.days and minute < self.to_minute
        )
