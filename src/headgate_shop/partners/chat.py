"""A chat system: one URL that takes messages and knows no other sign-in than itself."""

from __future__ import annotations

import random
from math import ceil
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from headgate_shop.partners.answers import Refused
from headgate_shop.partners.credentials import is_credential
from headgate_shop.partners.mood import Partner, Refusal
from headgate_shop.partners.store import Store

__all__ = ["PREFIX", "partner", "router"]

PREFIX: Final = "/chat/hooks"


def partner(rng: random.Random) -> Partner:
    return Partner(
        "chat",
        rate=5.0,
        burst=10,
        too_many=lambda wait_s: Refusal(
            429, {"ok": False, "error": "rate_limited"}, {"retry-after": str(ceil(wait_s))}
        ),
        told=lambda *_: {},
        rng=rng,
    )


class Post(BaseModel):
    text: str = Field(min_length=1, max_length=4000)
    client_msg_id: str = Field(default="", max_length=128)
    """A message that was shown is not shown again."""


def router(store: Store, key: str) -> APIRouter:
    api = APIRouter(prefix=PREFIX)

    @api.post("/{token}")
    async def post(token: str, message: Post) -> Response:
        if not is_credential(token, key):
            raise Refused(404, "no_service")
        name = message.client_msg_id or f"message-{await store.count('message') + 1}"
        await store.put("message", name, message.model_dump(), is_new=True)
        return PlainTextResponse("ok")

    return api
