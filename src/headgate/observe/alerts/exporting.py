"""The same rules for a Prometheus, and the same routes for an Alertmanager.

Theory of operation. A rule with levels is one Prometheus rule for each, of one name and with the
label `severity`; an inhibition added to the Alertmanager's configuration keeps the lower quiet
while the higher fires, which is what one alert with a level is here. What has no equal there is
left out: hysteresis (`clear`), cooldown, flapping, escalation, `on_error`, limits an hour.
`no_data: alert` becomes a rule with `absent`. Secrets do not go out: receivers without a place for
one are named and empty, for whoever installs them to fill in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headgate.observe.alerts.receivers import EmailChannel, Receiver
from headgate.observe.alerts.routing import ALL, Node, Routing
from headgate.observe.alerts.rules import Rule
from headgate.observe.alerts.wording import to_go

__all__ = ["seconds", "to_alertmanager", "to_prometheus_rules"]


def seconds(value: float) -> str:
    """A duration as Prometheus reads it."""
    whole = round(value * 1000)
    if whole % 1000:
        return f"{whole}ms"
    whole //= 1000
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def to_prometheus_rules(rules: Iterable[Rule], *, group: str = "headgate") -> dict[str, Any]:
    """A rule file: `{"groups": [...]}`, a group for each pace of evaluation."""
    paces: dict[float, list[dict[str, Any]]] = {}
    for rule in rules:
        paces.setdefault(rule.every_s, []).extend(_exported(rule))
    first = min(paces, default=0.0)
    return {
        "groups": [
            {
                "name": group if pace == first else f"{group}-{seconds(pace)}",
                "interval": seconds(pace),
                "rules": exported,
            }
            for pace, exported in sorted(paces.items())
        ]
    }


def _exported(rule: Rule) -> Iterable[dict[str, Any]]:
    sign = ">" if rule.direction == "above" else "<"
    if not rule.thresholds:
        yield _one(rule, rule.expr, rule.level)
    for each in rule.thresholds:
        yield _one(rule, f"({rule.expr}) {sign} {each.bound!r}", each.level)
    if rule.no_data == "alert":
        made = _one(rule, f"absent({rule.expr})", rule.lowest)
        made["labels"]["no_data"] = "true"
        made["annotations"] = {"summary": f"{rule.name}: there is no data to judge"}
        yield made


def _one(rule: Rule, expr: str, level: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"alert": rule.name, "expr": expr}
    if rule.for_s:
        made["for"] = seconds(rule.for_s)
    if rule.keep_firing_s:
        made["keep_firing_for"] = seconds(rule.keep_firing_s)
    made["labels"] = {name: to_go(text, rule, level) for name, text in rule.labels}
    made["labels"]["severity"] = level
    texts = {
        "summary": to_go(rule.summary or "{rule}: {value}", rule, level),
        "description": to_go(rule.description, rule, level),
        "runbook_url": rule.runbook,
    }
    made["annotations"] = {name: text for name, text in texts.items() if text}
    return made


def to_alertmanager(routing: Routing, receivers: Sequence[Receiver] = ()) -> dict[str, Any]:
    """A configuration for Alertmanager 0.22 and later."""
    windows = {each.name: each for node in routing.root.all() for each in node.mute}
    named = {each.name: each for each in receivers}
    used = {node.receiver for node in routing.root.all()} | set(named)
    made: dict[str, Any] = {
        "route": _route(routing.root, is_root=True),
        "receivers": [_receiver(name, named.get(name)) for name in sorted(used)],
        "inhibit_rules": [
            {
                "source_matchers": ['severity="critical"'],
                "target_matchers": ['severity=~"warning|info"'],
                "equal": ["alertname", "route", "service", "service_instance", "path", "name"],
            },
            *(
                {
                    "source_matchers": [str(one) for one in each.source],
                    "target_matchers": [str(one) for one in each.target],
                    "equal": list(each.equal),
                }
                for each in routing.inhibitions
            ),
        ],
    }
    if windows:
        made["time_intervals"] = [
            {"name": name, "time_intervals": _intervals(each)} for name, each in windows.items()
        ]
    return made


def _route(node: Node, *, is_root: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {
        "receiver": node.receiver,
        "group_by": [ALL] if ALL in node.group_by else list(node.group_by),
        "group_wait": seconds(node.group_wait_s),
        "group_interval": seconds(node.group_interval_s),
        "repeat_interval": seconds(node.repeat_interval_s),
    }
    if not is_root:
        made["matchers"] = [str(each) for each in node.matchers]
        if node.goes_on:
            made["continue"] = True
        if node.mute:
            made["mute_time_intervals"] = [each.name for each in node.mute]
    if node.routes:
        made["routes"] = [_route(each) for each in node.routes]
    return made


def _intervals(window: Any) -> list[dict[str, Any]]:
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

    def one(days: Iterable[int], start: int, end: int) -> dict[str, Any]:
        said: dict[str, Any] = {
            "weekdays": [names[day] for day in sorted(days)],
            "times": [{"start_time": _clock(start), "end_time": _clock(end)}],
        }
        if window.zone != "UTC":
            said["location"] = window.zone
        return said

    start, end = window.from_minute, window.to_minute
    if start < end:
        return [one(window.days, start, end)]
    intervals = [one(window.days, start, 24 * 60)]
    if end:
        intervals.append(one({(day + 1) % 7 for day in window.days}, 0, end))
    return intervals


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _receiver(name: str, receiver: Receiver | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if receiver is None:
        return made
    for each in receiver.channels:
        if isinstance(each, EmailChannel):
            made.setdefault("email_configs", []).extend(
                {
                    "to": to,
                    "from": each.sender,
                    "smarthost": f"{each.host}:{each.port}",
                    "require_tls": each.tls != "none",
                    "send_resolved": receiver.tells_resolved,
                }
                for to in each.to
            )
    return made
