"""What the guards cost a request: bans, lists of addresses, classes of bots.

    python benchmarks/guard_costs.py

Each figure is the best of five rounds, the cost of the loop taken off. Also how much memory the
counts of an attack from very many addresses take.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from headgate.security.addresses import Addresses, AddressRules
from headgate.security.agents import Agents
from headgate.security.ban_rules import DEFAULT_RULES, BanRules
from headgate.security.bans import Bans
from headgate.security.bots import BotRules, Bots

ROUNDS = 5
CHROME = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/126.0.0.0 Safari/537.36"
)
BROWSER = (
    (b"user-agent", CHROME),
    (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"sec-fetch-site", b"none"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-ch-ua", b'"Chromium";v="126"'),
    (b"cookie", b"session=0123456789abcdef"),
    (b"cache-control", b"max-age=0"),
)


@dataclass
class Shown:
    headers: tuple[tuple[bytes, bytes], ...]
    method: str = "GET"
    target: str = "/"
    path: str = "/"
    query: str = ""
    host: str = "shop.example"
    authority: str = "shop.example"
    client_ip: str = "198.51.100.1"
    is_tls: bool = True
    certificate: bytes | None = None


def once_s(function: Callable[[], object], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(count):
            function()
        best = min(best, time.perf_counter() - start)
    return best


def show(name: str, call: Callable[[], object], count: int = 100_000) -> None:
    cost_s = max(0.0, once_s(call, count) - once_s(lambda: None, count)) / count
    print(f"{name:58} {cost_s * 1e9:8.0f} ns")


def show_bans() -> None:
    now = time.monotonic()
    bans = Bans(BanRules(rules=DEFAULT_RULES), now)
    show("bans: nobody is banned", lambda: bans.check("198.51.100.1", now))
    for number in range(10_000):
        bans.ban(f"9.0.{number >> 8}.{number & 255}", 60, "noise", "attacks", now)
    show("bans: 10,000 are, IPv4", lambda: bans.check("198.51.100.1", now))
    show("bans: 10,000 are, IPv6", lambda: bans.check("2001:db8::1", now))
    show("bans: refused", lambda: bans.check("9.0.1.1", now))
    bans.ban("203.0.113.0/24", 60, "noise", now=now)
    show("bans: a network is too, IPv4", lambda: bans.check("198.51.100.1", now))
    show("bans: one more is counted", lambda: bans.saw("198.51.100.1", "status_404", 1e-6, now))
    tracemalloc.start()
    counting = Bans(BanRules(rules=DEFAULT_RULES), now)
    for number in range(100_000):
        counting.saw(str(IPv4Address(0x09000000 + number)), "status_404", now=now)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{'bans: memory of 100,000 addresses that are counted':58} {used / 2**20:8.1f} MB")


def show_addresses() -> None:
    rng = random.Random(1)
    networks: set[str] = set()
    while len(networks) < 100_000:
        prefix = rng.randint(16, 32)
        number = rng.getrandbits(32) >> (32 - prefix) << (32 - prefix)
        networks.add(str(IPv4Network((number, prefix))))
    asked = [str(IPv4Address(rng.getrandbits(32))) for _ in range(200_000)]
    start = time.perf_counter()
    guard = Addresses(AddressRules(deny=tuple(networks)))
    print(f"{'addresses: 100,000 networks are taken in':58} {time.perf_counter() - start:8.2f} s")
    turn = iter(asked * ROUNDS * 2)
    show("addresses: asked for the first time", lambda: guard.check(next(turn)))
    show("addresses: asked again", lambda: guard.check(asked[0]))


def show_bots() -> None:
    bots = Bots(BotRules())
    agents = Agents()
    browser = Shown(BROWSER)
    bare = Shown(BROWSER[:3])
    tool = Shown(((b"user-agent", b"curl/8.5.0"), (b"accept", b"*/*")))
    show("bots: a browser with 10 headers", lambda: bots.check(browser, 0.0))
    show("bots: a browser that lacks some", lambda: bots.check(bare, 0.0))
    show("bots: a tool", lambda: bots.check(tool, 0.0))
    turn = iter(range(10**9))
    show("bots: a User-Agent is read", lambda: agents.find(CHROME + b" %d" % next(turn)), 20_000)


if __name__ == "__main__":
    show_bans()
    show_addresses()
    show_bots()
