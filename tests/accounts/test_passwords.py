from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.accounts import PasswordRules
from headgate.security.accounts.passwords import normal, weaknesses

RULES = PasswordRules()
ABOUT = ["shop.example", "shop", "ada", "ada@shop.example"]

GOOD = [
    "several words in a row",
    "correct horse battery staple",
    "correct-horse-42",
    "x7Gq!92kLmPz",
    "9f8a7b3c2d1e",
    "483920174652",
    "Tr0ub4dor&3xy",
    "monkey dragon purple",
    "\u65e5\u672c\u8a9e\u306e\u30d1\u30b9\u30ef\u30fc\u30c9\u306f\u9577\u3044\u65b9\u304c",
    "\u043f\u0430\u0440\u043e\u043b\u044c \u043a\u043e\u0442\u043e\u0440\u044b\u0439 \u044f \u043f\u043e\u043c\u043d\u044e",
    "ada likes tea at four",
    "\U0001f40e\U0001f50b\U0001f4ce\u2705\U0001f327\ufe0f\U0001f34a\U0001f6b2\U0001f3b9\U0001f9ca\U0001fa81\U0001fad6\U0001f9ed",
]
BAD = [
    ("short", "too_short"),
    ("", "too_short"),
    ("x" * 257, "too_long"),
    ("x" * 1_000_000, "too_long"),
    ("\ufdfa" * 100, "too_long"),  # one sign that is eighteen in its normal form
    ("\ud800 and a few words", "unreadable"),
    ("correcthorsebatterystaple", "common"),
    ("passwordpassword", "common"),
    ("Password12345!", "common"),
    ("P@ssw0rd2026!!", "common"),
    ("P4ssW0rdAdm1n", "common"),
    ("iloveyou1234", "common"),
    ("Summer2026!!", "common"),
    ("hunter2hunter2", "common"),
    ("\u24df\u24d0\u24e2\u24e2\u24e6\u24de\u24e1\u24d3\uff11\uff12\uff13\uff14", "common"),
    ("aaaaaaaaaaaaaaaa", "repetitive"),
    ("abcabcabcabc", "repetitive"),
    ("            ", "repetitive"),
    ("asdfasdfasdf", "repetitive"),
    ("qwertyuiopasdf", "sequential"),
    ("kjhgfdsaqwer", "sequential"),
    ("123456789012", "sequential"),
    ("1q2w3e4r5t6y", "sequential"),
    ("ada@shop.example", "about_you"),
    ("shopshopshop12", "about_you"),
]


@pytest.mark.parametrize("password", GOOD, ids=range(len(GOOD)))
def test_a_password_that_is_hard_to_guess_is_taken(password):
    assert weaknesses(password, RULES, ABOUT) == ()


@pytest.mark.parametrize(("password", "reason"), BAD, ids=range(len(BAD)))
def test_a_password_that_is_guessed_first_is_refused(password, reason):
    assert reason in weaknesses(password, RULES, ABOUT)


def test_words_of_the_operator_are_refused_too():
    rules = PasswordRules(refused=frozenset({"Headgate"}))
    assert weaknesses("Headgate-2026!", RULES) == ()
    assert weaknesses("Headgate-2026!", rules) == ("about_you",)


def test_one_spelling_whatever_the_keyboard_sends():
    assert normal("e\u0301te\u0301 au soleil") == normal("\u00e9t\u00e9 au soleil")
    assert normal("\uff57\uff49\uff44\uff45 letters") == "wide letters"
    assert normal("\udcff") is None


@given(st.text(max_size=300))
def test_any_text_gets_an_answer_and_the_same_one_in_every_spelling(text):
    found = weaknesses(text, RULES, ABOUT)
    spelled = normal(text)
    if spelled is None:
        assert found
    elif len(text) <= RULES.length_max and len(unicodedata.normalize("NFKC", text)) <= 256:
        assert weaknesses(spelled, RULES, ABOUT) == found


@pytest.mark.parametrize(("least", "most"), [(7, 64), (64, 12), (12, 5000)])
def test_bounds_that_make_no_sense_are_refused(least, most):
    with pytest.raises(ValueError, match="length_min"):
        PasswordRules(length_min=least, length_max=most)
