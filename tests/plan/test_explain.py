from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from headgate.config.routes import MatchSpec
from headgate.plan.explain import account
from headgate.plan.router import MatchInput, Router, rule_from_spec

ROUTES = {
    "users": {"path": "/api/users", "methods": ["GET"], "headers": {"x-tier": "gold"}},
    "user": {"path": "/api/users/{id:int}", "methods": ["GET"]},
    "api": {"path": "/api", "host": ["*.example.org", "example.org"]},
    "inside": {"path": "/api", "client_ip": ["10.0.0.0/8"]},
    "shop": {"path": "/shop"},
    "report": {"regex": r"/api/report-[0-9]+"},
}


def router():
    return Router(
        [
            rule_from_spec(MatchSpec.model_validate(m), i, n, 0)
            for i, (n, m) in enumerate(ROUTES.items())
        ]
    )


def explain(method, path, host="example.org", headers=(), client_ip="127.0.0.1", query=""):
    return router().explain(MatchInput(method, host, path, query, tuple(headers), client_ip))


def reasons(explanation, name):
    return next(c.reasons for c in explanation.candidates if c.name == name)


def test_reasons_name_what_was_wanted_and_what_came():
    got = explain("PUT", "/api/usersx", "other", [(b"x-tier", b"silver")])
    assert reasons(got, "users") == (
        'path: "/api/users" is not a prefix of "/api/usersx" (whole segments)',
        "method: PUT is not one of GET, HEAD",
        'header x-tier: wanted "gold", got "silver"',
    )
    assert reasons(got, "user") == (
        'path: "/api/usersx" does not fit the template "/api/users/{id:int}"',
        "method: PUT is not one of GET, HEAD",
    )
    assert reasons(got, "api") == ('host: wanted "*.example.org", "example.org", got "other"',)
    assert reasons(got, "inside") == ("client_ip: 127.0.0.1 is not in 10.0.0.0/8",)
    assert reasons(got, "report") == (
        r'path: "/api/usersx" does not fit the regex "/api/report-[0-9]+"',
    )


def test_near_misses_come_nearest_first():
    got = explain("PUT", "/api/usersx", "other", [(b"x-tier", b"silver")])
    assert [c.name for c in got.candidates] == ["inside", "api", "users", "report", "user", "shop"]
    assert {c.verdict for c in got.candidates} == {"missed"}


def test_a_match_says_why_and_the_later_ones_what_decided():
    got = explain("GET", "/api/users/7", headers=[(b"x-tier", b"gold")], client_ip="10.0.0.1")
    assert [(c.name, c.verdict) for c in got.candidates[:4]] == [
        ("api", "matched"),
        ("user", "later"),
        ("users", "later"),
        ("inside", "later"),
    ]
    assert reasons(got, "api") == (
        'host: "example.org" is "example.org"',
        'path: "/api/users/7" fits the prefix "/api"',
    )
    assert reasons(got, "users") == ('"api" comes first: more specific host',)
    inner = explain("GET", "/api/users/7", "h", [(b"x-tier", b"gold")], "10.0.0.1")
    assert reasons(inner, "users") == ('"user" comes first: more specific path',)


def test_the_account_is_json_and_text():
    got = account(
        explain("GET", "/api/users/7", "h", query="a=1"),
        [("timeout", "5s", "service"), ("body_limit", "10MB", "default")],
        target="users-service",
    )
    document = json.loads(json.dumps(got.to_json()))
    assert document["route"] == "user"
    assert document["params"] == {"id": "7"}
    assert document["policies"][0] == {"policy": "timeout", "value": "5s", "origin": "service"}
    assert (
        str(got)
        == """\
GET h/api/users/7?a=1
  -> user  (to users-service)
    id = "7"

Matched because
  user
    path: "/api/users/7" fits the template "/api/users/{id:int}"
    method: GET is one of GET, HEAD

Do not match, nearest first
  users
    header x-tier: wanted "gold", there is none
  inside
    client_ip: 127.0.0.1 is not in 10.0.0.0/8
  api
    host: wanted "*.example.org", "example.org", got "h"
  report
    path: "/api/users/7" does not fit the regex "/api/report-[0-9]+"
  shop
    path: "/shop" is not a prefix of "/api/users/7" (whole segments)

Policies
  timeout     5s  (from the service)
  body_limit  10MB  (from the defaults)
"""
    )
    with pytest.raises(FrozenInstanceError):
        got.route = "other"  # type: ignore[misc]


def test_misses_have_a_headline_too():
    not_allowed = account(explain("PUT", "/api/users/7", "h"))
    assert not_allowed.outcome == "method not allowed"
    assert "405 Method Not Allowed; allowed: GET, HEAD" in str(not_allowed)
    not_found = account(explain("GET", "/nothing", "h"))
    assert not_found.outcome == "not found"
    assert "404" in str(not_found)


def test_what_a_client_sends_cannot_write_to_the_terminal():
    text = str(
        account(
            explain(
                "GET",
                "/api/users",
                headers=[(b"x-tier", b"\x1b[31mred\x9b" + b"x" * 500)],
                query="\x1b[2J",
            )
        )
    )
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert max(len(line) for line in text.splitlines()) < 200


def test_near_misses_are_bounded():
    many = Router([rule_from_spec(MatchSpec(path=f"/r{i}"), i, f"r{i}", 0) for i in range(500)])
    got = many.explain(MatchInput("GET", "h", "/r12x"))
    assert len(got.candidates) == 20
    assert got.omitted == 480
    assert got.candidates[0].name in {"r12", "r1"}
    assert "480 more routes" in str(account(got))
