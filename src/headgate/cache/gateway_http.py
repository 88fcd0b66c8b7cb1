"""One request to the admin API of a gateway: a small, strict client without dependencies.

A connection for each request, HTTP/1.0, so that the answer has a length or ends with the
connection and no other framing is to be understood. What is not exactly that is refused. Redirects
are not followed, since they would take the token elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from headgate.errors import HeadgateError
from headgate.wire.host import DEFAULT_PORTS

__all__ = ["Answer", "Gateway", "GatewayAway"]

HEAD_MAX: Final = 32 * 1024
BODY_MAX: Final = 8 * 1024 * 1024


class GatewayAway(HeadgateError):
    """The gateway's admin API does not answer, or not as one."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: Any
    """What the JSON says."""
    retry_after_s: float = 0.0

    @property
    def why(self) -> str:
        """Of a refusal."""
        said = self.content.get("detail") if isinstance(self.content, dict) else None
        return str(said)[:500] if said else f"status {self.status}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where an admin API is: `http://host:port`, `https://host:port` or `unix:/path`."""

    text: str
    """For people."""
    host: str
    port: int
    path: str
    """Of the socket; empty for TCP."""
    base: str
    tls: ssl.SSLContext | None
    token: str = field(repr=False)

    @classmethod
    def at(cls, url: str, token: str, tls: ssl.SSLContext | None = None) -> Gateway:
        if any(letter in token for letter in "\r\n") or not token.isascii():
            raise ValueError("the token holds a line break or a letter that no token has")
        if url.startswith("unix:"):
            path = url.removeprefix("unix:")
            if not path.startswith("/"):
                raise ValueError(f"{url!r} has no path; write unix:/path/to/control.sock")
            return cls(url, "localhost", 0, path, "", None, token)
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                f"{parts.scheme}://{parts.hostname or ''} is no admin API; write http://host:9900, "
                "https://host:9900 or unix:/path/to/control.sock"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL of the admin API holds a password; give the token instead")
        if parts.scheme == "https" and tls is None:
            tls = ssl.create_default_context()
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        text = f"{parts.scheme}://{parts.netloc}{parts.path}"
        base = parts.path.rstrip("/")
        used = tls if parts.scheme == "https" else None
        return cls(text, parts.hostname, port, "", base, used, token)

    async def ask(self, method: str, path: str, body: Any, timeout_s: float) -> Answer:
        """GatewayAway if there is no answer within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(method, path, body)
        except TimeoutError as error:
            raise GatewayAway(f"{self.text} has not answered in {timeout_s:g} s") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise GatewayAway(f"{self.text}: {error or type(error).__name__}") from error
        except ValueError as error:
            raise GatewayAway(f"{self.text} answers as no admin API does: {error}") from error

    async def _ask(self, method: str, path: str, body: Any) -> Answer:
        if self.path:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=HEAD_MAX)
        else:
            reader, writer = await asyncio.open_connection(
                self.host, self.port, ssl=self.tls, limit=HEAD_MAX
            )
        try:
            writer.write(self._request(method, path, body))
            await writer.drain()
            return await _read(reader)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _request(self, method: str, path: str, body: Any) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.base}{path} HTTP/1.0", f"host: {host}:{self.port}"]
        if self.path:
            lines[1] = "host: localhost"
        if self.token:
            lines.append(f"authorization: Bearer {self.token}")
        payload = b""
        if body is not None:
            payload = json.dumps(body, separators=(",", ":")).encode()
            lines += ["content-type: application/json", f"content-length: {len(payload)}"]
        return "\r\n".join([*lines, "accept: application/json", "", ""]).encode("ascii") + payload


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if version not in {"HTTP/1.0", "HTTP/1.1"} or not (code.isascii() and code.isdigit()):
        raise ValueError(f"its status line is {first!a:.100}")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(f"a field is {line!a:.100}")
        if name.lower() in fields and name.lower() == "content-length":
            raise ValueError("it has two lengths")
        fields[name.lower()] = value.strip()
    if "transfer-encoding" in fields:
        raise ValueError("it is sent in chunks, which was not asked for")
    length = fields.get("content-length")
    if length is None:
        body = b""
        while more := await reader.read(65536):
            body += more
            if len(body) > BODY_MAX:
                raise ValueError(f"it is longer than {BODY_MAX} bytes")
    else:
        if not (length.isascii() and length.isdigit()) or int(length[:18]) > BODY_MAX:
            raise ValueError(f"its length is {length!a:.50}")
        body = await reader.readexactly(int(length))
    retry = fields.get("retry-after", "")
    try:
        content = json.loads(body) if "json" in fields.get("content-type", "") else None
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    retry_after_s = float(retry) if retry.isascii() and retry.isdigit() and len(retry) < 6 else 0.0
    return Answer(int(code), content, retry_after_s)
