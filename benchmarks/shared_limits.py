"""What asking a shared home costs: `python -m benchmarks.shared_limits [--redis URL] [--seconds 1]`.

A row is a home, a column how many requests ask in one turn of the loop, each for one key. A cell is
microseconds an ask: how long it takes until all are answered, divided by their number, and beside it
the processor time that this process spent on each. The hub is a process of its own, as control is;
Redis is started on a free port unless a URL is given. `leased` is what a request pays on most
hits: the lease covers it and nobody is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator

import uvloop

from headgate.control.channel import Channel, Message
from headgate.control.shared import Shared
from headgate.policy.limiter.lease import Ask, Grant, LeaseRules, leased_of
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import LimitAsk, LimitHome
from headgate.state.hub import HubShared
from headgate.state.memory import MemoryShared
from headgate.state.redis import RedisShared

AT_ONCE = (1, 10, 50, 200)
RULES = {
    "gcra": LimitRules(limit=10**9, period_s=60.0),
    "fixed_window": LimitRules(limit=10**9, period_s=60.0, algorithm="fixed_window"),
    "sliding_window": LimitRules(limit=10**9, period_s=60.0, algorithm="sliding_window"),
    "sliding_log": LimitRules(limit=100_000, period_s=60.0, algorithm="sliding_log"),
    "concurrency": LimitRules(limit=10**9, algorithm="concurrency"),
}


class Link:
    """What `Shared` asks of a worker's link."""

    def __init__(self, life: str) -> None:
        self.life = life
        self.channel: Channel


def be_control(fd: int) -> None:
    async def main() -> None:
        shared = Shared()
        shared.start(asyncio.get_running_loop())
        link = Link("worker")
        gone = asyncio.Event()

        def heard(message: Message) -> None:
            shared.heard(link, message)

        link.channel = Channel(socket.socket(fileno=fd), heard, gone.set)
        link.channel.start()
        await gone.wait()
        shared.stop()

    asyncio.run(main())  # control runs on asyncio's own loop


@contextlib.asynccontextmanager
async def hub() -> AsyncIterator[HubShared]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "benchmarks.shared_limits", "--control", str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        home = HubShared(deadline_s=5.0)

        def heard(message: Message) -> None:
            home.heard(message.kind, message.fields)

        link = Channel(ours, heard, home.detach)
        link.start()
        home.attach(link)
        while home.is_away:
            await asyncio.sleep(0.01)
        yield home
        link.close()
        process.wait(10)


@contextlib.asynccontextmanager
async def redis(url: str | None) -> AsyncIterator[RedisShared]:
    process = None
    with tempfile.TemporaryDirectory() as folder:
        if url is None:
            program = shutil.which("redis-server") or shutil.which("valkey-server")
            if program is None:
                raise SystemExit("no Redis: apt-get install redis-server, or give --redis URL")
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
            process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
            url = f"redis://127.0.0.1:{port}/0"
        home = RedisShared(url, deadline_s=5.0)
        try:
            await home.start()
            while home.is_away:
                await asyncio.sleep(0.01)
            yield home
        finally:
            await home.close()
            if process is not None:
                process.terminate()
                process.wait(10)


async def measure(
    home: LimitHome, rules: LimitRules, at_once: int, for_s: float
) -> tuple[float, float]:
    """Microseconds an ask: until answered, and of this process. The best of five parts."""
    asks = [[LimitAsk(rules.algorithm, rules, Ask(f"key-{at}", 1, 1))] for at in range(at_once)]
    found = []
    for _ in range(5):
        rounds = 0
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < for_s / 5:
            if at_once == 1:
                await home.take(asks[0])
            else:
                await asyncio.gather(*[home.take(ask) for ask in asks])
            rounds += 1
        count = rounds * at_once / 1e6
        found.append(((time.perf_counter() - began) / count, (time.process_time() - cpu) / count))
    return min(found)


async def rows(name: str, home: LimitHome, kinds: tuple[str, ...], for_s: float) -> None:
    for kind in kinds:
        cells = []
        for at_once in AT_ONCE:
            took, cpu = await measure(home, RULES[kind], at_once, for_s)
            cells.append(f"{took:8.1f} ({cpu:5.1f})")
        print(f"{name:8} {kind:15}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def leased_us(for_s: float) -> float:
    leased = leased_of(RULES["gcra"], LeaseRules(share=1.0, ttl_s=1e9), 1)
    now = 0.0
    for _ in range(40):  # until the lease is large
        got = leased.hit("key", now)
        if isinstance(got, Ask):
            leased.take(got, Grant(got.want, 10**9, 1.0, 0.0, now), now)
        for ask in leased.wants(now):
            leased.take(ask, Grant(10**8, 10**9, 1.0, 0.0, now), now)
    rounds = 0
    began = time.perf_counter()
    while time.perf_counter() - began < for_s:
        for _ in range(1000):
            leased.hit("key", now)
        rounds += 1000
    return (time.perf_counter() - began) / rounds * 1e6


async def main(url: str | None, for_s: float) -> None:
    print(
        f"{'leased':24}{leased_us(for_s):8.2f} us a hit; below, us an ask (of it in this process)"
    )
    print(f"{'asks at once':24}" + "".join(f"{count:>20}" for count in AT_ONCE))
    await rows("memory", MemoryShared(), ("gcra",), for_s)
    async with hub() as home:
        await rows("hub", home, ("gcra", "sliding_window", "concurrency"), for_s)
    async with redis(url) as there:
        await rows("redis", there, tuple(RULES), for_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--control", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("headgate.state").setLevel(logging.ERROR)  # the hub ends when we are done
    if options.control is not None:
        be_control(options.control)
    else:
        uvloop.run(main(options.redis, options.seconds))
