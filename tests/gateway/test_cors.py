"""The cors policy, rule by rule of the Fetch standard, and the published ways around lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headgate.config.browsers import Cors as CorsField
from headgate.config.browsers import cors_problems
from headgate.gateway.filters import FilterContext, Headers, Request, Response
from headgate.gateway.filters.cors import Cors
from headgate.security.origins import Origins, origin_fault
from tests.gateway.rig import document
from tests.gateway.rig import request as request_bytes

READ: TypeAdapter[Any] = TypeAdapter(CorsField)
APP = "https://app.example.org"
CONTEXT = FilterContext("r", "s")


def spec(**fields):
    return READ.validate_python({"origins": APP} | fields)


def request(method="GET", headers=(), host="api.example.org", is_tls=True):
    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request(
        method, "/", "", Headers(fields), "192.0.2.1", is_tls, "id", "r", "s", {}, host=host
    )


def preflight(policy, origin=APP, method="PUT", names=None, **more):
    """The answer to a preflight: status and its headers."""
    fields = [("origin", origin), ("access-control-request-method", method)]
    if names is not None:
        fields.append(("access-control-request-headers", names))
    fields += more.get("headers", ())
    reply = Cors(policy, CONTEXT).on_request(request("OPTIONS", fields))
    assert reply is not None
    return reply.status, dict(reply.headers)


def answer(policy, origin=APP, upstream=(), method="GET", status=200, headers=()):
    """The headers of an answer to a request that is no preflight."""
    fields = list(headers) if origin is None else [("origin", origin), *headers]
    asked = request(method, fields)
    cors = Cors(policy, CONTEXT)
    assert cors.on_request(asked) is None
    raw = [(name.encode(), value.encode()) for name, value in upstream]
    response = Response(status, Headers(raw))
    cors.on_response(asked, response)
    return list(response.headers.items())


# -- preflights ----------------------------------------------------------------------------------


def test_a_preflight_is_answered_with_all_that_is_allowed():
    status, headers = preflight(
        spec(methods=["GET", "PUT"], credentials=True), names="authorization"
    )
    assert status == 204
    assert headers == {
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-max-age": "600",
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


@pytest.mark.parametrize(
    ("listed", "asked", "is_allowed"),
    [
        ("PUT", "PUT", True),
        ("PUT", "DELETE", False),
        # These three need no permission.
        ("PUT", "GET", True),
        ("PUT", "HEAD", True),
        ("PUT", "POST", True),
        # Browsers write these in capitals; `patch` they leave, and it is another method.
        ("PATCH", "PATCH", True),
        ("PATCH", "patch", False),
        ("*", "PURGE", True),
        ("*", "a b", False),
        ("*", "", False),
        ("PUT", "PUT, DELETE", False),
    ],
)
def test_a_preflight_asks_for_a_method(listed, asked, is_allowed):
    status, headers = preflight(spec(methods=listed), method=asked)
    assert status == 204
    assert ("access-control-allow-origin" in headers) is is_allowed
    assert "Access-Control-Request-Method" in headers["vary"]
    if not is_allowed:
        assert set(headers) == {"vary"}


@pytest.mark.parametrize(
    ("listed", "asked", "allowed"),
    [
        (["x-a"], "x-a", "x-a"),
        (["X-A"], "x-a", "X-A"),
        (["x-a"], "X-A", "x-a"),
        (["x-a", "x-b"], "x-a,x-b", "x-a, x-b"),
        (["x-a", "x-b"], "x-a , \tx-b", "x-a, x-b"),
        (["x-a"], "", "x-a"),
        (["x-a"], ",,", "x-a"),
        (["x-a"], "x-b", None),
        (["x-a"], "x-a,x-b", None),
        (["x-a"], "*", None),
        (["*"], "x-b,x-a", "x-b, x-a"),
        # The star does not stand for this one, which has to be named.
        (["*"], "authorization", None),
        (["*", "authorization"], "authorization,x-b", "authorization, x-b"),
        (["*"], "x a", None),
        (["*"], "x\x00a", None),
        (["*"], "\xe9", None),
        (["*"], "x-a," * 2000, None),
        ([], "content-type", None),
    ],
    ids=range(18),
)
def test_a_preflight_asks_for_headers(listed, asked, allowed):
    _, headers = preflight(spec(headers=listed), names=asked, method="POST")
    assert headers.get("access-control-allow-headers") == allowed
    assert ("access-control-allow-origin" in headers) is (allowed is not None)


def test_a_star_of_methods_is_told_as_the_method_that_was_asked_for():
    _, headers = preflight(spec(methods="*", credentials=True), method="PURGE")
    assert headers["access-control-allow-methods"] == "PURGE"


def test_a_star_is_sent_as_such_only_where_all_get_the_same_answer():
    assert preflight(spec(origins="*"))[1].get("access-control-allow-origin") is None  # PUT
    assert preflight(spec(origins="*"), method="GET")[1]["access-control-allow-origin"] == "*"
    _, headers = preflight(spec(origins="*", refuse_others=True), method="GET")
    assert headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("said", [True, False])
def test_private_networks_are_open_when_the_policy_says_so(said):
    asked = [("access-control-request-private-network", "true")]
    _, headers = preflight(spec(private_network=said), method="GET", headers=asked)
    assert headers.get("access-control-allow-private-network") == ("true" if said else None)
    _, headers = preflight(spec(private_network=True), method="GET")
    assert "access-control-allow-private-network" not in headers


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("OPTIONS", [("origin", APP)]),
        ("OPTIONS", [("access-control-request-method", "PUT")]),
        ("OPTIONS", []),
        ("POST", [("origin", APP), ("access-control-request-method", "PUT")]),
    ],
)
def test_what_is_no_preflight_goes_on(method, headers):
    assert Cors(spec(), CONTEXT).on_request(request(method, headers)) is None


def test_a_foreign_preflight_is_told_nothing():
    status, headers = preflight(spec(), origin="https://evil.example")
    assert (status, set(headers)) == (204, {"vary"})
    status, headers = preflight(spec(refuse_others=True), origin="https://evil.example")
    assert (status, set(headers)) == (403, {"vary"})


def test_an_answered_preflight_is_left_alone_on_its_way_back():
    cors = Cors(spec(), CONTEXT)
    asked = request("OPTIONS", [("origin", APP), ("access-control-request-method", "GET")])
    reply = cors.on_request(asked)
    assert reply is not None
    response = Response(204, Headers([(k.encode(), v.encode()) for k, v in reply.headers]))
    before = list(response.headers.fields)
    cors.on_response(asked, response)
    assert list(response.headers.fields) == before


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_names_the_origin_and_varies_by_it():
    assert answer(spec(credentials=True, expose=["x-total", "etag"])) == [
        ("access-control-allow-origin", APP),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-total, etag"),
        ("vary", "Origin"),
    ]


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
def test_errors_are_told_to_pages_too(status):
    assert ("access-control-allow-origin", APP) in answer(spec(), status=status)


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", ""])
def test_others_get_an_answer_that_varies_all_the_same(origin):
    assert answer(spec(), origin=origin) == [("vary", "Origin")]


def test_a_star_is_the_same_for_everybody_and_needs_no_vary():
    for origin in (None, APP, "null"):
        assert answer(spec(origins="*"), origin=origin) == [("access-control-allow-origin", "*")]


@pytest.mark.parametrize(
    ("said", "vary"),
    [
        ([("vary", "accept-encoding")], ["accept-encoding", "Origin"]),
        ([("vary", "accept, ORIGIN")], ["accept, ORIGIN"]),
        ([("vary", "*")], ["*"]),
        ([("vary", "x-origin")], ["x-origin", "Origin"]),
        ([("vary", "accept"), ("vary", "origin")], ["accept", "origin"]),
    ],
)
def test_vary_is_joined_and_said_once(said, vary):
    assert [v for k, v in answer(spec(), upstream=said) if k == "vary"] == vary


UPSTREAM = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("access-control-expose-headers", "x-secret"),
    ("x-other", "1"),
]


def test_what_the_service_says_itself_is_replaced():
    assert answer(spec(), upstream=UPSTREAM) == [
        ("x-other", "1"),
        ("access-control-allow-origin", APP),
        ("vary", "Origin"),
    ]
    assert answer(spec(), origin="https://evil.example", upstream=UPSTREAM) == [
        ("x-other", "1"),
        ("vary", "Origin"),
    ]
    assert ("access-control-allow-origin", "*") not in answer(
        spec(), origin=None, upstream=UPSTREAM
    )


def test_what_the_service_says_itself_may_be_kept():
    policy = spec(keep_upstream=True)
    assert answer(policy, upstream=UPSTREAM) == [*UPSTREAM, ("vary", "Origin")]
    assert ("access-control-allow-origin", APP) in answer(policy, upstream=[("x-other", "1")])
    half = [("access-control-expose-headers", "x")]
    assert ("access-control-allow-origin", APP) in answer(policy, upstream=half)


def test_an_edited_request_does_not_change_what_was_decided():
    cors = Cors(spec(), CONTEXT)
    asked = request("GET", [("origin", APP)])
    cors.on_request(asked)
    asked.headers.remove("origin")
    cors.on_request(asked)
    response = Response(200, Headers())
    cors.on_response(asked, response)
    assert response.headers.get("access-control-allow-origin") == APP


def test_a_refusal_before_the_hook_is_told_to_pages_too():
    for origin, told in ((APP, APP), ("https://evil.example", None)):
        response = Response(403, Headers())
        Cors(spec(), CONTEXT).on_response(request("GET", [("origin", origin)]), response)
        assert response.headers.get("access-control-allow-origin") == told
        assert response.headers.get("vary") == "Origin"


# -- refusing others -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], True),
        ([("origin", APP)], True),
        ([("origin", "https://evil.example")], False),
        ([("origin", "null")], False),
        ([("origin", APP), ("origin", "https://evil.example")], False),
        ([("origin", "https://api.example.org")], True),
        ([("origin", "http://api.example.org")], False),
        ([("origin", "https://api.example.org:8443")], False),
        ([("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], True),
        ([("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], False),
        ([("origin", "")], False),
    ],
)
def test_pages_of_others_may_be_refused(headers, passes):
    reply = Cors(spec(refuse_others=True), CONTEXT).on_request(request("POST", headers))
    assert (reply is None) is passes
    assert reply is None or reply.status == 403


# -- published ways around lists of origins ------------------------------------------------------

EXACT = ["https://example.org"]
BELOW = ["https://*.example.org"]
PORTS = ["http://localhost:*", "https://*.example.org:8443"]
PATTERN = [r"~https://[a-z0-9-]+\.example\.org"]
DOTS = [r"~https://.*\.example\.org"]

FOREIGN = [
    "https://example.org.evil.com",
    "https://evil-example.org",
    "https://evilexample.org",
    "https://example.org.",
    "https://example.orgx",
    "https://example.or",
    "https://exampleXorg",
    "http://example.org",
    "https://example.org:444",
    "https://example.org:443",
    "https://EXAMPLE.org",
    "HTTPS://example.org",
    "https://example.org/",
    "https://example.org@evil.com",
    "https://user@example.org",
    "https://evil.com#.example.org",
    "https://evil.com?.example.org",
    "https://evil.com/.example.org",
    "https://evil.com\\.example.org",
    "https://evil.com%60.example.org",
    "https://evil.com`.example.org",
    "https://evil.com{.example.org",
    "https://evil.com,https://a.example.org",
    "https://a.example.org https://evil.com",
    "https://a.example.org\thttps://evil.com",
    "https://a.example.org\n",
    "https://.example.org",
    "https://a..example.org",
    "https://a.example.org.",
    "https://a.example.org:8443.evil.com",
    "https://a.example.org:99999999",
    "https://a.example.org:",
    "https://*.example.org",
    "*",
    "null",
    "Null",
    "",
    "https://",
    "example.org",
    "//example.org",
    "file://",
    "javascript:alert(1)",
    "data:text/html,x",
    "https://\xe9.example.org",
    "https://" + "a." * 4000 + "example.org",
    "http://localhost:",
    "http://localhost:80:80",
    "http://localhost.evil.com:80",
    "https://localhost:3000",
]


@pytest.mark.parametrize("origin", FOREIGN, ids=range(len(FOREIGN)))
@pytest.mark.parametrize(
    "listed",
    [EXACT, BELOW, PORTS, PATTERN, DOTS],
    ids=["exact", "below", "ports", "pattern", "dots"],
)
def test_a_list_is_not_passed_by_a_lookalike(listed, origin):
    assert not Origins(listed).has(origin.encode("latin-1"))


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        (EXACT, "https://example.org"),
        (BELOW, "https://a.example.org"),
        (BELOW, "https://a.b-c.example.org"),
        (PORTS, "http://localhost:3000"),
        (PORTS, "http://localhost"),
        (PORTS, "https://a.example.org:8443"),
        (PATTERN, "https://shop-1.example.org"),
        (["null"], "null"),
        (["*"], "https://anything.example"),
        (["https://[2001:db8::1]:8443"], "https://[2001:db8::1]:8443"),
        (["chrome-extension://abcdef"], "chrome-extension://abcdef"),
    ],
)
def test_who_is_listed_passes(listed, origin):
    assert Origins(listed).has(origin.encode())


def test_a_host_is_not_below_itself():
    assert not Origins(BELOW).has(b"https://example.org")


def test_what_was_judged_is_remembered_within_a_bound():
    origins = Origins(BELOW)
    for n in range(5000):
        assert not origins.has(b"https://evil%d.example" % n)
        assert origins.has(b"https://a.example.org")
    assert len(origins._seen) <= 1024


@given(st.binary(max_size=60))
def test_no_bytes_break_a_list(origin):
    assert not Origins([*EXACT, *PATTERN]).has(origin) or origin == b"https://example.org"


@given(st.text("aexmplorg.-:/@https*", max_size=40))
def test_near_misses_of_a_wildcard_are_hosts_below(text):
    origin = text.encode()
    if Origins(BELOW).has(origin):
        host = text.removeprefix("https://")
        assert host.endswith(".example.org")
        assert not set(host) & set(":/@*")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("example.org", "write https://example.org"),
        ("https://example.org/", "goes on after the host"),
        ("https://example.org/path", "goes on after the host"),
        ("https://Example.org", "capitals"),
        ("https://example.org.", "ends in a dot"),
        ("https://example.org:443", "write it without"),
        ("http://example.org:80", "write it without"),
        ("https://user@example.org", "names a user"),
        ("https://exa*mple.org", "star where none can stand"),
        ("https://*.org", "top-level domain"),
        ("https://*", "star where none"),
        ("https://b\u00fccher.example", "xn--"),
        ("~(", "not a regular expression"),
        (r"~https://.*example\.org", "evil-example.org"),
        (r"~https://.+example\.org", "evil-example.org"),
        (r"~https://example.org", "plain dot"),
        (r"~https://example\.org.*", "evil.net"),
        (r"~https://app\.[a-z]+", "evil.net"),
        (r"~https://(app\.example\.org|app\.[^.]+)", "evil.net"),
        (r"~https://.*", "evil.net"),
        (r"~https?://[^/]+", "evil.net"),
        (r"~.*", "evil.net"),
        (r"~.*(?::8443)", "strangers"),
    ],
)
def test_an_origin_that_means_too_much_or_nothing_is_refused(text, words):
    fault = origin_fault(text)
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize(
    "text",
    [
        r"~https://[a-z0-9-]+\.example\.org",
        r"~https://app\.example\.org:\d+",
        r"~https://.*\.example\.org",
        r"~https://(?:.*\.)?example\.org",
        r"~https://(app|shop)\.example\.org(:[0-9]+)?",
        "~https://pr-[0-9]+-[a-z]+\\.preview\\.example\\.org",
        "http://localhost:3000",
        "http://127.0.0.1:*",
        "http://*.localhost:8080",
        "null",
        "*",
    ],
)
def test_an_origin_that_means_what_it_says_is_taken(text):
    assert origin_fault(text) is None


# -- the file ------------------------------------------------------------------------------------


def test_an_origin_alone_is_the_policy():
    assert READ.validate_python(APP).origins == (APP,)
    assert READ.validate_python([APP, "null"]).origins == (APP, "null")
    assert READ.validate_python(False) is False


@pytest.mark.parametrize(
    "value",
    [
        True,
        {},
        {"origins": []},
        {"origins": "~(a+)+"},
        {"origins": "x"},
        {"origins": APP, "headers": "a b"},
    ],
    ids=str,
)
def test_a_policy_that_says_nobody_is_refused(value):
    with pytest.raises(ValidationError):
        READ.validate_python(value)


@pytest.mark.parametrize(
    ("fields", "message", "is_warning"),
    [
        ({"origins": "*", "credentials": True}, "cannot go with credentials", False),
        ({"origins": ["*", APP]}, "no effect", True),
        ({"origins": "*", "refuse_others": True}, "no effect", True),
        ({"origins": "null"}, "sandbox", True),
        ({"origins": "null", "credentials": True}, "sandbox", False),
        ({"origins": "http://example.org", "credentials": True}, "not encrypted", True),
        ({"expose": "*", "credentials": True}, "take for a name", False),
    ],
    ids=str,
)
def test_unsafe_policies_are_found(fields, message, is_warning):
    found = list(cors_problems(spec(**fields)))
    assert any(message in words and warns is is_warning for _, words, _, warns in found)


def test_safe_policies_are_not_complained_about():
    for fields in (
        {},
        {"credentials": True},
        {"origins": "*"},
        {"origins": "http://localhost:*", "credentials": True},
    ):
        assert list(cors_problems(spec(**fields))) == []


def test_a_star_with_credentials_cannot_even_be_built():
    with pytest.raises(ValueError, match="credentials"):
        Cors(spec(origins="*", credentials=True), CONTEXT)


# -- at a running gateway ------------------------------------------------------------------------

GET_AND_PUT = {"origins": APP, "methods": ["GET", "PUT"]}


def ask(client, method="GET", *headers):
    client.send(request_bytes(method, "/", *headers))
    return client.answer()


@pytest.mark.integration
def test_a_gateway_answers_preflights_and_tells_errors_to_pages(start, echo):
    gateway = start(document(echo.url, route={"cors": GET_AND_PUT, "limit": "2/h"}))
    with gateway.client() as client:
        head, body = ask(
            client,
            "OPTIONS",
            f"Origin: {APP}",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: authorization,content-type",
        )
        assert (head.status, body) == (204, b"")
        assert head.get("access-control-allow-origin") == APP
        assert head.get("access-control-allow-methods") == "GET, PUT"
        assert head.get("content-length") is None
        for status in (200, 200, 429):
            head, _ = ask(client, "GET", f"Origin: {APP}")
            assert head.status == status
            assert head.get("access-control-allow-origin") == APP
            assert "Origin" in head.get("vary")
        head, _ = ask(client, "GET", "Origin: https://evil.example")
        assert head.get("access-control-allow-origin") is None


@pytest.mark.integration
def test_a_gateway_answers_preflights_of_those_it_would_not_let_in(start, echo):
    gateway = start(document(echo.url, route={"cors": GET_AND_PUT, "allow": "admin"}))
    with gateway.client() as client:
        head, _ = ask(client, "OPTIONS", f"Origin: {APP}", "Access-Control-Request-Method: GET")
        assert head.status == 204
        head, _ = ask(client, "GET", f"Origin: {APP}")
        assert head.status in (401, 403)
        assert head.get("access-control-allow-origin") == APP
