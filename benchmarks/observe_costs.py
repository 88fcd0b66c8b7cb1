"""What observing a request costs: prints nanoseconds for each operation of the hot path.

    python benchmarks/observe_costs.py

Each figure is the best of five rounds, the cost of the loop taken off.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from headgate.config.model import AccessLogSpec
from headgate.config.policies import CompressSpec, HeadersSpec
from headgate.gateway.access_log import AccessLog
from headgate.gateway.filters.base import FilterContext, Headers, Request, Response
from headgate.gateway.filters.chain import build_chain
from headgate.gateway.filters.compress import Compress
from headgate.gateway.filters.headers import header_filters
from headgate.gateway.log_format import combined_format, json_format
from headgate.observe import Carried, LogStats, WorkerStats, merge, to_prometheus
from headgate.wire.message import RequestHead

ROUNDS = 5


def cost_ns(call: Callable[[], object], count: int = 100_000) -> float:
    def empty() -> None:
        return None

    def once(function: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(count):
                function()
            best = min(best, time.perf_counter() - start)
        return best

    return max(0.0, once(call) - once(empty)) / count * 1e9


def show(name: str, call: Callable[[], object], count: int = 100_000, per: int = 1) -> None:
    print(f"{name:58} {cost_ns(call, count) / per:10.0f} ns")


HEADERS = (
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/130.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://shop.example/list?page=2&token=abc"),
    (b"cookie", b"session=0123456789abcdef0123456789abcdef"),
)
HEAD = RequestHead(
    "GET", "shop.example", "shop.example", "/api/users/42", "page=2", HEADERS, has_query=True
)


def ended(head: RequestHead = HEAD) -> tuple[Any, Any, float, float, bytes, bool]:
    """What a formatter is given of a request that is over."""
    ex = SimpleNamespace(
        status=200, bytes_in=0, bytes_out=512, attempts=1, upstream_s=0.0112, connect_s=-1.0,
        client_ip="192.0.2.7", instance="127.0.0.1:3001", service=SimpleNamespace(name="users"),
        request_id=b"5f0c1d2e3f405162738495a6b7c8d9e0", own_id=b"5f0c" * 8, error=None,
        identity=SimpleNamespace(subject="ann"), down=SimpleNamespace(tls_version="TLSv1.3"),
        response_headers=(),
    )  # fmt: skip
    asked = SimpleNamespace(told_head=head, route=SimpleNamespace(name="users"), lines=None)
    return asked, ex, 1_760_000_000.125, 0.012345, b"4bf92f3577b34da6a3ce929d0e0e4736", False


def metrics() -> None:
    stats = WorkerStats("worker-0", "1")
    route = stats.route("users", "users")
    show("RouteStats.record", lambda: route.record("GET", 200, 0.0123, 0.0112, 0, 512))
    many = [WorkerStats(f"worker-{i}", "1") for i in range(4)]
    for worker in many:
        for n in range(1000):
            one = worker.route(f"route-{n}", f"service-{n % 50}")
            for k in range(30):
                one.record("GET", 200 if k % 5 else 404, 0.0001 * 1.3**k, 0.0001 * k, 10, 100)
    snapshots = [worker.snapshot() for worker in many]
    text = json.dumps(snapshots[0])
    print(f"{'  a snapshot of 1,000 routes as JSON':58} {len(text) / 1e6:10.2f} MB")
    show("WorkerStats.snapshot of 1,000 routes", many[0].snapshot, 10)
    show("  as JSON", lambda: json.dumps(snapshots[0]), 5)
    show("  read again", lambda: json.loads(text), 5)
    show("merge of 4 workers of 1,000 routes", lambda: merge(snapshots), 3)
    carried = Carried()
    for snapshot in snapshots:
        carried.take(snapshot)
    merged = carried.merged()
    show("to_prometheus of 1,000 routes", lambda: to_prometheus(merged), 3)


def access_log() -> None:
    redact = AccessLogSpec().redact
    one = ended()
    for name, lines in (
        ("JSON, all fields", json_format(None, redact, 0)),
        ("JSON, eight fields", json_format(
            ("time", "client_ip", "method", "path", "status", "bytes_out", "duration_ms", "route"),
            redact, 0)),
        ("combined", combined_format(redact)),
    ):  # fmt: skip
        show(f"a line, {name}", partial(lines, *one))
    log = AccessLog(AccessLogSpec(path="/dev/null"), LogStats())
    asked, ex, _, duration_s, trace_id, is_kept = one
    show("AccessLog.add", lambda: log.add(asked, ex, duration_s, trace_id, is_kept))
    log.close(1)
    fresh = [
        ended(
            RequestHead(
                "GET",
                "shop.example",
                "shop.example",
                f"/u/{n}",
                "page=2&token=x",
                HEADERS,
                has_query=True,
            )
        )
        for n in range(2048)
    ]
    lines = json_format(None, redact, 0)

    def each_once() -> None:
        for given in fresh:
            given[0].lines = None
            lines(*given)

    show("a line, JSON, all fields, every head new", each_once, 5, len(fresh))
    fields = {"time": "2026-03-01T12:00:00.123Z"} | dict.fromkeys(
        "abcdefghijklmnopqrstuvw", "some text"
    )
    show("  (json.dumps of 24 fields, to compare)", lambda: json.dumps(fields), 20_000)


def filters() -> None:
    context = FilterContext("users", "users")

    def request() -> Request:
        return Request(
            "GET", "/api/users/42", "page=2", Headers(HEADERS), "192.0.2.7", True, "5f0c", "users",
            "users", {"id": "42"},
        )  # fmt: skip

    base = cost_ns(request)
    print(f"{'making a Request with 6 fields':58} {base:10.0f} ns")

    def chained(name: str, spec: HeadersSpec) -> None:
        chain = build_chain(header_filters(spec, context))
        assert chain is not None
        print(f"{name:58} {cost_ns(lambda: chain.run_request(request())) - base:10.0f} ns")

    chained(
        "headers: add two",
        HeadersSpec.model_validate({"request": {"add": {"x-a": "1", "x-b": "2"}}}),
    )
    chained(
        "headers: remove one, set two",
        HeadersSpec.model_validate(
            {"request": {"remove": ["cookie"], "set": {"x-a": "1", "x-b": "2"}}}
        ),
    )
    chained(
        "headers: set one from {client_ip} and {param.id}",
        HeadersSpec.model_validate({"request": {"set": {"x-a": "{client_ip}/{param.id}"}}}),
    )
    compress = Compress(CompressSpec(), context)
    made = (
        (b"content-type", b"application/json; charset=utf-8"),
        (b"date", b"Sun, 01 Mar 2026 12:00:00 GMT"),
        (b"etag", b'"abc"'),
    )
    body = json.dumps([{"id": n, "name": f"item {n}"} for n in range(100)]).encode()

    def passed_by() -> None:
        compress.on_response(asked, Response(200, Headers(made), 100))

    def compressed() -> None:
        answer = Response(200, Headers(made), len(body))
        compress.on_response(asked, answer)
        compress.on_response_body(asked, answer, body, True)

    asked = request()
    show("compress: a response too small for it", passed_by)
    for coding in (b"zstd", b"br", b"gzip"):
        asked = request()
        asked.headers.replace(b"accept-encoding", coding)
        show(f"compress: {len(body)} bytes of JSON with {coding.decode()}", compressed, 2_000)


if __name__ == "__main__":
    metrics()
    access_log()
    filters()
