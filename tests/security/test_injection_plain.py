"""What is let out without judging would not have been blocked either."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.injection.decode import forms
from headgate.security.injection.findings import KINDS, THRESHOLD, Hit
from headgate.security.injection.plain import is_plain
from headgate.security.injection.scorer import _judge

_WORDS = [
    "or",
    "and",
    "union",
    "select",
    "from",
    "where",
    "drop",
    "table",
    "exec",
    "1",
    "2",
    "a",
    "admin",
    "x",
    "like",
    "null",
    "is",
    "not",
    "in",
    "between",
    "sleep",
    "(1)",
    "(a)",
    "(",
    ")",
    "'",
    '"',
    ";",
    "&",
    ",",
    ".",
    ":",
    "/",
    "!",
    "?",
    "@",
    "+",
    "-",
    "cat",
    "id",
    "ls",
    "alert",
    "eval",
    "O'Brien",
    "it's",
    "5'10\"",
    "script",
    "on",
    "http://a.example/?b=c&d=e",
    "shutdown",
    "case",
    "when",
    "order",
    "by",
    "limit",
    "é",
    "ß",
    "你",
    "дом",
    "true",
    "exists",
    "as",
    "having",
]


def _full(text):
    best: dict[str, Hit] = {}
    for form in forms(text):
        _judge(form, text, frozenset(KINDS), best)
    return max((hit.score for hit in best.values()), default=0)


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(_WORDS), max_size=8), st.sampled_from([" ", "", "+"]))
def test_no_plain_value_would_have_been_blocked(words, gap):
    text = gap.join(words)
    if is_plain(text):
        assert _full(text) < THRESHOLD, text


def test_common_values_are_plain():
    for text in ("bob", "Conan O'Brien", '1/2" copper pipe', "27 inch (4K)", "Ring twice; wait.",
                 "https://shop.example.com/a?b=c&d=e", "bob@example.com", "Zoë Ní Mháille"):  # fmt: skip
        assert is_plain(text), text
