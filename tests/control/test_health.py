"""The prober against real instances: who is checked, when, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest

from headgate.config import from_document
from headgate.control.health import TOPIC, HealthProber, Target, targets_of
from headgate.plan.build import build
from tests.control.scripted import OK, Asked, Names, eventually, instance, run, target

BAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
QUICK: dict[str, Any] = {"every_s": 0.02, "rise": 1, "fall": 1}


class Prober(HealthProber):
    """A prober whose news is kept."""

    def __init__(self, **options: Any) -> None:
        self.news: list[dict[str, Any]] = []
        super().__init__(self.hear, Names(), rng=random.Random(1), **options)

    def hear(self, topic: str, message: dict[str, Any]) -> None:
        assert topic == TOPIC
        self.news.append(message)

    async def wait_news(self, count: int = 1) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.news) >= count)
        return self.news

    def checks(self, number: int = 0) -> int:
        return self.snapshot()[number].checks


@asynccontextmanager
async def prober(*targets: Target, **options: Any) -> AsyncIterator[Prober]:
    made = Prober(**options)
    made.update(targets)
    try:
        yield made
    finally:
        await made.close()
        assert not any(task.get_name().startswith("health") for task in asyncio.all_tasks())


# ---- what is told


def test_the_first_check_is_told_and_every_change_after_it():
    async def main() -> None:
        async with instance(OK) as made, prober(target(made.url, **QUICK)) as checks:
            (first,) = await checks.wait_news()
            assert abs(first.pop("at") - time.time()) < 60
            assert first == {
                "service": "users",
                "instance": made.url,
                "key": f"users {made.url}",
                "up": True,
                "why": "the first check passed",
            }
            made.script = BAD
            _, second = await checks.wait_news(2)
            assert (second["up"], second["why"]) == (False, "a check failed (status 503)")
            made.script = OK
            *_, third = await checks.wait_news(3)
            assert (third["up"], third["why"]) == (True, "a check passed")

    run(main())


def test_nothing_is_told_while_nothing_changes():
    async def main() -> None:
        async with instance(OK) as made, prober(target(made.url, **QUICK)) as checks:
            await eventually(lambda: checks.checks() >= 5)
            assert len(checks.news) == 1

    run(main())


def test_several_failures_in_a_row_are_counted():
    async def main() -> None:
        rules = QUICK | {"fall": 3, "rise": 2}
        async with instance(OK) as made, prober(target(made.url, **rules)) as checks:
            await checks.wait_news()
            made.script = BAD
            await checks.wait_news(2)
            assert checks.news[1]["why"] == "3 checks in a row failed (status 503)"
            assert len(made.asked) >= 4

    run(main())


def test_a_listener_who_fails_does_not_stop_the_checks(caplog):
    async def main() -> None:
        async with instance(OK) as made:

            def refuse(topic: str, message: dict[str, Any]) -> None:
                raise OSError("the board is away")

            checks = HealthProber(refuse, Names())
            checks.update([target(made.url, **QUICK)])
            await eventually(lambda: checks.snapshot()[0].checks >= 3)
            assert checks.snapshot()[0].state == "up"
            await checks.close()

    run(main())
    assert "the health of users http://127.0.0.1" in caplog.text


def test_a_check_that_cannot_be_made_is_a_failed_check(caplog):
    async def main() -> None:
        wrong = target("http://127.0.0.1:1", headers=(("x", "a\r\nb"),))
        async with instance(OK) as made:
            wrong = target(made.url, headers=(("x", "a\r\nb"),), **QUICK)
            async with prober(wrong) as checks:
                (news,) = await checks.wait_news()
                assert "could not be checked: a line break in what is to be sent" in news["why"]

    run(main())


# ---- who is checked


def test_a_removed_instance_is_no_longer_checked():
    async def main() -> None:
        async with instance(OK) as stays, instance(OK) as goes:
            both = [target(stays.url, **QUICK), target(goes.url, **QUICK)]
            async with prober(*both) as checks:
                await eventually(lambda: len(goes.asked) >= 3 and len(stays.asked) >= 3)
                checks.update(both[:1])
                told = checks.news[-1]
                assert (told["instance"], told["up"], told["gone"]) == (goes.url, True, True)
                count, more = len(goes.asked), len(stays.asked) + 10
                await eventually(lambda: len(stays.asked) >= more)
                assert len(goes.asked) <= count + 1  # one may have been connecting
                assert [each.instance for each in checks.snapshot()] == [stays.url]
                assert checks.news[-1] is told

    run(main())


def test_a_check_under_way_to_a_removed_instance_is_given_up():
    async def main() -> None:
        async with instance(Asked.until_gone) as made, prober() as checks:
            checks.update([target(made.url, timeout_s=60.0, every_s=0.01)])
            await eventually(lambda: made.open)
            checks.update([])
            await eventually(lambda: not made.open)
            assert [news["why"] for news in checks.news] == ["not checked any more"]

    run(main())


def test_instances_can_come_and_go_and_come_again():
    async def main() -> None:
        async with instance(OK) as made:
            targets = [target(made.url, **QUICK)]
            async with prober() as checks:
                for _ in range(3):
                    checks.news.clear()
                    checks.update(targets)
                    await checks.wait_news()
                    assert checks.news[0]["why"] == "the first check passed"
                    checks.update([])
                    assert checks.news[-1]["gone"]

    run(main())


def test_who_hears_the_news_may_remove_the_instance_at_once():
    async def main() -> None:
        async with instance(OK) as stays, instance(OK) as goes:
            checks: HealthProber

            def hear(topic: str, message: dict[str, Any]) -> None:
                checks.update([target(stays.url, **QUICK)])

            checks = HealthProber(hear, Names())
            checks.update([target(goes.url, **QUICK)])
            await eventually(lambda: len(stays.asked) >= 20)
            assert len(goes.asked) == 1
            assert len(checks._due) <= 1  # none is checked twice, either
            await checks.close()

    run(main())


def test_the_same_instance_in_two_services_is_checked_for_each():
    async def main() -> None:
        async with instance(OK) as made:
            targets = [target(made.url, each, **QUICK) for each in ("users", "orders")]
            async with prober(*targets) as checks:
                await checks.wait_news(2)
                assert {news["key"] for news in checks.news} == {
                    f"users {made.url}",
                    f"orders {made.url}",
                }

    run(main())


def test_after_the_end_nothing_is_checked_or_told():
    async def main() -> None:
        async with instance(Asked.until_gone) as made:
            checks = Prober()
            checks.update([target(made.url, timeout_s=60.0, every_s=0.01)])
            await eventually(lambda: made.open)
            await checks.close()
            await eventually(lambda: not made.open)
            assert checks.news == []
            assert asyncio.all_tasks() == {asyncio.current_task()}
            with pytest.raises(RuntimeError):
                checks.update([])
            await checks.close()

    run(main())


# ---- reloads


def test_a_reload_keeps_what_is_known_and_does_not_check_again_at_once():
    async def main() -> None:
        async with instance(BAD) as made:
            targets = [target(made.url, every_s=60.0, rise=2)]
            async with prober(*targets) as checks:
                await checks.wait_news()
                before = checks.snapshot()[0]
                for _ in range(3):
                    checks.update(targets)
                await asyncio.sleep(0.05)
                after = checks.snapshot()[0]
                assert (after.state, after.checks, len(made.asked)) == ("down", 1, 1)
                assert after.since == pytest.approx(before.since, abs=0.01)
                assert len(checks.news) == 1

    run(main())


def test_a_reload_during_a_check_lets_it_end():
    async def main() -> None:
        go_on = asyncio.Event()

        async def script(asked: Asked) -> None:
            await go_on.wait()
            await asked.say(OK)

        async with instance(script) as made:
            targets = [target(made.url, every_s=60.0, timeout_s=30.0)]
            async with prober(*targets) as checks:
                await eventually(lambda: made.open)
                checks.update(targets)
                checks.update([target(made.url, every_s=50.0, timeout_s=30.0, fall=9)])
                go_on.set()
                await checks.wait_news()
                assert len(made.asked) == 1

    run(main())


def test_another_pace_holds_at_once():
    async def main() -> None:
        async with instance(OK) as made, prober(target(made.url, every_s=3000.0)) as checks:
            await checks.wait_news()
            checks.update([target(made.url, every_s=0.02)])
            await eventually(lambda: len(made.asked) >= 3)

    run(main())


def test_a_corrected_question_is_asked_soon_and_decides_at_once():
    async def main() -> None:
        async def script(asked: Asked) -> None:
            await asked.say(OK if asked.head.startswith(b"GET /right ") else BAD)

        async with instance(script) as made:
            wrong = target(made.url, path="/wrong", every_s=3000.0, rise=5)
            async with prober(wrong) as checks:
                assert not (await checks.wait_news())[0]["up"]
                checks.update([target(made.url, path="/right", every_s=3000.0, rise=5)])
                *_, news = await checks.wait_news(2)
                assert (news["up"], news["why"]) == (True, "the first check by new rules passed")

    run(main())


def test_the_answer_to_a_question_that_has_changed_is_not_counted():
    async def main() -> None:
        async def script(asked: Asked) -> None:
            if asked.head.startswith(b"GET /old "):
                await asked.until_gone()
            else:
                await asked.say(OK)

        async with instance(script) as made:
            old = target(made.url, path="/old", timeout_s=60.0, every_s=0.02)
            async with prober(old) as checks:
                await eventually(lambda: made.open)
                checks.update([target(made.url, path="/new", timeout_s=60.0, every_s=0.02)])
                await eventually(lambda: checks.checks() >= 3)
                assert [news["up"] for news in checks.news] == [True]
                assert checks.snapshot()[0].failures == 0

    run(main())


# ---- how many, and when


def test_no_more_checks_than_allowed_are_under_way():
    async def main() -> None:
        async def script(asked: Asked) -> None:
            await asyncio.sleep(0.01)
            await asked.say(OK)

        async with instance(script) as made:
            targets = [target(made.url, f"s{each}", every_s=0.01) for each in range(30)]
            async with prober(*targets, at_once=3) as checks:
                await eventually(lambda: all(each.checks >= 2 for each in checks.snapshot()))
                assert made.most_open <= 4  # a server hears of an end a little later
                assert made.most_open >= 2

    run(main())


def test_those_that_hang_delay_the_others_and_do_not_stop_them():
    async def main() -> None:
        async with instance(Asked.until_gone) as hangs, instance(OK) as well:
            rules = QUICK | {"timeout_s": 0.1}
            targets = [target(hangs.url, f"s{each}", **rules) for each in range(8)]
            targets.append(target(well.url, "well", **rules))
            async with prober(*targets, at_once=4) as checks:
                await eventually(lambda: all(each.checks >= 2 for each in checks.snapshot()))
                states = {each.service: each.state for each in checks.snapshot()}
                assert states.pop("well") == "up"
                assert set(states.values()) == {"down"}

    run(main())


def test_a_service_whose_instances_all_hang_does_not_hold_up_the_others():
    async def main() -> None:
        async with instance(Asked.until_gone) as hangs, instance(OK) as well:
            slow = QUICK | {"timeout_s": 60.0}
            one = target(hangs.url, "hung", **slow)
            hung = [replace(one, instance=f"{one.instance}#{each}") for each in range(8)]
            async with prober(*hung, target(well.url, "well", **QUICK), at_once=8) as checks:
                await eventually(lambda: hangs.open >= 2)
                await eventually(lambda: len(well.asked) >= 5)
                assert hangs.most_open == 2  # a quarter; the end of each is a minute away
                # The only service there is has all places.
                checks.update(hung)
                await eventually(lambda: hangs.open == 8)

    run(main())


def test_what_workers_remember_stands_in_place_of_first_checks():
    async def main() -> None:
        async with instance(BAD) as made:
            rules = QUICK | {"fall": 3}
            said = {"service": "users", "instance": made.url, "up": True, "why": "before"}
            checks = Prober()
            checks.recall(said)  # before anybody asked for it to be checked
            checks.update([target(made.url, **rules)])
            try:
                assert checks.snapshot()[0].state == "up"
                (news,) = await checks.wait_news()
                assert news["why"] == "3 checks in a row failed (status 503)"
                assert [each.why for each in checks.snapshot()[0].history][0].endswith("before")
            finally:
                await checks.close()

    run(main())


@pytest.mark.parametrize("said", [{}, {"up": "yes"}, {"up": True}, {"up": True, "gone": True}])
def test_memories_of_nobody_change_nothing(said):
    async def main() -> None:
        async with instance(OK) as made, prober(target(made.url, **QUICK)) as checks:
            checks.recall(said)
            assert checks.snapshot()[0].state == "unknown"

    run(main())


def test_first_checks_wait_for_what_workers_remember():
    async def main() -> None:
        async with (
            instance(OK) as made,
            prober(target(made.url), settle_s=0.25, clock=lambda: 100.0) as checks,
        ):
            (watched,) = checks._watched.values()
            assert 100.25 <= watched.due <= 101.0

    run(main())


def test_first_checks_of_many_instances_do_not_fire_together():
    async def main() -> None:
        checks = Prober()
        many = [target(f"http://127.0.0.1:{port}") for port in range(1000, 3000)]
        checks.update(many, now=10_000_000.0)
        due = sorted(watched.due - 10_000_000.0 for watched in checks._watched.values())
        assert due[0] >= 0.0
        assert due[-1] <= 1.0
        assert all(due[at + 400] - due[at] > 0.1 for at in range(0, 1600, 100))
        await checks.close()

    run(main())


def test_a_check_that_we_were_too_late_for_says_nothing():
    async def main() -> None:
        stalls = 2

        async def script(asked: Asked) -> None:
            nonlocal stalls
            if stalls:
                stalls -= 1
                time.sleep(0.6)  # the whole process is held up, prober and all
            await asked.say(OK)

        async with instance(script) as made, prober() as checks:
            checks.update([target(made.url, every_s=0.02, timeout_s=0.1)])
            (news,) = await checks.wait_news()
            assert news["up"]
            assert len(made.asked) >= 3
            assert checks.snapshot()[0].failures == 0

    run(main())


def test_being_late_again_and_again_is_no_excuse():
    async def main() -> None:
        async def script(asked: Asked) -> None:
            time.sleep(0.5)

        async with instance(script) as made, prober() as checks:
            checks.update([target(made.url, every_s=0.02, timeout_s=0.1)])
            (news,) = await checks.wait_news()
            assert not news["up"]
            assert len(made.asked) >= 3

    run(main())


# ---- a real instance that is stopped, killed and started again

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""


def start_server(port: int = 0) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = int(process.stdout.readline())
    process.stdout.close()
    return process, found


def test_a_process_that_is_stopped_killed_and_started_again_is_followed():
    process, port = start_server()

    async def main() -> None:
        nonlocal process
        rules = QUICK | {"timeout_s": 1.0, "body": "ok"}
        async with prober(target(f"http://127.0.0.1:{port}", **rules)) as checks:
            assert (await checks.wait_news())[0]["up"]
            os.kill(process.pid, signal.SIGSTOP)
            *_, news = await checks.wait_news(2)
            assert news["why"] == "a check failed (timed out after 1s, no response)"
            os.kill(process.pid, signal.SIGCONT)
            assert (await checks.wait_news(3))[-1]["up"]
            process.kill()
            process.wait()
            assert not (await checks.wait_news(4))[-1]["up"]
            process, _ = await asyncio.to_thread(start_server, port)
            assert (await checks.wait_news(5))[-1]["up"]
            # While it died, one check may have been cut off and the next one refused.
            assert checks.snapshot()[0].last_why == "status 200"

    try:
        run(main())
    finally:
        process.kill()
        process.wait()


# ---- for the admin API


def test_the_snapshot_says_what_an_operator_asks():
    async def main() -> None:
        async with instance(OK) as well, instance(BAD) as ill:
            targets = [target(ill.url, "b", every_s=60.0), target(well.url, "a", every_s=60.0)]
            async with prober(*targets) as checks:
                waiting = checks.snapshot()[0]
                assert (waiting.state, waiting.up, waiting.last_ok) == ("unknown", True, None)
                await checks.wait_news(2)
                up, down = checks.snapshot()
                assert (up.service, up.instance, up.kind) == ("a", well.url, "http")
                assert (up.state, up.up, up.why) == ("up", True, "the first check passed")
                assert (up.last_why, up.checks, up.failures) == ("status 200", 1, 0)
                assert 0.0 < up.last_ms < 5000.0
                assert up.next_in_s is not None
                assert 0.0 <= up.next_in_s <= 66.0
                assert abs(up.since - time.time()) < 30
                assert (down.state, down.up, down.failures) == ("down", False, 1)
                assert down.in_words.startswith(
                    "down since less than 1 s: the first check failed (status 503), "
                    "up after 2 that pass, next check in "
                )
                (change,) = down.history
                assert (change.was, change.became) == ("unknown", "down")
                assert change.at == pytest.approx(down.since, abs=0.01)
                asdict(down)  # it can be sent as it is

    run(main())


def test_during_a_check_no_next_one_is_named():
    async def main() -> None:
        async with instance(Asked.until_gone) as made, prober(target(made.url)) as checks:
            await eventually(lambda: made.open)
            assert checks.snapshot()[0].next_in_s is None

    run(main())


# ---- from the plan


def plan_targets(**users: Any) -> list[Target]:
    document = {
        "listeners": [{"bind": "127.0.0.1:8080"}],
        "services": {
            "users": {"instances": ["http://127.0.0.1:3001", "unix:/run/u.sock"], **users},
            "orders": ["http://127.0.0.1:3002"],
        },
        "routes": [{"match": {"path": "/"}, "to": "users"}],
    }
    return targets_of(build(from_document(document)))


def test_every_instance_of_a_service_with_checks_is_a_target():
    found = plan_targets(health={"path": "/ready", "every": "5s", "status": "200-299"}, http="2")
    assert [each.instance for each in found] == ["http://127.0.0.1:3001", "unix:/run/u.sock"]
    assert {each.service for each in found} == {"users"}
    rules = found[0].rules
    assert (rules.path, rules.every_s, rules.statuses) == ("/ready", 5.0, ((200, 299),))
    assert found[0].is_h2
    assert plan_targets() == []


@pytest.mark.parametrize(
    ("service", "health", "authority"),
    [
        ({}, {}, "127.0.0.1:3001"),
        ({"host": "instance"}, {}, "127.0.0.1:3001"),
        ({"host": "users.internal"}, {}, "users.internal"),
        ({"host": "users.internal"}, {"host": "check.internal"}, "check.internal"),
        ({}, {"port": 9000}, "127.0.0.1:9000"),
    ],
)
def test_checks_bring_the_host_that_requests_bring(service, health, authority):
    (first, _) = plan_targets(health={"path": "/", **health}, **service)
    assert first.authority == authority
