"""What is measured: a table of scenarios, each a proxy's set-up and a client run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.clients.h2load import run_h2load
from benchmarks.clients.open_loop import run_open_loop
from benchmarks.clients.websocket import run_websocket
from benchmarks.clients.wrk import WrkRun, run_wrk
from benchmarks.spec import Measurement, ProxySpec

# Above this the open-loop client itself, sharing a core with the upstream, is what one measures.
_FASTEST_OPEN_LOOP = 25_000.0
_MANY_ROUTES = 10_000


@dataclass(frozen=True, slots=True)
class Ground:
    """What a client run needs to know about this machine and this run."""

    folder: Path
    cores: machine.Cores
    seconds: float
    upstream_port: int
    tokens_file: Path


@dataclass(frozen=True, slots=True)
class Target:
    """The server under measurement: a proxy, or (without traffic processes) the upstream itself."""

    name: str
    port: int
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that Headgate has to show; `number` is its name in the list of targets."""

    number: str
    says: str
    over: str
    "A peer to divide by, or a key of the latencies to compare with `limit`, or `errors`."
    limit: float
    is_at_least: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the report."""

    name: str
    title: str
    unit: str
    run: Callable[[Ground, Target], Measurement]
    spec: ProxySpec = field(default_factory=ProxySpec)
    note: str = ""
    claims: tuple[Claim, ...] = ()
    with_direct: bool = False
    "Also measured without a proxy: the ceiling of client and upstream."
    is_lower_better: bool = False
    peers: tuple[str, ...] = ()
    "Only these, where there are some."
    beside: tuple[str, ...] = ("nginx", "envoy")
    "Peers that the others are divided by."


def metered(
    ground: Ground, target: Target, run: Callable[[], tuple[float, int, int, Mapping[str, float]]]
) -> Measurement:
    """Run a client and read what the proxy's core did meanwhile.

    `run` returns operations per second, operations, errors and latencies. The share of CPU is taken
    over the wall time of the whole client process, start and end included, so that a fraction of a
    per cent is lost; operations per CPU second are computed from counts and do not suffer from it.
    """
    busy_before, stolen_before = machine.cpu_busy(ground.cores.proxy)
    cpu_before = machine.cpu_seconds(target.pids)
    started = time.perf_counter()
    per_second, operations, errors, latency_ms = run()
    took_s = time.perf_counter() - started
    cpu_s = machine.cpu_seconds(target.pids) - cpu_before
    busy, stolen = machine.cpu_busy(ground.cores.proxy)
    others = max(0.0, (busy - busy_before) - cpu_s) + (stolen - stolen_before)
    measured_s = operations / per_second if per_second > 0 else took_s
    return Measurement(
        value=per_second,
        proxy_cpu=cpu_s / max(took_s, measured_s),
        cpu_us=1e6 * cpu_s / operations if operations else 0.0,
        errors=errors,
        operations=operations,
        latency_ms=latency_ms,
        stolen=others / took_s,
    )


def _wrk(
    path: str = "/",
    *,
    script: str | None = None,
    connections: int = 64,
    scheme: str = "http",
    env: Mapping[str, str] | None = None,
) -> Callable[[Ground, Target], Measurement]:
    def run(ground: Ground, target: Target) -> Measurement:
        asked = WrkRun(
            url=f"{scheme}://127.0.0.1:{target.port}{path}",
            seconds=ground.seconds,
            connections=connections,
            script=script,
            env={"BENCH_TOKENS": str(ground.tokens_file), **(env or {})},
        )

        def client() -> tuple[float, int, int, Mapping[str, float]]:
            got = run_wrk(asked, ground.folder, ground.cores.client)
            return got.requests / got.duration_s, got.requests, got.errors, got.latency_ms

        return metered(ground, target, client)

    return run


def _h2load(scheme: str) -> Callable[[Ground, Target], Measurement]:
    def run(ground: Ground, target: Target) -> Measurement:
        url = f"{scheme}://127.0.0.1:{target.port}/"

        def client() -> tuple[float, int, int, Mapping[str, float]]:
            got = run_h2load(url, ground.seconds, ground.cores.client, connections=64, streams=10)
            return got.per_second, got.requests, got.errors, {}

        return metered(ground, target, client)

    return run


def _websocket(ground: Ground, target: Target) -> Measurement:
    def client() -> tuple[float, int, int, Mapping[str, float]]:
        got = run_websocket(target.port, ground.seconds, ground.cores.client)
        latency_ms = {"p50": got.p50_ms, "p99": got.p99_ms}
        return got.messages / got.duration_s, got.messages, got.errors, latency_ms

    return metered(ground, target, client)


def _latency_at(rate: float | None) -> Callable[[Ground, Target], Measurement]:
    """Latency through the proxy minus latency without it, at the same constant rate."""

    def run(ground: Ground, target: Target) -> Measurement:
        at = rate or min(_FASTEST_OPEN_LOOP, _half_load(ground, target))
        client_cpu = ground.cores.client
        direct = run_open_loop(ground.upstream_port, at, ground.seconds, client_cpu)

        def client() -> tuple[float, int, int, Mapping[str, float]]:
            got = run_open_loop(target.port, at, ground.seconds, client_cpu)
            latency_ms = {
                "p50": got.p50 - direct.p50,
                "p99": got.p99 - direct.p99,
                "proxied p50": got.p50,
                "proxied p99": got.p99,
                "direct p50": direct.p50,
                "direct p99": direct.p99,
                "rate": at,
            }
            return got.per_second, got.answered, got.errors, latency_ms

        got = metered(ground, target, client)
        return got.with_value(got.latency_ms["p50"])

    return run


def _half_load(ground: Ground, target: Target) -> float:
    """Half of what the proxy does in a closed loop, taken just before: machines drift."""
    url = f"http://127.0.0.1:{target.port}/"
    runs = [run_wrk(WrkRun(url, 1), ground.folder, ground.cores.client) for _ in range(2)]
    return statistics.mean(run.requests / run.duration_s for run in runs) / 2


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "get",
            "Small GET, keep-alive",
            "requests/s",
            _wrk(),
            note="92-byte answer, the same request again and again, 64 connections.",
            claims=(
                Claim("N2", "at least 0.8 of nginx", "nginx", 0.8),
                Claim("N2", "at least 1.5 times Envoy", "envoy", 1.5),
            ),
            with_direct=True,
        ),
        Scenario(
            "get-varied",
            "Small GET, every request different",
            "requests/s",
            _wrk(script="varied"),
            note=(
                "Path, query, cookie, user agent and trace header change with every request, with "
                "the headers a browser sends, so that no cache of parsed heads helps anybody."
            ),
            with_direct=True,
        ),
        Scenario(
            "body-64k",
            "GET 64 KB",
            "requests/s",
            _wrk("/files/64k"),
            note="A static file of the upstream.",
            with_direct=True,
        ),
        Scenario(
            "body-1m",
            "GET 1 MB",
            "requests/s",
            _wrk("/files/1m"),
            note="A static file of the upstream; 1,000 requests/s are 8.4 Gbit/s.",
            with_direct=True,
        ),
        Scenario(
            "cached-1k",
            "Cached GET 1 KB",
            "requests/s",
            _wrk("/files/1k"),
            ProxySpec(cache=True),
            note=(
                "From the proxy's own cache: nginx `proxy_cache` in files that stay in the page "
                "cache, with `sendfile` off as by default; Varnish with `malloc`."
            ),
            claims=(Claim("N2", "at least 0.8 of nginx `proxy_cache`", "nginx", 0.8),),
        ),
        Scenario(
            "cached-64k",
            "Cached GET 64 KB",
            "requests/s",
            _wrk("/files/64k"),
            ProxySpec(cache=True),
            note="The same with a longer body.",
            claims=(Claim("N2", "at least 0.8 of nginx `proxy_cache`", "nginx", 0.8),),
        ),
        Scenario(
            "cached-varied",
            "Cached GET 1 KB, every request different",
            "requests/s",
            _wrk(script="varied", env={"BENCH_PATH": "/files/1k"}),
            ProxySpec(cache=True),
            note=(
                "Heads as in `get-varied`; the query does not count for the key, so that each is "
                "answered from the cache."
            ),
        ),
        Scenario(
            "post-1k",
            "POST 1 KB",
            "requests/s",
            _wrk(script="post", env={"BENCH_BODY_BYTES": "1024"}),
        ),
        Scenario(
            "post-64k",
            "POST 64 KB",
            "requests/s",
            _wrk(script="post", env={"BENCH_BODY_BYTES": "65536"}),
        ),
        Scenario(
            "tls",
            "Small GET over TLS, keep-alive",
            "requests/s",
            _wrk(scheme="https"),
            ProxySpec(tls=True),
            note="TLS 1.3 to the proxy, clear text to the upstream.",
            claims=(Claim("N2", "at least 0.5 of nginx", "nginx", 0.5),),
        ),
        Scenario(
            "tls-handshakes",
            "TLS handshakes",
            "handshakes/s",
            _wrk(script="close", scheme="https"),
            ProxySpec(tls=True),
            note=(
                "A new connection with a full handshake (ECDSA P-256) for each request. The client "
                "pays more for a handshake than the server: read the figure per core."
            ),
        ),
        Scenario(
            "connections-1000",
            "Small GET on 1,000 connections",
            "requests/s",
            _wrk(connections=1000),
            note="Closed loop at full load: the latencies are those of a saturated proxy.",
            claims=(
                Claim("N3", "p50 under 50 ms", "p50", 50, is_at_least=False),
                Claim("N3", "p95 under 100 ms", "p95", 100, is_at_least=False),
                Claim("N3", "p99 under 200 ms", "p99", 200, is_at_least=False),
                Claim("N3", "error rate under 0.1 %", "errors", 0.001, is_at_least=False),
                Claim("N3", "at least 1,000 requests/s", "value", 1000),
            ),
        ),
        Scenario(
            "routes-10000",
            "Small GET over 10,000 routes",
            "requests/s",
            _wrk(script="routes", env={"BENCH_ROUTES": str(_MANY_ROUTES)}),
            ProxySpec(routes=_MANY_ROUTES),
            note="Prefix routes, requests spread over all of them.",
        ),
        Scenario(
            "http2",
            "Small GET, HTTP/2 over TLS",
            "requests/s",
            _h2load("https"),
            ProxySpec(tls=True),
            note="64 connections with 10 streams each; HTTP/1.1 to the upstream.",
        ),
        Scenario(
            "http2-clear",
            "Small GET, HTTP/2 with prior knowledge",
            "requests/s",
            _h2load("http"),
            ProxySpec(h2c=True),
            note="64 connections with 10 streams each, without TLS.",
        ),
        Scenario(
            "websocket",
            "WebSocket messages there and back",
            "messages/s",
            _websocket,
            ProxySpec(websocket=True),
            note="64 connections, one 64-byte message in flight on each.",
            with_direct=True,
        ),
        Scenario(
            "json-log",
            "Small GET with a JSON access log",
            "requests/s",
            _wrk(script="varied"),
            ProxySpec(access_log=True),
            note="Every request different, eleven fields a line, to a file.",
        ),
        Scenario(
            "policies",
            "JWT, roles, rate limit, breaker, retries, headers and JSON access log",
            "requests/s",
            _wrk(script="tokens"),
            ProxySpec(policies=True),
            note=(
                "200 users' RS256 tokens in turn. Headgate runs `auth: jwt`, `allow`, a limit for "
                "each user, breaker, retries with a budget and header edits; Envoy `jwt_authn`, "
                "`rbac`, `local_ratelimit` with one bucket for all, outlier detection, and retries "
                "with a budget. Both log the same eleven fields. Headgate remembers what it has "
                "verified; Envoy verifies every token, as it does by default, and in a row of its "
                "own with its token cache switched on."
            ),
            claims=(
                Claim("N1", "at least 3 times Envoy", "envoy", 3.0),
                Claim("N1", "the same, its token cache on", "envoy-remembering", 3.0),
            ),
        ),
        Scenario(
            "policies-varied",
            "The same policies, every request different",
            "requests/s",
            _wrk(script="tokens_varied"),
            ProxySpec(policies=True),
            note=(
                "As above with path, query, cookie and trace header changing with every request, "
                "so that only the tokens themselves can be remembered."
            ),
            claims=(
                Claim("N1", "at least 3 times Envoy", "envoy", 3.0),
                Claim("N1", "the same, its token cache on", "envoy-remembering", 3.0),
            ),
        ),
        Scenario(
            "observing",
            "The same policies, everything watched",
            "requests/s",
            _wrk(script="tokens"),
            ProxySpec(policies=True, observing=True),
            note=(
                "As above with what can be watched: a JSON access log of all fields to a file and "
                "to the searchable store, traces of 1 %, the history of all figures every second, "
                "alerts; and with none of it. Metrics are counted in both. Only the worker's share "
                "is measured, as everywhere: control runs on another core."
            ),
            claims=(
                Claim(
                    "O", "at least 0.85 of the same, nothing watched", "headgate-unobserved", 0.85
                ),
            ),
            peers=("headgate", "headgate-unobserved"),
            beside=("headgate-unobserved",),
        ),
        Scenario(
            "latency-half",
            "Added latency at half load",
            "ms (p50)",
            _latency_at(None),
            note=(
                "Constant rate at half of what this proxy does in a closed loop, at most "
                f"{_FASTEST_OPEN_LOOP:,.0f} requests/s, on 64 connections; from when a request was "
                "due; minus the same client at the same rate without the proxy."
            ),
            claims=(
                Claim("N3", "p50 under 0.5 ms", "p50", 0.5, is_at_least=False),
                Claim("N3", "p99 under 3 ms", "p99", 3.0, is_at_least=False),
            ),
            is_lower_better=True,
        ),
        Scenario(
            "latency-5000",
            "Added latency at 5,000 requests/s",
            "ms (p50)",
            _latency_at(5000.0),
            note="The same at one rate for all.",
            is_lower_better=True,
        ),
    )
}
