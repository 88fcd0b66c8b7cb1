"""A shop platform: REST with a body per resource, pages by `Link`, and a leaky bucket that every
answer tells of.
"""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from headgate_shop.partners.answers import Refused
from headgate_shop.partners.credentials import is_credential
from headgate_shop.partners.mood import Partner, Refusal
from headgate_shop.partners.store import Store, Stored

__all__ = ["PREFIX", "partner", "router"]

PREFIX: Final = "/shopfront/admin/api/2026-07"
BUCKET: Final = 40
LEAK: Final = 4.0
PAGE_MAX: Final = 250
NUMBER_MAX: Final = 2**53


def partner(rng: random.Random) -> Partner:
    return Partner(
        "shopfront",
        rate=LEAK,
        burst=BUCKET,
        too_many=lambda wait_s: Refusal(
            429,
            {"errors": "Exceeded the call limit of your shop. Reduce request rates."},
            {"retry-after": f"{max(0.1, wait_s):.1f}"},
        ),
        told=lambda used, most: {"x-shopfront-shop-api-call-limit": f"{used}/{most}"},
        rng=rng,
    )


class Variant(BaseModel):
    sku: str = Field(max_length=64)
    price: str = Field(pattern=r"^\d{1,9}\.\d\d$")


class Product(BaseModel):
    model_config = ConfigDict(extra="ignore")

    handle: str = Field(pattern=r"^[a-z0-9-]{1,100}$")
    title: str = Field(min_length=1, max_length=255)
    product_type: str = ""
    status: str = Field(default="active", pattern="^(active|archived)$")
    variants: list[Variant] = Field(min_length=1, max_length=100)


class Body(BaseModel):
    product: Product


def router(store: Store, key: str) -> APIRouter:
    async def signed_in(x_shopfront_access_token: Annotated[str, Header()] = "") -> None:
        if not is_credential(x_shopfront_access_token, key):
            raise Refused(401, {"errors": "[API] Invalid API key or access token"})

    api = APIRouter(prefix=PREFIX, dependencies=[Depends(signed_in)])

    @api.get("/products.json")
    async def products(
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        page_info: str = "",
        handle: str = "",
    ) -> dict[str, Any]:
        if handle:
            found = await store.find("product", handle)
            return {"products": [_product(found)] if found is not None else []}
        some = await _page(store, "product", request, response, limit, _after(page_info))
        return {"products": [_product(one) for one in some]}

    @api.post("/products.json", status_code=201)
    async def create(body: Body) -> dict[str, Any]:
        made = await store.put(
            "product", body.product.handle, body.product.model_dump(), is_new=True
        )
        if made is None:
            raise Refused(422, {"errors": {"handle": ["has already been taken"]}})
        return {"product": _product(made)}

    @api.put("/products/{number}.json")
    async def replace(
        number: Annotated[int, Path(ge=0, le=NUMBER_MAX)], body: Body
    ) -> dict[str, Any]:
        there = await store.numbered("product", number)
        if there is None:
            raise Refused(404, {"errors": "Not Found"})
        if there.id != body.product.handle:
            raise Refused(422, {"errors": {"handle": ["cannot be changed"]}})
        made = await store.put("product", there.id, body.product.model_dump())
        return {"product": _product(made or there)}

    @api.get("/orders.json")
    async def orders(
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        page_info: str = "",
        since_id: Annotated[int, Query(ge=0, le=NUMBER_MAX)] = 0,
    ) -> dict[str, Any]:
        after = _after(page_info)
        if since_id and not after:
            known = await store.numbered("order", since_id)
            after = known.seq if known is not None else 0
        some = await _page(store, "order", request, response, limit, after)
        return {
            "orders": [{"id": one.number, "created_at": _iso(one.at), **one.data} for one in some]
        }

    return api


async def _page(
    store: Store, kind: str, request: Request, response: Response, limit: int, after: int
) -> list[Stored]:
    some = list(await store.page(kind, after, limit + 1))
    if len(some) > limit:
        some.pop()
        info = base64.urlsafe_b64encode(json.dumps({"after": some[-1].seq}).encode()).decode()
        following = request.url.include_query_params(page_info=info, limit=limit)
        response.headers["link"] = f'<{following}>; rel="next"'
    return some


def _after(page_info: str) -> int:
    if not page_info:
        return 0
    try:
        after = json.loads(base64.urlsafe_b64decode(page_info.encode()))["after"]
    except (ValueError, KeyError, TypeError):
        raise Refused(400, {"errors": {"page_info": "Invalid value."}}) from None
    if isinstance(after, int) and 0 <= after <= NUMBER_MAX:
        return after
    raise Refused(400, {"errors": {"page_info": "Invalid value."}})


def _product(one: Stored) -> dict[str, Any]:
    return {"id": one.number, "updated_at": _iso(one.at), **one.data}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
