"""Requests that are malformed, or at the border: what a gateway must make of each.

The bytes stand here as they go over the wire. `refuse` means: an error, the connection closed,
and not one byte of it as a request at the instance. `forward` means: exactly the stated number
of requests at the instance, each strict by `tests/wire/strict_http.py`.

Sections are those of RFC 9110 and RFC 9112. Where an RFC lets a recipient repair a message, we
refuse it all the same when two servers are known to repair it differently.
"""

from __future__ import annotations

from tests.wire.corpus.case import RequestCase
from tests.wire.corpus.framing import BAD_CODINGS, BAD_LENGTHS, BAD_SIZES

# One case a line reads as a table.
# fmt: off

CASES: list[RequestCase] = []

H = b"Host: h.example\r\n"
GET = b"GET /p HTTP/1.1\r\n" + H
POST = b"POST /p HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
INNER = b"GET /inner HTTP/1.1\r\n" + H + b"\r\n"
"""A request that must stay invisible when it hides in or behind another."""


def _statuses(status: int | tuple[int, ...]) -> frozenset[int]:
    return frozenset((status,) if isinstance(status, int) else status)


def refuse(
    id: str,
    raw: bytes,
    reason: str,
    status: int | tuple[int, ...] = 400,
    *,
    partial: bool = False,
    ends: bool = False,
    may_drop: bool = False,
) -> None:
    CASES.append(
        RequestCase(
            id,
            raw,
            reason,
            (_statuses(status),),
            closes=True,
            seen=0,
            partial=partial,
            ends=ends,
            may_drop=may_drop,
        )
    )


def forward(
    id: str,
    raw: bytes,
    reason: str,
    *,
    answers: tuple[int | tuple[int, ...], ...] = (200,),
    seen: int | None = None,
    closes: bool = False,
    sends: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
    ends: bool = False,
) -> None:
    CASES.append(
        RequestCase(
            id,
            raw,
            reason,
            tuple(_statuses(a) for a in answers),
            closes=closes,
            seen=len(answers) if seen is None else seen,
            sends=sends,
            lacks=lacks,
            ends=ends,
        )
    )


# -- line ends: 9112 2.2 -------------------------------------------------------------------------

refuse("lf-only", b"GET /p HTTP/1.1\nHost: h.example\n\n", "9112 2.2: bare LF ends no line here")
refuse("lf-request-line", b"GET /p HTTP/1.1\nHost: h.example\r\n\r\n", "9112 2.2: bare LF")
refuse("lf-field-line", b"GET /p HTTP/1.1\r\nHost: h.example\nX: y\r\n\r\n", "9112 2.2: bare LF")
refuse("lf-last-line", GET + b"X: y\r\n\n", "9112 2.2: bare LF ends the head for some")
refuse("lf-then-crlf", GET + b"X: y\n\r\n", "9112 2.2: bare LF")
refuse("lf-in-value", GET + b"X: a\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 2.2: a field hidden behind LF")
refuse("lf-lf-hides-request", GET + b"X: a\n\n" + INNER, "9112 2.2: LF LF ends the head for some")
refuse("cr-only", b"GET /p HTTP/1.1\rHost: h.example\r\r", "9112 2.2: bare CR", ends=True)
refuse("cr-in-request-line", b"GET /p\r HTTP/1.1\r\n" + H + b"\r\n", "9112 2.2: bare CR")
refuse("cr-in-name", GET + b"X\rY: z\r\n\r\n", "9112 2.2: bare CR")
refuse("cr-in-value", GET + b"X: a\rb\r\n\r\n", "9112 2.2: bare CR in a field value")
refuse("cr-hides-field", GET + b"X: a\rTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 2.2: a field hidden behind CR")
refuse("cr-cr-lf", GET + b"X: a\r\r\n\r\n", "9112 2.2: CR before CRLF")
refuse("cr-at-value-start", GET + b"X:\ra\r\n\r\n", "9112 2.2: bare CR")
refuse("cr-before-colon", GET + b"X\r: a\r\n\r\n", "9112 2.2: bare CR")
refuse("lf-cr", b"GET /p HTTP/1.1\n\rHost: h.example\n\r\n\r", "9112 2.2: LF CR is no line end")
refuse("nel-line-end", b"GET /p HTTP/1.1\x85Host: h.example\x85\x85", "9112 2.2: NEL is no line end", ends=True, may_drop=True)
refuse("vt-in-request-line", b"GET\x0b/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: only a space parts the request line")
refuse("ff-in-request-line", b"GET\x0c/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: only a space parts the request line")

forward("leading-crlf", b"\r\n" + GET + b"\r\n", "9112 2.2: an empty line before a request is skipped")
forward(
    "crlf-between-requests",
    GET + b"\r\n" + b"\r\n" + GET + b"\r\n",
    "9112 2.2: also between requests",
    answers=(200, 200),
)
refuse("leading-lf", b"\n" + GET + b"\r\n", "9112 2.2: only CRLF is an empty line")
refuse("leading-cr", b"\r" + GET + b"\r\n", "9112 2.2: only CRLF is an empty line")
refuse("leading-space", b" " + GET + b"\r\n", "9112 3: the method begins the line")
refuse("leading-tab", b"\t" + GET + b"\r\n", "9112 3: the method begins the line")
refuse("leading-nul", b"\x00" + GET + b"\r\n", "9112 3: the method begins the line")
refuse("leading-bom", b"\xef\xbb\xbf" + GET + b"\r\n", "9112 3: the method begins the line")
refuse("space-before-first-field", b"GET /p HTTP/1.1\r\n Host: h.example\r\n\r\n", "9112 2.2: white space before the first field")
refuse("space-line-before-first-field", b"GET /p HTTP/1.1\r\n \r\n" + H + b"\r\n", "9112 2.2: white space before the first field")
refuse("tab-before-first-field", b"GET /p HTTP/1.1\r\n\tX: y\r\n" + H + b"\r\n", "9112 2.2: white space before the first field")

# -- request line: 9112 3 ------------------------------------------------------------------------

