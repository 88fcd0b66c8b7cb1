"""N3 against the whole shop: a thousand connections that read, through the gateway.

    python -m benchmarks.shop                # some two minutes; writes docs/shop-measured.md
    python -m benchmarks.shop --redraw       # the page and the plot again, from the last results

A stage is started with all the data of the demo. Each of the connections is a customer with an
address of its own (127.0.0.0/8 is all this machine), as limits count by address, and asks about once
a second at moments of its own, whatever became of the answer before: what waits behind a slow answer
waits in our figures too (an open loop, measured from the moment at which it wanted to ask).

Most reads are what a cache may answer: products, lists, pages for strangers. Some are not: carts,
and searches that nobody has made before. `Cache-Status` says which of both an answer was.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import httptools
import uvloop

from benchmarks import machine
from headgate_shop.stage.client import Stage

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "shop.json"
PAGE = ROOT / "docs" / "shop-measured.md"
PLOT = ROOT / "docs" / "images" / "shop-latency.svg"
CONNECTIONS = 1000
RATE = 1000.0
SECONDS = 60.0
WARM_S = 30.0
RAMP = 0.7
"""Of the warm-up: customers come in one after the other, as caches are empty at first."""
POPULAR = 300
TIMEOUT_S = 10.0
KINDS = ("product", "list", "page", "product page", "stock", "cart", "search")
SHARES = tuple(accumulate((40, 15, 12, 13, 6, 7, 7)))
QUANTILES = (0.5, 0.95, 0.99, 0.999)
WANTED_MS = {
    "all": {"p50": 50, "p95": 100, "p99": 200},
    "cached": {"p95": 100},
    "uncached": {"p95": 200},
}


@dataclass
class Tally:
    """Milliseconds by kind, and what went wrong."""

    took_ms: dict[str, list[float]] = field(default_factory=lambda: {"cached": [], "uncached": []})
    by_route: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    is_open: bool = False
    reconnected: int = 0


class Mix:
    """What is asked for: a kind by its share, and a path."""

    def __init__(self, products: list[str], shelves: list[str], rng: random.Random) -> None:
        self._rng = rng
        self._products = products
        self._weights = list(accumulate(1 / (at + 3) for at in range(len(products))))
        self._shelves = shelves
        self._new = count(1)

    def draw(self) -> tuple[str, str, str]:
        rng = self._rng
        kind = rng.choices(KINDS, cum_weights=SHARES)[0]
        product = rng.choices(self._products, cum_weights=self._weights)[0]
        match kind:
            case "product":
                return kind, f"/api/products/{product}", ""
            case "list":
                return kind, rng.choice(self._shelves), ""
            case "page":
                return kind, rng.choice(("/", "/products")), ""
            case "product page":
                return kind, f"/product/{product}", ""
            case "stock":
                return kind, f"/api/products/{product}/stock", ""
            case "cart":
                number = rng.getrandbits(128)
                return kind, "/api/cart", f"x-cart-id: {number:032x}\r\n"
            case _:
                words = rng.choice(("lamp", "oak chair", "kettle", "wool", "steel", "bag"))
                path = f"/api/products/search/{words.replace(' ', '%20')}"
                return kind, f"{path}?min_price={next(self._new)}&limit=24", ""


class Customer(asyncio.Protocol):
    """One connection: asks one thing after the other, and knows when it wanted to."""

    def __init__(self, host: str, address: str, tally: Tally) -> None:
        self._host = host
        self._address = address
        self._is_over = False
        self._coming: asyncio.Task | None = None
        self._tally = tally
        self._transport: Any = None
        self._waiting: list[tuple[float, str, str, str]] = []
        self._asked: tuple[float, str] | None = None
        self._parser: Any = None
        self._status = ""
        self._cache = b""
        self.is_away = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.is_away = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_away = True
        if self._asked is not None and self._tally.is_open:
            self._tally.errors["connection lost"] += 1
        self._asked = None
        if not self._is_over:
            self._tally.reconnected += 1
            self._coming = asyncio.get_running_loop().create_task(self.come())

    async def come(self) -> None:
        """Connect, and go on with what is wanted."""
        host, port = self._host.split(":")
        loop = asyncio.get_running_loop()
        while self.is_away and not self._is_over:
            try:
                await loop.create_connection(
                    lambda: self, host, int(port), local_addr=(self._address, 0)
                )
            except OSError as error:
                self._tally.errors[f"connect: {error.errno}"] += 1
                await asyncio.sleep(0.5)
        self._ask()

    def leave(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def want(self, at: float, kind: str, path: str, headers: str) -> None:
        self._waiting.append((at, kind, path, headers))
        self._ask()

    def _ask(self) -> None:
        if self._asked is not None or not self._waiting or self.is_away:
            return
        at, kind, path, headers = self._waiting.pop(0)
        self._asked = (at, kind)
        self._cache = b""
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(
            f"GET {path} HTTP/1.1\r\nhost: {self._host}\r\naccept: */*\r\n"
            f"accept-encoding: gzip\r\n{headers}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"cache-status":
            self._cache = value

    def on_message_complete(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and self._tally.is_open:
            at, kind = asked
            took = (time.monotonic() - at) * 1000
            status = self._parser.get_status_code()
            self._tally.statuses[f"{kind} {status}"] += 1
            if status != 200:
                self._tally.errors[f"{kind} {status}"] += 1
            self._tally.took_ms["cached" if b"hit" in self._cache else "uncached"].append(took)
            self._tally.by_route.setdefault(kind, []).append(took)
        asyncio.get_running_loop().call_soon(self._ask)

    def waits_since(self, now: float) -> float:
        return now - self._asked[0] if self._asked is not None else 0.0


async def load(stage: Stage, options: argparse.Namespace, rng: random.Random) -> dict[str, Any]:
    host, _, port = stage.url.removeprefix("http://").partition(":")
    client = stage.client()
    listed: list[str] = []
    cursor = ""
    while len(listed) < POPULAR:
        said = client.get(
            "/api/products", params={"limit": 100, **({"cursor": cursor} if cursor else {})}
        ).json()
        listed += [item["id"] for item in said["items"]]
        cursor = said["next"] or ""
        if not cursor:
            break
    shelves = [
        f"/api/products?category={one['slug']}&limit=24"
        for one in client.get("/api/products/categories").json()
    ] + ["/api/products/featured", "/api/products?sort=newest&limit=24"]
    mix = Mix(listed[:POPULAR], shelves, rng)
    tally = Tally()
    customers: list[Customer] = []
    for at in range(options.connections):
        address = f"127.{10 + at // 250}.{at % 250 + 1}.7"
        customer = Customer(f"{host}:{port}", address, tally)
        await customer.come()
        customers.append(customer)
    rate_of_one = options.rate / len(customers)
    began = time.monotonic()
    ramp_s = options.warm * RAMP
    due = [
        (began + at / len(customers) * ramp_s + rng.expovariate(rate_of_one), at)
        for at in range(len(customers))
    ]
    heapq.heapify(due)
    opens, ends = began + options.warm, began + options.warm + options.seconds
    busy = 0.0
    before: dict[str, float] = {}
    while (now := time.monotonic()) < ends:
        if not tally.is_open and now >= opens:
            tally.is_open = True
            busy, before = total_busy(), cpu_by_name(stage.pid)
        while due[0][0] <= now:
            at, who = heapq.heappop(due)
            customers[who].want(at, *mix.draw())
            heapq.heappush(due, (at + rng.expovariate(rate_of_one), who))
        await asyncio.sleep(min(0.002, max(0.0, due[0][0] - now)))
    now = time.monotonic()
    after = cpu_by_name(stage.pid)
    took_cpu = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    others = max(0.0, total_busy() - busy - sum(took_cpu.values())) / options.seconds
    late = sum(customer.waits_since(now) > TIMEOUT_S for customer in customers)
    tally.is_open = False
    for customer in customers:
        customer.leave()
    return summary(tally, options, late, others, took_cpu)


def cpu_by_name(pid: int) -> dict[str, float]:
    """Seconds of each service, of the gateway's processes, of the rest of the stage, of customers."""
    found: Counter[str] = Counter()
    gateway: set[int] = set()
    for each in (pid, *machine.descendants(pid)):
        name = machine.name(each)
        if name.startswith("shop-"):
            name = name.removeprefix("shop-")
        elif name.startswith("headgate") or " -m headgate run" in machine.command_line(each):
            gateway.update((each, *machine.descendants(each)))
            name = "gateway"
        else:
            name = "gateway" if each in gateway else "stage"
        found[name] += machine.cpu_seconds([each])
    found["customers"] = time.process_time()
    return dict(found)


