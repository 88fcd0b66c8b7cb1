"""A question or two to a Redis, over a connection of one's own and without its library.

Theory of operation. A health check asks PING and perhaps INFO and goes away; the answers it can get
are a line, an error, or one text with a length. Anything else is not a Redis. What a peer may send
is bounded; who calls has the deadline.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = [
    "RedisAddress",
    "RedisRefused",
    "ask_redis",
    "greeting",
    "open_redis",
    "parse_redis_url",
    "read_info",
]

_LONGEST: Final = 1_000_000
_LONGEST_LINE: Final = 4096


class RedisRefused(Exception):
    """It answered an error, or is no Redis."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    is_tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def parse_redis_url(url: str) -> RedisAddress:
    """Of `redis://`, `rediss://` or `unix://`. Raises ValueError."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        return RedisAddress(path=parts.path, user=user, password=password)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValueError("this is no address of a Redis; write redis://host:6379")
    return RedisAddress(
        parts.hostname, parts.port or 6379, "", parts.scheme == "rediss", user, password
    )


async def ask_redis(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    commands: Sequence[Sequence[str]],
) -> list[bytes]:
    """The answers in order. Raises RedisRefused and OSError."""
    found = []
    for words in commands:
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            raw = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        writer.write(b"".join(parts))
        await writer.drain()
        found.append(await _answer(reader, words[0]))
    return found


async def _answer(reader: asyncio.StreamReader, command: str) -> bytes:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        raise RedisRefused("the connection was closed in the middle of an answer") from error
    except (asyncio.LimitOverrunError, ValueError) as error:
        raise RedisRefused("what answers is no Redis") from error
    kind, rest = line[:1], line[1:].rstrip(b"\r\n")
    if len(rest) > _LONGEST_LINE or kind not in b"+-$:" or not kind:
        raise RedisRefused("what answers is no Redis")
    if kind == b"-":
        # The words of the server, of which AUTH's name the user.
        word = rest.split(b" ", 1)[0].decode("ascii", "replace")
        raise RedisRefused(f"{command} was refused: {word}")
    if kind != b"$":
        return rest
    if not rest.isdigit() or int(rest) > _LONGEST:
        raise RedisRefused("what answers is no Redis")
    try:
        return (await reader.readexactly(int(rest) + 2))[:-2]
    except asyncio.IncompleteReadError as error:
        raise RedisRefused("the connection was closed in the middle of an answer") from error


def greeting(address: RedisAddress) -> list[list[str]]:
    """What is said before the first question."""
    if not address.password:
        return []
    if address.user:
        return [["AUTH", address.user, address.password]]
    return [["AUTH", address.password]]


async def open_redis(
    address: RedisAddress, context: ssl.SSLContext | None, at: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `at`, one of the addresses that the name has."""
    if address.path:
        return await asyncio.open_unix_connection(address.path)
    if not address.is_tls:
        return await asyncio.open_connection(at, address.port)
    tls = context or ssl.create_default_context()
    return await asyncio.open_connection(at, address.port, ssl=tls, server_hostname=address.host)


def read_info(text: bytes) -> dict[str, str]:
    """`INFO` as a mapping."""
    found: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#"):
            found[name.strip()] = value.strip()
    return found
