"""A schema that is compiled when it is first needed, and what it finds, in plain words.

Theory of operation. The question asked of almost every request is only whether it is valid; that
stops at the first fault and costs little. Only for what is not valid the faults are gathered, and
because the library gathers all of them, which a body made of nothing but faults turns into
seconds, a big value is told its first fault alone, and nothing of the alternatives it did not fit.

What an editor must not break: no value of a request stands in a message, only names of
properties, cut short. So nothing secret can.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.references import pointer_of
from headgate.security.validation.rules import FAULTS_MAX, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.security.validation.rules import Place

__all__ = ["Checker", "Compiled", "Shelf"]

_CLIP: Final = 40
_CLIP_SCHEMA: Final = 120
_SMALL: Final = 2000
"""Values up to which all faults are gathered: about 20 ms when each is one."""
_DEFINITIONS_MAX: Final = 10_000
"""Definitions in compiled validators: some 50 MB, more where there are many patterns."""
_BEST: Final = 3
"""Faults told of the alternative that fitted best."""
_BASE64: Final = re.compile(
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
).fullmatch


def is_base64(text: str) -> bool:
    """RFC 4648 section 4, padded."""
    return _BASE64(text) is not None


class Shelf:
    """Keeps compiled validators, up to so many definitions in all of them; the oldest go first.

    In a document where everything refers to everything, each operation's validator is as large as
    the document.
    """

    __slots__ = ("_kept", "_most", "_weight")

    def __init__(self, most: int = _DEFINITIONS_MAX) -> None:
        self._most = most
        self._weight = 0
        self._kept: dict[Checker, int] = {}

    def put(self, checker: Checker, weight: int) -> None:
        """Take in what was just compiled, and let others go to make room."""
        while self._kept and self._weight + weight > self._most:
            oldest = next(iter(self._kept))
            self._weight -= self._kept.pop(oldest)
            oldest.forget()
        self._kept[checker] = weight
        self._weight += weight


@dataclass(frozen=True, slots=True)
class Compiled:
    validator: Any
    weight: int = 1
    """Definitions in it."""
    telling: Callable[[], Any] | None = None
    """Makes the validator that gathers faults without looking into alternatives, or None where
    there is no such. Without it there are no alternatives."""
    repeats: bool = False
    """Whether alternatives may be nested without end, so that they must not be looked into."""


class Checker:
    """Holds values against one schema. With a shelf, what is compiled may be let go and be
    compiled again.
    """

    __slots__ = ("_build", "_compiled", "_shelf", "_teller", "place")

    def __init__(
        self, build: Callable[[], Compiled], place: Place, shelf: Shelf | None = None
    ) -> None:
        self._build = build
        self._shelf = shelf
        self._compiled: Compiled | None = None
        self._teller: Any = None
        self.place = place

    def compile(self) -> Compiled:
        """Compile the schema where that was not done yet."""
        compiled = self._compiled
        if compiled is None:
            compiled = self._compiled = self._build()
            if self._shelf is not None:
                self._shelf.put(self, compiled.weight)
        return compiled

    def forget(self) -> None:
        self._compiled = self._teller = None

    def faults(self, value: Any, size: int = 0) -> tuple[Fault, ...]:
        """What is wrong with `value`, which has about `size` values in it."""
        compiled = self._compiled or self.compile()
        try:
            if compiled.validator.is_valid(value):
                return ()
            if compiled.telling is None or (size <= _SMALL and not compiled.repeats):
                teller = compiled.validator
            else:
                teller = self._teller = self._teller or compiled.telling()
            told = dict.fromkeys(self._told(teller, value, size)) if teller is not None else ()
        except (UnicodeEncodeError, RecursionError):
            return (Fault(self.place, "", "cannot be read", "encoding"),)
        return tuple(told)[:FAULTS_MAX] or (Fault(self.place, "", _DOES_NOT_FIT, "schema"),)

    def _told(self, teller: Any, value: Any, size: int) -> Iterator[Fault]:
        if size <= _SMALL:
            for count, error in enumerate(teller.iter_errors(value)):
                if count >= FAULTS_MAX:
                    return
                yield from _faults_of(error, self.place)
            return
        try:
            teller.validate(value)
        except ValueError as error:
            yield from _faults_of(error, self.place)


def clipped(text: str, length: int = _CLIP) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _pointer(path: list[str | int]) -> str:
    return pointer_of([clipped(t) if isinstance(t, str) else t for t in path])


def _faults_of(error: Any, place: Place) -> Iterator[Fault]:
    kind = error.kind
    keyword: str = kind.name
    path = list(error.instance_path)
    said = kind.as_dict()
    if keyword == "required":
        yield Fault(place, _pointer([*path, said["property"]]), "is missing", keyword)
    elif keyword in ("additionalProperties", "unevaluatedProperties"):
        for name in said["unexpected"][:5]:
            yield Fault(place, _pointer([*path, name]), "is not known here", keyword)
    elif keyword in ("oneOf", "anyOf"):
        yield from _of_alternatives(said.get("context") or [], place, path, keyword)
    elif keyword == "not" and (word := _marked(said.get("schema"))) is not None:
        yield Fault(place, _pointer(path), _MARKS[word], word)
    else:
        yield Fault(place, _pointer(path), _words(keyword, said), keyword)


def _marked(schema: Any) -> str | None:
    """What a `not` of our own making stands for."""
    word = schema.get("$comment") if isinstance(schema, dict) else None
    return word if isinstance(word, str) and word in _MARKS else None


def _of_alternatives(
    context: list[list[Any]], place: Place, path: list[str | int], keyword: str
) -> Iterator[Fault]:
    fitting = sum(not branch for branch in context)
    if fitting > 1:
        detail = "fits more than one of the alternatives, of which exactly one may hold"
        yield Fault(place, _pointer(path), detail, keyword)
        return
    yield Fault(place, _pointer(path), "fits none of the alternatives", keyword)
    level = len(path)
    # Alternatives of another type were not meant. Of several that are left, the one was meant of
    # which all that is wrong lies deeper.
    meant = [
        branch
        for branch in context
        if not any(len(e.instance_path) == level and e.kind.name == "type" for e in branch)
    ]
    if len(meant) > 1:
        meant = [b for b in meant if all(len(e.instance_path) > level for e in b)]
    if meant:
        for error in min(meant, key=len)[:_BEST]:
            yield from _faults_of(error, place)


def _listed(values: Any) -> str:
    return clipped(", ".join(_scalar(value) for value in values[:20]), _CLIP_SCHEMA)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clipped(str(value))


def _words(keyword: str, said: dict[str, Any]) -> str:
    """What a schema wants; all of it stands in the schema."""
    limit = said.get("limit")
    plural = "" if limit == 1 else "s"
    match keyword:
        case "type":
            return f"must be {' or '.join(sorted(said['types'], key=lambda t: t == 'null'))}"
        case "enum":
            return f"must be one of {_listed(said['options'])}"
        case "const":
            return f"must be {_scalar(said['expected_value'])}"
        case "minimum":
            return f"must be at least {limit}"
        case "maximum":
            return f"must be at most {limit}"
        case "exclusiveMinimum":
            return f"must be more than {limit}"
        case "exclusiveMaximum":
            return f"must be less than {limit}"
        case "multipleOf":
            return f"must be a multiple of {said['multiple_of']}"
        case "minLength":
            return f"must have at least {limit} character{plural}"
        case "maxLength":
            return f"must have at most {limit} character{plural}"
        case "minItems":
            return f"must have at least {limit} item{plural}"
        case "maxItems" | "additionalItems":
            return f"must have at most {limit} item{plural}"
        case "minProperties":
            return f"must have at least {limit} propert{'y' if limit == 1 else 'ies'}"
        case "maxProperties":
            return f"must have at most {limit} propert{'y' if limit == 1 else 'ies'}"
        case "pattern":
            pattern = said.get("pattern")
            return f"must match {clipped(pattern, _CLIP_SCHEMA)}" if pattern else "does not match"
        case "format":
            return f"is not a valid {said['format']}"
        case "propertyNames":
            return "has a property whose name is not allowed"
    return _PLAIN.get(keyword, f"does not hold what {keyword} says")


_PLAIN: Final = {
    "contains": "has none of the items it must have",
    "falseSchema": "may not be sent",
    "not": "has a form that is not allowed",
    "unevaluatedItems": "has items that are not known here",
    "uniqueItems": "has the same item twice",
}

_MARKS: Final = {
    "readOnly": "is read-only and may not be sent",
    "writeOnly": "is write-only and may not be sent",
    "anyOf": "fits none of the alternatives",
    "oneOf": "fits none of the alternatives, or more than one",
}
_DOES_NOT_FIT: Final = "does not fit its schema"
