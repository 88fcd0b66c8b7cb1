"""The same load at other limiters: `limits`, `throttled-py`, nginx; and ours beside them.

Theory of operation
-------------------
A library has no processes of its own: two limiters of it stand for two workers, each asked what one
worker is asked, with a memory each or with a connection to Redis each. A third, with a memory of
its own, is asked everything and is the measure: so a library is compared with itself, whatever its
algorithm means by the limit. All are asked at the same times, in turn; the time that each decision
takes is measured, the wait for Redis included.

nginx decides in its own process; it is asked over HTTP, and measured by what one limiter with the
same burst would let pass. What a decision costs it, and Headgate, is the processor time of requests
with a limit less that of requests without.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import machine
from benchmarks.overshoot_cast import SETTLE_S, Arrival, Connection, Place, Redis, gateways, guarded
from benchmarks.overshoot_counts import Asked, excess, single
from benchmarks.process import Server, free_port
from headgate.gateway.limits import LimitState, turn
from headgate.policy.limiter import make
from headgate.policy.limiter.lease import Ask, LeaseRules
from headgate.policy.limiter.rules import Algorithm, LimitRules, Verdict
from headgate.state.home import LimitAsk
from headgate.state.redis import RedisShared

LIMIT: Final = 100
TURN_S: Final = 0.25
COST_ROUNDS: Final = 9
COST_REQUESTS: Final = 800
PIPELINE: Final = 10

Decide = Callable[[str], bool]
"""May this key pass now?"""


class Contender:
    """A limiter in two workers, and the same alone."""

    def __init__(self, name: str, home: str, made: Sequence[Decide], alone: Decide | None) -> None:
        self.name = name
        self.home = home
        self.workers = made
        self.alone = alone
        self.allowed = self.expected = 0
        self.took_s: list[float] = []
        self.told: dict[str, list[int]] = {}

    async def ask(self, worker: int) -> None:
        began = time.perf_counter()
        passed = self.workers[worker]("key")
        self.took_s.append(time.perf_counter() - began)
        self.allowed += passed
        if self.alone is not None:
            self.expected += self.alone("key")

    def begin(self) -> None:
        self.allowed = self.expected = 0

    def end(self, name: str) -> None:
        self.told[name] = [self.allowed, self.expected]

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "home": self.home,
            **self.told,
            "median_us": round(statistics.median(self.took_s) * 1e6, 1),
            "mean_us": round(statistics.fmean(self.took_s) * 1e6, 1),
        }


class OursShared(Contender):
    """As in a gateway: leases on Redis, and a question when one is spent."""

    def __init__(self, name: str, rules: LimitRules, homes: Sequence[RedisShared]) -> None:
        super().__init__(name, "Redis", (), None)
        self._homes = homes
        self._states = [
            LimitState(f"peers/{name}", rules, LeaseRules(), home, time.monotonic())
            for home in homes
        ]
        self._single = make(rules)
        # Windows are those of Redis' clock.
        self._shift_s = time.time() - time.monotonic()

    async def ask(self, worker: int) -> None:
        state, home = self._states[worker], self._homes[worker]
        began = time.perf_counter()
        now = time.monotonic()
        got: Verdict | Ask = state.hit("key", now, 1)
        if isinstance(got, Ask) and state.leased is not None:
            (grant,) = await home.take([LimitAsk(state.id, state.rules, got)])
            got = state.leased.take(got, grant, time.monotonic())
        self.took_s.append(time.perf_counter() - began)
        self.allowed += isinstance(got, Verdict) and got.allowed
        self.expected += self._single.hit("key", now + self._shift_s).allowed

    async def turn(self) -> None:
        for state, home in zip(self._states, self._homes, strict=True):
            await turn([state], home, time.monotonic())


# -- libraries -------------------------------------------------------------------------------------


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def ours_alone() -> Iterator[Contender]:
    algorithms: tuple[Algorithm, ...] = ("gcra", "fixed_window", "sliding_log")
    for algorithm in algorithms:

        def one(algorithm: Algorithm = algorithm) -> Decide:
            limiter = make(LimitRules(limit=LIMIT, algorithm=algorithm))
            return lambda key: limiter.hit(key, time.monotonic()).allowed

        # `share: worker` in the file.
        yield Contender(f"Headgate {algorithm}", "memory", [one(), one()], one())


def limits_library(url: str) -> Iterator[Contender]:
    if (number := installed("limits")) is None:
        return
    from limits import RateLimitItemPerSecond, storage, strategies

    item = RateLimitItemPerSecond(LIMIT)
    for name, kind in (
        ("fixed window", strategies.FixedWindowRateLimiter),
        ("moving window", strategies.MovingWindowRateLimiter),
    ):

        def one(where: str, kind: Any = kind, name: str = name) -> Decide:
            strategy = kind(storage.storage_from_string(where))
            return lambda key: bool(strategy.hit(item, name, key))

        for home, where in (("memory", "memory://"), ("Redis", url)):
            workers = [one(where), one(where)]
            yield Contender(f"limits {number} {name}", home, workers, one("memory://"))


def throttled_library(url: str) -> Iterator[Contender]:
    if (number := installed("throttled-py")) is None:
        return
    import throttled

    quota = throttled.per_sec(LIMIT, burst=LIMIT)
    for using in ("gcra", "fixed_window"):

        def one(store: Any, using: str = using) -> Decide:
            throttle = throttled.Throttled(using=using, quota=quota, store=store)
            return lambda key: not throttle.limit(f"{using}:{key}").limited

        for home, store in (
            ("memory", throttled.MemoryStore),
            ("Redis", lambda: throttled.RedisStore(server=url)),
        ):
            yield Contender(
                f"throttled-py {number} {using}",
                home,
                [one(store()), one(store())],
                one(throttled.MemoryStore()),
            )


async def replay(url: str, loads: dict[str, Sequence[Arrival]]) -> list[dict[str, Any]]:
    """Ask all of them at the same times."""
    homes = [RedisShared(url), RedisShared(url)]
    for home in homes:
        await home.start()
    await asyncio.sleep(1.0)  # until each knows of the other
    shared = [
        OursShared(f"Headgate {algorithm}", LimitRules(limit=LIMIT, algorithm=algorithm), homes)
        for algorithm in ("gcra", "fixed_window", "sliding_log")
    ]
    everybody = [*ours_alone(), *shared, *limits_library(url), *throttled_library(url)]
    # In two halves: all at once would ask more than there is time for.
    for home_kind in ("memory", "Redis"):
        contenders = [each for each in everybody if each.home == home_kind]
        await replay_at(contenders, shared if home_kind == "Redis" else [], loads)
    for home in homes:
        await home.close()
    return [contender.row() for contender in everybody]


async def replay_at(
    contenders: Sequence[Contender],
    shared: Sequence[OursShared],
    loads: dict[str, Sequence[Arrival]],
) -> None:
    for contender in contenders:  # connections and scripts are made with the first call
        for worker in range(2):
            await contender.ask(worker)
        contender.took_s.clear()
    for name, arrivals in loads.items():
        await asyncio.sleep(2.2)  # until what was charged before has run out
        for contender in contenders:
            contender.begin()
        began = time.monotonic()
        turned = began
        for at, worker, _ in arrivals:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            if time.monotonic() - turned >= TURN_S:
                turned = time.monotonic()
                for one in shared:
                    await one.turn()
            for contender in contenders:
                await contender.ask(worker)
        for contender in contenders:
            contender.end(name)


# -- nginx -----------------------------------------------------------------------------------------


def start_nginx(folder: Path) -> Server | None:
    program = shutil.which("nginx")
    if program is None:
        return None
    port = free_port()
    (folder / "ok").write_text("ok")
    (folder / "nginx.conf").write_text(
        f"""\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_req_zone $binary_remote_addr zone=few:1m rate={LIMIT}r/s;
    limit_req_zone $binary_remote_addr zone=many:1m rate=1000000r/s;
    limit_req_status 429;
    root {folder};
    server {{
        listen 127.0.0.1:{port};
        location /limited/ {{ limit_req zone=few burst={LIMIT - 1} nodelay; try_files /ok =404; }}
        location /with/ {{ limit_req zone=many burst=1000000 nodelay; try_files /ok =404; }}
        location / {{ try_files /ok =404; }}
    }}
}}
"""
    )
    command = [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    server = Server("nginx", guarded(*command), log=folder / "nginx.log", port=port, cpu=None)
    server.wait_ready()
    return server


async def ask_nginx(port: int, arrivals: Sequence[Arrival]) -> dict[str, Any]:
    asked: list[Asked] = []
    began = time.monotonic() + 0.1

    async def ask(due: Sequence[float]) -> None:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        for at in due:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            sent = time.monotonic()
            status = await connection.get("/limited/")
            asked.append(Asked(sent, time.monotonic(), status == 200))
        connection.close()

    async with asyncio.TaskGroup() as group:
        for place in {(worker, heavy) for _, worker, heavy in arrivals}:
            group.create_task(ask([at for at, *who in arrivals if (*who,) == place]))
    rules = LimitRules(limit=LIMIT, algorithm="gcra")
    return {
        "offered": len(asked),
        "allowed": sum(each.passed for each in asked),
        "single": sum(each.passed for each in single(asked, rules)),
        "beyond": round(excess(asked, rules), 1),
    }


# -- what a decision costs -------------------------------------------------------------------------


async def spend(port: int, path: str, cpu_s: Callable[[], float]) -> float:
    """Microseconds of processor time a request, of all processes that serve it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ask = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * PIPELINE
    began = cpu_s()
    for _ in range(COST_REQUESTS // PIPELINE):
        writer.write(ask)
        for _ in range(PIPELINE):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    spent = cpu_s() - began
    writer.close()
    return spent / COST_REQUESTS * 1e6


async def cost(port: int, cpu_s: Callable[[], float]) -> dict[str, float]:
    """With a limit and without, in turns; the medians, and that of the differences of a round."""
    found: dict[str, list[float]] = {"/with/": [], "/without/": []}
    for path in found:
        await spend(port, path, cpu_s)
    for number in range(COST_ROUNDS):
        for path in sorted(found, reverse=number % 2 == 0):
            found[path].append(await spend(port, path, cpu_s))
    pairs = zip(found["/with/"], found["/without/"], strict=True)
    return {
        "with_us": round(statistics.median(found["/with/"]), 1),
        "without_us": round(statistics.median(found["/without/"]), 1),
        "limit_us": round(statistics.median(one - other for one, other in pairs), 1),
    }


def cost_of_ours(folder: Path, place: Place) -> dict[str, Any]:
    with ExitStack() as stack:
        pids: list[int] = []
        state = "memory"
        if place.is_redis:
            redis = Redis(folder)
            stack.callback(redis.kill)
            pids.append(redis.server.root_pid)
            state = redis.url
        document = {
            "workers": place.workers,
            "state": state,
            "access_log": {"format": "off"},
            "routes": [
                {
                    "match": {"path": "/with/"},
                    "respond": {"body": "ok"},
                    "limit": {"rate": "1000000/s", "by": "ip", "headers": "off"},
                },
                {"match": {"path": "/"}, "respond": {"body": "ok"}},
            ],
        }
        name = place.title.replace(" ", "-")
        (gateway,) = stack.enter_context(gateways(folder / name, 1, document))
        time.sleep(SETTLE_S)
        # Control answers the workers, and the supervisor has nothing to do.
        pids += machine.children(gateway.server.root_pid)

        async def main() -> dict[str, float]:
            return await cost(gateway.port, lambda: machine.cpu_seconds(pids))

        return {"name": "Headgate gcra", "home": place.title, **uvloop.run(main())}


def compare(folder: Path, uneven: Sequence[Arrival], even: Sequence[Arrival]) -> dict[str, Any]:
    folder.mkdir()
    print(f"\nothers, {len(uneven)} requests unevenly, {len(even)} evenly")
    redis = Redis(folder)
    try:
        libraries = uvloop.run(replay(redis.url, {"uneven": uneven, "even": even}))
    finally:
        redis.kill()
    for row in libraries:
        print(
            f"  {row['name']:34} {row['home']:7} "
            f"unevenly {row['uneven'][0]:4} of {row['uneven'][1]:4}, "
            f"evenly {row['even'][0]:4} of {row['even'][1]:4}, {row['median_us']:7.1f} us, mean {row['mean_us']:.1f}"
        )
    costs = [
        cost_of_ours(folder, Place("one worker", 1, 1)),
        cost_of_ours(folder, Place("two workers, hub", 1, 2)),
        cost_of_ours(folder, Place("two workers, Redis", 1, 2, is_redis=True)),
    ]
    found: dict[str, Any] = {"libraries": libraries, "costs": costs}
    nginx = start_nginx(folder)
    if nginx is not None:

        async def main(server: Server) -> dict[str, float]:
            found["nginx"] = await ask_nginx(server.port, uneven)
            return await cost(server.port, lambda: machine.cpu_seconds(server.pids))

        try:
            spent = uvloop.run(main(nginx))
        finally:
            nginx.stop()
        number = machine.first_line("nginx", "-v").rpartition("nginx/")[2]
        found["nginx"]["name"] = f"nginx {number} limit_req"
        costs.append({"name": found["nginx"]["name"], "home": "one process", **spent})
        print(f"  {found['nginx']}")
    for row in costs:
        print(f"  {row['name']:34} {row['home']:20} {row['limit_us']:6.1f} us of processor time")
    return found
