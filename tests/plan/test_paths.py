from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.plan.paths import (
    PathInvalid,
    compile_exact,
    compile_path,
    compile_regex,
    literal_start,
    regex_reader,
)


@pytest.mark.parametrize(
    ("pattern", "start"),
    [
        ("/api/users", "/api/users"),
        ("^/api/users$", "/api/users"),
        (r"/api/v[0-9]+/.*", "/api/v"),
        (r"/a\.b\-c/\d", "/a.b-c/"),
        ("/ab?", "/a"),
        ("/ab*c", "/a"),
        ("/ab{2}", "/a"),
        ("/ab+", "/a"),
        ("/a|/b", ""),
        ("/(a|b)/c", "/"),
        ("/a[|]b|c", ""),
        ("/a[|]b", "/a"),
        ("/a[]|]b", "/a"),
        ("/a[^]|]b", "/a"),
        (r"/a\|b", "/a|b"),
        ("(?i)/abc", ""),
        ("(?x) /abc", ""),
        (".*", ""),
        ("", ""),
    ],
)
def test_the_literal_start_of_a_regex(pattern, start):
    re.compile(pattern)
    assert literal_start(pattern) == start


ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "/",
        r"\.",
        r"\d",
        "[ab|]",
        "(?:a|b)",
        "(b)",
        "?",
        "*",
        "+",
        "{2}",
        "|",
        "^",
        "$",
        ".",
    ]
)


@given(st.lists(ATOMS, max_size=8).map("".join), st.text("ab./2|", max_size=8))
@example("a?b", "b")
@example("^a|b", "b")
def test_every_match_begins_with_the_literal_start(pattern, text):
    try:
        compiled = re.compile(pattern)
    except re.error:
        return
    if compiled.fullmatch(text):
        assert text.startswith(literal_start(pattern))


LOOKING_BACK = st.sampled_from(["(?<=/a)", "(?<!a)", r"\b", r"\B", "(?P<n>a|b)", "(?=b)", "^"])


@given(
    st.lists(st.one_of(ATOMS, LOOKING_BACK), max_size=8).map("".join),
    st.text("ab./2|", max_size=8),
)
@example("/a(?<=/a)b", "/ab")
@example(r"/a\bb", "/ab")
@example("/a^b", "/ab")
@example("/a(?P<n>b)", "/ab")
def test_the_rest_of_a_regex_reads_what_the_whole_reads(pattern, text):
    try:
        path = compile_regex(pattern, 0)
    except re.error:
        return
    if text.startswith(path.literal):
        assert regex_reader(path)(text, ()) == path.read(text, ())


def test_regexes_that_differ_in_their_literal_start_share_a_reader():
    one, two = compile_regex("/a/b-[0-9]+", 0), compile_regex("/x/y-[0-9]+", 1)
    assert regex_reader(one) is regex_reader(two)
    assert regex_reader(one)("/x/y-7", ()) == {}


@pytest.mark.parametrize(
    "template",
    [
        "/a{x}",
        "/{x}b",
        "/{}",
        "/{x:float}",
        "/{x}/{x}",
        "/{x:path}/b",
        "/{x:path}/",
        "/{x/y}",
        "/}{",
    ],
)
def test_templates_that_mean_nothing_are_refused(template):
    with pytest.raises(PathInvalid):
        compile_path(template)


def test_a_regex_knows_its_place_in_the_file():
    assert compile_regex("/a", 3).order < compile_regex("/a", 4).order


@pytest.mark.parametrize("path", ["/%zz", "/a%00", "/..%2f", "/..", "/a#b"])
def test_a_path_that_no_request_has_is_refused(path):
    with pytest.raises(PathInvalid):
        compile_exact(path)


def test_a_template_with_a_dot_segment_is_refused():
    with pytest.raises(PathInvalid):
        compile_path("/{x}/../b")


def test_dots_and_escapes_are_brought_into_the_normal_form():
    assert compile_exact("/a/../%7eb/%2f").path == "/~b/%2F"
    assert str(compile_path("/a/./b/")) == 'prefix "/a/b"'
