"""Compiled access equals trying every rule in turn, and looks at few of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.access import Asked, compile_access
from headgate.security.access_index import Compiler
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

NAMES = ("a", "b", "c", "d")
VERBS = ("GET", "PUT", "POST")
NETS = tuple(map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "::/0")))
ADDRESSES = ("10.1.2.3", "10.1.9.9", "10.9.9.9", "11.0.0.1", "::1", "::ffff:10.1.2.3")
HOUR = 60

names = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
helds = st.sampled_from(["roles", "scopes", "groups"])
conditions = st.one_of(
    st.just(Known()),
    st.just(OverTls()),
    st.builds(HasAny, helds, names),
    st.builds(HasAll, helds, names),
    st.builds(Is, st.sampled_from(["subject", "consumer", "method"]), names),
    st.builds(Claim, st.sampled_from(["t", "u", "t.v"]), names),
    st.builds(Claim, st.just("t"), names, st.just(("[ab]",))),
    st.builds(Methods, st.lists(st.sampled_from(VERBS), max_size=2).map(tuple)),
    st.builds(From, st.lists(st.sampled_from(NETS), max_size=2).map(tuple)),
    st.builds(Own, st.just("id"), st.sampled_from(["subject", "groups", "claim:t"])),
    st.just(During((Window(begin_min=0, end_min=12 * HOUR),))),
)
rules = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(AnyOf, st.lists(inner, max_size=5).map(tuple)),
        st.builds(AllOf, st.lists(inner, max_size=4).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=25,
)
held = st.frozensets(st.sampled_from(NAMES), max_size=3)
claim = st.one_of(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(NAMES), max_size=2),
    st.fixed_dictionaries({"v": st.sampled_from(NAMES)}),
    st.none(),
)
identities = st.none() | st.builds(
    Identity,
    st.sampled_from(NAMES),
    consumer=st.sampled_from(NAMES),
    method=st.sampled_from(NAMES),
    roles=held,
    scopes=held,
    groups=held,
    claims=st.dictionaries(st.sampled_from(["t", "u"]), claim, max_size=2),
)
requests = st.builds(
    Asked,
    st.sampled_from((*VERBS, "get")),
    st.just("/"),
    st.dictionaries(st.just("id"), st.sampled_from((*NAMES, "")), max_size=1),
    st.sampled_from(ADDRESSES),
    st.sampled_from((6 * 3600.0, 18 * 3600.0)),
    is_tls=st.booleans(),
)


def plain_texts(claims, path):
    found = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, list):
        return set(found)
    return {found} if isinstance(found, str) else set()


def tried_in_turn(rule, identity, asked) -> bool:
    """The meaning of rules, written as plainly as can be."""
    match rule:
        case AnyOf(inner):
            return any([tried_in_turn(each, identity, asked) for each in inner])
        case AllOf(inner):
            return all([tried_in_turn(each, identity, asked) for each in inner])
        case Not(inner):
            return not tried_in_turn(inner, identity, asked)
        case OverTls():
            return asked.is_tls
        case Methods(verbs):
            return asked.method in verbs
        case From(networks):
            address = ip_address(asked.client_ip)
            address = getattr(address, "ipv4_mapped", None) or address
            return any(address in each for each in networks)
        case During():
            return asked.wall < 12 * 3600
    if identity is None:
        return False
    match rule:
        case Known():
            return True
        case HasAny(of, wanted):
            return bool(set(wanted) & getattr(identity, of))
        case HasAll(of, wanted):
            return set(wanted) <= getattr(identity, of)
        case Is(of, wanted):
            return getattr(identity, of) in wanted
        case Claim(path, values, patterns):
            texts = plain_texts(identity.claims, path)
            return bool(texts & set(values)) or bool(patterns and texts & {"a", "b"})
        case Own(param, of):
            value = asked.params.get(param)
            if of == "subject":
                own = {identity.subject}
            elif of == "groups":
                own = identity.groups
            else:
                own = plain_texts(identity.claims, "t")
            return bool(value) and value in own
    raise AssertionError(rule)


@settings(max_examples=500, deadline=None)
@given(rules, st.lists(st.tuples(identities, requests), min_size=1, max_size=6))
def test_compiled_access_is_trying_every_rule_in_turn(rule, cases):
    access = compile_access(rule)
    for identity, asked in cases:
        wanted = tried_in_turn(rule, identity, asked)
        assert (access.check(identity, asked) is None) is wanted
        lines = access.explain(identity, asked)
        assert lines[0][1] is wanted
        if identity is None and access.needs_identity:
            assert not wanted


many = st.lists(
    st.lists(conditions, min_size=1, max_size=4).map(lambda each: AllOf(tuple(each))),
    min_size=5,
    max_size=40,
).map(lambda each: AnyOf(tuple(each)))


@settings(max_examples=150, deadline=None)
@given(many, st.integers(0, 40), st.lists(st.tuples(identities, requests), max_size=6))
def test_many_alternatives_are_the_same_with_any_room_for_look_ups(rule, room, cases):
    full, bounded = Compiler().test(rule), Compiler(filings_max=room).test(rule)
    for identity, asked in cases:
        wanted = tried_in_turn(rule, identity, asked)
        assert full(identity, asked) is wanted
        assert bounded(identity, asked) is wanted


# -- how many are looked at ----------------------------------------------------------------------


class Counted:
    """A request, or who asks, that counts how often a rule looks at it."""

    def __init__(self, of: object) -> None:
        self.of = of
        self.looks = 0

    def __getattr__(self, name: str) -> object:
        self.looks += 1
        return getattr(self.of, name)


def looks(alternatives, **who):
    """How often rules looked at somebody who passes none of the alternatives."""
    identity: Any = Counted(Identity("s7", **({"claims": {"t": "no"}} | who)))
    asked: Any = Counted(Asked("GET", "/", {}, "10.1.2.3", 0.0))
    access = compile_access(AnyOf(tuple(alternatives)))
    assert access.check(identity, asked) is not None
    return identity.looks + asked.looks


def probed(*conditions):
    """An alternative that holds but for a claim."""
    return AllOf((*conditions, Claim("t", (), ("yes",))))


SHAPES = {
    "roles": lambda n: probed(HasAny("roles", (f"r{n}",))),
    "all of the roles": lambda n: probed(HasAll("roles", ("user", f"r{n}"))),
    "scopes": lambda n: probed(HasAny("scopes", (f"r{n}",))),
    "groups": lambda n: probed(HasAny("groups", (f"r{n}",))),
    "subjects": lambda n: probed(Is("subject", (f"s{n}",))),
    "role and method": lambda n: probed(HasAny("roles", (f"r{n}",)), Methods(("GET",))),
    "one role, many subjects": lambda n: probed(
        HasAny("roles", ("user",)), Is("subject", (f"s{n}",))
    ),
    "addresses": lambda n: probed(From((ip_network(f"10.1.{2 + n // 256}.{(n - 4) % 256}/32"),))),
    "under a method": lambda n: AllOf((Methods(("GET",)), probed(HasAny("roles", (f"r{n}",))))),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_two_thousand_alternatives_are_looked_at_as_two_are(shape):
    who = {
        "roles": frozenset({"user", "r7"}),
        "scopes": frozenset({"r7"}),
        "groups": frozenset({"r7"}),
    }
    few = looks([shape(7), shape(8)], **who)
    assert looks([shape(n) for n in range(2000)], **who) <= few


def test_two_thousand_claims_of_one_name_are_one_look():
    shape = [AllOf((Claim("tenant", (f"t{n}",)), Methods(("PUT",)))) for n in range(2000)]
    assert looks(shape, claims={"tenant": "t7"}) <= 4


def test_one_role_with_many_tenants_is_looked_up_by_tenant():
    shape = [
        AllOf((HasAny("roles", ("user",)), Claim("tenant", (f"t{n}",)), Methods(("PUT",))))
        for n in range(2000)
    ]
    who = {"roles": frozenset({"user"}), "claims": {"tenant": "t1999"}}
    assert looks(shape, **who) <= 4


def test_a_hot_role_among_rare_ones_is_taken_apart_again():
    rare = [AllOf((HasAny("roles", (f"r{n}",)), probed())) for n in range(1000)]
    hot = [probed(HasAny("roles", ("user",)), Is("consumer", (f"c{n}",))) for n in range(1000)]
    assert looks([*rare, *hot], roles=frozenset({"user"}), consumer="c5") <= 6


def test_alternatives_of_many_keys_each_stay_within_the_room():
    # 2,000 alternatives of 400 roles each would be filed 800,000 times.
    wide = tuple(
        AllOf((HasAny("roles", tuple(f"r{n}-{k}" for k in range(400))), Methods(("GET",))))
        for n in range(2000)
    )
    access = compile_access(AnyOf(wide))
    asked = Asked("GET", "/", {}, "10.1.2.3", 0.0)
    for n in (0, 1999):
        assert access.check(Identity("x", roles=frozenset({f"r{n}-399"})), asked) is None
    assert access.check(Identity("x", roles=frozenset({"r"})), asked) is not None


def test_long_conjunctions_do_not_overflow():
    long = [
        AllOf((HasAll("roles", tuple(f"r{k}" for k in range(3000))), Methods((verb,))))
        for verb in VERBS
    ]
    deep = [AllOf(tuple(HasAny("roles", (f"r{k}", f"x{n}")) for k in range(500))) for n in range(3)]
    every = Identity("x", roles=frozenset(f"r{k}" for k in range(3000)))
    asked = Asked("GET", "/", {}, "10.1.2.3", 0.0)
    for shape in (long, deep):
        access = compile_access(AnyOf(tuple(shape)))
        assert access.check(every, asked) is None
        assert access.check(Identity("x", roles=frozenset({"r0"})), asked) is not None


def test_every_name_counts_where_one_was_looked_up():
    rule = AnyOf(
        tuple(
            AllOf((HasAll("roles", ("user", f"r{n}", f"x{n}")), Methods((verb,))))
            for n in range(50)
            for verb in VERBS
        )
    )
    access = compile_access(rule)
    asked = Asked("GET", "/", {}, "10.1.2.3", 0.0)
    for roles, passes in (
        ({"user", "r7", "x7"}, True),
        ({"user", "r7"}, False),
        ({"r7", "x7"}, False),
        ({"user", "x7"}, False),
        ({"user", "r7", "x8"}, False),
    ):
        assert (access.check(Identity("x", roles=frozenset(roles)), asked) is None) is passes
