"""Log records as lines: JSON or Apache's combined format.

Theory of operation. A line is a row of pieces, and every second piece is a value. The values of a
record are made as texts, those of the chosen fields are picked and put into a copy of the row, and
the rows of a batch are joined at once. What depends only on the request's head (method, path, user
agent, ...) is made once for each head of a batch. A head that is met a second time there, as when
clients send the same bytes again and share one head object, is likely to come again, and so is one
that the caller expects: it gets a shorter row of its own, with its texts in place, that is kept, in
two generations as in `wire.headcache`. Texts that come again and again (addresses, routes,
instances) are made safe once.

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
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from headgate.gateway.log_fields import FIELDS, Record
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

_Early = Callable[[RequestHead, dict[bytes, bytes]], str]
"""Makes the text of a field from a head and its fields by name."""
_Column = int | _Early | tuple[bytes]
"""What stands in a place of the row: a late value, an early text, or a field of the response."""

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
    pieces = ["{"]
    columns: list[_Column] = []
    for at, name in enumerate(chosen):
        pieces[-1] += ("," if at else "") + quote(name) + ":"
        header = _HEADER_FIELD(name)
        if name == "worker":
            pieces[-1] += str(worker)
            continue
        if name in _LATE:
            columns.append(_LATE[name])
        elif header is not None:
            key = header[2].lower().encode("ascii")
            columns.append(
                (key,) if header[1] == "response" else _header(key, hidden, quote, "null")
            )
        elif name in FIELDS:
            columns.append(_json_early(name, hidden, texts))
        else:
            raise UnknownField(name)
        pieces.append("")
    pieces[-1] += "}\n"
    return Formatter(pieces, columns, hidden, texts)


def combined_format(redact: Sequence[str], scrub: Callable[[str], str] | None = None) -> Formatter:
    """Compile a formatter of Apache's combined format."""
    hidden = Hidden(redact, scrub)
    columns: list[_Column] = [
        _LATE["client_ip"],
        _LATE["time"],
        _request_line(hidden),
        _LATE["status"],
        _LATE["bytes_out"],
        _header(b"referer", hidden, _escape_or_dash, "-"),
        _header(b"user-agent", hidden, _escape_or_dash, "-"),
    ]
    pieces = ["", " - - [", '] "', '" ', " ", ' "', '" "', '"\n']
    return Formatter(pieces, columns, hidden, _CombinedTexts())


# The places of late values in the row of texts that a `Formatter` makes.
_LATE: Final = {
    name: at
    for at, name in enumerate(
        (
            "time",
            "client_ip",
            "status",
            "bytes_in",
            "bytes_out",
            "duration_ms",
            "upstream_ms",
            "connect_ms",
            "route",
            "service",
            "instance",
            "retries",
            "request_id",
            "trace_id",
            "span_id",
            "sampled",
            "error",
            "user",
            "tls_version",
        )
    )
}


class _Texts(dict[str, str]):
    """Texts that come again and again, made safe once: addresses, routes, services, errors."""

    absent: str
    """What stands for a value that is not there."""

    def __missing__(self, text: str) -> str:
        safe = self.safe(text)
        if len(self) >= 4 * _CACHE_MAX:
            self.clear()
        self[text] = safe
        return safe

    def safe(self, text: str) -> str:
        raise NotImplementedError

    def second(self, second: int) -> str:
        raise NotImplementedError

    def moment(self, second: str, millisecond: int) -> str:
        raise NotImplementedError


