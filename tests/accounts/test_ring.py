"""When keys sign and are published: no verifier ever meets an unknown key."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from headgate.security.accounts import Rules
from headgate.security.accounts.ring import next_start, over, signing

RULES = Rules()
HOUR_S = 3600.0


@dataclass(frozen=True)
class Dated:
    number: int
    signs_from: float


def test_the_first_key_signs_at_once():
    assert next_start([], 50.0, RULES) == 50.0


def test_the_next_key_is_published_ahead_and_signs_when_its_time_comes():
    first = Dated(1, 0.0)
    due = RULES.key_life_s - RULES.key_ahead_s
    assert next_start([first], due - 1, RULES) is None
    assert next_start([first], due, RULES) == RULES.key_life_s
    second = Dated(2, RULES.key_life_s)
    assert next_start([first, second], due + 1, RULES) is None
    assert signing([first, second], RULES.key_life_s - 1) is first
    assert signing([second, first], RULES.key_life_s) is second


def test_a_key_is_kept_until_its_last_token_is_over():
    keys = [Dated(1, 0.0), Dated(2, 1000.0)]
    last = 1000.0 + RULES.access_life_s
    assert over(keys, last, RULES) == []
    assert over(keys, last + 2 * RULES.leeway_s + 1, RULES) == [keys[0]]


def test_a_process_that_slept_past_the_time_still_publishes_ahead():
    assert next_start([Dated(1, 0.0)], 10 * RULES.key_life_s, RULES) == (
        10 * RULES.key_life_s + RULES.key_ahead_s
    )


def test_asked_for_a_key_is_published_now():
    assert next_start([Dated(1, 0.0)], 5.0, RULES, is_asked=True) == 5.0 + RULES.key_ahead_s
    assert next_start([Dated(1, 0.0), Dated(2, 9.0)], 5.0, RULES, is_asked=True) is None


def test_a_clock_before_all_keys_signs_with_the_oldest():
    keys = [Dated(2, 20.0), Dated(1, 10.0)]
    assert signing(keys, 0.0) is keys[1]
    assert signing([], 0.0) is None


@given(st.lists(st.floats(0.01, 20 * 86400), min_size=1, max_size=80))
def test_whoever_read_the_keys_within_the_time_ahead_knows_every_token(pauses):
    """A verifier reads the set each hour; tokens live ten minutes; upkeep comes as it comes."""
    keys: list[Dated] = []
    now = 0.0
    published: list[tuple[float, frozenset[int]]] = []
    for pause in pauses:
        starts = next_start(keys, now, RULES)
        if starts is not None:
            keys.append(Dated(len(keys) + 1, starts))
        gone = over(keys, now, RULES)
        keys = [key for key in keys if key not in gone]
        published.append((now, frozenset(key.number for key in keys)))
        key = signing(keys, now)
        assert key is not None
        # What was read an hour ago, at the earliest moment since there are keys.
        seen = [numbers for at, numbers in published if at <= now - HOUR_S] or [published[0][1]]
        first_seen = [at for at, numbers in published if key.number in numbers][0]
        assert key.number in seen[-1] or first_seen > now - HOUR_S > 0 or key.number == 1
        if key.number > 1:
            # Sums of many pauses differ in their last digits.
            assert key.signs_from - first_seen >= RULES.key_ahead_s - 1e-6
        assert len(keys) <= 3
        now += pause
