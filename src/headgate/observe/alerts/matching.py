"""Conditions on labels: `severity = critical`, `route =~ "api-.*"`; a missing label is empty."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from headgate.observe.label_patterns import PatternFault, label_pattern

__all__ = ["LabelMatcher", "MatcherFault", "all_match", "parse_matcher"]

Op = Literal["=", "!=", "=~", "!~"]
_TEXT: Final = re.compile(
    r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|(.*?))\s*'
)
_LONGEST: Final = 1000


class MatcherFault(ValueError):
    """The rule that the text of a matcher breaks."""


@dataclass(frozen=True, slots=True)
class LabelMatcher:
    label: str
    op: Op
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        said = labels.get(self.label, "")
        if self.op == "=":
            return said == self.value
        if self.op == "!=":
            return said != self.value
        is_like = label_pattern(self.value).fits(said)
        return is_like if self.op == "=~" else not is_like

    def __str__(self) -> str:
        value = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.op}"{value}"'


_ESCAPES: Final = {"n": "\n", '"': '"', "\\": "\\"}


def parse_matcher(text: str) -> LabelMatcher:
    """Raises MatcherFault with the rule broken."""
    found = _TEXT.fullmatch(text)
    if found is None or len(text) > _LONGEST:
        raise MatcherFault('is no condition on a label; write severity="critical" or route=~"a.*"')
    value = found[4] or ""
    if found[3] is not None:
        value = re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[0]), found[3])
    op = cast("Op", found[2])
    if op in ("=~", "!~"):
        try:
            label_pattern(value)
        except PatternFault as error:
            raise MatcherFault(f"has a pattern that {error}") from None
    return LabelMatcher(found[1], op, value)


def all_match(matchers: Iterable[LabelMatcher], labels: Mapping[str, Any]) -> bool:
    return all(each.matches(labels) for each in matchers)