class _JsonTexts(_Texts):
    absent = "null"

    def safe(self, text: str) -> str:
        return quote(bounded(text, TEXT_MAX)) if text else "null"

    def second(self, second: int) -> str:
        return time.strftime('"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))

    def moment(self, second: str, millisecond: int) -> str:
        return f'{second}{millisecond:03d}Z"'


class _CombinedTexts(_Texts):
    absent = "-"

    def safe(self, text: str) -> str:
        return escape(bounded(text, TEXT_MAX)) if text else "-"

    def second(self, second: int) -> str:
        moment = time.gmtime(second)
        month = _MONTHS[moment.tm_mon - 1]  # strftime's %b would follow the locale
        return time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", moment)

    def moment(self, second: str, millisecond: int) -> str:
        return second


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Formatter:
    """Turns records into lines: `pieces` with the values of `columns` between them."""

    def __init__(
        self,
        pieces: Sequence[str],
        columns: Sequence[_Column],
        hidden: Hidden,
        texts: _Texts,
    ) -> None:
        self._pieces = tuple(pieces)
        self._columns = tuple(columns)
        self._hidden = hidden
        self._texts = texts
        self._early = tuple([c for c in columns if not isinstance(c, int | tuple)])
        self._late_headers = tuple([c[0] for c in columns if isinstance(c, tuple)])
        self._row = [""] * (2 * len(columns) + 1)
        self._row[::2] = pieces
        # Values in a row of their own: late ones, fields of the response, early texts.
        places: list[int] = []
        late_places: list[int] = []
        early = len(_LATE) + len(self._late_headers)
        header = len(_LATE)
        for column in columns:
            if isinstance(column, int):
                places.append(column)
                late_places.append(column)
            elif isinstance(column, tuple):
                places.append(header)
                late_places.append(header)
                header += 1
            else:
                places.append(early)
                early += 1
        self._pick = _picker(places)
        # The fields of a known head's line are often all there are, as they stand here.
        is_all = late_places == list(range(len(_LATE)))
        self._pick_late = None if is_all else _picker(late_places)
        self._no_head = (texts.absent,) * len(self._early)
        self._rows: dict[RequestHead, list[str]] = {}
        self._old_rows: dict[RequestHead, list[str]] = {}
        self._moments: dict[int, str] = {}
        self._second = -1
        self._second_text = ""

    def expect(self, head: RequestHead) -> None:
        """This head comes again, though perhaps not within a batch."""
        if head not in self._rows and head not in self._old_rows:
            self._keep_row(head, self._made_row(self._early_texts(head)))

    def __call__(self, records: Sequence[Record]) -> bytes:
        """Format a batch."""
        texts = self._texts
        moments = self._moments
        rows, old_rows = self._rows, self._old_rows
        pick_late = self._pick_late
        here: dict[RequestHead | None, tuple[str, ...]] = {None: self._no_head}
        out: list[str] = []
        for (
            wall,
            duration_s,
            upstream_s,
            connect_s,
            status,
            bytes_in,
            bytes_out,
            retries,
            head,
            response_headers,
            client_ip,
            route,
            service,
            instance,
            request_id,
            trace_id,
            error,
            user,
            tls_version,
            own_id,
            is_kept,
        ) in records:
            millisecond = int(wall * 1e3)
            duration = f"{duration_s * 1e3:.3f}"
            # They are one number when the response came in one piece.
            upstream = duration
            if upstream_s != duration_s:
                upstream = "null" if upstream_s < 0.0 else f"{upstream_s * 1e3:.3f}"
            made = f'"{request_id.decode()}"' if request_id.isalnum() else ""
            if not made or len(made) > TEXT_MAX:
                made = quote(request_id[:TEXT_MAX].decode("latin-1"))
            trace = made
            if trace_id is not request_id or not trace_id:
                trace = quote(trace_id[:TEXT_MAX].decode("latin-1")) if trace_id else "null"
            if is_kept is None:
                span = sampled = "null"
            else:
                # Mostly the own id is also what the request's id was made of.
                span = made[:17] if own_id is request_id else f'"{own_id[:16].decode()}'
                span += '"'
                sampled = "true" if is_kept else "false"
            values: tuple[str, ...] = (
                moments.get(millisecond) or self._moment(millisecond),
                texts[client_ip],
                f"{status}",
                f"{bytes_in}",
                f"{bytes_out}",
                duration,
                upstream,
                "null" if connect_s < 0.0 else f"{connect_s * 1e3:.3f}",
                texts[route],
                texts[service],
                texts[instance],
                f"{retries}",
                made,
                trace,
                span,
                sampled,
                texts[error],
                texts[user],
                texts[tls_version],
            )
            if self._late_headers:
                values += self._response_texts(response_headers)
            row = rows.get(head)  # type: ignore[arg-type]  # None is in no dict of heads
            if row is None and head in old_rows:
                row = old_rows.pop(head)
                self._keep_row(head, row)
                rows, old_rows = self._rows, self._old_rows
            if row is not None:
                row = row.copy()
                row[1::2] = values if pick_late is None else pick_late(values)
            else:
                early = here.get(head)
                if early is None:
                    early = here[head] = self._early_texts(head)
                elif head is not None:
                    self._keep_row(head, self._made_row(early))
                    rows, old_rows = self._rows, self._old_rows
                row = self._row.copy()
                row[1::2] = self._pick(values + early)
            out += row
        return "".join(out).encode("ascii")

    def _early_texts(self, head: RequestHead | None) -> tuple[str, ...]:
        if head is None:
            return self._no_head
        fields = dict(head.headers)
        if len(fields) != len(head.headers):
            fields = _joined(head.headers)
        return tuple([text_of(head, fields) for text_of in self._early])

    def _keep_row(self, head: RequestHead, row: list[str]) -> None:
        if len(self._rows) >= _CACHE_MAX:
            self._old_rows = self._rows
            self._rows = {}
        self._rows[head] = row

    def _made_row(self, early: Sequence[str]) -> list[str]:
        """The row of a head, its texts in place."""
        row = [self._pieces[0]]
        texts = iter(early)
        for column, piece in zip(self._columns, self._pieces[1:], strict=True):
            if isinstance(column, int | tuple):
                row += ("", piece)
            else:
                row[-1] += next(texts) + piece
        return row

    def _response_texts(self, headers: Sequence[Header]) -> tuple[str, ...]:
        found = [(name, find(headers, name)) for name in self._late_headers]
        return tuple(
            [
                "null" if value is None else quote(_header_text(name, value, self._hidden))
                for name, value in found
            ]
        )

    def _moment(self, millisecond: int) -> str:
        # Requests end in another order than they began, so a few moments are at hand.
        if len(self._moments) >= 256:
            self._moments.clear()
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second, self._second_text = second, self._texts.second(second)
        text = self._moments[millisecond] = self._texts.moment(self._second_text, rest)
        return text


def _picker(places: list[int]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    if places:
        at = places[0]
        return lambda values: (values[at],)
    return lambda _values: ()


def _joined(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Fields by name; several lines of one field are joined (RFC 9110 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _json_early(name: str, hidden: Hidden, texts: _JsonTexts) -> _Early:
    if name in _NAMED_HEADERS:
        return _header(_NAMED_HEADERS[name], hidden, quote, "null")
    return {
        "method": lambda head, _: texts[head.method[:32]],
        "host": lambda head, _: texts[head.host],
        "path": lambda head, _: quote(bounded(_path(head, hidden), TARGET_MAX)),
        "query": lambda head, _: quote(hidden.in_query(head.query)) if head.has_query else "null",
        "protocol": lambda head, _: texts[_protocol(head)],
    }[name]


def _header(name: bytes, hidden: Hidden, safe: Callable[[str], str], absent: str) -> _Early:
    known: dict[bytes, str] = {}  # a client repeats its user agent with every new path

    def text_of(_head: RequestHead, fields: dict[bytes, bytes]) -> str:
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


def _escape_or_dash(text: str) -> str:
    return escape(text) or "-"


def _request_line(hidden: Hidden) -> _Early:
    def text_of(head: RequestHead, _fields: dict[bytes, bytes]) -> str:
        target = bounded(_path(head, hidden), TARGET_MAX)
        if head.has_query:
            target += f"?{hidden.in_query(head.query)}"
        return escape(f"{head.method[:32]} {target} {_protocol(head)}")

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
