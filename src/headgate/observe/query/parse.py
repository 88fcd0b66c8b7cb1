"""Text to tree: words by precedence, kinds checked, our own functions written out.

Theory of operation
-------------------
Operators bind as in PromQL: `or`; `and unless`; comparisons; `+ -`; `* / %`; the sign; `^`, which
alone binds to the right. What an argument must be (a range, a vector, a number, a text) is checked
here, so that evaluation meets no surprise. `ratio` and `percentile` are our own; the tree has what
they stand for, and any Prometheus would answer it alike.
"""

from __future__ import annotations

import difflib
from typing import Final, Literal

from headgate.observe.label_patterns import PatternFault, label_pattern
from headgate.observe.query.lexer import Token, duration_s, tokens, unsafe_pattern
from headgate.observe.query.model import Matcher, QueryFault, Rules
from headgate.observe.query.syntax import (
    Aggregate,
    Binary,
    Call,
    Expr,
    Matching,
    Negative,
    Number,
    Select,
    Text,
    kind_of,
)

__all__ = ["AGGREGATES", "FUNCTIONS", "parse"]

AGGREGATES: Final = frozenset(
    ("sum", "avg", "min", "max", "count", "topk", "bottomk", "quantile", "stddev", "group")
)
_WITH_PARAMETER: Final = frozenset(("topk", "bottomk", "quantile"))

FUNCTIONS: Final[dict[str, str]] = {
    # v vector, r range, s scalar, t text; a small letter after ? may be left out
    **dict.fromkeys(("rate", "irate", "increase", "delta", "deriv", "changes", "resets"), "r"),
    **{
        f"{name}_over_time": "r"
        for name in ("avg", "min", "max", "sum", "count", "last", "stddev", "absent", "present")
    },
    "quantile_over_time": "sr",
    "predict_linear": "rs",
    "histogram_quantile": "sv",
    **dict.fromkeys(("abs", "ceil", "floor", "sqrt", "ln", "log2", "log10", "exp"), "v"),
    "round": "v?s",
    "clamp": "vss",
    "clamp_min": "vs",
    "clamp_max": "vs",
    "scalar": "v",
    "vector": "s",
    "time": "",
    "label_replace": "vtttt",
    "absent": "v",
    "sort": "v",
    "sort_desc": "v",
}
_OURS: Final = ("ratio", "percentile")
_KINDS: Final[dict[str, tuple[str, str]]] = {
    "v": ("vector", "series at one moment, such as name{...}"),
    "r": ("range", "a range, such as name[5m]"),
    "s": ("scalar", "a number"),
    "t": ("text", "a text in quotes"),
}
_BINDS: Final = {
    "or": 1,
    "and": 2,
    "unless": 2,
    **dict.fromkeys(("==", "!=", "<=", ">=", "<", ">"), 3),
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "^": 7,
}
_SIGN_BINDS: Final = 6
_MAX_WHOLE: Final = 100
_COMPARES: Final = frozenset(("==", "!=", "<=", ">=", "<", ">"))
_SETS: Final = frozenset(("and", "or", "unless"))
_WORDS: Final = frozenset(
    ("by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", *_SETS)
)


def parse(text: str, rules: Rules = Rules()) -> Expr:  # noqa: B008  frozen
    """Read an expression. Raises QueryFault."""
    if len(text) > rules.max_text:
        raise QueryFault(f"the expression has {len(text)} letters, {rules.max_text} are allowed")
    reader = _Reader(tokens(text), rules.max_depth)
    if not text.strip() or reader.is_over():
        raise QueryFault("the expression is empty", 0, "write the name of a metric")
    expr = reader.expression(0)
    if not reader.is_over():
        raise QueryFault(f"{_shown(reader.now)} is not expected here", reader.now.position)
    if kind_of(expr) == "range":
        raise QueryFault(
            "a range is no answer by itself",
            expr.position,
            "put it into a function, such as rate(...) or avg_over_time(...)",
        )
    return expr


def _shown(token: Token) -> str:
    return "the end" if token.sort == "end" else f'"{token.text}"'


