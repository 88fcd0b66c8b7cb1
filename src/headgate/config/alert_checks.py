"""Checks of the `alerts:` section that need all of it: names, expressions, templates, bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from headgate.config.alert_receivers import LOG, receiver_from
from headgate.config.alert_routes import AlertWaySpec
from headgate.config.alert_rules import AlertRuleSpec
from headgate.config.alerting import AlertsSpec, rules_of
from headgate.config.budgets import generated_rules
from headgate.config.faults import Loc, did_you_mean
from headgate.config.problems import Problem
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.rendering import BODY_NAMES
from headgate.observe.alerts.rules import Rule
from headgate.observe.alerts.wording import OWN, TemplateFault, pieces
from headgate.observe.metrics import METRICS

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = ["check_alerts"]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check_alerts(config: Config) -> Iterator[Problem]:
    """What single fields cannot say: names, expressions, templates, bounds."""
    spec = getattr(config, "alerts", None)
    if not isinstance(spec, AlertsSpec):
        return
    yield from _check_rules(spec, generated_rules(config))
    yield from _check_receivers(spec)
    known = {*spec.receivers, LOG}
    yield from _check_way(spec, spec.route, ("alerts", "route"), known)
    if spec.heartbeat is not None:
        loc: Loc = ("alerts", "heartbeat")
        if (spec.heartbeat.url is None) == (spec.heartbeat.to is None):
            yield Problem(loc, "needs one of `url` and `to`")
        elif spec.heartbeat.to is not None and spec.heartbeat.to not in known:
            yield _unknown((*loc, "to"), spec.heartbeat.to, known)
    for name, text in spec.links.items():
        names = ("expr", "rule", "id", "route", "service", "from", "to")
        yield from _check_template(("alerts", "links", name), text, names)


def _unknown(loc: Loc, name: str, known: set[str]) -> Problem:
    hint = did_you_mean(name, known) or f"receivers are {', '.join(sorted(known))}"
    return Problem(loc, "no receiver has the name {value}", hint)


def _check_rules(spec: AlertsSpec, generated: tuple[Rule, ...]) -> Iterator[Problem]:
    there = {rule.name: rule for rule in BUILT_IN} if spec.built_in else {}
    there |= {rule.name: rule for rule in generated}
    made = {rule.name: rule for rule in rules_of(spec, generated)}
    for name, said in spec.rules.items():
        loc: Loc = ("alerts", "rules", name)
        if said is False:
            if name not in there:
                hint = did_you_mean(name, there) or f"there are {', '.join(there)}"
                yield Problem(loc, "no such rule is there to switch off", hint, at_key=True)
            continue
        if said.expr is None and name not in there:
            hint = did_you_mean(name, there) or "write expr: and an expression"
            yield Problem(
                loc, "has no `expr`, and no rule of this name is there", hint, at_key=True
            )
            continue
        rule = made[name]
        if said.expr is not None:
            yield from _check_expr((*loc, "expr"), said.expr, bool(rule.thresholds))
        yield from _check_bounds(loc, rule, said)
        for field in ("summary", "description"):
            text = getattr(said, field)
            if text is not None:
                yield from _check_template((*loc, field), text, None)
        for label, text in said.labels.items():
            at: Loc = (*loc, "labels", label)
            if label in ("alertname", "severity", *OWN):
                yield Problem(at, f"{label} is a label that rules cannot set", at_key=True)
            yield from _check_template(at, text, None, refused=("value", "bound", "severity"))
        if rule.no_data != "ok" and not rule.thresholds and said.no_data is not None:
            yield Problem(
                (*loc, "no_data"),
                "{value} has no meaning where the expression compares: no sample is its good case",
                "take the comparison out of `expr` and write it as `warning` or `critical`",
                warning=True,
            )


def _check_bounds(loc: Loc, rule: Rule, said: AlertRuleSpec) -> Iterator[Problem]:
    bounds = {each.level: each for each in rule.thresholds}
    low, high = bounds.get("warning"), bounds.get("critical")
    if (
        low
        and high
        and not (low.bound <= high.bound if rule.direction == "above" else low.bound >= high.bound)
    ):
        field = "critical" if said.critical is not None else "warning"
        other = "less" if rule.direction == "above" else "more"
        yield Problem(
            (*loc, field),
            f"critical is {other} than warning, so there is no warning before it",
            "swap them, or write direction: below where small figures are bad",
        )
    for each in rule.thresholds:
        if rule.is_beyond(each.clear, each.bound):
            field = "clear" if said.clear is not None else each.level
            yield Problem(
                (*loc, field),
                f"the alert would end at a worse figure than it begins ({each.level})",
                "`clear` lies on the good side of the bound",
            )
    if (said.clear is not None or said.clear_critical is not None) and not rule.thresholds:
        yield Problem((*loc, "clear"), "needs `warning` or `critical`", at_key=True)
    if said.severity is not None and rule.thresholds:
        yield Problem(
            (*loc, "severity"),
            "has no effect beside `warning` and `critical`",
            at_key=True,
            warning=True,
        )
    if said.flapping and said.flapping.ends >= said.flapping.begins:
        yield Problem((*loc, "flapping", "ends"), "is not less than `begins`")


def _check_expr(loc: Loc, expr: str, has_bounds: bool) -> Iterator[Problem]:
    try:
        from headgate.observe.query import QueryFault, parse, selectors
    except ImportError:  # numpy is not there; whoever judges rules says so
        return
    try:
        tree = parse(expr)
    except QueryFault as error:
        yield Problem(loc, f"{error.message} (at character {error.position + 1})", error.hint)
        return
    for each in selectors(tree):
        name = getattr(each, "name", "")
        if name.startswith("headgate_") and name not in _known_names():
            hint = did_you_mean(name, _known_names())
            yield Problem(loc, f"there is no metric {name}", hint, warning=True)
    compares = re.search(r"[<>]|[=!]=(?!~)", re.sub(r'"[^"]*"|\'[^\']*\'|\{[^}]*\}', "", expr))
    if not has_bounds and compares is None and not expr.lstrip().startswith(("absent", "changes")):
        yield Problem(
            loc,
            "has no comparison, so it is an alert for every series at any value",
            "add one as in x > 100, or write `warning:` or `critical:`",
            warning=True,
        )


def _known_names() -> set[str]:
    names = set()
    for metric in METRICS.values():
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{ending}" for ending in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return names


def _check_template(
    loc: Loc, text: str, known: tuple[str, ...] | None, refused: tuple[str, ...] = ()
) -> Iterator[Problem]:
    try:
        for _, name, _ in pieces(text):
            if name is not None and name in refused:
                hint = "the alert would be another one at each evaluation"
                yield Problem(loc, f"a template of a label cannot hold the {name}", hint)
            if name is not None and known is not None and name not in known:
                hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
                yield Problem(loc, f"nothing is known here as {name}", hint)
    except TemplateFault as error:
        yield Problem(loc, str(error))


def _check_receivers(spec: AlertsSpec) -> Iterator[Problem]:
    for name, said in spec.receivers.items():
        loc: Loc = ("alerts", "receivers", name)
        if not receiver_from(name, said).channels:
            yield Problem(
                loc,
                "has no way to be told",
                "write slack:, email:, webhook: or another",
                at_key=True,
            )
        if said.http is not None:
            for at, text in _texts(said.http.body, ()):
                yield from _check_template((*loc, "http", "body", *at), text, BODY_NAMES)
        for kind in ("slack", "teams", "webhook", "http", "pagerduty"):
            url = getattr(getattr(said, kind), "url", "")
            if url.startswith("http://") and urlsplit(url).hostname not in _LOOPBACK:
                yield Problem(
                    (*loc, kind), "goes over the network in the clear", "use https://", warning=True
                )
        mail = said.email
        if mail is not None:
            if mail.password and not mail.username:
                yield Problem((*loc, "email"), "has a `password` and no `username`")
            if mail.tls == "none" and mail.host not in _LOOPBACK:
                hint = "write tls: starttls or tls: tls"
                at_tls: Loc = (*loc, "email", "tls")
                yield Problem(
                    at_tls, "mail and log-in go in the clear", hint, warning=not mail.password
                )
            for at_to, address in enumerate(mail.to):
                if "@" not in address or any(each in address for each in "\r\n"):
                    yield Problem((*loc, "email", "to", at_to), "{value} is no address")


def _texts(body: Any, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(body, str):
        yield at, body
    elif isinstance(body, Mapping):
        for name, each in body.items():
            yield from _texts(each, (*at, str(name)))
    elif isinstance(body, (list, tuple)):
        for index, each in enumerate(body):
            yield from _texts(each, (*at, index))


def _check_way(spec: AlertsSpec, way: AlertWaySpec, loc: Loc, known: set[str]) -> Iterator[Problem]:
    if way.to is not None and way.to not in known:
        yield _unknown((*loc, "to"), way.to, known)
    for at, step in enumerate(way.escalate or ()):
        if step.to not in known:
            yield _unknown((*loc, "escalate", at, "to"), step.to, known)
        elif step.to == way.to:
            yield Problem(
                (*loc, "escalate", at, "to"),
                "{value} is who was told before: a circle",
                "name somebody else",
            )
    for at, name in enumerate(way.mute or ()):
        if name not in spec.mute:
            hint = did_you_mean(name, spec.mute) or "write it under alerts: mute:"
            yield Problem((*loc, "mute", at), "no mute window has the name {value}", hint)
    seen: dict[tuple[str, ...], int] = {}
    for at, child in enumerate(getattr(way, "routes", ())):
        below: Loc = (*loc, "routes", at)
        if not child.match and not child.go_on and at + 1 < len(getattr(way, "routes", ())):
            yield Problem(
                below, "takes every alert, so the routes after it never do", "write match:"
            )
        first = seen.setdefault(tuple(sorted(child.match)), at)
        if first != at and not way.routes[first].go_on:  # type: ignore[attr-defined]
            yield Problem(
                below,
                "never takes an alert: one before it has the same conditions",
                see=(*loc, "routes", first),
                warning=True,
            )
        yield from _check_way(spec, child, below, known)
