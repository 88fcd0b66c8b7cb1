"""What checks come to: bounds, the worst, the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.health import Bounds, Outcome, Result, degraded, failing, ok, overall, worst
from headgate.observe.health.outcome import LONGEST_WHY, RANK, outcome_of, said

STATUSES = st.sampled_from(sorted(RANK))
RESULTS = st.lists(
    st.builds(Result, st.text("abc", min_size=1), STATUSES, st.text("xyz"), st.booleans())
)


@pytest.mark.parametrize(
    ("bounds", "value", "status"),
    [
        (Bounds(), 1e9, "ok"),
        (Bounds(10, 20), 9.9, "ok"),
        (Bounds(10, 20), 10, "degraded"),
        (Bounds(10, 20), 20, "failing"),
        (Bounds(None, 20), 19, "ok"),
        (Bounds(10, None), 1e9, "degraded"),
        (Bounds(10, 3, below=True), 11, "ok"),
        (Bounds(10, 3, below=True), 10, "degraded"),
        (Bounds(10, 3, below=True), -1, "failing"),
        (Bounds(10, 20), float("nan"), "failing"),
    ],
)
def test_a_figure_is_judged_by_its_bounds(bounds, value, status):
    assert bounds.judge(value) == status


@pytest.mark.parametrize(("warn", "fail", "below"), [(20, 10, False), (3, 10, True)])
def test_bounds_in_the_wrong_order_are_refused(warn, fail, below):
    with pytest.raises(ValueError, match="must be"):
        Bounds(warn, fail, below)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, "ok"),
        (True, "ok"),
        (False, "failing"),
        (degraded("x"), "degraded"),
        ("ok", "failing"),
    ],
)
def test_an_answer_means_one_thing(answer, status):
    assert outcome_of(answer).status == status


def test_the_worst_is_told_with_all_that_are_as_bad():
    found = worst([ok(value=3.0), failing("a"), degraded("b"), failing("c")])
    assert (found.status, found.why, found.value) == ("failing", "a; c", 3.0)
    assert worst([]) == Outcome("ok")


@given(st.lists(st.builds(Outcome, STATUSES, st.text())))
def test_nothing_is_worse_than_the_worst(outcomes):
    found = worst(outcomes)
    assert all(RANK[each.status] <= RANK[found.status] for each in outcomes)


@given(RESULTS)
def test_only_what_is_critical_fails_the_whole(results):
    status, reasons = overall(results)
    fails = any(each.critical and each.status == "failing" for each in results)
    assert (status == "failing") == fails
    assert (status == "ok") == (not reasons)


@given(st.text(max_size=5000))
def test_a_reason_is_one_printable_line_of_bounded_length(text):
    found = said(text)
    assert len(found) <= LONGEST_WHY
    assert found.isprintable() or found == ""
