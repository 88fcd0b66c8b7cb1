"""Alerts: rules over figures, who is told of what, and what was sent.

Pure: `Judge` (one rule over time), `Telling` (groups, repeats, escalations), `Allowances`,
`Outbox`, `replay`, the exports. `Sender` and `Keeper` are the rim. Nothing heavy is imported here.
"""

from __future__ import annotations

from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.exporting import to_alertmanager, to_prometheus_rules
from headgate.observe.alerts.judging import Judge
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.routing import Node, Routing
from headgate.observe.alerts.rules import AlertDefaults, Flapping, Rule, Threshold
from headgate.observe.alerts.telling import Telling

__all__ = [
    "BUILT_IN",
    "Alert",
    "AlertDefaults",
    "Flapping",
    "Judge",
    "Node",
    "Notification",
    "Routing",
    "Rule",
    "Telling",
    "Threshold",
    "to_alertmanager",
    "to_prometheus_rules",
]
