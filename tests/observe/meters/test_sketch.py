"""The sketch: how far its quantiles err, that merging is adding, and what is at the edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.meters.sketch import CEILING, FLOOR, Sketch, bin_of, merged, value_of

sizes = st.floats(min_value=FLOOR, max_value=CEILING)
values = st.floats(min_value=-1e9, max_value=1e9)


def sketch_of(found):
    sketch = Sketch()
    for value in found:
        sketch.put(value)
    return sketch


@given(sizes)
def test_what_stands_for_a_value_is_within_one_per_cent(value):
    assert value_of(bin_of(value)) == pytest.approx(value, rel=0.01)


@given(st.lists(sizes, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_per_cent_of_the_true_one(found, q):
    true = sorted(found)[math.floor(q * (len(found) - 1))]
    assert sketch_of(found).quantile(q) == pytest.approx(true, rel=0.01)


@given(st.lists(values, min_size=1, max_size=100), st.floats(0, 1))
def test_negative_values_have_quantiles_too(found, q):
    true = sorted(found)[math.floor(q * (len(found) - 1))]
    assert sketch_of(found).quantile(q) == pytest.approx(true, rel=0.01, abs=2 * FLOOR)


@given(st.lists(values), st.lists(values), st.lists(values))
def test_merging_is_counting_all_in_one(a, b, c):
    one = merged([sketch_of(a), sketch_of(b), sketch_of(c)])
    other = merged([sketch_of(c), merged([sketch_of(b), sketch_of(a)])])
    whole = sketch_of([*a, *b, *c])
    assert (one.bins, one.zeros, one.below) == (whole.bins, whole.zeros, whole.below)
    assert (one.bins, one.zeros, one.below) == (other.bins, other.zeros, other.below)
    assert one.count == len(a) + len(b) + len(c)


@given(st.lists(values), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20, unique=True))
def test_buckets_never_lose_what_is_at_or_below_their_bound(found, bounds):
    bounds = sorted(bounds)
    shown = sketch_of(found).cumulative(bounds)
    assert shown == sorted(shown)
    assert shown[-1] == len(found)
    for bound, count in zip(bounds, shown):
        slack = abs(bound) * 0.012 + 2 * FLOOR
        assert sum(value <= bound - slack for value in found) <= count
        assert count <= sum(value <= bound + slack for value in found)


@pytest.mark.parametrize("bound", [0.005, 0.1, 1.0, 2.5, 10.0, 64.0, 1024.0])
def test_a_value_equal_to_a_bound_is_below_it(bound):
    assert sketch_of([bound]).cumulative([bound]) == [1, 1]
    assert sketch_of([bound * 1.02]).cumulative([bound]) == [0, 1]


def test_the_edges():
    sketch = sketch_of([0.0, -0.0, 1e-12, 1e300, -1e300, math.nan, math.inf, -math.inf])
    assert sketch.count == 5
    assert sketch.zeros == 3
    assert sketch.quantile(1.0) == pytest.approx(CEILING, rel=0.01)
    assert sketch.quantile(0.0) == pytest.approx(-CEILING, rel=0.01)
    assert Sketch().quantile(0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sketch().quantile(1.5)


def test_bins_are_bounded_whatever_comes():
    sketch = sketch_of(10.0 ** (power / 50) for power in range(-15_000, 15_000))
    assert len(sketch.bins) < 4600
