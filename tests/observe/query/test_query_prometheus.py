"""The same questions to us and to a real Prometheus."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from headgate.observe.query import QueryFault, Rules, evaluate, evaluate_range, parse
from tests.observe.query.prometheus_rig import (
    BASE,
    LONG_S,
    Prometheus,
    Table,
    made_up,
    running,
)

pytestmark = pytest.mark.integration

QUESTIONS = (
    "requests_total",
    'requests_total{route="a"}',
    'requests_total{route!="a",code=~"5.."}',
    'requests_total{code!~"5..|4.."}',
    '{__name__=~"lo.*|level"}',
    'load{nothing=""}',
    "load offset 7m",
    "rate(requests_total[5m])",
    "rate(requests_total[1m])",
    "rate(requests_total[5m] offset 3m)",
    "irate(requests_total[5m])",
    "increase(requests_total[10m])",
    "delta(load[5m])",
    "deriv(load[10m])",
    "predict_linear(load[10m], 600)",
    "changes(load[10m])",
    "changes(info[10m])",
    "resets(requests_total[20m])",
    "avg_over_time(load[5m])",
    "min_over_time(load[5m])",
    "max_over_time(load[5m])",
    "sum_over_time(load[5m])",
    "count_over_time(load[5m])",
    "last_over_time(load[5m])",
    "stddev_over_time(load[5m])",
    "present_over_time(load[2m])",
    "quantile_over_time(0.9, load[5m])",
    "quantile_over_time(1.5, load[5m])",
    "quantile_over_time(-1, load[5m])",
    "absent(load)",
    'absent(nothing{a="b",c=~"d"})',
    'absent_over_time(load{zone="za"}[30s])',
    "sum(requests_total)",
    "sum by (route) (rate(requests_total[5m]))",
    "sum without (code) (requests_total)",
    "avg by (code) (requests_total)",
    "min(load)",
    "max by (route) (requests_total)",
    "count by (code) (requests_total)",
    "stddev(requests_total)",
    "group by (route) (requests_total)",
    "quantile(0.4, requests_total)",
    "quantile by (code) (0.9, requests_total)",
    "topk(2, rate(requests_total[10m]) + on(route, code) group_left requests_total)",
    "bottomk by (code) (1, requests_total + 0.001 * requests_total)",
    "histogram_quantile(0.9, rate(took_bucket[5m]))",
    "histogram_quantile(0.5, sum by (le) (rate(took_bucket[5m])))",
    "histogram_quantile(1, took_bucket)",
    "histogram_quantile(0, took_bucket)",
    "histogram_quantile(2, took_bucket)",
    'histogram_quantile(0.9, took_bucket{le!="+Inf"})',
    "load * 2 + 1",
    "2 ^ load",
    "2 ^ 3 ^ 2",
    "-2 ^ 2",
    "-load % 2",
    "7 % -3",
    "load / 0",
    "1 / 0",
    "load > 0",
    "0 < load",
    "load > bool 0",
    "1 <= bool 2",
    "load == load",
    "load - on(route) level",
    "requests_total / ignoring(code) group_left sum without (code) (requests_total)",
    "requests_total * on(route) group_left(version) info",
    "info * on(route) group_right(version) requests_total",
    "load > on(route) level",
    "load > bool on(route) level",
    "requests_total and on(route) load",
    "requests_total unless on(route) load",
    "load or requests_total",
    "load or on(route) requests_total",
    "requests_total + requests_total",
    "requests_total + on(route) requests_total",
    "requests_total * ignoring(code) info",
    "abs(load)",
    "ceil(load)",
    "floor(load)",
    "round(load)",
    "round(load, 0.25)",
    "sqrt(load)",
    "ln(requests_total)",
    "log2(requests_total)",
    "log10(requests_total)",
    "exp(load / 10)",
    "clamp(load, -1, 1)",
    "clamp(load, 1, -1)",
    "clamp_min(load, 0)",
    "clamp_max(load, 0)",
    "scalar(single)",
    "scalar(load)",
    "vector(4)",
    "time()",
    "vector(time()) - 5",
    'label_replace(load, "to", "x-$1", "route", "(.*)")',
    'label_replace(load, "zone", "", "route", "a")',
    'label_replace(requests_total, "code", "x", "route", ".*")',
    "sum(load) by (zone) > 1",
    "sum(nothing)",
    "0x1F + .5e1",
    "sort_desc(load)",
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Table]]:
    table = made_up()
    with running(table, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus, table


def _rules(prometheus: Prometheus) -> Rules:
    return Rules(is_closed=prometheus.version < 3, is_eager=prometheus.version < 3)


def _number(said: str) -> float:
    return float(said.replace("Inf", "inf").replace("NaN", "nan"))


Answer = dict[tuple[tuple[str, str], ...], dict[float, float]]


def _theirs(said: Any) -> Answer | None:
    if said["status"] != "success":
        return None
    found: Answer = {}
    data = said["data"]
    if data["resultType"] == "scalar":
        return {(): {data["result"][0]: _number(data["result"][1])}}
    for one in data["result"]:
        points = one["values"] if "values" in one else [one["value"]]
        found[tuple(sorted(one["metric"].items()))] = {at: _number(v) for at, v in points}
    return found


def _same(ours: Answer | None, theirs: Answer | None, question: str) -> None:
    assert (ours is None) == (theirs is None), (question, ours, theirs)
    if ours is None or theirs is None:
        return
    assert ours.keys() == theirs.keys(), question
    for labels, points in theirs.items():
        assert ours[labels].keys() == points.keys(), (question, labels)
        for at, value in points.items():
            mine = ours[labels][at]
            both_nan = math.isnan(mine) and math.isnan(value)
            assert both_nan or math.isclose(mine, value, rel_tol=1e-8, abs_tol=1e-8), (
                question,
                labels,
                at - BASE,
                mine,
                value,
            )


def _compare(asked: tuple[Prometheus, Table], question: str, step: int) -> None:
    prometheus, table = asked
    rules = _rules(prometheus)
    start, end = BASE + 60, BASE + LONG_S + 400
    try:
        ours: Answer | None = {
            tuple(sorted(one.labels.items())): dict(
                zip(one.times.tolist(), one.values.tolist(), strict=True)
            )
            for one in evaluate_range(parse(question), table, start, end, step, rules)
        }
    except QueryFault:
        ours = None
    said = prometheus.ask("query_range", query=question, start=start, end=end, step=step)
    _same(ours, _theirs(said), question)
    at = BASE + 1234
    try:
        now: Answer | None = {
            tuple(sorted(one.labels.items())): {at: one.value}
            for one in evaluate(parse(question), table, at, rules)
        }
    except QueryFault:
        now = None
    _same(now, _theirs(prometheus.ask("query", query=question, time=at)), question)


def test_prometheus_answers_every_question_alike(asked: tuple[Prometheus, Table]) -> None:
    wrong = []
    for question in QUESTIONS:
        try:
            _compare(asked, question, 37)
        except AssertionError as error:
            wrong.append(str(error)[:300])
    assert not wrong, "\n\n".join(wrong)


def test_no_answer_hangs_on_how_a_sum_was_rounded() -> None:
    series = made_up().series
    counters = [one for one in series if one.labels["__name__"] == "requests_total"]
    standing: dict[float, str] = {}
    for one in counters:
        name = str(one.labels)
        for value in set(one.values.tolist()):
            assert standing.setdefault(value, name) == name, (value, name)
    for one in series:
        assert (one.values * 1024 % 1 == 0).all(), one.labels
    near = sorted(standing)
    assert min(after - before for before, after in pairwise(near)) > 1e-9


def test_our_own_functions_stand_for_what_prometheus_answers_alike(
    asked: tuple[Prometheus, Table],
) -> None:
    prometheus, table = asked
    for ours, theirs in (
        (
            'ratio(sum(rate(requests_total{code="500"}[5m])), sum(rate(requests_total[5m])))',
            'sum(rate(requests_total{code="500"}[5m])) / sum(rate(requests_total[5m]))',
        ),
        (
            "percentile(0.9, took, 5m) by (route)",
            "histogram_quantile(0.9, sum by (le, route) (rate(took_bucket[5m])))",
        ),
    ):
        at = BASE + 2000
        mine: Answer = {
            tuple(sorted(one.labels.items())): {at: one.value}
            for one in evaluate(parse(ours), table, at, _rules(prometheus))
        }
        _same(mine, _theirs(prometheus.ask("query", query=theirs, time=at)), ours)


def _generated(rng: random.Random, depth: int) -> str:
    """A random expression; many have no answer, and then neither of us must have one."""
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice(
            (
                "load",
                "level",
                "single",
                'requests_total{code="500"}',
                "requests_total",
                "rate(requests_total[4m])",
                "avg_over_time(load[3m])",
                "2",
                "info",
            )
        )
    inner = _generated(rng, depth - 1)
    match rng.randrange(6):
        case 0:
            op = rng.choice(("sum", "avg", "min", "max", "count", "stddev"))
            by = rng.choice(("", " by (route)", " without (code)", " by (route, code)"))
            return f"{op}{by} ({inner})"
        case 1:
            op = rng.choice(("+", "-", "*", "/", ">", "<=", "!= bool", "and", "or", "unless"))
            match = rng.choice(("", "", " on(route)", " ignoring(code)", " on(route) group_left"))
            return f"({inner}) {op}{match} ({_generated(rng, depth - 1)})"
        case 2:
            return f"{rng.choice(('abs', 'ceil', 'sqrt', 'scalar', 'absent'))}({inner})"
        case 3:
            return f"clamp_max({inner}, {rng.randrange(-3, 9)})"
        case 4:
            return f"-({inner})"
        case _:
            return f"quantile by (route) ({rng.choice(('0.25', '0.9'))}, {inner})"


def test_generated_questions_are_answered_alike(asked: tuple[Prometheus, Table]) -> None:
    rng = random.Random(20)
    for _ in range(150):
        _compare(asked, _generated(rng, 3), 211)
