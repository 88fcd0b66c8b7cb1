"""Refresh tokens: one good one, its successors within the grace, and the end of a copied one."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.security.accounts.rotation import (
    PASTS,
    Again,
    Reused,
    Rotate,
    State,
    Unknown,
    decide,
    fingerprint,
    parse,
    payload,
    rotated,
    written,
)

SESSION = "00112233445566778899aabbccddeeff"
GRACE_S = 10.0


def token(number: int) -> str:
    return written(payload(SESSION, number, secrets.token_bytes(32)), bytes(32))


def test_a_token_is_read_as_it_was_written():
    made = token(7)
    got = parse(made)
    assert got is not None
    assert (got.session_id, got.number) == (SESSION, 7)
    assert written(got.payload, got.signature) == made


@pytest.mark.parametrize(
    "text",
    ["", "hgr_", "hgr_!", "x" * 116, "hgr_" + "A" * 111, "hgr_" + "é" * 112, "\ud800"],
    ids=range(7),
)
def test_what_is_no_token(text):
    assert parse(text) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    got = parse("hgr_" + text)
    assert got is None or written(got.payload, got.signature) == "hgr_" + text


@given(st.data())
def test_a_token_has_one_spelling(data):
    made = token(1)
    at = data.draw(st.integers(0, len(made) - 1))
    other = made[:at] + data.draw(st.characters(codec="ascii")) + made[at + 1 :]
    got = parse(other)
    assert other == made or got is None or written(got.payload, got.signature) == other


def test_a_used_token_gives_its_successor_within_the_grace_and_ends_the_session_after_it():
    first, second = token(0), token(1)
    state = State(0, fingerprint(first))
    assert decide(state, first, 0, 100.0, GRACE_S) == Rotate()
    state = rotated(state, first, second, 100.0, GRACE_S)
    assert decide(state, first, 0, 110.0, GRACE_S) == Again(second)
    assert decide(state, first, 0, 110.1, GRACE_S) == Reused()
    assert decide(state, second, 1, 110.1, GRACE_S) == Rotate()


def test_what_is_stored_opens_nothing():
    first, second = token(0), token(1)
    state = rotated(State(0, fingerprint(first)), first, second, 100.0, GRACE_S)
    stored = repr(state)
    assert first not in stored
    assert second not in stored
    assert second.encode() not in state.pasts[0].successor


def test_the_newest_is_given_to_whoever_is_two_behind():
    tokens = [token(number) for number in range(4)]
    state = State(0, fingerprint(tokens[0]))
    for number in range(3):
        state = rotated(state, tokens[number], tokens[number + 1], 100.0 + number, GRACE_S)
    assert decide(state, tokens[0], 0, 103.0, GRACE_S) == Again(tokens[3])


def test_a_store_that_was_set_back_ends_nothing():
    state = State(4, fingerprint(token(4)))
    assert decide(state, token(5), 5, 0.0, GRACE_S) == Unknown()
    assert decide(state, token(4), 4, 0.0, GRACE_S) == Unknown()


def test_a_changed_row_gives_nothing_away():
    first, second = token(0), token(1)
    state = rotated(State(0, fingerprint(first)), first, second, 100.0, GRACE_S)
    past = state.pasts[0]
    broken = State(1, state.fingerprint, (type(past)(past.fingerprint, 100.0, b"x" * 80),))
    assert decide(broken, first, 0, 101.0, GRACE_S) == Unknown()


class Life(RuleBasedStateMachine):
    """A client, its tabs and a thief, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = 1000.0
        self.tokens = [token(0)]
        self.used: dict[int, float] = {}
        self.state = State(0, fingerprint(self.tokens[0]))
        self.is_ended = False

    @rule(back=st.integers(0, 12))
    def somebody_shows_a_token(self, back):
        number = max(0, len(self.tokens) - 1 - back)
        if self.is_ended:
            return
        shown = self.tokens[number]
        answer = decide(self.state, shown, number, self.wall, GRACE_S)
        if number == len(self.tokens) - 1:
            assert answer == Rotate()
            following = token(number + 1)
            self.state = rotated(self.state, shown, following, self.wall, GRACE_S)
            self.tokens.append(following)
            self.used[number] = self.wall
        elif self.wall - self.used[number] > GRACE_S:
            assert answer == Reused()
            self.is_ended = True
        else:
            # Beyond the bound of what is kept, it is taken for a copy: the safe side.
            is_kept = len(self.tokens) - 1 - number <= PASTS
            assert answer == (Again(self.tokens[-1]) if is_kept else Reused())

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds):
        self.wall += seconds

    @invariant()
    def a_session_is_a_bounded_row(self):
        assert len(self.state.pasts) <= PASTS


TestLife = Life.TestCase
