"""Responses of an instance that are malformed, or at the border: what the client must get.

An instance is trusted more than a client, but not with framing: a response that two parsers read
differently gives one client another's answer (RFC 9112 11.1). So what would be refused in a
request is 502 here, and a connection is only used again when nothing is left of the response.
"""

from __future__ import annotations

from tests.wire.corpus.case import ResponseCase
from tests.wire.corpus.framing import BAD_CODINGS, BAD_LENGTHS, BAD_SIZES

# One case a line reads as a table.
# fmt: off

CASES: list[ResponseCase] = []

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
INNER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
"""A response that must never be taken for one."""


def bad(id: str, raw: bytes, reason: str, *, closes: bool = False, aborted: bool = False, method: bytes = b"GET", headers: bytes = b"", interim: tuple[int, ...] = ()) -> None:
    """502, and the connection is not used again."""
    CASES.append(
        ResponseCase(id, raw, reason, 502, reusable=False, closes=closes, aborted=aborted, method=method, headers=headers, interim=interim, lacks=(b"evil",))
    )


def good(
    id: str,
    raw: bytes,
    reason: str,
    *,
    status: int = 200,
    reusable: bool = True,
    body: bytes | None = b"hello",
    closes: bool = False,
    method: bytes = b"GET",
    headers: bytes = b"",
    has: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
    interim: tuple[int, ...] = (),
) -> None:
    CASES.append(
        ResponseCase(id, raw, reason, status, reusable, body, method, headers, closes, False, has, (b"evil", *lacks), interim)
    )


# -- status line: 9112 4 -------------------------------------------------------------------------