class _Reader:
    def __init__(self, words: list[Token], max_depth: int) -> None:
        self._words = words
        self._at = 0
        self._depth = 0
        self._max_depth = max_depth

    @property
    def now(self) -> Token:
        return self._words[self._at]

    def is_over(self) -> bool:
        return self.now.sort == "end"

    def _next(self) -> Token:
        token = self._words[self._at]
        if token.sort != "end":
            self._at += 1
        return token

    def _is(self, text: str) -> bool:
        return self.now.sort in {"sign", "name"} and self.now.text == text

    def _skip(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str, hint: str = "") -> Token:
        if not self._is(text):
            raise QueryFault(
                f'"{text}" is expected, not {_shown(self.now)}', self.now.position, hint
            )
        return self._next()

    # ----------------------------------------------------------------------------- operators

    def expression(self, binds: int) -> Expr:
        self._depth += 1
        if self._depth > self._max_depth:
            raise QueryFault(
                f"the expression is nested more than {self._max_depth} deep", self.now.position
            )
        left = self._signed()
        chained = 0
        while True:
            token = self.now
            strength = _BINDS.get(token.text, 0) if token.sort in {"sign", "name"} else 0
            if not strength or strength < binds:
                break
            chained += 1
            if self._depth + chained > self._max_depth:
                raise QueryFault(f"more than {self._max_depth} operators in a row", token.position)
            self._next()
            is_bool = token.text in _COMPARES and self._skip("bool")
            matching = self._matching(token)
            right = self.expression(strength if token.text == "^" else strength + 1)
            left = _binary(token, left, right, is_bool, matching)
        self._depth -= 1
        return left

    def _signed(self) -> Expr:
        token = self.now
        if token.sort == "sign" and token.text in "+-":
            self._next()
            inner = self.expression(_SIGN_BINDS)
            if kind_of(inner) not in {"scalar", "vector"}:
                raise QueryFault("only numbers and vectors have a sign", token.position)
            if token.text == "+":
                return inner
            if isinstance(inner, Number):
                return Number(-inner.value, token.position)
            return Negative(inner, token.position)
        return self._suffixed(self._primary())

    def _suffixed(self, expr: Expr) -> Expr:
        while self._is("[") or self._is("offset") or self._is("@"):
            token = self._next()
            if token.text == "@":
                raise QueryFault("@ is not supported", token.position, "ask at another time")
            if not isinstance(expr, Select):
                raise QueryFault(
                    f'"{token.text}" follows a selector, not an expression',
                    token.position,
                    "subqueries are not supported",
                )
            if token.text == "[":
                seconds = self._duration()
                if self._is(":"):
                    raise QueryFault("subqueries are not supported", self.now.position)
                self._expect("]")
                if expr.range_s or expr.offset_s:
                    raise QueryFault("the range stands right after the selector", token.position)
                if seconds <= 0:
                    raise QueryFault("a range is longer than nothing", token.position)
                expr = Select(expr.name, expr.matchers, seconds, 0.0, expr.position)
            else:
                sign = -1.0 if self._skip("-") else 1.0
                expr = Select(
                    expr.name, expr.matchers, expr.range_s, sign * self._duration(), expr.position
                )
        return expr

    def _duration(self) -> float:
        token = self._next()
        if token.sort != "duration":
            raise QueryFault(
                f"a duration is expected, not {_shown(token)}",
                token.position,
                "such as 5m or 1h30m",
            )
        return duration_s(token.text)

    def _matching(self, token: Token) -> Matching:
        if not (self._is("on") or self._is("ignoring")):
            return Matching()
        is_on = self._next().text == "on"
        labels = self._labels()
        many: Literal["", "left", "right"] = ""
        include: tuple[str, ...] = ()
        if self._is("group_left") or self._is("group_right"):
            if token.text in _SETS:
                raise QueryFault(f'"{token.text}" has no {self.now.text}', self.now.position)
            many = "left" if self._next().text == "group_left" else "right"
            if self._is("("):
                include = self._labels()
        return Matching(is_on, labels, many, include)

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        found: list[str] = []
        while not self._is(")"):
            token = self._next()
            if token.sort != "name" or ":" in token.text:
                raise QueryFault(f"a label is expected, not {_shown(token)}", token.position)
            found.append(token.text)
            if not self._skip(","):
                break
        self._expect(")")
        return tuple(found)

    # ------------------------------------------------------------------------------ primaries

    def _primary(self) -> Expr:
        token = self._next()
        if token.sort == "number":
            return Number(_number(token.text), token.position)
        if token.sort == "text":
            return Text(token.text, token.position)
        if token.sort == "duration":
            raise QueryFault(
                f'"{token.text}" is a duration, and stands in [...] or after offset only',
                token.position,
                f"as a number it is {duration_s(token.text):g} (seconds)",
            )
        if token.sort == "sign" and token.text == "(":
            inner = self.expression(0)
            self._expect(")", f"it was opened at {token.position + 1}")
            return inner
        if token.sort == "sign" and token.text == "{":
            return self._select("", token.position)
        if token.sort != "name":
            raise QueryFault(
                f"a metric, a function or a number is expected, not {_shown(token)}",
                token.position,
            )
        if token.text in AGGREGATES and (self._is("(") or self._is("by") or self._is("without")):
            return self._aggregate(token)
        if token.text == "percentile" and (self._is("(") or self._is("by")):
            return self._percentile(token)
        if self._is("("):
            return self._call(token)
        if token.text.lower() in {"inf", "nan"}:
            return Number(float(token.text.lower()), token.position)
        if token.text in _WORDS:
            raise QueryFault(f'"{token.text}" is not expected here', token.position)
        if self._skip("{"):
            return self._select(token.text, token.position)
        return Select(token.text, position=token.position)

    def _select(self, name: str, position: int) -> Select:
        found: list[Matcher] = []
        while not self._is("}"):
            label = self._next()
            if label.sort != "name" or ":" in label.text:
                raise QueryFault(f"a label is expected, not {_shown(label)}", label.position)
            sign, value = self._next(), self._next()
            if sign.sort != "sign" or sign.text not in {"=", "!=", "=~", "!~"}:
                raise QueryFault(f"= != =~ or !~ is expected, not {_shown(sign)}", sign.position)
            if value.sort != "text":
                raise QueryFault(
                    f"a text is expected, not {_shown(value)}",
                    value.position,
                    f'write {label.text}{sign.text}"..."',
                )
            if sign.text in {"=~", "!~"}:
                try:
                    label_pattern(value.text)
                except PatternFault as error:
                    shown = f"{value.text[:100]!r}"
                    raise QueryFault(f"the pattern {shown} {error}", value.position) from None
            if name and label.text == "__name__":
                raise QueryFault("the name is said twice", label.position)
            found.append(Matcher(label.text, sign.text, value.text))  # type: ignore[arg-type]
            if not self._skip(","):
                break
        self._expect("}")
        if not name and all(matcher.is_met_by("") for matcher in found):
            raise QueryFault(
                "that would be every series there is", position, "say a name or a label's value"
            )
        return Select(name, tuple(found), position=position)

    def _grouping(self) -> tuple[tuple[str, ...], bool] | None:
        if self._is("by") or self._is("without"):
            is_without = self._next().text == "without"
            return self._labels(), is_without
        return None

    def _aggregate(self, token: Token) -> Expr:
        grouping = self._grouping()
        arguments = self._arguments()
        grouping = grouping or self._grouping() or ((), False)
        wanted = 2 if token.text in _WITH_PARAMETER else 1
        if len(arguments) != wanted:
            raise QueryFault(
                f"{token.text} takes {wanted} argument{'s' * (wanted > 1)}, not {len(arguments)}",
                token.position,
            )
        if wanted == 2:
            _check(token.text, arguments[0], "s")
        _check(token.text, arguments[-1], "v")
        parameter = arguments[0] if wanted == 2 else None
        return Aggregate(token.text, arguments[-1], parameter, *grouping, token.position)

    def _arguments(self) -> list[Expr]:
        self._expect("(")
        found: list[Expr] = []
        while not self._is(")"):
            found.append(self.expression(0))
            if not self._skip(","):
                break
        self._expect(")")
        return found

    def _call(self, token: Token) -> Expr:
        name, at = token.text, token.position
        if name not in FUNCTIONS and name not in _OURS:
            near = difflib.get_close_matches(name, (*FUNCTIONS, *AGGREGATES, *_OURS), n=1)
            hint = f'did you mean "{near[0]}"?' if near else "see the reference of the language"
            raise QueryFault(f'there is no function "{name}"', at, hint)
        arguments = self._arguments()
        if name == "ratio":
            return _ratio(arguments, at)
        signature, _, optional = FUNCTIONS[name].partition("?")
        least, most = len(signature), len(signature) + len(optional)
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} or {most}"
            raise QueryFault(
                f"{name} takes {wanted} argument{'s' * (wanted != '1')}, not {len(arguments)}", at
            )
        for argument, kind in zip(arguments, signature + optional, strict=False):
            _check(name, argument, kind)
        if name == "label_replace":
            pattern = arguments[4]
            why = unsafe_pattern(pattern.value) if isinstance(pattern, Text) else None
            if why is not None:
                raise QueryFault(f"the pattern {why}", pattern.position)
        return Call(name, tuple(arguments), at)

    def _percentile(self, token: Token) -> Expr:
        """`percentile(0.95, name{...}, 5m) by (route)`."""
        usage = "write percentile(0.95, name{...}, 5m), with by (...) if wanted"
        grouping = self._grouping()
        self._expect("(")
        share = self.expression(0)
        _check("percentile", share, "s")
        self._expect(",", usage)
        of = self.expression(0)
        self._expect(",", usage)
        window_s = self._duration()
        self._expect(")", usage)
        grouping = grouping or self._grouping() or ((), False)
        if not isinstance(of, Select) or of.range_s or not of.name or window_s <= 0 or grouping[1]:
            raise QueryFault("percentile is of a histogram", token.position, usage)
        name = of.name.removesuffix("_bucket")
        at = token.position
        buckets = Select(f"{name}_bucket", of.matchers, window_s, of.offset_s, of.position)
        rates = Call("rate", (buckets,), at)
        summed = Aggregate("sum", rates, None, ("le", *grouping[0]), False, at)
        return Call("histogram_quantile", (share, summed), at)


