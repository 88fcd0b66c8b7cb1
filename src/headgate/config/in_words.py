"""What a policy's own rules say against themselves, in the words of the file.

Theory of operation
-------------------
Every policy judges its rules (``XRules.problems``), for programs as for files, and speaks of its
own fields: ``reset_max_s=30 is less than reset_s=60``. Here names become those of the file and
numbers get their units: ``reset_max 30s is less than reset_after 1min``. The problem is put at the
first of the named fields that the file says, since a default is seldom what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from headgate.config.faults import Loc
from headgate.config.fields import Spec
from headgate.config.problems import Problem
from headgate.config.walk import unit_of
from headgate.units import format_duration, format_percent

__all__ = ["judged"]

_WORD: Final = re.compile(
    r"(?<![\"\w])([a-z]+(?:_[a-z]+)*)(?:=([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?))?"
)
_NO_EFFECT: Final = "no effect"


def judged(
    problems: Iterable[str], spec: Spec, loc: Loc, names: Mapping[str, str] | None = None
) -> Iterator[Problem]:
    """Problems of rules that were made of ``spec``. ``names``: what the file calls a field of the
    rules, where it is another name.
    """
    for text in problems:
        shown, mentioned = _in_file_words(text, spec, names or {})
        at = next((name for name in mentioned if name in spec.model_fields_set), None)
        place = loc if at is None else (*loc, at)
        yield Problem(place, shown, warning=_NO_EFFECT in text, needs=(loc,))


def _in_file_words(text: str, spec: Spec, names: Mapping[str, str]) -> tuple[str, list[str]]:
    fields = type(spec).model_fields
    mentioned: list[str] = []

    def replace(found: re.Match[str]) -> str:
        word, number = found[1], found[2]
        name = names.get(word, word)
        if name not in fields and number is not None:
            return f"{word}: {number}"
        if name not in fields or (name == word and number is None and "_" not in word):
            if name in fields:
                mentioned.append(name)  # a plain word that is also a field: left as it is
            return found[0]
        mentioned.append(name)
        if number is None:
            return name
        unit = unit_of(fields[name])
        if word.endswith("_per_s"):
            return f"{name} {number}/s"
        if word.endswith("_s"):
            return f"{name} {format_duration(float(number))}"
        if unit is not None and unit.name == "percent":
            return f"{name} {format_percent(float(number))}"
        return f"{name} {number}"

    return _WORD.sub(replace, text), mentioned
