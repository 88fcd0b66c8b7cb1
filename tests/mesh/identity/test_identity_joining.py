"""Join tokens: for one service, until an end, once; and who is denied."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.mesh.identity.joining import DENIED_S, JoinBook
from headgate.mesh.identity.refusals import IdentityRefused

W = 1_900_000_000.0


def made(book: JoinBook, service: str = "users", uses: int = 1, life_s: float = 600.0) -> str:
    rng = random.Random(len(book.tokens()))
    return book.make(service, wall=W, ends=W + life_s, by="ops", uses=uses, random=rng.randbytes)[0]


def why(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(IdentityRefused) as refused:
        call(*args, **named)
    return refused.value.why


def test_a_token_lets_one_key_in_and_no_other() -> None:
    book = JoinBook()
    token = made(book)
    assert book.join(token, "k1", W + 1).service == "users"
    assert why(book.join, token, "k2", W + 2) == "token"
    assert book.tokens()[0].state(W + 2) == "used"


def test_the_same_key_may_ask_again_as_its_answer_may_be_lost() -> None:
    book = JoinBook()
    token = made(book)
    first = book.join(token, "k1", W + 1)
    assert book.join(token, "k1", W + 2) == first


def test_a_token_with_uses_lets_so_many_in() -> None:
    book = JoinBook()
    token = made(book, uses=3)
    for key in ("a", "b", "b", "c"):
        book.join(token, key, W)
    assert why(book.join, token, "d", W) == "token"


def test_a_token_ends_also_for_who_had_it() -> None:
    book = JoinBook()
    token = made(book, life_s=60)
    book.join(token, "k1", W)
    assert why(book.join, token, "k1", W + 60) == "token"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "x",
        lambda t: t[:-1] + ("a" if t[-1] != "a" else "b"),
        lambda t: t.upper(),
        lambda _: "",
        lambda _: "hgj_aaaaaaaa_" + "A" * 43,
        lambda t: t + "\n" + "x" * 300,
        lambda t: "hg_" + t[4:],
    ],
    ids=range(8),
)
def test_what_is_not_the_token_is_refused(change: Any) -> None:
    book = JoinBook()
    token = made(book)
    assert why(book.join, change(token), "k", W) == "token"
    assert book.tokens()[0].uses_left == 1


@given(st.text(max_size=80))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    book = JoinBook()
    made(book)
    assert why(book.find, text, W) == "token"


def test_a_revoked_token_is_refused() -> None:
    book = JoinBook()
    token = made(book)
    assert book.revoke(book.tokens()[0].id) is not None
    assert why(book.join, token, "k", W) == "token"
    assert book.revoke("nosuch") is None


@pytest.mark.parametrize(
    "how",
    [
        {"service": "Users"},
        {"service": "a/b"},
        {"uses": 0},
        {"uses": 10**9},
        {"life_s": 0.0},
        {"life_s": float("nan")},
    ],
    ids=range(6),
)
def test_a_token_that_makes_no_sense_is_not_made(how: dict[str, Any]) -> None:
    assert why(made, JoinBook(), **how) == "request"


def test_tokens_and_denials_have_a_bound() -> None:
    book = JoinBook(most_tokens=2, most_denials=1)
    made(book)
    made(book)
    assert why(made, book) == "request"
    book.deny("service", "a", wall=W, by="o", why="")
    book.deny("service", "a", wall=W, by="o", why="again")
    assert why(book.deny, "service", "b", wall=W, by="o", why="") == "request"


def test_what_is_over_makes_room_after_a_day() -> None:
    book = JoinBook(most_tokens=1)
    made(book, life_s=60)
    later = W + 2 * 86_400
    book.make("b", wall=later, ends=later + 1, by="o", uses=1, random=random.Random(9).randbytes)
    assert [one.service for one in book.tokens()] == ["b"]


@pytest.mark.parametrize(
    ("kind", "what"), [("service", "users"), ("joining", "a1"), ("serial", "5E:0f")]
)
def test_who_is_denied_gets_nothing_until_that_is_taken_back(kind: Any, what: str) -> None:
    book = JoinBook()
    book.check("users", "a1", "5e0f", W)
    denial = book.deny(kind, what, wall=W, by="ops", why="stolen")
    assert why(book.check, "users", "a1", "5e0f", W) == "denied"
    book.check("orders", "b2", "77", W)
    book.check("users", "a1", "5e0f", W + DENIED_S)
    assert book.allow(denial.kind, denial.what) == denial
    book.check("users", "a1", "5e0f", W)


@pytest.mark.parametrize(("kind", "what"), [("service", "A"), ("serial", "xyz"), ("joining", "")])
def test_nonsense_cannot_be_denied(kind: Any, what: str) -> None:
    assert why(JoinBook().deny, kind, what, wall=W, by="o", why="") == "request"


def test_a_book_is_kept_as_json_without_tokens_in_it() -> None:
    book = JoinBook()
    token = made(book)
    book.join(token, "k1", W)
    book.deny("service", "bad", wall=W, by="ops", why="x")
    text = json.dumps(book.to_json())
    assert token not in text
    assert token[13:] not in text
    again = JoinBook()
    again.take_json(json.loads(text))
    assert again.is_like(book)
    assert again.join(token, "k1", W).service == "users"
    assert why(again.join, token, "k2", W) == "token"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"tokens": [], "denials": [{"kind": "x", "what": "y", "at": 1.0, "by": "z", "why": ""}]},
        {"tokens": [{"id": "a"}], "denials": []},
        {"tokens": "abc", "denials": []},
    ],
    ids=range(4),
)
def test_a_spoilt_book_is_refused_and_changes_nothing(said: dict[str, Any]) -> None:
    book = JoinBook()
    made(book)
    with pytest.raises((KeyError, TypeError, ValueError)):
        book.take_json(said)
    assert len(book.tokens()) == 1


def test_a_token_that_ends_never_is_not_made() -> None:
    assert why(made, JoinBook(), life_s=float("-inf")) == "request"
