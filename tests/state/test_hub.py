"""A worker's side of the hub; the test plays control and says every word of it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headgate.policy.limiter.lease import Ask, Back, Grant
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.hub import HubShared

TEN = LimitRules(limit=10, period_s=10.0)
SEATS = LimitRules(limit=4, algorithm="concurrency")
FULL = [5, 5, 1.0, 0.0, 7.0]
"""A grant as it goes over the link."""


class Control:
    """Control's end of a link: what it was told, and how it answers."""

    hub: HubShared

    def __init__(self) -> None:
        self.clock = 0.0
        """Stands still, so that an answer is in time unless the test says otherwise."""
        self.told: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, /, payload: bytes = b"", fds: object = (), **fields: Any) -> None:
        self.told.append((kind, json.loads(json.dumps(fields))))

    def welcome(self, holders: int = 2, retained: tuple[object, ...] = ()) -> None:
        self.hub.heard("shared_welcome", {"holders": holders, "retained": list(retained)})

    def asked(self) -> list[dict[str, Any]]:
        return [fields for kind, fields in self.told if kind == "shared_asks"]

    def grant(self, number: int, *grants: list[float]) -> None:
        self.hub.heard("shared_grants", {"n": number, "grants": list(grants)})


def dialogue(
    scenario: Callable[[HubShared, Control], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def main() -> None:
        control = Control()
        hub = HubShared(clock=lambda: control.clock, **{"deadline_s": 5.0, **options})
        control.hub = hub
        hub.attach(control)
        async with asyncio.timeout(10):
            await scenario(hub, control)
        hub.detach()

    asyncio.run(main())


def asking(n: int = 1, *, rule: str = "r", rules: LimitRules = TEN, key: str = "k", **more: Any):
    return LimitAsk(rule, rules, Ask(key, n, n, **more))


SHORT = {"deadline_s": 0.03, "probe_every_s": 0.02}
"""For tests of what happens when control does not answer."""


async def until(what: Callable[[], object]) -> None:
    while not what():
        await asyncio.sleep(0.001)


async def refused(hub: HubShared) -> str:
    with pytest.raises(HomeAway) as caught:
        await hub.take([asking()])
    return str(caught.value)


def test_before_control_says_welcome_nobody_waits():
    async def scenario(hub: HubShared, control: Control) -> None:
        assert hub.is_away
        assert await refused(hub) == "control has not answered yet"
        control.welcome(holders=3)
        assert not hub.is_away
        assert hub.holders == 3
        assert control.told == [("shared_hello", {"retained": []})]

    dialogue(scenario)


def test_asks_of_one_turn_go_in_one_message_and_a_rule_is_declared_once():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        one = asyncio.ensure_future(hub.take([asking(2), asking(1, rule="s", rules=SEATS)]))
        two = asyncio.ensure_future(hub.take([asking(3, key="l", owed=4, holding=None)]))
        await until(control.asked)
        hub.give_back([("r", Back("k", 1, 6.5))])
        await until(lambda: len(control.asked()) == 2)
        assert control.asked() == [
            {
                "n": 1,
                "rules": [
                    [0, "r", 10, 10.0, "gcra", None, 1_000_000, 10.0],
                    [1, "s", 4, 1.0, "concurrency", None, 1_000_000, 10.0],
                ],
                "do": [
                    [0, "k", 2, 2, 0, None],
                    [1, "k", 1, 1, 0, None],
                    [0, "l", 3, 3, 4, None],
                ],
            },
            {"n": 2, "rules": [], "do": [[0, "k", 1, 6.5]]},
        ]
        control.grant(1, [2, 5, 1.0, 0.0, 7.0], [1, 3, 1.0, 0.0, 7.0], [0, 2, 1.0, 0.5, 7.0])
        assert await one == [Grant(2, 5, 1.0, 0.0, 7.0), Grant(1, 3, 1.0, 0.0, 7.0)]
        assert await two == [Grant(0, 2, 1.0, 0.5, 7.0)]

    dialogue(scenario)


def test_equal_rules_of_a_reload_are_not_declared_again_and_changed_ones_are():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        for limit in (10, 10, 11):
            rules = LimitRules(limit=limit, period_s=10.0)
            asked = asyncio.ensure_future(hub.take([asking(rules=rules)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            control.grant(hub._number, FULL)
            await asked
        declared = [[row[2] for row in asked["rules"]] for asked in control.asked()]
        assert declared == [[10], [], [11]]
        assert {row[0] for asked in control.asked() for row in asked["do"]} == {0}

    dialogue(scenario)


def test_after_a_deadline_nobody_waits_until_a_probe_is_answered_in_time():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        assert await refused(hub) == "no answer within 30 ms"
        assert hub.is_away
        with pytest.raises(HomeAway):
            hub.take([asking()]).send(None)  # it does not wait, not even for one turn
        assert len(control.asked()) == 1
        await until(lambda: len(control.asked()) == 2)
        assert control.asked()[1] == {"n": 2, "rules": [], "do": []}
        control.grant(2)
        assert not hub.is_away
        assert hub.snapshot(time.monotonic()).times_away == 1

    dialogue(scenario, **SHORT)


def test_a_probe_answered_too_late_brings_nobody_back_and_the_next_one_follows():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        await refused(hub)
        await until(lambda: len(control.asked()) == 2)
        await asyncio.sleep(0.06)
        assert len(control.asked()) == 2  # one probe at a time
        control.clock += 0.031
        control.grant(2)
        assert hub.is_away
        await until(lambda: len(control.asked()) == 3)
        control.grant(3)
        assert not hub.is_away

    dialogue(scenario, **SHORT)


def test_what_is_granted_too_late_is_given_back():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        await refused(hub)
        control.grant(1, [1, 5, 1.0, 0.0, 7.0])
        await until(lambda: len(control.asked()) == 2)
        assert control.asked()[1]["do"] == [[0, "k", 1, 7.0]]
        assert hub.snapshot(time.monotonic()).late == 1

    dialogue(scenario, deadline_s=0.03, probe_every_s=5.0)


def test_what_was_granted_to_a_request_that_left_is_given_back():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        stays = asyncio.ensure_future(hub.take([asking(2)]))
        leaves = asyncio.ensure_future(hub.take([asking(3), asking(1, key="l")]))
        await until(control.asked)
        leaves.cancel()
        control.grant(1, [2, 5, 1.0, 0.0, 7.0], [3, 2, 1.0, 0.0, 7.0], [0, 2, 1.0, 1.0, 7.0])
        assert (await stays)[0].granted == 2
        await until(lambda: len(control.asked()) == 2)
        assert control.asked()[1]["do"] == [[0, "k", 3, 7.0]]

    dialogue(scenario)


@pytest.mark.parametrize("key", ["k", "l"])
def test_seats_are_not_given_back_when_we_have_said_since_what_we_hold(key: str):
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        leaves = asyncio.ensure_future(hub.take([asking(2, rules=SEATS)]))
        await until(control.asked)
        leaves.cancel()
        says = LimitAsk("r", SEATS, Ask(key, 0, 0, 0, 1))
        holds = asyncio.ensure_future(hub.take([says]))
        await until(lambda: len(control.asked()) == 2)
        control.grant(1, [2, 2, 1.0, 0.0, 7.0])
        control.grant(2, [0, 2, 1.0, 0.0, 7.0])
        await holds
        await asyncio.sleep(0)
        rows = [asked["do"] for asked in control.asked()[2:]]
        assert rows == ([] if key == "k" else [[[0, "k", 2, 7.0]]])

    dialogue(scenario)


def test_all_who_wait_are_told_when_one_is_past_its_deadline():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        first = asyncio.ensure_future(refused(hub))
        await until(control.asked)
        await asyncio.gather(first, refused(hub), refused(hub))
        assert len(control.asked()) == 2
        assert hub.snapshot(time.monotonic()).timed_out == 1

    dialogue(scenario, **SHORT)


def test_a_loop_that_was_held_up_reads_what_has_come_before_it_gives_up():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        asked = asyncio.ensure_future(hub.take([asking()]))
        await until(control.asked)
        time.sleep(0.06)
        control.clock += 0.06
        asyncio.get_running_loop().call_later(0.001, control.grant, 1, FULL)
        assert (await asked)[0].granted == 5

    dialogue(scenario, deadline_s=0.03)


def test_when_control_dies_those_who_wait_are_told_at_once_and_a_new_link_begins_anew():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        asked = asyncio.ensure_future(refused(hub))
        await until(control.asked)
        hub.detach(control)
        assert await asked == "control is gone"
        assert hub.holders == 2  # as far as we know

        successor = Control()
        successor.hub = hub
        hub.attach(successor)
        hub.detach(control)  # late news about the old link
        successor.welcome(holders=1)
        assert not hub.is_away
        again = asyncio.ensure_future(hub.take([asking()]))
        await until(successor.asked)
        assert successor.asked()[0]["rules"][0][:2] == [0, "r"]  # it knows none of our rules
        successor.grant(successor.asked()[0]["n"], FULL)
        await again

    dialogue(scenario)


def test_until_control_says_so_the_expected_number_shares():
    async def scenario(hub: HubShared, control: Control) -> None:
        hub.expect(4)
        assert hub.holders == 4
        control.welcome(holders=3)
        hub.expect(8)
        assert hub.holders == 3
        hub.heard("shared_holders", {"holders": 2})
        assert hub.holders == 2

    dialogue(scenario)


def test_news_is_told_to_control_and_heard_from_it():
    async def scenario(hub: HubShared, control: Control) -> None:
        heard: list[object] = []
        hub.subscribe("breaker", heard.append)
        control.welcome()
        hub.publish("breaker", {"n": 1})
        kind, fields = control.told[-1]
        assert (kind, fields) == (
            "shared_news",
            {"topic": "breaker", "message": {"n": 1}, "retain": None, "version": 0},
        )
        news = {"topic": "breaker", "message": {"n": 2}, "retain": None, "version": 0}
        assert hub.heard("shared_news", news)
        assert heard == [{"n": 2}]
        assert not hub.heard("snapshot", {})

    dialogue(scenario)


def test_away_news_is_dropped_unless_it_is_retained_and_that_is_said_later():
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        await refused(hub)
        del control.told[:]
        hub.publish("breaker", {"n": 1})
        hub.publish("split", {"n": 2}, retain="a")
        hub.publish("split", {"n": 3}, retain="a")
        hub.publish("split", {"n": 4}, retain="b")
        hub.forget("split", "b")
        heard = {"topic": "split", "message": {"n": 5}, "retain": "b", "version": 10**18}
        hub.heard("shared_news", heard)  # ours is the last word, and will be said
        hub.heard("shared_forget", {"topic": "split", "retain": "a", "version": 10**18})
        assert control.told == []
        await until(control.asked)
        del control.told[:]
        control.grant(hub._number)
        assert [(kind, fields.get("message")) for kind, fields in control.told] == [
            ("shared_news", {"n": 3}),
            ("shared_forget", None),
        ]
        assert hub.snapshot(time.monotonic()).dropped == 1

    dialogue(scenario, **SHORT)


def test_what_is_retained_is_offered_to_a_new_control_and_what_it_knows_better_is_heard():
    async def scenario(hub: HubShared, control: Control) -> None:
        heard: list[object] = []
        hub.subscribe("split", heard.append)
        control.welcome(retained=(["split", "a", 5, {"n": 1}],))
        hub.publish("split", {"n": 2}, retain="b")
        successor = Control()
        successor.hub = hub
        hub.attach(successor)
        kind, fields = successor.told[0]
        assert kind == "shared_hello"
        assert [(row[0], row[1], row[3]) for row in fields["retained"]] == [
            ("split", "a", {"n": 1}),
            ("split", "b", {"n": 2}),
        ]
        mine = fields["retained"][1][2]
        successor.welcome(
            retained=(["split", "a", 6, {"n": 3}], ["split", "b", mine - 1, {"n": 4}])
        )
        assert heard == [{"n": 1}, {"n": 3}]
        hub.heard("shared_forget", {"topic": "split", "retain": "a", "version": 5})
        hub.heard("shared_forget", {"topic": "split", "retain": "b", "version": mine - 1})
        hub.heard("shared_forget", {"topic": "split", "retain": "a", "version": 6})
        late: list[object] = []
        hub.subscribe("split", late.append)
        assert late == [{"n": 2}]

    dialogue(scenario)


def test_going_and_coming_back_is_logged_and_not_each_time(caplog: pytest.LogCaptureFixture):
    async def scenario(hub: HubShared, control: Control) -> None:
        control.welcome()
        for _ in range(3):
            await refused(hub)
            await refused(hub)
            await until(lambda: hub._probe_number)
            control.grant(hub._probe_number)
        assert hub.snapshot(time.monotonic()).times_away == 3

    with caplog.at_level(logging.INFO, "headgate.state"):
        dialogue(scenario, **SHORT)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("shared state in hub is away: no answer within 30 ms")
    assert said[1].startswith("shared state in hub is back after")
    assert len(said) == 2
