"""What a route asks of a request beside host and path: headers, query, cookies, and how it came.

Theory of operation
-------------------
- Headers: several lines of one field are joined with ", " first (RFC 9110 5.3).
- Query: keys and values are decoded as forms are (`+` is a space). A key given twice has two
  values and a condition holds if one of them fits. Instances do not agree which of two counts,
  so a condition on the query is for steering, not for keeping anybody out.
- Cookies: read leniently, as servers do (RFC 6265 5.2 is about clients; there is no grammar
  anybody keeps to): pieces between semicolons, those without "=" are skipped, quotes around a
  value are dropped, nothing is decoded. Like the query, one fitting value is enough.
- Scheme: `http` or `https`, as the client itself spoke: on the connection, or, where a trusted
  proxy has ended its TLS, in that proxy's words. Listener: the one that took the connection, by
  what logs call it. Both are known before any byte of the head, and both are settled by the head
  and the listener together, so that an answer that looked at them may be kept for that listener.

Values are compared letter by letter; a regex has to match the whole value. What a client sends
cannot raise here: bytes are read as latin-1, broken escapes stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote_plus

from headgate.wire.message import Header, find

__all__ = ["Check", "Condition", "MatchInput", "Source", "shown"]

Source = Literal["header", "query", "cookie", "scheme", "listener"]

_SHOWN_MAX: Final = 80


class MatchInput:
    """The parts of a request that routes may look at."""

    __slots__ = (
        "_cookies",
        "_query",
        "client_ip",
        "headers",
        "host",
        "listener",
        "method",
        "path",
        "query",
        "scheme",
    )

    def __init__(
        self,
        method: str,
        host: str,
        path: str,
        query: str = "",
        headers: tuple[Header, ...] = (),
        client_ip: str = "",
        scheme: str = "",
        listener: str = "",
    ) -> None:
        self.method = method
        self.host = host
        self.path = path
        self.query = query
        self.headers = headers
        self.client_ip = client_ip
        self.scheme = scheme
        self.listener = listener
        self._query: dict[str, list[str]] | None = None
        self._cookies: dict[str, list[str]] | None = None

    def header(self, name: bytes) -> str | None:
        value = find(self.headers, name)
        return None if value is None else value.decode("latin-1")

    def query_values(self, key: str) -> Sequence[str]:
        if self._query is None:
            self._query = _grouped(_read_query(self.query)) if self.query else {}
        return self._query.get(key, ())

    def cookie_values(self, name: str) -> Sequence[str]:
        if self._cookies is None:
            self._cookies = _grouped(
                pair
                for key, value in self.headers
                if key == b"cookie"  # HTTP/2 may send one cookie a line (RFC 9113 8.2.3)
                for pair in _read_cookies(value.decode("latin-1"))
            )
        return self._cookies.get(name, ())

    def __repr__(self) -> str:
        """Return the request line; headers and query may hold secrets."""
        return f"<MatchInput {self.method} {self.host}{self.path}>"


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _read_query(query: str) -> Iterable[tuple[str, str]]:
    # Not urllib's parse_qsl: it raises beyond a number of fields and drops empty values.
    for piece in query.split("&"):
        if piece:
            key, _, value = piece.partition("=")
            yield unquote_plus(key), unquote_plus(value)


def _read_cookies(line: str) -> Iterable[tuple[str, str]]:
    for piece in line.split(";"):
        name, equals, value = piece.partition("=")
        if equals:
            value = value.strip(" \t")
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            yield name.strip(" \t"), value


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a rule asks for, whether a request has it, and the reason in words."""

    what: str
    """`host`, `path`, `method`, `header x-tier`, `query v`, `cookie lab`, `scheme`, `listener` or
    `client_ip`."""
    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a header, a query key, a cookie, the scheme or the listener.

    With neither value, values nor pattern: that it is there, or with `absent`, that it is not.
    """

    source: Source
    name: str
    equals: str | None = None
    pattern: re.Pattern[str] | None = None
    absent: bool = False
    key: bytes = field(default=b"", compare=False)
    one_of: frozenset[str] = frozenset()

    def values(self, request: MatchInput) -> Sequence[str]:
        if self.source == "header":
            value = request.header(self.key)
            return () if value is None else (value,)
        if self.source == "query":
            return request.query_values(self.name)
        if self.source == "cookie":
            return request.cookie_values(self.name)
        return (request.scheme if self.source == "scheme" else request.listener,)

    def holds(self, request: MatchInput) -> bool:
        values = self.values(request)
        if self.equals is not None:
            return self.equals in values
        if self.pattern is not None:
            fits = self.pattern.fullmatch
            return any(fits(value) is not None for value in values)
        if self.one_of:
            return not self.one_of.isdisjoint(values)
        return bool(values) is not self.absent

    def check(self, request: MatchInput) -> Check:
        what = f"{self.source} {self.name}" if self.name else self.source
        values = self.values(request)
        got = f"got {', '.join(shown(v) for v in values)}" if values else "there is none"
        if self.equals is not None:
            wanted = f"wanted {shown(self.equals)}"
        elif self.pattern is not None:
            wanted = f"wanted a match of {shown(self.pattern.pattern)}"
        elif self.one_of:
            wanted = f"wanted one of {', '.join(shown(v) for v in sorted(self.one_of))}"
        else:
            wanted = "wanted none" if self.absent else "wanted any value"
        return Check(what, self.holds(request), f"{what}: {wanted}, {got}")


def shown(value: str) -> str:
    """A value in quotes, of bounded length and without anything a terminal would act on."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value[:_SHOWN_MAX])
    return f'"{text}..."' if len(value) > _SHOWN_MAX else f'"{text}"'
