"""Patterns over labels mean what Python's matcher says, and no label makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.label_patterns import LabelPattern, PatternFault, search_cost

BOMBS = {
    "nested": r"(a+)+b",
    "steps": r".*a.*a.*a.*a.*a.*b",
    "choice": r"(?:a|aa|aaa)*b",
    "counts": r"a{0,300}a{0,300}a{0,300}b",
    "empty": r"(a*)*(a*)*b",
}

atoms = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\W", "(?:a|b)", "(ab|a|)", "^", "$", "(?i:A)", "é"]
)
parts = st.tuples(atoms, st.sampled_from(["", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"]))
patterns = st.lists(parts, max_size=5).map(
    lambda found: "".join(f"(?:{atom}){often}" for atom, often in found)
)


@given(pattern=patterns, text=st.text("abA1 _é", max_size=8))
def test_a_pattern_fits_what_pythons_own_matcher_says(pattern, text):
    expected = re.compile(pattern, re.DOTALL).fullmatch(text) is not None
    assert LabelPattern(pattern).fits(text) == expected, (pattern, text)


@pytest.mark.parametrize("pattern", BOMBS.values(), ids=BOMBS)
def test_no_label_makes_a_pattern_slow(pattern):
    found = LabelPattern(pattern)
    assert not found.fits("a" * 20_000)
    assert found.fits("aaaaaaab")


@pytest.mark.parametrize(
    "pattern",
    ["(", "a" * 1001, r"(a)\1", "(?=a)", "a*+", r"a\b", "a{1,5000}", "(){60000}", "((){999}){999}"],
    ids=["open", "long", "back", "around", "greedy", "edge", "count", "nothing", "nothings"],
)
def test_what_cannot_be_told_in_one_reading_is_refused(pattern):
    with pytest.raises(PatternFault):
        LabelPattern(pattern)


def test_the_ways_of_a_search_grow_with_each_repeat_and_are_few_for_what_people_write():
    assert search_cost(r"(.*):\d+", 200) < 1e6
    assert search_cost(r"([^.]+)\.([^.]+)\..*", 100) < 2e6
    assert search_cost(r".*a.*a.*a.*a.*b", 256) > 1e9
    assert search_cost(r"(a+)+b", 50) > 1e9


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_fault_and_nothing_else(text):
    try:
        LabelPattern(text).fits(text)
        search_cost(text, 100)
    except PatternFault:
        pass
