"""RFC 9111 section 3: what may be kept, and which of its fields."""

from __future__ import annotations

import pytest

from headgate.cache.http.judging import NotStored
from headgate.cache.http.stored import Stored
from headgate.cache.http.tags import TAG_LENGTH_MAX, TAGS_MAX
from tests.cache.http.rig import KeyRules, ask, ask_rules, fields, judge, kept

FRESH = "Cache-Control: max-age=60"
MODIFIED = "Last-Modified: @-1000"


def said(*lines: str, **given: object) -> str:
    found = judge(*lines, **given)  # type: ignore[arg-type]  # the table's columns
    return found.reason if isinstance(found, NotStored) else "kept"


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param([FRESH], "kept", id="3-max-age"),
        pytest.param(["Cache-Control: s-maxage=60"], "kept", id="3-s-maxage"),
        pytest.param(["Expires: @60"], "kept", id="3-expires"),
        pytest.param([MODIFIED], "kept", id="3-heuristic"),
        pytest.param(['ETag: "a"'], "kept", id="3-validator-only"),
        pytest.param([], "not_fresh", id="3-says-nothing"),
        pytest.param(["Cache-Control: public"], "not_fresh", id="3-public-of-no-use"),
        pytest.param(["Cache-Control: max-age=0"], "not_fresh", id="3-stale-of-no-use"),
        pytest.param(["Cache-Control: max-age=0", 'ETag: "a"'], "kept", id="3-stale-but-validated"),
        pytest.param(
            ["Cache-Control: max-age=0, stale-while-revalidate=9"],
            "kept",
            id="5861-3-stale-at-once",
        ),
        pytest.param(
            ["Cache-Control: max-age=0, stale-if-error=9"], "kept", id="5861-4-stale-at-once"
        ),
        pytest.param([FRESH, "Age: 61"], "not_fresh", id="4.2.3-came-stale"),
        pytest.param(["Cache-Control: no-store"], "no_store", id="5.2.2.5-no-store"),
        pytest.param(["Cache-Control: No-StOrE"], "no_store", id="5.2-case"),
        pytest.param(
            ["Cache-Control: no-store, max-age=60"], "no_store", id="5.2.2.5-before-max-age"
        ),
        pytest.param(
            ["Cache-Control: max-age=60, no-store"], "no_store", id="5.2.2.5-after-max-age"
        ),
        pytest.param([FRESH, "Cache-Control: no-store"], "no_store", id="5.2.2.5-second-line"),
        pytest.param(
            ["Cache-Control: max-age=60,,, no-store"], "no_store", id="5.2.2.5-empty-members"
        ),
        pytest.param(["Cache-Control: \t no-store\t ,max-age=60"], "no_store", id="5.2.2.5-blanks"),
        pytest.param(
            ["Cache-Control: max-age=60 no-store"], "no_store", id="5.2.2.5-comma-missing"
        ),
        pytest.param(['Cache-Control: a="b, no-store'], "no_store", id="5.2.2.5-quote-not-closed"),
        pytest.param(
            ['Cache-Control: a="x\\", no-store", max-age=60'], "kept", id="5.2.3-quoted-no-store"
        ),
        pytest.param(
            ['Cache-Control: a="no-store", max-age=60'], "kept", id="5.2.3-extension-argument"
        ),
        pytest.param(
            ["Cache-Control: no-store=x, max-age=60"], "no_store", id="5.2.2.5-with-argument"
        ),
        pytest.param(["Cache-Control: not-no-store, max-age=60"], "kept", id="5.2.3-other-name"),
        pytest.param(["Cache-Control: private, max-age=60"], "private", id="5.2.2.7-private"),
        pytest.param(
            ["Cache-Control: private, public, max-age=60"],
            "private",
            id="4.2.1-private-beats-public",
        ),
        pytest.param(
            ["Cache-Control: PRIVATE, s-maxage=60"], "private", id="5.2.2.7-beats-s-maxage"
        ),
        pytest.param(['Cache-Control: private="", max-age=60'], "private", id="5.2.2.7-empty-list"),
        pytest.param(
            ['Cache-Control: private="a b", max-age=60'], "private", id="5.2.2.7-bad-list"
        ),
        pytest.param(['Cache-Control: private="x-a", max-age=60'], "kept", id="5.2.2.7-field"),
        pytest.param(
            ["Cache-Control: private=x-a, max-age=60"], "kept", id="5.2.2.7-field-as-token"
        ),
        pytest.param(
            ['Cache-Control: private="x-a", private, max-age=60'],
            "private",
            id="5.2.2.7-both-forms",
        ),
        pytest.param(["Cache-Control: no-cache"], "no_validator", id="5.2.2.4-cannot-validate"),
        pytest.param(["Cache-Control: no-cache", 'ETag: "a"'], "kept", id="5.2.2.4-can-validate"),
        pytest.param([FRESH, "Vary: *"], "vary", id="4.1-star"),
        pytest.param([FRESH, "Vary: *, *"], "vary", id="4.1-star-twice"),
        pytest.param([FRESH, "Vary: , *"], "vary", id="4.1-star-after-empty"),
        pytest.param([FRESH, "Vary:", "Vary: *"], "vary", id="4.1-star-second-line"),
        pytest.param([FRESH, "Vary: Accept, *"], "vary", id="4.1-star-among-names"),
        pytest.param([FRESH, "Vary: a b"], "vary", id="4.1-no-name"),
        pytest.param(
            [FRESH, "Vary: " + ",".join(f"a{n}" for n in range(33))],
            "vary",
            id="4.1-too-many-names",
        ),
        pytest.param(
            [FRESH, "Vary: " + ",".join(f"a{n}" for n in range(32))], "kept", id="4.1-many-names"
        ),
        pytest.param([FRESH, "Vary: Accept"], "kept", id="4.1-name"),
        pytest.param([FRESH, "Set-Cookie: a=b"], "set_cookie", id="7.3-set-cookie"),
        pytest.param(
            [FRESH + ', no-cache="set-cookie"', "Set-Cookie: a=b"],
            "kept",
            id="5.2.2.4-cookie-listed",
        ),
        pytest.param(
            [FRESH + ', private="Set-Cookie"', "Set-Cookie: a=b"],
            "kept",
            id="5.2.2.7-cookie-listed",
        ),
        pytest.param(
            ["Cache-Control: must-understand, no-store, max-age=60"],
            "kept",
            id="5.2.2.3-understood",
        ),
        pytest.param(
            ["Cache-Control: must-understand=1, no-store, max-age=60"],
            "no_store",
            id="5.2.2.3-argument",
        ),
        pytest.param([FRESH, "Pragma: no-cache"], "kept", id="5.4-pragma-beside-cache-control"),
        pytest.param([MODIFIED, "Pragma: no-cache"], "kept", id="5.4-pragma-to-be-validated"),
        pytest.param(["Cache-Control: immutable"], "not_fresh", id="8246-2-alone"),
        pytest.param(['Cache-Control: community="UCI", max-age=60'], "kept", id="5.2.3-unknown"),
    ],
)
def test_a_response_is_kept_or_passed_with_the_reason(lines: list[str], expected: str) -> None:
    assert said(*lines) == expected


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_9110_15_1_statuses_cacheable_by_default_need_no_explicit_freshness(status: int) -> None:
    stored = kept(MODIFIED, status=status)
    assert stored.is_heuristic
    assert stored.fresh_s == 100.0