refuse("http09", b"GET /p\r\n\r\n", "9112 3: HTTP/0.9 is not spoken", (400, 505))
refuse("http09-with-fields", b"GET /p\r\n" + H + b"\r\n", "9112 3: no version", (400, 505))
refuse("empty-request-line-word", b"GET HTTP/1.1\r\n" + H + b"\r\n", "9112 3: no target")
refuse("double-space-before-target", b"GET  /p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: one space")
refuse("double-space-before-version", b"GET /p  HTTP/1.1\r\n" + H + b"\r\n", "9112 3: one space")
refuse("tab-before-target", b"GET\t/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: one space")
refuse("tab-before-version", b"GET /p\tHTTP/1.1\r\n" + H + b"\r\n", "9112 3: one space")
refuse("space-in-target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: no white space in a target")
refuse("space-after-version", b"GET /p HTTP/1.1 \r\n" + H + b"\r\n", "9112 3: nothing follows the version")
refuse("tab-after-version", b"GET /p HTTP/1.1\t\r\n" + H + b"\r\n", "9112 3: nothing follows the version")
refuse("words-after-version", b"GET /p HTTP/1.1 x\r\n" + H + b"\r\n", "9112 3: nothing follows the version")
refuse("two-versions", b"GET /p HTTP/1.1 HTTP/1.1\r\n" + H + b"\r\n", "9112 3: a space in the target")
refuse("version-lower-case", b"GET /p http/1.1\r\n" + H + b"\r\n", "9112 2.3: the name is case-sensitive")
refuse("version-mixed-case", b"GET /p Http/1.1\r\n" + H + b"\r\n", "9112 2.3: the name is case-sensitive")
refuse("version-1.2", b"GET /p HTTP/1.2\r\n" + H + b"\r\n", "9110 15.6.6: a version we do not know", (400, 505))
refuse("version-1.9", b"GET /p HTTP/1.9\r\n" + H + b"\r\n", "9110 15.6.6: a version we do not know", (400, 505))
refuse("version-2.0", b"GET /p HTTP/2.0\r\n" + H + b"\r\n", "9110 15.6.6: not without the preface", (400, 505))
refuse("version-2", b"GET /p HTTP/2\r\n" + H + b"\r\n", "9112 2.3: two digits", (400, 505))
refuse("version-3.0", b"GET /p HTTP/3.0\r\n" + H + b"\r\n", "9110 15.6.6", (400, 505))
refuse("version-0.9", b"GET /p HTTP/0.9\r\n" + H + b"\r\n", "9110 15.6.6", (400, 505))
refuse("version-1", b"GET /p HTTP/1\r\n" + H + b"\r\n", "9112 2.3: two digits", (400, 505))
refuse("version-1.", b"GET /p HTTP/1.\r\n" + H + b"\r\n", "9112 2.3: two digits", (400, 505))
refuse("version-1.10", b"GET /p HTTP/1.10\r\n" + H + b"\r\n", "9112 2.3: one digit each", (400, 505))
refuse("version-01.1", b"GET /p HTTP/01.1\r\n" + H + b"\r\n", "9112 2.3: one digit each", (400, 505))
refuse("version-1,1", b"GET /p HTTP/1,1\r\n" + H + b"\r\n", "9112 2.3: a dot", (400, 505))
refuse("version-hex", b"GET /p HTTP/1.A\r\n" + H + b"\r\n", "9112 2.3: digits", (400, 505))
refuse("version-negative", b"GET /p HTTP/-1.1\r\n" + H + b"\r\n", "9112 2.3: digits", (400, 505))
refuse("version-no-slash", b"GET /p HTTP1.1\r\n" + H + b"\r\n", "9112 2.3: a slash", (400, 505))
refuse("version-other-name", b"GET /p ICAP/1.1\r\n" + H + b"\r\n", "9112 2.3: HTTP", (400, 505))
refuse("version-space", b"GET /p HTTP/1. 1\r\n" + H + b"\r\n", "9112 2.3: no space", (400, 505))
refuse("tls-hello", bytes.fromhex("160301020001") + b"\x00" * 64, "no HTTP at all: a TLS client on a plain port", ends=True, may_drop=True)
refuse("socks", b"\x05\x01\x00\r\n\r\n", "no HTTP at all")
refuse("response-as-request", b"HTTP/1.1 200 OK\r\n\r\n", "9112 3: a response is no request", (400, 501, 505))

refuse("method-lower-case", b"get /p HTTP/1.1\r\n" + H + b"\r\n", "9110 9.1: methods are case-sensitive, origins disagree", (400, 405, 501))
refuse("method-mixed-case", b"Get /p HTTP/1.1\r\n" + H + b"\r\n", "9110 9.1: methods are case-sensitive", (400, 405, 501))
refuse("method-empty", b" /p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: a method")
refuse("method-with-control", b"GE\x01T /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token")
refuse("method-with-nul", b"GET\x00 /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token")
refuse("method-with-colon", b"GET: /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token", (400, 501))
refuse("method-with-slash", b"GET/ /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token", (400, 501))
refuse("method-quoted", b'"GET" /p HTTP/1.1\r\n' + H + b"\r\n", "9110 5.6.2: no token", (400, 501))
refuse("method-brackets", b"(GET) /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token", (400, 501))
refuse("method-high-byte", b"G\xcbT /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: no token", (400, 501))
refuse("method-odd-token", b"G!T /p HTTP/1.1\r\n" + H + b"\r\n", "9110 9.1: a token, but of no method anyone has", (400, 405, 501))
refuse("method-endless", b"A" * 20000 + b" /p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: no method at all, and no target that could be too long")
refuse("method-endless-in-pieces", b"A" * 100_000 + b" /p HTTP/1.1\r\n" + H + b"\r\n", "9112 3: refused before it ends")
forward("method-unknown", b"FROB /p HTTP/1.1\r\n" + H + b"\r\n", "9110 9.1: unknown methods pass", sends=(b"frob /p http/1.1\r\n",))
forward("method-query", b"QUERY /p HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nx", "9110 16.1.1: methods can be added")
forward("method-m-search", b"M-SEARCH /p HTTP/1.1\r\n" + H + b"\r\n", "9110 5.6.2: a hyphen is a token character")
forward("method-trace", b"TRACE /p HTTP/1.1\r\n" + H + b"\r\n", "9110 9.3.8: shows what services alone are told", answers=((405,),), seen=0)

