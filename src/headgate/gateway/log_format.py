"""Log records as lines: JSON or Apache's combined format.

Theory of operation. A formatter is compiled for the chosen fields into one %-template. What depends
only on the request's head (method, path, user agent, ...) is filled into the template once for
each head and kept, because clients that send the same bytes again share one head object; what is
left is filled in with the values of the record. Texts that come again and again (addresses, routes,
instances) are made safe once.

What an editor must not break:
- A line is one line, and valid JSON, whatever bytes a client sent. Every text goes through `quote`
  (JSON, pure ASCII: no terminal escapes, no Unicode line ends) or `escape` (combined).
- A redacted name is not written: not as a query parameter, not percent-encoded, not inside the
  URL of a Referer or Location, not as a header field.
- Lengths are bounded: a line cannot be made longer than a few kilobytes.
- Literal text in a template has its percent signs doubled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

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

Format = Callable[[Sequence[Record]], bytes]
_Early = Callable[[RequestHead | None], str]

_CACHE_MAX: Final = 1024
_URL_HEADERS = frozenset({b"referer", b"location", b"content-location", b"refresh"})
_VERSIONS = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2.0", 2: "HTTP/2.0"}
_HEADER_FIELD = re.compile(r"(request|response)\.header\.([!#$%&'*+\-.^_`|~0-9A-Za-z]+)").fullmatch


class UnknownField(ValueError):
    """A chosen field does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown field {name!r}")
        self.name = name


def json_format(fields: Sequence[str] | None, redact: Sequence[str], worker: int) -> Format:
    """Compile a formatter of JSON lines; raises UnknownField."""
    chosen = tuple(fields) if fields is not None else tuple(FIELDS)
    hidden = Hidden(redact)
    late: list[int] = []
    response_headers: list[bytes] = []
    early: list[_Early] = []
    skeleton = "{"
    for at, name in enumerate(chosen):
        skeleton += ("," if at else "") + quote(name).replace("%", "%%%%") + ":"
        header = _HEADER_FIELD(name)
        if name == "worker":
            skeleton += str(worker)
        elif name in _LATE:
            skeleton += "%%s"
            late.append(_LATE[name])
        elif header is not None and header[1] == "response":
            skeleton += "%%s"
            late.append(len(_LATE) + len(response_headers))
            response_headers.append(header[2].lower().encode("ascii"))
        elif header is not None or name in FIELDS:
            skeleton += "%s"
            early.append(_early(name, hidden, _json_text))
        else:
            raise UnknownField(name)
    skeleton += "}\n"
    return _Formatter(
        skeleton, early, _picker(late), tuple(response_headers), hidden, _JsonTexts()
    ).lines


def combined_format(redact: Sequence[str]) -> Format:
    """Compile a formatter of Apache's combined format."""
    hidden = Hidden(redact)
    early = [
        _request_line(hidden),
        _early("referer", hidden, _combined_text),
        _early("user_agent", hidden, _combined_text),
    ]
    late = [_LATE[name] for name in ("client_ip", "time", "status", "bytes_out")]
    skeleton = '%%s - - [%%s] "%s" %%s %%s "%s" "%s"\n'
    return _Formatter(skeleton, early, _picker(late), (), hidden, _CombinedTexts()).lines


# The places of late values in the tuple that `_Formatter.lines` makes.
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
            "error",
            "tls_version",
        )
    )
}


