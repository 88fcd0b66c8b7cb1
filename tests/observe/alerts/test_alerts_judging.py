"""One rule over time: what fires when, and what does not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.alerts.judging import KEPT_RESOLVED_S, NO_DATA_KEPT_S, Judge
from headgate.observe.alerts.rules import Flapping, Rule, Threshold

NAN = float("nan")


@dataclass(frozen=True)
class S:
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def cpu(**changes: object) -> Rule:
    base = Rule(
        "cpu",
        "x",
        (Threshold("warning", 70.0, 70.0), Threshold("critical", 90.0, 90.0)),
        for_s=10.0,
        flapping=None,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def run(
    judge: Judge, values: list[float | None], start: float = 0.0, step: float = 5.0
) -> list[str]:
    """State and level after each evaluation."""
    seen = []
    for place, value in enumerate(values):
        judge.judge([] if value is None else [S(value)], start + place * step)
        seen.append(shown(judge))
    return seen


def shown(judge: Judge) -> str:
    found = judge.alerts()
    return " ".join(f"{each.state}/{each.level}" for each in found) or "-"


P, F, C, R = "pending/warning", "firing/warning", "firing/critical", "resolved/warning"


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        pytest.param(cpu(), [60, 70, 60], ["-", "-", "-"], id="at_the_bound_is_not_beyond"),
        pytest.param(cpu(), [80, 80, 80], [P, P, F], id="fires_after_for"),
        pytest.param(cpu(), [80, 60, 80, 80], [P, "-", P, P], id="a_break_begins_anew"),
        pytest.param(cpu(for_s=0.0), [80], [F], id="no_for_fires_at_once"),
        pytest.param(cpu(for_s=0.0), [80, 95, 80, 60], [F, C, F, "resolved/critical"], id="levels"),
        pytest.param(
            cpu(), [80, 80, 80, 95, 95, 95], [P, P, F, F, F, C], id="a_level_has_its_own_for"
        ),
        pytest.param(cpu(for_s=0.0), [80, None], [F, R], id="gone_is_over"),
        pytest.param(cpu(for_s=0.0, no_data="keep"), [80, None, None], [F, F, F], id="keep"),
        pytest.param(cpu(for_s=0.0, no_data="alert"), [None], [F], id="no_data_is_an_alert"),
        pytest.param(cpu(for_s=0.0), [80, NAN], [F, R], id="nan_is_beyond_nothing"),
        pytest.param(
            cpu(for_s=0.0, keep_firing_s=10.0), [80, 60, 60, 60], [F, F, F, R], id="keep_firing"
        ),
        pytest.param(
            cpu(for_s=0.0, cooldown_s=15.0),
            [80, 60, 80, 80, 80],
            [F, R, P, P, F],
            id="cooldown",
        ),
        pytest.param(
            cpu(for_s=0.0, cooldown_s=60.0), [80, 60, 95], [F, R, C], id="worse_needs_no_cooldown"
        ),
        pytest.param(
            cpu(for_s=0.0, thresholds=(Threshold("warning", 70.0, 60.0),)),
            [65, 75, 65, 61, 60],
            ["-", F, F, F, R],
            id="hysteresis",
        ),
        pytest.param(
            cpu(for_s=0.0, direction="below", thresholds=(Threshold("warning", 0.8, 0.9),)),
            [0.85, 0.7, 0.85, 0.95],
            ["-", F, F, R],
            id="below",
        ),
        pytest.param(
            Rule("r", "x > 1", level="critical", flapping=None),
            [5, None],
            [C, "resolved/critical"],
            id="comparison",
        ),
    ],
)
def test_states_follow_the_values(rule, values, expected):
    assert run(Judge(rule), values) == expected


def test_one_alert_a_label_set_with_the_same_id_at_every_level():
    judge = Judge(cpu(for_s=0.0))
    judge.judge([S(80, {"h": "a"}), S(95, {"h": "b"})], 0)
    first = {each.labels: each.id for each in judge.alerts()}
    assert len(set(first.values())) == 2
    judge.judge([S(95, {"h": "a"}), S(80, {"h": "b"})], 5)
    assert {each.labels: each.id for each in judge.alerts()} == first


def test_an_error_ends_nothing_and_begins_nothing():
    judge = Judge(cpu(for_s=0.0))
    run(judge, [80])
    judge.judge_failed("the disk is gone", 5)
    assert (shown(judge), judge.error) == (F, "the disk is gone")
    quiet = Judge(cpu())
    quiet.judge_failed("x", 0)
    assert shown(quiet) == "-"


def test_an_error_can_be_an_alert_which_ends_with_the_error():
    judge = Judge(cpu(for_s=0.0, on_error="alert"))
    judge.judge_failed("x", 0)
    assert [dict(each.labels).get("error") for each in judge.alerts()] == ["true"]
    judge.judge([S(1)], 5)
    assert [each.state for each in judge.alerts()] == ["resolved"]


def test_label_sets_over_the_bound_are_one_alert_that_counts_them():
    judge = Judge(cpu(for_s=0.0, most=3))
    judge.judge([S(71 + n, {"n": str(n)}) for n in range(10)], 0)
    alerts = judge.alerts()
    over = [each for each in alerts if dict(each.labels).get("overflow")]
    assert len(alerts) == 4
    assert (judge.dropped, over[0].value) == (7, 7.0)
    kept = sorted(each.value for each in alerts if each not in over)
    assert kept == [78.0, 79.0, 80.0]  # the worst


def test_followed_alerts_are_not_pushed_out_by_new_ones():
    judge = Judge(cpu(for_s=0.0, most=2))
    judge.judge([S(71, {"n": "a"}), S(72, {"n": "b"})], 0)
    judge.judge([S(71, {"n": "a"}), S(72, {"n": "b"}), S(99, {"n": "c"})], 5)
    names = {dict(each.labels).get("n") for each in judge.alerts()}
    assert names == {"a", "b", None}


def test_label_sets_that_come_and_go_do_not_pile_up():
    judge = Judge(cpu(for_s=0.0, most=5))
    for turn in range(500):
        judge.judge([S(99, {"n": f"{turn}-{k}"}) for k in range(5)], turn * 5.0)
    assert len(judge.dump()) <= 4 * 5


def test_a_flapping_alert_is_held_and_marked_until_it_is_calm():
    judge = Judge(cpu(for_s=0.0, flapping=Flapping(10, 0.5, 0.2)))
    states = run(judge, [80, 60] * 8)
    assert set(states[-8:]) == {F}
    assert judge.alerts()[0].is_flapping
    after = run(judge, [60] * 12, start=80)
    assert after[-1] == R
    assert not judge.alerts()[0].is_flapping


def test_what_never_fired_does_not_flap():
    judge = Judge(cpu(for_s=30.0, flapping=Flapping(10, 0.3, 0.2)))
    assert F not in run(judge, [80, 60] * 10)


def test_a_resolved_alert_is_shown_for_a_while():
    judge = Judge(cpu(for_s=0.0))
    run(judge, [80, 60])
    judge.judge([], 5 + KEPT_RESOLVED_S - 1)
    assert shown(judge) == R
    judge.judge([], 5 + KEPT_RESOLVED_S)
    assert shown(judge) == "-"


def test_keep_lets_go_after_an_hour_without_data():
    judge = Judge(cpu(for_s=0.0, no_data="keep"))
    run(judge, [80])
    judge.judge([], NO_DATA_KEPT_S + 1)
    assert shown(judge) == R


def test_severity_in_a_sample_is_ours_and_alertname_cannot_be_forged():
    judge = Judge(cpu(for_s=0.0))
    judge.judge([S(80, {"severity": "info", "alertname": "other", "__name__": "x"})], 0)
    assert dict(judge.alerts()[0].labels) == {"alertname": "cpu"}
    assert judge.alerts()[0].matched["severity"] == "warning"


def test_time_while_nobody_looked_counts_for_no_for():
    rule = cpu(for_s=60.0)
    first = Judge(rule)
    run(first, [80, 80])
    second = Judge(rule)
    second.restore(json.loads(json.dumps(first.dump())), away_s=1000.0)
    second.judge([S(80)], 1010.0)
    assert shown(second) == P
    second.judge([S(80)], 1060.0)
    assert shown(second) == F


def test_state_of_a_level_that_is_gone_is_left_out():
    first = Judge(cpu(for_s=0.0))
    run(first, [95])
    second = Judge(cpu(for_s=0.0, thresholds=(Threshold("warning", 70.0, 70.0),)))
    second.restore(first.dump())
    second.judge([S(95)], 5)
    assert shown(second) == F


VALUES = st.lists(st.sampled_from([50.0, 75.0, 95.0, NAN, None]), min_size=1, max_size=40)


@given(VALUES, st.integers(0, 39), st.sampled_from([0.0, 10.0]), st.sampled_from([0.0, 7.0]))
def test_a_restart_changes_nothing(values, at, for_s, keep):
    rule = cpu(for_s=for_s, keep_firing_s=keep, cooldown_s=8.0, flapping=Flapping(6, 0.5, 0.2))
    plain, other = Judge(rule), Judge(rule)
    for place, value in enumerate(values):
        if place == at:
            before, other = other, Judge(rule)
            other.restore(json.loads(json.dumps(before.dump())))
        samples = [] if value is None else [S(value)]
        plain.judge(samples, place * 5.0)
        other.judge(samples, place * 5.0)
        assert [each.to_json() for each in other.alerts()] == [
            each.to_json() for each in plain.alerts()
        ]


@given(VALUES, st.lists(st.tuples(st.integers(0, 39), st.sampled_from([-1e6, 3600.0])), max_size=3))
def test_a_clock_that_is_set_changes_no_state(values, steps):
    rule = cpu(for_s=10.0, keep_firing_s=7.0, cooldown_s=8.0)
    plain, other, by = Judge(rule), Judge(rule), 0.0
    jumps = dict(steps)
    for place, value in enumerate(values):
        if place in jumps:
            other.shift(jumps[place])
            by += jumps[place]
        samples = [] if value is None else [S(value)]
        plain.judge(samples, 1e7 + place * 5.0)
        other.judge(samples, 1e7 + place * 5.0 + by)
        assert shown(other) == shown(plain)


@given(VALUES)
def test_without_extras_it_is_the_rule_of_prometheus_at_each_level(values):
    """A reading of Prometheus' own rule, level by level."""
    judge = Judge(cpu(for_s=10.0))
    since: dict[str, float | None] = {"warning": None, "critical": None}
    for place, value in enumerate(values):
        now = place * 5.0
        judge.judge([] if value is None else [S(value)], now)
        fires = None
        for level, bound in (("warning", 70.0), ("critical", 90.0)):
            if value is not None and value > bound:
                began = since[level]
                since[level] = began = now if began is None else began
                if now - began >= 10.0:
                    fires = level
            else:
                since[level] = None
        found = [each.level for each in judge.alerts() if each.state == "firing"]
        assert found == ([fires] if fires else [])
