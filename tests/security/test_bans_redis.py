"""Bans of machines that share a Redis: heard at once, and found again by who comes later."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from headgate.security.ban_rules import BanRule, BanRules
from headgate.security.bans import Bans
from headgate.state.redis import RedisShared
from tests.state.redis_server import RedisServer
from tests.state.test_redis import run, shared, until

pytestmark = pytest.mark.integration

IP = "198.51.100.1"
RULES = BanRules(rules=(BanRule("injections", ("injection",), 8, 60.0, 100.0),))


class Machine:
    """Bans with a Redis for a board."""

    def __init__(self, board: RedisShared, *, tends: bool = False) -> None:
        self.board = board
        self.bans = Bans(RULES, time.monotonic())
        self.bans.attach(self, board.forget if tends else None)

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        work.close()
        return None

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        self.board.publish(topic, message, retain=retain)

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self.board.subscribe(topic, hear)

    def is_out(self, client_ip: str = IP) -> bool:
        return self.bans.check(client_ip, time.monotonic()) is not None


def test_machines_share_bans_lifts_and_counts_and_a_later_one_finds_them(tmp_path: Path):
    server = RedisServer(tmp_path)
    server.start()

    async def main() -> None:
        async with shared(server) as a, shared(server) as b:
            one, other = Machine(a), Machine(b)
            await until(lambda: b":2\r\n" in server.say("PUBSUB", "NUMSUB", "headgate:board"))
            for _ in range(6):
                one.bans.saw(IP, "injection")
            one.bans.sweep(time.monotonic())
            await until(lambda: other.bans.figures()["counted"])
            for _ in range(4):
                other.bans.saw(IP, "injection")
            assert other.is_out()
            await until(one.is_out)
            one.bans.ban("2001:db8::7", 60, "noise")
            one.bans.ban("203.0.113.0/24", 60, "noise")
            await until(lambda: other.is_out("203.0.113.9"))
            assert other.is_out("2001:db8::9")
            assert other.bans.lift("203.0.113.0/24")
            await until(lambda: not one.is_out("203.0.113.9"))
            async with shared(server) as c:
                late = Machine(c, tends=True)
                await until(lambda: late.is_out() and late.is_out("2001:db8::9"))
                assert not late.is_out("203.0.113.9")

                def kept() -> bytes:
                    return server.say("HLEN", "headgate:{board}:retained")

                before = kept()
                late.bans.sweep(time.monotonic() + 4000)  # all of it has ended by then
                await until(lambda: kept() != before)

    try:
        run(main)
    finally:
        server.stop()
