"""What choosing an instance costs: `python -m benchmarks.balancers [--sizes 3,10,100,1000]`.

A row is an algorithm, a column a number of members. A cell is `pick`, `started` and `finished` of
one request together, in nanoseconds, with about two requests a member in flight and the loop's own
cost taken off; the best of several runs, because what else runs only adds to it. Below are the costs of what is rare: working the pools
out after a member went out, and a reload that adds one.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from random import Random
from typing import Final, get_args

from headgate.policy.balancer import BalanceBy, BalanceRules, Group, Member, MemberSpec, hash_key

_KEYS: Final = [hash_key(b"user-%d" % number) for number in range(4096)]
_MOST_IN_FLIGHT: Final = 256


def specs(size: int, weights: int) -> list[MemberSpec]:
    return [
        MemberSpec(f"http://10.0.{at // 250}.{at % 250}:8080", 1 + at % weights)
        for at in range(size)
    ]


def request_ns(by: BalanceBy, size: int, weights: int, requests: int, runs: int) -> float:
    group = Group(BalanceRules(by=by), specs(size, weights), 0.0, Random(1))
    flying: deque[Member] = deque()
    for at in range(min(2 * size, _MOST_IN_FLIGHT)):
        member = group.pick(0.0, _KEYS[at % 4096])
        assert member is not None
        group.started(member)
        flying.append(member)
    pick, started, finished = group.pick, group.started, group.finished
    take, put = flying.popleft, flying.append
    all_s, loops_s = [], []
    for _ in range(runs):
        begun = time.perf_counter()
        now = 0.0
        for at in range(requests):
            now += 0.0001
            key = _KEYS[at & 4095]
            chosen = pick(now, key)
            started(chosen)  # type: ignore[arg-type]
            put(chosen)  # type: ignore[arg-type]
            finished(take(), 0.005, False, now)
        all_s.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        now = 0.0
        for at in range(requests):
            now += 0.0001
            key = _KEYS[at & 4095]
            put(flying[0])
            take()
        loops_s.append(time.perf_counter() - begun)
    return (min(all_s) - min(loops_s)) / requests * 1e9


def rebuild_ms(by: BalanceBy, size: int) -> tuple[float, float]:
    listed = specs(size, 1)
    rules = BalanceRules(by=by)
    group = Group(rules, listed, 0.0, Random(1))
    group.pick(0.0, 1)
    outs, joins = [], []
    for at in range(min(5, size)):
        begun = time.perf_counter()
        group.set_usable(listed[at].id, False, "slow", 0.0)
        group.pick(0.0, 1)
        outs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        group.update(rules, [*listed, MemberSpec(f"http://joined-{at}")], 0.0)
        group.pick(0.0, 1)
        joins.append(time.perf_counter() - begun)
    return min(outs) * 1e3, min(joins) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="3,10,100,1000")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=11)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    head = "".join(f"{size:>10}" for size in sizes)
    for weights, title in ((1, "equal weights"), (5, "weights 1 to 5")):
        print(f"{'a request, ns; ' + title:36}{head}")
        for by in get_args(BalanceBy):
            cells = [request_ns(by, size, weights, given.requests, given.runs) for size in sizes]
            print(f"  {by:34}" + "".join(f"{cell:10.0f}" for cell in cells))
    print(f"{'one out | one joined, ms':36}{head}")
    for by in get_args(BalanceBy):
        pairs = [rebuild_ms(by, size) for size in sizes]
        print(f"  {by:30}" + "".join(f"{out:6.2f}|{join:5.2f}" for out, join in pairs))
    begun = time.perf_counter()
    for _ in range(given.requests):
        hash_key(b"198.51.100.7")
    print(f"{'hash_key, ns':36}{(time.perf_counter() - begun) / given.requests * 1e9:10.0f}")


if __name__ == "__main__":
    main()
