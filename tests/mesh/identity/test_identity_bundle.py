"""Roots and intermediates over the years: who signs when, and who is trusted for how long."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.mesh.identity.bundle import Issuer, Ring, Root, needs, ready_root, settled, signer
from headgate.security.service_identity.rules import DAY_S, IdentityRules

W = 1_900_000_000.0
RULES = IdentityRules(ttl_s=3600.0, issuer_life_s=30 * DAY_S, announce_s=2 * DAY_S)


def root(name: str, since: float = W, life_s: float = 3650 * DAY_S) -> Root:
    return Root(name, f"[{name}]", "key", since, since + life_s)


def issuer(name: str, of: str, since: float = W, life_s: float = 30 * DAY_S) -> Issuer:
    return Issuer(name, f"[{name}]", "key", of, since, since + life_s, life_s)


def turned(ring: Ring, wall: float, rules: IdentityRules = RULES) -> Ring:
    """As the authority does, without its keys."""
    ring = replace(settled(ring, wall), longest_s=max(ring.longest_s, rules.ttl_s))
    for _ in range(2):
        need = needs(ring, wall, rules)
        if need == "root":
            ring = ring.with_root(root(f"r{wall}", wall))
        elif need == "issuer":
            found = ready_root(ring, wall, rules.announce_s)
            assert found is not None
            life_s = min(rules.issuer_life_s, found.ends - wall)
            ring = ring.with_issuer(issuer(f"i{wall}", found.id, wall, life_s))
    return ring


def test_the_first_root_signs_at_once() -> None:
    ring = turned(Ring(), W)
    assert len(ring.roots) == len(ring.issuers) == 1
    assert signer(ring, W) is ring.issuers[0]
    assert turned(ring, W + 60) == ring


def test_an_intermediate_is_followed_when_a_third_of_it_is_left() -> None:
    ring = turned(Ring(), W)
    assert turned(ring, W + 19 * DAY_S) == ring
    later = turned(ring, W + 21 * DAY_S)
    assert len(later.issuers) == 2
    assert signer(later, W + 21 * DAY_S) is later.issuers[1]
    assert len(turned(later, W + 31 * DAY_S).issuers) == 1


def test_a_new_root_is_known_before_it_signs_and_the_old_one_stays_until_nobody_needs_it() -> None:
    ring = replace(turned(Ring(), W), wants_root=True)
    old = ring.roots[0]
    ring = turned(ring, W + DAY_S)
    new = ring.roots[1]
    assert not ring.wants_root
    assert ring.bundle == old.pem + new.pem
    found = signer(ring, W + 2 * DAY_S)
    assert found is not None
    assert found.root == old.id

    ring = turned(ring, W + 3 * DAY_S + 1)
    found = signer(ring, W + 3 * DAY_S + 1)
    assert found is not None
    assert found.root == new.id
    assert ring.bundle == old.pem + new.pem

    ring = turned(ring, W + 3 * DAY_S + 3000)
    assert ring.roots == (old, new)
    ring = turned(ring, W + 3 * DAY_S + 3700)
    assert ring.roots == (new,)
    assert {each.root for each in ring.issuers} == {new.id}


def test_a_shorter_ttl_does_not_make_the_old_root_leave_early() -> None:
    long = replace(RULES, ttl_s=5 * DAY_S, announce_s=5 * DAY_S)
    ring = turned(replace(turned(Ring(), W, long), wants_root=True), W + 1, long)
    at = W + 5 * DAY_S + 2
    ring = turned(ring, at)
    assert len(ring.roots) == 2
    assert len(turned(ring, at + 4 * DAY_S).roots) == 2
    assert len(turned(ring, at + 5 * DAY_S + 1).roots) == 1


def test_a_root_is_followed_a_year_before_its_end() -> None:
    ring = turned(Ring(), W)
    wall = W + 2700 * DAY_S
    assert len(turned(ring, wall).roots) == 1
    assert len(turned(ring, W + 3300 * DAY_S).roots) == 2


def test_a_second_order_while_one_is_announced_waits() -> None:
    ring = turned(replace(turned(Ring(), W), wants_root=True), W + 1)
    again = turned(replace(ring, wants_root=True), W + 2)
    assert len(again.roots) == 2
    assert len(turned(again, W + 3 * DAY_S).roots) == 3


def test_when_everything_has_ended_it_begins_anew() -> None:
    ring = turned(turned(Ring(), W), W + 4000 * DAY_S)
    assert len(ring.roots) == 1
    assert signer(ring, W + 4000 * DAY_S) is not None


def test_a_ring_is_kept_as_json_and_shows_no_key() -> None:
    ring = turned(replace(turned(Ring(), W), wants_root=True), W + 1)
    assert Ring.of_json(json.loads(json.dumps(ring.to_json()))) == ring
    assert "key" not in repr(ring).replace("key_pem", "")


@pytest.mark.parametrize("said", [{}, {"roots": 3}, {"roots": [{}], "issuers": []}], ids=range(3))
def test_json_of_something_else_is_refused(said: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Ring.of_json(said)


@given(
    st.lists(
        st.tuples(st.floats(-400 * DAY_S, 900 * DAY_S), st.booleans()), min_size=1, max_size=30
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_clock_does_somebody_signs_whom_the_bundle_knows(
    steps: list[tuple[float, bool]],
) -> None:
    """The clock jumps to anywhere; orders for new roots come at any time."""
    ring = Ring()
    for offset, is_ordered in steps:
        wall = W + offset
        ring = turned(replace(ring, wants_root=ring.wants_root or is_ordered), wall)
        found = signer(ring, wall)
        assert found is not None
        assert found.ends > wall
        known = {each.id for each in ring.roots}
        assert found.root in known
        assert len(ring.roots) <= 8
        # What was signed before is trusted for as long as it may live.
        for each in ring.issuers:
            assert each.root in known


@given(st.lists(st.floats(0, 3 * DAY_S), min_size=1, max_size=60), st.integers(0, 59))
@settings(max_examples=100, deadline=None)
def test_every_certificate_is_trusted_until_its_end(gaps: list[float], order_at: int) -> None:
    ring, wall = turned(Ring(), W), W
    leaves: list[tuple[float, str]] = []
    first_seen: dict[str, float] = {}
    for at, gap in enumerate(gaps):
        wall += gap
        ring = turned(replace(ring, wants_root=ring.wants_root or at == order_at), wall)
        for each in ring.roots:
            first_seen.setdefault(each.id, wall)
        found = signer(ring, wall)
        assert found is not None
        if found.root != ring.roots[0].id and len(first_seen) > 1:
            assert wall - first_seen[found.root] >= RULES.announce_s or len(ring.roots) == 1
        leaves.append((wall + RULES.ttl_s, found.root))
        known = {each.id for each in ring.roots}
        assert all(name in known for ends, name in leaves if ends > wall)
