"""Barriers against a naive model, and patterns against a naive matcher."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.barriers import Barriers, Standing, compiled, path_of
from headgate.cache.invalidation import Invalidation

names = st.sampled_from(["a", "b", "ab", "abc", "b*", ""])
globs = st.sampled_from(["*", "a*", "*b", "a*c", "b", "**", "a**", "*b*"])
said = st.builds(
    Invalidation,
    tags=st.lists(st.sampled_from(["t", "u", "v"]), max_size=2).map(tuple),
    keys=st.lists(names.filter(bool), max_size=2).map(tuple),
    patterns=st.lists(globs, max_size=2).map(tuple),
    urls=st.lists(st.one_of(names.filter(bool), globs), max_size=2).map(tuple),
    everything=st.sampled_from(["", "", "", "objects", "responses", "all"]),
    soft=st.booleans(),
    stamp=st.integers(1, 30),
)


def matches(glob: str, text: str) -> bool:
    """Naive, and plainly right."""
    if not glob:
        return not text
    if glob[0] == "*":
        return any(matches(glob[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and text[0] == glob[0] and matches(glob[1:], text[1:])


def strikes(one: Invalidation, family: str, name: str, tags: tuple[str, ...], stamp: int) -> bool:
    if stamp >= one.stamp:
        return False
    if one.everything in (family, "all") or set(tags) & set(one.tags):
        return True
    if family == "objects":
        return name in one.keys or any(matches(glob, name) for glob in one.patterns)
    return any(matches(url, name) if "*" in url else url == name for url in one.urls)


def naive(heard: list[Invalidation], *asked: object) -> Standing:
    struck = [one for one in heard if strikes(one, *asked)]  # type: ignore[arg-type]
    if any(not one.soft for one in struck):
        return Standing.DEAD
    return Standing.STALE if struck else Standing.ALIVE


@given(
    st.lists(said, max_size=8),
    st.sampled_from(["objects", "responses"]),
    names,
    st.lists(st.sampled_from(["t", "u", "v"]), max_size=2).map(tuple),
    st.integers(0, 31),
    st.randoms(),
)
def test_it_judges_as_the_naive_model_in_any_order_and_twice(heard, family, name, tags, stamp, rng):
    barriers = Barriers(family)
    twice = heard * 2
    rng.shuffle(twice)
    for one in twice:
        barriers.raise_for(one)
    assert barriers.judge(name, tags, stamp) is naive(heard, family, name, tags, stamp)
    assert barriers.stamp == max((one.stamp for one in heard), default=0)


@given(
    st.lists(said, max_size=30),
    names,
    st.lists(st.sampled_from(["t", "u", "v"]), max_size=2).map(tuple),
    st.integers(0, 31),
    st.integers(1, 4),
)
def test_with_little_room_nothing_dead_comes_to_life(heard, name, tags, stamp, most):
    barriers = Barriers(most=most)
    for one in heard:
        barriers.raise_for(one)
        kept = [len(kind.tags) + len(kind.names) for kind in (barriers._hard, barriers._soft)]
        assert max(kept) <= most
    assert barriers.judge(name, tags, stamp) >= naive(heard, "objects", name, tags, stamp)


@given(st.lists(said, max_size=10), names, st.integers(0, 31))
def test_whoever_asks_only_when_the_version_moved_is_never_wrong(heard, name, stamp):
    barriers = Barriers()
    seen, standing = barriers.version, barriers.judge(name, ("t",), stamp)
    for one in heard:
        barriers.raise_for(one)
        if barriers.version != seen:
            seen, standing = barriers.version, barriers.judge(name, ("t",), stamp)
        assert standing is barriers.judge(name, ("t",), stamp)


def test_too_many_patterns_raise_the_floor_to_the_oldest():
    barriers = Barriers()
    for n in range(1, 1011):
        barriers.raise_for(Invalidation(patterns=(f"p{n}:*",), stamp=n))
    assert barriers.floor == 10
    assert barriers.judge("other", (), 9) is Standing.DEAD
    assert barriers.judge("other", (), 10) is Standing.ALIVE
    assert barriers.judge("p11:x", (), 10) is Standing.DEAD


def test_a_floor_is_only_raised():
    barriers = Barriers()
    barriers.raise_floor(10)
    version = barriers.version
    barriers.raise_floor(5)
    assert (barriers.floor, barriers.version, barriers.stamp) == (10, version, 10)
    assert barriers.judge("k", (), 9) is Standing.DEAD
    assert barriers.judge("k", (), 10) is Standing.ALIVE


def test_what_concerns_the_other_family_only_moves_the_clock():
    barriers = Barriers("objects")
    assert not barriers.raise_for(Invalidation(urls=("/a",), stamp=7))
    assert not barriers.raise_for(Invalidation(everything="responses", stamp=8))
    assert (barriers.version, barriers.stamp) == (0, 8)


glob_texts = st.text(alphabet="ab*\n.[", max_size=12)


@settings(max_examples=500)
@given(glob_texts, st.text(alphabet="ab\n.[", max_size=16))
def test_a_pattern_fits_as_the_naive_matcher_says(glob, text):
    assert (compiled(glob).fullmatch(text) is not None) is matches(glob, text)


@pytest.mark.parametrize(
    ("glob", "text"),
    [
        ("*a" * 300, "a" * 20_000 + "b"),
        ("a*" * 300 + "b", "a" * 20_000),
        ("*" * 2000, "x" * 20_000),
        ("*ab" * 300 + "*", "ab" * 299 + "a" * 20_000),
        ("x*" + "?" * 500, "x" + "?" * 499),
    ],
    ids=["tail", "end", "stars", "parts", "marks"],
)
def test_no_pattern_takes_long(glob: str, text: str):
    pattern = compiled(glob)
    began = time.monotonic()
    found = pattern.fullmatch(text)
    assert time.monotonic() - began < 2.0  # seconds, not minutes
    assert (found is not None) is linear(glob, text)


def linear(glob: str, text: str) -> bool:
    first, *rest = re.split(r"\*+", glob)
    if not rest:
        return text == first
    *middle, last = rest
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return text.endswith(last)


def test_a_path_is_what_stands_behind_the_host() -> None:
    assert path_of("https://h:1/a?b=/c") == "/a?b=/c"
    assert path_of("https://h") == "/"
