"""Splits: exact shares, keys that stay, and as few moves as the weights allow."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.split import Split, SplitRules, canonical, moved

RNG = Random(5)


def key_of(text: object) -> int:
    return int.from_bytes(blake2b(str(text).encode(), digest_size=8).digest(), "big")


KEYS = [key_of(number) for number in range(20_000)]


def split(now: float = 0.0, salt: str = "", **parts: float) -> Split:
    return Split(SplitRules(parts=tuple(parts.items()), salt=salt), now)


def placed(which: Split, now: float = 0.0, keys: list[int] = KEYS) -> list[str]:
    return [which.choose(key, RNG, now) for key in keys]


def shares_of(names: list[str]) -> dict[str, float]:
    return {name: count / len(names) for name, count in Counter(names).items()}


def moves(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter((a, b) for a, b in zip(before, after, strict=True) if a != b)


# ---- shares


@pytest.mark.parametrize(
    "parts",
    [
        {"a": 1},
        {"a": 95, "b": 5},
        {"a": 1, "b": 1, "c": 1},
        {"a": 0.5, "b": 99.5},
        {"a": 0, "b": 3, "c": 7},
        {"a": 1e-300, "b": 3e-300},
        {"a": 1e308, "b": 1e308},
    ],
)
def test_keys_and_draws_meet_the_shares(parts):
    which = split(**parts)
    largest = max(parts.values())
    total = sum(weight / largest for weight in parts.values())
    by_key = shares_of(placed(which))
    drawn = shares_of([which.choose(None, RNG, 0.0) for _ in KEYS])
    for name, weight in parts.items():
        assert by_key.get(name, 0.0) == pytest.approx(weight / largest / total, abs=0.015)
        assert drawn.get(name, 0.0) == pytest.approx(weight / largest / total, abs=0.015)
        assert which.weights_at(0.0)[name] == pytest.approx(weight / largest / total)


def test_a_part_without_weight_gets_nothing():
    assert set(placed(split(a=0, b=1, c=0))) == {"b"}


def test_small_numbers_are_keys_as_good_as_hashes():
    which = split(a=70, b=30)
    assert shares_of(placed(which, keys=list(range(10_000))))["b"] == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_every_key_has_a_place(key):
    for salt in map(str, range(50)):
        assert split(salt=salt, a=1, b=2, c=3).choose(key, RNG, 0.0) in "abc"


# ---- keys stay


def test_the_same_key_goes_to_the_same_part_in_every_process():
    assert placed(split(a=3, b=7)) == placed(split(a=3, b=7))
    assert placed(split(a=3, b=7), keys=[key_of(n) for n in range(12)]) == list("ababbabbaaab")


def test_splits_with_different_salts_are_independent():
    one = placed(split(salt="users", a=50, b=50))
    two = placed(split(salt="orders", a=50, b=50))
    assert shares_of([x + y for x, y in zip(one, two, strict=True)]) == pytest.approx(
        {"aa": 0.25, "ab": 0.25, "ba": 0.25, "bb": 0.25}, abs=0.02
    )


WEIGHTS = st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(any)


@given(st.data(), WEIGHTS)
def test_a_key_moves_only_from_a_shrinking_to_a_growing_part(data, weights):
    names = "abcdef"[: len(weights)]
    which = split(**dict(zip(names, weights, strict=True)))
    keys = KEYS[:500]
    before, shares = placed(which, keys=keys), which.weights_at(0.0)
    for _ in range(3):
        parts = data.draw(
            st.lists(st.integers(0, 20), min_size=len(weights), max_size=len(weights)).filter(any)
        )
        which.take_rules(SplitRules(parts=tuple(zip(names, parts, strict=True))), 0.0)
        after, new_shares = placed(which, keys=keys), which.weights_at(0.0)
        for source, target in moves(before, after):
            assert new_shares[source] < shares[source]
            assert new_shares[target] > shares[target]
        for name, weight in zip(names, parts, strict=True):
            assert new_shares[name] == pytest.approx(weight / sum(parts))
        before, shares = after, new_shares


@given(st.data(), WEIGHTS, st.integers(2, 6))
def test_a_layout_moves_no_more_than_the_difference(data, weights, size):
    """The measure that changes owners is the least possible, also when parts come and go."""
    names = "abcdef"
    shares = {n: w / sum(weights) for n, w in zip(names, weights, strict=False)}
    others = data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size).filter(any))
    wanted = {n: w / sum(others) for n, w in zip(reversed(names), others, strict=False)}
    before = canonical(shares)
    after = moved(before, wanted)
    assert after[0][0] == 0.0
    assert after[-1][1] == 1.0
    assert all(one[1] == two[0] and one[2] != two[2] for one, two in zip(after, after[1:]))
    kept = sum(
        max(0.0, min(end, end2) - max(start, start2))
        for start, end, owner in before
        for start2, end2, owner2 in after
        if owner == owner2
    )
    possible = sum(min(share, wanted.get(name, 0.0)) for name, share in shares.items())
    assert kept == pytest.approx(possible, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 24)), max_size=12))
def test_canaries_beside_a_main_part_lead_to_the_canonical_layout_whatever_the_way(changes):
    weights = {"one": 5, "main": 85, "two": 10}

    def fresh() -> Split:
        return Split(SplitRules(parts=tuple(weights.items())), 0.0)

    which = fresh()
    for at, weight in changes:
        name = ("one", "two")[at % 2]
        weights["main"] += weights[name] - weight
        weights[name] = weight
        which.take_rules(SplitRules(parts=tuple(weights.items())), 0.0)
    layout = fresh().layout
    assert [owner for _, _, owner in which.layout] == [owner for _, _, owner in layout]
    for had, has in zip(which.layout, layout, strict=True):
        assert had[:2] == pytest.approx(has[:2])


def test_a_part_gives_up_what_lies_in_the_homes_of_others_before_its_own():
    which = split(a=60, b=10, c=30)
    which.take_rules(SplitRules(parts=(("a", 40), ("b", 10), ("c", 50))), 0.0)
    assert which.layout[0] == pytest.approx((0.0, 1 / 3, "a"))


def test_a_layout_is_handed_to_a_process_that_starts_later():
    old = split(a=60, b=30, c=10)
    for parts in ((10, 30, 60), (40, 50, 10), (35, 30, 35)):
        old.take_rules(SplitRules(parts=tuple(zip("abc", parts, strict=True))), 0.0)
    rules = SplitRules(parts=(("a", 35), ("b", 30), ("c", 35)))
    assert moves(placed(old), placed(Split(rules, 0.0))).total() > 0
    assert placed(old) == placed(Split(rules, 0.0, old.layout))


def test_the_same_rules_again_change_nothing():
    which = split(a=60, b=40)
    which.take_rules(SplitRules(parts=(("a", 10), ("b", 90))), 0.0)
    layout = which.layout
    which.take_rules(SplitRules(parts=(("a", 10), ("b", 90))), 0.0)
    assert which.layout == layout


def test_another_salt_deals_all_keys_anew():
    which = split(a=50, b=50)
    before = placed(which)
    which.take_rules(SplitRules(parts=(("a", 50), ("b", 50)), salt="new"), 0.0)
    assert moves(before, placed(which)).total() == pytest.approx(len(KEYS) / 2, rel=0.1)


# ---- shifting


def test_a_shift_moves_weight_evenly_over_its_time():
    which = split(old=100, new=0)
    which.shift("old", "new", 100.0, 1000.0)
    for at, share in ((1000.0, 0.0), (1025.0, 0.25), (1050.0, 0.5), (1099.0, 0.99), (1100.0, 1.0)):
        assert which.weights_at(at)["new"] == pytest.approx(share)
        assert shares_of(placed(which, at)).get("new", 0.0) == pytest.approx(share, abs=0.015)
    assert which.weights_at(9999.0) == {"old": 0.0, "new": 1.0}
    assert set(placed(which, 9999.0)) == {"new"}


def test_a_key_moves_once_during_a_shift_and_others_not_at_all():
    which = split(old=60, other=40, new=0)
    which.shift("old", "new", 60.0, 0.0)
    keys = KEYS[:2000]
    before = first = placed(which, 0.0, keys)
    for at in range(1, 70):
        after = placed(which, float(at), keys)
        assert set(moves(before, after)) <= {("old", "new")}
        before = after
    assert set(moves(first, before)) == {("old", "new")}
    assert "old" not in before


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 120.0), max_size=20), st.floats(0.1, 1.0))
def test_how_often_anybody_looks_makes_no_difference(looks, share):
    watched, alone = (split(a=50, b=20, c=30) for _ in range(2))
    for which in (watched, alone):
        which.shift("a", "c", 100.0, 0.0, share)
    for at in sorted(looks):
        watched.choose(1, RNG, at)
    keys = KEYS[:2000]
    assert placed(watched, 100.0, keys) == placed(alone, 100.0, keys)


def test_a_part_of_the_weight_may_be_shifted():
    which = split(old=90, new=10)
    which.shift("old", "new", 10.0, 0.0, share=0.5)
    assert which.weights_at(20.0) == pytest.approx({"old": 0.45, "new": 0.55})


def test_a_shift_at_once():
    which = split(old=90, new=10)
    which.shift("old", "new", 0.0, 5.0)
    assert set(placed(which, 5.0)) == {"new"}


def test_a_second_shift_goes_on_from_where_the_first_was():
    which = split(old=100, new=0)
    which.shift("old", "new", 100.0, 0.0)
    which.shift("new", "old", 10.0, 40.0)
    assert which.weights_at(40.0) == pytest.approx({"old": 0.6, "new": 0.4})
    assert which.weights_at(45.0) == pytest.approx({"old": 0.8, "new": 0.2})
    assert which.weights_at(50.0) == pytest.approx({"old": 1.0, "new": 0.0})


def test_a_shift_can_be_stopped():
    which = split(old=100, new=0)
    which.shift("old", "new", 100.0, 0.0)
    which.stop(30.0)
    assert which.weights_at(90.0) == pytest.approx({"old": 0.7, "new": 0.3})
    assert which.snapshot(90.0).source is None


def test_a_shift_shows_while_it_lasts():
    which = split(old=100, new=0)
    which.shift("old", "new", 100.0, 0.0)
    seen = which.snapshot(25.0)
    assert (seen.source, seen.target, seen.left_s) == ("old", "new", 75.0)
    assert which.snapshot(100.0).source is None


def test_new_weights_end_a_shift_and_the_same_do_not():
    which = split(old=100, new=0)
    which.shift("old", "new", 100.0, 0.0)
    which.take_rules(SplitRules(parts=(("old", 100), ("new", 0))), 10.0)
    assert which.weights_at(50.0)["new"] == pytest.approx(0.5)
    which.take_rules(SplitRules(parts=(("old", 80), ("new", 20))), 50.0)
    assert which.weights_at(90.0)["new"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "source, target, share, message",
    [
        ("old", "gone", 1.0, 'no part "gone"; it has new, old'),
        ("gone", "old", 1.0, 'no part "gone"'),
        ("old", "old", 1.0, "to itself"),
        ("old", "new", 1.5, "share=1.5"),
    ],
)
def test_a_shift_that_makes_no_sense_is_refused_and_changes_nothing(source, target, share, message):
    which = split(old=90, new=10)
    layout = which.layout
    with pytest.raises(ValueError, match=message):
        which.shift(source, target, 10.0, 0.0, share)
    assert which.layout == layout


@pytest.mark.parametrize(
    "parts, problem",
    [
        ((), "at least one part"),
        ((("a", 0.0), ("b", 0.0)), "add up to 0"),
        ((("a", 1.0), ("a", 2.0)), '"a" stands more than once'),
        ((("a", -1.0), ("b", 2.0)), 'weight of "a" is -1'),
        ((("a", float("inf")),), 'weight of "a" is inf'),
        ((("a", float("nan")), ("b", 1.0)), 'weight of "a" is nan'),
    ],
)
def test_senseless_rules_are_refused_in_words(parts, problem):
    (said,) = SplitRules(parts=parts).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        Split(SplitRules(parts=parts), 0.0)
