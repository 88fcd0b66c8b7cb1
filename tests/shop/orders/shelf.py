"""What orders asks of products, in memory, and things that go wrong on the way there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


class Lost(Exception):
    """A broken connection, as the mesh sees it."""


@dataclass
class Trouble:
    """Around an ASGI app: `plan` says of the next requests what becomes of each; "lost" does not
    arrive, "unheard" is carried out and the answer lost, "busy" is a 503, "fine" is fine.
    """

    app: Any
    plan: list[str] = field(default_factory=list)
    only: Callable[[str, str], bool] = lambda method, path: True
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        self.seen.append((method, path))
        fate = "fine"
        if self.plan and self.only(method, path):
            fate = self.plan.pop(0)
        if fate == "lost":
            raise Lost
        if fate == "busy":
            await JSONResponse({"detail": "busy"}, 503)(scope, receive, send)
            return
        if fate == "unheard":

            async def drop(message):
                pass

            await self.app(scope, receive, drop)
            raise Lost
        await self.app(scope, receive, send)

    def count(self, method: str, ending: str) -> int:
        return sum(m == method and p.endswith(ending) for m, p in self.seen)


class Shelf:
    """Products' reservations, as the seam says they behave."""

    def __init__(self, **stock: int) -> None:
        self.received = {name.replace("_", "-"): count for name, count in stock.items()}
        self.available = dict(self.received)
        self.prices = dict.fromkeys(self.received, 1000)
        self.held: dict[str, dict[str, int]] = {}
        self.sold: dict[str, dict[str, int]] = {}
        self.ended: set[str] = set()
        self.app = self._app()

    def expire(self) -> None:
        for name in list(self.held):
            self._back(self.held.pop(name))
            self.ended.add(name)

    def _back(self, lines: dict[str, int]) -> None:
        for product_id, quantity in lines.items():
            self.available[product_id] += quantity

    def is_balanced(self) -> bool:
        gone = [lines for one in (self.held, self.sold) for lines in one.values()]
        return all(
            count >= 0
            and count + sum(lines.get(product_id, 0) for lines in gone) == self.received[product_id]
            for product_id, count in self.available.items()
        )

    def _lines(self, lines: dict[str, int]) -> dict[str, Any]:
        return {
            "lines": [
                {
                    "product_id": product_id,
                    "name": product_id.upper(),
                    "price": self.prices[product_id],
                    "currency": "EUR",
                    "quantity": quantity,
                    "category": "things",
                }
                for product_id, quantity in lines.items()
            ]
        }

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/internal/products")
        async def products(ids: str) -> dict[str, Any]:
            return {
                "items": [
                    {
                        "id": one,
                        "name": one.upper(),
                        "price": self.prices[one],
                        "image": f"/images/{one}.webp",
                        "available": self.available[one],
                    }
                    for one in ids.split(",")
                    if one in self.prices
                ]
            }

        @app.post("/internal/reservations")
        async def reserve(request: Request) -> Any:
            wanted = await request.json()
            name = wanted["reservation_id"]
            lines = {line["product_id"]: line["quantity"] for line in wanted["lines"]}
            known = self.held.get(name) or self.sold.get(name)
            if known is not None:
                return JSONResponse(self._lines(known), 201)
            if name in self.ended:
                return JSONResponse({"code": "ended"}, 409)
            gone = [one for one in lines if one not in self.prices]
            if gone:
                return JSONResponse({"code": "gone", "gone": gone}, 409)
            short = [
                {"product_id": one, "available": self.available[one]}
                for one, quantity in lines.items()
                if self.available[one] < quantity
            ]
            if short:
                return JSONResponse({"code": "short", "short": short}, 409)
            for one, quantity in lines.items():
                self.available[one] -= quantity
            self.held[name] = lines
            return JSONResponse(self._lines(lines), 201)

        @app.post("/internal/reservations/{name}/commit")
        async def commit(name: str) -> Any:
            if name in self.sold:
                return {}
            if name not in self.held:
                return JSONResponse({"code": "ended"}, 409)
            self.sold[name] = self.held.pop(name)
            return {}

        @app.delete("/internal/reservations/{name}")
        async def release(name: str) -> Any:
            for place in (self.held, self.sold):
                if name in place:
                    self._back(place.pop(name))
            self.ended.add(name)
            return {}

        return app
