"""Several members of one process."""

from __future__ import annotations

import asyncio

import pytest

from headgate.policy.limiter.lease import Ask, Back
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.memory import MemoryShared

TEN = LimitRules(limit=10, period_s=1e9, algorithm="fixed_window")


def take(home: MemoryShared, *asks: tuple[str, int], rules: LimitRules = TEN):
    return asyncio.run(
        home.take([LimitAsk(rule, rules, Ask("k", n, n, 0, None)) for rule, n in asks])
    )


def test_members_share_limits_and_know_how_many_they_are():
    one = MemoryShared()
    two = one.join()
    assert (one.holders, two.holders) == (2, 2)
    assert [grant.granted for grant in take(one, ("r", 6), ("s", 1))] == [6, 1]
    assert [grant.granted for grant in take(two, ("r", 5), ("r", 4))] == [0, 4]
    two.give_back([("r", Back("k", 4, 0.0))])
    assert take(one, ("r", 4))[0].granted == 4


def test_a_member_that_left_is_away_and_its_seats_are_free():
    one = MemoryShared()
    two = one.join()
    seats = LimitRules(limit=2, algorithm="concurrency")
    assert take(two, ("r", 2), rules=seats)[0].granted == 2
    two.leave()
    two.leave()
    assert two.is_away
    assert one.holders == 1
    with pytest.raises(HomeAway):
        take(two, ("r", 1))
    assert take(one, ("r", 2), rules=seats)[0].granted == 2


def test_changed_rules_hold_from_their_first_ask_on():
    home = MemoryShared()
    take(home, ("r", 6))
    fewer = LimitRules(limit=7, period_s=1e9, algorithm="fixed_window")
    assert take(home, ("r", 2), rules=fewer)[0].granted == 0


def test_old_keys_are_swept_on_the_way():
    now = 0.0
    home = MemoryShared(lambda: now)
    gcra = LimitRules(limit=10, period_s=10.0)
    for key in range(50):
        asyncio.run(home.take([LimitAsk("r", gcra, Ask(str(key), 1, 1, 0, None))]))
    now = 100.0
    take(home, ("r", 1), rules=gcra)
    assert [rule.keys for rule in home._room.ledger.snapshot()] == [1]


def test_news_reaches_others_and_retained_news_those_who_join():
    one = MemoryShared()
    two = one.join()
    heard: list[tuple[str, object]] = []
    one.subscribe("t", lambda message: heard.append(("one", message["n"])))
    two.subscribe("t", lambda message: heard.append(("two", message["n"])))
    one.publish("t", {"n": 1})
    two.publish("t", {"n": 2}, retain="a")
    three = one.join()
    three.subscribe("t", lambda message: heard.append(("three", message["n"])))
    assert heard == [("two", 1), ("one", 2), ("three", 2)]
    one.forget("t", "a")
    three.join().subscribe("t", lambda message: heard.append(("four", message["n"])))
    assert len(heard) == 3
    assert one.snapshot(0.0).retained == 0
