"""Where in a request a token stands (RFC 6750 section 2).

Theory of operation. `Authorization: Bearer` and whatever other places the file names. One token in
two places is one token; two different ones, or two header fields, are refused, because another
reader behind us might take the one that we did not look at.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, unquote_plus

from headgate.security.method import Shown, Strips, cookies, headers

_BEARER: Final = b"bearer "
AUTHORIZATION: Final = b"authorization"


def bare(value: bytes, *, needs_scheme: bool) -> bytes | None:
    """The token of a header field; None when the field is of another scheme."""
    if value[:7].lower() == _BEARER:
        return value[7:].strip(b" ") or None
    if needs_scheme:
        return None
    return value.strip(b" ") or None


class Places:
    """The header, cookies and query parameters to look at."""

    def __init__(self, header: str, cookie_names: tuple[str, ...], query: tuple[str, ...]) -> None:
        self.header = header.lower().encode("latin-1")
        self.needs_scheme = self.header == AUTHORIZATION
        self._cookies = tuple(name.encode() for name in cookie_names)
        self._query = frozenset(query)
        self.is_header_only = not (cookie_names or query)
        self.strips = Strips(
            headers=frozenset({self.header}),
            query=self._query,
            cookies=frozenset(self._cookies),
        )

    def find(self, shown: Shown) -> bytes | bool | None:
        """The token; None where there is none, True where there are several."""
        fields = headers(shown, self.header)
        found = {
            token
            for field in fields
            if (token := bare(field, needs_scheme=self.needs_scheme)) is not None
        }
        if found and len(fields) > 1:
            return True
        for name in self._cookies:
            said = cookies(shown, name)
            if len(said) > 1:
                return True
            found.update(token for token in said if token)
        if self._query and shown.query:
            for pair in shown.query.removeprefix("?").split("&"):
                name_text, _, value = pair.partition("=")
                if value and unquote_plus(name_text) in self._query:
                    found.add(unquote(value).encode("utf-8", "replace"))
        if len(found) > 1:
            return True
        return next(iter(found), None)
