"""Requests that are over as lines: JSON or Apache's combined format.

Theory of operation. A line is a row of pieces, and every second piece is a value. There are three
sorts of values: *late* ones differ with every request (times, ids), *steady* ones are mostly the
same for a head that comes again (status, route, user), *early* ones follow from the head alone
(path, user agent). All are made as texts, and those of the chosen fields are picked and put into a
copy of the row.

Clients that send the same bytes again share one `Prepared`, and what its lines have in common is
kept there: from the second line on the early texts, and once two requests in turn were alike in all
that is steady, a *template* of the line, into which one formatting puts what is late. That is the
common way; it touches few objects, which counts more than the instructions: between two requests
the kernel has driven most of what the last one used out of the processor's nearest caches. Texts
that come again and again (addresses, routes, instances) are made safe once.

What an editor must not break:
- A line is one line, and valid JSON, whatever bytes a client sent. Every text goes through `quote`
  (JSON, pure ASCII: no terminal escapes, no Unicode line ends) or `escape` (combined).
- A redacted name is not written: not as a query parameter, not percent-encoded, not inside the
  URL of a Referer or Location, not as a header field.
- Lengths are bounded: a line cannot be made longer than a few kilobytes.
- Nothing of a head that came once is kept: it would fill the processor's caches with waste.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from headgate.gateway.log_fields import FIELDS
from headgate.gateway.log_text import (
    REDACTED_TEXT,
    TARGET_MAX,
    TEXT_MAX,
    Hidden,
    bounded,
    escape,
    quote,
)
from headgate.wire.message import Header, RequestHead, find

if TYPE_CHECKING:
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.service import ServiceRuntime

_Steady = tuple[int, int, int, "ServiceRuntime | None", str | None, str, str]
"""Status, body bytes in, attempts, service, error, user and TLS version."""
_Early = Callable[[RequestHead, dict[bytes, bytes]], bytes]
"""Makes the text of a field from a head and its fields by name."""
_Column = int | _Early | tuple[bytes]
"""What stands in a place of the row: a late or steady value, an early text, or a field of the
response."""

_CACHE_MAX: Final = 1024
_URL_HEADERS = frozenset({b"referer", b"location", b"content-location", b"refresh"})
_VERSIONS = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2.0", 2: "HTTP/2.0"}
_HEADER_FIELD = re.compile(r"(request|response)\.header\.([!#$%&'*+\-.^_`|~0-9A-Za-z]+)").fullmatch


class UnknownField(ValueError):
    """A chosen field does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown field {name!r}")
        self.name = name


def json_format(
    fields: Sequence[str] | None,
    redact: Sequence[str],
    worker: int,
    scrub: Callable[[str], str] | None = None,
) -> Formatter:
    """Compile a formatter of JSON lines; raises UnknownField."""
    chosen = tuple(fields) if fields is not None else tuple(FIELDS)
    hidden = Hidden(redact, scrub)
    texts = _JsonTexts()
    pieces = [b"{"]
    columns: list[_Column] = []
    for at, name in enumerate(chosen):
        pieces[-1] += (b"," if at else b"") + _quoted(name) + b":"
        header = _HEADER_FIELD(name)
        if name == "worker":
            pieces[-1] += b"%d" % worker
            continue
        if name in _VALUES:
            columns.append(_VALUES[name])
        elif header is not None:
            key = header[2].lower().encode("ascii")
            columns.append(
                (key,) if header[1] == "response" else _header(key, hidden, _quoted, b"null")
            )
        elif name in FIELDS:
            columns.append(_json_early(name, hidden, texts))
        else:
            raise UnknownField(name)
        pieces.append(b"")
    pieces[-1] += b"}\n"
    return Formatter(pieces, columns, hidden, texts)