refuse("connect-authority", b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n", "9110 9.3.6: no tunnels", (400, 405, 501))
refuse("connect-path", b"CONNECT /p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.3: and none to a path", (400, 405, 501))
refuse("connect-then-request", b"CONNECT h.example:80 HTTP/1.1\r\n" + H + b"\r\n" + INNER, "9110 9.3.6: what follows is no request", (400, 405, 501))
refuse("connect-with-length", b"CONNECT h.example:80 HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", "9110 9.3.6", (400, 405, 501))

# -- targets: 9112 3.2 ---------------------------------------------------------------------------

refuse("target-relative", b"GET p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: no form of a target")
refuse("target-query-only", b"GET ?x=1 HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: no form of a target")
refuse("target-authority-form", b"GET h.example:80 HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.3: only for CONNECT")
refuse("target-asterisk-get", b"GET * HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.4: only for OPTIONS")
refuse("target-asterisk-post", b"POST * HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n", "9112 3.2.4: only for OPTIONS")
refuse("target-asterisk-slash", b"OPTIONS */ HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.4: the asterisk alone")
refuse("target-asterisk-query", b"OPTIONS *?x HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.4: the asterisk alone")
forward("target-asterisk-options", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.4: about the server", answers=(200,), sends=(b"options * http/1.1\r\n",))
refuse("target-fragment", b"GET /p#f HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: a fragment never travels")
refuse("target-backslash", b"GET \\p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: no form of a target")
refuse("target-backslash-in-path", b"GET /a\\..\\b HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 3.3: some take it for a slash")
refuse("target-nul", b"GET /a\x00b HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: NUL")
refuse("target-escaped-nul", b"GET /a%00b HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 7.3: ends the path for some")
refuse("target-control", b"GET /a\x01b HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: control characters")
refuse("target-escape-char", b"GET /a\x1b[2J HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: control characters")
refuse("target-del", b"GET /a\x7fb HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2: control characters")
refuse("target-latin1", b"GET /caf\xe9 HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2: bytes over 0x7f are escaped")
refuse("target-utf8", b"GET /caf\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2: bytes over 0x7f are escaped")
refuse("target-utf8-query", b"GET /p?q=\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2: bytes over 0x7f are escaped")
refuse("target-nbsp", b"GET /a\xa0b HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2: bytes over 0x7f are escaped")
refuse("target-bad-escape", b"GET /a%zz HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2.1: no escape")
refuse("target-cut-escape", b"GET /a%4 HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2.1: no escape")
refuse("target-above-root", b"GET /../etc/passwd HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 5.2.4: leaves the root")
refuse("target-above-root-escaped", b"GET /a/%2e%2e/%2E%2E/etc HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2: leaves the root")
refuse("target-dots-escaped-slash", b"GET /a/..%2fadmin HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2: some resolve it later")
refuse("target-dots-parameter", b"GET /a/..;x/admin HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 3.3: servlet containers take it for /../")
forward("target-dots", b"GET /a/../admin HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2.3: resolved before routing", sends=(b"get /admin http/1.1\r\n",))
forward("target-dots-escaped", b"GET /a/%2e%2e/admin HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2: however they are written", sends=(b"get /admin http/1.1\r\n",))
forward("target-escapes", b"GET /%61%2f%7e%3f HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2.2: unreserved ones are decoded, no other", sends=(b"get /a%2f~%3f http/1.1\r\n",))
forward("target-double-escape", b"GET /%252e%252e/a HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 2.4: decoded once at most", sends=(b"get /%252e%252e/a http",))
forward("target-double-slash", b"GET //evil.example/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.1: a path with an empty segment, no authority", sends=(b"get //evil.example/p http", b"host: h.example\r\n"))
forward("target-brackets", b"GET /a[1]{2}|3?x=<y>\"`^ HTTP/1.1\r\n" + H + b"\r\n", "sent unescaped by browsers; they break no framing")
forward("target-broken-query", b"GET /p?a=%zz&b=%00&&?# HTTP/1.1\r\n".replace(b"#", b"") + H + b"\r\n", "the query is the application's", sends=(b"/p?a=%zz&b=%00&&? http",))
forward("target-url-in-path", b"GET /http://evil.example/ HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.1: a path", sends=(b"host: h.example\r\n",))
refuse("target-too-long", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", "9110 15.5.15", 414)
refuse("target-endless", b"GET /" + b"a" * 60000, "9110 15.5.15: refused before it ends", 414)
refuse("query-too-long", b"GET /?" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", "9110 15.5.15", 414)
forward("target-long", b"GET /" + b"a" * 7900 + b" HTTP/1.1\r\n" + H + b"\r\n", "9112 3: 8000 bytes are to be taken")

forward("absolute-form", b"GET http://h.example/p?q HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.2: must be taken", sends=(b"get /p?q http/1.1\r\n", b"host: h.example\r\n"))
forward("absolute-form-other-host", b"GET http://target.example/p HTTP/1.1\r\nHost: field.example\r\n\r\n", "9112 3.2.2: the target's host replaces the field", sends=(b"host: target.example\r\n",), lacks=(b"field.example",))
forward("absolute-form-upper-case", b"GET HTTP://H.EXAMPLE/P HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 6.2.2.1: scheme and host have no case", sends=(b"get /p http/1.1\r\n",))
forward("absolute-form-no-path", b"GET http://h.example HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.1: an empty path is /", sends=(b"get / http/1.1\r\n",))
forward("absolute-form-query-only", b"GET http://h.example?q=1 HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.1: an empty path is /", sends=(b"get /?q=1 http/1.1\r\n",))
forward("absolute-form-options", b"OPTIONS http://h.example HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.4: becomes *", sends=(b"options * http/1.1\r\n",))
refuse("absolute-form-no-host-field", b"GET http://h.example/p HTTP/1.1\r\n\r\n", "9112 3.2: the field is required all the same")
refuse("absolute-form-user", b"GET http://user:pw@h.example/p HTTP/1.1\r\n" + H + b"\r\n", "9110 4.2.4: no user info")
refuse("absolute-form-empty-host", b"GET http:///p HTTP/1.1\r\n" + H + b"\r\n", "9110 4.2.1: no empty host")
refuse("absolute-form-ftp", b"GET ftp://h.example/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.2: no scheme of ours")
refuse("absolute-form-file", b"GET file:///etc/passwd HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.2: no scheme of ours")
refuse("absolute-form-one-slash", b"GET http:/p HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.2: no authority")
refuse("absolute-form-bad-port", b"GET http://h.example:x/p HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 3.2.3: digits")
refuse("absolute-form-bad-host-field", b"GET http://h.example/p HTTP/1.1\r\nHost: a b\r\n\r\n", "9112 3.2: an invalid field is refused also when it is not used")
refuse("absolute-form-two-host-fields", b"GET http://h.example/p HTTP/1.1\r\n" + H + H + b"\r\n", "9112 3.2: more than one")
refuse("absolute-form-fragment", b"GET http://h.example/p#f HTTP/1.1\r\n" + H + b"\r\n", "9112 3.2.2: no fragment")
refuse("absolute-form-control", b"GET http://h.ex\x01ample/p HTTP/1.1\r\n" + H + b"\r\n", "RFC 3986 3.2.2")

# -- Host: 9110 7.2, 9112 3.2 --------------------------------------------------------------------


def host(value: bytes) -> bytes:
    return b"GET /p HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"


refuse("host-missing", b"GET /p HTTP/1.1\r\nX: y\r\n\r\n", "9112 3.2: required")
refuse("host-missing-no-fields", b"GET /p HTTP/1.1\r\n\r\n", "9112 3.2: required")
refuse("host-empty", host(b""), "9110 4.2.1: we serve no nameless host")
refuse("host-blank", host(b"  \t "), "9110 4.2.1: we serve no nameless host")
refuse("host-twice-same", b"GET /p HTTP/1.1\r\n" + H + H + b"\r\n", "9112 3.2: more than one")
refuse("host-twice-different", b"GET /p HTTP/1.1\r\n" + H + b"Host: evil.example\r\n\r\n", "9112 3.2: more than one")
refuse("host-twice-case", b"GET /p HTTP/1.1\r\n" + H + b"hOST: evil.example\r\n\r\n", "9112 3.2: more than one")
refuse("host-twice-apart", b"GET /p HTTP/1.1\r\n" + H + b"X: y\r\nHost: h.example\r\n\r\n", "9112 3.2: more than one")
refuse("host-underscore-twin", GET + b"Ho_st: x\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n", "CGI reads _ as -: an imitated forwarding field")
refuse("host-list", host(b" a.example, b.example"), "9110 7.2: no list")
refuse("host-list-comma-only", host(b" a.example,"), "9110 7.2: no list")
refuse("host-space-inside", host(b" a b"), "RFC 3986 3.2.2")
refuse("host-tab-inside", host(b" a\tb"), "RFC 3986 3.2.2")
refuse("host-user-info", host(b" user@h.example"), "9110 7.2: host and port only")
refuse("host-user-password", host(b" u:p@h.example"), "9110 7.2: host and port only")
refuse("host-path", host(b" h.example/p"), "9110 7.2: host and port only")
refuse("host-query", host(b" h.example?x"), "9110 7.2: host and port only")
refuse("host-fragment", host(b" h.example#x"), "9110 7.2: host and port only")
refuse("host-backslash", host(b" h.example\\p"), "9110 7.2: host and port only")
refuse("host-scheme", host(b" http://h.example"), "9110 7.2: host and port only")
refuse("host-port-letters", host(b" h.example:http"), "RFC 3986 3.2.3: digits")
refuse("host-port-too-big", host(b" h.example:65536"), "no such port")
refuse("host-port-endless", host(b" h.example:" + b"0" * 500 + b"80"), "no such port")
refuse("host-port-negative", host(b" h.example:-1"), "RFC 3986 3.2.3: digits")
refuse("host-port-twice", host(b" h.example:80:80"), "RFC 3986 3.2.3")
refuse("host-port-space", host(b" h.example: 80"), "RFC 3986 3.2.3")
refuse("host-port-only", host(b" :80"), "9110 4.2.1: no name")
refuse("host-ipv6-open", host(b" [::1"), "RFC 3986 3.2.2")
refuse("host-ipv6-bad", host(b" [::g]"), "RFC 3986 3.2.2")
refuse("host-ipv6-empty", host(b" []"), "RFC 3986 3.2.2")
refuse("host-ipv6-zone", host(b" [fe80::1%25eth0]"), "RFC 6874: means something on one machine only")
refuse("host-ipv6-bare", host(b" ::1"), "RFC 3986 3.2.2: brackets")
refuse("host-ipv6-text-after", host(b" [::1]x"), "RFC 3986 3.2.2")
refuse("host-ipvfuture", host(b" [v1.x]"), "RFC 3986 3.2.2: none exists")
refuse("host-quoted", host(b' "h.example"'), "RFC 3986 3.2.2")
refuse("host-angle", host(b" <script>"), "RFC 3986 3.2.2")
refuse("host-percent", host(b" h%2eexample"), "no DNS name has an escape")
refuse("host-high-bytes", host(b" caf\xc3\xa9.example"), "RFC 3986 3.2.2: ASCII")
refuse("host-nul", host(b" h.exa\x00mple"), "9110 5.5: NUL")
refuse("host-control", host(b" h.exa\x01mple"), "9110 5.5: control characters")
refuse("host-empty-label", host(b" h..example"), "RFC 1035 2.3.1")
refuse("host-leading-dot", host(b" .example"), "RFC 1035 2.3.1")
refuse("host-short-ipv4", host(b" 127.1"), "an address to some, a name to others")
refuse("host-hex-ipv4", host(b" 0x7f.0.0.1"), "an address to some, a name to others")
refuse("host-too-long", host(b" " + b"a." * 300 + b"example"), "RFC 1035 2.3.4")
refuse("host-space-before-colon", b"GET /p HTTP/1.1\r\nHost : h.example\r\n\r\n", "9112 5.1")
refuse("host-folded", b"GET /p HTTP/1.1\r\nHost:\r\n h.example\r\n\r\n", "9112 5.2")
forward("host-upper-case", host(b" H.EXAMPLE"), "9110 4.2.3: no case", sends=(b"host: h.example\r\n",))
forward("host-no-space", host(b"h.example"), "9112 5: white space is optional", sends=(b"host: h.example\r\n",))
forward("host-tabs-around", host(b"\t h.example \t"), "9112 5.1: optional white space is not part of it", sends=(b"host: h.example\r\n",))
forward("host-port", host(b" h.example:8080"), "9110 7.2", sends=(b"host: h.example:8080\r\n",))
forward("host-empty-port", host(b" h.example:"), "RFC 3986 3.2.3: legal, normalised away", sends=(b"host: h.example\r\n",))
forward("host-ipv4", host(b" 127.0.0.1:80"), "9110 7.2")
forward("host-ipv6", host(b" [::1]:80"), "9110 7.2", sends=(b"host: [::1]:80\r\n",))
forward("host-trailing-dot", host(b" h.example."), "RFC 1034 3.1: the root", sends=(b"host: h.example\r\n",))
forward("host-last", b"GET /p HTTP/1.1\r\nX: y\r\n" + H + b"\r\n", "9110 5.3: any order")

# -- field syntax: 9112 5, 9110 5 ----------------------------------------------------------------

refuse("field-space-before-colon", GET + b"X : y\r\n\r\n", "9112 5.1: must be refused")
refuse("field-tab-before-colon", GET + b"X\t: y\r\n\r\n", "9112 5.1: must be refused")
refuse("field-length-space-before-colon", POST + b"Content-Length : 5\r\n\r\nhello", "9112 5.1: must be refused")
refuse("field-coding-space-before-colon", POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST, "9112 5.1: must be refused")
refuse("field-no-colon", GET + b"X\r\n\r\n", "9112 5")
refuse("field-no-name", GET + b": y\r\n\r\n", "9112 5")
refuse("field-space-only", GET + b" \r\n\r\n", "9112 5")
refuse("field-name-space", GET + b"X Y: z\r\n\r\n", "9110 5.1: no token")
refuse("field-name-brackets", GET + b"X(Y): z\r\n\r\n", "9110 5.6.2: no token")
refuse("field-name-quoted", GET + b'"X": y\r\n\r\n', "9110 5.6.2: no token")
refuse("field-name-slash", GET + b"X/Y: z\r\n\r\n", "9110 5.6.2: no token")
refuse("field-name-at", GET + b"X@Y: z\r\n\r\n", "9110 5.6.2: no token")
refuse("field-name-equals", GET + b"X=Y: z\r\n\r\n", "9110 5.6.2: no token")
refuse("field-name-pseudo", GET + b":authority: evil.example\r\n\r\n", "9113 8.3: pseudo-fields are HTTP/2's")
for _byte in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1F, 0x7F, 0x80, 0xA0, 0xFF):
    refuse(f"field-name-byte-{_byte:02x}", GET + b"X" + bytes([_byte]) + b"Y: z\r\n\r\n", "9110 5.6.2: no token")
for _byte in (0x00, 0x01, 0x07, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
    refuse(f"field-value-byte-{_byte:02x}", GET + b"X: a" + bytes([_byte]) + b"b\r\n\r\n", "9110 5.5: control characters")
refuse("field-value-nul-end", GET + b"X: a\x00\r\n\r\n", "9110 5.5: NUL")
refuse("field-fold-space", GET + b"X: a\r\n b\r\n\r\n", "9112 5.2: obs-fold is refused")
refuse("field-fold-tab", GET + b"X: a\r\n\tb\r\n\r\n", "9112 5.2: obs-fold is refused")
refuse("field-fold-empty", GET + b"X: a\r\n \r\n\r\n", "9112 5.2: obs-fold is refused")
refuse("field-fold-coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST, "9112 5.2: obs-fold is refused")
refuse("field-fold-length", POST + b"Content-Length: 1\r\n 1\r\n\r\nhello world", "9112 5.2: obs-fold is refused")
refuse("field-fold-hides-coding", POST + b"Content-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\nhello", "9112 5.2: obs-fold is refused")
refuse("fields-too-many", GET + b"".join(b"X-%d: y\r\n" % i for i in range(150)) + b"\r\n", "RFC 6585 5", 431)
refuse("fields-too-big", GET + b"X: " + b"y" * 40000 + b"\r\n\r\n", "RFC 6585 5", 431)
refuse("fields-too-big-many", GET + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(60)) + b"\r\n", "RFC 6585 5", 431)
refuse("fields-endless", GET + b"X: y\r\n" * 12000, "RFC 6585 5: refused before it ends", 431)
refuse("field-name-endless", GET + b"X" * 60000, "RFC 6585 5: refused before it ends", 431)
forward("field-value-empty", GET + b"X:\r\nY: \t \r\n\r\n", "9112 5: may be empty", sends=(b"x: \r\n",))
forward("field-value-obs-text", GET + b"X: caf\xe9 \xc3\xa9\r\n\r\n", "9110 5.5: opaque", sends=(b"x: caf\xe9 \xc3\xa9\r\n",))
forward("field-value-tab", GET + b"X: a\tb\r\n\r\n", "9110 5.5: a tab is allowed inside")
forward("field-value-colons", GET + b"X: a:b: c\r\n\r\n", "9112 5: the first colon", sends=(b"x: a:b: c\r\n",))
forward("field-name-odd-token", GET + b"!#$%&'*+-.^`|~: y\r\n\r\n", "9110 5.6.2: a token")
forward("field-repeated", GET + b"X: a\r\nX: b\r\n\r\n", "9110 5.3: order is kept", sends=(b"x: a\r\n",))
forward("fields-many", GET + b"".join(b"X-%d: y\r\n" % i for i in range(90)) + b"\r\n", "RFC 6585 5: below the limit")

# Names that become another once "_" is read as "-" (CGI, WSGI, PHP).
for _name in ("transfer_encoding", "content_length", "Transfer_Encoding", "CONTENT_LENGTH", "x_forwarded_for", "x_real_ip"):
    refuse(f"twin-{_name}", POST + _name.encode() + b": 5\r\nContent-Length: 5\r\n\r\nhello", "RFC 3875 4.1.18: imitates a field that frames or identifies")
refuse("twin-half", POST + b"transfer_encoding: chunked\r\n\r\n" + LAST + INNER, "RFC 3875 4.1.18: a second reading of the framing")
forward("underscore-elsewhere", GET + b"x_custom: y\r\n\r\n", "9110 5.6.2: a token; imitates nothing", sends=(b"x_custom: y\r\n",))

# -- Content-Length: 9112 6.2, 9110 8.6 ----------------------------------------------------------


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return POST + b"Content-Length:" + value + b"\r\n\r\n" + body


for _id, _value in BAD_LENGTHS.items():
    refuse(f"length-{_id}", length(_value), "9112 6.2: digits that say one number", (400, 413))
refuse("length-twice-same", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "9112 6.3: may be repaired; we do not")
refuse("length-twice-different", POST + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello", "9112 6.3: must be refused")
refuse("length-twice-zero", POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + INNER, "9112 6.3: must be refused")
refuse("length-twice-case", POST + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!", "9112 6.3: must be refused")
refuse("length-get-twice", GET + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + INNER, "9112 6.3: must be refused")
refuse("length-too-big", length(b" 999999999999"), "9110 15.5.14", 413)
forward("length", length(b" 5"), "9112 6.2", sends=(b"content-length: 5\r\n", b"\r\n\r\nhello"))
forward("length-zeros", length(b" 0005"), "9110 8.6: leading zeros are digits", sends=(b"content-length: 5\r\n",))
forward("length-spaces-around", length(b" \t5 \t"), "9112 5.1", sends=(b"content-length: 5\r\n",))
forward("length-zero", length(b" 0", b""), "9110 8.6", sends=(b"content-length: 0\r\n",))
forward("length-missing-post", POST + b"\r\n", "9112 6.3: no body", sends=(b"content-length: 0\r\n",))
forward("length-get", GET + b"Content-Length: 5\r\n\r\nhello", "9110 9.3.1: a GET may have a body; it is framed all the same", sends=(b"\r\n\r\nhello",))
forward("length-get-hides-request", GET + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER, "9112 6.3: a body, whatever it looks like", seen=1)
forward("length-head", b"HEAD /p HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", "9110 9.3.2: framed all the same")
forward("length-delete", b"DELETE /p HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", "9112 6.3: framed all the same")
forward("length-options", b"OPTIONS /p HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", "9112 6.3: framed all the same")
refuse("length-cut", length(b" 50"), "9112 8: the client closed in the middle", (400, 408), partial=True, ends=True, may_drop=True)

# -- Transfer-Encoding: 9112 6.1 -----------------------------------------------------------------


def coding(value: bytes, body: bytes = LAST) -> bytes:
    return POST + b"Transfer-Encoding:" + value + b"\r\n\r\n" + body


for _id, _value in BAD_CODINGS.items():
    refuse(f"coding-{_id}", coding(_value), "9112 6.1: chunked and nothing else", (400, 501))
refuse("coding-twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1: applied more than once")
refuse("coding-twice-identity", POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1: one line")
refuse("coding-twice-cow", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n" + LAST, "9112 6.1: one line", (400, 501))
refuse("coding-twice-empty", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n" + LAST, "9112 6.1: one line")
refuse("coding-and-length", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1: an attempt at smuggling")
refuse("length-and-coding", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + LAST, "9112 6.1: an attempt at smuggling")
refuse("coding-and-length-hides", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + INNER, "9112 6.1: CL.TE")
refuse("length-and-coding-hides", POST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(LAST + INNER) + LAST + INNER, "9112 6.1: TE.CL")
refuse("coding-and-zero-length", POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1")
refuse("coding-identity-and-length", POST + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", "9112 6.1: identity is gone", (400, 501))
refuse("coding-bad-and-length", POST + b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\nhello", "9112 6.1", (400, 501))
refuse("coding-get", GET + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + LAST, "9112 6.1")
refuse("coding-http10", b"POST /p HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1: framing is faulty")
refuse("coding-http10-length", b"POST /p HTTP/1.0\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST, "9112 6.1: framing is faulty")
refuse("coding-http10-keep-alive", b"GET /p HTTP/1.0\r\n" + H + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + INNER, "9112 6.1: framing is faulty")
refuse("coding-name-space", POST + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n" + LAST, "9112 5.1")
refuse("coding-name-cr", POST + b"Transfer-Encoding\r: chunked\r\n\r\n" + LAST, "9112 2.2")
refuse("coding-name-nul", POST + b"Transfer-Encoding\x00: chunked\r\n\r\n" + LAST, "9110 5.6.2")
refuse("coding-name-high", POST + b"Transfer-Encoding\xff: chunked\r\n\r\n" + LAST, "9110 5.6.2")
refuse("coding-hidden-in-value", GET + b"X: y\r\n\x20Transfer-Encoding: chunked\r\n\r\n" + LAST, "9112 5.2")
refuse("coding-first-line-space", b"POST /p HTTP/1.1\r\n Transfer-Encoding: chunked\r\n" + H + b"\r\n" + LAST, "9112 2.2")
forward("coding-upper-case", coding(b" CHUNKED", b"5\r\nhello\r\n" + LAST), "9112 7: no case")
forward("coding-mixed-case", coding(b" chUNked", b"5\r\nhello\r\n" + LAST), "9112 7: no case")
forward("coding-tab", coding(b"\tchunked", b"5\r\nhello\r\n" + LAST), "9112 5.1: optional white space")
forward("coding-spaces-after", coding(b" chunked \t ", b"5\r\nhello\r\n" + LAST), "9112 5.1: optional white space")
forward("coding-name-upper-case", POST + b"TRANSFER-ENCODING: chunked\r\n\r\n" + LAST, "9110 5.1: no case")
forward("coding-get-chunked", GET + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" + LAST, "9110 9.3.1: framed all the same")
forward("coding-get-hides-request", GET + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(INNER), INNER) + LAST, "9112 7.1: data, whatever it looks like", seen=1)

# -- chunked: 9112 7.1 ---------------------------------------------------------------------------


def bad_chunk(id: str, body: bytes, reason: str, *, ends: bool = False, may_drop: bool = False) -> None:
    refuse(f"chunk-{id}", CHUNKED + body, reason, (400, 408) if ends else 400, partial=True, ends=ends, may_drop=may_drop)


for _id, _size in BAD_SIZES.items():
    bad_chunk(f"size-{_id}", _size + b"\r\nhello\r\n" + LAST, "9112 7.1: hexadecimal digits, and a number that fits")
bad_chunk("size-empty", b"\r\nhello\r\n" + LAST, "9112 7.1: no size")
bad_chunk("size-empty-extension", b";x\r\nhello\r\n" + LAST, "9112 7.1: no size")
bad_chunk("size-lf", b"5\nhello\r\n" + LAST, "9112 2.2: bare LF after a size")
bad_chunk("size-cr-only", b"5\rhello\r\n" + LAST, "9112 2.2: bare CR after a size")
bad_chunk("size-last-lf", b"5\r\nhello\r\n0\n\r\n", "9112 2.2: bare LF after the last size")
bad_chunk("size-last-minus", b"5\r\nhello\r\n-0\r\n\r\n", "9112 7.1")
bad_chunk("data-lf", b"5\r\nhello\n" + LAST, "9112 7.1: CRLF after the data")
bad_chunk("data-cr", b"5\r\nhello\r" + LAST, "9112 7.1: CRLF after the data")
bad_chunk("data-nothing", b"5\r\nhello" + LAST, "9112 7.1: CRLF after the data")
bad_chunk("data-longer", b"5\r\nhello!\r\n" + LAST, "9112 7.1: more data than said")
bad_chunk("data-two-chars", b"5\r\nhelloXX" + LAST, "9112 7.1: any two bytes are not CRLF")
bad_chunk("data-shorter", b"6\r\nhello\r\n" + LAST, "9112 7.1: less data than said")
bad_chunk("end-lf", b"5\r\nhello\r\n0\r\n\n", "9112 2.2: bare LF ends the trailer section for some")
bad_chunk("end-lf-lf", b"0\n\n" + INNER, "9112 2.2: bare LF")
bad_chunk("end-cr", b"0\r\n\rX", "9112 2.2: bare CR")
bad_chunk("end-missing", b"5\r\nhello\r\n0\r\n", "9112 8: the client closed in the middle", ends=True, may_drop=True)
bad_chunk("end-nothing", b"5\r\nhel", "9112 8: the client closed in the middle", ends=True, may_drop=True)
bad_chunk("end-no-last", b"5\r\nhello\r\n", "9112 8: the client closed in the middle", ends=True, may_drop=True)
bad_chunk("extension-lf", b"5;a\nb\r\nhello\r\n" + LAST, "9112 7.1.1: bare LF in an extension")
bad_chunk("extension-cr", b"5;a\rb\r\nhello\r\n" + LAST, "9112 7.1.1: bare CR in an extension")
bad_chunk("extension-quoted-cr", b'5;a="\r"\r\nhello\r\n' + LAST, "9112 7.1.1: bare CR in a quoted value")
bad_chunk("extension-quoted-crlf", b'5;a="\r\nhello\r\n' + LAST + b'"', "9112 7.1.1: CRLF in a quoted value ends the line here, not there")
bad_chunk("extension-nul", b"5;a=\x00\r\nhello\r\n" + LAST, "9110 5.5: NUL")
bad_chunk("extension-control", b"5;a=\x01\r\nhello\r\n" + LAST, "9110 5.6.4: control characters")
bad_chunk("extension-del", b"5;a=\x7f\r\nhello\r\n" + LAST, "9110 5.6.4: control characters")
bad_chunk("extension-long", b"5;" + b"a" * 20000 + b"\r\nhello\r\n" + LAST, "9112 7.1.1: should be limited")
bad_chunk("extension-many", b"".join(b"1;" + b"a" * 200 + b"\r\nx\r\n" for _ in range(200)) + LAST, "9112 7.1.1: should be limited in total")
bad_chunk("extension-endless", b"5;" + b"a" * 60000, "9112 7.1.1: refused before it ends")
bad_chunk("extension-lf-hides", b"2;\nxx\r\n4c\r\n" + LAST + INNER, "9112 7.1.1: TERM.EXT, a terminator that two parsers read differently")
bad_chunk("trailer-lf", b"0\r\nX: y\n\r\n", "9112 2.2: bare LF")
bad_chunk("trailer-cr", b"0\r\nX: a\rb\r\n\r\n", "9112 2.2: bare CR")
bad_chunk("trailer-fold", b"0\r\nX: a\r\n b\r\n\r\n", "9112 5.2: obs-fold")
bad_chunk("trailer-space-before-colon", b"0\r\nX : y\r\n\r\n", "9112 5.1")
bad_chunk("trailer-no-colon", b"0\r\nX\r\n\r\n", "9112 5")
bad_chunk("trailer-nul", b"0\r\nX: \x00\r\n\r\n", "9110 5.5")
bad_chunk("trailer-name-high", b"0\r\n\xff: y\r\n\r\n", "9110 5.6.2")
bad_chunk("trailer-request", b"0\r\nGET /inner HTTP/1.1\r\n" + H + b"\r\n", "9112 7.1.2: a request line is no field")
bad_chunk("trailer-too-big", b"0\r\nX: " + b"y" * 40000 + b"\r\n\r\n", "RFC 6585 5: limited like the head")
bad_chunk("trailer-too-many", b"0\r\n" + b"X: y\r\n" * 150 + b"\r\n", "RFC 6585 5: limited like the head")
bad_chunk("trailer-twin", b"0\r\ncontent_length: 5\r\n\r\n", "RFC 3875 4.1.18: imitates a framing field")

forward("chunked", CHUNKED + b"5\r\nhello\r\n" + LAST, "9112 7.1", sends=(b"hello",))
forward("chunked-empty", CHUNKED + LAST, "9112 7.1")
forward("chunked-upper-hex", CHUNKED + b"A\r\n0123456789\r\n" + LAST, "9112 7.1: either case")
forward("chunked-zeros", CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n", "9112 7.1: leading zeros are digits")
forward("chunked-many", CHUNKED + b"1\r\nx\r\n" * 500 + LAST, "9112 7.1", sends=(b"x",))
forward("chunked-extension", CHUNKED + b"5;a=b;c\r\nhello\r\n0;x\r\n\r\n", "9112 7.1.1: unknown ones are ignored, and not passed on", lacks=(b"a=b",))
forward("chunked-extension-quoted", CHUNKED + b'5;a="b;c"\r\nhello\r\n' + LAST, "9112 7.1.1", lacks=(b"b;c",))
forward("chunked-extension-space", CHUNKED + b"5 ; a = b\r\nhello\r\n" + LAST, "9112 7.1.1: bad white space is to be read", lacks=(b"a = b",))
forward("chunked-crlf-in-data", CHUNKED + b"9\r\n0\r\n\r\nGET \r\n" + LAST, "9112 7.1: data, whatever it looks like", seen=1)
forward("trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "9112 7.1.2")
for _field in (b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Authorization", b"Cookie", b"Content-Type", b"Expect", b"TE", b"X-Forwarded-For", b"Forwarded", b"Via"):
    forward(
        f"trailer-forbidden-{_field.decode().lower()}",
        CHUNKED + b"5\r\nhello\r\n0\r\n" + _field + b": evil-7\r\n\r\n",
        "9110 6.5.1: fields that must not stand in a trailer are dropped",
        lacks=(b"evil-7",),
    )

# -- HTTP/1.0: 9112 C.2 --------------------------------------------------------------------------

forward("http10", b"GET /p HTTP/1.0\r\n" + H + b"\r\n", "9112 9.3: closed after the answer", closes=True, sends=(b" http/1.1\r\n",))
forward("http10-no-host", b"GET /p HTTP/1.0\r\n\r\n", "9112 3.2: not required of HTTP/1.0", closes=True)
forward("http10-keep-alive", b"GET /p HTTP/1.0\r\n" + H + b"Connection: keep-alive\r\n\r\n", "9112 9.3: kept when asked for")
forward("http10-body", b"POST /p HTTP/1.0\r\n" + H + b"Content-Length: 5\r\n\r\nhello", "9112 6.3", closes=True)
forward("http10-pipelined", b"GET /p HTTP/1.0\r\n" + H + b"\r\n" + INNER, "9112 9.3: what follows a last request is not read", closes=True, seen=1)
refuse("http10-two-hosts", b"GET /p HTTP/1.0\r\n" + H + H + b"\r\n", "9112 3.2: more than one is refused in any version")
refuse("http10-bad-host", b"GET /p HTTP/1.0\r\nHost: a/b\r\n\r\n", "9112 3.2")

# -- pipelining: 9112 9.3.2 ----------------------------------------------------------------------

forward("pipelined", GET + b"\r\n" + GET.replace(b"/p", b"/q") + b"\r\n", "9112 9.3.2: answered in order", answers=(200, 200))
forward("pipelined-many", (GET + b"\r\n") * 10, "9112 9.3.2", answers=(200,) * 10)
forward("pipelined-bodies", length(b" 5") + CHUNKED + b"5\r\nhello\r\n" + LAST + GET + b"\r\n", "9112 9.3.2", answers=(200, 200, 200))
forward("pipelined-then-bad", GET + b"\r\n" + b"GET /q HTTP/1.1\r\nHost : h\r\n\r\n", "9112 9.3.2: the good one first, then the refusal", answers=(200, 400), seen=1, closes=True)
forward("pipelined-then-garbage", GET + b"\r\n" + b"\x00\x01\x02\r\n\r\n", "9112 9.3.2", answers=(200, 400), seen=1, closes=True)
forward("pipelined-bad-between", GET + b"\r\n" + b"GET /q HTTP/1.1\r\n\r\n" + INNER, "9112 9.3.2: nothing after the bad one is answered", answers=(200, 400), seen=1, closes=True)
refuse("pipelined-bad-first", b"GET /q HTTP/1.1\r\n\r\n" + INNER, "9112 9.3.2: nothing after it is answered")
forward("pipelined-close", GET + b"Connection: close\r\n\r\n" + INNER, "9112 9.6: nothing after close is answered", closes=True, seen=1)
forward("pipelined-body-too-short", POST + b"Content-Length: 4\r\n\r\nhello", "9112 6.3: the fifth byte begins a next request that never comes", closes=True, ends=True)
forward("pipelined-after-chunked", CHUNKED + LAST + b"X", "9112 6.3: what follows begins a next request that never comes", closes=True, ends=True)
forward("pipelined-extra-crlf", POST + b"Content-Length: 5\r\n\r\nhello\r\n" + GET + b"\r\n", "9112 2.2: an extra CRLF after a body is skipped", answers=(200, 200))
refuse("pipelined-after-413", length(b" 999999999999", INNER), "9112 9.3.2: an unread body is never a request", 413)

# -- Expect: 9110 10.1.1 -------------------------------------------------------------------------

forward("expect", POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1: the body came unasked")
forward("expect-case", POST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1: no case")
forward("expect-no-body", GET + b"Expect: 100-continue\r\n\r\n", "9110 10.1.1: nothing to wait for", lacks=(b"expect:",))
forward("expect-http10", b"POST /p HTTP/1.0\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1: ignored in HTTP/1.0", closes=True, lacks=(b"expect:",))
refuse("expect-other", POST + b"Expect: gift\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1", 417)
refuse("expect-list", POST + b"Expect: 100-continue, gift\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1", 417)
refuse("expect-twice", POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1: one expectation", (400, 417))
refuse("expect-parameter", POST + b"Expect: 100-continue;x=y\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1", 417)
refuse("expect-empty", POST + b"Expect:\r\nContent-Length: 5\r\n\r\nhello", "9110 10.1.1", (400, 417))

# -- Connection and hop-by-hop fields: 9110 7.6.1 ------------------------------------------------

forward("connection-close", GET + b"Connection: close\r\n\r\n", "9112 9.6", closes=True, lacks=(b"connection:",))
forward("connection-close-case", GET + b"Connection: CLOSE\r\n\r\n", "9110 7.6.1: no case", closes=True)
forward("connection-list-close", GET + b"Connection: keep-alive, x , close\r\nX: y\r\n\r\n", "9110 7.6.1", closes=True, lacks=(b"x: y",))
forward("connection-two-lines", GET + b"Connection: x\r\nConnection: close\r\nX: y\r\n\r\n", "9110 5.3: one list", closes=True, lacks=(b"x: y",))
forward("connection-names-field", GET + b"Connection: X-Hop\r\nX-Hop: secret\r\n\r\n", "9110 7.6.1: removed", lacks=(b"x-hop", b"secret"))
forward("connection-names-host", GET + b"Connection: Host\r\n\r\n", "9110 7.6.1: Host stays", sends=(b"host: h.example\r\n",))
forward("connection-names-length", POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", "9110 7.6.1: framing stays", sends=(b"content-length: 5\r\n", b"\r\n\r\nhello"))
forward("connection-names-coding", POST + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LAST, "9110 7.6.1: framing stays", sends=(b"hello",))
forward("connection-names-forwarded-for", GET + b"Connection: X-Forwarded-For, X-Forwarded-Proto, Via\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n", "9110 7.6.1: what we add cannot be taken away", sends=(b"x-forwarded-for: 127.0.0.1\r\n", b"via:"), lacks=(b"9.9.9.9",))
forward("connection-names-request-id", GET + b"Connection: X-Request-Id\r\n\r\n", "9110 7.6.1: what we add cannot be taken away", sends=(b"x-request-id:",))
forward("connection-names-connection", GET + b"Connection: Connection\r\n\r\n", "9110 7.6.1", lacks=(b"connection:",))
forward("connection-empty", GET + b"Connection:\r\n\r\n", "9110 5.6.1: an empty list", lacks=(b"connection:",))
forward("connection-commas", GET + b"Connection: ,, ,\r\n\r\n", "9110 5.6.1.2: empty members are ignored", lacks=(b"connection:",))
forward("connection-garbage", GET + b'Connection: "x;y\r\n\r\n', "9110 7.6.1: names nothing", lacks=(b"connection:",))
forward("hop-by-hop", GET + b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\r\n", "9110 7.6.1: for one hop", lacks=(b"keep-alive", b"proxy-", b"te: gzip"))
forward("te-trailers", GET + b"TE: trailers\r\nConnection: TE\r\n\r\n", "9110 10.1.4", lacks=(b"transfer-encoding",))
forward("forwarded-for-untrusted", GET + b"X-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Real-Ip: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\r\n", "RFC 7239 8.1: an untrusted client names no address", sends=(b"x-forwarded-for: 127.0.0.1\r\n",), lacks=(b"9.9.9.9", b"evil.example", b"https"))
forward("early-data", GET + b"Early-Data: 1\r\n\r\n", "RFC 8470 5.1: passed on", sends=(b"early-data: 1\r\n",))

# -- Upgrade: 9110 7.8 ---------------------------------------------------------------------------

WEBSOCKET = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
forward("upgrade-declined", WEBSOCKET + b"\r\n", "9110 7.8: the instance may decline and answers", sends=(b"upgrade: websocket\r\n", b"connection: upgrade\r\n"))
forward("upgrade-declined-then-request", WEBSOCKET + b"\r\n" + GET + b"\r\n", "9110 7.8: declined, so what follows is a request like any", answers=(200, 200))
forward("upgrade-without-connection", GET + b"Upgrade: websocket\r\n\r\n", "9110 7.8: not asked for", lacks=(b"upgrade",))
forward("upgrade-connection-only", GET + b"Connection: Upgrade\r\n\r\n", "9110 7.8: names no protocol", lacks=(b"upgrade",))
forward("upgrade-h2c", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", "9113 3.1: h2c smuggling; never passed on", lacks=(b"h2c", b"http2-settings"))
forward("upgrade-h2c-websocket", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "9113 3.1: nor in a list", lacks=(b"h2c", b"http2-settings"))
forward("upgrade-tls", GET + b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", "RFC 2817: not on this route", lacks=(b"upgrade",))
forward("upgrade-http10", b"GET /p HTTP/1.0\r\n" + H + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "9110 7.8: ignored in HTTP/1.0", closes=True, lacks=(b"upgrade",))
forward("upgrade-with-body", POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER, "9110 7.8: the body belongs to the request", seen=1)
forward("upgrade-twice", GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "9110 7.8: a list over lines", lacks=(b"h2c",))

# -- HTTP/2 where it does not belong -------------------------------------------------------------

refuse("h2-preface-wrong", b"PRI * HTTP/2.0\r\nX: y\r\n\r\nSM\r\n\r\n", "9113 3.4: not the preface", (400, 505))
forward("h2-preface-second", GET + b"\r\n" + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "9113 3.4: only at the start of a connection", answers=(200, (400, 505)), seen=1, closes=True)
