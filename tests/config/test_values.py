"""Single values: what is taken, and what the parsed form is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headgate.config import MatchSpec, RewriteSpec, check, from_document, parse_bind, parse_url
from headgate.plan.paths import compile_exact, compile_path


@pytest.mark.parametrize(
    "text, parts",
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080, None)),
        ("localhost:1", ("localhost", 1, None)),
        ("[::]:0", ("::", 0, None)),
        ("[fe80::1]:65535", ("fe80::1", 65535, None)),
        ("unix:/run/a.sock", ("", 0, "/run/a.sock")),
    ],
)
def test_binds(text, parts):
    assert parse_bind(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "*:80",
        "a",
        "a:b",
        "a:-1",
        "a:65536",
        "a:٣",
        "::1:80",
        "[a]:80",
        "unix:",
        "unix:a",
        "unix:/a\0b",
        "unix:/" + "a" * 200,
        "a b:80",
        "a_b/:80",
    ],
)
def test_what_is_no_bind(text):
    with pytest.raises(ValueError):
        parse_bind(text)


@pytest.mark.parametrize(
    "text, parts, authority",
    [
        ("http://127.0.0.1:3001", ("http", "127.0.0.1", 3001, None), "127.0.0.1:3001"),
        ("http://a", ("http", "a", 80, None), "a"),
        ("https://A.example/", ("https", "a.example", 443, None), "a.example"),
        ("https://[::1]:8443", ("https", "::1", 8443, None), "[::1]:8443"),
        ("http://[::1]", ("http", "::1", 80, None), "[::1]"),
        ("unix:/run/u.sock", ("http", "", 0, "/run/u.sock"), "localhost"),
        ("http+unix:///run/u.sock", ("http", "", 0, "/run/u.sock"), "localhost"),
    ],
)
def test_instances(text, parts, authority):
    endpoint = parse_url(text)
    assert endpoint == parts
    assert endpoint.authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a?b",
        "http://a#b",
        "http://u:p@a",
        "http://a:0",
        "http://a:99999",
        "http://a b",
        "http://a\n",
        "http://[::1",
        "unix:a",
        "http:///a",
        "http://a:b",
        "http://a,b",
    ],
)
def test_what_is_no_instance(text):
    with pytest.raises(ValueError):
        parse_url(text)


@given(st.text(alphabet='/ab{}:.%2eEfF0é*\\ "|<>;=@', max_size=16).map("/".__add__))
def test_every_path_that_is_taken_is_one_the_router_takes(path):
    for field, compile_one in (("path", compile_path), ("exact", compile_exact)):
        try:
            spec = MatchSpec.model_validate({field: path})
        except ValidationError:
            continue
        compile_one(getattr(spec, field))


@pytest.mark.parametrize(
    "path",
    ["/.", "/a/../b", "/a/%2E%2e/b", "/.;x", "/a%2f..%5cb", "/a\\.", "/%zz", "/%00", "/a b", "a"],
)
def test_what_is_no_path(path):
    for field in ("path", "exact"):
        with pytest.raises(ValidationError):
            MatchSpec.model_validate({field: path})


@pytest.mark.parametrize(
    "host, kept",
    [
        ("Example.ORG.", "example.org"),
        ("*.Example.org", "*.example.org"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("a_b", "a_b"),
    ],
)
def test_hosts_are_kept_in_one_form(host, kept):
    assert MatchSpec.model_validate({"host": host}).host == (kept,)


@pytest.mark.parametrize(
    "host", ["", "*", "*.", "a.*.b", "a:80", "b\u00fccher.example", "-a", "a..b", "*.[::1]", "a b"]
)
def test_what_is_no_host(host):
    with pytest.raises(ValidationError):
        MatchSpec.model_validate({"host": host})


def config_of(route: dict[str, object], **more: object):
    return from_document(
        {
            "listeners": ["0.0.0.0:8080"],
            "services": {"a": "http://a"},
            "routes": [route],
            **more,
        }
    )


@pytest.mark.parametrize(
    "route",
    [
        {"to": "a", "match": {"regex": "/(?P<x>.*)"}, "rewrite": "/{x}"},
        {"to": "a", "match": {"path": "/{x:path}"}, "rewrite": "/{x}"},
        {"to": "a", "match": {"path": "/p"}, "rewrite": {"regex": "^/p/(.*)", "to": r"/\1"}},
        {"to": "a", "match": {"exact": "/p"}, "strip": True},
        {"redirect": "{scheme}://{host}{path}{query}"},
        {"redirect": {"to": "https://x/{id}", "status": "301"}, "match": {"path": "/{id:uuid}"}},
    ],
)
def test_rewrites_that_hold(route):
    assert not [problem for problem in check(config_of(route)) if not problem.warning]


def test_the_same_match_for_other_hosts_or_conditions_is_another_one():
    routes = [
        {"to": "a"},
        {"to": "a", "match": {"host": "x"}},
        {"to": "a", "priority": 1},
        {"to": "a", "match": {"headers": {"x": "1"}}},
        {"to": "a", "match": {"headers": {"x": "2"}}},
        {"to": "a", "match": {"methods": "POST"}},
        {"to": "a", "match": {"client_ip": "10.0.0.0/8"}},
        {"to": "a", "match": {"exact": "/a"}},
        {"to": "a", "match": {"path": "/a"}},
        {"to": "a", "match": {"regex": "/a"}},
        {"to": "a", "match": {"path": "/{x:int}"}},
        {"to": "a", "match": {"path": "/{x}"}},
    ]
    config = from_document(
        {
            "listeners": ["0.0.0.0:8080"],
            "services": {"a": "http://a"},
            "routes": routes,
        }
    )
    assert check(config) == []


def test_a_template_is_the_short_form_of_a_rewrite():
    route = config_of({"to": "a", "rewrite": "/x"}).routes[0]
    assert route.rewrite == RewriteSpec(template="/x")
