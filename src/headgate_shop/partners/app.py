"""All partners in one process, and the knobs of whoever plays them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from headgate.kit import Problem
from headgate.mesh import Mesh
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.partners import chat, ledger, marketplace, shopfront
from headgate_shop.partners.answers import answer_refusals
from headgate_shop.partners.credentials import PARTNERS, credential
from headgate_shop.partners.mood import MoodLayer, MoodSpec, Partner
from headgate_shop.partners.store import Store

__all__ = ["app"]

KINDS: Final = ("product", "order", "listing", "invoice", "message")

Name = Annotated[str, Path(pattern=f"^({'|'.join(PARTNERS)})$")]


class Bought(BaseModel):
    """Orders that come in over there."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(default=1, ge=1, le=500)


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Partners: other companies, played", mesh=mesh)
    api = service.api
    database = service.database()
    stores = {name: Store(database, name) for name in PARTNERS}
    rng = random.Random()
    partners: Mapping[str, Partner] = {
        "shopfront": shopfront.partner(rng),
        "marketplace": marketplace.partner(rng),
        "ledger": ledger.partner(rng),
        "chat": chat.partner(rng),
    }
    for module, name in (
        (shopfront, "shopfront"),
        (marketplace, "marketplace"),
        (ledger, "ledger"),
        (chat, "chat"),
    ):
        api.include_router(module.router(stores[name], credential(settings.secret, name)))
    answer_refusals(api)
    api.add_middleware(MoodLayer, partners=partners)

    @api.get("/simulator")
    async def played() -> dict[str, Any]:
        return {name: await _state(partners[name], stores[name]) for name in PARTNERS}

    @api.get("/simulator/{name}")
    async def one(name: Name) -> dict[str, Any]:
        return await _state(partners[name], stores[name])

    @api.post("/simulator/{name}")
    async def play(name: Name, spec: MoodSpec) -> dict[str, Any]:
        """Have a partner be down, slow, failing or narrow, until it is told otherwise."""
        partners[name].play(spec)
        return await _state(partners[name], stores[name])

    @api.get("/simulator/{name}/{kind}")
    async def objects(
        name: Name,
        kind: Annotated[str, Path(pattern=f"^({'|'.join(KINDS)})$")],
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> dict[str, Any]:
        """What a partner has, for whoever wants to see what has arrived."""
        some = await stores[name].page(kind, after, limit)
        return {
            "items": [{"id": item.id, "version": item.version, **item.data} for item in some],
            "count": await stores[name].count(kind),
            "next": some[-1].seq if len(some) == limit else None,
        }

    @api.post("/simulator/{name}/order", status_code=201)
    async def buy(name: Name, bought: Bought) -> dict[str, int]:
        """Have customers over there order something, for the shop to fetch."""
        if name not in ("shopfront", "marketplace"):
            raise Problem(422, f"nobody orders at {name}", code="no_orders")
        for _ in range(bought.count):
            number = time.time_ns()
            price = rng.randrange(500, 9000)
            await stores[name].put("order", f"{name}-{number}", _order(name, number, price, rng))
        return {"made": bought.count}

    return service.finish()


async def _state(partner: Partner, store: Store) -> dict[str, Any]:
    return {
        **partner.spec.model_dump(),
        "calls": partner.calls_total,
        "refused": partner.refused_total,
        "objects": {kind: await store.count(kind) for kind in KINDS},
    }


def _order(name: str, number: int, price: int, rng: random.Random) -> dict[str, Any]:
    sku, quantity = f"p-{rng.randrange(1, 60):05d}", rng.choice((1, 1, 2))
    if name == "marketplace":
        return {
            "orderStatus": "Unshipped",
            "orderTotal": {"currencyCode": "EUR", "amount": f"{quantity * price / 100:.2f}"},
            "items": [{"sku": sku, "quantityOrdered": quantity}],
        }
    return {
        "name": f"#{number % 1_000_000}",
        "currency": "EUR",
        "total_price": f"{quantity * price / 100:.2f}",
        "line_items": [{"sku": sku, "quantity": quantity, "price": f"{price / 100:.2f}"}],
    }
