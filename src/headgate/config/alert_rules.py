"""`alerts: rules:` and what they make of the rules that hold by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headgate.config.alert_texts import Bound, Label
from headgate.config.fields import Duration, Percent, Positive, Spec, Text, Wait, Words
from headgate.config.forms import OrFalse
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.rules import AlertDefaults, Flapping, Level, Rule, Threshold

__all__ = ["AlertRuleSpec", "FlappingSpec", "rules_from"]

_D: Final = AlertDefaults()
_F: Final = Flapping()


class FlappingSpec(Spec):
    """When an alert that comes and goes is one notice instead of many. It is held as firing and
    marked until it calms down.
    """

    window: Annotated[Positive, Field(ge=5, le=200)] = _F.window
    """So many evaluations are looked at."""

    begins: Percent = _F.begins_at
    """It flaps when so many of them differ from the one before."""

    ends: Percent = _F.ends_at
    """It no longer does when so few do."""


class AlertRuleSpec(Spec):
    """One alert rule. Under the name of a rule that is there by itself it changes what it says and
    leaves the rest; `false` switches such a rule off.
    """

    expr: Text | None = None
    """An expression as of Prometheus (`docs/reference/query.md`). With `warning` or `critical`
    it is a figure; without, it compares: `queue_length > 100`."""

    warning: Bound | None = None
    """Beyond it the alert is a warning: a number, or with a unit `70%`, `2s`, `1GB`."""

    critical: Bound | None = None
    """Beyond it the alert is critical."""

    clear: Bound | None = None
    """The alert ends only on the good side of this, so that a figure around the bound does not
    end and begin it again and again. By default the lower of the bounds."""

    clear_critical: Bound | None = None
    """The same for the way from critical back to warning."""

    direction: Annotated[Literal["above", "below"] | None, Words("`above` or `below`")] = None
    """Which side of the bounds is bad; `above` unless said."""

    severity: Annotated[
        Literal["info", "warning", "critical"] | None, Words("`info` or `warning` or `critical`")
    ] = None
    """The level of a rule without bounds; `warning` unless said."""

    for_: Annotated[Duration | None, Field(alias="for")] = None
    """It must hold for so long before it fires. 1min unless said."""

    keep_firing_for: Duration | None = None
    """It fires on for so long after it no longer holds. Not at all unless said."""

    cooldown: Duration | None = None
    """After its end it does not fire again for so long, unless at a higher level."""

    flapping: Annotated[FlappingSpec | Literal[False], OrFalse()] | None = None
    """See there; `false` tells every change."""

    labels: dict[Label, Text] = Field(default_factory=dict)
    """Labels to add, for routes and silences; templates over the others: `team: "{owner}"`."""

    summary: Text | None = None
    """One line: `{route}: {value} of the requests fail`. In braces stand labels, `value`, `bound`,
    `severity` and `rule`; `{value:percent}`, `:seconds`, `:bytes` and `:number` say how a figure is
    written."""

    description: Text | None = None
    """More on it; a template as well."""

    runbook: Text | None = None
    """The address of a page that says what to do."""

    unit: Annotated[
        Literal["", "percent", "seconds", "bytes"] | None,
        Words("`percent` or `seconds` or `bytes`"),
    ] = None
    """How figures are written where a template does not say."""

    no_data: Annotated[
        Literal["ok", "keep", "alert"] | None, Words("`ok` or `keep` or `alert`")
    ] = None
    """What it means that there is no figure: all is well (as in Prometheus), the alert stays as it
    is for an hour, or this is an alert itself."""

    on_error: Annotated[Literal["keep", "alert"] | None, Words("`keep` or `alert`")] = None
    """What it means that the expression fails: the alert stays as it is, or this is an alert."""

    most: Annotated[Positive, Field(le=1000)] | None = None
    """Alerts it may have at once, 100 unless said; one more says how many there are beyond."""

    every: Wait | None = None
    """How often it is judged; that of `alerts` unless said."""


def rules_from(
    written: Mapping[str, AlertRuleSpec | Literal[False]],
    *,
    built_in: bool,
    every_s: float,
    generated: Iterable[Rule] = (),
) -> tuple[Rule, ...]:
    """Those that hold by themselves or follow from other sections, as the file changes them, then
    its own.
    """
    made = []
    given = [replace(rule, every_s=every_s) for rule in BUILT_IN] if built_in else []
    for rule in (*given, *generated):
        said = written.get(rule.name)
        if said is not False:
            made.append(_changed(rule, said) if said is not None else rule)
    names = {rule.name for rule in made}
    for name, said in written.items():
        if said is not False and name not in names and said.expr is not None:
            base = Rule(name=name, expr=said.expr, for_s=_D.for_s, every_s=every_s)
            made.append(_changed(base, said))
    return tuple(made)


def _changed(rule: Rule, said: AlertRuleSpec) -> Rule:
    simple = {
        "expr": said.expr,
        "direction": said.direction,
        "level": said.severity,
        "for_s": said.for_,
        "keep_firing_s": said.keep_firing_for,
        "cooldown_s": said.cooldown,
        "summary": said.summary,
        "description": said.description,
        "runbook": said.runbook,
        "unit": said.unit,
        "no_data": said.no_data,
        "on_error": said.on_error,
        "most": said.most,
        "every_s": said.every,
    }
    changes: dict[str, Any] = {name: each for name, each in simple.items() if each is not None}
    if said.labels:
        changes["labels"] = tuple(sorted({**dict(rule.labels), **said.labels}.items()))
    if said.flapping is not None:
        flaps = said.flapping
        changes["flapping"] = (
            Flapping(flaps.window, flaps.begins, flaps.ends) if flaps is not False else None
        )
    made = replace(rule, **changes)
    return replace(made, thresholds=_thresholds(made, said))


def _thresholds(rule: Rule, said: AlertRuleSpec) -> tuple[Threshold, ...]:
    known = {each.level: each for each in rule.thresholds}
    if said.expr is not None and said.warning is None and said.critical is None:
        known = {}  # another expression: the bounds were of the one before
    clears: dict[Level, float | None] = {}
    for level, bound in (("warning", said.warning), ("critical", said.critical)):
        if bound is not None:
            known[level] = Threshold(level, bound, bound)  # type: ignore[arg-type,index]
    levels: list[Level] = [each for each in ("warning", "critical") if each in known]
    if levels and said.clear is not None:
        clears[levels[0]] = said.clear
    if said.clear_critical is not None:
        clears["critical"] = said.clear_critical
    found = []
    for level in levels:
        each = known[level]
        clear = clears.get(level)
        found.append(each if clear is None else replace(each, clear=clear))
    return tuple(found)
