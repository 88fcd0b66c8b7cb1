"""Limits and news between workers: control's side over real channels, then in real processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from headgate.control.channel import Channel
from headgate.control.shared import BACKLOG_MAX, Shared
from headgate.policy.limiter.lease import Ask, Back, LeaseRules
from headgate.policy.limiter.rules import Algorithm, LimitRules
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.hub import HubShared
from tests.control.running import Gateway, wait_until
from tests.state.worker import Worker, most_in_window, worst_excess

TEN = LimitRules(limit=10, period_s=3600.0, algorithm="fixed_window")
SEATS = LimitRules(limit=4, algorithm="concurrency")


@dataclass(eq=False)
class Link:
    """Both ends of one worker's link."""

    life: str
    channel: Channel = field(init=False)
    """Control's end."""
    worker: Channel = field(init=False)
    hub: HubShared = field(default_factory=lambda: HubShared(deadline_s=2.0))


@contextlib.asynccontextmanager
async def linked(shared: Shared, life: str, hub: HubShared | None = None) -> AsyncIterator[Link]:
    link = Link(life)
    if hub is not None:
        link.hub = hub
    ours, theirs = socket.socketpair()
    link.channel = Channel(
        ours, lambda message: _ignore(shared.heard(link, message)), lambda: shared.left(link)
    )
    link.worker = Channel(
        theirs,
        lambda message: _ignore(link.hub.heard(message.kind, message.fields)),
        lambda: link.hub.detach(link.worker),
    )
    link.channel.start()
    link.worker.start()
    link.hub.attach(link.worker)
    try:
        yield link
    finally:
        link.worker.close()
        link.channel.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _ignore(_taken: bool) -> None:
    pass


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.001)


async def here(*links: Link) -> None:
    await until(lambda: all(not link.hub.is_away for link in links))


async def take(link: Link, n: int, rules: LimitRules = TEN, rule: str = "r", **more: Any) -> int:
    (grant,) = await link.hub.take([LimitAsk(rule, rules, Ask("k", n, n, **more))])
    return grant.granted


def ears(board: HubShared | Shared) -> list[int]:
    heard: list[int] = []
    board.subscribe("t", lambda message: heard.append(message["n"]))
    return heard


def test_workers_spend_from_one_limit_and_know_how_many_they_are():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            await until(lambda: one.hub.holders == two.hub.holders == shared.holders == 2)
            assert await take(one, 6) == 6
            assert await take(two, 6) == 0
            assert await take(two, 4) == 4
            two.hub.give_back([("r", Back("k", 3, 1e9)), ("never declared", Back("k", 3, 1e9))])
            assert await take(one, 3) == 3
            (rule,) = shared.snapshot()["rules"]
            assert (rule["rule"], rule["keys"]) == ("r", 1)
        assert shared.holders == 0

    asyncio.run(main())


def test_a_worker_that_dies_gives_up_its_seats_and_the_others_are_told():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one:
            async with linked(shared, "two") as two:
                await here(one, two)
                assert await take(two, 4, SEATS) == 4
                assert await take(one, 1, SEATS) == 0
            await until(lambda: one.hub.holders == 1)
            assert await take(one, 4, SEATS) == 4
            assert two.hub.is_away
            with pytest.raises(HomeAway):
                await take(two, 1)

    asyncio.run(main())


def test_a_reload_changes_a_rule_for_all_with_what_was_used():
    async def main() -> None:
        shared = Shared()
        fewer = LimitRules(limit=7, period_s=3600.0, algorithm="fixed_window")
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            assert await take(one, 3) == 3
            assert await take(two, 3) == 3
            assert await take(one, 2, fewer) == 0
            assert await take(two, 2) == 0  # it has not reloaded yet, but the rule has changed
            assert await take(two, 1, fewer) == 1

    asyncio.run(main())


def test_an_ask_for_a_rule_that_was_never_declared_is_a_fault_of_ours_and_is_not_answered():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one:
            await here(one)
            with pytest.raises(KeyError, match="never declared"):
                shared._on_asks(
                    shared._members["one"], {"n": 1, "rules": [], "do": [[7, "k", 1, 1, 0, None]]}
                )

    asyncio.run(main())


def test_news_goes_to_all_others_and_to_control():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            heard = [ears(board) for board in (shared, one.hub, two.hub)]
            one.hub.publish("t", {"n": 1})
            await until(lambda: heard[0] and heard[2])
            shared.publish("t", {"n": 2})
            await until(lambda: heard[1] and len(heard[2]) == 2)
            assert heard == [[1], [2], [1, 2]]

    asyncio.run(main())