def _number(text: str) -> float:
    return float(int(text, 16)) if text[:2].lower() == "0x" else float(text)


def _ratio(arguments: list[Expr], at: int) -> Expr:
    """Of what is there: nothing counted is 0, and of nothing there is no ratio."""
    if len(arguments) != 2 or any(kind_of(one) != "vector" for one in arguments):
        raise QueryFault(
            "ratio is of two vectors",
            at,
            'such as ratio(sum(rate(x{code=~"5.."}[5m])), sum(rate(x[5m])))',
        )
    part, whole = arguments
    if _size(whole) > _MAX_WHOLE:  # it is written out twice, and so on inward
        raise QueryFault("ratio is nested too deep", at)
    none = Binary("*", whole, Number(0.0, at), position=at)
    there = Binary("or", part, none, position=at)
    some = Binary("!=", whole, Number(0.0, at), position=at)
    return Binary("/", there, some, position=at)


def _size(expr: Expr) -> int:
    match expr:
        case Call():
            return 1 + sum(map(_size, expr.arguments))
        case Aggregate():
            return 1 + _size(expr.of) + (_size(expr.parameter) if expr.parameter else 0)
        case Binary():
            return 1 + _size(expr.left) + _size(expr.right)
        case Negative():
            return 1 + _size(expr.of)
        case _:
            return 1


