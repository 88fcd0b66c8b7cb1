"""Advice on the size, and a size that moves within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.ghost import SCALES, Point
from headgate.cache.sizing import Size, SizingRules, advise, next_size


def curve(*ratios: float) -> tuple[Point, ...]:
    return tuple(
        Point(scale, round(1000 * scale), round(4_000_000 * scale), ratio)
        for scale, ratio in zip(SCALES, ratios, strict=True)
    )


CASES = {
    "grow-once": (curve(0.3, 0.4, 0.5, 0.6, 0.61), "grow", 2000, 0.6),
    "grow-twice": (curve(0.3, 0.4, 0.5, 0.6, 0.7), "grow", 4000, 0.7),
    "keep": (curve(0.3, 0.4, 0.5, 0.51, 0.52), "keep", 1000, 0.5),
    "shrink-once": (curve(0.3, 0.5, 0.5, 0.5, 0.5), "shrink", 500, 0.5),
    "shrink-twice": (curve(0.499, 0.499, 0.5, 0.5, 0.5), "shrink", 250, 0.499),
    "little-to-lose-slowly": (curve(0.492, 0.496, 0.5, 0.5, 0.5), "shrink", 500, 0.496),
}


@pytest.mark.parametrize("name", CASES)
def test_advice_follows_the_curve(name: str) -> None:
    points, kind, items, ratio = CASES[name]
    said = advise(points)
    assert (said.kind, said.items, said.ratio_then, said.ratio_now) == (kind, items, ratio, 0.5)
    assert said.bytes == items * 4000


def test_advice_is_in_words() -> None:
    assert advise(CASES["grow-once"][0]).words == (
        "3.8 MB and 1,000 items hit 50.0%; 7.6 MB and 2,000 items would hit 60.0%."
    )
    assert "would still hit" in advise(CASES["shrink-once"][0]).words
    assert "half of it would lose" in advise(CASES["keep"][0]).words
    assert advise(()).kind == "unknown"


def test_what_a_doubling_is_worth_can_be_said() -> None:
    assert advise(CASES["keep"][0], worth=0.005).kind == "grow"


RULES = SizingRules(Size(500, 2_000_000), Size(4000, 16_000_000))


@pytest.mark.parametrize(
    ("name", "items"), [("grow-once", 1125), ("keep", 1000), ("shrink-once", 875)]
)
def test_the_size_moves_a_step_towards_the_advice(name: str, items: int) -> None:
    now = Size(1000, 4_000_000)
    assert next_size(CASES[name][0], now, RULES) == Size(items, items * 4000)


def test_without_a_curve_the_size_stays() -> None:
    assert next_size((), Size(1000, 4_000_000), RULES) == Size(1000, 4_000_000)


@given(
    st.lists(st.floats(0, 1), min_size=5, max_size=5).map(sorted),
    st.integers(1, 10_000),
    st.integers(1, 10**9),
)
def test_the_size_never_leaves_its_bounds(ratios: list[float], items: int, many: int) -> None:
    size = next_size(curve(*ratios), Size(items, many), RULES)
    assert 500 <= size.items <= 4000
    assert 2_000_000 <= size.bytes <= 16_000_000


@pytest.mark.parametrize(
    ("least", "most"),
    [(Size(0, 1), Size(1, 1)), (Size(2, 1), Size(1, 1)), (Size(1, 2), Size(1, 1))],
    ids=["zero", "items", "bytes"],
)
def test_bounds_that_make_no_sense_are_refused(least: Size, most: Size) -> None:
    with pytest.raises(ValueError, match="the least must be above 0"):
        SizingRules(least, most)


@pytest.mark.parametrize("worth", [0.0, 1.0, -1.0])
def test_a_worth_that_makes_no_sense_is_refused(worth: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        SizingRules(Size(1, 1), Size(2, 2), worth)
