"""How long those who deliver wait before they try again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.waiting import wait_s


@given(
    failures=st.integers(-5, 10**9),
    first_s=st.floats(0.01, 10),
    longest_s=st.floats(0.01, 1000),
    seed=st.integers(0, 1000),
)
def test_a_wait_is_at_least_half_of_what_it_doubles_to_and_never_beyond_its_bound(
    failures, first_s, longest_s, seed
):
    most = min(longest_s, first_s * 2.0 ** min(max(failures - 1, 0), 16))
    assert most / 2 <= wait_s(failures, first_s, longest_s, random.Random(seed)) <= most


def test_it_doubles_with_each_failure_and_differs_by_chance():
    rng = random.Random(1)
    means = [sum(wait_s(n, 1.0, 60.0, rng) for _ in range(400)) / 400 for n in range(1, 10)]
    for n, mean in enumerate(means):
        assert abs(mean / (0.75 * min(60.0, 2.0**n)) - 1) < 0.05
    assert len({wait_s(3, 1.0, 60.0, rng) for _ in range(50)}) == 50
