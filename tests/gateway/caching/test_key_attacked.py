"""Published ways to poison a cache, or to read it, as far as they go by its key.

Two requests that a service may take for different ones have different keys, or no key at all.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headgate.cache.http.rules import KeyRules
from headgate.gateway.caching.key import compile_cache_key
from headgate.policy.limiter.keys import short_key
from headgate.security.identity import Identity
from tests.gateway.caching.key_rig import (
    NEXT,
    SHOP,
    Refused,
    exchange,
    get,
    key_of,
    read,
    read_h2,
    route,
    site,
    url,
)

PLAIN = get("/account?id=1")


def keys(*raws: Any, **more: Any) -> list[str | None]:
    return [key_of(raw, **more) for raw in raws]


# -- what is not in the request line ---------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "X-HTTP-Method-Override: POST",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: PUT",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-Original-URI: /admin",
        "X-Host: evil.example",
        "X-Original-Host: evil.example",
        "X-HTTP-Host-Override: evil.example",
        "X-Forwarded-Uri: /admin",
        "X-Forwarded-Path: /admin",
        "X-Forwarded-Protocol: https",
        "X-Forwarded-Client-Cert: Subject=admin",
        "X-URL-Scheme: https",
        "Front-End-Https: on",
        "X-Now-Route-Matches: 1",
        "X-Invoke-Status: 404",
        "X-Nextjs-Data: 1",
        "x_http_method_override: POST",
        "X_Original-URL: /admin",
        "x-original_url: /admin",
    ],
)
def test_a_field_that_overrules_the_request_line_counts(line):
    odd = key_of(get("/account?id=1", line))
    assert odd not in (key_of(PLAIN), None)


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "Forwarded",
        "X-Forwarded-Server",
        "X-Forwarded-Proto",
        "X-Forwarded-SSL",
        "X-Real-IP",
    ],
)
def test_what_no_stranger_may_say_of_forwarding_reaches_no_service_and_does_not_count(name):
    assert key_of(get("/account?id=1", f"{name}: evil.example")) == key_of(PLAIN)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("X-Forwarded-Host: evil.example", True),
        ("X-Forwarded-Host: shop.example", False),
        ("X-Forwarded-Host: not a host", False),
        ("X-Forwarded-Proto: https", True),
        ("X-Forwarded-Proto: http", False),
        ("X-Forwarded-Port: 1337", True),
        ("X-Forwarded-Scheme: nothttps", True),
        ("X-Forwarded-Prefix: /evil", True),
        ("X-Forwarded-Server: evil", True),
        ("X-Forwarded-For: 192.0.2.9", False),
    ],
)
def test_of_a_trusted_proxy_it_counts_what_services_are_told(line, counts):
    proxy = site("10.0.0.0/8")
    assert (key_of(get("/", line), proxy=proxy) != key_of(get("/"), proxy=proxy)) is counts


def test_a_field_that_the_route_takes_out_does_not_count():
    careful = route("/ -> shop", b"x-original-url")
    odd, worse = get("/", "X-Original-URL: /admin"), get("/", "X-Host: evil.example")
    assert key_of(odd, route=careful) == key_of(get("/"), route=careful)
    assert key_of(worse, route=careful) != key_of(get("/"), route=careful)


def test_the_host_in_forwarded_counts_where_it_is_sent_on():
    lines = ("Forwarded: for=192.0.2.1;host=evil.example", "X-Forwarded-For: 192.0.2.1")
    both = site("10.0.0.0/8", forwarded=True)
    plain = get("/", "Forwarded: for=192.0.2.7", lines[1])
    assert key_of(get("/", *lines), proxy=both) != key_of(plain, proxy=both)
    more = get("/", "Forwarded: for=192.0.2.8;by=192.0.2.3", lines[1])
    assert key_of(more, proxy=both) == key_of(plain, proxy=both) == key_of(get("/"), proxy=both)
    off = site("10.0.0.0/8")
    assert key_of(get("/", *lines), proxy=off) == key_of(plain, proxy=off)


def test_the_same_field_twice_is_another_request():
    rules = KeyRules(headers=("x-lang",))
    asked = [
        get("/", "X-Lang: en"),
        get("/", "X-Lang: en", "X-Lang: <script>"),
        get("/", "X-Lang: <script>", "X-Lang: en"),
        get("/", "X-Lang: en, <script>"),
        get("/", "X_Lang: <script>", "X-Lang: en"),
        get("/", "x_lang: en"),
        get("/", "X-Lang: en,x-lang:<script>"),
        get("/", "X-Lang:"),
        get("/"),
    ]
    assert len(set(keys(*asked, rules=rules))) == len(asked)


# -- bodies and methods ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        get("/", "Content-Length: 9"),
        get("/", "Transfer-Encoding: chunked"),
        get("/", method="POST"),
        get("/", method="PUT"),
        get("/", method="DELETE"),
        get("/", method="OPTIONS"),
        get("/", method="PURGE"),
        get("/", method="get"),
        get("/", method="QUERY"),
        get("/", "Connection: upgrade", "Upgrade: websocket"),
        get("/", "Connection: upgrade", "Upgrade: h2c"),
    ],
    ids=[
        "length",
        "chunked",
        "post",
        "put",
        "delete",
        "options",
        "purge",
        "lower",
        "query",
        "websocket",
        "h2c",
    ],
)
def test_what_is_no_plain_get_has_no_key(raw):
    assert key_of(raw) in (None, "refused")


def test_a_length_of_zero_is_no_body():
    assert key_of(get("/", "Content-Length: 0")) == key_of(get("/"))


def test_an_http2_get_that_announces_a_body_has_no_key():
    fields = (
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.example"),
        (":path", "/"),
    )
    assert key_of(read_h2(*fields, end=False)) is None
    assert key_of(read_h2(*fields)) == key_of(get("/"), scheme="https")


# -- the query -------------------------------------------------------------------------------------


def test_an_unkeyed_query_is_what_the_operator_asked_for_and_nothing_less():
    asked = [get("/?callback=evil"), get("/")]
    assert len(set(keys(*asked))) == 2
    assert len(set(keys(*asked, rules=KeyRules(query="none")))) == 1


WITHOUT = KeyRules(query_without=("utm_*", "fbclid"))


@pytest.mark.parametrize(
    "query",
    [
        "id=1&utm_source=x;id=2",
        "id=1&utm_source=x;callback=evil",
        "id=1&utm_source=x?id=2",
        "id=1&utm_source=x&callback=evil",
        "id=1&%75tm_source=evil",
        "id=1&UTM_SOURCE=evil",
        "id=1&utm%5Fsource=evil",
        "id=1&utm_source%00id=2",
        "id=1&fbclid%5B%5D=2",
        "id=1&fbclid[]=2",
        "id=1&+fbclid=2",
    ],
)
def test_nothing_rides_along_with_a_parameter_that_does_not_count(query):
    assert key_of(get(f"/?{query}"), WITHOUT) != key_of(get("/?id=1"), WITHOUT)


def test_a_parameter_that_does_not_count_does_not():
    assert key_of(get("/?id=1"), WITHOUT) == key_of(get("/?utm_source=a&id=1&fbclid=b"), WITHOUT)
    assert key_of(get("/"), WITHOUT) == key_of(get("/?utm_source=a"), WITHOUT)


ONLY = KeyRules(query_only=("id", "page_size"))


@pytest.mark.parametrize(
    "query",
    [
        "%69d=2",
        "i%64=2",
        "ID=2",
        "id[]=2",
        "id%5B%5D=2",
        "id[x]=2",
        "x=1;id=2",
        "x=1?id=2",
        "+id=2",
        "%20id=2",
        "id%00=2",
        "%u0069d=2",
        "i%C3%A4=1&id=1",
        "id=1&id=2",
        "page.size=2",
        "page%2Esize=2",
        "page-size=2",
        "id",
    ],
)
def test_a_chosen_parameter_counts_in_every_spelling(query):
    assert key_of(get(f"/?id=1&{query}"), ONLY) != key_of(get("/?id=1"), ONLY)


def test_a_parameter_that_was_not_chosen_does_not_count():
    assert key_of(get("/?x=1&id=1&y"), ONLY) == key_of(get("/?id=1"), ONLY)
    assert key_of(get("/?x=1"), ONLY) == key_of(get("/"), ONLY) == key_of(get("/?"), ONLY)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1&a=2", "a=2&a=1"),
        ("a=1&%61=2", "%61=2&a=1"),
        ("a=1&A=2", "A=2&a=1"),
        ("a[]=1&a[]=2", "a[]=2&a[]=1"),
        ("a=1&a[]=2", "a[]=2&a=1"),
        ("a[x]=1&a%5By%5D=2", "a%5By%5D=2&a[x]=1"),
        ("a.b=1&a_b=2", "a_b=2&a.b=1"),
        ("a=1;b=2&b=3", "b=3&a=1;b=2"),
        ("a+b=1&a_b=2", "a_b=2&a+b=1"),
        ("%C3%84=1&%C3%A4=2", "%C3%A4=2&%C3%84=1"),
        ("a%00x=1&a=2", "a=2&a%00x=1"),
        ("a", "a="),
        ("a=1", "a=1#"),
        ("a=%2B", "a=+"),
        ("a=+", "a=%20"),
        ("a=%26b%3D1", "a=&b=1"),
        ("a=%2561", "a=%61"),
        ("a=%22%3E%3Cscript%3E", 'a="><script>'),
        ("a=%zz", "a=%ZZ"),
        ("a=1&b=2", "a=1&amp;b=2"),
    ],
)
def test_queries_that_a_service_may_read_differently_have_different_keys(one, other):
    assert key_of(get(f"/?{one}")) != key_of(get(f"/?{other}"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1&b=2", "b=2&a=1"),
        ("b%5B%5D=1&a=2", "a=2&b%5b%5d=1"),
        ("b=1&a=1&b=2", "a=1&b=1&b=2"),
        ("a=%7eanna", "a=~anna"),
        ("a=%2f", "a=%2F"),
        ("a=%41", "a=A"),
    ],
)
def test_queries_that_are_one_by_the_standard_have_one_key(one, other):
    assert key_of(get(f"/?{one}")) == key_of(get(f"/?{other}"))


# -- the path --------------------------------------------------------------------------------------

PATHS = [
    "/account",
    "/account/",
    "//account",
    "/account/x.css",
    "/account/x.js",
    "/account;x.css",
    "/account;.css",
    "/account%3Bx.css",
    "/account%2Fx.css",
    "/account%3Fx.css",
    "/account%23x.css",
    "/account%0Ax.css",
    "/account%0D%0Ax.css",
    "/account%09",
    "/account%20",
    "/account%25%30%30x.css",
    "/account%2500.css",
    "/account%252Fx.css",
    "/account.css",
    "/account!x.css",
    "/account$x.css",
    "/account~x.css",
    "/ACCOUNT",
    "/static/account",
    "/static%2Faccount",
    "/account,x.css",
    "/account&x.css",
    "/account?x.css",
    "/account?",
    "/account%5Cx.css",
    "/account%5C",
]


def test_no_two_of_the_paths_that_deceive_caches_share_a_key():
    found = [key for key in keys(*[get(path) for path in PATHS]) if key != "refused"]
    assert len(found) == len(set(found)) >= len(PATHS) - 1


@pytest.mark.parametrize(
    "path",
    [
        "/account%00x.css",
        "/account%00",
        "/static/..%2Faccount",
        "/static/..%2faccount",
        "/static%2F..%2Faccount",
        "/static/..;/account",
        "/static/..%5Caccount",
        "/static\\..\\account",
        "/../account",
    ],
)
def test_paths_that_services_resolve_after_us_are_refused(path):
    assert key_of(get(path)) == "refused"


@pytest.mark.parametrize(
    "path", ["/static/../account", "/static/%2e%2e/account", "/./account", "/%61ccount"]
)
def test_one_path_written_otherwise_is_the_path_that_is_sent_on(path):
    assert key_of(get(path)) == key_of(get("/account"))


def test_a_question_mark_that_is_escaped_begins_no_query():
    assert key_of(get("/a%3Fb=1")) != key_of(get("/a?b=1"))
    assert key_of(get("/a%3Fb=1"), KeyRules(query="none")) != key_of(
        get("/a"), KeyRules(query="none")
    )


# -- the host and the scheme -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["SHOP.example", "shop.example.", "shop.example:80", "shop.example:", "shop.example:0080"],
)
def test_one_host_has_one_key(host):
    assert key_of(get(host=host)) == key_of(get())


@pytest.mark.parametrize("host", ["shop.example:1337", "shop.example:443", "evil.example", "[::1]"])
def test_another_host_or_port_has_another_key(host):
    assert key_of(get(host=host)) != key_of(get())


@pytest.mark.parametrize(
    "host",
    [
        "shop.example/x",
        "shop.example:80:81",
        "shop.example@evil",
        "a b",
        "shop.example, evil",
        "a%2e",
        'shop.example"><script>',
        "shop.example:1337\x0bx",
        "",
    ],
)
def test_what_is_no_host_has_no_key(host):
    assert key_of(get(host=host)) == "refused"


def test_two_host_fields_are_refused():
    assert key_of(get("/", "Host: evil.example")) == "refused"
    assert key_of(get("/", " folded: x")) == "refused"


def test_the_host_of_an_absolute_target_counts_and_its_scheme_is_the_connection_s():
    absolute = b"GET https://shop.example/ HTTP/1.1\r\nHost: evil.example"
    assert key_of(absolute) == key_of(get())
    assert key_of(absolute) != key_of(get(), scheme="https")


def test_the_scheme_counts_with_or_without_the_host():
    for rules in (KeyRules(), KeyRules(host=False)):
        assert key_of(get(), rules) != key_of(get(), rules, scheme="https")


def test_pseudo_headers_cannot_say_another_scheme_host_or_path():
    def fields(**said: str) -> tuple[tuple[str, str], ...]:
        pseudo = {"method": "GET", "scheme": "https", "authority": "shop.example", "path": "/a"}
        return tuple((f":{name}", value) for name, value in {**pseudo, **said}.items())

    plain = key_of(get("/a"), scheme="https")
    assert key_of(read_h2(*fields())) == plain
    assert key_of(read_h2(*fields(scheme="http"))) == plain
    for said in (
        fields(scheme="https://evil.example/?"),
        fields(path="a"),
        fields(path="/a b"),
        fields(path="/a#b"),
        fields(path="https://evil.example/"),
        fields(authority="shop.example/evil"),
        fields(authority="user@shop.example"),
        (*fields(), ("host", "evil.example")),
        (*fields(), (":path", "/b")),
        (*fields(), (":evil", "/b")),
        (*fields(), ("X-Upper", "1")),
        (*fields(), ("transfer-encoding", "chunked")),
    ):
        try:
            head = read_h2(*said)
        except Refused:
            continue
        assert key_of(head) != plain


# -- who asks, and where it goes -------------------------------------------------------------------


def test_routes_of_one_url_have_keys_of_their_own():
    assert key_of(get(), route=route("beta")) != key_of(get())


def test_the_services_of_a_split_have_keys_of_their_own():
    assert key_of(get(), service=NEXT) != key_of(get())


def test_text_of_one_part_never_runs_into_the_next():
    rules = KeyRules(headers=("x-a", "x-b"))
    asked = [
        get("/", "X-A: 1", "X-B: 2"),
        get("/", "X-A: 12"),
        get("/", "X-B: 12"),
        get("/", "X-A: 1 3:x-b:2"),
        get("/", "X-A: 5:x-b:25:x-b:2"),
        get("/", "X-B: 1", "X-A: 2"),
    ]
    assert len(set(keys(*asked, rules=rules))) == len(asked)
    b, shop_b = (SimpleNamespace(name=name, host="preserve") for name in ("b", "shop1:b"))
    one = key_of(get(), route=route("a4:shop"), service=b)
    two = key_of(get(), route=route("a"), service=shop_b)
    assert one != two


def test_other_rules_never_find_what_was_kept_under_the_old_ones():
    lines = ("X-A: 1", "X-B: 1")
    rules = [KeyRules(headers=("x-a",)), KeyRules(headers=("x-b",)), KeyRules(cookies=("x-a",))]
    assert len({key_of(get("/", *lines), each) for each in rules}) == len(rules)


COOKIES = KeyRules(cookies=("lang",))


@pytest.mark.parametrize(
    "cookie",
    [
        "lang=de",
        "lang=en; lang=de",
        "lang=de; lang=en",
        'x="; lang=de"; lang=en',
        "lang=en; x=1, lang=de",
        "lang=en; LANG=de",
        "lang=en; l%61ng=de",
        "lang=en; lang[x]=de",
        "lang=en; lang =de",
        "lang =en",
        "lang",
        'lang="en"',
        "x=1",
    ],
)
def test_a_cookie_that_is_said_in_two_ways_is_not_the_plain_one(cookie):
    plain = key_of(get("/", "Cookie: lang=en"), COOKIES)
    if cookie == "lang =en":
        assert key_of(get("/", f"Cookie: {cookie}"), COOKIES) == plain
    else:
        assert key_of(get("/", f"Cookie: {cookie}"), COOKIES) != plain


def test_other_cookies_do_not_count():
    plain = key_of(get("/", "Cookie: lang=en"), COOKIES)
    assert key_of(get("/", "Cookie: a=1; lang=en; language=de; xlang=fr"), COOKIES) == plain
    assert key_of(get("/", "Cookie: a=1", "Cookie: lang=en"), COOKIES) == plain


USER = KeyRules(user=True)
TENANT = KeyRules(claims=("tenant",))


def test_users_share_nothing():
    who = [
        Identity("anna", method="jwt"),
        Identity("Anna", method="jwt"),
        Identity("anna ", method="jwt"),
        Identity("anna", method="partners"),
        Identity("\ud800", method="jwt"),
        Identity("a" * 200, method="jwt"),
        Identity("a" * 201, method="jwt"),
        Identity("nna", method="jwta"),
        Identity("=anna", method="jwt"),
        Identity("anna", method="jwt="),
    ]
    found = [key_of(get(), USER, identity=each) for each in who]
    assert None not in found
    assert len(set(found)) == len(who)


def test_who_is_not_known_has_no_key():
    assert key_of(get(), USER) is None
    assert key_of(get(), TENANT) is None
    assert key_of(get(), USER, identity=Identity("")) is None
    assert key_of(get(), TENANT, identity=Identity("anna")) is None
    assert key_of(get(), TENANT, identity=Identity("anna", claims={"tenant": None})) is None


def test_claims_of_different_kinds_are_different():
    said: list[object] = [
        1,
        "1",
        True,
        "true",
        1.0,
        "1.0",
        ["1"],
        "[1]",
        {"a": 1},
        '{"a": 1}',
        "",
        [],
    ]
    said += [float("nan"), object, "\ud800", "x" * 5000]
    found = [
        key_of(get(), TENANT, identity=Identity("anna", claims={"tenant": each})) for each in said
    ]
    assert len(set(found)) == len(said)
    assert all(key is not None and len(key) < 500 for key in found)


def test_no_value_can_be_given_that_looks_like_the_digest_of_another():
    long = "a" * 300
    values = [long, short_key(long), short_key(f"={long}")]
    assert [len(each) for each in values] == [300, 32, 32]
    found = [key_of(get(), USER, identity=Identity(each)) for each in values]
    assert len(set(found)) == len(values)
    lines = [f"X-Original-URL: {each}" for each in values]
    assert len(set(keys(*[get("/", line) for line in lines]))) == len(values)


def test_a_mapping_in_a_claim_has_no_order():
    one, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    found = [Identity("x", claims={"tenant": each}) for each in (one, other)]
    assert len({key_of(get(), TENANT, identity=each) for each in found}) == 1


# -- size and secrets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        get("/" + "a" * 8000),
        get("/?" + "&".join(f"a{n}={n}" for n in range(900))),
        get("/", "X-A: " + "x" * 8000),
        get("/", *[f"X-Forwarded-A{n}: {'y' * 90}" for n in range(90)]),
        get("/", "Cookie: lang=" + "z" * 8000),
    ],
    ids=["path", "query", "header", "deciding", "cookie"],
)
def test_a_client_does_not_choose_how_long_a_key_is(raw):
    rules = KeyRules(headers=("x-a",), cookies=("lang",))
    key = key_of(raw, rules)
    assert key is not None
    assert key != "refused"
    assert len(key) <= 600
    changed = bytearray(raw)
    changed[-1] += 1
    assert key_of(bytes(changed), rules) != key


def test_a_credential_in_the_query_is_neither_in_the_key_nor_in_the_url():
    raw = get("/list?id=1&api_key=hunter22")
    key = key_of(raw, hides=("api_key",))
    assert key == key_of(get("/list?id=1"))
    assert url(raw, hides=("api_key",)) == "http://shop.example/list?id=1"
    assert url(get("/list?api_key=hunter22"), hides=("api_key",)) == "http://shop.example/list"


def test_the_memo_of_a_head_serves_each_variant_its_own():
    head = read(get("/list?id=1&api_key=hunter22"))
    key = compile_cache_key(KeyRules())
    memo: dict[object, str] = {}

    def asked(service: Any, *hides: str) -> str | None:
        ex = exchange(head, service=service, hides=hides)
        ex.prep.memo = memo
        return key(ex)

    ways: list[Any] = [(SHOP,), (NEXT,), (SHOP, "api_key"), (NEXT, "api_key"), (NEXT, "id")]
    first = [asked(*way) for way in ways]
    assert len(set(first)) == len(ways)
    assert [asked(*way) for way in reversed(ways)] == first[::-1]
    assert all("hunter22" not in (first[at] or "hunter22") for at in (2, 3))
