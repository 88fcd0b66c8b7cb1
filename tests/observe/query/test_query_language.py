"""The language by itself: faults with a place, bounds, our own functions, ends of series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe.query import (
    STALE,
    Matcher,
    QueryFault,
    Rollup,
    Rules,
    Series,
    evaluate,
    evaluate_range,
    parse,
    selectors,
)


class Held:
    def __init__(self, *series: Series) -> None:
        self.series = series
        self.asked: list[tuple[float, float]] = []

    def select(self, name, matchers, start, end):
        self.asked.append((start, end))
        return [
            one
            for one in self.series
            if (not name or one.labels["__name__"] == name)
            and all(matcher.is_met(one.labels) for matcher in matchers)
        ]


def made(name, values, every=10.0, rollup=None, **labels):
    times = np.arange(len(values)) * every
    return Series({"__name__": name, **labels}, times, np.array(values, float), rollup)


FAULTS = [
    ("", 0, "name of a metric"),
    ("raet(x[5m])", 0, 'did you mean "rate"?'),
    ("rate(x)", 5, "write x[5m]"),
    ("x[5m]", 0, "rate(...)"),
    ("sum(x[5m])", 4, "rate(...)"),
    ("sum(", 4, ""),
    ("x{a=b}", 4, 'write a="..."'),
    ("x{a~'b'}", 3, ""),
    ("1 > 2", 2, "write > bool"),
    ("x and 1", 2, "vector(...)"),
    ("{a=~'.*'}", 0, "say a name"),
    ("x{a=~'(?=a)'}", 5, ""),
    ("x{a=~'['}", 5, ""),
    ("x{a=~'a{0,9999}'}", 5, ""),
    (r"x{a=~'(a)\\1'}", 5, ""),
    ("5m", 0, "300"),
    ("x[0s]", 1, ""),
    ("x[5m:1m]", 4, ""),
    ("rate(x[5m])[5m]", 11, "subqueries"),
    ("x @ 5", 2, "another time"),
    ("x offset x", 9, "5m or 1h30m"),
    ("topk(x)", 0, ""),
    ("topk(x, y)", 5, ""),
    ("clamp(x, 1)", 0, ""),
    ("'a' + 1", 0, ""),
    ("'open", 0, "close it"),
    ("x y", 2, ""),
    ("x ? y", 2, ""),
    ("sum by (a:b) (x)", 8, ""),
    ("x + on(a) 1", 2, ""),
    ("x and on(a) group_left y", 12, ""),
    ("percentile(0.9, x[5m], 5m)", 0, "by (...)"),
    ("ratio(1, x)", 0, "ratio(sum("),
    ("by", 0, ""),
    ("x{__name__='y'}", 2, ""),
    ("(" * 100, 60, ""),
    ("+".join(["x"] * 200), 119, ""),
    ("ratio(a, " * 20 + "b" + ")" * 20, None, ""),
    ("x" * 20_000, 0, ""),
]


@pytest.mark.parametrize(("text", "position", "hint"), FAULTS, ids=range(len(FAULTS)))
def test_a_fault_says_the_place_and_the_way_out(text, position, hint):
    with pytest.raises(QueryFault) as caught:
        parse(text)
    if position is not None:
        assert caught.value.position == position
    assert hint in caught.value.hint


PIECES = st.sampled_from(
    [
        "x",
        "y",
        "rate",
        "sum",
        "by",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "5m",
        "1",
        "+",
        "-",
        "*",
        "/",
        "^",
        "==",
        ">",
        "bool",
        "and",
        "or",
        "on",
        "ignoring",
        "group_left",
        ",",
        "=",
        "=~",
        '"a"',
        "offset",
        "topk",
        "histogram_quantile",
        "ratio",
        "percentile",
        "label_replace",
        "time",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=14).map(" ".join), st.text(max_size=40)))
def test_any_text_is_an_answer_or_a_fault_and_nothing_else(text):
    source = Held(made("x", [1, 2, 3], a="1"), made("x", [1, 2], a="2"), made("y", [5.0]))
    try:
        expr = parse(text)
        found = evaluate(expr, source, 21.0)
        series = evaluate_range(expr, source, 0.0, 42.0, 7.0)
    except QueryFault:
        return
    there = {
        frozenset(one.labels.items()): repr(float(one.values[list(one.times).index(21.0)]))
        for one in series
        if 21.0 in list(one.times)
    }
    assert {frozenset(one.labels.items()): repr(float(one.value)) for one in found} == there


def test_selectors_are_found_from_left_to_right():
    expr = parse("topk(scalar(k), a) + rate(b[5m] offset 1h) / -c")
    assert [one.name for one in selectors(expr)] == ["k", "a", "b", "c"]


def test_ratio_is_zero_where_nothing_is_counted_and_nothing_of_nothing():
    source = Held(made("all", [10.0]), made("none", [0.0]))
    (sample,) = evaluate(parse("ratio(sum(bad), sum(all))"), source, 0.0)
    assert sample.value == 0
    assert evaluate(parse("ratio(sum(bad), sum(none))"), source, 0.0) == []


def test_percentile_is_written_out_and_keeps_matchers_and_labels():
    assert (
        parse('percentile(0.9, took{a="b"}, 5m) by (r)')
        == parse('percentile by (r) (0.9, took_bucket{a="b"}, 5m)')
        or selectors(parse('percentile(0.9, took{a="b"}, 5m) by (r)'))[0].name == "took_bucket"
    )


def test_a_series_that_ended_has_no_value_and_a_range_leaves_the_end_out():
    source = Held(made("x", [1, 2, STALE]))
    assert evaluate(parse("x"), source, 15.0)[0].value == 2
    assert evaluate(parse("x"), source, 25.0) == []
    assert evaluate(parse("count_over_time(x[1m])"), source, 25.0)[0].value == 2


def test_a_nan_that_was_counted_is_a_value():
    (sample,) = evaluate(parse("x"), Held(made("x", [float("nan")])), 0.0)
    assert np.isnan(sample.value)


def test_rolled_up_samples_tell_what_they_stand_for():
    rollup = Rollup(*(np.array(part, float) for part in ([60, 60], [600, 60], [1, 0], [50, 9])))
    source = Held(made("x", [5, 1], every=60.0, rollup=rollup))
    for function, value in (("count", 120), ("sum", 660), ("avg", 5.5), ("min", 0), ("max", 50)):
        (sample,) = evaluate(parse(f"{function}_over_time(x[5m])"), source, 60.0)
        assert sample.value == value


def test_a_source_is_asked_for_no_more_than_is_needed():
    source = Held(made("x", [1.0]))
    evaluate_range(parse("rate(x[5m] offset 1m)"), source, 1000.0, 2000.0, 100.0)
    assert source.asked == [(640.0, 1940.0)]


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        (Rules(max_steps=10), 11),
        (Rules(max_samples=50), 9),
        (Rules(max_series=1), 2),
        (Rules(is_over=lambda: True), 2),
    ],
    ids=["steps", "samples", "series", "time"],
)
def test_bounds_end_a_question_with_a_fault(rules, steps):
    source = Held(*(made("x", [1, 2, 3, 4], n=str(n)) for n in range(9)))
    with pytest.raises(QueryFault):
        evaluate_range(parse("sum(rate(x[1m]))"), source, 0.0, steps - 1.0, 1.0, rules)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_that_is_none_is_a_fault(step):
    with pytest.raises(QueryFault):
        evaluate_range(parse("1"), Held(), 0.0, 1.0, step)


def test_a_matcher_fits_the_whole_value_and_what_is_not_there_is_empty():
    assert Matcher("a", "=~", "b|c").is_met({"a": "c"})
    assert not Matcher("a", "=~", "b").is_met({"a": "bc"})
    assert Matcher("a", "=", "").is_met({})
    assert str(Matcher("a", "!=", 'x"\n')) == 'a!="x\\"\\n"'


def test_the_top_comes_first():
    source = Held(*(made("x", [n], n=str(n)) for n in (2.0, 9.0, 4.0)))
    assert [one.value for one in evaluate(parse("topk(2, x)"), source, 0.0)] == [9, 4]
    assert [one.value for one in evaluate(parse("bottomk(2, x)"), source, 0.0)] == [2, 4]
