"""Access rules: what each condition means, what a refusal says, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from headgate.security.access import AccessRules, Asked, compile_access, needs_identity
from headgate.security.access_rules import (
    AllOf,
    AnyOf,
    Claim,
    During,
    From,
    HasAll,
    HasAny,
    Is,
    Known,
    Methods,
    Not,
    OverTls,
    Own,
    Window,
)
from headgate.security.identity import Identity

NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC).timestamp()  # a Wednesday
ANN = Identity(
    "ann",
    consumer="web",
    method="jwt",
    roles=frozenset({"user", "editor"}),
    scopes=frozenset({"read", "write"}),
    groups=frozenset({"berlin"}),
    claims={
        "tenant_id": "acme",
        "level": 5,
        "ratio": 2.0,
        "verified": True,
        "amr": ["pwd", "otp"],
        "realm_access": {"roles": ["auditor"]},
        "https://example.org/plan": "gold",
        "a.b": "dotted",
        "email": "ann@example.org",
        "nothing": None,
        "deep": {"deeper": {"deepest": "x"}},
        "huge": 10**5000,
        "odd": float("inf"),
        "mixed": ["x", {"y": 1}, None, 7],
    },
)
NETS = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")))


def asked(method="GET", path="/", client_ip="192.0.2.7", wall=NOON, params=None, **more):
    return Asked(method, path, params or {}, client_ip, wall, **more)


def passes(rule, identity=ANN, **request):
    return compile_access(rule).check(identity, asked(**request)) is None


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (Known(), True),
        (HasAny("roles", ("admin", "editor")), True),
        (HasAny("roles", ("admin",)), False),
        (HasAny("roles", ("Editor",)), False),
        (HasAny("roles", ()), False),
        (HasAll("roles", ("user", "editor")), True),
        (HasAll("roles", ("user", "admin")), False),
        (HasAny("scopes", ("write",)), True),
        (HasAll("scopes", ("read", "delete")), False),
        (HasAny("groups", ("berlin", "rome")), True),
        (Is("subject", ("bob", "ann")), True),
        (Is("subject", ("Ann",)), False),
        (Is("consumer", ("web",)), True),
        (Is("method", ("api_key",)), False),
        (AnyOf(()), False),
        (AllOf(()), True),
        (Not(AnyOf(())), True),
        (Not(HasAny("roles", ("banned",))), True),
        (AllOf((HasAny("roles", ("user",)), Methods(("GET", "HEAD")))), True),
        (AllOf((HasAny("roles", ("user",)), Methods(("POST",)))), False),
        (Methods(("get",)), False),
    ],
)
def test_a_condition_holds_or_not(rule, passed):
    assert passes(rule) is passed


@pytest.mark.parametrize(
    ("path", "value", "passed"),
    [
        ("tenant_id", "acme", True),
        ("tenant_id", "Acme", False),
        ("level", "5", True),
        ("level", "5.0", False),
        ("ratio", "2", True),
        ("verified", "true", True),
        ("verified", "True", False),
        ("verified", "1", False),
        ("amr", "otp", True),
        ("amr", "sms", False),
        ("realm_access.roles", "auditor", True),
        ("https://example.org/plan", "gold", True),
        (r"a\.b", "dotted", True),
        ("a.b", "dotted", False),
        ("deep.deeper.deepest", "x", True),
        ("deep.deeper", "x", False),
        ("tenant_id.more", "acme", False),
        ("nothing", "None", False),
        ("nothing", "null", False),
        ("absent", "", False),
        ("huge", "1", False),
        ("odd", "inf", True),
        ("mixed", "7", True),
        ("mixed", "None", False),
    ],
)
def test_claims_are_compared_as_text(path, value, passed):
    assert passes(Claim(path, (value,))) is passed


@pytest.mark.parametrize(
    ("pattern", "passed"),
    [
        (r".*@example\.org", True),
        (r"@example\.org", False),
        (r"ann@example\.or", False),
        (r"ANN@.*", False),
    ],
)
def test_a_pattern_must_match_the_whole_claim(pattern, passed):
    assert passes(Claim("email", (), (pattern,))) is passed


def test_a_pattern_sees_no_endless_claim():
    endless = Identity("x", claims={"a": "a" * 10_000})
    assert not passes(Claim("a", (), ("a*",)), endless)


@pytest.mark.parametrize(
    ("address", "passed"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:10.1.2.3", True),
        ("fe80::1%eth0", False),
        ("2001:db8::1%eth0", True),
    ],
)
def test_addresses_go_by_network(address, passed):
    assert passes(From(NETS), client_ip=address) is passed
    assert passes(Not(From(NETS)), client_ip=address) is not passed


@pytest.mark.parametrize("address", ["", "unknown", "10.0.0.1, 10.0.0.2", "010.0.0.1", "1" * 9000])
def test_an_address_that_cannot_be_read_passes_no_rule_about_addresses(address):
    rule = AnyOf((From(NETS), Known()))
    for each in (rule, Not(From(NETS)), AnyOf((Not(From(NETS)), HasAny("roles", ("user",))))):
        denied = compile_access(each).check(ANN, asked(client_ip=address))
        assert denied is not None
        assert "cannot be read" in denied.detail


def at(text, zone="UTC"):
    from zoneinfo import ZoneInfo

    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


WORK = Window(frozenset(range(5)), 8 * 60, 18 * 60, "Europe/Berlin")
NIGHT = Window(frozenset({4}), 22 * 60, 6 * 60, "Europe/Berlin")
DATES = Window(since=datetime(2026, 1, 1), until=datetime(2027, 1, 1))


@pytest.mark.parametrize(
    ("window", "when", "is_open"),
    [
        (WORK, "2026-11-18 08:00", True),
        (WORK, "2026-11-18 07:59:59", False),
        (WORK, "2026-11-18 17:59:59", True),
        (WORK, "2026-11-18 18:00", False),
        (WORK, "2026-11-21 12:00", False),  # Saturday
        # Friday's night goes on until Saturday morning, and Friday morning is Thursday's night.
        (NIGHT, "2026-11-20 21:59", False),
        (NIGHT, "2026-11-20 22:00", True),
        (NIGHT, "2026-11-21 05:59", True),
        (NIGHT, "2026-11-21 06:00", False),
        (NIGHT, "2026-11-20 05:00", False),
        (NIGHT, "2026-11-21 23:00", False),
        # Clocks go back at 03:00 on 2026-10-25 and forward at 02:00 on 2026-03-29.
        (Window(begin_min=120, end_min=180, zone="Europe/Berlin"), "2026-10-25 02:30", True),
        (Window(begin_min=180, end_min=240, zone="Europe/Berlin"), "2026-03-29 03:30", True),
        (Window(begin_min=60, end_min=60), "2026-11-18 01:00", False),
    ],
)
def test_windows_go_by_the_clocks_of_their_zone(window, when, is_open):
    assert passes(During((window,)), wall=at(when, "Europe/Berlin")) is is_open


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        ("2025-12-31 23:59:59", False),
        ("2026-01-01 00:00", True),
        ("2026-12-31 23:59:59", True),
        ("2027-01-01 00:00", False),
    ],
)
def test_windows_begin_and_end_on_dates(when, is_open):
    assert passes(During((DATES,)), wall=at(when)) is is_open


def test_the_hour_that_comes_twice_is_open_both_times():
    window = Window(begin_min=120, end_min=180, zone="Europe/Berlin")
    first = at("2026-10-25 00:30")
    assert passes(During((window,)), wall=first)
    assert passes(During((window,)), wall=first + 3600)
    assert not passes(During((window,)), wall=first + 7200)


@pytest.mark.parametrize(
    ("of", "value", "passed"),
    [
        ("subject", "ann", True),
        ("subject", "bob", False),
        ("subject", "ANN", False),
        ("subject", "ann ", False),
        ("subject", "", False),
        ("subject", None, False),
        ("consumer", "web", True),
        ("groups", "berlin", True),
        ("groups", "berl", False),
        ("roles", "editor", True),
        ("claim:tenant_id", "acme", True),
        ("claim:tenant_id", "other", False),
        ("claim:amr", "pwd", True),
        ("claim:level", "5", True),
        ("claim:absent", "", False),
    ],
)
def test_a_parameter_must_be_the_askers_own(of, value, passed):
    params = {} if value is None else {"id": value}
    assert passes(Own("id", of), params=params) is passed


def test_nobody_owns_nothing():
    assert not passes(Own("id", "subject"), Identity(""), params={"id": ""})
    assert not passes(Own("id", "claim:x"), Identity("a", claims={"x": ""}), params={"id": ""})
    assert not passes(Own("id", "subject"), None, params={"id": "ann"})


def test_users_are_open_to_their_own_and_to_admins():
    rule = AnyOf((Own("id", "subject"), HasAny("roles", ("admin",))))
    admin = Identity("root", roles=frozenset({"admin"}))
    assert passes(rule, params={"id": "ann"})
    assert not passes(rule, params={"id": "bob"})
    assert passes(rule, admin, params={"id": "bob"})
    assert not passes(rule, None, params={"id": "ann"})


def test_encryption_may_be_asked_for():
    assert passes(OverTls(), is_tls=True)
    assert not passes(OverTls())


IDENTITY_RULES = [
    Known(),
    HasAny("roles", ("a",)),
    HasAll("roles", ()),
    Is("subject", ("",)),
    Claim("a", ("",)),
    Own("id", "subject"),
    AllOf((Methods(("GET",)), HasAny("roles", ("a",)))),
    AnyOf((Known(), HasAny("roles", ("a",)))),
    AnyOf(()),
    Not(Not(Known())),
]


@pytest.mark.parametrize("rule", IDENTITY_RULES, ids=str)
def test_rules_that_nobody_unknown_can_pass_say_so(rule):
    access = compile_access(rule)
    assert access.needs_identity
    assert needs_identity(rule)
    assert access.check(None, asked(params={"id": ""})) is not None


@pytest.mark.parametrize(
    "rule",
    [
        Methods(("GET",)),
        AllOf(()),
        Not(HasAny("roles", ("banned",))),
        AnyOf((Known(), Methods(("GET",)))),
        AllOf((From(NETS), OverTls())),
    ],
    ids=str,
)
def test_rules_that_somebody_unknown_may_pass_say_so(rule):
    assert not compile_access(rule).needs_identity


@pytest.mark.parametrize(
    ("rule", "is_of_head"),
    [
        (AllOf((HasAny("roles", ("a",)), Methods(("GET",)), Own("id", "subject"))), True),
        (AnyOf((HasAny("roles", ("a",)), Not(From(NETS)))), False),
        (AllOf((Known(), AnyOf((During((WORK,)), Known())))), False),
        (Not(OverTls()), False),
        (AllOf(()), True),
    ],
)
def test_a_verdict_that_may_be_kept_with_the_head_says_so(rule, is_of_head):
    assert compile_access(rule).is_of_head is is_of_head


@pytest.mark.parametrize(
    ("rule", "reason", "detail"),
    [
        (HasAny("roles", ("vault",)), "you lack a role", "role vault"),
        (HasAll("scopes", ("vault",)), "you lack a scope", "scope vault"),
        (HasAny("groups", ("vault", "x")), "you lack a group", "one of the groups vault, x"),
        (Is("subject", ("vault",)), "not open to you", "subject is vault"),
        (Claim("vault", ("y",)), "not open to you", "claim vault is y"),
        (From(NETS[:1]), "not open to your address", "10.0.0.0/8"),
        (During((WORK,)), "not open at this time", "Mon,Tue,Wed,Thu,Fri 08:00-18:00 Europe/Berlin"),
        (Own("id", "subject"), "open to its owner only", "path parameter id"),
        (Methods(("PUT",)), "this method is not open to you", "method is PUT"),
        (OverTls(), "over TLS only", "encrypted"),
        (AnyOf(()), "not open to you", "open to nobody"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_refusal_tells_the_client_a_kind_and_the_log_the_name(rule, reason, detail):
    saturday = at("2026-11-21 12:00")
    found = compile_access(AllOf((Known(), rule))).check(ANN, asked(wall=saturday))
    assert found is not None
    assert (found.policy, found.status) == ("allow", 403)
    assert reason in found.reason
    assert detail in found.detail
    assert "vault" not in found.reason


def test_the_first_condition_that_fails_is_named():
    access = compile_access(AllOf((Methods(("GET",)), HasAny("roles", ("a",)), Known())))
    for method, reason in (("POST", "this method is not open"), ("GET", "you lack a role")):
        found = access.check(None, asked(method))
        assert found is not None
        assert found.reason.startswith(reason)


def test_explain_shows_every_condition_and_what_was_found():
    rule = AllOf(
        (
            AnyOf((HasAny("roles", ("admin",)), Own("id", "subject"))),
            Methods(("GET", "PUT")),
            Not(Is("consumer", ("web",))),
        )
    )
    assert compile_access(rule).explain(ANN, asked(params={"id": "ann"})) == [
        ("all of these hold", False),
        ("  one of these holds", True),
        ("    path parameter id is of the asker's own subject (it is ann)", True),
        ("    role admin (has editor, user)", False),
        ("  the request's method is GET or PUT (it is GET)", True),
        ("  this does not hold", False),
        ("    consumer is web (it is web)", True),
    ]


def test_explain_says_that_nobody_is_known():
    assert compile_access(HasAny("roles", ("admin",))).explain(None, asked()) == [
        ("role admin (nobody is known)", False)
    ]


def test_explain_of_thousands_shows_those_that_hold_and_a_few_others():
    rule = AnyOf(tuple(HasAny("roles", (f"r{n}",)) for n in range(2000)))
    lines = compile_access(rule).explain(Identity("x", roles=frozenset({"r1990"})), asked())
    assert len(lines) < 20
    assert ("  role r1990 (has r1990)", True) in lines
    assert lines[-1] == ("  1987 more, of which none holds", False)


def test_explain_shows_no_claim_and_no_control_characters():
    rule = AnyOf((Claim("email", ("x",)), Own("id", "subject")))
    lines = compile_access(rule).explain(ANN, asked(params={"id": "\x1b[2Jx\n"}))
    text = "".join(words for words, _ in lines)
    assert "ann@example.org" not in text
    assert text.isprintable()


def test_what_cannot_be_compiled_is_refused_in_words():
    for rule, words in (
        (Claim("a", (), ("(",)), "not a regular expression"),
        (During((Window(zone="Mars/Base"),)), "no time zone"),
        (During((Window(zone="../../etc/passwd"),)), "no time zone"),
        (Own("id", "password"), "nothing that is known"),
    ):
        with pytest.raises(ValueError, match=words):
            compile_access(rule)


def test_rules_nested_too_deep_are_refused_and_do_not_overflow():
    rule: AccessRules = Known()
    for _ in range(5000):
        rule = Not(rule)
    with pytest.raises(ValueError, match="nested"):
        compile_access(rule)
