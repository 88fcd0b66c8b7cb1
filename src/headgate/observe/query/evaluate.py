"""Tree and series to answers, for all moments at once.

What an editor must not break: every array that is made is charged to the budget before, so that no
question can take more memory or time than `Rules` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from headgate.observe.label_patterns import search_cost
from headgate.observe.query import aggregate as aggregating
from headgate.observe.query.binary import between_blocks, between_scalars, with_scalar
from headgate.observe.query.block import Block, empty, nameless, unique
from headgate.observe.query.histograms import histogram_quantile
from headgate.observe.query.model import (
    Floats,
    Matcher,
    QueryFault,
    Rollup,
    Rules,
    Sample,
    Series,
    Source,
    is_stale,
)
from headgate.observe.query.syntax import (
    Aggregate,
    Binary,
    Call,
    Expr,
    Negative,
    Number,
    Select,
    Text,
)
from headgate.observe.query.windows import (
    WINDOWED,
    Window,
    predict_linear,
    quantile_over_time,
    span_of,
)

__all__ = ["evaluate", "evaluate_range"]

_RULES: Final = Rules()
_MOST_WAYS: Final = 2e6
"""That Python's matcher may try on one label: some ten milliseconds in which nothing else runs."""
_LONGEST_LABEL: Final = 4096
_SORTED: Final = {"topk": -1.0, "sort_desc": -1.0, "bottomk": 1.0, "sort": 1.0}


def evaluate(expr: Expr, source: Source, at: float, rules: Rules = _RULES) -> list[Sample]:
    """The answer at one moment. What is there has a sample; a number has one without labels."""
    block = _block(_Walk(source, np.array([at]), rules), expr)
    found = [
        Sample(labels, float(block.values[row, 0]))
        for row, labels in enumerate(block.labels)
        if block.have[row, 0]
    ]
    top = expr.op if isinstance(expr, Aggregate) else getattr(expr, "function", "")
    if top in _SORTED:
        found.sort(key=lambda sample: _SORTED[top] * sample.value)
    return found


def evaluate_range(
    expr: Expr, source: Source, start: float, end: float, step: float, rules: Rules = _RULES
) -> list[Series]:
    """The answers from `start` to `end`, one every `step` seconds."""
    if not (step > 0 and np.isfinite(step)):
        raise QueryFault("a step is longer than nothing")
    if not (np.isfinite(start) and np.isfinite(end)) or end < start:
        raise QueryFault("the end is before the start")
    steps = int((end - start) / step + 1e-9) + 1
    if steps > rules.max_steps:
        raise QueryFault(
            f"that is {steps} steps, {rules.max_steps} are allowed",
            0,
            f"make the step {(end - start) / rules.max_steps:.3g} s or longer",
        )
    moments = (start + np.arange(steps) * step).astype(np.float64)
    block = _block(_Walk(source, moments, rules), expr)
    found: list[Series] = []
    for row, labels in enumerate(block.labels):
        have = block.have[row]
        if have.any():
            found.append(Series(labels, moments[have], block.values[row][have]))
    return found


def _block(walk: _Walk, expr: Expr) -> Block:
    made = walk.of(expr)
    if isinstance(made, str):
        raise QueryFault("a text is no answer", expr.position)
    if isinstance(made, Block):
        return made
    return Block([{}], made[None, :], np.ones((1, len(made)), dtype=bool))