def combined_format(redact: Sequence[str], scrub: Callable[[str], str] | None = None) -> Formatter:
    """Compile a formatter of Apache's combined format."""
    hidden = Hidden(redact, scrub)
    columns: list[_Column] = [
        _VALUES["client_ip"],
        _VALUES["time"],
        _request_line(hidden),
        _VALUES["status"],
        _VALUES["bytes_out"],
        _header(b"referer", hidden, _escape_or_dash, b"-"),
        _header(b"user-agent", hidden, _escape_or_dash, b"-"),
    ]
    pieces = [b"", b" - - [", b'] "', b'" ', b" ", b' "', b'" "', b'"\n']
    return Formatter(pieces, columns, hidden, _CombinedTexts())


_LATE: Final = (
    "time",
    "client_ip",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "connect_ms",
    "instance",
    "request_id",
    "trace_id",
    "span_id",
    "sampled",
)
_STEADY: Final = (
    "status",
    "bytes_in",
    "retries",
    "route",
    "service",
    "error",
    "user",
    "tls_version",
)
# The places in the row of texts that a `Formatter` makes of a request.
_VALUES: Final = {name: at for at, name in enumerate((*_LATE, *_STEADY))}


_SAMPLED: Final = {None: b"null", True: b"true", False: b"false"}


class _Texts(ABC, dict[str, bytes]):
    """Texts that come again and again, made safe once: addresses, routes, services, errors."""

    absent: bytes
    """What stands for a value that is not there."""

    def __missing__(self, text: str) -> bytes:
        safe = self.safe(text)
        if len(self) >= 4 * _CACHE_MAX:
            self.clear()
        self[text] = safe
        return safe

    @abstractmethod
    def safe(self, text: str) -> bytes: ...

    @abstractmethod
    def second(self, second: int) -> bytes: ...

    @abstractmethod
    def moment(self, second: bytes, millisecond: int) -> bytes: ...


