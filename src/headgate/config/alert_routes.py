"""`alerts: route:`, `inhibit:` and `mute:`: which alert goes to whom, and when nobody is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headgate.config.alert_texts import Clock, Label, MatcherText, OneOrMaps, Zone
from headgate.config.fields import Duration, Flag, Spec, Wait
from headgate.config.forms import OneOrMore
from headgate.config.naming import Name
from headgate.observe.alerts.matching import LabelMatcher, parse_matcher
from headgate.observe.alerts.muting import DAYS, Inhibition, MuteWindow
from headgate.observe.alerts.receivers import Receiver
from headgate.observe.alerts.routing import Escalation, Node, Routing
from headgate.observe.alerts.rules import AlertDefaults

__all__ = ["AlertRootSpec", "AlertWaySpec", "InhibitSpec", "MuteSpec", "routing_from"]

_D: Final = AlertDefaults()


class EscalationSpec(Spec):
    """Tell somebody else when nobody has acknowledged."""

    after: Wait = _D.escalate_after_s
    """How long the alert has been told without an answer (`headgate alerts ack`)."""

    to: Name
    """The receiver."""


class AlertWaySpec(Spec):
    to: Name | None = None
    """The receiver; that of the route above unless said."""

    group_by: Annotated[tuple[Label, ...], OneOrMore] | None = None
    """Alerts with the same values of these labels are one notification; `...` keeps all apart."""

    group_wait: Duration | None = None
    """How long the first notification of a group waits for more alerts. 30s unless said."""

    group_interval: Duration | None = None
    """How long the next one waits when alerts came or went. 5min unless said."""

    repeat_interval: Wait | None = None
    """How often it is told that nothing has changed. 4h unless said."""

    mute: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """Mute windows, by name, in which nothing new is told."""

    escalate: Annotated[tuple[EscalationSpec, ...], OneOrMaps] | None = None
    """Further receivers when nobody acknowledges."""


class AlertSubrouteSpec(AlertWaySpec):
    """A route below a route."""

    match: Annotated[tuple[MatcherText, ...], OneOrMore] = ()
    """Conditions on labels, all of which must hold: `severity="critical"`."""

    go_on: Flag = False
    """Whether the routes after this one are asked as well."""


class AlertRouteSpec(AlertSubrouteSpec):
    """Some alerts take another way. The first route whose conditions hold takes an alert."""

    routes: tuple[AlertSubrouteSpec, ...] = ()
    """Ways of some of these; what they do not say they have from here."""


class AlertRootSpec(AlertWaySpec):
    """The way of all alerts that no route below takes."""

    routes: tuple[AlertRouteSpec, ...] = ()
    """Ways of some alerts; what they do not say they have from here."""


class InhibitSpec(Spec):
    """While one alert fires, others that it explains are not told."""

    source: Annotated[tuple[MatcherText, ...], OneOrMore]
    """Conditions on the alert that explains."""

    target: Annotated[tuple[MatcherText, ...], OneOrMore]
    """Conditions on those that it explains."""

    equal: Annotated[tuple[Label, ...], OneOrMore] = ()
    """Labels that both must have the same value of."""


class MuteSpec(Spec):
    """Hours of the week in which routes that name it stay quiet."""

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], OneOrMore
    ] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    """Days; of a window over midnight that of its beginning."""

    from_: Annotated[Clock, Field(alias="from")] = 0
    """`"22:00"`"""

    to: Clock = 24 * 60
    """`"06:00"`, which may be of the next day."""

    zone: Zone = "UTC"
    """Of which clock, such as `Europe/Berlin`."""


def routing_from(
    route: AlertRootSpec,
    inhibit: Iterable[InhibitSpec],
    mute: Mapping[str, MuteSpec],
    receivers: Mapping[str, Receiver],
    *,
    first: str,
) -> Routing:
    """`first` is told where no route says who."""
    windows = {
        name: MuteWindow(
            name, frozenset(DAYS.index(day) for day in said.days), said.from_, said.to, said.zone
        )
        for name, said in mute.items()
    }
    root = _node("root", Node("root", first), route, (), windows, goes_on=False)
    inhibitions = tuple(
        Inhibition(_matchers(each.source), _matchers(each.target), each.equal) for each in inhibit
    )
    per_hour = {name: each.per_hour for name, each in receivers.items()}
    return Routing(root, inhibitions, per_hour)


def _matchers(texts: tuple[str, ...]) -> tuple[LabelMatcher, ...]:
    return tuple(parse_matcher(each) for each in texts)


def _node(
    where: str,
    above: Node,
    said: AlertWaySpec,
    matchers: tuple[LabelMatcher, ...],
    windows: Mapping[str, MuteWindow],
    *,
    goes_on: bool,
) -> Node:
    def or_above(value: Any, name: str) -> Any:
        return getattr(above, name) if value is None else value

    mute = above.mute
    if said.mute is not None:
        mute = tuple(windows[name] for name in said.mute if name in windows)
    escalate = above.escalate
    if said.escalate is not None:
        steps = sorted(said.escalate, key=lambda each: each.after)
        escalate = tuple(Escalation(each.after, each.to) for each in steps)
    node = Node(
        id=where,
        receiver=or_above(said.to, "receiver"),
        matchers=matchers,
        group_by=or_above(said.group_by, "group_by"),
        group_wait_s=or_above(said.group_wait, "group_wait_s"),
        group_interval_s=or_above(said.group_interval, "group_interval_s"),
        repeat_interval_s=or_above(said.repeat_interval, "repeat_interval_s"),
        mute=mute,
        escalate=escalate,
        goes_on=goes_on,
    )
    below = []
    for child in getattr(said, "routes", ()):
        own = _matchers(child.match)
        # By what it is for and not by its place, so that a route added before it moves no group.
        ident = f"{where}/{','.join(str(each) for each in own)}>{child.to or node.receiver}"
        below.append(_node(ident, node, child, own, windows, goes_on=child.go_on))
    return replace(node, routes=tuple(below))
