"""Customers who want scarce things, and do not give up on a key before they know what came of it."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_S = 60.0
PAUSE_S = 0.1
CARDS = ["4242424242424242"] * 8 + ["4000000000000002", "4000000000009995"]
REFUSALS = {"payment_refused", "out_of_stock", "unavailable", "gone", "price_changed"}


@dataclass
class Told:
    """What a customer was told about one key, in the end."""

    user: str
    key: str
    order_id: str
    status: str


@dataclass
class Customer:
    name: str
    processes: Any  # `Processes`, or what stands for them on a stage
    products: list[str]
    rng: random.Random
    told: list[Told] = field(default_factory=list)
    troubles: int = 0
    heard: deque[str] = field(default_factory=lambda: deque(maxlen=12))
    """The last answers that settled nothing."""
    is_tired: bool = False
    """Begins nothing new; what was begun is brought to its end."""

    async def shop(self) -> None:
        headers = self.processes.signer.headers(self.name, "user", ttl_s=3600.0)
        async with httpx.AsyncClient(
            base_url=self.processes.url("orders"), headers=headers, timeout=12.0
        ) as client:
            while not self.is_tired:
                await self._buy(client)

    async def _buy(self, client: httpx.AsyncClient) -> None:
        await self._sure(client, "DELETE", "/api/cart")
        for product in self.rng.sample(self.products, self.rng.randint(1, 3)):
            item = {"quantity": self.rng.randint(1, 2)}
            await self._sure(client, "PUT", f"/api/cart/items/{product}", json=item)
        key = str(uuid.uuid4())
        body = {
            "address": {
                "name": self.name,
                "street": "Way 1",
                "city": "Town",
                "postcode": "1",
                "country": "DE",
            },
            "card": {"number": self.rng.choice(CARDS), "expiry": "12/49", "cvc": "123"},
        }
        order = await self._checkout(client, key, body)
        self.told.append(Told(self.name, key, str(order["order_id"]), str(order["status"])))
        if order["status"] == "paid" and self.rng.random() < 0.15:
            path = f"/api/orders/{order['order_id']}/cancel"
            await self._sure(client, "POST", path)

    async def _checkout(self, client: httpx.AsyncClient, key: str, body: Any) -> dict[str, Any]:
        """Send the key until it is known what came of it; impatiently, sometimes twice at once."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        headers = {"idempotency-key": key}
        while True:
            assert asyncio.get_running_loop().time() < deadline, (
                f"{key}: nobody knows; {list(self.heard)}"
            )
            sends = [
                asyncio.ensure_future(client.post("/api/checkout", json=body, headers=headers))
                for _ in range(2 if self.rng.random() < 0.15 else 1)
            ]
            patience_s = self.rng.uniform(0.01, 0.15) if self.rng.random() < 0.15 else 12.0
            try:
                done, late = await asyncio.wait(sends, timeout=patience_s)
            except asyncio.CancelledError:
                for send in sends:
                    send.cancel()
                raise
            for send in late:
                send.cancel()  # gone away in the middle of it
            if late:
                await asyncio.wait(late)
            known = [found for found in map(self._known, done) if found is not None]
            if known:
                assert len({found["order_id"] for found in known}) == 1, (key, known)
                return known[0]
            await asyncio.sleep(PAUSE_S)

    def _known(self, send: asyncio.Future[httpx.Response]) -> dict[str, Any] | None:
        try:
            answer = send.result()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            self.troubles += 1
            self.heard.append(repr(error))
            return None
        self.heard.append(f"{answer.status_code} {answer.text[:300]}")
        if answer.status_code == 201:
            return {"order_id": document["id"], "status": document["status"]}
        code = document.get("code")
        if code in REFUSALS and "order_id" in document:
            return {"order_id": document["order_id"], "status": "refused"}
        if answer.status_code in (202, 500, 502, 503, 504):
            self.troubles += answer.status_code != 202
            return None
        raise AssertionError(f"{answer.status_code} {answer.text}")

    async def _sure(self, client: httpx.AsyncClient, method: str, path: str, **more: Any) -> Any:
        """Until it is done."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                answer = await client.request(method, path, **more)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500:
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
            except (httpx.HTTPError, ValueError):
                pass
            self.troubles += 1
            assert asyncio.get_running_loop().time() < deadline, f"{method} {path}"
            await asyncio.sleep(PAUSE_S)
