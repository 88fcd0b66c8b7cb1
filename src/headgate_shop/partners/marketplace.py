"""A marketplace: tokens by client credentials, and products as feed documents that are worked
through later.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Header, Query, Request
from pydantic import BaseModel

from headgate_shop.partners.answers import Refused
from headgate_shop.partners.credentials import CLIENT_ID, is_credential
from headgate_shop.partners.mood import Partner, Refusal
from headgate_shop.partners.store import Store

__all__ = ["PREFIX", "partner", "router"]

PREFIX: Final = "/marketplace"
TOKEN_S: Final = 300
PROCESSING_S: Final = 0.3
FEED_BYTES: Final = 1024 * 1024
MESSAGES_MAX: Final = 1000


def partner(rng: random.Random) -> Partner:
    return Partner(
        "marketplace",
        rate=5.0,
        burst=20,
        too_many=lambda _: Refusal(
            429, _errors("QuotaExceeded", "You exceeded your quota for the requested resource.")
        ),
        told=lambda *_: {"x-marketplace-ratelimit-limit": "5.0"},
        rng=rng,
    )


class Document(BaseModel):
    contentType: str  # noqa: N815 - the partner's own


class Feed(BaseModel):
    feedType: str  # noqa: N815
    inputFeedDocumentId: str  # noqa: N815


def router(store: Store, key: str) -> APIRouter:
    async def signed_in(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not _is_valid(token, key):
            raise Refused(401, _errors("Unauthorized", "Access token is missing or has expired."))

    api = APIRouter(prefix=PREFIX)
    inside = [Depends(signed_in)]

    @api.post("/auth/o2/token")
    async def token(
        grant_type: Annotated[str, Form()],
        client_id: Annotated[str, Form()],
        client_secret: Annotated[str, Form()],
    ) -> dict[str, Any]:
        if grant_type != "client_credentials":
            raise Refused(400, {"error": "unsupported_grant_type"})
        if client_id != CLIENT_ID or not is_credential(client_secret, key):
            raise Refused(401, {"error": "invalid_client"})
        until = int(_wall()) + TOKEN_S
        made = f"{until}.{_signature(until, key)}"
        return {"access_token": made, "token_type": "bearer", "expires_in": TOKEN_S}

    @api.post("/feeds/documents", status_code=201, dependencies=inside)
    async def document(wanted: Document) -> dict[str, str]:
        if not wanted.contentType.startswith("application/json"):
            raise Refused(400, _errors("InvalidInput", "contentType must be application/json"))
        made = f"doc-{secrets.token_hex(12)}"
        await store.put("document", made, {"content": None})
        return {"feedDocumentId": made, "url": f"{PREFIX}/feeds/documents/{made}/content"}

    @api.put("/feeds/documents/{made}/content")
    async def upload(made: str, request: Request) -> dict[str, str]:
        """Whoever has the URL may write: its name is the secret."""
        there = await store.find("document", made)
        if there is None or there.data["content"] is not None:
            raise Refused(404, _errors("NotFound", "no such document, or it is written already"))
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > FEED_BYTES:
                raise Refused(413, _errors("InvalidInput", f"more than {FEED_BYTES} bytes"))
        await store.put("document", made, {"content": content.decode("utf-8", "replace")})
        return {}

    @api.post("/feeds", status_code=202, dependencies=inside)
    async def feed(wanted: Feed) -> dict[str, str]:
        source = await store.find("document", wanted.inputFeedDocumentId)
        if wanted.feedType != "JSON_LISTINGS" or source is None or source.data["content"] is None:
            raise Refused(400, _errors("InvalidInput", "feedType or inputFeedDocumentId"))
        made = f"feed-{hashlib.sha256(source.id.encode()).hexdigest()[:16]}"
        if await store.find("feed", made) is None:
            report = await _work(store, source.data["content"])
            await store.put("document", f"{made}-report", {"content": json.dumps(report)})
            await store.put("feed", made, {"report": f"{made}-report"})
        return {"feedId": made}

    @api.get("/feeds/{made}", dependencies=inside)
    async def feed_state(made: str) -> dict[str, Any]:
        there = await store.find("feed", made)
        if there is None:
            raise Refused(404, _errors("NotFound", "no such feed"))
        age_s = _wall() - there.at
        if age_s < PROCESSING_S:
            state = "IN_QUEUE" if age_s < PROCESSING_S / 3 else "IN_PROGRESS"
            return {"feedId": made, "processingStatus": state}
        return {
            "feedId": made,
            "processingStatus": "DONE",
            "resultFeedDocumentId": there.data["report"],
        }

    @api.get("/feeds/documents/{made}", dependencies=inside)
    async def read(made: str) -> Any:
        there = await store.find("document", made)
        if there is None or there.data["content"] is None:
            raise Refused(404, _errors("NotFound", "no such document"))
        return json.loads(there.data["content"])

    @api.get("/orders", dependencies=inside)
    async def orders(
        nextToken: Annotated[str, Query(max_length=15)] = "",  # noqa: N803
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
    ) -> dict[str, Any]:
        if nextToken and not (nextToken.isascii() and nextToken.isdigit()):
            raise Refused(400, _errors("InvalidInput", "nextToken"))
        some = await store.page("order", int(nextToken or 0), limit)
        shown: dict[str, Any] = {
            "orders": [{"marketplaceOrderId": one.id, **one.data} for one in some]
        }
        if some:
            shown["nextToken"] = str(some[-1].seq)
        return {"payload": shown}

    return api


async def _work(store: Store, content: str) -> dict[str, Any]:
    """Take the listings of a document, one by one; what is wrong with one is told of it alone."""
    try:
        messages = json.loads(content)["messages"]
        if not isinstance(messages, list) or len(messages) > MESSAGES_MAX:
            raise ValueError("messages")
    except (ValueError, KeyError, TypeError):
        return {
            "summary": {"messagesInvalid": 1},
            "issues": [{"code": "malformed"}],
            "messages": [],
        }
    found = []
    for message in messages:
        issue = _issue(message)
        if issue:
            sku = str(message.get("sku", "")) if isinstance(message, dict) else ""
            found.append({"sku": sku, "status": "INVALID", "issues": [issue]})
            continue
        await store.put("listing", message["sku"], message)
        found.append({"sku": message["sku"], "status": "ACCEPTED", "issues": []})
    bad = sum(one["status"] == "INVALID" for one in found)
    return {"summary": {"messagesInvalid": bad}, "messages": found}


def _issue(message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("sku"), str):
        return "sku is missing"
    if message.get("operation") not in ("UPDATE", "DELETE"):
        return "operation is not UPDATE or DELETE"
    if message["operation"] == "UPDATE" and not isinstance(message.get("price"), int | float):
        return "price is missing"
    return ""


def _errors(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


def _signature(until: int, key: str) -> str:
    return hmac.new(key.encode(), f"token {until}".encode(), hashlib.sha256).hexdigest()


def _is_valid(token: str, key: str) -> bool:
    until, _, signature = token.partition(".")
    if not (until.isascii() and until.isdigit() and len(until) < 16):
        return False
    return is_credential(signature, _signature(int(until), key)) and int(until) > _wall()


def _wall() -> float:
    return time.time()  # noqa: TID251 - tokens and documents live in wall time
