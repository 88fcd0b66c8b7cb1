"""RFC 9111 section 4.1: which requests a kept response is for."""

from __future__ import annotations

import pytest

from headgate.cache.http.judging import judge_response
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import merged
from headgate.cache.http.vary import ABSENT, names_of, newest, normal
from tests.cache.http.rig import RULES, WALL, ask, fields, kept, outcome

FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param([], (), id="none"),
        pytest.param(["Vary: Accept"], ("accept",), id="one"),
        pytest.param(["Vary: B, a"], ("a", "b"), id="sorted"),
        pytest.param(["Vary: a", "Vary: B,A"], ("a", "b"), id="lines"),
        pytest.param(["Vary:"], (), id="empty"),
        pytest.param(["Vary: ,, a ,"], ("a",), id="empty-members"),
        pytest.param(["Vary: *"], None, id="star"),
        pytest.param(["Vary: a", "Vary: *"], None, id="star-line"),
        pytest.param(["Vary: a:b"], None, id="no-name"),
        pytest.param(["Vary: a*"], ("a*",), id="star-in-a-name"),
    ],
)
def test_names(lines: list[str], expected: tuple[str, ...] | None) -> None:
    found = names_of(fields(*lines))
    assert found == (None if expected is None else tuple(name.encode() for name in expected))


@pytest.mark.parametrize(
    "vary, first, second, expected",
    [
        pytest.param("Foo", ["Foo: 1"], ["Foo: 1"], True, id="4.1-same"),
        pytest.param("foo", ["FOO: 1"], ["Foo: 1"], True, id="4.1-name-case"),
        pytest.param("Foo", ["Foo: 1"], ["Foo: 2"], False, id="4.1-differs"),
        pytest.param("Foo", ["Foo: 1"], [], False, id="4.1-missing-in-second"),
        pytest.param("Foo", [], ["Foo: 1"], False, id="4.1-missing-in-first"),
        pytest.param("Foo", [], [], True, id="4.1-missing-in-both"),
        pytest.param("Foo", [], ["Foo:"], False, id="4.1-missing-is-not-empty"),
        pytest.param("Foo", ["Foo: 1", "Bar: 1"], ["Foo: 1", "Bar: 2"], True, id="4.1-other-field"),
        pytest.param("Foo, Bar", ["Foo: 1", "Bar: 2"], ["Bar: 2", "Foo: 1"], True, id="4.1-order-of-fields"),
        pytest.param("Foo, Bar", ["Foo: 1", "Bar: 2"], ["Foo: 1", "Bar: 3"], False, id="4.1-second-differs"),
        pytest.param("Foo, Bar", ["Foo: 1", "Bar: 2"], ["Foo: 2", "Bar: 1"], False, id="4.1-swapped"),
        pytest.param("Foo, Bar, Baz", ["Foo: 1", "Baz: 2"], ["Foo: 1", "Baz: 2"], True, id="4.1-three-one-missing"),
        pytest.param("Foo", ["Foo: 1, 2"], ["Foo: 1", "Foo: 2"], True, id="4.1-lines-joined"),
        pytest.param("Foo", ["Foo: 1,2"], ["Foo: 1 ,\t2"], True, id="4.1-blanks"),
        pytest.param("Foo", ["Foo: 1, 2"], ["Foo: 2, 1"], False, id="4.1-order-of-members"),
        pytest.param("Foo", ["Foo: a"], ["Foo: A"], False, id="4.1-case-may-mean-something"),
        pytest.param("Foo", ['Foo: "a,b"'], ['Foo: "a, b"'], False, id="4.1-blank-in-quotes"),
        pytest.param("Foo", ['Foo: "a,b", c'], ['Foo: "a,b",c'], True, id="4.1-blank-behind-quotes"),
        pytest.param("Foo", ['Foo: "a", b'], ['Foo: "a" ,b'], True, id="4.1-blank-after-quotes"),
        pytest.param("Foo", ['Foo: "a, b'], ['Foo: "a,b'], False, id="4.1-quote-not-closed"),
        pytest.param("Foo", ["Foo: a b"], ["Foo: a  b"], False, id="4.1-blanks-inside"),
        pytest.param("Cookie", ["Cookie: a=1,2"], ["Cookie: a=1, 2"], False, id="4.1-cookies-are-no-list"),
        pytest.param("User-Agent", ["User-Agent: a,b"], ["User-Agent: a, b"], False, id="4.1-user-agent-is-no-list"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip, br"], ["Accept-Encoding: br,gzip"], True, id="encoding-order"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: GZip"], ["Accept-Encoding: gzip"], True, id="encoding-case"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: x-gzip"], ["Accept-Encoding: gzip"], True, id="encoding-alias"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=1.0"], ["Accept-Encoding: gzip"], True, id="encoding-weight-one"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=0.50"], ["Accept-Encoding: gzip ; Q=0.5"], True, id="encoding-weight-digits"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=0.5"], ["Accept-Encoding: gzip"], False, id="encoding-weight"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=0"], ["Accept-Encoding: gzip"], False, id="encoding-refused"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=0"], ["Accept-Encoding: gzip;q=0.000"], True, id="encoding-refused-digits"),
        pytest.param("Accept-Encoding", ["Accept-Encoding:"], [], False, id="encoding-empty-is-not-any"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip"], ["Accept-Encoding: gzip, br"], False, id="encoding-one-more"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip, *;q=0"], ["Accept-Encoding: gzip"], False, id="encoding-star"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip,,"], ["Accept-Encoding: gzip"], True, id="encoding-empty-members"),
        pytest.param("Accept-Encoding", ["Accept-Encoding: gzip;q=2"], ["Accept-Encoding: gzip"], False, id="encoding-bad-weight"),
        pytest.param("Accept-Language", ["Accept-Language: en, de"], ["Accept-Language: eN ,De"], True, id="language-case"),
        pytest.param("Accept-Language", ["Accept-Language: en, de"], ["Accept-Language: de, en"], False, id="language-rank-among-equals"),
        pytest.param("Accept-Language", ["Accept-Language: en;q=0.5, de"], ["Accept-Language: de, en;q=0.5"], True, id="language-order-beside-weights"),
        pytest.param("Accept-Language", ["Accept-Language: en;q=0.5, de"], ["Accept-Language: de;q=0.5, en"], False, id="language-weights"),
        pytest.param("Accept", ["Accept: Text/HTML;Level=1 ; q=0.80"], ["Accept: text/html;level=1;q=0.8"], True, id="accept-case-and-weight"),
        pytest.param("Accept", ["Accept: a/b;profile=A"], ["Accept: a/b;profile=a"], False, id="accept-argument-case"),
        pytest.param("Accept", ["Accept: a/b;level=1"], ["Accept: a/b"], False, id="accept-parameter"),
        pytest.param("Accept", ['Accept: a/b;x="1, 2"'], ['Accept: a/b;x="1,2"'], False, id="accept-quoted"),
    ],
)  # fmt: skip
def test_a_kept_response_is_for_requests_that_say_the_same(
    vary: str, first: list[str], second: list[str], expected: bool
) -> None:
    found = outcome([FRESH, f"Vary: {vary}"], first=first, then=second)
    assert found == ("fresh" if expected else "vary")


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "Accept-Language", "Accept-Charset"])
def test_weights_are_told_apart(name: str) -> None:
    said = ["a", "a;q=0", "a;q=0.2", "a;q=0.25", "a;q=0.5", "b"]
    found = {normal((name.lower().encode(),), fields(f"{name}: {value}")) for value in said}
    assert len(found) == len(said)