@pytest.mark.parametrize(
    "status", [201, 202, 302, 303, 307, 400, 401, 403, 408, 429, 500, 502, 503, 504, 299, 599]
)
def test_3_other_statuses_need_explicit_freshness(status: int) -> None:
    assert said(MODIFIED, status=status) == "status"
    assert said('ETag: "a"', status=status) == "status"
    assert said(FRESH, status=status) == "kept"
    assert said("Expires: @60", status=status) == "kept"
    assert kept("Cache-Control: public", MODIFIED, status=status).is_heuristic


@pytest.mark.parametrize("status", [100, 101, 102, 103, 199, 206, 304, 412, 416, 600, 999, 0])
def test_3_no_directive_makes_these_statuses_kept(status: int) -> None:
    assert said("Cache-Control: public, max-age=60", 'ETag: "a"', status=status) == "status"


@pytest.mark.parametrize("status", [299, 418, 499, 520, 599])
def test_5_2_2_3_must_understand_passes_a_status_that_is_not_understood(status: int) -> None:
    assert said("Cache-Control: must-understand, max-age=60", status=status) == "not_understood"
    assert said("Cache-Control: max-age=60", status=status) == "kept"


@pytest.mark.parametrize(
    "method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "QUERY", ""]
)
def test_3_only_answers_to_get_are_kept(method: str) -> None:
    assert said("Cache-Control: public, max-age=60", asked=ask(method=method)) == "method"