class _JsonTexts(_Texts):
    absent = b"null"

    def safe(self, text: str) -> bytes:
        return _quoted(bounded(text, TEXT_MAX)) if text else b"null"

    def second(self, second: int) -> bytes:
        return time.strftime('"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode("ascii")

    def moment(self, second: bytes, millisecond: int) -> bytes:
        return b'%b%03dZ"' % (second, millisecond)


class _CombinedTexts(_Texts):
    absent = b"-"

    def safe(self, text: str) -> bytes:
        return escape(bounded(text, TEXT_MAX)).encode("ascii") if text else b"-"

    def second(self, second: int) -> bytes:
        moment = time.gmtime(second)
        month = _MONTHS[moment.tm_mon - 1]  # strftime's %b would follow the locale
        return time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", moment).encode("ascii")

    def moment(self, second: bytes, millisecond: int) -> bytes:
        return second


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Lines:
    """What the lines of a head have in common; kept by its `Prepared`."""

    __slots__ = ("early", "of", "steady", "template")

    def __init__(self, of: Formatter | None, early: tuple[bytes, ...]) -> None:
        self.of = of
        self.early = early
        self.steady: _Steady | None = None
        self.template: bytes | None = None


ONE: Final = Lines(None, ())
"""There was one line of this head, and nothing of it is kept."""


class Formatter:
    """Turns requests into lines: `pieces` with the values of `columns` between them."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        columns: Sequence[_Column],
        hidden: Hidden,
        texts: _Texts,
    ) -> None:
        self._hidden = hidden
        self._texts = texts
        self._early = tuple([c for c in columns if not isinstance(c, int | tuple)])
        self._response_names = tuple([c[0] for c in columns if isinstance(c, tuple)])
        self._row = [b""] * (2 * len(columns) + 1)
        self._row[::2] = pieces
        # Values in a row of their own: late, of the response, steady, early ones.
        places: list[int] = []
        response = len(_LATE)
        early = len(_VALUES) + len(self._response_names)
        for column in columns:
            if isinstance(column, tuple):
                places.append(response)
                response += 1
            elif not isinstance(column, int):
                places.append(early)
                early += 1
            elif column < len(_LATE):
                places.append(column)
            else:
                places.append(column + len(self._response_names))
        self._places = tuple(places)
        self._pick = _picker(places)
        self._first_steady = response
        late_places = [place for place in places if place < response]
        # The late fields of a line are often all there are, as they stand here.
        is_all = late_places == list(range(len(_LATE)))
        self._pick_late = None if is_all else _picker(late_places)
        self._no_head = (texts.absent,) * len(self._early)
        self._moments: dict[int, bytes] = {}
        self._second = -1
        self._second_text = b""

    def __call__(
        self,
        asked: Prepared,
        ex: Exchange,
        wall: float,
        duration_s: float,
        trace_id: bytes,
        is_kept: bool | None,
    ) -> bytes:
        """The line of a request that began at `wall`. `is_kept` tells whether its trace can be
        looked up, and is None where none are made; `trace_id` is empty where there is none.
        """
        texts = self._texts
        millisecond = int(wall * 1e3)
        duration = b"%.3f" % (duration_s * 1e3)
        # They are one number when the response came in one piece.
        upstream = duration
        upstream_s = ex.upstream_s
        if upstream_s != duration_s:
            upstream = b"null" if upstream_s < 0.0 else b"%.3f" % (upstream_s * 1e3)
        request_id = ex.request_id
        if request_id.isalnum() and len(request_id) <= TEXT_MAX:
            made = b'"%b"' % request_id
        else:
            made = _quoted(request_id[:TEXT_MAX].decode("latin-1"))
        trace = made
        if trace_id is not request_id or not trace_id:
            trace = _quoted(trace_id[:TEXT_MAX].decode("latin-1")) if trace_id else b"null"
        late: tuple[bytes, ...] = (
            self._moments.get(millisecond) or self._moment(millisecond),
            texts[ex.client_ip],
            b"%d" % ex.bytes_out,
            duration,
            upstream,
            b"null" if ex.connect_s < 0.0 else b"%.3f" % (ex.connect_s * 1e3),
            texts[ex.instance or ""],
            made,
            trace,
            b"null" if is_kept is None else b'"%.16b"' % ex.own_id,
            _SAMPLED[is_kept],
        )
        if self._response_names:
            late += self._response_texts(ex.response_headers)
        identity = ex.identity
        steady = (
            ex.status,
            ex.bytes_in,
            ex.attempts,
            ex.service,
            ex.error,
            identity.subject if identity is not None else "",
            ex.down.tls_version,
        )
        lines = asked.lines
        if lines is not None and lines.steady == steady and lines.of is self:
            template = lines.template
            if template is None:
                template = lines.template = self._made_template(asked, lines.early, steady)
            return template % (late if self._pick_late is None else self._pick_late(late))
        early = self._early_of(asked, steady)
        row = self._row.copy()
        row[1::2] = self._pick(late + self._steady_texts(asked, steady) + early)
        return b"".join(row)

    def _early_of(self, asked: Prepared, steady: _Steady) -> tuple[bytes, ...]:
        """The early texts, which are kept from the second time on."""
        head = asked.told_head
        if head is None:
            return self._no_head
        lines = asked.lines
        if lines is None:
            asked.lines = ONE
            return self._early_texts(head)
        if lines.of is not self:
            lines = asked.lines = Lines(self, self._early_texts(head))
        lines.steady, lines.template = steady, None
        return lines.early

    def _early_texts(self, head: RequestHead) -> tuple[bytes, ...]:
        fields = dict(head.headers)
        if len(fields) != len(head.headers):
            fields = _joined(head.headers)
        return tuple([text_of(head, fields) for text_of in self._early])

    def _made_template(self, asked: Prepared, early: tuple[bytes, ...], steady: _Steady) -> bytes:
        """The line with what is steady in place, and a mark for each late value."""
        first = self._first_steady
        texts = self._steady_texts(asked, steady) + early
        parts = [part.replace(b"%", b"%%") for part in self._row]
        parts[1::2] = [
            b"%b" if place < first else texts[place - first].replace(b"%", b"%%")
            for place in self._places
        ]
        return b"".join(parts)

    def _steady_texts(self, asked: Prepared, steady: _Steady) -> tuple[bytes, ...]:
        status, bytes_in, attempts, service, error, user, tls_version = steady
        texts = self._texts
        return (
            b"%d" % status,
            b"%d" % bytes_in,
            b"%d" % (attempts - 1 if attempts else 0),
            texts[asked.route.name if asked.route is not None else ""],
            texts[service.name if service is not None else ""],
            texts[error or ""],
            texts[user],
            texts[tls_version],
        )

    def _response_texts(self, headers: Sequence[Header]) -> tuple[bytes, ...]:
        found = [(name, find(headers, name)) for name in self._response_names]
        return tuple(
            [
                b"null" if value is None else _quoted(_header_text(name, value, self._hidden))
                for name, value in found
            ]
        )

    def _moment(self, millisecond: int) -> bytes:
        # Requests end in another order than they began, so a few moments are at hand.
        if len(self._moments) >= 256:
            self._moments.clear()
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second, self._second_text = second, self._texts.second(second)
        text = self._moments[millisecond] = self._texts.moment(self._second_text, rest)
        return text


def _picker(places: list[int]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    if places:
        at = places[0]
        return lambda values: (values[at],)
    return lambda _values: ()


def _quoted(text: str) -> bytes:
    return quote(text).encode("ascii")


def _joined(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Fields by name; several lines of one field are joined (RFC 9110 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _json_early(name: str, hidden: Hidden, texts: _JsonTexts) -> _Early:
    if name in _NAMED_HEADERS:
        return _header(_NAMED_HEADERS[name], hidden, _quoted, b"null")
    return {
        "method": lambda head, _: texts[head.method[:32]],
        "host": lambda head, _: texts[head.host],
        "path": lambda head, _: _quoted(bounded(_path(head, hidden), TARGET_MAX)),
        "query": lambda head, _: (
            _quoted(hidden.in_query(head.query)) if head.has_query else b"null"
        ),
        "protocol": lambda head, _: texts[_protocol(head)],
    }[name]


def _header(name: bytes, hidden: Hidden, safe: Callable[[str], bytes], absent: bytes) -> _Early:
    known: dict[bytes, bytes] = {}  # a client repeats its user agent with every new path

    def text_of(_head: RequestHead, fields: dict[bytes, bytes]) -> bytes:
        value = fields.get(name)
        if value is None:
            return absent
        text = known.get(value)
        if text is None:
            if len(known) >= _CACHE_MAX:
                known.clear()
            text = known[value] = safe(_header_text(name, value, hidden))
        return text

    return text_of


def _escape_or_dash(text: str) -> bytes:
    return escape(text).encode("ascii") or b"-"


def _request_line(hidden: Hidden) -> _Early:
    def text_of(head: RequestHead, _fields: dict[bytes, bytes]) -> bytes:
        target = bounded(_path(head, hidden), TARGET_MAX)
        if head.has_query:
            target += f"?{hidden.in_query(head.query)}"
        return escape(f"{head.method[:32]} {target} {_protocol(head)}").encode("ascii")

    return text_of


def _path(head: RequestHead, hidden: Hidden) -> str:
    return head.path if hidden.scrub is None else hidden.scrub(head.path[: 4 * TARGET_MAX])


def _protocol(head: RequestHead) -> str:
    return _VERSIONS.get(head.version, "HTTP")


_NAMED_HEADERS = {"user_agent": b"user-agent", "referer": b"referer"}


def _header_text(name: bytes, value: bytes, hidden: Hidden) -> str:
    if name.decode("ascii") in hidden.names:
        return REDACTED_TEXT
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if name in _URL_HEADERS:
        text = hidden.in_url(text)
    return bounded(hidden.scrubbed(text), TEXT_MAX)
