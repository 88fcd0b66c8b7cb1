"""Checks over HTTP/1.1.

The parsers are those of the data plane, on purpose: what an instance says to a check is read as
strictly as what it says to a client, so one that passes can be served from.
"""

from __future__ import annotations

from typing import Final

from headgate.control.probing.connection import Connection
from headgate.control.probing.target import USER_AGENT, Target, Verdict, judge_body
from headgate.policy.health import HealthRules
from headgate.wire.http1.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from headgate.wire.http1.head import HeadLimits, body_follows, judge_partial, parse_response_head
from headgate.wire.message import Refusal, ResponseHead

__all__ = ["ask", "request_head"]

_HEAD_BYTES: Final = 64 * 1024
_LIMITS: Final = HeadLimits(url_bytes=_HEAD_BYTES, head_bytes=_HEAD_BYTES, field_count=200)
_INFORMATIONAL_MAX: Final = 10
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_HTTP: Final = b"HTTP/1."


async def ask(connection: Connection, target: Target) -> Verdict:
    rules = target.rules
    connection.write(request_head(target))
    connection.stage = "no response"
    head: ResponseHead | None = None
    rest = b""
    for _ in range(_INFORMATIONAL_MAX):
        found = await _read_head(connection, rest)
        if isinstance(found, str):
            return False, found
        head, rest = found
        if head.status >= 200:
            break
    if head is None or head.status < 200:
        return False, "too many 1xx responses"
    if not rules.passes(head.status):
        return False, f"status {head.status}"
    connection.stage = "response not finished"
    return await _read_body(connection, rules, head, rest)


def request_head(target: Target) -> bytes:
    """The request in bytes. Raise ValueError if the rules would break out of a line."""
    rules = target.rules
    lines = [f"{rules.method} {rules.path} HTTP/1.1", f"host: {target.authority}"]
    given = {name.lower() for name, _ in rules.headers}
    defaults = (("user-agent", USER_AGENT), ("accept", "*/*"), ("connection", "close"))
    lines.extend(f"{name}: {value}" for name, value in defaults if name not in given)
    if rules.method in _BODY_METHODS:
        lines.append("content-length: 0")
    lines.extend(f"{name.lower()}: {value}" for name, value in rules.headers)
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in what is to be sent")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


async def _read_head(connection: Connection, data: bytes) -> tuple[ResponseHead, bytes] | str:
    """Read up to the end of a head; the head with what came after it, or what is wrong."""
    while True:
        if data and data[: len(_HTTP)] != _HTTP[: len(data)]:
            return "not HTTP"
        end = data.find(b"\r\n\r\n")
        if 0 <= end <= _HEAD_BYTES:
            head = parse_response_head(data[: end + 4], _LIMITS)
            if isinstance(head, Refusal):
                return f"not HTTP: {head.reason}"
            return head, data[end + 4 :]
        if len(data) > _HEAD_BYTES:
            return "response head too large"
        wrong = judge_partial(data, _LIMITS)
        if wrong is not None:
            return f"not HTTP: {wrong.reason}"
        piece = await connection.more()
        if not piece:
            return "closed in the middle of the response" if data else "closed without a response"
        data += piece


async def _read_body(
    connection: Connection, rules: HealthRules, head: ResponseHead, data: bytes
) -> Verdict:
    reader: BodyReader
    if head.status == 101 or not body_follows(rules.method, head.status):
        reader, data = LengthReader(0), b""
    elif head.chunked:
        reader = ChunkedReader(_LIMITS)
    else:
        reader = LengthReader(head.length) if head.length >= 0 else UntilCloseReader()
    body = bytearray()
    while True:
        if data:
            payload, _ = reader.feed(data)
            body += payload
            if isinstance(reader, ChunkedReader) and reader.refusal is not None:
                return False, f"not HTTP: {reader.refusal.reason}"
        verdict = judge_body(body, rules, head.status, is_whole=reader.is_done)
        if verdict is not None:
            return verdict
        data = await connection.more()
        if not data:
            if isinstance(reader, UntilCloseReader):
                break
            return False, "closed in the middle of the response"
    return judge_body(body, rules, head.status, is_whole=True) or (False, "")
