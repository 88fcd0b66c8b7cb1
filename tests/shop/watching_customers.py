"""Customers who go on while something fails, and somebody at the operations page who plays it."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import uuid
from collections import Counter

import httpx

from headgate_shop.operations.sse import Reader

PATIENCE_S = 60.0
ADDRESS = {
    "name": "Ada Lovelace", "street": "Main Street 1", "city": "London", "postcode": "10115",
    "country": "DE",
}  # fmt: skip
CHECKOUT = {
    "address": ADDRESS,
    "card": {"number": "4242424242424242", "expiry": "12/40", "cvc": "123"},
}
_addresses = itertools.count(2)


def client_of(shop, **headers):
    """Each from an address of its own, as limits count by address."""
    number = next(_addresses)
    transport = httpx.HTTPTransport(local_address=f"127.77.{number // 200}.{number % 200 + 2}")
    return httpx.Client(
        base_url=shop.url, transport=transport, headers=headers, timeout=30, trust_env=False
    )


def settled(is_right, why=""):
    end = time.monotonic() + PATIENCE_S
    while True:
        found = is_right()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(why() if callable(why) else why or "it did not come about")
        time.sleep(0.1)


class Operator(threading.Thread):
    """Watches the page all the time, and presses its buttons."""

    def __init__(self, shop):
        super().__init__(name="operator")
        self.shop = shop
        self.lines: list[tuple[float, str]] = []
        self.parts: dict = {}
        self.trouble = ""
        self.heard = time.monotonic()
        self._last = ""
        self._end = threading.Event()
        self._client = client_of(shop, authorization=f"Bearer {shop.token('admin')}")
        self._stream = client_of(shop, authorization=f"Bearer {shop.token('admin')}")

    def __enter__(self):
        page = settled(lambda: (said := self._client.get("/operations/")).is_success and said)
        self._client.headers["x-csrf-token"] = re.findall('data-csrf="(.*?)"', page.text)[0]
        self.start()
        settled(lambda: "services" in self.parts)
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(PATIENCE_S)
        self._client.close()
        self._stream.close()

    def run(self):
        while not self._end.is_set():
            try:
                self._watch()
            except httpx.HTTPError as error:
                self.trouble = str(error)
            self._end.wait(0.1)

    def _watch(self):
        params = {"after": self._last}
        with self._stream.stream("GET", "/operations/live", params=params) as said:
            self.trouble = "" if said.is_success else f"{said.status_code}"
            reader = Reader()
            for piece in said.iter_text():
                for event in reader.feed(piece):
                    if event.kind == "board":
                        self._take(event.id, json.loads(event.data))
                if self._end.is_set():
                    return

    def _take(self, id_, news):
        self._last = id_
        self.heard = now = time.monotonic()
        self.lines += [(now, line["text"]) for line in news["log"]]
        self.parts.update(news["parts"])

    def begin(self, failure, choice=""):
        began = time.monotonic()
        said = self._client.post(f"/operations/failures/{failure}", json={"choice": choice})
        assert said.status_code == 201, said.text
        return began

    def refused(self, failure, choice=""):
        said = self._client.post(f"/operations/failures/{failure}", json={"choice": choice})
        assert said.status_code == 409, said.text
        return said.json()["detail"]

    def undo(self, failure):
        said = self._client.delete(f"/operations/failures/{failure}")
        assert said.status_code == 200, said.text
        return time.monotonic()

    def state(self):
        """For the message of a test that fails."""
        bad = {name: row for name, row in self.parts.get("sources", {}).items() if not row["ok"]}
        heard_s = time.monotonic() - self.heard
        return f"heard {heard_s:.0f} s ago, {self.is_alive()=} {self.trouble=} {bad=} {self.lines[-12:]}"

    def has_seen(self, pattern, since):
        return [at for at, text in self.lines if at >= since and re.search(pattern, text)]

    def sees(self, pattern, since):
        """When, after `since`, a line came that has the pattern in it; in seconds."""
        found = settled(
            lambda: self.has_seen(pattern, since),
            lambda: f"{pattern!r} was not seen: {self.state()}",
        )
        return found[0] - since

    def service(self, name):
        return next(row for row in self.parts["services"] if row["name"] == name)


class Customers(threading.Thread):
    """Ask for the same few things again and again, and keep what they were answered."""

    def __init__(self, shop, asks, *, every_s=0.15):
        super().__init__(name="customers")
        self._asks = asks
        self._every_s = every_s
        # Of several addresses, as each may ask so much and no more, and over several connections,
        # which all workers of the gateway have their part of.
        self._clients = [client_of(shop) for _ in range(12)]
        self._turn = itertools.cycle(self._clients)
        self._end = threading.Event()
        self.answers: list[tuple[float, str, str, float]] = []
        """When it was asked, what, how it was answered, and how long that took."""

    def __enter__(self):
        for _ in self._clients:
            self._round()  # what can be kept is kept now
        self.answers.clear()
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(PATIENCE_S)
        for client in self._clients:
            client.close()

    def run(self):
        while not self._end.is_set():
            self._round()
            self._end.wait(self._every_s)

    def _round(self):
        client = next(self._turn)
        for name, path in self._asks.items():
            if callable(path):
                path = path()
            began = time.monotonic()
            try:
                said = client.get(path)
                how = str(said.status_code)
                if name == "stock" and said.is_success:
                    how = "unknown" if said.json()["state"] == "unknown" else "known"
            except httpx.HTTPError as error:
                how = type(error).__name__
            self.answers.append((began, name, how, time.monotonic() - began))

    def noticed(self, name, since=0.0):
        return Counter(how for at, what, how, _ in self.answers if what == name and at >= since)

    def slowest(self, name, since=0.0):
        return max(
            (s for at, what, _, s in self.answers if what == name and at >= since), default=0
        )

    def well_after(self, name, since, how):
        """When, after `since`, the last answer of another kind was asked for; in seconds."""
        bad = [
            at for at, what, said, _ in self.answers if what == name and at >= since and said != how
        ]
        return max(bad) - since if bad else 0.0


class Shopper:
    """Buys, and asks again with the same key until it knows what became of it."""

    def __init__(self, shop, role="user"):
        self._shop = shop
        self._client = client_of(shop, authorization=f"Bearer {shop.token(role)}")
        self.orders: dict[str, dict] = {}
        """By the key that it was ordered with."""
        self.asked = 0
        self.statuses: Counter[int | str] = Counter()

    def close(self):
        self._client.close()

    def _until(self, method, path, good, **more):
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                said = self._client.request(method, path, **more)
                self.statuses[said.status_code] += 1
                if said.status_code in good:
                    return said.json()
                assert said.status_code in (409, 429, 500, 502, 503, 504), said.text
            except httpx.HTTPError as error:
                self.statuses[type(error).__name__] += 1
            assert time.monotonic() < end, (path, self.statuses)
            time.sleep(0.2)

    def fill(self, product):
        self._until("PUT", f"/api/cart/items/{product}", (200, 201), json={"quantity": 1})

    def cart(self):
        return self._client.get("/api/cart").raise_for_status().json()

    def check_out(self, key):
        """One request; whatever the answer is."""
        headers = {"idempotency-key": key}
        return self._client.post("/api/checkout", json=CHECKOUT, headers=headers)

    def buy(self, product):
        key = str(uuid.uuid4())
        self.asked += 1
        self.fill(product)
        headers = {"idempotency-key": key}
        good = (200, 201, 202)
        found = self._until("POST", "/api/checkout", good, json=CHECKOUT, headers=headers)
        self.orders[key] = found
        return found

    def until_paid(self):
        """Every order is there once, and in the end it is paid."""
        ids = [order["id"] for order in self.orders.values()]
        assert len(set(ids)) == len(ids) == self.asked

        def all_paid():
            found = [self._until("GET", f"/api/orders/{one}", (200,)) for one in ids]
            return all(order["status"] in ("paid", "shipped") for order in found)

        settled(all_paid, f"not all of {ids} are paid")

    def listed(self):
        """Ids of all that this person has ordered, page by page."""
        found, cursor = [], ""
        while True:
            params = {"limit": 100, **({"cursor": cursor} if cursor else {})}
            page = self._until("GET", "/api/orders", (200,), params=params)
            found += [order["id"] for order in page["items"]]
            cursor = page.get("next") or ""
            if not cursor:
                return found