def test_a_field_that_is_missing_is_told_from_every_value() -> None:
    assert normal((b"a", b"b"), fields("A: 1")) == ((b"a", b"1"), (b"b", ABSENT))
    assert normal((), fields("A: 1")) == ()


def test_4_the_newest_of_several_that_match_is_taken() -> None:
    old = kept(FRESH, "Vary: A", "Date: @-20", asked=ask("A: 1"))
    new = kept(FRESH, "Vary: B", "Date: @-5", asked=ask("A: 1"))
    other = kept(FRESH, "Vary: A", "Date: @0", asked=ask("A: 2"))
    assert newest([new, old, other], fields("A: 1")) is new
    assert newest([old, other], fields("A: 1")) is old
    assert newest([other], fields("A: 1")) is None
    assert newest([], ()) is None


def test_4_1_what_the_service_saw_counts_where_the_gateway_has_edited_it() -> None:
    """Else a client chooses under which content a response is filed that does not follow from it."""
    asked = ask("X-Language: en")
    seen = fields("X-Language: de")
    stored = judge_response(
        asked, 200, b"", fields(FRESH, "Vary: X-Language", 'ETag: "a"'),
        request_at=WALL, received_at=WALL, rules=RULES, params={}, fields=seen,
    )  # fmt: skip
    assert isinstance(stored, Stored)
    assert stored.vary == ((b"x-language", b"de"),)
    again = merged(
        stored, (), request_at=WALL, received_at=WALL, rules=RULES, asked=asked, fields=seen
    )
    assert again.vary == stored.vary
