from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.mesh.client.lease import Lease

HELD = {"fence": 7, "ttl_s": 30.0, "beat_every_s": 10.0}


def held() -> Lease:
    lease = Lease()
    lease.registered(201, HELD)
    return lease


def test_it_registers_and_then_beats():
    lease = Lease()
    assert lease.next == "register"
    lease.registered(201, HELD)
    assert (lease.state, lease.next, lease.fence) == ("held", "beat", 7)


@pytest.mark.parametrize(
    ("status", "state", "following"),
    [
        (200, "held", "beat"),
        (0, "held", "beat"),
        (503, "held", "beat"),
        (401, "held", "beat"),
        (404, "wanted", "register"),
        (409, "fenced", "nothing"),
    ],
)
def test_a_beat_is_answered(status, state, following):
    lease = held()
    lease.beaten(status, HELD if status == 200 else None)
    assert (lease.state, lease.next) == (state, following)


@pytest.mark.parametrize(
    ("status", "state"),
    [(0, "wanted"), (503, "wanted"), (401, "wanted"), (403, "wanted"), (422, "invalid")],
)
def test_a_registration_is_refused(status, state):
    lease = Lease()
    lease.registered(status, None)
    assert lease.state == state


def test_beats_come_up_to_a_fifth_early():
    lease, rng = held(), random.Random(1)
    waits = [lease.wait_s(rng) for _ in range(200)]
    assert 8.0 <= min(waits) < 8.5
    assert 9.5 < max(waits) <= 10.0


def test_the_longer_it_is_away_the_more_seldom_it_is_asked():
    lease, rng = held(), random.Random(1)
    waits = []
    for _ in range(12):
        lease.beaten(0, None)
        waits.append(lease.wait_s(rng))
    assert waits[0] <= 0.2
    assert 2.5 <= waits[-1] <= 5.0


def test_who_is_refused_asks_every_half_minute():
    lease = Lease()
    for _ in range(20):
        lease.registered(403, None)
    assert 15.0 <= lease.wait_s(random.Random(1)) <= 30.0


def test_who_is_unknown_registers_at_once():
    lease = held()
    lease.beaten(404, None)
    assert lease.wait_s(random.Random(1)) <= 0.1


def test_late_news_changes_nothing_for_who_has_left():
    lease = held()
    lease.left()
    lease.beaten(404, None)
    lease.registered(201, {**HELD, "fence": 9})
    assert (lease.state, lease.fence) == ("left", 7)


@pytest.mark.parametrize(
    "content",
    [{}, {"fence": "x", "ttl_s": True}, {"ttl_s": -1}, {"ttl_s": 1e99}, {"ttl_s": 3.0}],
    ids=["empty", "types", "negative", "endless", "short"],
)
def test_an_answer_that_says_nonsense_leaves_the_defaults(content):
    lease = Lease()
    lease.registered(200, content)
    assert lease.state == "held"
    assert 0.5 <= lease.wait_s(random.Random(1)) <= 5.0


@given(st.lists(st.sampled_from([0, 200, 401, 404, 409, 422, 503]), max_size=40))
def test_it_never_waits_longer_than_half_a_minute_and_always_knows_what_is_next(statuses):
    lease, rng = Lease(), random.Random(1)
    for status in statuses:
        before = lease.next
        if before == "register":
            lease.registered(status, HELD)
        elif before == "beat":
            lease.beaten(status, HELD)
        assert 0.0 <= lease.wait_s(rng) <= 30.0
        if before == "nothing":
            assert lease.next == "nothing"