@pytest.mark.parametrize("line", ["Cache-Control: no-store", "Cache-Control: max-age=9, NO-STORE"])
def test_5_2_1_5_no_store_of_a_request(line: str) -> None:
    assert said("Cache-Control: public, max-age=60", asked=ask(line)) == "request_no_store"
    rules = ask_rules(client_directives=False)
    assert (
        said("Cache-Control: public, max-age=60", asked=ask(line, rules=rules), rules=rules)
        == "kept"
    )


@pytest.mark.parametrize(
    "directives, expected",
    [
        pytest.param("max-age=60", "authorization", id="3.5-max-age-is-not-enough"),
        pytest.param(
            "max-age=60, proxy-revalidate", "authorization", id="3.5-nor-proxy-revalidate"
        ),
        pytest.param("max-age=60, immutable", "authorization", id="3.5-nor-immutable"),
        pytest.param("max-age=60, public=x", "authorization", id="3.5-nor-public-with-an-argument"),
        pytest.param("max-age=60, public", "kept", id="3.5-public"),
        pytest.param("max-age=60, PUBLIC", "kept", id="3.5-public-case"),
        pytest.param("s-maxage=60", "kept", id="3.5-s-maxage"),
        pytest.param("max-age=60, must-revalidate", "kept", id="3.5-must-revalidate"),
        pytest.param("max-age=60, private", "private", id="3.5-private"),
    ],
)
@pytest.mark.parametrize("who", ["authorization", "identified"])
def test_3_5_an_answer_to_somebody_known(who: str, directives: str, expected: str) -> None:
    asked = ask("Authorization: Bearer x") if who == "authorization" else ask(identified=True)
    assert said(f"Cache-Control: {directives}", asked=asked) == expected


@pytest.mark.parametrize(
    "key, expected",
    [
        pytest.param(KeyRules(user=True), "kept", id="user"),
        pytest.param(KeyRules(claims=("tenant",)), "kept", id="claims"),
        pytest.param(KeyRules(headers=("Authorization",)), "kept", id="authorization"),
        pytest.param(KeyRules(headers=("x-a",), cookies=("session",)), "authorization", id="other"),
    ],
)
def test_3_5_a_key_that_tells_users_apart_lets_their_answers_be_kept(
    key: KeyRules, expected: str
) -> None:
    assert said(FRESH, asked=ask("Authorization: x"), rules=ask_rules(key=key)) == expected


@pytest.mark.parametrize("given", ["ttl", "status", "overrides", "user"])
@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param(["Cache-Control: no-store"], "no_store", id="no-store"),
        pytest.param(["Cache-Control: private"], "private", id="private"),
        pytest.param([FRESH, "Vary: *"], "vary", id="vary"),
        pytest.param([FRESH, "Set-Cookie: a=b"], "set_cookie", id="set-cookie"),
    ],
)
def test_no_rule_of_a_route_overrides_what_forbids_to_share(
    given: str, lines: list[str], expected: str
) -> None:
    rules = {
        "ttl": ask_rules(ttl_s=60.0),
        "status": ask_rules(ttl_by_status={200: 60.0}),
        "overrides": ask_rules(ttl_s=60.0, overrides=True),
        "user": ask_rules(ttl_s=60.0, overrides=True, key=KeyRules(user=True)),
    }[given]
    assert said(*lines, rules=rules) == expected


@pytest.mark.parametrize(
    "given",
    [{"ttl_s": 60.0}, {"ttl_by_status": {200: 60.0}}, {"ttl_s": 60.0, "overrides": True}],
    ids=["ttl", "status", "overrides"],
)
def test_no_ttl_of_a_route_shares_what_was_made_for_somebody_known(
    given: dict[str, object],
) -> None:
    assert said(asked=ask(identified=True), rules=ask_rules(**given)) == "authorization"


def test_set_cookie_is_kept_or_stripped_where_the_route_says_so() -> None:
    lines = (FRESH, "Set-Cookie: a=b", "X-A: 1")
    assert (b"set-cookie", b"a=b") in kept(*lines, rules=ask_rules(set_cookie="store")).headers
    names = [name for name, _ in kept(*lines, rules=ask_rules(set_cookie="strip")).headers]
    assert names == [b"cache-control", b"x-a", b"date"]