def test_what_is_retained_is_told_to_who_comes_later_and_forgotten_by_all():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one:
            await here(one)
            one.hub.publish("t", {"n": 1}, retain="a")
            shared.publish("t", {"n": 2}, retain="b")
            one.hub.publish("t", {"n": 3}, retain="a")
            await until(lambda: one.hub.snapshot(0.0).retained == 2)
            async with linked(shared, "two") as two:
                heard = ears(two.hub)
                await until(lambda: sorted(heard) == [2, 3])
                two.hub.forget("t", "a")
                shared.forget("t", "b")
                await until(lambda: one.hub.snapshot(0.0).retained == 0)
                await until(lambda: two.hub.snapshot(0.0).retained == 0)
                assert shared.snapshot()["retained"] == 0

    asyncio.run(main())


def test_the_later_message_holds_whatever_the_wall_clock_did():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            one.worker.send("shared_news", topic="t", retain="a", message={"n": 1}, version=10**18)
            heard = ears(two.hub)
            await until(lambda: heard == [1])
            shared.publish("t", {"n": 2}, retain="a")
            await until(lambda: heard == [1, 2])
            two.worker.send("shared_news", topic="t", retain="a", message={"n": 3}, version=5)
            async with linked(shared, "three") as three:
                late = ears(three.hub)
                await until(lambda: late == [3])
                await until(lambda: one.hub.snapshot(0.0).heard == 2)
        after = Shared()
        async with linked(after, "two", two.hub), linked(after, "one", one.hub) as one:
            await here(one)
            assert ears(after) == [3]  # not 2, which the other offered

    asyncio.run(main())


def test_what_two_publish_at_once_ends_the_same_for_all():
    async def main() -> None:
        shared = Shared()
        rng = random.Random(1)
        async with (
            linked(shared, "one") as one,
            linked(shared, "two") as two,
            linked(shared, "three") as three,
        ):
            await here(one, two, three)
            boards: tuple[HubShared | Shared, ...] = (one.hub, two.hub, three.hub, shared)
            beliefs: dict[HubShared | Shared, Mapping[str, Any]] = {}
            for board in boards:
                board.subscribe("t", functools.partial(beliefs.__setitem__, board))
            for _ in range(50):
                for n in range(rng.randint(2, 6)):
                    board = rng.choice(boards)
                    beliefs[board] = {"n": rng.random(), "of": n}
                    board.publish("t", beliefs[board], retain="a")
                    if rng.random() < 0.3:
                        await asyncio.sleep(0)
                await until(
                    lambda: len(beliefs) == 4 and len({said["n"] for said in beliefs.values()}) == 1
                )
            for board in boards:
                assert ears(board) == [beliefs[board]["n"]]

    asyncio.run(main())


def test_a_new_control_learns_from_the_workers_what_was_retained():
    async def main() -> None:
        before = Shared()
        async with linked(before, "one") as one, linked(before, "two") as two:
            await here(one, two)
            one.hub.publish("t", {"n": 1}, retain="a")
            await until(lambda: two.hub.snapshot(0.0).retained == 1)
        after = Shared()
        one.hub.publish("t", {"n": 2}, retain="a")  # while control is away
        async with linked(after, "two", two.hub):
            await until(lambda: after.snapshot()["retained"] == 1)
            heard = [ears(after), ears(two.hub)]
            assert heard == [[1], [1]]
            async with linked(after, "one", one.hub):
                await until(lambda: heard == [[1, 2], [1, 2]])
                async with linked(after, "three") as three:
                    late = ears(three.hub)
                    await until(lambda: late == [2])

    asyncio.run(main())


def test_of_a_member_that_does_not_read_little_is_kept_and_it_is_told_again_when_it_reads():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            asyncio.get_running_loop().remove_reader(two.worker.fileno())  # stopped
            for n in range(3 * BACKLOG_MAX):
                shared.publish("t", {"n": n, "text": "x" * 500}, retain=str(n % 7))
                if n % 100 == 0:
                    await asyncio.sleep(0)
            assert two.channel.backlog <= BACKLOG_MAX
            assert shared.snapshot()["missed"] > BACKLOG_MAX
            heard = ears(two.hub)
            asyncio.get_running_loop().add_reader(two.worker.fileno(), two.worker._on_readable)
            await until(lambda: two.channel.backlog == 0)
            two.hub.publish("t", {"n": -1})  # a word from it, and it is told
            last = set(range(3 * BACKLOG_MAX - 7, 3 * BACKLOG_MAX))
            await until(lambda: last <= set(heard))

    asyncio.run(main())


def test_what_was_said_before_hello_is_passed_over():
    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one:
            await here(one)
            shared._members.clear()
            one.hub.publish("t", {"n": 1}, retain="a")
            one.worker.send("no word of ours")
            await asyncio.sleep(0.01)
            assert shared.snapshot()["retained"] == 0

    asyncio.run(main())


