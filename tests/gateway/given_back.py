"""Whether a gateway has given back everything that requests took."""

from __future__ import annotations

from typing import Any

from tests.gateway.rig import Gateway, wait_until


def held(gateway: Gateway) -> dict[str, Any]:
    """What policies still hold, by what it is; empty when nothing is."""
    return gateway.on_loop(lambda: dict(_held(gateway)))


def _held(gateway: Gateway) -> list[tuple[str, Any]]:
    states = gateway.worker._states
    found: list[tuple[str, Any]] = []
    for name, service in states.services.items():
        found += [(f"{name} {m.id}", m.in_flight) for m in service.group.members if m.in_flight]
        found += [(b.name, list(b._trials)) for b in service.all_breakers() if b._trials]
    for name, gate in states.gates.items():
        seats = gate.bulkhead
        if seats.in_flight or seats.waiting:
            found.append((name, (seats.in_flight, seats.waiting)))
    for name, limit in states.limits.items():
        if limit.rules.algorithm != "concurrency":
            continue
        taken = 0
        if limit._own is not None:
            taken = len(limit._own)
        elif limit.leased is not None:
            taken = sum(seats.used for seats in limit.leased._keys.values())  # type: ignore[attr-defined]  # those of seats have
        if taken:
            found.append((name, taken))
    return found


def assert_all_given_back(gateway: Gateway) -> None:
    """Nothing is in flight, nothing is lent, and nothing was complained of."""
    gateway.assert_settles()
    wait_until(lambda: not held(gateway))
    assert gateway.errors == []
