"""What matching a route costs, and that it does not grow with the number of routes.

    python -m benchmarks.router_match

Prints nanoseconds per match for tables of 10 to 10,000 routes. "same ten" asks for ten of the
routes again and again: that is what the router itself does, whatever the size. "all" spreads
the requests over all routes at random: what it grows by is the processor's cache, as every
route's objects come from memory. Counts are interleaved and the best of all rounds is kept.

Rounds are many and short, because whatever else runs on the machine empties the caches that all of
them share: with a few rounds the ratio says more about the neighbours than about the router.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

from headgate.config.routes import MatchSpec
from headgate.plan.router import Matched, MatchInput, Router, rule_from_spec

COUNTS = (10, 100, 1_000, 10_000)
REQUESTS = 512
ROUNDS = 200

# How a route is written, and a request that it takes.
KINDS: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[int], tuple[str, str]]]] = {
    "exact": (
        lambda i: {"exact": f"/api/service-{i}/status"},
        lambda i: ("h.example", f"/api/service-{i}/status"),
    ),
    "prefix": (
        lambda i: {"path": f"/api/service-{i}/"},
        lambda i: ("h.example", f"/api/service-{i}/items/7"),
    ),
    "template": (
        lambda i: {"path": f"/api/service-{i}/users/{{id:int}}"},
        lambda i: ("h.example", f"/api/service-{i}/users/42"),
    ),
    "regex": (
        lambda i: {"regex": rf"/api/service-{i}/v[0-9]+/.*"},
        lambda i: ("h.example", f"/api/service-{i}/v2/items"),
    ),
    "many hosts": (
        lambda i: {"host": f"host-{i}.example", "path": "/api/"},
        lambda i: (f"host-{i}.example", "/api/items/7"),
    ),
    "many wildcards": (
        lambda i: {"host": f"*.host-{i}.example", "path": "/api/"},
        lambda i: (f"www.host-{i}.example", "/api/items/7"),
    ),
    "one path, by header": (
        lambda i: {"path": "/api/", "headers": {"x-tenant": f"t{i}"}},
        lambda i: ("h.example", f"/api/items/{i}"),
    ),
    "no route": (
        lambda i: {"path": f"/api/service-{i}/"},
        lambda i: ("h.example", f"/other/service-{i}/items/7"),
    ),
}


def prepare(kind: str, count: int, asked: int) -> tuple[Router, list[MatchInput]]:
    write, ask = KINDS[kind]
    rules = [rule_from_spec(MatchSpec(**write(i)), i, str(i), 0) for i in range(count)]
    rng = random.Random(count)
    some = rng.sample(range(count), asked)
    picked = [rng.choice(some) for _ in range(REQUESTS)]
    requests = []
    for i in picked:
        host, path = ask(i)
        headers = ((b"accept", b"*/*"), (b"x-tenant", b"t%d" % i))
        requests.append(MatchInput("GET", host, path, "", headers, "127.0.0.1"))
    router = Router(rules)
    for i, request in zip(picked, requests, strict=True):
        answer = router.match(request)
        index = answer.index if isinstance(answer, Matched) else None
        if index != (None if kind == "no route" else i):
            sys.exit(f"{kind}: {request!r} got {answer!r}, not route {i}")
    return router, requests


def measure(kind: str, asked: int | None) -> list[float]:
    prepared = [prepare(kind, count, asked or count) for count in COUNTS]
    best = [float("inf")] * len(COUNTS)
    for _ in range(ROUNDS):
        for at, (router, requests) in enumerate(prepared):
            match = router.match
            started = thread_time_ns()
            for request in requests:
                match(request)
            best[at] = min(best[at], (thread_time_ns() - started) / len(requests))
    return best


def main() -> None:
    heads = "".join(f"{count:>10,}" for count in COUNTS)
    print(f"{'ns per match':22}{'asked for':10}{heads}{'ratio':>9}")
    for kind in KINDS:
        for words, asked in (("same ten", 10), ("all", None)):
            times = measure(kind, asked)
            cells = "".join(f"{time:10.0f}" for time in times)
            print(f"{kind:22}{words:10}{cells}{times[-1] / times[0]:9.2f}")


if __name__ == "__main__":
    main()
