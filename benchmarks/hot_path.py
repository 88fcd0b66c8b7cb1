"""What Python costs on the request path: one GET through both rims, without a socket.

    python -m benchmarks.hot_path [requests]

The transports only keep what is written, so the figure is the data plane's own work: what is left
of a request's time when the kernel and the event loop are taken away. It is CPU time, so that other
work on the machine does not count, but what that does to the processor's caches still shows. Run it
before and after touching the request path, in turns.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import random
import re
import sys
import tempfile
from pathlib import Path
from time import thread_time
from typing import Any

from benchmarks.credentials import AUDIENCE, ISSUER, Credentials, make_credentials
from headgate.config import from_document
from headgate.control.worker_main import GC_THRESHOLDS
from headgate.gateway.access_log import AccessLog
from headgate.gateway.caching.caching import Caching
from headgate.gateway.compile import compile_plan
from headgate.gateway.downstream_h1 import DownstreamH1
from headgate.gateway.entrance import Entrance
from headgate.gateway.filters import Filter, Request
from headgate.gateway.listener import Listener
from headgate.gateway.log_text import Hidden
from headgate.gateway.parts import WorkerParts
from headgate.gateway.pool import Pool, PoolSizes
from headgate.gateway.route import RouteRuntime
from headgate.gateway.service import ServiceRuntime
from headgate.gateway.site import Site
from headgate.gateway.states import States
from headgate.gateway.tracing import KeptTraces, Tracing
from headgate.gateway.upstream_h1 import UpstreamH1
from headgate.observe import WorkerStats
from headgate.observe.tracing.rules import TracingRules
from headgate.plan.build import build
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.wheel import Wheel

REQUEST = b"GET /abc HTTP/1.1\r\nHost: 127.0.0.1:18080\r\n\r\n"
BROWSER = (
    b"GET /api/items/%d?page=%d&size=20 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 "
    b"(X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Cookie: session=%032x\r\nReferer: https://shop.example/\r\nConnection: keep-alive\r\n\r\n"
)
ITEM = re.compile(rb"/api/items/")
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 14:48:54 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 34\r\nConnection: keep-alive\r\n\r\n"
    b"hello world, this is a small body\n"
)


class Look(Filter):
    """The least that a policy does."""

    def on_request(self, request: Request) -> None:
        request.state["agent"] = request.headers.get("user-agent")


class Sink:
    """A transport that keeps the last write."""

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 5) if name == "peername" else None

    def set_write_buffer_limits(self, *_: int) -> None: ...


def make(
    log: str = "off",
    *,
    policies: bool = False,
    plugin: bool = False,
    traffic: bool = False,
    cache: bool = False,
    jwks_file: Path | None = None,
    tracing: float | None = None,
) -> tuple[DownstreamH1, UpstreamH1, Sink, Sink]:
    document = {
        "listeners": [{"bind": "127.0.0.1:18080"}],
        "services": {"up": {"instances": ["http://127.0.0.1:19090"]}},
        "routes": [{"match": {"path": "/"}, "to": "up"}],
        "access_log": {"format": log, "path": "/dev/null"},
    }
    if cache:
        document["cache"] = {"ttl": "1h", "key": {"query": "none"}}
    if traffic:
        document["limit"] = {"rate": "1000000/s", "by": "ip"}
        document["breaker"] = True
        document["retry"] = 3
    if jwks_file is not None:
        jwt = {"issuer": ISSUER, "audience": AUDIENCE, "keys_file": str(jwks_file)}
        document["auth"] = {"default": "jwt", "jwt": jwt}
        document["allow"] = {"roles": "user", "methods": "GET"}
        document["limit"] = {"rate": "1000000/s", "by": "user"}
    if policies:
        document["headers"] = {
            "request": {"set": {"x-tier": "gold"}},
            "response": {"set": {"x-frame-options": "DENY"}, "remove": ["server"]},
        }
    if plugin:
        document["plugins"] = [{"use": "benchmarks.hot_path:Look"}]
    config = from_document(document)
    plan = build(config)
    stats = WorkerStats("bench", "0")
    wheel = Wheel(0.0)
    access_log = AccessLog(config.access_log, stats.log)
    pool = Pool(
        "up", "up", PoolSizes(), stats.instance("up", "up"), None, lambda work: work.close()
    )  # type: ignore[arg-type]
    rng = random.Random(1)
    states = States(rng, lambda: None, lambda: None)
    states.take_services(plan, 0.0)
    states.services["up"].line_of["http://127.0.0.1:19090"] = pool
    service = ServiceRuntime(plan.services["up"], states.services["up"])
    compiled = compile_plan(plan)
    entrance = Entrance(WorkerParts(lambda work: work.close(), lambda: None))  # type: ignore[attr-defined]
    entrance.take(plan, compiled, entrance.ready(plan, compiled), 0.0)
    parts = compiled.routes
    entries = [entrance.steps(*pair) for pair in zip(plan.routes, parts, strict=True)]
    traffics = states.take_routes(plan, {"up": service}, 0.0, entries)
    caching = Caching(lambda work: work.close(), lambda topic, message: None)  # type: ignore[attr-defined]
    caching.resize(1 << 26)
    routes = tuple(
        RouteRuntime(
            route,
            service,
            part.chain,
            stats,
            traffic,
            caching.begins(route, part.chain, traffic, None, frozenset()),
        )
        for route, part, traffic in zip(plan.routes, parts, traffics, strict=True)
    )
    spawn = None
    traced = None
    if tracing is not None:
        traced = Tracing(TracingRules(sample=tracing), KeptTraces(), Hidden(()))
    site = Site(  # type: ignore[arg-type]
        plan, plan.listeners[0], routes, stats, access_log, {}, spawn, rng, tracing=traced
    )
    listener = Listener("b", site, wheel, stats.listener("b"), stats, None, spawn)  # type: ignore[arg-type]
    down, up = DownstreamH1(listener), UpstreamH1(pool, wheel, HeadCache(), HeadLimits())
    client, instance = Sink(), Sink()
    down.connection_made(client)  # type: ignore[arg-type]
    up.connection_made(instance)  # type: ignore[arg-type]
    pool.open = 1
    pool.give(up)
    return down, up, client, instance


def run(
    count: int,
    log: str = "off",
    *,
    unique: bool = False,
    same_client: bool = False,
    policies: bool = False,
    plugin: bool = False,
    traffic: bool = False,
    cache: bool = False,
    tracing: float | None = None,
    users: int = 1,
    credentials: Credentials | None = None,
) -> float:
    """Microseconds a request: the best of several stretches, as noise only ever adds.

    `unique`: every head differs, by target and cookie, or with `same_client` by target alone.
    `users` show their tokens in turn, where there are `credentials`.
    """
    jwks_file = credentials.jwks_file if credentials is not None else None
    down, up, client, instance = make(
        log,
        policies=policies,
        plugin=plugin,
        traffic=traffic,
        cache=cache,
        jwks_file=jwks_file,
        tracing=tracing,
    )
    shown: list[bytes] = []
    if credentials is not None:
        shown = [
            b"Authorization: Bearer %b\r\n\r\n" % token.encode()
            for token in credentials.tokens[:users]
        ]
    ask, answer = down.data_received, up.data_received
    best = float("inf")
    is_held = False
    stretch, portion = 2_000, 100
    for turn in range(count // stretch):
        took = 0.0
        for first in range(turn * stretch, (turn + 1) * stretch, portion):
            numbers = range(first, first + portion)
            # A few at a time, because what a socket gives is hot in the caches, too.
            requests = [
                BROWSER % (n, n, 1 if same_client else n) if unique else REQUEST for n in numbers
            ]
            if cache:
                requests = [ITEM.sub(b"/api/item?n=", request) for request in requests]
            if shown:
                requests = [
                    request[:-2] + shown[n % users]
                    for n, request in zip(numbers, requests, strict=True)
                ]
            began = thread_time()
            if cache:
                # The first asks the instance; the rest is answered without it.
                for request in requests:
                    ask(request)
                    if not is_held:
                        is_held = True
                        answer(RESPONSE)
            else:
                for request in requests:
                    ask(request)
                    answer(RESPONSE)
            took += thread_time() - began
        best = min(best, took / stretch)
    if b"HTTP/1.1 200 OK" not in client.last or b" HTTP/1.1" not in instance.last:
        raise SystemExit(f"not proxied: {client.last!r} {instance.last!r}")
    return best * 1e6


_USERS = 200

CASES: dict[str, dict[str, Any]] = {
    "bare": {},
    "JSON access log": {"log": "json"},
    "limit, breaker, retries": {"traffic": True},
    "header policy": {"policies": True},
    "header policy and a plugin": {"policies": True, "plugin": True},
    "both, and a plugin": {"policies": True, "plugin": True, "traffic": True},
    "JWT (RS256), roles, limit by user": {"tokens": True},
    "all of it, JSON access log": {
        "tokens": True,
        "policies": True,
        "traffic": True,
        "log": "json",
    },
    "all of it, 200 users in turn": {
        "tokens": True,
        "users": _USERS,
        "policies": True,
        "traffic": True,
        "log": "json",
    },
    "answered from the cache": {"cache": True},
    "the same, header policy and JSON access log": {"cache": True, "policies": True, "log": "json"},
    "bare, traces of 1 %": {"tracing": 0.01},
    "JSON access log, traces of 1 %": {"log": "json", "tracing": 0.01},
    "limit, breaker, retries, traces of 1 %": {"traffic": True, "tracing": 0.01},
    "answered from the cache, traces of 1 %": {"cache": True, "tracing": 0.01},
    "every target different": {"unique": True, "same_client": True},
    "every head different": {"unique": True},
    "every head different, traces of 1 %": {"unique": True, "tracing": 0.01},
    "every head different, JSON access log": {"unique": True, "log": "json"},
    "every head different, all of it": {"unique": True, "policies": True, "log": "json"},
    "every head different, from the cache": {"unique": True, "cache": True},
    "every head different, JWT and roles": {"unique": True, "tokens": True},
    "every head different, 200 users, all of it": {
        "unique": True,
        "tokens": True,
        "users": _USERS,
        "policies": True,
        "traffic": True,
        "log": "json",
    },
}


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as in a worker
    with tempfile.TemporaryDirectory() as folder:
        credentials = make_credentials(Path(folder), users=_USERS)
        for name, how in CASES.items():
            shown = {"credentials": credentials} if how.pop("tokens", False) else {}
            print(f"{name:44} {run(count, **how, **shown):6.2f} us a request")
    if "--profile" in sys.argv:
        how = CASES[list(CASES)[int(sys.argv[-1])]]
        profile = cProfile.Profile()
        profile.runcall(run, count, **how)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    asyncio.run(main())
