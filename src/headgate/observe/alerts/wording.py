"""Texts of alerts: a template over labels, value and bound, and the same for Prometheus.

Theory of operation
-------------------
A template is text with names in braces: `{route} fails {value}`. A name is a label, or one of
`value`, `bound`, `severity`, `rule`; `{value:percent}`, `:seconds`, `:bytes` and `:number` say how
a figure is written (by default as the rule's unit says), `{{` and `}}` are braces. There is no
logic in it: nothing a label holds is ever evaluated, and each template has an equal in Go's
templates, which a Prometheus rule needs. A label that is not there is empty, as it is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from headgate.observe.alerts.rules import Level, Rule
from headgate.units import format_percent, rough_duration, rough_size

__all__ = ["FORMS", "OWN", "TemplateFault", "Wording", "figure", "fill", "pieces", "to_go"]

OWN: Final = ("value", "bound", "severity", "rule")
FORMS: Final = ("percent", "seconds", "bytes", "number")
_LONGEST: Final = 2000
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?")
_GO_FORMS: Final = {
    "percent": "humanizePercentage",
    "seconds": "humanizeDuration",
    "bytes": "humanize1024",
    "number": "humanize",
}


class TemplateFault(ValueError):
    """The rule that a template breaks."""


def pieces(template: str) -> Iterator[tuple[str, str | None, str]]:
    """(text, None, "") or ("", name, form). Raises TemplateFault."""
    for found in _PIECE.finditer(template):
        text = found[0]
        if text in ("{{", "}}"):
            yield text[0], None, ""
        elif text in ("{", "}"):
            raise TemplateFault(f"has a {text} without its partner at {found.start() + 1}")
        elif found[1] is None:
            yield text, None, ""
        else:
            named = _NAME.fullmatch(found[1].strip())
            if named is None:
                raise TemplateFault(f"has {text}, which is no name; write a label in braces")
            form = named[2] or ""
            if form and form not in FORMS:
                raise TemplateFault(f"has the form {form!r}; forms are {', '.join(FORMS)}")
            if form and named[1] not in ("value", "bound"):
                raise TemplateFault(f"gives a form to {named[1]}; only value and bound have one")
            yield "", named[1], form


def figure(value: float | None, form: str) -> str:
    """A figure for people."""
    if value is None or math.isnan(value):
        return "nothing"
    if abs(value) == float("inf"):
        return "infinite" if value > 0 else "-infinite"
    if form == "percent":
        return format_percent(round(value, 4))
    if form == "seconds":
        if abs(value) < 10:
            return f"{value:.3g} s" if abs(value) >= 0.1 else f"{value * 1000:.3g} ms"
        return ("-" if value < 0 else "") + rough_duration(abs(value))
    if form == "bytes":
        return ("-" if value < 0 else "") + rough_size(abs(value))
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def fill(template: str, values: Mapping[str, str | float | None], unit: str = "") -> str:
    """Raises TemplateFault."""
    said = []
    for text, name, form in pieces(template):
        if name is None:
            said.append(text)
            continue
        value = values.get(name, "")
        if name in ("value", "bound"):
            said.append(figure(value if isinstance(value, float) else None, form or unit))
        else:
            said.append(str(value))
    return "".join(said)[:_LONGEST]


def to_go(template: str, rule: Rule, level: Level) -> str:
    """The same text as a template of Prometheus."""
    bound = rule.bound_of(level)
    said = []
    for text, name, form in pieces(template):
        if name is None:
            # Go's own braces would begin an action.
            said.append(text.replace("{", '{{ "{" }}') if "{" in text else text)
        elif name == "value":
            how = _GO_FORMS.get(form or rule.unit, "humanize")
            said.append(f"{{{{ $value | {how} }}}}")
        elif name == "bound":
            said.append(figure(bound, form or rule.unit) if bound is not None else "")
        elif name == "severity":
            said.append(level)
        elif name == "rule":
            said.append(rule.name)
        else:
            said.append(f"{{{{ $labels.{name} }}}}")
    return "".join(said)


class Wording:
    """The texts of one rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The rule's own, filled in. The value may not stand in a label: it would be another
        alert at each evaluation.
        """
        values = {**labels, "rule": self._rule.name}
        return {name: self._safe(text, values) for name, text in self._rule.labels}

    def texts(self, labels: Mapping[str, str], value: float, level: Level) -> tuple[str, str]:
        rule = self._rule
        values: dict[str, str | float | None] = {
            **labels,
            "value": value,
            "bound": rule.bound_of(level),
            "severity": level,
            "rule": rule.name,
        }
        mark = next((m for m in ("no_data", "error", "overflow") if labels.get(m) == "true"), "")
        if mark == "no_data":
            return f"{rule.name}: there is no data to judge", f"{rule.expr} answers nothing."
        if mark == "error":
            return f"{rule.name}: cannot be evaluated", f"{rule.expr} fails."
        if mark == "overflow":
            return (
                f"{rule.name}: {figure(value, '')} more alerts are not shown",
                f"The rule keeps {rule.most} alerts at most; narrow its expression or add it up.",
            )
        return (
            self._safe(rule.summary or "{rule}: {value}", values),
            self._safe(rule.description, values),
        )

    def _safe(self, template: str, values: Mapping[str, str | float | None]) -> str:
        try:
            return fill(template, values, self._rule.unit)
        except TemplateFault:
            return template[:_LONGEST]