def total_busy() -> float:
    return sum(machine.cpu_busy(cpu)[0] for cpu in range(machine.os.cpu_count() or 1))


def quantiles(values: list[float]) -> dict[str, float]:
    values = sorted(values)
    if not values:
        return {}
    found = {
        f"p{str(q * 100).rstrip('0').rstrip('.')}": values[
            min(int(len(values) * q), len(values) - 1)
        ]
        for q in QUANTILES
    }
    return {name: round(value, 2) for name, value in {**found, "max": values[-1]}.items()}


def summary(
    tally: Tally, options: Any, late: int, others: float, cpu: dict[str, float]
) -> dict[str, Any]:
    everything = tally.took_ms["cached"] + tally.took_ms["uncached"]
    curve = [0.01 * at for at in range(1, 100)] + [0.995, 0.999, 0.9995]
    return {
        "connections": options.connections,
        "seconds": options.seconds,
        "asked_per_s": options.rate,
        "answered_per_s": round(len(everything) / options.seconds, 1),
        "errors": dict(tally.errors),
        "reconnected": tally.reconnected,
        "late": late,
        "error_rate": round((sum(tally.errors.values()) + late) / max(1, len(everything)), 6),
        "share_cached": round(len(tally.took_ms["cached"]) / max(1, len(everything)), 4),
        "took_ms": {
            "all": quantiles(everything),
            **{kind: quantiles(values) for kind, values in tally.took_ms.items()},
        },
        "by_read": {
            kind: {"count": len(values), **quantiles(values)}
            for kind, values in sorted(tally.by_route.items())
        },
        "curves": {
            kind: [
                [q, round(sorted(values)[min(int(len(values) * q), len(values) - 1)], 3)]
                for q in curve
            ]
            for kind, values in tally.took_ms.items()
            if values
        },
        "statuses": dict(tally.statuses),
        "cores_of_shop_and_customers": round(sum(cpu.values()) / options.seconds, 2),
        "cores_by_process": {
            name: round(took_s / options.seconds, 4)
            for name, took_s in sorted(cpu.items(), key=lambda one: -one[1])
        },
        "cores_of_others": round(others, 2),
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument(
        "--rate", type=float, default=RATE, help="requests a second of all together"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--warm", type=float, default=WARM_S)
    parser.add_argument("--size", choices=("tiny", "demo"), default="demo")
    parser.add_argument(
        "--workers", type=int, help="of the gateway; by default one for each two cores"
    )
    parser.add_argument("--redraw", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print what was found, write nothing")
    options = parser.parse_args()
    if not options.redraw:
        machine.raise_file_limit()
        with Stage(size=options.size, workers=options.workers) as stage:
            found = uvloop.run(load(stage, options, random.Random(7)))
            found["start_s"] = stage.news["took_s"]
        if options.dry:
            print(json.dumps({k: v for k, v in found.items() if k != "curves"}, indent=1))
            return 0
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    from benchmarks.shop_page import draw, write

    found = json.loads(RESULTS.read_text())
    draw(found, PLOT)
    PAGE.write_text(write(found))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
