"""`allow` in the file: its short forms, what is refused, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headgate.config import browsers
from headgate.config.access import Allow, AllowSpec, problems, route_problems
from headgate.config.browsers import Cors, Csrf, SecureHeaders
from headgate.security.access import compile_access
from headgate.security.access_rules import (
    AllOf,
    AnyOf,
    Claim,
    HasAll,
    HasAny,
    Is,
    Known,
    Methods,
    Not,
    OverTls,
    Own,
)

READ: TypeAdapter[Any] = TypeAdapter(Allow)


def rules(value):
    return READ.validate_python(value).rules()


def faults(value, **known):
    spec = READ.validate_python(value)
    return [*problems(spec), *route_problems(spec, **known)]


ROLE_A = HasAny("roles", ("a",))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ROLE_A),
        (["a", "b"], HasAny("roles", ("a", "b"))),
        ([{"roles": "a"}, "b"], AnyOf((ROLE_A, HasAny("roles", ("b",))))),
        ("known", Known()),
        ("nobody", AnyOf(())),
        ({"roles": ["a"]}, ROLE_A),
        ({"roles": {"all": ["a", "b"]}}, HasAll("roles", ("a", "b"))),
        (
            {"scopes": {"any": ["a"], "all": ["b"]}},
            AllOf((HasAny("scopes", ("a",)), HasAll("scopes", ("b",)))),
        ),
        ({"groups": "a", "tls": True}, AllOf((HasAny("groups", ("a",)), OverTls()))),
        (
            {"claims": {"t": ["x", "~y+"], "n": 5}},
            AllOf((Claim("t", ("x",), ("y+",)), Claim("n", ("5",)))),
        ),
        ({"claims": {"verified": True}}, Claim("verified", ("true",))),
        (
            {"subjects": ["x"], "consumers": "y"},
            AllOf((Is("subject", ("x",)), Is("consumer", ("y",)))),
        ),
        ({"auth": "jwt"}, Is("method", ("jwt",))),
        ({"methods": ["get", "HEAD"]}, Methods(("GET", "HEAD"))),
        ({"params": {"id": "subject"}}, Own("id", "subject")),
        ({"params": {"t": "claim:tenant_id"}}, Own("t", "claim:tenant_id")),
        (
            {"known": True, "none": "banned"},
            AllOf((Known(), Not(AnyOf((HasAny("roles", ("banned",)),))))),
        ),
        ({"all": ["a", {"methods": "GET"}]}, AllOf((ROLE_A, Methods(("GET",))))),
        (
            {"any": [{"any": [{"roles": "a"}, "b"]}, {"none": "c"}]},
            AnyOf(
                (
                    AnyOf((ROLE_A, HasAny("roles", ("b",)))),
                    Not(AnyOf((HasAny("roles", ("c",)),))),
                )
            ),
        ),
        ({"any": [["a", "b"]]}, AnyOf((HasAny("roles", ("a", "b")),))),
    ],
    ids=str,
)
def test_a_form_means_rules(value, expected):
    assert rules(value) == expected
    compile_access(expected)


def test_anybody_switches_off_what_an_outer_level_says():
    assert READ.validate_python("anybody") is False
    assert READ.validate_python(" Anybody ") is False


@pytest.mark.parametrize(
    "value", [True, False, "false", "no", "off", "on", "*", "everyone", "none", "public"]
)
def test_words_that_can_be_read_two_ways_are_refused(value):
    with pytest.raises(ValidationError, match="anybody, known or nobody"):
        READ.validate_python(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rolls": "a"}, "Extra inputs"),
        ({"roles": ""}, "must not be empty"),
        ({"roles": " a"}, "is not a name"),
        ({"scopes": "read write"}, "blanks, which stand between scopes"),
        ({"claims": {"a": "~(x+)+"}}, "repeats a repeat"),
        ({"claims": {"a": "~("}}, "not a regular expression"),
        ({"params": {"id": "sub"}}, "known are subject"),
        ({"params": {"id": "claim:"}}, "names no claim"),
        ({"addresses": "10.0.0.1/8"}, "bits set beyond its prefix"),
        ({"times": "someday"}, "no time zone"),
        ({"times": "08:00-18:00 09:00-10:00"}, "is not a window"),
        ({"times": {"hours": "8-18"}}, "not a span of hours"),
        ({"times": {"hours": "08:00-24:01"}}, "not a span of hours"),
        ({"times": {"hours": "08:60-09:00"}}, "not a span of hours"),
        ({"times": {"days": "mo"}}, "not a day"),
        ({"times": {"zone": "/etc/passwd"}}, "no time zone"),
        ({"times": {"since": "tomorrow"}}, "not a date"),
        ({"times": {"until": "2026-01-01T00:00+01:00"}}, "time zone of its own"),
        ({"methods": "CONNECT"}, "cannot be routed"),
        ({"any": [{"any": [{"any": ["a"]}]}]}, "Extra inputs"),
        ([["a", {"any": "b"}], True], "is no role"),
        ({"any": {"none": 1.5e300}}, ""),
    ],
    ids=str,
)
def test_a_fault_says_what_is_wrong(value, message):
    try:
        READ.validate_python(value)
    except ValidationError as error:
        assert message in str(error)
    else:
        assert not message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mon-fri 08:00-18:00 Europe/Berlin", "Mon,Tue,Wed,Thu,Fri 08:00-18:00 Europe/Berlin"),
        ("fri-mon", "Mon,Fri,Sat,Sun UTC"),
        ("sat,sun", "Sat,Sun UTC"),
        ("saturday", "Sat UTC"),
        ("22:00-06:00", "22:00-06:00 UTC"),
        ("America/New_York", "America/New_York"),
    ],
)
def test_a_window_is_written_as_text(text, words):
    from headgate.security.access_words import brief

    assert brief(rules({"times": text})) == f"the time is in {words}"


def test_the_last_day_is_included_and_a_time_is_not():
    (window,) = rules({"times": {"since": "2026-01-01", "until": "2026-12-31"}}).windows
    assert (window.since.isoformat(), window.until.isoformat()) == (
        "2026-01-01T00:00:00",
        "2027-01-01T00:00:00",
    )
    (window,) = rules({"times": {"until": "2026-12-31 18:00"}}).windows
    assert window.until.isoformat() == "2026-12-31T18:00:00"
    (window,) = rules({"times": {"until": "9999-12-31"}}).windows
    assert window.until.year == 9999


@pytest.mark.parametrize(
    ("value", "loc", "message"),
    [
        ({}, (), "everybody passes"),
        ([], ("any",), "lets nobody through"),
        ({"none": []}, ("none",), "has no effect"),
        ({"roles": "a", "all": []}, ("all",), "has no effect"),
        ({"any": [{}]}, ("any", 0), "always holds"),
        ({"none": [{}]}, ("none", 0), "always holds"),
        ({"roles": []}, ("roles",), "can never hold"),
        ({"subjects": []}, ("subjects",), "can never hold"),
        ({"claims": {"a": []}}, ("claims", "a"), "can never hold"),
        ({"times": {"hours": "08:00-08:00"}}, ("times", 0, "hours"), "never open"),
        (
            {"times": {"since": "2026-02-01", "until": "2026-01-01"}},
            ("times", 0, "until"),
            "never open",
        ),
        ({"roles": ["a"], "none": [["a", "b"]]}, ("none", 0), "refuses everything"),
        ({"roles": {"all": ["a", "b"]}, "none": "a"}, ("none", 0), "refuses everything"),
        ({"subjects": "x", "none": {"subjects": ["x", "y"]}}, ("none", 0), "refuses everything"),
        ({"roles": "a", "none": "known"}, ("none", 0), "refuses everything"),
        ({"methods": "GET", "any": [{"methods": "POST"}]}, ("any", 0, "methods"), "can never hold"),
        ({"nobody": True, "roles": "a"}, ("nobody",), "no effect"),
    ],
    ids=str,
)
def test_senseless_rules_are_found(value, loc, message):
    assert any(found[0] == loc and message in found[1] for found in faults(value))


@pytest.mark.parametrize(
    "value",
    [
        "a",
        ["a", "b"],
        "known",
        "nobody",
        {"roles": "a", "none": "b"},
        {"times": "22:00-06:00"},
        {"roles": ["a", "b"], "none": {"roles": "a"}},
        {"methods": ["GET", "PUT"], "any": [{"methods": "GET"}, "b"]},
    ],
    ids=str,
)
def test_sensible_rules_are_not_complained_about(value):
    assert faults(value, methods=frozenset({"GET", "PUT"}), params=frozenset({"id"})) == []


def test_what_the_route_never_sees_is_found():
    known = {"methods": frozenset({"GET"}), "params": frozenset({"id"})}
    ((loc, message, hint, is_warning),) = faults({"methods": "POST"}, **known)
    assert (loc, hint, is_warning) == (("methods",), "here come GET", False)
    assert "can never hold" in message
    ((loc, message, hint, _),) = faults({"any": [{"params": {"user": "subject"}}]}, **known)
    assert (loc, hint) == (("any", 0, "params", "user"), "it has id")
    assert "{user}" in message
    ((loc, _, hint, _),) = faults({"auth": "basic"}, auth=frozenset({"jwt"}))
    assert (loc, hint) == (("auth",), "here come jwt")
    assert faults({"auth": ["basic", "jwt"]}, auth=frozenset({"jwt"})) == []


def test_a_spec_survives_being_written_and_read():
    for value in (
        "anybody",
        "nobody",
        {"any": [{"roles": {"all": ["a"]}, "times": "mon 08:00-09:00"}]},
    ):
        spec = READ.validate_python(value)
        assert READ.validate_python(READ.dump_python(spec, mode="json", exclude_none=True)) == spec


words = st.sampled_from(
    [
        "a", "", " ", "*", "~", "~(", "known", "subject", "claim:x", "mon-fri", "08:00-09:00", "UTC",
        "2026-01-01", "10.0.0.0/8", "https://a.example", "https://*.a.example", "'self'", "x y",
        "\x00", "\ud800", "\u00e9", "1" * 2000,
    ]
)  # fmt: skip
keys = st.sampled_from(
    [
        "roles", "scopes", "claims", "subjects", "methods", "addresses", "times", "params", "tls", "known",
        "any", "all", "none", "days", "hours", "zone", "since", "until", "origins", "headers", "trusted",
        "token", "secret", "csp", "frame", "hsts", "permissions", "camera", "default-src", "max_age",
    ]
)  # fmt: skip
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_no_document_breaks_the_reading(document):
    fields: list[tuple[TypeAdapter[Any], Any]] = [
        (READ, problems),
        (TypeAdapter(Cors), browsers.problems),
        (TypeAdapter(Csrf), browsers.problems),
        (TypeAdapter(SecureHeaders), browsers.problems),
    ]
    for field, judge in fields:
        try:
            spec = field.validate_python(document)
        except ValidationError:
            continue
        if spec is not False:
            list(judge(spec))
        if isinstance(spec, AllowSpec):
            compile_access(spec.rules())


def test_the_schema_is_made():
    assert "AllowGroupSpec" in READ.json_schema()["$defs"]


def test_two_thousand_alternatives_are_read_and_compiled():
    access = compile_access(rules([{"roles": f"r{n}", "methods": "GET"} for n in range(2000)]))
    assert access.needs_identity
