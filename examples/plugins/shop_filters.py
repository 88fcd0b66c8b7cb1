"""Six plugins, from the simplest to one that waits: see docs/howto/plugins.md."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from headgate.gateway.filters import (
    Filter,
    FilterContext,
    Identity,
    Outcome,
    Reply,
    Request,
    Response,
)
from headgate.security.method import Parts

log = logging.getLogger("shop_filters")


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


class Consumer(BaseModel, extra="forbid"):
    name: str
    key: SecretStr
    tier: str = ""


class ApiKeys(Filter):
    """Says whose key came with a request, for limits by consumer and tier."""

    class Options(Filter.Options):
        consumers: tuple[Consumer, ...]
        header: str = "x-api-key"

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.header = options.header
        # By digest: how long the search takes tells nothing about the keys.
        self.known = {
            _digest(consumer.key.get_secret_value()): Identity(
                subject=consumer.name, api_key=consumer.name, tier=consumer.tier
            )
            for consumer in options.consumers
        }

    def on_request(self, request: Request) -> Reply | None:
        key = request.headers.get(self.header)
        if key is None:
            return None  # nobody we know, which a limit counts by its address
        request.identity = self.known.get(_digest(key))
        if request.identity is None:
            return Reply(401, b"no such key\n")
        request.headers.remove(self.header)  # the service need not know it
        return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


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

    def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes | Reply:
        expected = hmac.new(self.key, chunk, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(request.headers.get(self.header) or "", expected):
            return Reply(401, b"the signature does not match\n")
        return chunk


class Trap(Filter):
    """Answers 404 on paths that only scanners ask for, and tells the rules of `bans` who did."""

    class Options(Filter.Options):
        paths: tuple[str, ...] = ("/.env", "/wp-login.php", "/.git/config")
        weight: float = Field(10.0, gt=0)
        """As how many broken requests one of these counts."""

    # Before anybody is asked who they are: a scanner has no token.
    is_early = True

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.paths = frozenset(options.paths)
        self.weight = options.weight
        self.parts: Parts | None = None

    def start(self, parts: Parts) -> None:
        # Not called where a configuration is only checked.
        self.parts = parts

    def on_request(self, request: Request) -> Reply | None:
        if request.path not in self.paths:
            return None
        if self.parts is not None:
            self.parts.suspect(request.client_ip, "malformed", self.weight)
            self.parts.count("trap", "sprung")
            self.parts.note("trap", {"client_ip": request.client_ip, "path": request.path})
        return Reply(404, b"not found\n")


class Redirects(Filter):
    """Looks up where a short link leads, in a file that others may change; waits for it."""

    class Options(Filter.Options):
        file: Path
        reread_every: float = Field(10.0, gt=0)
        """Seconds."""

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.file = options.file
        self.reread_every = options.reread_every
        self.links: dict[str, str] = {}
        self.read_at = float("-inf")

    def on_request(self, request: Request) -> Reply | Awaitable[Reply | None] | None:
        # The common path answers at once; only a request that must wait becomes a task.
        if time.monotonic() - self.read_at < self.reread_every:
            return self.answer(request)
        return self.answer_later(request)

    async def answer_later(self, request: Request) -> Reply | None:
        self.read_at = time.monotonic()  # first, so that the requests behind do not read it too
        self.links = json.loads(await asyncio.to_thread(self.file.read_text, "utf-8"))
        return self.answer(request)

    def answer(self, request: Request) -> Reply | None:
        target = self.links.get(request.path)
        return Reply(302, headers=(("location", target),)) if target else None


class SlowRequests(Filter):
    """Names the requests that took long, with a mark that the service set on its answer."""

    class Options(Filter.Options):
        threshold: float = Field(1.0, gt=0)
        """Seconds."""

    def __init__(self, options: Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self.threshold_s = options.threshold

    def on_response(self, request: Request, response: Response) -> None:
        # One filter object serves all requests: what belongs to this one is kept in its state.
        request.state["slow.query"] = response.headers.get("x-slow-query")
        response.headers.remove("x-slow-query")

    def on_end(self, request: Request, outcome: Outcome) -> None:
        if outcome.duration_s > self.threshold_s:
            log.warning(
                "%s %s took %.3f s on %s; slowest query: %s",
                request.method,
                request.path,
                outcome.duration_s,
                outcome.instance,
                request.state.get("slow.query"),
            )