bad("http09", b"hello, no head at all\r\n\r\n", "9112 4: HTTP/0.9 is not spoken")
bad("html", b"<html><body>evil</body></html>", "9112 4: no status line", closes=True)
bad("status-version-2", b"HTTP/2 200\r\n" + BODY, "9112 2.3")
bad("status-version-2.0", b"HTTP/2.0 200 OK\r\n" + BODY, "9112 2.3")
bad("status-version-1.2", b"HTTP/1.2 200 OK\r\n" + BODY, "9112 2.3: no such version")
bad("status-version-lower-case", b"http/1.1 200 OK\r\n" + BODY, "9112 2.3: the name is case-sensitive")
bad("status-icy", b"ICY 200 OK\r\n" + BODY, "9112 4: not HTTP")
bad("status-no-code", b"HTTP/1.1 \r\n" + BODY, "9112 4")
bad("status-two-digits", b"HTTP/1.1 20 OK\r\n" + BODY, "9112 4: three digits")
bad("status-four-digits", b"HTTP/1.1 2000 OK\r\n" + BODY, "9112 4: three digits")
bad("status-zero", b"HTTP/1.1 000 OK\r\n" + BODY, "9110 15: from 100")
bad("status-below-100", b"HTTP/1.1 099 OK\r\n" + BODY, "9110 15: from 100")
bad("status-letters", b"HTTP/1.1 2OO OK\r\n" + BODY, "9112 4: digits")
bad("status-negative", b"HTTP/1.1 -20 OK\r\n" + BODY, "9112 4: digits")
bad("status-sign", b"HTTP/1.1 +20 OK\r\n" + BODY, "9112 4: digits")
bad("status-double-space", b"HTTP/1.1  200 OK\r\n" + BODY, "9112 4: one space")
bad("status-tab", b"HTTP/1.1\t200 OK\r\n" + BODY, "9112 4: one space")
bad("status-leading-space", b" HTTP/1.1 200 OK\r\n" + BODY, "9112 4")
bad("status-leading-crlf", b"\r\n" + OK + BODY, "9112 2.2: skipping is for requests")
bad("status-leading-lf", b"\n" + OK + BODY, "9112 2.2")
bad("status-reason-nul", b"HTTP/1.1 200 O\x00K\r\n" + BODY, "9112 4: NUL")
bad("status-reason-cr", b"HTTP/1.1 200 O\rK\r\n" + BODY, "9112 2.2: bare CR")
bad("status-reason-control", b"HTTP/1.1 200 O\x01K\r\n" + BODY, "9112 4: control characters")
bad("status-reason-splits", b"HTTP/1.1 200 OK\nSet-Cookie: evil=1\r\n" + BODY, "9112 2.2: bare LF")
bad("request-as-response", b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", "9112 4: a request is no response")
bad("tls-alert", b"\x15\x03\x01\x00\x02\x02\x46", "no HTTP at all", closes=True)
good("status-no-reason", b"HTTP/1.1 200 \r\n" + BODY, "9112 4: the reason may be empty")
good("status-no-reason-space", b"HTTP/1.1 200\r\n" + BODY, "9112 4: some leave out the space; what we send has it")
good("status-reason-latin1", b"HTTP/1.1 200 caf\xe9\r\n" + BODY, "9112 4: obs-text")
good("status-unknown", b"HTTP/1.1 299 Odd\r\n" + BODY, "9110 15: unknown codes pass", status=299)
good("status-http10", b"HTTP/1.0 200 OK\r\n" + BODY, "9112 9.3: closed after the answer", reusable=False)
good("status-http10-keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + BODY, "9112 9.3: kept when said")

# -- line ends and fields: 9112 2.2, 5 -----------------------------------------------------------

bad("lf-only", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "9112 2.2: bare LF")
bad("lf-field", OK + b"X: y\nSet-Cookie: evil=1\r\n" + BODY, "9112 2.2: response splitting by LF")
bad("lf-lf", OK + b"Content-Length: 5\n\nhello" + INNER, "9112 2.2: LF LF ends the head for some")
bad("cr-field", OK + b"X: y\rSet-Cookie: evil=1\r\n" + BODY, "9112 2.2: response splitting by CR")
bad("cr-cr-lf", OK + b"X: y\r\r\n" + BODY, "9112 2.2: CR before CRLF")
bad("field-fold", OK + b"X: a\r\n b\r\n" + BODY, "9112 5.2: obs-fold")
bad("field-fold-coding", OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST, "9112 5.2: obs-fold")
bad("field-space-before-colon", OK + b"X : y\r\n" + BODY, "9112 5.1")
bad("field-length-space-before-colon", OK + b"Content-Length : 5\r\n\r\nhello", "9112 5.1")
bad("field-no-colon", OK + b"X\r\n" + BODY, "9112 5")
bad("field-no-name", OK + b": y\r\n" + BODY, "9112 5")
bad("field-leading-space", OK + b" X: y\r\n" + BODY, "9112 2.2")
bad("field-name-space", OK + b"X Y: z\r\n" + BODY, "9110 5.6.2: no token")
bad("field-name-nul", OK + b"X\x00: y\r\n" + BODY, "9110 5.6.2: no token")
bad("field-name-high", OK + b"caf\xe9: y\r\n" + BODY, "9110 5.6.2: no token")
bad("field-value-nul", OK + b"X: a\x00b\r\n" + BODY, "9110 5.5: NUL")
bad("field-value-control", OK + b"X: a\x0bb\r\n" + BODY, "9110 5.5: control characters")
bad("field-value-del", OK + b"X: a\x7fb\r\n" + BODY, "9110 5.5: control characters")
bad("fields-too-many", OK + b"".join(b"X-%d: y\r\n" % i for i in range(1000)) + BODY, "memory is bounded")
bad("fields-too-big", OK + b"X: " + b"y" * 200_000 + b"\r\n" + BODY, "memory is bounded")
bad("fields-endless", OK + b"X: " + b"y" * 400_000, "memory is bounded, without an end in sight")
good("field-obs-text", OK + b"X: caf\xe9\r\n" + BODY, "9110 5.5: opaque", has=(b"x: caf\xe9\r\n",))
good("field-empty", OK + b"X:\r\n" + BODY, "9112 5", has=(b"x: \r\n",))
good("field-underscore", OK + b"x_request_id: 7\r\n" + BODY, "RFC 3875 4.1.18 is about requests", has=(b"x_request_id: 7\r\n",))
good("field-repeated", OK + b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n" + BODY, "9110 5.3: never joined", has=(b"set-cookie: a=1\r\nset-cookie: b=2\r\n",))
good("hop-by-hop", OK + b"Connection: X-Hop, keep-alive\r\nX-Hop: secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n" + BODY, "9110 7.6.1", lacks=(b"x-hop", b"secret", b"keep-alive:", b"proxy-"))
good("connection-close", OK + b"Connection: close\r\n" + BODY, "9112 9.6: it will close", reusable=False, lacks=(b"connection:",))
good("connection-close-list", OK + b"Connection: x, Close\r\n" + BODY, "9110 7.6.1: a list without case", reusable=False)
good("connection-names-length", OK + b"Connection: Content-Length\r\n" + BODY, "9110 7.6.1: framing stays")
good("upgrade-unasked", OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + BODY, "9110 7.8: an offer for one hop", lacks=(b"upgrade",))

# -- framing: 9112 6 -----------------------------------------------------------------------------

for _id, _value in BAD_LENGTHS.items():
    bad(f"length-{_id}", OK + b"Content-Length:" + _value + b"\r\n\r\nhello", "9112 6.3: an invalid length is unrecoverable")
for _id, _value in BAD_CODINGS.items():
    bad(f"coding-{_id}", OK + b"Transfer-Encoding:" + _value + b"\r\n\r\n5\r\nhello\r\n" + LAST, "9112 6.3: chunked and nothing else")
bad("length-twice-different", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "9112 6.3: unrecoverable")
bad("length-twice-same", OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "9112 6.3: may be repaired; we do not")
bad("length-and-coding", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LAST, "9112 6.3: response splitting")
bad("coding-and-length", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n" + LAST, "9112 6.3: response splitting")
bad("coding-twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LAST, "9112 6.1")
bad("coding-http10", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LAST, "9112 6.1: framing is faulty")
good("length-zero", OK + b"Content-Length: 0\r\n\r\n", "9112 6.2", body=b"")
good("length-zeros", OK + b"Content-Length: 005\r\n\r\nhello", "9110 8.6: digits")
good("chunked", CHUNKED + b"5\r\nhello\r\n" + LAST, "9112 7.1")
good("chunked-empty", CHUNKED + LAST, "9112 7.1", body=b"")
good("chunked-case", OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n" + LAST, "9112 7: no case")
good("chunked-extension", CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n", "9112 7.1.1: dropped", lacks=(b"a=b",))
good("chunked-trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "9112 7.1.2")
good("chunked-trailer-forbidden", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 66\r\nSet-Cookie: evil=1\r\n\r\n", "9110 6.5.1", lacks=(b"length: 66", b"evil"))
good("until-close", OK + b"\r\nhello", "9112 6.3: the close ends it", reusable=False, closes=True)
good("until-close-empty", OK + b"\r\n", "9112 6.3: the close ends it", reusable=False, closes=True, body=b"")
good("until-close-http10", b"HTTP/1.0 200 OK\r\n\r\nhello", "9112 6.3", reusable=False, closes=True)
good("until-close-looks-like-response", OK + b"\r\n" + INNER.replace(b"evil", b"data"), "9112 6.3: all of it is the body", reusable=False, closes=True, body=INNER.replace(b"evil", b"data"))

for _id, _size in BAD_SIZES.items():
    bad(f"chunk-size-{_id}", CHUNKED + _size + b"\r\nhello\r\n" + LAST, "9112 7.1", aborted=True)
bad("chunk-size-empty", CHUNKED + b"\r\nhello\r\n" + LAST, "9112 7.1", aborted=True)
bad("chunk-size-lf", CHUNKED + b"5\nhello\r\n" + LAST, "9112 2.2", aborted=True)
bad("chunk-data-longer", CHUNKED + b"5\r\nhello!\r\n" + LAST, "9112 7.1", aborted=True)
bad("chunk-data-lf", CHUNKED + b"5\r\nhello\n" + LAST, "9112 7.1", aborted=True)
bad("chunk-extension-cr", CHUNKED + b"5;a\rb\r\nhello\r\n" + LAST, "9112 7.1.1", aborted=True)
bad("chunk-extension-long", CHUNKED + b"5;" + b"a" * 70_000 + b"\r\nhello\r\n" + LAST, "9112 7.1.1", aborted=True)
bad("chunk-trailer-bad", CHUNKED + b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", "9112 5.1", aborted=True)
bad("chunk-end-lf", CHUNKED + b"5\r\nhello\r\n0\r\n\n", "9112 2.2", aborted=True)

# -- responses without a body: 9112 6.3 ----------------------------------------------------------

good("head", OK + b"Content-Length: 5\r\n\r\n", "9112 6.3: a HEAD ends with the head", method=b"HEAD", body=b"", has=(b"content-length: 5\r\n",))
good("head-chunked", OK + b"Transfer-Encoding: chunked\r\n\r\n", "9112 6.3: a HEAD ends with the head", method=b"HEAD", body=b"")
good("head-with-body", OK + b"Content-Length: 4\r\n\r\nevil", "9112 6.3: what follows is nobody's", method=b"HEAD", body=b"", reusable=False)
good("204", b"HTTP/1.1 204 No Content\r\n\r\n", "9112 6.3", status=204, body=b"")
good("204-length-zero", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "9110 8.6: must not be sent, harmless", status=204, body=b"", lacks=(b"content-length",))
bad("204-length", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", "9112 6.3: a body where there is none")
bad("204-coding", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n" + LAST, "9112 6.1: a body where there is none")
good("204-with-body", b"HTTP/1.1 204 No Content\r\n\r\nevil", "9112 6.3: what follows is nobody's", status=204, body=b"", reusable=False)
good("304-length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "9110 15.4.5: says what a 200 would have", status=304, body=b"")
good("304-with-body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", "9112 6.3: what follows is nobody's", status=304, body=b"", reusable=False)
good("205-empty", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "9110 15.3.6", status=205, body=b"")

# -- more or less than was asked for: 9112 8, 9.2 ------------------------------------------------

good("extra-bytes", OK + BODY + b"evil", "9112 9.2: what follows is nobody's", reusable=False)
good("extra-crlf", OK + BODY + b"\r\n", "9112 9.2: also an empty line", reusable=False)
good("extra-response", OK + BODY + INNER, "9112 9.2: response queue poisoning", reusable=False)
good("extra-response-chunked", CHUNKED + b"5\r\nhello\r\n" + LAST + INNER, "9112 9.2: response queue poisoning", reusable=False)
good("extra-response-head", OK + b"Content-Length: 5\r\n\r\n" + INNER, "9112 9.2: response queue poisoning", method=b"HEAD", body=b"", reusable=False)
good("extra-informational", OK + BODY + b"HTTP/1.1 100 Continue\r\n\r\n", "9112 9.2: nobody asked", reusable=False)
bad("close-at-once", b"", "9112 8: closed without a word", closes=True)
bad("close-in-status-line", b"HTTP/1.1 20", "9112 8: incomplete", closes=True)
bad("close-in-head", OK + b"Content-Len", "9112 8: incomplete", closes=True)
bad("close-before-end-of-head", OK + b"Content-Length: 5\r\n", "9112 8: incomplete", closes=True)
bad("close-before-body", OK + b"Content-Length: 5\r\n\r\n", "9112 8: incomplete", closes=True, aborted=True)
bad("close-in-body", OK + b"Content-Length: 50\r\n\r\nhello", "9112 8: incomplete", closes=True, aborted=True)
bad("close-in-chunk", CHUNKED + b"5\r\nhel", "9112 8: incomplete", closes=True, aborted=True)
bad("close-between-chunks", CHUNKED + b"5\r\nhello\r\n", "9112 8: incomplete", closes=True, aborted=True)
bad("close-before-last-crlf", CHUNKED + b"5\r\nhello\r\n0\r\n", "9112 8: incomplete", closes=True, aborted=True)
bad("close-in-trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum", "9112 8: incomplete", closes=True, aborted=True)

# -- 1xx and upgrades: 9110 15.2, 7.8 ------------------------------------------------------------

good("100", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + BODY, "9110 15.2: may come unasked", interim=(100,))
good("103", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK + BODY, "RFC 8297: passed on", interim=(103,), has=(b"link: </a.css>\r\n",))
good("102-twice", b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + OK + BODY, "9110 15.2: any number", interim=(102, 102))
bad("100-endless", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, "memory and patience are bounded", aborted=False, interim=(100,) * 16)
bad("100-length", b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nevil" + OK + BODY, "9110 8.6: a body where there is none")
bad("100-coding", b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + OK + BODY, "9112 6.1: a body where there is none")
bad("100-then-close", b"HTTP/1.1 100 Continue\r\n\r\n", "9112 8: incomplete", closes=True, interim=(100,))
bad("100-then-garbage", b"HTTP/1.1 100 Continue\r\n\r\nevil\r\n\r\n", "9112 4", interim=(100,))
bad("101-unasked", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil", "9110 15.2.2: nobody asked")
bad("101-other-protocol", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nevil", "9110 7.8: not what was asked for", headers=b"Connection: upgrade\r\nUpgrade: websocket\r\n")
bad("101-no-protocol", b"HTTP/1.1 101 Switching Protocols\r\n\r\nevil", "9110 7.8: must name it", headers=b"Connection: upgrade\r\nUpgrade: websocket\r\n")