@pytest.mark.parametrize(
    "name", ["Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Age"]
)
def test_3_1_fields_of_a_proxy_are_not_kept(name: str) -> None:
    names = {key for key, _ in kept(FRESH, f"{name}: 1", "X-A: 1").headers}
    assert name.lower().encode() not in names
    assert b"x-a" in names


@pytest.mark.parametrize("directive", ["no-cache", "private"])
@pytest.mark.parametrize(
    "listed", ['"x-a"', '"X-A, x-c"', "x-a", '" x-a ,, "'], ids=["one", "two", "token", "blanks"]
)
def test_3_1_fields_that_a_directive_lists_are_not_kept(directive: str, listed: str) -> None:
    stored = kept(f"Cache-Control: max-age=60, {directive}={listed}", "X-A: 1", "X-B: 2")
    names = {name for name, _ in stored.headers}
    assert b"x-a" not in names
    assert b"x-b" in names
    assert b"x-a" in stored.stripped_fields
    assert not stored.needs_validation


def test_3_1_what_the_cache_reads_again_stays_though_it_is_listed() -> None:
    stored = kept(
        'Cache-Control: max-age=60, private="vary, cache-control, date"', "Vary: Accept", "Date: @0"
    )
    assert {name for name, _ in stored.headers} == {b"cache-control", b"vary", b"date"}


def test_3_1_a_listed_validator_is_no_validator() -> None:
    stored = kept(
        'Cache-Control: max-age=60, no-cache="etag, last-modified"', 'ETag: "a"', MODIFIED
    )
    assert stored.etag is None
    assert stored.last_modified is None


def test_3_1_all_other_fields_are_kept_in_order_with_their_duplicates() -> None:
    lines = ("Date: @0", "X-B: 2", FRESH, "X-A: 1", "X-B: 3", "Content-Type: a/b", "CDN-Loop: x")
    assert kept(*lines).headers == fields(*lines)


@pytest.mark.parametrize(
    "dates", [[], ["Date: yesterday"], ["Date: @-5", "Date: @-9"]], ids=["none", "bad", "two"]
)
def test_9110_6_6_1_a_date_is_added_where_there_is_none(dates: list[str]) -> None:
    stored = kept(FRESH, *dates)
    assert [value for name, value in stored.headers if name == b"date"] == [
        fields("Date: @0")[0][1]
    ]


def test_two_different_tags_are_no_validator() -> None:
    assert kept(FRESH, 'ETag: "a"', 'ETag: "b"').etag is None


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param(["Cache-Tag: a, b,c"], ("a", "b", "c"), id="commas"),
        pytest.param(["Surrogate-Key: a b\tc"], ("a", "b", "c"), id="blanks"),
        pytest.param(["Cache-Tag: a,b", "Surrogate-Key: b c"], ("a", "b", "c"), id="both"),
        pytest.param(["Cache-Tag: a", "Cache-Tag: a"], ("a",), id="once"),
        pytest.param(["Cache-Tag: ,, "], (), id="empty"),
        pytest.param(["Cache-Tag: " + "a" * TAG_LENGTH_MAX], ("a" * TAG_LENGTH_MAX,), id="longest"),
    ],
)
def test_tags_are_read_from_their_fields(lines: list[str], expected: tuple[str, ...]) -> None:
    stored = kept(FRESH, *lines)
    assert stored.tags == expected
    assert not {name for name, _ in stored.headers} & {b"cache-tag", b"surrogate-key"}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("Cache-Tag: " + "a" * (TAG_LENGTH_MAX + 1), id="too-long"),
        pytest.param("Cache-Tag: " + ",".join(map(str, range(TAGS_MAX + 1))), id="too-many"),
    ],
)
def test_a_response_with_tags_beyond_the_bounds_is_passed(line: str) -> None:
    assert said(FRESH, line) == "tags"


def test_tags_of_the_route_are_filled_with_what_the_path_said() -> None:
    rules = ask_rules(tags=("shop", "product:{id}", "{nothing}x"), tags_shown=True)
    stored = kept(FRESH, "Cache-Tag: own", rules=rules, params={"id": "42"})
    assert stored.tags == ("own", "shop", "product:42", "x")
    assert (b"cache-tag", b"own") in stored.headers


def test_text_of_the_path_that_looks_like_a_parameter_is_not_filled_again() -> None:
    stored = kept(FRESH, rules=ask_rules(tags=("p:{id}",)), params={"id": "{id}"})
    assert isinstance(stored, Stored)
    assert stored.tags == ("p:{id}",)
