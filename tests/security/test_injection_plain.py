"""What is let out without judging would not have been blocked either."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.injection import InjectionRules, Inspector, score
from headgate.security.injection.decode import forms
from headgate.security.injection.fields import json_texts
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


# Of these the scorer thinks ill although nothing can follow them here that would make them act.
_OVERRATED = {"exec", "eval", "shutdown", "select", "alert"}
_NAMES = [
    *(word for word in _WORDS if word.isalnum() and word not in _OVERRATED), "javascript", "vbscript", "data", "text", "html", "boot",
    "ini", "INI", "htaccess", "etc", "passwd", "localhost", "127", "0", "169", "254", "metadata", "http",
    "https", "file", "php", "1e", "_", "version", "x41dmin", "--",
]  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from("_!?-.,@:")), max_size=6))
def test_nothing_that_is_passed_over_in_json_would_have_been_blocked(pieces):
    text = "".join(word + sign for word, sign in pieces)[:-1]
    if text not in json_texts(json.dumps([text], ensure_ascii=False)):
        assert _full(text) < THRESHOLD, text


def test_a_url_without_slashes_is_one_to_some():
    for text in ("http:169.254.169.254", "HTTP:169.254.169.254/latest"):
        assert not is_plain(text)
        assert score(text).kind == "ssrf"
        assert Inspector(InjectionRules()).body(json.dumps([text]).encode(), "application/json")


def test_an_address_of_mail_is_no_statement():
    for text in ("exec@shop.example", "shutdown@list.example.org"):
        assert score(text).score == 0
    assert score("1;exec @x").kind == "sql"


def test_common_values_are_plain():
    for text in ("bob", "Conan O'Brien", '1/2" copper pipe', "27 inch (4K)", "Ring twice; wait.",
                 "https://shop.example.com/a?b=c&d=e", "bob@example.com", "Zoë Ní Mháille"):  # fmt: skip
        assert is_plain(text), text