class _Texts(dict[str, str]):
    """Texts that come again and again, made safe once: addresses, routes, services, errors."""

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
    def safe(self, text: str) -> str:
        return quote(bounded(text, TEXT_MAX)) if text else "null"

    def second(self, second: int) -> str:
        return time.strftime('"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))

    def moment(self, second: str, millisecond: int) -> str:
        return f'{second}{millisecond:03d}Z"'


class _CombinedTexts(_Texts):
    def safe(self, text: str) -> str:
        return escape(bounded(text, TEXT_MAX)) if text else "-"

    def second(self, second: int) -> str:
        moment = time.gmtime(second)
        month = _MONTHS[moment.tm_mon - 1]  # strftime's %b would follow the locale
        return time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", moment)

    def moment(self, second: str, millisecond: int) -> str:
        return second


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Formatter:
    """Turns records into lines.

    `skeleton` is a template of a template: filled in with the early values of a head it becomes
    the template for the late values of a record.
    """

    def __init__(
        self,
        skeleton: str,
        early: Sequence[_Early],
        pick: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        response_headers: tuple[bytes, ...],
        hidden: Hidden,
        texts: _Texts,
    ) -> None:
        self._skeleton = skeleton
        self._early = tuple(early)
        self._pick = pick
        self._response_headers = response_headers
        self._hidden = hidden
        self._texts = texts
        self._templates: dict[RequestHead | None, str] = {}
        self._seconds: dict[int, str] = {}

    def lines(self, records: Sequence[Record]) -> bytes:
        """Format a batch."""
        texts, templates, pick, moment = (
            self._texts,
            self._templates,
            self._pick,
            self._texts.moment,
        )
        out = []
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
            tls_version,
        ) in records:
            template = templates.get(head)
            if template is None:
                template = self._template_for(head)
            second = int(wall)
            values: tuple[Any, ...] = (
                moment(
                    self._seconds.get(second) or self._second(second), int((wall - second) * 1e3)
                ),
                texts[client_ip],
                status,
                bytes_in,
                bytes_out,
                f"{duration_s * 1e3:.3f}",
                f"{upstream_s * 1e3:.3f}" if upstream_s >= 0.0 else "null",
                f"{connect_s * 1e3:.3f}" if connect_s >= 0.0 else "null",
                texts[route],
                texts[service],
                texts[instance],
                retries,
                quote(request_id[:TEXT_MAX].decode("latin-1")),
                quote(trace_id[:TEXT_MAX].decode("latin-1")) if trace_id else "null",
                texts[error],
                texts[tls_version],
            )
            if self._response_headers:
                values += tuple(
                    [self._response_text(n, response_headers) for n in self._response_headers]
                )
            out.append(template % pick(values))
        return "".join(out).encode("ascii")

    def _response_text(self, name: bytes, headers: Sequence[Header]) -> str:
        value = find(headers, name)
        return "null" if value is None else quote(_header_text(name, value, self._hidden))

    def _template_for(self, head: RequestHead | None) -> str:
        if len(self._templates) >= _CACHE_MAX:
            self._templates.clear()
        values = tuple([early(head) for early in self._early])
        template = self._templates[head] = self._skeleton % values
        return template

    def _second(self, second: int) -> str:
        # Requests end in another order than they began, so a few seconds are at hand.
        if len(self._seconds) >= 64:
            self._seconds.clear()
        text = self._seconds[second] = self._texts.second(second)
        return text


def _picker(late: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if len(late) > 1:
        return itemgetter(*late)
    if late:
        at = late[0]
        return lambda values: (values[at],)
    return lambda _values: ()


def _json_text(text: str | None) -> str:
    return "null" if text is None else quote(text).replace("%", "%%")


def _combined_text(text: str | None) -> str:
    return escape(text).replace("%", "%%") if text else "-"


def _early(name: str, hidden: Hidden, safe: Callable[[str | None], str]) -> _Early:
    """A function that gives the text of a field, safe to stand in a template, from a head."""
    if name in _HEAD_TEXTS:
        text_of = _HEAD_TEXTS[name]
        return lambda head: safe(None if head is None else text_of(head, hidden))
    header = _NAMED_HEADERS.get(name) or name.removeprefix("request.header.").lower().encode()
    known: dict[bytes, str] = {}  # a client repeats its user agent with every new path
    absent = safe(None)

    def render(head: RequestHead | None) -> str:
        value = find(head.headers, header) if head is not None else None
        if value is None:
            return absent
        text = known.get(value)
        if text is None:
            if len(known) >= _CACHE_MAX:
                known.clear()
            text = known[value] = safe(_header_text(header, value, hidden))
        return text

    return render


def _request_line(hidden: Hidden) -> _Early:
    def render(head: RequestHead | None) -> str:
        if head is None:
            return "-"
        target = bounded(head.path, TARGET_MAX)
        query = hidden.in_query(head.query) if head.has_query else None
        if query is not None:
            target += f"?{query}"
        return _combined_text(f"{head.method[:32]} {target} {_protocol(head)}")

    return render


def _protocol(head: RequestHead) -> str:
    return _VERSIONS.get(head.version, "HTTP")


_NAMED_HEADERS = {"user_agent": b"user-agent", "referer": b"referer"}
_HEAD_TEXTS: dict[str, Callable[[RequestHead, Hidden], str | None]] = {
    "method": lambda head, _: head.method[:32],
    "host": lambda head, _: bounded(head.host, TEXT_MAX) or None,
    "path": lambda head, _: bounded(head.path, TARGET_MAX),
    "query": lambda head, hidden: hidden.in_query(head.query) if head.has_query else None,
    "protocol": lambda head, _: _protocol(head),
}


def _header_text(name: bytes, value: bytes, hidden: Hidden) -> str:
    if name.decode("ascii") in hidden.names:
        return REDACTED_TEXT
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if name in _URL_HEADERS:
        text = hidden.in_url(text)
    return bounded(text, TEXT_MAX)
