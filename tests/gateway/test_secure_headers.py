"""The secure_headers policy: what is sent by default, when, and beside what services say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from headgate.config.browsers import (
    SecureHeaders as SecureHeadersField,
)
from headgate.config.browsers import (
    secure_headers_problems,
)
from headgate.gateway.filters import FilterContext, Headers, Request, Response
from headgate.gateway.filters.secure_headers import SecureHeaders
from tests.gateway.rig import document, get

READ: TypeAdapter[Any] = TypeAdapter(SecureHeadersField)
CONTEXT = FilterContext("r", "s")


def spec(**fields):
    return READ.validate_python(fields)


def sent(policy=None, upstream=(), is_tls=True):
    request = Request("GET", "/", "", Headers(), "192.0.2.1", is_tls, "id", "r", "s", {})
    raw = [(name.encode(), value.encode()) for name, value in upstream]
    response = Response(200, Headers(raw))
    SecureHeaders(policy or spec(), CONTEXT).on_response(request, response)
    return list(response.headers.items())


def value(name, **fields):
    return dict(sent(spec(**fields))).get(name)


DEFAULT = [
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", "frame-ancestors 'self'"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-permitted-cross-domain-policies", "none"),
    ("origin-agent-cluster", "?1"),
]


def test_true_is_a_good_start():
    assert sent(READ.validate_python(True)) == DEFAULT


def test_without_tls_nothing_is_said_about_tls():
    assert sent(spec(clear_site_data="*"), is_tls=False) == DEFAULT[1:]


def test_all_can_be_switched_off():
    off = spec(
        hsts=False,
        content_type_options=False,
        frame=[],
        referrer_policy=[],
        opener=False,
        resource="off",
        cross_domain_policies=False,
        origin_agent_cluster=False,
    )
    assert sent(off) == []


@pytest.mark.parametrize(
    ("hsts", "header"),
    [
        ("365d", "max-age=31536000"),
        ("0s", "max-age=0"),
        ({"subdomains": True}, "max-age=31536000; includeSubDomains"),
        (
            {"max_age": "730d", "subdomains": True, "preload": True},
            "max-age=63072000; includeSubDomains; preload",
        ),
        (False, None),
        (True, "max-age=31536000"),
    ],
    ids=str,
)
def test_hsts_is_a_time_and_how_far_it_goes(hsts, header):
    assert value("strict-transport-security", hsts=hsts) == header


@pytest.mark.parametrize(
    ("csp", "header"),
    [
        ("default-src 'self'", "default-src 'self'; frame-ancestors 'self'"),
        (
            "default-src 'self' ;  object-src 'none';",
            "default-src 'self'; object-src 'none'; frame-ancestors 'self'",
        ),
        ({"default-src": "'self'"}, "default-src 'self'; frame-ancestors 'self'"),
        (
            {
                "script-src": ["'self'", "https://cdn.example.org"],
                "upgrade-insecure-requests": True,
            },
            "script-src 'self' https://cdn.example.org; upgrade-insecure-requests; frame-ancestors 'self'",
        ),
        ("frame-ancestors 'none'", "frame-ancestors 'none'"),
        ("sandbox", "sandbox; frame-ancestors 'self'"),
    ],
    ids=str,
)
def test_a_content_policy_is_text_or_a_mapping(csp, header):
    assert value("content-security-policy", csp=csp) == header


def test_a_policy_may_be_tried_out():
    assert value("content-security-policy-report-only", csp_report_only="default-src 'self'") == (
        "default-src 'self'"
    )


@pytest.mark.parametrize(
    ("frame", "ancestors", "old"),
    [
        ("deny", "'none'", "DENY"),
        ("self", "'self'", "SAMEORIGIN"),
        ("same_origin", "'self'", "SAMEORIGIN"),
        ("https://a.example", "https://a.example", None),
        (["self", "https://a.example"], "'self' https://a.example", None),
    ],
    ids=str,
)
def test_both_headers_about_frames_say_the_same(frame, ancestors, old):
    assert value("content-security-policy", frame=frame) == f"frame-ancestors {ancestors}"
    assert value("x-frame-options", frame=frame) == old


def test_the_older_header_follows_the_policy():
    assert value("x-frame-options", csp="frame-ancestors 'none'") == "DENY"
    assert value("x-frame-options", csp="frame-ancestors https://a.example") is None


@pytest.mark.parametrize(
    ("permissions", "header"),
    [
        ({"camera": "none"}, "camera=()"),
        ({"camera": "self"}, "camera=(self)"),
        ({"camera": "*"}, "camera=*"),
        (
            {"geolocation": ["self", "https://maps.example.org"], "camera": []},
            'geolocation=(self "https://maps.example.org"), camera=()',
        ),
    ],
    ids=str,
)
def test_permissions_are_a_structured_field(permissions, header):
    assert value("permissions-policy", permissions=permissions) == header


def test_site_data_is_cleared_by_route():
    assert (
        value("clear-site-data", clear_site_data=["cookies", "storage"]) == '"cookies", "storage"'
    )


@pytest.mark.parametrize(
    ("said", "name", "kept"),
    [
        ([("strict-transport-security", "max-age=1")], "strict-transport-security", ["max-age=1"]),
        ([("content-security-policy", "img-src *")], "content-security-policy", ["img-src *"]),
        (
            [
                ("content-security-policy", "img-src *"),
                ("content-security-policy", "base-uri 'none'"),
            ],
            "content-security-policy",
            ["img-src *", "base-uri 'none'"],
        ),
        ([("referrer-policy", "no-referrer")], "referrer-policy", ["no-referrer"]),
    ],
)
def test_what_the_service_says_stays(said, name, kept):
    assert [v for k, v in sent(upstream=said) if k == name] == kept
    assert len([k for k, _ in sent(upstream=said)]) == len(DEFAULT) + len(said) - 1


def test_what_the_service_says_of_frames_is_not_loosened():
    # Browsers go by frame-ancestors in place of the older header: it would undo this DENY.
    got = dict(sent(upstream=[("x-frame-options", "DENY")]))
    assert got["x-frame-options"] == "DENY"
    assert "content-security-policy" not in got
    got = dict(sent(spec(csp="img-src *"), upstream=[("x-frame-options", "DENY")]))
    assert got["content-security-policy"] == "img-src *"
    got = dict(sent(spec(override=True), upstream=[("x-frame-options", "DENY")]))
    assert got["x-frame-options"] == "SAMEORIGIN"


def test_what_the_service_says_may_be_overridden():
    said = [("x-content-type-options", "x"), ("referrer-policy", "unsafe-url"), ("etag", "1")]
    assert sent(spec(override=True), upstream=said) == [("etag", "1"), *DEFAULT]


def test_what_tells_about_the_software_is_taken_out_when_asked():
    said = [("server", "x/1.2"), ("x-powered-by", "y"), ("x-aspnet-version", "4"), ("etag", "1")]
    assert sent(spec(hide_server=True), upstream=said) == [("etag", "1"), *DEFAULT]
    assert sent(upstream=said)[: len(said)] == said


def test_further_headers_may_be_added():
    assert value("x-robots-tag", extra={"X-Robots-Tag": "noindex"}) == "noindex"


def test_what_is_added_depends_on_fields_alone():
    policy = SecureHeaders(spec(), CONTEXT)
    fields = ((b"server", b"x"),)
    assert policy.plain.apply_constant(fields) == policy.plain.apply_constant(fields)
    assert policy.over_tls is not policy.plain
    same = SecureHeaders(spec(hsts=False), CONTEXT)
    assert same.over_tls is same.plain


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"csp": {"default-src": "self"}}, "quotes of its own"),
        ({"csp": "default-src none"}, "quotes of its own"),
        ({"csp": "script-src nonce-abc"}, "quotes of its own"),
        ({"csp": ""}, "must not be empty"),
        ({"csp": "img-src a; img-src b"}, "says a directive twice"),
        ({"csp": {"img-src": "a; script-src *"}}, "cannot stand in a policy"),
        ({"csp": {"img-src": "a,b"}}, "cannot stand in a policy"),
        ({"csp": {"img-src": "a\r\nx: y"}}, "cannot stand in a policy"),
        ({"csp": {"img src": "*"}}, "is not a directive"),
        ({"csp": {"img-src": "b\u00fccher.example"}}, "cannot stand in a policy"),
        ({"frame": "allow-from x"}, "is not self, deny or an origin"),
        ({"frame": "https://a b"}, "is not self, deny or an origin"),
        ({"permissions": {"camera": "'self'"}}, "is not self, none"),
        ({"permissions": {"camera": 'https://a"b'}}, "is not self, none"),
        ({"permissions": {"ca=mera": "self"}}, "is not a feature"),
        ({"referrer_policy": "never"}, "Input should be"),
        ({"opener": "x"}, "Input should be"),
        ({"clear_site_data": "everything"}, "Input should be"),
        ({"extra": {"content-length": "1"}}, "belongs to the engine"),
        ({"extra": {"x-a": "a\nb"}}, "cannot stand in a header"),
        ({"hsts": "soon"}, ""),
    ],
    ids=str,
)
def test_a_fault_says_what_is_wrong(fields, message):
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "loc", "message", "is_warning"),
    [
        ({"hsts": {"preload": True}}, ("hsts", "preload"), "needs subdomains", False),
        (
            {"hsts": {"preload": True, "subdomains": True, "max_age": "30d"}},
            ("hsts", "preload"),
            "needs a max_age of a year",
            False,
        ),
        ({"csp": {"image-src": "*"}}, ("csp", "image-src"), "no directive", True),
        ({"csp": "img-src 'none' *"}, ("csp", "img-src"), "'none' and something else", False),
        ({"csp": "script-src 'unsafe-inline'"}, ("csp", "script-src"), "inline scripts", True),
        ({"frame": ["deny", "self"]}, ("frame",), "denies framing and allows it", False),
        ({"frame": "self", "csp": "frame-ancestors 'none'"}, ("frame",), "said twice", False),
        (
            {"permissions": {"camera": ["none", "self"]}},
            ("permissions", "camera"),
            "beside none",
            False,
        ),
        ({"embedder": "require-corp", "resource": False}, ("embedder",), "does not say", True),
        ({"clear_site_data": ["*", "cookies"]}, ("clear_site_data",), "no effect", True),
    ],
    ids=str,
)
def test_senseless_policies_are_found(fields, loc, message, is_warning):
    found = list(secure_headers_problems(spec(**fields)))
    assert any(
        at == loc and message in words and warns is is_warning for at, words, _, warns in found
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"csp": "script-src 'nonce-abc' 'unsafe-inline'; upgrade-insecure-requests"},
        {"hsts": {"preload": True, "subdomains": True, "max_age": "365d"}},
        {"csp": "frame-ancestors 'none'"},
    ],
    ids=str,
)
def test_sensible_policies_are_not_complained_about(fields):
    assert list(secure_headers_problems(spec(**fields))) == []


def test_a_misspelt_directive_is_met_with_the_one_that_was_meant():
    ((_, _, hint, _),) = secure_headers_problems(spec(csp={"img-scr": "*"}))
    assert hint == 'did you mean "img-src"?'


# -- at a running gateway ------------------------------------------------------------------------


@pytest.mark.integration
def test_a_gateway_adds_them_to_answers_and_errors(start):
    gateway = start(
        document(
            "http://127.0.0.1:9",  # nobody listens there
            routes=[
                {"match": {"path": "/here"}, "respond": {"body": "hello"}},
                {"match": {"path": "/"}, "to": "upstream"},
            ],
            secure_headers={"hide_server": True},
        )
    )
    with gateway.client() as client:
        for path, status in (("/here", 200), ("/away", 502)):
            client.send(get(path))
            head, _ = client.answer()
            assert head.status == status
            for name, said in DEFAULT[1:]:
                assert head.get(name) == said
            assert head.get("strict-transport-security") is None
