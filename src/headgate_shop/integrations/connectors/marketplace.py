"""Products to a marketplace as feed documents, and its orders from there.

A feed is worked through later: it is uploaded, and asked for until it is done. If we are cut off in
between, the same listings go out in another feed, which changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from headgate.mesh import Response, Service
from headgate_shop.integrations.connectors.connector import (
    Outgoing,
    Pulled,
    Pushed,
    Record,
    refusal,
)
from headgate_shop.integrations.line import Away, Line
from headgate_shop.partners.credentials import CLIENT_ID, credential

__all__ = ["MarketplaceConnector"]

PREFIX: Final = "/marketplace"
EARLY_S: Final = 30.0
"""A token is exchanged so long before its end."""
FEED_WAIT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.25
PAGE: Final = 100


class MarketplaceConnector:
    name: ClassVar[str] = "marketplace"
    title: ClassVar[str] = "Marketplace"
    partner: ClassVar[str] = "marketplace"
    batch: ClassVar[int] = 100
    rate: ClassVar[str] = "5/s"

    def __init__(
        self,
        secret: str,
        partner: Callable[[], Service],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.line = Line(self.name, partner, rate=self.rate)
        self._secret = credential(secret, self.partner)
        self._clock, self._sleep = clock, sleep
        self._token, self._token_until = "", 0.0
        self._turn = asyncio.Lock()

    async def push(self, outgoing: Sequence[Outgoing]) -> list[Pushed]:
        document = await self._made("/feeds/documents", {"contentType": "application/json"})
        feed = {"messages": [_message(one) for one in outgoing]}
        uploaded = await self._ask("PUT", document["url"], content=json.dumps(feed).encode())
        if not uploaded.is_success:
            raise Away(f"upload: {refusal(uploaded)}")
        wanted = {
            "feedType": "JSON_LISTINGS",
            "inputFeedDocumentId": document["feedDocumentId"],
        }
        made = await self._made("/feeds", wanted)
        report = await self._report(made["feedId"])
        told = {str(one.get("sku")): one for one in report.get("messages", [])}
        found: list[Pushed] = []
        for one in outgoing:
            sku = str(one.payload["product_id"])
            said = told.get(sku)
            if said is None:
                raise Away(f"the feed's report does not name {sku}")
            issues = "; ".join(str(issue) for issue in said.get("issues", []))
            is_fine = said.get("status") == "ACCEPTED"
            found.append(Pushed(one.key, sku, refused="" if is_fine else issues or "refused"))
        return found

    async def _made(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._ask("POST", PREFIX + path, json=body)
        if not answer.is_success:
            raise Away(f"{path}: {refusal(answer)}")
        found: dict[str, Any] = answer.json()
        return found

    async def _report(self, feed: str) -> dict[str, Any]:
        until = self._clock() + FEED_WAIT_S
        while True:
            answer = await self._ask("GET", f"{PREFIX}/feeds/{feed}")
            if not answer.is_success:
                raise Away(f"feed: {refusal(answer)}")
            state = answer.json()
            if state["processingStatus"] == "DONE":
                report = await self._ask(
                    "GET", f"{PREFIX}/feeds/documents/{state['resultFeedDocumentId']}"
                )
                if not report.is_success:
                    raise Away(f"report: {refusal(report)}")
                found: dict[str, Any] = report.json()
                return found
            if state["processingStatus"] in ("FATAL", "CANCELLED") or self._clock() > until:
                raise Away(f"feed {feed} is {state['processingStatus']}")
            await self._sleep(LOOK_EVERY_S)

    async def pull(self, cursor: str) -> Pulled:
        params = {"limit": str(PAGE)} | ({"nextToken": cursor} if cursor else {})
        answer = await self._ask("GET", f"{PREFIX}/orders", params=params)
        if not answer.is_success:
            raise Away(f"orders: {refusal(answer)}")
        payload = answer.json()["payload"]
        records = [
            Record("order", str(one["marketplaceOrderId"]), one) for one in payload["orders"]
        ]
        return Pulled(records, str(payload.get("nextToken") or cursor), len(records) == PAGE)

    async def _ask(self, method: str, path: str, **more: Any) -> Response:
        for is_last in (False, True):
            headers = {"authorization": f"Bearer {await self._signed_in()}"}
            answer = await self.line.request(method, path, headers=headers, **more)
            if answer.status_code != 401:
                return answer
            self._token = ""  # it ended sooner than was said
            if is_last:
                break
        raise Away("the token is not accepted")

    async def _signed_in(self) -> str:
        async with self._turn:
            if self._token and self._clock() < self._token_until:
                return self._token
            answer = await self.line.request(
                "POST",
                f"{PREFIX}/auth/o2/token",
                data={
                    "grant_type": "client_credentials",
                    "client_id": CLIENT_ID,
                    "client_secret": self._secret,
                },
            )
            if not answer.is_success:
                raise Away(f"sign-in: {refusal(answer)}")
            made = answer.json()
            self._token = str(made["access_token"])
            self._token_until = self._clock() + max(0.0, float(made["expires_in"]) - EARLY_S)
            return self._token


def _message(one: Outgoing) -> dict[str, Any]:
    product = one.payload
    sku = str(product["product_id"])
    if not product["is_there"]:
        return {"sku": sku, "operation": "DELETE"}
    return {
        "sku": sku,
        "operation": "UPDATE",
        "title": product["name"],
        "productType": product["category"],
        "price": int(product["price"]) / 100,
        "currency": "EUR",
    }
