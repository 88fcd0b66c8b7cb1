"""Three plugins, from the simplest to one that waits: see docs/howto/plugins.md."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable
from typing import Any

from pydantic import BaseModel, Field, SecretStr

from headgate.gateway.filters import Filter, FilterContext, Outcome, Reply, Request, Response


class Maintenance(Filter):
    """Answers 503 to everyone but the people who are repairing the service."""

    class Options(Filter.Options):
        allow: tuple[str, ...] = ()
        """Addresses of clients that are let through."""
        retry_after: int = Field(60, ge=0)
        """Seconds after which clients should come back."""

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.allow = frozenset(options.allow)
        body = json.dumps({"title": "Down for maintenance", "status": 503}).encode()
        # What does not depend on the request is made once, here.
        self.reply = Reply(
            503,
            body,
            (
                ("content-type", "application/problem+json"),
                ("retry-after", str(options.retry_after)),
            ),
        )

    def on_request(self, request: Request) -> Reply | None:
        return None if request.client_ip in self.allow else self.reply


class SignedWebhook(Filter):
    """Lets a webhook through only if its body is signed with a shared secret."""

    class Options(Filter.Options):
        secret: SecretStr
        header: str = "x-signature"

    # The whole body is needed before a byte of it may be forwarded: up to 64 KB, then 413.
    request_body_max = 64 * 1024

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.key = options.secret.get_secret_value().encode()
        self.header = options.header

    def on_request(self, request: Request) -> Reply | None:
        if self.header not in request.headers:
            return Reply(401, b"no signature\n")
        return None

    def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes:
        expected = hmac.new(self.key, chunk, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(request.headers.get(self.header) or "", expected):
            raise Reply401
        return chunk
