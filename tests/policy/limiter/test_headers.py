"""What clients are told: names, syntax and rounding of the draft and of the classic fields."""

from __future__ import annotations

import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.limiter import LimitRules, Verdict
from headgate.policy.limiter.headers import LimitHeaders, retry_after_line, sf_string

RULES = LimitRules(limit=100, period_s=60.0)


@pytest.mark.parametrize(
    "rules, verdict, lines",
    [
        (
            RULES,
            Verdict(True, 100, 50, 30.0, 0.0),
            b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=50;t=30\r\n',
        ),
        (
            RULES,
            Verdict(True, 100, 99, 0.6, 0.0),
            b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=99;t=1\r\n',
        ),
        (
            RULES,
            Verdict(True, 100, 100, 0.0, 0.0),
            b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=100;t=0\r\n',
        ),
        (  # refused: when it would pass, not when all is there again
            RULES,
            Verdict(False, 100, 0, 60.0, 0.6),
            b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=0;t=1\r\n',
        ),
        (
            RULES,
            Verdict(False, 100, 0, 60.0, inf),
            b'ratelimit-policy: "default";q=100;w=60\r\n'
            b'ratelimit: "default";r=0;t=999999999999999\r\n',
        ),
        (  # a window is a whole number of seconds, and not 0
            LimitRules(limit=10, period_s=0.25),
            Verdict(True, 10, 9, 0.025, 0.0),
            b'ratelimit-policy: "default";q=10;w=1\r\nratelimit: "default";r=9;t=1\r\n',
        ),
        (
            LimitRules(limit=5, algorithm="concurrency"),
            Verdict(True, 5, 4, 1.0, 0.0),
            b'ratelimit-policy: "default";q=5;qu="concurrent-requests"\r\n'
            b'ratelimit: "default";r=4;t=1\r\n',
        ),
    ],
)
def test_the_draft(rules, verdict, lines):
    assert LimitHeaders("default", rules).lines(verdict) == lines


def test_the_classic_fields():
    headers = LimitHeaders("default", LimitRules(limit=100, period_s=60.0, burst=20), "classic")
    assert headers.lines(Verdict(True, 20, 12, 4.2, 0.0)) == (
        b"x-ratelimit-limit: 20\r\nx-ratelimit-remaining: 12\r\nx-ratelimit-reset: 5\r\n"
    )


def test_both():
    headers = LimitHeaders("default", RULES, "both")
    assert headers.lines(Verdict(True, 100, 50, 30.0, 0.0)) == (
        b'ratelimit-policy: "default";q=100;w=60\r\n'
        b'ratelimit: "default";r=50;t=30\r\n'
        b"x-ratelimit-limit: 100\r\n"
        b"x-ratelimit-remaining: 50\r\n"
        b"x-ratelimit-reset: 30\r\n"
    )


@pytest.mark.parametrize(
    "seconds, line",
    [
        (0.0, b"retry-after: 1\r\n"),
        (0.001, b"retry-after: 1\r\n"),
        (1.0, b"retry-after: 1\r\n"),
        (1.001, b"retry-after: 2\r\n"),
        (59.9, b"retry-after: 60\r\n"),
        (inf, b""),
        (1e30, b"retry-after: 999999999999999\r\n"),
    ],
)
def test_retry_after_is_whole_seconds_rounded_up(seconds, line):
    assert retry_after_line(seconds) == line


@given(
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
    st.sampled_from(["draft", "classic", "both"]),
)
def test_retry_after_is_never_before_the_reset_told(reset_s, retry_after_s, style):
    verdict = Verdict(False, 100, 0, reset_s, retry_after_s)
    fields = dict(LimitHeaders("x", RULES, style).fields(verdict))
    told = int(fields["retry-after"])
    assert retry_after_s <= told < retry_after_s + 1 or told == 1
    if style != "classic":
        assert told >= int(fields["ratelimit"].rpartition("t=")[2])


# RFC 9651 section 4.1.6 and 3.1.2: what a parser of strings and parameters takes.
STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
ITEM = re.compile(rf"{STRING}(?:;[a-z]+=(?:\d{{1,15}}|{STRING}))*")


@given(st.text(), st.integers(0, 10**6), st.floats(0.0, 1e300))
def test_any_name_gives_well_formed_fields(name, remaining, reset_s):
    fields = LimitHeaders(name, RULES).fields(Verdict(True, 100, remaining, reset_s, 0.0))
    assert [field for field, _ in fields] == ["ratelimit-policy", "ratelimit"]
    for _, value in fields:
        assert ITEM.fullmatch(value)


@pytest.mark.parametrize(
    "text, string",
    [
        ("per minute", '"per minute"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("50%", '"50%"'),
        ("a\r\nb", '"a??b"'),
        ("ü", '"?"'),
    ],
)
def test_names_become_strings_of_structured_fields(text, string):
    assert sf_string(text) == string
    headers = LimitHeaders(text, RULES)
    assert headers.lines(Verdict(True, 100, 1, 1.0, 0.0)).count(b"\r\n") == 2
    assert string.encode() in headers.lines(Verdict(True, 100, 1, 1.0, 0.0))
