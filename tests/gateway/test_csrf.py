"""The csrf policy: what a browser says of the page that makes it ask, and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headgate.config.browsers import CsrfSpec, csrf_problems
from headgate.gateway.filters import FilterContext, Headers, Identity, Request, Response
from headgate.gateway.filters.csrf import Csrf, CsrfToken, csrf_filters
from headgate.security.csrf_token import NONCE_BYTES, age_of, bound_to, make_token
from headgate.security.origins import is_same, origin_of_url
from tests.gateway.rig import document
from tests.gateway.rig import request as request_bytes

READ: TypeAdapter[CsrfSpec] = TypeAdapter(CsrfSpec)
CONTEXT = FilterContext("r", "s")
HOST = "shop.example.org"
OWN = f"https://{HOST}"
EVIL = "https://evil.example"
PARTNER = "https://partner.example"
COOKIE = ("cookie", "session=1")


def spec(**fields):
    return READ.validate_python(fields)


def request(method="POST", headers=(), is_tls=True, host=HOST, identity=None):
    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request(
        method,
        "/",
        "",
        Headers(fields),
        "192.0.2.1",
        is_tls,
        "id",
        "r",
        "s",
        {},
        host=host,
        identity=identity,
    )


def passes(headers, policy=None, **more):
    reply = Csrf(policy or spec(), CONTEXT).on_request(request(headers=headers, **more))
    assert reply is None or reply.status == 403
    return reply is None


def site(value, *more):
    return [("sec-fetch-site", value), COOKIE, *more]


MATRIX = [
    # Sec-Fetch-Site decides where it is there.
    (site("same-origin"), True),
    (site("same-origin", ("origin", OWN)), True),
    (site("none"), True),
    (site("same-site", ("origin", "https://blog.example.org")), False),
    (site("cross-site", ("origin", EVIL)), False),
    (site("cross-site"), False),
    (site("cross-site", ("origin", OWN)), False),
    (site("cross-site", ("origin", PARTNER)), True),
    (site("same-site", ("origin", PARTNER)), True),
    (site("cross-site", ("origin", "null")), False),
    (site("something-new"), False),
    (site("Same-Origin"), False),
    (site(""), False),
    (site("same-origin", ("sec-fetch-site", "cross-site")), False),
    # Else Origin.
    ([COOKIE, ("origin", OWN)], True),
    ([COOKIE, ("origin", PARTNER)], True),
    ([COOKIE, ("origin", EVIL)], False),
    ([("origin", EVIL)], False),
    ([COOKIE, ("origin", "null")], False),
    ([COOKIE, ("origin", "")], False),
    ([COOKIE, ("origin", f"http://{HOST}")], False),
    ([COOKIE, ("origin", f"{OWN}.evil.example")], False),
    ([COOKIE, ("origin", f"https://evil.example@{HOST}")], False),
    ([COOKIE, ("origin", f"{OWN}:8443")], False),
    ([COOKIE, ("origin", f"https://a.{HOST}")], False),
    ([COOKIE, ("origin", OWN), ("origin", EVIL)], False),
    ([COOKIE, ("origin", OWN), ("referer", f"{EVIL}/")], True),
    # Else Referer.
    ([COOKIE, ("referer", f"{OWN}/form?x=1")], True),
    ([COOKIE, ("referer", OWN)], True),
    ([COOKIE, ("referer", f"HTTPS://{HOST.upper()}/")], True),
    ([COOKIE, ("referer", f"{OWN}:443/")], True),
    ([COOKIE, ("referer", f"{PARTNER}/x")], True),
    ([COOKIE, ("referer", f"{EVIL}/{OWN}/")], False),
    ([COOKIE, ("referer", f"{EVIL}/?{OWN}")], False),
    ([COOKIE, ("referer", f"{OWN}.evil.example/")], False),
    ([COOKIE, ("referer", f"https://{HOST}@evil.example/")], False),
    ([COOKIE, ("referer", f"https://evil.example\\@{HOST}/")], False),
    ([COOKIE, ("referer", f"http://{HOST}/")], False),
    ([COOKIE, ("referer", "")], False),
    ([COOKIE, ("referer", "about:blank")], False),
    ([COOKIE, ("referer", f"{OWN}/"), ("referer", f"{OWN}/")], False),
    # Else what a browser adds by itself.
    ([COOKIE], False),
    ([("authorization", "Basic eDp5")], False),
    ([("authorization", "basic eDp5")], False),
    ([("authorization", "Negotiate x")], False),
    ([("authorization", "Bearer x")], True),
    ([("x-api-key", "x")], True),
    ([], True),
    # A log-in of somebody who has no cookie yet is sent by a page all the same.
    ([("origin", EVIL), ("content-type", "application/x-www-form-urlencoded")], False),
    ([("sec-fetch-site", "cross-site")], False),
]


@pytest.mark.parametrize(("headers", "passed"), MATRIX, ids=range(len(MATRIX)))
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MADE-UP", "get"])
def test_a_request_that_changes_something_comes_from_a_page_of_our_own(headers, passed, method):
    assert passes(headers, spec(trusted=PARTNER), method=method) is passed


@pytest.mark.parametrize("headers", [headers for headers, _ in MATRIX], ids=range(len(MATRIX)))
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_a_request_that_changes_nothing_passes(headers, method):
    assert passes(headers, method=method)


SOCKET = ("sec-websocket-key", "x"), ("sec-websocket-version", "13")


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ([("origin", OWN), COOKIE], True),
        ([("origin", EVIL), COOKIE], False),
        ([("origin", EVIL)], False),
        ([("origin", "null"), COOKIE], False),
        ([("origin", PARTNER), COOKIE], True),
        ([("sec-fetch-site", "same-origin"), ("origin", OWN)], True),
        ([("sec-fetch-site", "cross-site"), ("origin", OWN)], True),
        ([("sec-fetch-site", "cross-site"), ("origin", EVIL)], False),
        ([("sec-fetch-site", "none"), ("origin", EVIL)], False),
        ([("sec-fetch-site", "cross-site")], False),
        ([COOKIE], False),
        ([("authorization", "Bearer x")], True),
        ([], True),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_a_websocket_is_opened_by_a_page_of_our_own(headers, passed, method):
    assert passes([*headers, *SOCKET], spec(trusted=PARTNER), method=method) is passed
    assert passes([*headers, SOCKET[1]], spec(trusted=PARTNER), method=method) is passed


def test_hosts_of_the_same_site_may_be_trusted():
    headers = site("same-site", ("origin", "https://blog.example.org"))
    assert passes(headers, spec(same_site=True))
    assert passes([*headers, *SOCKET], spec(same_site=True), method="GET")
    assert not passes(site("cross-site"), spec(same_site=True))


@pytest.mark.parametrize(
    ("origin", "authority", "is_tls", "same"),
    [
        ("https://a.org", "a.org", True, True),
        ("https://a.org", "a.org:443", True, True),
        ("https://a.org:8443", "a.org:8443", True, True),
        ("https://a.org:8443", "a.org", True, False),
        ("https://a.org", "A.ORG", True, True),
        ("http://a.org", "a.org", True, False),
        ("http://a.org", "a.org:80", False, True),
        ("http://a.org", "a.org:443", False, False),
        # Encryption may have ended before.
        ("https://a.org", "a.org", False, True),
        ("https://[2001:db8::1]", "[2001:db8::1]", True, True),
        ("ftp://a.org", "a.org", False, False),
        ("null", "", False, False),
        ("null", "null", False, False),
        ("https://", "", False, False),
        ("", "", False, False),
        ("a.org", "a.org", False, False),
    ],
)
def test_the_own_origin_is_that_of_the_host_that_was_asked(origin, authority, is_tls, same):
    assert is_same(origin.encode(), authority, is_tls=is_tls) is same


@given(st.binary(max_size=80))
def test_no_bytes_break_the_reading_of_urls_and_origins(data):
    found = origin_of_url(data)
    assert found is None or found.startswith(b"http")
    is_same(data, HOST, is_tls=True)
    assert not passes([("referer", data.decode("latin-1")), COOKIE]) or found == OWN.encode()


def test_a_refusal_is_a_problem_that_repeats_nothing():
    reply = Csrf(spec(), CONTEXT).on_request(request(headers=[("origin", EVIL)]))
    assert reply is not None
    assert reply.status == 403
    assert ("content-type", "application/problem+json") in reply.headers
    assert b"another site" in reply.body
    assert b"evil" not in reply.body


def test_what_was_judged_with_credentials_holds_when_they_are_gone():
    csrf, asked = Csrf(spec(), CONTEXT, defers=True), request(headers=[COOKIE])
    assert csrf.on_request(asked) is None
    asked.headers.remove("cookie")
    assert csrf.on_request(asked) is None
    assert asked.state["headgate.csrf"] == "token"


# -- tokens --------------------------------------------------------------------------------------

SECRET = "0123456789abcdef0123456789abcdef"
ANN, BOB = Identity("ann", method="login"), Identity("bob", method="login")
NONCE = b"n" * NONCE_BYTES
TTL = 1000.0


class Pages:
    """A browser on pages of a route with tokens."""

    def __init__(self, **token):
        self.policy = spec(token={"secret": SECRET, "ttl": "1000s", **token})
        self.wall = 1_000_000.0
        self.early, _ = csrf_filters(self.policy, CONTEXT)
        self.late = CsrfToken(self.policy.token, CONTEXT, lambda: self.wall, lambda: NONCE)

    def send(self, headers=(), identity=ANN, **more):
        asked = request(headers=headers, identity=identity, **more)
        return self.early.on_request(asked) or self.late.on_request(asked)

    def handed_out(
        self, headers=(), identity=ANN, kind="text/html", is_tls=True, method="GET", more=()
    ):
        asked = request(method, headers, identity=identity, is_tls=is_tls)
        response = Response(200, Headers([(b"content-type", kind.encode()), *more]))
        self.late.on_response(asked, response)
        return response.headers.get("set-cookie")

    def token(self, identity=ANN):
        return self.handed_out(identity=identity).partition(";")[0].partition("=")[2]


def with_token(token, cookie=None, name="__Host-headgate-csrf"):
    return [("x-csrf-token", token), ("cookie", f"session=1; {name}={cookie or token}")]


def test_a_page_gets_a_token_and_sends_it_back():
    pages = Pages()
    assert pages.handed_out() == (
        f"__Host-headgate-csrf={pages.token()}; Path=/; SameSite=Lax; Max-Age=1000; Secure"
    )
    assert pages.send(with_token(pages.token())) is None


def test_without_tls_the_cookie_has_no_prefix_that_needs_it():
    pages = Pages()
    cookie = pages.handed_out(is_tls=False)
    assert cookie.startswith("headgate-csrf=")
    assert "Secure" not in cookie
    headers = with_token(cookie.partition(";")[0].partition("=")[2], name="headgate-csrf")
    assert pages.send(headers, is_tls=False) is None
    assert pages.send(headers, is_tls=True) is not None


@pytest.mark.parametrize(
    "headers",
    [
        lambda token: [COOKIE],
        lambda token: [COOKIE, ("x-csrf-token", token)],
        lambda token: [("cookie", f"__Host-headgate-csrf={token}")],
        lambda token: with_token(token, cookie=token[:-1] + "A"),
        lambda token: with_token(token[:-2]),
        lambda token: with_token("A" * len(token), cookie=token),
        lambda token: with_token("", cookie=token),
        lambda token: with_token("A" * len(token)),
        lambda token: with_token(""),
        lambda token: with_token("\xe9" * len(token)),
        lambda token: [*with_token(token), ("x-csrf-token", token)],
        lambda token: [*with_token(token), ("cookie", f"__Host-headgate-csrf={token}")],
        lambda token: with_token(token, name="headgate-csrf"),
        lambda token: with_token(make_token(b"other" * 8, bound_to(ANN), 1e6, NONCE).decode()),
        lambda token: with_token(make_token(SECRET.encode(), bound_to(BOB), 1e6, NONCE).decode()),
        lambda token: with_token(make_token(SECRET.encode(), b"", 1e6, NONCE).decode()),
        lambda token: with_token(
            make_token(SECRET.encode(), bound_to(ANN), 1e6 + 61, NONCE).decode()
        ),
    ],
    ids=range(17),
)
def test_a_token_that_is_missing_or_not_ours_is_refused(headers):
    pages = Pages()
    reply = pages.send(headers(pages.token()))
    assert reply is not None
    assert reply.status == 403


def test_a_token_does_not_save_what_the_browser_says_is_foreign():
    pages = Pages()
    token = with_token(pages.token())
    for sign in (("origin", EVIL), ("sec-fetch-site", "cross-site"), ("referer", f"{EVIL}/")):
        assert pages.send([*token, sign]) is not None


def test_a_token_is_asked_for_only_where_nothing_else_tells():
    pages = Pages()
    assert pages.send(site("same-origin")) is None
    assert pages.send([("authorization", "Bearer x")]) is None
    always = Pages(always=True)
    assert always.send(site("same-origin")) is not None
    assert always.send([*site("same-origin"), ("x-csrf-token", always.token())]) is not None
    shown = with_token(always.token())
    assert always.send([("sec-fetch-site", "same-origin"), *shown]) is None
    assert always.send([("origin", OWN), *shown]) is None
    assert always.send([("origin", OWN), COOKIE]) is not None
    assert always.send([("authorization", "Bearer x")]) is None
    assert always.send([("origin", OWN), *SOCKET], method="GET") is None


def test_tokens_grow_old_and_are_renewed_before():
    pages = Pages()
    token = pages.token()
    headers = [("cookie", f"__Host-headgate-csrf={token}")]
    pages.wall += TTL / 2
    assert pages.handed_out(headers) is None
    pages.wall += 1
    assert pages.handed_out(headers) is not None
    assert pages.send(with_token(token)) is None
    pages.wall += TTL / 2
    assert pages.send(with_token(token)) is not None
    pages.wall -= 2 * TTL  # the clock was set back
    assert pages.send(with_token(token)) is not None


def test_another_user_gets_another_token():
    pages = Pages()
    of_nobody = pages.token(identity=None)
    headers = [("cookie", f"__Host-headgate-csrf={of_nobody}")]
    assert pages.handed_out(headers, identity=None) is None
    assert pages.handed_out(headers, identity=ANN) is not None
    assert pages.send(with_token(of_nobody), identity=None) is None
    assert pages.send(with_token(of_nobody), identity=ANN) is not None


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "application/json"},
        {"method": "POST"},
        {"more": [(b"cache-control", b"public, max-age=60")]},
        {"more": [(b"cache-control", b"max-age=60"), (b"cache-control", b"S-MaxAge=60")]},
    ],
    ids=range(4),
)
def test_no_token_goes_where_a_cache_or_nobody_would_take_it(answer):
    assert Pages().handed_out(**answer) is None


def test_tokens_alone_without_their_filter_let_nothing_pass():
    csrf = Csrf(spec(token={"secret": SECRET}), CONTEXT)
    assert csrf.on_request(request(headers=[COOKIE])) is not None


@given(st.binary(max_size=100), st.binary(max_size=10))
def test_no_bytes_are_a_token(token, bound):
    assert age_of(token, SECRET.encode(), bound, 1e6) is None


def test_two_identities_never_share_a_binding():
    assert bound_to(Identity("x\0y", method="a")) != bound_to(Identity("y", method="a\0x"))
    assert bound_to(Identity("bc", method="a")) != bound_to(Identity("c", method="ab"))
    assert bound_to(Identity("", method="")) != bound_to(None)


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trusted": "*"}, "every site is trusted"),
        ({"trusted": "null"}, "sandbox"),
        ({"token": {"secret": "short"}}, "shorter than 16"),
    ],
    ids=str,
)
def test_unsafe_policies_are_found(fields, message):
    ((_, words, hint, is_warning),) = csrf_problems(spec(**fields))
    assert message in words
    assert hint
    assert not is_warning


def test_a_token_needs_a_secret():
    with pytest.raises(ValidationError):
        spec(token={})
    with pytest.raises(ValueError, match="secret"):
        csrf_filters(spec(token={"secret": ""}), CONTEXT)
    with pytest.raises(ValueError, match="trusted"):
        Csrf(spec(trusted="*"), CONTEXT)
    assert list(csrf_problems(spec())) == []


# -- at a running gateway ------------------------------------------------------------------------


def status_of(client, method, *headers, host="h.example", body=b""):
    client.send(request_bytes(method, "/", *headers, host=host, body=body))
    head, _ = client.answer()
    return head.status


@pytest.mark.integration
def test_a_gateway_refuses_what_pages_of_other_sites_send(start, echo):
    gateway = start(document(echo.url, route={"csrf": True}))
    with gateway.client() as client:
        for headers, expected in (
            (["Cookie: a=1", "Sec-Fetch-Site: same-origin"], 200),
            (["Cookie: a=1", "Sec-Fetch-Site: cross-site"], 403),
            (["Cookie: a=1", "Origin: http://h.example"], 200),
            (["Cookie: a=1", "Origin: http://evil.example"], 403),
            (["Cookie: a=1"], 403),
            (["Authorization: Bearer x"], 200),
        ):
            assert status_of(client, "POST", *headers, body=b"x=1") == expected
        assert status_of(client, "GET", "Cookie: a=1", "Sec-Fetch-Site: cross-site") == 200


@pytest.mark.integration
def test_a_gateway_knows_its_own_host_with_its_port(start, echo):
    gateway = start(document(echo.url, route={"csrf": True}))
    with gateway.client() as client:
        for origin, expected in (("h.example:8443", 200), ("h.example", 403), ("h.example:1", 403)):
            headers = "Cookie: a=1", f"Origin: https://{origin}"
            assert status_of(client, "POST", *headers, host="h.example:8443") == expected


@pytest.mark.integration
def test_a_gateway_opens_no_websocket_for_pages_of_other_sites(start, instance):
    gateway = start(document(instance, route={"csrf": True}))
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    with gateway.client() as client:
        assert status_of(client, "GET", *upgrade, "Origin: https://evil.example") == 403
    assert instance.is_left_alone()