class _Walk:
    def __init__(self, source: Source, moments: Floats, rules: Rules) -> None:
        self._source = source
        self._moments = moments
        self._rules = rules
        self._left = rules.max_samples
        self._done: dict[int, Block | Floats | str] = {}  # a node may stand at several places

    def of(self, expr: Expr) -> Block | Floats | str:
        done = self._done.get(id(expr))
        if done is None:
            self._check(expr.position)
            done = self._done[id(expr)] = self._made(expr)
        return done

    def _made(self, expr: Expr) -> Block | Floats | str:
        match expr:
            case Number():
                return np.full(len(self._moments), expr.value)
            case Text():
                return expr.value
            case Select():
                return self._instant(expr)
            case Call():
                return self._call(expr)
            case Aggregate():
                parameter = self._scalar(expr.parameter) if expr.parameter is not None else None
                block = self._vector(expr.of)
                self._charge(block.values.size, expr.position)
                return aggregating.aggregate(expr, block, parameter)
            case Negative():
                of = self.of(expr.of)
                if isinstance(of, Block):
                    labels = [nameless(one) for one in of.labels]
                    return unique(Block(labels, -of.values, of.have), expr.position)
                return -self._scalar(expr.of)
            case Binary():
                return self._binary(expr)

    def _vector(self, expr: Expr) -> Block:
        made = self.of(expr)
        if not isinstance(made, Block):
            raise QueryFault("series are expected here", expr.position)
        return made

    def _scalar(self, expr: Expr) -> Floats:
        made = self.of(expr)
        if not isinstance(made, np.ndarray):
            raise QueryFault("a number is expected here", expr.position)
        return made

    # -------------------------------------------------------------------------------- bounds

    def _check(self, position: int) -> None:
        if self._rules.is_over():
            raise QueryFault(
                "the answer takes too long", position, "ask for fewer series or a shorter time"
            )

    def _charge(self, samples: int, position: int) -> None:
        self._left -= samples
        if self._left < 0:
            raise QueryFault(
                f"more than {self._rules.max_samples} samples would have to be read",
                position,
                "ask for fewer series, a shorter time or a longer step",
            )

    # ----------------------------------------------------------------------------- selectors

    def _selected(self, asked: Select, back_s: float) -> list[Series]:
        moments = self._moments - asked.offset_s
        matchers: tuple[Matcher, ...] = asked.matchers
        found = self._source.select(
            asked.name, matchers, float(moments[0]) - back_s, float(moments[-1])
        )
        if len(found) > self._rules.max_series:
            raise QueryFault(
                f"{len(found)} series are meant, {self._rules.max_series} are allowed",
                asked.position,
                "add a condition on a label",
            )
        self._charge(
            sum(len(one.times) for one in found) + len(found) * len(moments), asked.position
        )
        return [_named(one, asked.name) for one in found]

    def _instant(self, asked: Select) -> Block:
        moments = self._moments - asked.offset_s
        series = self._selected(asked, self._rules.lookback_s)
        if not series:
            return empty(len(moments))
        values = np.zeros((len(series), len(moments)))
        have = np.zeros(values.shape, dtype=bool)
        for row, one in enumerate(series):
            times = np.asarray(one.times, dtype=np.float64)
            if not len(times):
                continue
            of = np.asarray(one.values, dtype=np.float64)
            last = np.searchsorted(times, moments, side="right") - 1
            place = np.maximum(last, 0)
            values[row] = of[place]
            age_s = moments - times[place]
            is_young = age_s < self._rules.lookback_s
            if self._rules.is_closed:
                is_young = age_s <= self._rules.lookback_s
            have[row] = (last >= 0) & is_young & ~is_stale(values[row])
        rows = np.flatnonzero(have.any(axis=1))
        block = Block([series[row].labels for row in rows], values[rows], have[rows])
        return unique(block, asked.position)

    def _windows(self, asked: Select, made: Callable[[Window], Any]) -> list[tuple[Series, Any]]:
        moments = self._moments - asked.offset_s
        found: list[tuple[Series, Any]] = []
        for at, one in enumerate(self._selected(asked, asked.range_s)):
            if not at % 64:
                self._check(asked.position)
            times = np.asarray(one.times, dtype=np.float64)
            values = np.asarray(one.values, dtype=np.float64)
            rollup = one.rollup
            ended = is_stale(values)
            if ended.any():
                times, values, rollup = times[~ended], values[~ended], _without(rollup, ended)
            if not len(times):
                continue
            low, high = span_of(times, moments, asked.range_s, is_closed=self._rules.is_closed)
            self._charge(int((high - low).sum()) // 8, asked.position)
            window = Window(
                times, values, rollup, low, high, moments, asked.range_s, moments, self._rules
            )
            found.append((one, made(window)))
        return found

    # ----------------------------------------------------------------------------- functions

    def _call(self, asked: Call) -> Block | Floats | str:
        name, arguments = asked.function, asked.arguments
        if name in WINDOWED:
            return self._windowed(asked, arguments[0], WINDOWED[name])
        match name:
            case "quantile_over_time":
                shares = self._scalar(arguments[0])
                return self._windowed(
                    asked, arguments[1], lambda window: quantile_over_time(window, shares)
                )
            case "predict_linear":
                ahead = self._scalar(arguments[1])
                return self._windowed(
                    asked, arguments[0], lambda window: predict_linear(window, ahead)
                )
            case "absent_over_time":
                found = self._windowed(asked, arguments[0], WINDOWED["present_over_time"])
                return self._absent(arguments[0], found)
            case "absent":
                return self._absent(arguments[0], self._vector(arguments[0]))
            case "histogram_quantile":
                return histogram_quantile(self._scalar(arguments[0]), self._vector(arguments[1]))
            case "time":
                return self._moments
            case "vector":
                made = self._scalar(arguments[0])
                return Block([{}], made[None, :], np.ones((1, len(made)), dtype=bool))
            case "scalar":
                block = self._vector(arguments[0])
                is_one = block.have.sum(axis=0) == 1
                return np.where(is_one, np.where(block.have, block.values, 0.0).sum(axis=0), np.nan)
            case "label_replace":
                return self._label_replace(asked)
            case "sort" | "sort_desc":
                return self._vector(arguments[0])
            case _:
                return self._elementwise(asked)

    def _windowed(self, asked: Call, of: Expr, made: Callable[[Window], Any]) -> Block:
        if not isinstance(of, Select):
            raise QueryFault("a range is expected here", of.position)
        found = self._windows(of, made)
        if not found:
            return empty(len(self._moments))
        keeps_name = asked.function == "last_over_time"
        labels = [one.labels if keeps_name else nameless(one.labels) for one, _ in found]
        values = np.array([values for _, (values, _) in found])
        have = np.array([have for _, (_, have) in found])
        rows = np.flatnonzero(have.any(axis=1))
        block = Block([labels[row] for row in rows], values[rows], have[rows])
        return unique(block, asked.position)

    def _absent(self, of: Expr, block: Block) -> Block:
        labels: dict[str, str] = {}
        if isinstance(of, Select):
            said = [matcher.label for matcher in of.matchers]
            labels = {
                matcher.label: matcher.value
                for matcher in of.matchers
                if matcher.op == "="
                and matcher.label != "__name__"
                and said.count(matcher.label) < 2
            }
        have = np.asarray(~block.have.any(axis=0))
        return Block([labels], np.ones((1, len(have))), have[None, :])

    def _elementwise(self, asked: Call) -> Block:
        block = self._vector(asked.arguments[0])
        self._charge(block.values.size, asked.position)
        with_ = [self._scalar(one) for one in asked.arguments[1:]]
        have = block.have
        with np.errstate(all="ignore"):
            match asked.function:
                case "round":
                    inverse = 1.0 / with_[0] if with_ else 1.0
                    made = np.floor(block.values * inverse + 0.5) / inverse
                case "clamp":
                    made = np.fmax(with_[0], np.fmin(with_[1], block.values))
                    made = np.where(np.isnan(block.values), np.nan, made)
                    have = have & ~(with_[0] > with_[1])
                case "clamp_min":
                    made = np.maximum(block.values, with_[0])
                case "clamp_max":
                    made = np.minimum(block.values, with_[0])
                case name:
                    made = _PLAIN[name](block.values)
        labels = [nameless(one) for one in block.labels]
        return unique(Block(labels, made, have), asked.position)

    def _label_replace(self, asked: Call) -> Block:
        block = self._vector(asked.arguments[0])
        target, template, origin, pattern = (str(self.of(one)) for one in asked.arguments[1:])
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", target):
            raise QueryFault(f"{target!r} is no label", asked.arguments[1].position)
        compiled = re.compile(pattern, re.DOTALL)
        longest = max((len(labels.get(origin, "")) for labels in block.labels), default=0)
        if search_cost(pattern, longest) > _MOST_WAYS:
            raise QueryFault(
                f"the pattern could take for ever on a label of {longest} letters",
                asked.arguments[4].position,
                "repeat less, and say what stands between the repeats",
            )
        made = []
        for labels in block.labels:
            match = compiled.fullmatch(labels.get(origin, ""))
            if match is None:
                made.append(labels)
                continue
            changed = dict(labels)
            value = _expanded(template, match)
            if len(value) > _LONGEST_LABEL:
                raise QueryFault(
                    f"a label would have {len(value)} letters", asked.arguments[2].position
                )
            if value:
                changed[target] = value
            else:
                changed.pop(target, None)
            made.append(changed)
        return unique(Block(made, block.values, block.have), asked.position)

    def _binary(self, asked: Binary) -> Block | Floats:
        left, right = self.of(asked.left), self.of(asked.right)
        if isinstance(left, str) or isinstance(right, str):
            raise QueryFault("a text cannot be reckoned with", asked.position)
        if isinstance(left, Block):
            self._charge(left.values.size, asked.position)
            if isinstance(right, Block):
                self._charge(right.values.size, asked.position)
                return between_blocks(asked, left, right)
            return with_scalar(asked, left, right, is_left=True)
        if isinstance(right, Block):
            self._charge(right.values.size, asked.position)
            return with_scalar(asked, right, left, is_left=False)
        return between_scalars(asked.op, left, right)


_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "sqrt": np.sqrt,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
}


def _named(series: Series, name: str) -> Series:
    if not name or "__name__" in series.labels:
        return series
    labels = {"__name__": name, **series.labels}
    return Series(labels, series.times, series.values, series.rollup)


def _without(rollup: Rollup | None, ended: Any) -> Rollup | None:
    if rollup is None:
        return None
    kept = ~ended
    return Rollup(rollup.counts[kept], rollup.sums[kept], rollup.mins[kept], rollup.maxs[kept])


_REFERENCE: Final = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def _expanded(template: str, match: re.Match[str]) -> str:
    """`$1` and `${name}` with what they stand for; what stands for nothing is empty."""

    def stood_for(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        try:
            return match[int(name) if name.isdigit() else name] or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(stood_for, template)
