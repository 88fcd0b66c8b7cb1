"""Which service may call which: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.mesh_access import (
    ANONYMOUS,
    EVERY,
    MeshAccess,
    MeshAccessRules,
    MeshRule,
    Towards,
    covers,
)


def rule(source, target="users", methods=(), paths=(), allow=True):
    sources = (source,) if isinstance(source, str) else source
    return MeshRule(sources, (target,), frozenset(methods), paths, allow)


def towards(*rules: MeshRule, default="deny", destination="users") -> Towards:
    return MeshAccess(MeshAccessRules(default, "strict", rules)).towards(destination)


READERS = towards(
    rule("orders", methods={"GET"}, paths=("/users/",)),
    rule(EVERY, methods={"GET"}, paths=("/public",)),
    rule(ANONYMOUS, methods={"GET"}, paths=("/health",)),
    rule("spiffe://other.example/service/orders", paths=("/shared/",)),
    rule(EVERY, paths=("/users/admin/",), allow=False),
)


@pytest.mark.parametrize(
    ("source", "method", "path", "allowed", "why", "at"),
    [
        ("orders", "GET", "/users/42", True, "rule", 0),
        ("orders", "GET", "/users", True, "rule", 0),
        ("orders", "GET", "/usersx", False, "default", None),
        ("orders", "POST", "/users/42", False, "default", None),
        ("orders", "GET", "/users/admin/1", False, "rule", 4),
        ("orders", "GET", "//users///admin/1", False, "rule", 4),
        ("orders", "GET", "//users/42", False, "default", None),
        ("orders", "GET", "/public/a/b/c", True, "rule", 1),
        ("cart", "GET", "/public", True, "rule", 1),
        ("cart", "GET", "/users/42", False, "default", None),
        (None, "GET", "/health", True, "rule", 2),
        (None, "GET", "/public", False, "no_identity", None),
        ("spiffe://other.example/service/orders", "PUT", "/shared/1", True, "rule", 3),
        ("spiffe://other.example/service/orders", "GET", "/public", False, "default", None),
        ("orders", "OPTIONS", "*", False, "default", None),
    ],
)
def test_a_call_is_judged_by_caller_method_and_path(source, method, path, allowed, why, at):
    verdict = READERS.judge(source, method, path)
    assert (verdict.allowed, verdict.why, verdict.rule) == (allowed, why, at)


def test_a_rule_that_refuses_beats_one_that_allows_wherever_it_stands():
    allows, refuses = rule("orders"), rule("orders", methods={"DELETE"}, allow=False)
    for rules in ((allows, refuses), (refuses, allows)):
        assert not towards(*rules).judge("orders", "DELETE", "/").allowed
        assert towards(*rules).judge("orders", "GET", "/").allowed


def test_by_default_nobody_may_and_who_shows_nothing_may_not_even_where_everybody_may():
    assert not towards().judge("orders", "GET", "/").allowed
    open_to_all = towards(default="allow")
    assert open_to_all.judge("orders", "GET", "/").allowed
    assert open_to_all.judge(None, "GET", "/").why == "no_identity"
    assert not open_to_all.judge(None, "GET", "/").allowed


def test_a_rule_towards_every_service_holds_for_each():
    rules = MeshAccessRules(rules=(rule("probe", target=EVERY),))
    access = MeshAccess(rules)
    assert access.towards("users").judge("probe", "GET", "/").allowed
    assert access.towards("orders").judge("probe", "GET", "/").allowed
    assert access.towards("users") is access.towards("users")


def test_every_reason_can_be_put_into_words():
    words = [
        READERS.judge(*asked).in_words()
        for asked in (
            ("orders", "GET", "/users/42"),
            ("orders", "GET", "/users/admin"),
            ("cart", "GET", "/x"),
            (None, "GET", "/x"),
        )
    ]
    assert words[0] == "mesh.access.rules[0] allows it"
    assert words[1] == "mesh.access.rules[4] refuses it"
    assert "mesh.access.default is deny" in words[2]
    assert "shows no identity" in words[3]


def test_what_a_decision_looks_at_does_not_grow_with_the_number_of_rules():
    looked = []

    class Counting(dict):
        def get(self, key, default=None):
            looked.append(key)
            return super().get(key, default)

    def asked(count: int) -> int:
        rules = [rule(f"s{at}", paths=(f"/a{at}/b",)) for at in range(count)]
        made = towards(*rules, rule("orders", methods={"GET"}, paths=("/users/",)))
        made._by_source = Counting(made._by_source)
        for tree in made._by_source.values():
            tree.allows = Counting(tree.allows)
        looked.clear()
        assert made.judge("orders", "GET", "/users/42").allowed
        return len(looked)

    assert asked(2) == asked(2000)


# -- the same by going through the rules one by one ------------------------------------------------

SOURCES = st.sampled_from(["orders", "cart", EVERY, ANONYMOUS, "spiffe://o.example/service/x"])
PATHS = st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/c", "/b"])
RULES = st.builds(
    MeshRule,
    st.lists(SOURCES, min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(["users", "other", EVERY]), min_size=1, max_size=2).map(tuple),
    st.frozensets(st.sampled_from(["GET", "POST"]), max_size=2),
    st.lists(PATHS, max_size=2).map(tuple),
    st.booleans(),
)
ASKED = st.tuples(
    st.sampled_from(["orders", "cart", "third", None, "spiffe://o.example/service/x"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["/", "/a", "/a/b", "/a/bc", "/a/b/c/d", "/b/", "/c"]),
)


def speaks(one: MeshRule, source, method, path) -> bool:
    is_named = (source or ANONYMOUS) in one.sources
    is_one_of_all = EVERY in one.sources and source is not None and "://" not in source
    return (
        (is_named or is_one_of_all)
        and ("users" in one.targets or EVERY in one.targets)
        and (not one.methods or method in one.methods)
        and (
            not one.paths
            or any((path.rstrip("/") + "/").startswith(p.rstrip("/") + "/") for p in one.paths)
        )
    )


@given(st.lists(RULES, max_size=5), st.booleans(), ASKED)
def test_it_says_what_going_through_all_rules_says(rules, is_open, asked):
    said = [one for one in rules if speaks(one, *asked)]
    expected = not any(not one.allow for one in said) and (
        any(one.allow for one in said) or (is_open and asked[0] is not None)
    )
    made = towards(*rules, default="allow" if is_open else "deny")
    assert made.judge(*asked).allowed == expected


@given(RULES, RULES, ASKED)
def test_where_one_rule_covers_another_it_speaks_wherever_that_does(wide, narrow, asked):
    if covers(wide, narrow):
        assert speaks(wide, *asked) or not speaks(narrow, *asked)