def _check(name: str, argument: Expr, kind: str) -> None:
    wanted, said = _KINDS[kind]
    have = kind_of(argument)
    if have == wanted:
        return
    hint = ""
    if wanted == "range" and isinstance(argument, Select):
        hint = f"write {argument.name}[5m]"
    elif have == "range":
        hint = "put the range into a function, such as rate(...)"
    raise QueryFault(f"{name} takes {said} here", argument.position, hint)


def _binary(token: Token, left: Expr, right: Expr, is_bool: bool, matching: Matching) -> Expr:
    kinds = (kind_of(left), kind_of(right))
    at, op = token.position, token.text
    for side, kind in zip((left, right), kinds, strict=True):
        if kind not in {"scalar", "vector"}:
            raise QueryFault(f'"{op}" is between numbers and vectors', side.position)
    if op in _SETS and "scalar" in kinds:
        raise QueryFault(f'"{op}" is between vectors', at, "write vector(...) around the number")
    if op in _COMPARES and kinds == ("scalar", "scalar") and not is_bool:
        raise QueryFault("two numbers are compared with bool", at, f"write {op} bool")
    if matching != Matching() and "scalar" in kinds:
        raise QueryFault("on and ignoring are between vectors", at)
    return Binary(op, left, right, is_bool, matching, at)
