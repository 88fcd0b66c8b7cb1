"""Cursors: where a list goes on, as a text that says nothing and that nobody else can make.

What is in one is JSON with a keyed digest before it. It is not encrypted: there is nothing in it
that the page before did not show. A cursor that was cut, changed or made up is told from a good
one, so what is in it may be believed as if it had been kept here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any, Final

__all__ = ["CURSOR_MAX", "Cursors"]

CURSOR_MAX: Final = 600
_DIGEST: Final = 12


class Cursors:
    def __init__(self, secret: str) -> None:
        """All processes that shall take each other's cursors have the same secret."""
        self._key = hashlib.sha256(b"shop cursors\0" + secret.encode()).digest()

    def write(self, place: list[Any]) -> str:
        body = json.dumps(place, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(self._digest(body) + body).rstrip(b"=").decode()

    def read(self, text: str) -> list[Any] | None:
        """None for what is not a cursor of ours."""
        if not 16 <= len(text) <= CURSOR_MAX or not text.isascii():
            return None
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        digest, body = raw[:_DIGEST], raw[_DIGEST:]
        if not hmac.compare_digest(digest, self._digest(body)):
            return None
        place = json.loads(body)
        return place if isinstance(place, list) else None

    def _digest(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_DIGEST]
