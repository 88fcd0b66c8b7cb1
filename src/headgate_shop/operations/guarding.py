"""Nobody else's page may press a button here.

The gateway refuses what browsers say comes from another site. Beside that, each change brings a
token that stands in the page: a page of another origin cannot read it, whatever browser sends it,
and a change must be JSON, which no form of another page can send unasked.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from headgate.kit import Problem

__all__ = ["Guard"]

HEADER: Final = "x-csrf-token"


class Guard:
    def __init__(self, secret: str) -> None:
        # Without one, pages from before a restart of the service have to be loaded again.
        self._key = secret.encode() or secrets.token_bytes(32)

    def token(self, subject: str) -> str:
        """It holds for one person."""
        said = f"operations csrf {subject}".encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()

    def check(self, headers: Mapping[str, str], subject: str) -> None:
        """Raises a Problem unless the request comes from our own page."""
        site = headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            raise Problem(403, f"this came from a page that is {site}", code="csrf")
        shown = headers.get(HEADER, "")
        if not hmac.compare_digest(shown.encode(), self.token(subject).encode()):
            raise Problem(
                403, "the page's token is missing or old: load the page again", code="csrf"
            )
