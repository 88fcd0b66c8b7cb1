"""A scripted gateway and stage behind the operations page, on real sockets.

It plays along: what is killed comes back, a bad deploy opens the canary's breaker, a burst raises
the traffic. So the page can be looked at without the shop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from headgate.testing import FakeMesh
from headgate_shop.base.faults import Faults
from headgate_shop.base.settings import SERVICES, Settings
from headgate_shop.operations.app import app

ROUTED = ("users", "products", "products-next", "orders", "analytics", "storefront", "operations")
MAIL_HTML = (
    "<h1>Thank you</h1><p>Your order <b>10042</b> is on its way.</p><script>alert(1)</script>"
)


class World:
    """What the fakes say; a test changes it while they run."""

    def __init__(self, folder, *, every_s=0.25, redis=False):
        self.folder = folder
        self.every_s = every_s
        self.rng = random.Random(7)
        self.began = time.time()
        self.rate = 42.0
        self.processes: dict[str, dict] = {
            name: {
                "name": name, "pid": 4000 + n, "port": 20000 + n, "state": "running",
                "restarts": 0, "since": self.began - 300,
            }
            for n, name in enumerate(SERVICES)
        }  # fmt: skip
        self.out: dict[str, str] = {}
        self.breakers: dict[str, str] = dict.fromkeys(ROUTED, "closed")
        self.mesh_breakers: dict[str, str] = {}
        self.redis = {"state": "running"} if redis else None
        self.alerts: list[dict] = []
        self.events: list[dict] = []
        self.asked: list[tuple[str, str, object]] = []
        self.marks: list[dict] = []
        self.away = False
        self.cache = {"hits": 1000, "stale": 0, "collapsed": 10, "revalidated": 5, "misses": 300}
        self.doing: dict[str, float] = {}
        self.mails = [
            {
                "id": f"m{n}", "at": self.began - 60 * n, "from": "shop@shop.test",
                "to": ["ada@shop.test"], "subject": f"Your order {10042 - n}", "text": "Thank you",
                "html": MAIL_HTML if n % 2 == 0 else "",
            }
            for n in range(9)
        ]  # fmt: skip

    # -- what happens --------------------------------------------------------------------------

    def happen(self, kind, text, **attributes):
        row = {"at": time.time(), "kind": kind, "text": text, **attributes}
        self.events.append({"id": f"e-{len(self.events) + 1}", "data": row})

    def fault(self, service):
        return Faults(self.folder, service).current(time.monotonic())

    async def play(self):
        while True:
            await asyncio.sleep(self.every_s)
            busy = self.rate
            self.cache["hits"] += int(busy * 0.7)
            self.cache["misses"] += max(1, int(busy * 0.2))
            bad = self.fault("products-next").errors > 0
            if bad and self.breakers["products-next"] == "closed":
                self.set_breaker("products-next", "open", "60% of 20 calls failed")
                self.doing["fallbacks"] = 14
            elif not bad and self.breakers["products-next"] == "open":
                self.set_breaker("products-next", "closed", "3 trial calls were fine")
                self.doing["fallbacks"] = 0

    def set_breaker(self, name, state, why):
        self.breakers[name] = state
        self.happen("breaker", f"{name}: {state} ({why})", breaker=name, after=state, why=why)

    async def kill(self, name):
        row = self.processes[name]
        row.update(state="starting", pid=None)
        self.out[name] = "5 errors in a row (connect)"
        self.happen(
            "ejection", "", service=name, instance=self.url(name, 0), out=True, why=self.out[name]
        )
        await asyncio.sleep(1.2)
        self.start(name)

    def start(self, name):
        row = self.processes[name]
        row.update(
            state="running", pid=5000 + self.rng.randrange(1000), restarts=row["restarts"] + 1,
            since=time.time(),
        )  # fmt: skip
        if self.out.pop(name, None):
            said = {"service": name, "instance": self.url(name, 0), "state": "up"}
            self.happen("health", "", why="a new instance registered", **said)

    def url(self, name, n):
        return f"http://127.0.0.1:{20000 + 100 * n + SERVICES.index(name)}"

    # -- what the admin API says ---------------------------------------------------------------

    def overview(self):
        wobble = 1 + 0.15 * math.sin(time.time() / 7) + self.rng.uniform(-0.05, 0.05)
        slow = 4.0 if self.fault("products").database_ms else 1.0
        errors = 0.04 if self.out else 0.0
        return {
            "at": round(time.time(), 3), "status": "ok", "requests_per_s": self.rate * wobble,
            "error_rate": errors, "client_error_rate": 0.01, "p50_ms": 4.2 * slow * wobble,
            "p95_ms": 38 * slow * wobble, "p99_ms": 95 * slow * wobble, "in_flight": 3,
            "connections": 20, "over_s": 5.0,
            "routes": [{"route": "products", "service": "products", "requests_per_s": 20.0}],
        }  # fmt: skip

    def services(self):
        rows = []
        for name in ROUTED:
            count = 2 if name == "products" else 1
            instances = [
                {
                    "url": self.url(name, n), "weight": 1, "in_flight": 0, "listed": "up",
                    "says": "up", "version": "1.0.0",
                    "workers_out": 2 if n == 0 and name in self.out else 0,
                    "why_out": self.out.get(name) if n == 0 else None,
                }
                for n in range(count)
            ]  # fmt: skip
            rows.append(
                {
                    "name": name, "instances": instances,
                    "breakers": [{"name": name, "state": self.breakers[name]}],
                    "figures": {"requests_per_s": 6.1, "latency": {"p95_ms": 21.0}},
                }
            )  # fmt: skip
        return rows

    def answer(self, path, query):
        match path:
            case "/api/services":
                return self.services()
            case "/api/registry/services":
                return [{"service": name, "up": 1, "down": 0, "suspect": 0} for name in SERVICES]
            case "/api/breakers":
                return [
                    {
                        "name": name, "state": state, "failure_rate": 0.62 if state != "closed" else 0.01,
                        "calls": 20, "rejected_total": 31 if state != "closed" else 0, "retry_after_s": 3.0,
                    }
                    for name, state in self.breakers.items()
                ]  # fmt: skip
            case "/api/splits":
                return [{"route": "products", "now": {"products": 90, "products-next": 10}}]
            case "/api/alerts":
                return {"alerts": self.alerts, "total": len(self.alerts)}
            case "/api/mesh/calls":
                return [
                    {
                        "source": "orders", "destination": "payments", "seen_by": "caller",
                        "requests": 40, "requests_per_s": 0.8, "latency": {"p95_ms": 60.0},
                        "breakers": {self.mesh_breakers["payments"]: 1} if self.mesh_breakers else {},
                    }
                ]  # fmt: skip
            case "/api/cache/stats":
                return {
                    "total": {**self.cache, "hit_ratio": 0.77},
                    "stores": [
                        {"kind": "memory", "entries": 812, "bytes": 5_400_000, "bytes_max": 64e6}
                    ],
                }
            case "/api/history/range":
                return self.range(query)
            case "/api/history/query":
                return self.instant(query["query"])
        return None

    def range(self, query):
        low, high = {"rate(headgate_http": (30, 50), "percentile(0.5": (0.003, 0.005)}.get(
            next((k for k in ("rate(headgate_http", "percentile(0.5") if k in query["query"]), ""),
            (0.03, 0.09),
        )
        if "/" in query["query"]:
            low, high = (0.7, 0.85) if "cache" in query["query"] else (0.0, 0.004)
        start, end = float(query["start"]), float(query["end"])
        rng = random.Random(query["query"])
        values = [[t, str(rng.uniform(low, high))] for t in range(int(start), int(end), 2)]
        return {"status": "success", "data": {"result": [{"metric": {}, "values": values}]}}

    def instant(self, query):
        rows = []
        if "policy_events" in query:
            rows = [
                {"metric": {"event": name}, "value": [0, str(value)]}
                for name, value in self.doing.items()
            ]
        return {"status": "success", "data": {"result": rows}}


def gateway_of(world):
    async def say(request):
        if world.away:
            return JSONResponse({"title": "away", "detail": "control restarts"}, 503)
        if request.headers.get("authorization") != "Bearer operator":
            return JSONResponse({"title": "no", "detail": "a token is wanted"}, 401)
        if request.method == "POST":
            world.marks.append(await request.json())
            return JSONResponse({}, 201)
        found = world.answer(request.url.path, request.query_params)
        return JSONResponse(found) if found is not None else JSONResponse({}, 404)

    async def overview(request):
        async def events():
            while not world.away:
                yield f"event: overview\ndata: {json.dumps(world.overview())}\n\n"
                await asyncio.sleep(world.every_s)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def events(request):
        after = request.headers.get("last-event-id", "")
        told = int(after.rpartition("-")[2]) if after else 0

        async def rows():
            nonlocal told
            yield ": hello\n\n"
            while not world.away:
                for row in world.events[told:]:
                    told += 1
                    said = f"id: {row['id']}\nevent: {row['data']['kind']}\ndata: "
                    yield f"{said}{json.dumps(row['data'])}\n\n"
                await asyncio.sleep(world.every_s / 2)

        return StreamingResponse(rows(), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/api/live/overview", overview),
            Route("/api/live/events", events),
            Route("/api/{rest:path}", say, methods=["GET", "POST"]),
        ]
    )


def stage_of(world, tasks):
    async def state(request):
        return JSONResponse(
            {
                "services": list(world.processes.values()),
                "traffic": {"rate": world.rate, "base": 42.0},
                "redis": world.redis,
            }
        )

    async def steer(request):
        name, what = request.path_params["name"], request.path_params["what"]
        body = await request.body()
        world.asked.append((name, what, json.loads(body) if body else None))
        if name not in world.processes:
            return JSONResponse({"title": "Not Found", "detail": f"there is no {name}"}, 404)
        if what == "kill":
            tasks.add(asyncio.get_running_loop().create_task(world.kill(name)))
        elif what == "stop":
            world.processes[name].update(state="stopped", pid=None)
        else:
            world.start(name)
        return JSONResponse({})

    async def traffic(request):
        rate = (await request.json())["rate"]
        world.asked.append(("traffic", "rate", rate))
        world.rate = 42.0 if rate is None else float(rate)
        return JSONResponse({})

    async def redis(request):
        what = request.path_params["what"]
        world.asked.append(("redis", what, None))
        world.redis = {"state": "stopped" if what == "stop" else "running"}
        return JSONResponse({})

    async def mails(request):
        names = ("id", "at", "to", "subject")
        rows = [{name: mail[name] for name in names} for mail in world.mails]
        return JSONResponse({"total": len(rows), "mails": rows})

    async def mail(request):
        for found in world.mails:
            if found["id"] == request.path_params["id"]:
                return JSONResponse(found)
        return JSONResponse({"title": "Not Found"}, 404)

    def guarded(endpoint):
        async def run(request):
            if request.headers.get("authorization") != "Bearer stage":
                return JSONResponse({"title": "Unauthorized"}, 401)
            return await endpoint(request)

        return run

    return Starlette(
        routes=[
            Route("/state", guarded(state)),
            Route("/services/{name}/{what}", guarded(steer), methods=["POST"]),
            Route("/traffic", guarded(traffic), methods=["POST"]),
            Route("/redis/{what}", guarded(redis), methods=["POST"]),
            Route("/mails", guarded(mails)),
            Route("/mails/{id}", guarded(mail)),
        ]
    )


def scripted(mesh):
    async def totals(request):
        return {"by_status": {
            "paid": {"count": 61, "total": 534200}, "pending": {"count": 2, "total": 9800},
            "shipped": {"count": 10411, "total": 91422310}, "cancelled": {"count": 210, "total": 1722300},
        }}  # fmt: skip

    async def summary(request):
        return {
            "currency": "EUR", "orders": 63, "units": 121, "revenue": 544000, "visitors": 2210,
            "carts": 240, "average_order": 8635, "conversion": 0.0285,
        }  # fmt: skip

    async def integrations(request):
        return {
            "items": [
                {"name": "shop", "enabled": True, "health": "ok"},
                {"name": "marketplace", "enabled": True, "health": "degraded", "last_error": "429 from the marketplace"},
                {"name": "accounting", "enabled": True, "health": "ok"},
                {"name": "chat", "enabled": False, "health": "ok"},
            ]
        }  # fmt: skip

    async def profile(request):
        return 404, {}

    mesh.fake("users").on("GET", "/api/users/profile")(profile)
    mesh.fake("orders").on("GET", "/api/admin/orders/totals")(totals)
    mesh.fake("analytics").on("GET", "/api/admin/analytics/summary")(summary)
    mesh.fake("integrations").on("GET", "/api/admin/integrations")(integrations)


class Server:
    """The page and its fakes, in a thread with a loop of its own."""

    def __init__(self, world, keys, *, secret="s" * 32, stage=True):
        self.world = world
        self._keys = keys
        self._secret = secret
        self._stage = stage
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self.url = ""
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(60)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_):
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self):
        try:
            asyncio.run(self._main())
        except BaseException as error:  # told to the test
            self._failure = error
        finally:
            self._started.set()

    async def _main(self):
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        tasks: set[asyncio.Task] = set()
        async with FakeMesh() as mesh, contextlib.AsyncExitStack() as stack:
            scripted(mesh)
            playing = self.loop.create_task(self.world.play())
            gateway = await stack.enter_async_context(serving(gateway_of(self.world), "off"))
            stage = await stack.enter_async_context(serving(stage_of(self.world, tasks), "off"))
            settings = Settings(
                "operations", self.world.folder, identity_keys=self._keys, secret=self._secret
            )
            environment = {"SHOP_OPERATOR_TOKEN": "operator", "SHOP_ADMIN_URL": gateway}
            if self._stage:
                environment |= {"SHOP_STAGE_URL": stage, "SHOP_STAGE_TOKEN": "stage"}
            made = app(settings, mesh=mesh, environment=environment)
            self.url = await stack.enter_async_context(serving(made, "on"))
            self._started.set()
            await self._end.wait()
            for task in (playing, *tasks):
                task.cancel()
            await asyncio.gather(playing, *tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(application, lifespan):
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, log_level="error", lifespan=lifespan, ws="none",
        timeout_graceful_shutdown=0,  # streams that a test has left open
    )  # fmt: skip
    server = uvicorn.Server(config)
    # Signals belong to the test run.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.get_running_loop().create_task(server.serve())
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