def test_keys_that_have_run_out_are_swept_while_nobody_asks():
    async def main() -> None:
        shared = Shared()
        shared.start(asyncio.get_running_loop())
        async with linked(shared, "one") as one:
            await here(one)
            await take(one, 1, LimitRules(limit=10, period_s=0.01))
            await until(lambda: shared.snapshot()["rules"][0]["keys"] == 0)
        shared.stop()

    asyncio.run(main())


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("algorithm", ["gcra", "token_bucket", "sliding_log", "sliding_window"])
def test_two_workers_pass_no_more_than_the_stated_bound(algorithm: Algorithm, share: float):
    limit, period_s, load_s = 80, 0.4, 1.0
    per_s = limit / period_s
    rules = LimitRules(limit=limit, period_s=period_s, algorithm=algorithm)
    lease = LeaseRules(share=share, ttl_s=0.2)

    async def main() -> None:
        shared = Shared()
        async with linked(shared, "one") as one, linked(shared, "two") as two:
            await here(one, two)
            workers = [Worker(one.hub, rules, lease), Worker(two.hub, rules, lease)]
            await asyncio.gather(
                workers[0].load(4 * per_s, load_s, random.Random(1)),
                workers[1].load(per_s, load_s, random.Random(2)),
            )
            passed = sorted(workers[0].passed + workers[1].passed)
            ahead = limit * share + per_s * 0.05  # leased before, and waited for
            if algorithm in {"gcra", "token_bucket"}:
                assert worst_excess(passed, limit, per_s) <= ahead
            elif algorithm == "sliding_log":
                assert most_in_window(passed, period_s) <= limit + ahead
            else:
                assert most_in_window(passed, period_s) <= 2 * limit + ahead
            assert len(passed) >= per_s * load_s * (0.9 - share)
            assert min(len(worker.passed) for worker in workers)

    asyncio.run(main())


# ---- real processes


@pytest.fixture
def sharing(stopped: Gateway) -> Gateway:
    stopped.worker_class = "tests.control.sharing_worker:SharingWorker"
    stopped.start()
    both_share(stopped)
    return stopped


def both_share(gateway: Gateway) -> None:
    def do_both() -> bool:
        states = [ask(gateway, index, "state") for index in (0, 1)]
        return all(said["holders"] == 2 and not said["is_away"] for said in states)

    wait_until(do_both)


def ask(gateway: Gateway, index: int, words: str) -> dict[str, Any]:
    """What that worker answers; which one a connection reaches is the kernel's choice."""

    def answer() -> dict[str, Any] | None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=15)
        try:
            connection.request("GET", f"/shared/{index}/{words}")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return said if said["index"] == index else None

    found: dict[str, Any] = wait_until(answer)
    return found


def granted(gateway: Gateway, index: int, words: str) -> int:
    """What that worker was granted; asked again if this busy machine gave no answer in time."""

    def answer() -> dict[str, Any] | None:
        said = ask(gateway, index, f"take/{words}")
        return said if "granted" in said else None

    count: int = wait_until(answer)["granted"]
    return count


def test_two_workers_share_a_limit_and_tell_each_other(sharing: Gateway):
    assert granted(sharing, 0, "r/fixed_window/6") == 6
    assert granted(sharing, 1, "r/fixed_window/6") == 0
    assert granted(sharing, 1, "r/fixed_window/4") == 4
    ask(sharing, 0, "say/t/1")
    wait_until(lambda: ask(sharing, 1, "state")["heard"] == [1])
    assert ask(sharing, 0, "state")["heard"] == []


def test_a_killed_worker_gives_up_its_seats_and_its_successor_is_told_what_is_retained(
    sharing: Gateway,
):
    ask(sharing, 0, "say/t/1/a")
    assert granted(sharing, 1, "r/concurrency/10") == 10
    assert granted(sharing, 0, "r/concurrency/1") == 0
    killed = ask(sharing, 1, "state")["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: granted(sharing, 0, "r/concurrency/1"))
    wait_until(lambda: ask(sharing, 1, "state")["pid"] != killed)
    both_share(sharing)
    assert ask(sharing, 1, "state")["heard"] == [1]


def test_control_killed_and_back_the_limits_begin_anew_and_what_is_retained_stays(
    sharing: Gateway,
):
    ask(sharing, 0, "say/t/1/a")
    wait_until(lambda: ask(sharing, 1, "state")["heard"] == [1])
    assert granted(sharing, 0, "r/fixed_window/10") == 10
    killed = sharing.control_pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: sharing.control_pid() not in (0, killed))
    both_share(sharing)
    assert granted(sharing, 1, "r/fixed_window/10") == 10
    os.kill(ask(sharing, 0, "state")["pid"], signal.SIGKILL)
    both_share(sharing)
    assert ask(sharing, 0, "state")["heard"] == [1]


def test_a_frozen_control_is_away_and_found_again(sharing: Gateway):
    control = sharing.control_pid()
    os.kill(control, signal.SIGSTOP)
    try:
        assert "no answer within" in ask(sharing, 0, "take/r/fixed_window/3")["away"]
        assert ask(sharing, 0, "state")["is_away"]
    finally:
        os.kill(control, signal.SIGCONT)
    wait_until(lambda: not ask(sharing, 0, "state")["is_away"])
    # What was granted too late has been given back.
    wait_until(lambda: granted(sharing, 1, "r/fixed_window/10") == 10)
