from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config.regexes import regex_fault


@pytest.mark.parametrize(
    "pattern",
    [
        "/a/.*",
        "/[a-z]+/[0-9]{1,5}",
        "(/[^/]+)+",
        "/files(?:/[a-z0-9-]+)*",
        "([a-z]+,)*[a-z]+",
        r"/v(?P<major>\d+)/(?P<rest>.*)",
        "(a|b|c)+",
        "(ab?)+",
        "/x{1,3}(y{2}z)*",
        "(?i)/A+",
        "(?i)(/[a-z]+)+",
        "/(jpg|jpeg|png)",
        "(foo|bar|baz)+",
        "(/(users|items)/[0-9]+)*",
        "([0-9a-f]{2})+",
        r"(\d{1,3}\.)+\d{1,3}",
    ],
)
def test_patterns_that_people_write_are_taken(pattern):
    assert regex_fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*",
        "(a+)*$",
        r"(\w*-?)*x",
        "(.*a){20}",
        "((a+)b?)+",
        "(a{0,50}){0,50}",
        "(/[^/]*/?)*x",
        "(a|aa)+",
        "(a?a)*",
        "(a.|ab)+",
        "(a|ab|b)+",
        "(a[bc]d|abd)+",
        "(?i)(a[b-z]+A?)+",
        "([a-z]{1,3})+",
        "(a+|b)*",
        "((?:x+)|y)*z",
        "/(?:(?:a|b)+c?)+",
        "(?=(a+)+)b",
    ],
)
def test_repeats_of_repeats_are_refused(pattern):
    assert str(regex_fault(pattern)).startswith("repeats a repeat")


@pytest.mark.parametrize(
    "pattern", ["(", "a{5,2}", "[z-a]", "(?P<a>x)(?P<a>y)", "\\", "(?<=a+)b", "*a"]
)
def test_what_is_no_pattern_says_why(pattern):
    assert str(regex_fault(pattern)).startswith("is not a regular expression: ")


def test_reasons_do_not_quote_the_pattern():
    for pattern in (
        "(?P<hunter22>x)(?P<hunter22>y)",
        "(?P=hunter22)",
        "[z-a]hunter22",
        "\\hunter22(",
    ):
        assert "hunter22" not in (regex_fault(pattern) or "")


def test_a_set_that_python_may_come_to_read_otherwise_is_refused():
    assert "not clear" in str(regex_fault("[[a]"))


def test_a_very_long_pattern_is_refused():
    assert "too long" in str(regex_fault("a" * 1001))


@given(st.text(alphabet="ab(|)*+?[]^{}1,/.\\d", max_size=24))
@settings(max_examples=300, deadline=None)
def test_nothing_is_raised_and_what_is_taken_compiles(pattern):
    if regex_fault(pattern) is None:
        re.compile(pattern)


def test_what_is_taken_is_quick_where_the_refused_is_not():
    text = "/" + "a" * 28 + "!"
    started = time.monotonic()
    assert not re.fullmatch("(/[^/]+)+/", text)
    assert not re.fullmatch("([a-z]+,)*[a-z]+", text)
    assert time.monotonic() - started < 5  # the refused shape would take minutes
