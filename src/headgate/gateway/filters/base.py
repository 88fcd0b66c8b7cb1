"""The interface of a filter: what plugins and our own header and compression filters implement.

Theory of operation. A filter is built once per route when the plan is built and lives as long as
the plan. Each request passes the hooks of its route's filters: `on_request` and
`on_request_body` in file order, `on_response` and `on_response_body` in the reverse order (the
filter nearest to the upstream sees the response first), `on_end` once at the end whatever
happened. A hook answers at once or hands back an awaitable; only the latter costs a task.

What an editor must not break:
- Names and values put into `Headers` can never break the framing of a message: CR, LF, NUL and
  the names that say where a message ends or how it is routed are refused when they are set, so
  that no filter can be talked into response splitting or smuggling.
- A filter object is shared by all requests of a route: what belongs to one request is kept in
  `request.state`, under a key of the filter's own.
- Hooks that are not overridden cost nothing: `chain.build_chain` reads once which ones are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel

from headgate.security.identity import Identity
from headgate.security.method import Parts
from headgate.wire.message import Header

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9110 5.5: visible characters, space, tab and obs-text; every other control is refused, not
# only CR, LF and NUL, because recipients disagree about what they do with the rest.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

FRAMING_NAMES = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "host",
        # Connection-specific too (RFC 9110 7.6.1); an HTTP/2 peer takes them for a malformed
        # message (RFC 9113 8.2.2), so they belong to the engine alone.
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    }
)


def encode_name(name: str) -> bytes:
    """Return the wire form of a header name that a filter may set, or raise ValueError."""
    if not _TOKEN(name):
        msg = f"header name {name!r} is not an HTTP token"
        raise ValueError(msg)
    lower = name.lower()
    # Servers with a CGI-like environment read `content_length` as `content-length`.
    if lower.replace("_", "-") in FRAMING_NAMES:
        msg = f"header {name!r} frames or routes the message and is set by the gateway alone"
        raise ValueError(msg)
    return lower.encode("ascii")


def encode_value(value: str) -> bytes:
    """Return the wire form of a header value, stripped, or raise ValueError."""
    value = value.strip(" \t")
    if not _VALUE(value):
        msg = f"header value {value[:80]!r} has a control or non-Latin-1 character"
        raise ValueError(msg)
    return value.encode("latin-1")


class Headers:
    """A mutable multi-map of header fields: order kept, names case-insensitive, text in and out.

    Text is Latin-1, the one encoding that gives every byte back as it came. `raw` is the list
    itself, for filters that prepared their bytes beforehand with `encode_name`/`encode_value`;
    whoever writes to it answers for what it writes.
    """

    __slots__ = ("_given", "_own")

    def __init__(self, raw: Iterable[Header] = ()) -> None:
        """Begin with these fields.

        A head may be shared between requests, so it is copied before the first change; most
        filters only read, and then there is none.
        """
        self._given: tuple[Header, ...] = raw if type(raw) is tuple else tuple(raw)
        self._own: list[Header] | None = None

    @property
    def raw(self) -> list[Header]:
        """The fields, to be changed at will."""
        own = self._own
        if own is None:
            own = self._own = list(self._given)
        return own

    @raw.setter
    def raw(self, fields: list[Header]) -> None:
        self._own = fields

    @property
    def fields(self) -> Sequence[Header]:
        """The fields, for reading."""
        return self._given if self._own is None else self._own

    @property
    def is_untouched(self) -> bool:
        """Whether they are those that were given, and nobody can have changed them."""
        return self._own is None

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of `name`."""
        key = name.lower().encode("latin-1")
        for k, v in self.fields:
            if k == key:
                return v.decode("latin-1")
        return default

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order."""
        key = name.lower().encode("latin-1")
        return [v.decode("latin-1") for k, v in self.fields if k == key]

    def set(self, name: str, value: str) -> None:
        """Put `value` in place of the first field called `name` and drop any further ones."""
        self.replace(encode_name(name), encode_value(value))

    def add(self, name: str, value: str) -> None:
        """Append a field, leaving those of the same name as they are."""
        self.raw.append((encode_name(name), encode_value(value)))

    def remove(self, name: str) -> None:
        """Drop every field called `name`."""
        key = name.lower().encode("latin-1")
        for k, _ in self.fields:
            if k == key:
                self.raw[:] = [pair for pair in self.raw if pair[0] != key]
                return

    def rename(self, old: str, new: str) -> None:
        """Give every field called `old` the name `new`; fields already called so stay."""
        key, to = old.lower().encode("latin-1"), encode_name(new)
        self.raw[:] = [(to, v) if k == key else (k, v) for k, v in self.raw]

    def replace(self, key: bytes, value: bytes) -> None:
        """Do what `set` does with bytes that were encoded beforehand."""
        raw = self.raw
        for i, (k, _) in enumerate(raw):
            if k == key:
                raw[i] = (key, value)
                for later in range(i + 1, len(raw)):
                    if raw[later][0] == key:
                        raw[later:] = [pair for pair in raw[later:] if pair[0] != key]
                        break
                return
        raw.append((key, value))

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield name and value of each field, in order."""
        for k, v in self.fields:
            yield k.decode("latin-1"), v.decode("latin-1")

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = name.lower().encode("latin-1")
        return any(k == key for k, _ in self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        """Name the fields but not their values, which may be secrets."""
        return f"Headers({[k.decode('latin-1') for k, _ in self.fields]})"


@dataclass(slots=True)
class Request:
    """What a filter sees of one request. `headers` may be changed; the rest is for reading."""

    method: str
    path: str
    """The normalised path as the client sent it, before `strip` and `rewrite`."""
    query: str
    headers: Headers
    client_ip: str
    """The client's address; behind trusted proxies, the one they vouch for."""
    is_tls: bool
    """Whether the client's own connection is encrypted, as far as trusted proxies tell."""
    request_id: str
    route: str
    service: str | None
    """The service the route forwards to; None for redirects and fixed responses."""
    params: Mapping[str, str]
    """The values of `{param}` in the route's path template."""
    state: dict[str, object] = field(default_factory=dict)
    """A filter's own values for this request, each filter under a key of its own."""
    length: int = 0
    """Body bytes announced: 0 for no body, -1 when unknown. Set to -1 when changing the body."""
    host: str = ""
    """The host the client asked for, without its port."""
    authority: str = ""
    """The same as it was sent, with its port where one was."""
    identity: Identity | None = None
    """Who asks. A filter that authenticates sets it; limits by user and tier go by it."""


@dataclass(slots=True)
class Response:
    """What a filter sees of one response. All of it may be changed in `on_response`."""

    status: int
    headers: Headers
    length: int = -1
    """Body bytes announced, -1 when unknown. Set to -1 when changing the body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A local answer: returned by a hook, it goes to the client in place of the upstream's."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended."""

    status: int
    duration_s: float
    bytes_in: int
    bytes_out: int
    error: str | None
    instance: str | None


@dataclass(frozen=True, slots=True)
class FilterContext:
    """Where a filter stands in the file."""

    route: str
    service: str | None


class Filter:
    """The base of every filter; a subclass overrides only the hooks it needs."""

    class Options(BaseModel, frozen=True, extra="forbid"):
        """The options a filter takes in the file; a subclass declares its own fields."""

    request_body_max: int | None = None
    """None: `on_request_body` sees the chunks of the stream as they come. N: the engine gathers
    the whole body, refuses one of more than N bytes with 413, and calls the hook once."""

    request_body_over: Literal["refuse", "pass"] = "refuse"
    """What becomes of a body over `request_body_max`: 413, or it goes on unseen by the hook."""

    response_body_max: int | None = None
    """The same for `on_response_body`; a longer body ends in 502."""

    warnings: Sequence[str] = ()
    """What `headgate check` tells of this filter: it works, and should be looked at."""

    is_early: bool = False
    """`on_request` is called before anybody is asked who they are."""

    def __init__(self, options: BaseModel, context: FilterContext) -> None:
        self.options = options
        self.context = context

    def start(self, parts: Parts) -> None:
        """Take up work beside the requests. Called once, when the plan is taken up; a filter is
        also built where a configuration is only checked, and then never started.
        """

    def on_request(self, request: Request) -> Reply | Awaitable[Reply | None] | None:
        """Look at the head before it is forwarded; a Reply ends the request here."""

    def on_request_body(
        self, request: Request, chunk: bytes, last: bool
    ) -> bytes | Reply | Awaitable[bytes | Reply]:
        """Return what to forward in place of `chunk`; `last` marks the final, maybe empty, call.

        With `request_body_max`, nothing was forwarded yet and a Reply ends the request here. In
        the middle of a stream it is too late for one: the request is broken off.
        """
        return chunk

    def on_response(
        self, request: Request, response: Response
    ) -> Reply | Awaitable[Reply | None] | None:
        """Look at the response's head; a Reply takes the place of the whole response."""

    def on_response_body(
        self, request: Request, response: Response, chunk: bytes, last: bool
    ) -> bytes | Reply | Awaitable[bytes | Reply]:
        """Return what to send in place of `chunk`; `last` marks the final, maybe empty, call.

        With `response_body_max`, a Reply takes the place of the response; in the middle of a
        stream it breaks the response off.
        """
        return chunk

    def on_end(self, request: Request, outcome: Outcome) -> None:
        """Take note of how the request ended. Called once, also when the client has gone."""
