"""The digest of a request's body against `Content-Digest` (RFC 9530).

Theory of operation. A signature covers the field `content-digest`; that the field tells the truth
about the body is seen only here. The body is gathered, its digests are made, and nothing of it goes
on before all that we know (`sha-256`, `sha-512`) are right. Digests of other kinds are passed over,
but one that we know must be there.

With `required`, a body without the field is refused: that is what a route of signed requests needs,
because a request head of HTTP/2 need not tell that a body follows. Without it, only what is there
is checked. `only_for` leaves alone what other methods let in on the same route.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Final

from headgate.config.auth_keys import ContentDigestSpec
from headgate.gateway.filters.base import Filter, FilterContext, Reply, Request
from headgate.security.signatures import read_content_digest
from headgate.units import KB

_IN_A_THREAD_BYTES: Final = 256 * KB  # a fifth of a millisecond on the loop
_STATE: Final = "headgate.content_digest"
_Digests = list[tuple[Callable[[bytes], bytes], bytes]]


class ContentDigest(Filter):
    """Checks the bodies of one route."""

    def __init__(self, spec: ContentDigestSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        self.request_body_max = spec.max_body
        self._is_required = spec.required
        self._only_for = frozenset(spec.only_for)
        self._key = f"{_STATE}:{','.join(spec.only_for)}"  # a route may have several

    def on_request(self, request: Request) -> Reply | None:
        if self._only_for:
            identity = request.identity
            if identity is None or identity.method not in self._only_for:
                return None
        fields = request.headers.get_all("content-digest")
        digests: _Digests = []
        if fields:
            try:
                digests = read_content_digest(", ".join(fields))
            except ValueError as error:
                return _refusal(f"Content-Digest {error}.")
            if not digests:
                return _refusal("Content-Digest has neither sha-256 nor sha-512.")
            # A known body of nothing has no hook of its own.
            if request.length == 0 and not _all_hold(digests, b""):
                return _refusal(_WRONG)
        elif self._is_required and request.length > 0:
            return _refusal(_MISSING)
        request.state[self._key] = digests
        return None

    def on_request_body(
        self, request: Request, chunk: bytes, last: bool
    ) -> bytes | Reply | Awaitable[bytes | Reply]:
        digests = request.state.get(self._key)
        if not isinstance(digests, list):
            return chunk  # not for us
        if not digests:
            if chunk and self._is_required:
                return _refusal(_MISSING)
            return chunk
        if len(chunk) > _IN_A_THREAD_BYTES:
            return self._later(digests, chunk)
        return chunk if _all_hold(digests, chunk) else _refusal(_WRONG)

    async def _later(self, digests: _Digests, chunk: bytes) -> bytes | Reply:
        is_right = await asyncio.to_thread(_all_hold, digests, chunk)
        return chunk if is_right else _refusal(_WRONG)


_WRONG: Final = "The body is not the one that Content-Digest was made of."
_MISSING: Final = "A body needs a Content-Digest."


def _all_hold(digests: _Digests, body: bytes) -> bool:
    return all(hmac.compare_digest(made(body), said) for made, said in digests)


def _refusal(reason: str) -> Reply:
    body = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": reason}
    return Reply(
        400,
        json.dumps(body).encode(),
        (
            ("content-type", "application/problem+json"),
            ("want-content-digest", "sha-256=10, sha-512=5"),
        ),
    )
