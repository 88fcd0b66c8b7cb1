"""Histograms: exact bounds, quantiles within a bucket's width."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe import histogram
from headgate.observe.histogram import BOUNDS, SHOWN_BOUNDS


def test_bounds_are_the_written_numbers():
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert len(BOUNDS) == 121
    assert BOUNDS[0] == 0.0001
    assert BOUNDS[-1] == 100.0
    assert set(SHOWN_BOUNDS) <= set(BOUNDS)


@pytest.mark.parametrize("bound", SHOWN_BOUNDS)
def test_a_value_equal_to_a_bound_counts_below_it(bound):
    counts = histogram.empty()
    counts[histogram.place_of(bound)] += 1
    at = SHOWN_BOUNDS.index(bound)
    assert histogram.cumulative(counts) == [0] * at + [1] * (len(SHOWN_BOUNDS) + 1 - at)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-9])
def test_values_below_all_bounds_count_in_the_first_place(value):
    assert histogram.place_of(value) == 0


def test_values_beyond_all_bounds_count_in_the_last_place():
    counts = histogram.empty()
    counts[histogram.place_of(1e6)] += 1
    assert counts[-1] == 1
    assert histogram.quantile(counts, 0.5) == BOUNDS[-1]


def test_the_quantile_of_nothing_is_none():
    assert histogram.quantile(histogram.empty(), 0.99) is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_quantiles_are_near_the_true_ones(q):
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(-4, 1) for _ in range(20_000))
    counts = histogram.empty()
    for value in values:
        counts[histogram.place_of(value)] += 1
    assert histogram.quantile(counts, q) == pytest.approx(values[int(q * len(values))], rel=0.04)


@given(st.lists(st.floats(0.000101, 99.0), min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_a_counted_value(values, q):
    counts = histogram.empty()
    for value in values:
        counts[histogram.place_of(value)] += 1
    got = histogram.quantile(counts, q)
    assert got is not None
    low, high = histogram.place_of(min(values)), histogram.place_of(max(values))
    assert histogram.BOUNDS[low - 1] <= got <= histogram.BOUNDS[high]


@given(st.lists(st.floats(0, 200)), st.lists(st.floats(0, 200)))
def test_adding_equals_counting_together(a, b):
    def counted(values):
        counts = histogram.empty()
        for value in values:
            counts[histogram.place_of(value)] += 1
        return counts

    total = counted(a)
    histogram.add(total, counted(b))
    assert total == counted(a + b)
    assert histogram.cumulative(total)[-1] == len(a) + len(b)
