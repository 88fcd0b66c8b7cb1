"""The `alerts:` section: rules, receivers, routes, mute windows.

Theory of operation. The file changes the rules that hold by themselves (`observe.alerts.built_in`)
by name, and adds its own: `rules_of` puts both together. What the section says of an alert's way is
made one `Routing` by `routing_of`. Whether names exist and expressions can be read is asked by
`alert_checks`, because it needs the whole section.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field

from headgate.config.alert_receivers import LOG, ReceiverSpec, receivers_from
from headgate.config.alert_routes import AlertRootSpec, InhibitSpec, MuteSpec, routing_from
from headgate.config.alert_rules import AlertRuleSpec, rules_from
from headgate.config.alert_texts import OneOrMaps
from headgate.config.fields import Flag, Positive, Spec, Text, Wait
from headgate.config.forms import OrFalse
from headgate.config.naming import Name, Url
from headgate.observe.alerts.receivers import Receiver
from headgate.observe.alerts.routing import Routing
from headgate.observe.alerts.rules import AlertDefaults, Rule

__all__ = ["Alerts", "AlertsSpec", "receivers_of", "routing_of", "rules_of"]

_D: Final = AlertDefaults()


class HeartbeatSpec(Spec):
    """A sign of life while rules are judged, for a service that raises the alarm without it."""

    url: Url | None = None
    """Asked for with GET. It may be a secret: write `${env:NAME}`."""

    to: Name | None = None
    """Or a receiver that is told."""

    every: Wait = _D.heartbeat_s
    """How often."""


class AlertsSpec(Spec):
    """Who is told when something is wrong. A dozen rules hold by themselves (processor 70/90 %,
    memory 80/95 %, response time 2/5 s, error rate 5/10 %, cache hit rate 80/60 %, instances down,
    open breakers, certificates, restarts, disk and more); without receivers they are told in the
    log and by `headgate alerts`.
    """

    every: Wait = _D.every_s
    """How often rules are judged."""

    timeout: Wait = _D.evaluation_timeout_s
    """How long one rule may take. A slow one delays no other."""

    rules: dict[Name, Annotated[AlertRuleSpec | Literal[False], OrFalse()]] = Field(
        default_factory=dict
    )
    """Rules by name: your own, changes to those that are there, or `false` to switch one off."""

    built_in: Flag = True
    """Whether rules hold that nobody wrote."""

    receivers: dict[Name, ReceiverSpec] = Field(default_factory=dict)
    """Who is told, by name."""

    route: AlertRootSpec = AlertRootSpec()
    """Which alert goes to whom."""

    inhibit: Annotated[tuple[InhibitSpec, ...], OneOrMaps] = ()
    """Alerts that explain others."""

    mute: dict[Name, MuteSpec] = Field(default_factory=dict)
    """Hours of the week, by name."""

    heartbeat: HeartbeatSpec | None = None
    """A sign of life. Off unless said."""

    send_timeout: Wait = _D.timeout_s
    """How long one attempt to send may take."""

    give_up_after: Wait = _D.give_up_after_s
    """How long a notification is tried to be sent."""

    keep_notifications: Annotated[Positive, Field(le=1_000_000)] = _D.notifications_kept
    """So many attempts are kept in the log of notifications."""

    url: Url | None = None
    """Where readers of notifications reach this gateway's admin API, for links."""

    links: dict[Name, Text] = Field(default_factory=dict)
    """Further links in notifications, by name: URLs with `{expr}`, `{rule}`, `{id}`, `{route}`,
    `{service}`, `{from}` and `{to}` (seconds since 1970)."""


Alerts = Annotated[AlertsSpec | Literal[False], OrFalse()]
"""`alerts: false` judges no rules."""


def rules_of(spec: AlertsSpec, generated: Iterable[Rule] = ()) -> tuple[Rule, ...]:
    """`generated` are those that follow from other sections (`budgets.generated_rules`)."""
    return rules_from(spec.rules, built_in=spec.built_in, every_s=spec.every, generated=generated)


def receivers_of(spec: AlertsSpec) -> dict[str, Receiver]:
    return receivers_from(spec.receivers)


def routing_of(spec: AlertsSpec) -> Routing:
    first = next(iter(spec.receivers)) if len(spec.receivers) == 1 else LOG
    receivers = receivers_of(spec)
    return routing_from(spec.route, spec.inhibit, spec.mute, receivers, first=first)
