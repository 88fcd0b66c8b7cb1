"""YAML text to plain values, as JSON would hold them.

Theory of operation. PyYAML's own constructor follows YAML 1.1, for which `2026-01-01` is a date,
`no` is false and `12:30` is a number; descriptions of interfaces are written for the core schema
of YAML 1.2, in which they are text, and a schema's `enum: [on, off]` must stay what it is. So
values are made here from the parser's events. That also counts: the depth, and what aliases
amount to, because nine lines of them can stand for a billion values. Anchors are known once their
node is complete, so there are no cycles. Keys are always text: `200:` is "200".
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from headgate.security.validation.rules import DocumentInvalid

__all__ = ["parse_yaml"]

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH: Final = 200
_MAX_VALUES: Final = 3_000_000
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300})").fullmatch
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,64}").fullmatch
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?").fullmatch
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]").match
_WORDS: Final[dict[str, Any]] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MERGE: Final = "<<"


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("anchor", "key", "merges", "value", "weight")

    def __init__(self, value: list[Any] | dict[str, Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.merges: list[Any] = []
        self.weight = 1


def parse_yaml(text: str, name: str) -> Any:
    """The only document of `text`; raises DocumentInvalid with `name` and the line."""
    try:
        return _read(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        msg = f"{name}{line}: {error.problem or 'is not YAML'}"
        raise DocumentInvalid(msg) from None
    except yaml.YAMLError as error:
        msg = f"{name}: is not YAML: {str(error).splitlines()[0][:120]}"
        raise DocumentInvalid(msg) from None


def _read(text: str, name: str) -> Any:
    anchors: dict[str, tuple[Any, int]] = {}
    values: list[Any] = []
    stack = [_Open(values, None)]
    total = 0
    documents = 0
    event: Any  # what an event has depends on its kind
    for event in yaml.parse(text, Loader=_LOADER):
        kind = type(event)
        weight = 1
        if kind is yaml.ScalarEvent:
            value = _scalar(event, stack[-1])
            if event.anchor is not None:
                anchors[event.anchor] = (value, 1)
        elif kind is yaml.AliasEvent:
            known = anchors.get(event.anchor)
            if known is None:
                raise _fault(name, event, f"alias *{event.anchor} is not defined before")
            value, weight = known
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if len(stack) > _MAX_DEPTH:
                raise _fault(name, event, f"is nested deeper than {_MAX_DEPTH} levels")
            stack.append(_Open({} if kind is yaml.MappingStartEvent else [], event.anchor))
            continue
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            done = stack.pop()
            _merge(done, name, event)
            value, weight = done.value, done.weight
            if done.anchor is not None:
                anchors[done.anchor] = (value, weight)
        else:
            if kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _fault(name, event, "a second document in one file is not understood")
            continue
        total += weight
        if total > _MAX_VALUES:
            raise _fault(name, event, f"has more than {_MAX_VALUES} values, counting aliases")
        _put(stack[-1], value, weight, name, event)
    return values[0] if values else None


def _put(into: _Open, value: Any, weight: int, name: str, event: Any) -> None:
    into.weight += weight
    holder = into.value
    if isinstance(holder, list):
        holder.append(value)
    elif into.key is None:
        if not isinstance(value, str):
            raise _fault(name, event, "a key must be text")
        into.key = value
    else:
        key, into.key = into.key, None
        if key == _MERGE:
            into.merges.append(value)
        elif key in holder:
            raise _fault(name, event, f'the key "{key[:80]}" stands twice')
        else:
            holder[key] = value


def _merge(done: _Open, name: str, event: Any) -> None:
    for merged in done.merges:
        for each in merged if isinstance(merged, list) else [merged]:
            if not isinstance(each, dict) or not isinstance(done.value, dict):
                raise _fault(name, event, "<< takes a mapping or a list of mappings")
            for key, value in each.items():
                done.value.setdefault(key, value)


def _scalar(event: Any, holder: _Open) -> Any:
    text: str = event.value
    is_key = isinstance(holder.value, dict) and holder.key is None
    if is_key or not event.implicit[0]:
        # Quoted, a key, or tagged; tags other than text have no meaning in a JSON value.
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "+-.0123456789":
        if _INT(text):
            return int(text)
        if _HEX(text):
            return int(text, 16)
        if _FLOAT(text) and not _LEADING_ZERO(text):
            return float(text)
    return text


def _fault(name: str, event: Any, what: str) -> DocumentInvalid:
    return DocumentInvalid(f"{name}:{event.start_mark.line + 1}: {what}")
