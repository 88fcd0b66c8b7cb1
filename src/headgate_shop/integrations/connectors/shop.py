"""Products to a shop platform, and its orders from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from headgate.mesh import Response, Service
from headgate_shop.integrations.connectors.connector import (
    Outgoing,
    Pulled,
    Pushed,
    Record,
    refusal,
)
from headgate_shop.integrations.line import Away, Line, Usage
from headgate_shop.partners.credentials import credential

__all__ = ["ShopConnector", "next_page", "usage"]

PREFIX: Final = "/shopfront/admin/api/2026-07"
PAGE: Final = 100
LEAK_S: Final = 0.5
"""Our idea of how fast the bucket leaks; the partner says only how full it is."""
_NEXT: Final = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


def usage(headers: Mapping[str, str]) -> Usage | None:
    used, slash, most = headers.get("x-shopfront-shop-api-call-limit", "").partition("/")
    if not slash or not (used.isascii() and used.isdigit() and most.isascii() and most.isdigit()):
        return None
    return Usage(float(used), float(most), LEAK_S)


def next_page(link: str) -> str:
    """The `page_info` of the next page, out of a `Link` header; empty where there is none."""
    found = _NEXT.search(link)
    if found is None:
        return ""
    return parse_qs(urlsplit(found[1]).query).get("page_info", [""])[0]


class ShopConnector:
    name: ClassVar[str] = "shop"
    title: ClassVar[str] = "Shop platform"
    partner: ClassVar[str] = "shopfront"
    batch: ClassVar[int] = 10
    rate: ClassVar[str] = "4/s"

    def __init__(self, secret: str, partner: Callable[[], Service]) -> None:
        self.line = Line(self.name, partner, rate=self.rate, usage=usage)
        self._headers = {"x-shopfront-access-token": credential(secret, self.partner)}

    async def push(self, outgoing: Sequence[Outgoing]) -> list[Pushed]:
        return [await self._product(one) for one in outgoing]

    async def _product(self, one: Outgoing) -> Pushed:
        body = {"product": _body(one)}
        number = one.remote_id or await self._number(body["product"]["handle"])
        if not number:
            if not one.payload["is_there"]:
                return Pushed(one.key)  # it never was there
            answer = await self._ask("POST", "/products.json", json=body)
            if answer.status_code == 422 and (
                number := await self._number(body["product"]["handle"])
            ):
                # Somebody, maybe ourselves in an attempt that was cut off, has made it.
                return await self._replaced(one, number, body)
            if not answer.is_success:
                return Pushed(one.key, refused=refusal(answer))
            return Pushed(one.key, str(answer.json()["product"]["id"]))
        return await self._replaced(one, number, body)

    async def _replaced(self, one: Outgoing, number: str, body: Mapping[str, Any]) -> Pushed:
        answer = await self._ask("PUT", f"/products/{number}.json", json=body)
        if not answer.is_success:
            return Pushed(one.key, refused=refusal(answer))
        return Pushed(one.key, number)

    async def _number(self, handle: str) -> str:
        answer = await self._ask("GET", "/products.json", params={"handle": handle})
        found = answer.json()["products"] if answer.is_success else []
        return str(found[0]["id"]) if found else ""

    async def pull(self, cursor: str) -> Pulled:
        """The cursor is the last order's number, or a page within a longer answer behind it."""
        since, _, page = cursor.partition("~")
        params = {"limit": str(PAGE)} | (
            {"page_info": page} if page else {"since_id": since or "0"}
        )
        answer = await self._ask("GET", "/orders.json", params=params)
        if not answer.is_success:
            raise Away(f"orders: {refusal(answer)}")
        records = [Record("order", str(one["id"]), one) for one in answer.json()["orders"]]
        last = records[-1].remote_id if records else since
        more = next_page(answer.headers.get("link", ""))
        return Pulled(records, f"{last}~{more}" if more else last, bool(more))

    async def _ask(self, method: str, path: str, **more: Any) -> Response:
        answer = await self.line.request(method, PREFIX + path, headers=self._headers, **more)
        if answer.status_code == 401:
            raise Away("the access token is not accepted")
        return answer


def _body(one: Outgoing) -> dict[str, Any]:
    product = one.payload
    handle = str(product["product_id"]).lower()
    handle = re.sub(r"[^a-z0-9-]", "-", handle)
    if not product["is_there"]:
        price = {"sku": str(product["product_id"]), "price": "0.00"}
        return {"handle": handle, "title": handle, "status": "archived", "variants": [price]}
    cents = int(product["price"])
    return {
        "handle": handle,
        "title": product["name"][:255],
        "product_type": product["category"],
        "status": "active",
        "variants": [
            {"sku": str(product["product_id"]), "price": f"{cents // 100}.{cents % 100:02d}"}
        ],
    }
