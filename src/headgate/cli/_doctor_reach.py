"""Whether what a file names can be reached: instances, Redis, collectors, mail and web hooks.

Each is connected to once, with TLS where its URL says so; nothing is sent. An instance that is away
is a warning, since a service may have others and the gateway starts without it; everything else
that is away is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from headgate.config import Config

__all__ = ["Finding", "Level", "reach"]

Level = Literal["ok", "warn", "fail"]

CONNECT_S: Final = 2.0
_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    what: str
    says: str
    way_out: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def reach(config: Config) -> Iterator[Finding]:
    """Names and ports of everything that the file names."""
    targets = list(_targets(config))
    results = asyncio.run(_try_all(targets))
    well: dict[str, int] = {}
    for (what, host, port, _), (why, took_s) in zip(targets, results, strict=True):
        if why:
            level: Level = "warn" if what.startswith("instance") else "fail"
            yield Finding(level, what, f"{host}:{port}: {why}", _way_out(why, host))
        elif took_s > 1.0:
            yield Finding("warn", what, f"{host}:{port} took {took_s:.1f} s to connect")
        else:
            kind = what.partition(" of ")[0]
            well[kind] = well.get(kind, 0) + 1
    for kind, count in well.items():
        yield Finding("ok", "reach", f"{kind}: {count} can be reached")


Target = tuple[str, str, int, bool]


def _targets(config: Config) -> Iterator[Target]:
    seen: set[tuple[str, int]] = set()
    for name, service in config.services.items():
        for spec in service.instances:
            parts = urlsplit(spec.url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host = parts.hostname or ""
            if host and (host, port) not in seen:
                seen.add((host, port))
                yield f"instance of {name}", host, port, parts.scheme == "https"
    # Whatever else is named by a URL or as host:port, wherever it stands in the file.
    for where, url in _urls(config.model_dump(mode="python"), ()):
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
        if not host or not port or (host, port) in seen:
            continue
        seen.add((host, port))
        secure = parts.scheme in ("https", "rediss", "smtps")
        yield ".".join(where), host, port, secure


_PORTS: Final = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "smtp": 25,
    "smtps": 465,
}
_ELSEWHERE: Final = frozenset(
    {"services", "routes", "listeners", "issuer", "admin", "cors", "csrf", "redirect", "origins"}
)
"""Where URLs are no places that the gateway goes to."""
_GOES: Final = frozenset(
    {
        "state",
        "redis",
        "otlp",
        "endpoint",
        "webhook",
        "smtp",
        "url",
        "keys",
        "directory",
        "address",
        "server",
        "host",
    }
)


def _urls(said: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(said, dict):
        for name, value in said.items():
            if str(name) not in _ELSEWHERE:
                yield from _urls(value, (*where, str(name)))
    elif isinstance(said, list | tuple):
        for value in said:
            yield from _urls(value, where)
    elif isinstance(said, str) and where and where[-1] in _GOES:
        scheme, colon, _ = said.partition("://")
        if colon and scheme in _PORTS:
            yield where, said


async def _try_all(targets: list[Target]) -> list[tuple[str, float]]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(target: Target) -> tuple[str, float]:
        _, host, port, is_secure = target
        async with gate:
            began = time.monotonic()
            why = await _try(host, port, is_secure)
            return why, time.monotonic() - began

    return list(await asyncio.gather(*(one(target) for target in targets)))


async def _try(host: str, port: int, is_secure: bool) -> str:
    """Why it cannot be reached; empty if it can."""
    context: ssl.SSLContext | None = None
    if is_secure:
        # Whether its certificate is good is the service's own `tls` to say.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
    except TimeoutError:
        return f"no answer in {CONNECT_S:g} s"
    except socket.gaierror as error:
        return f"the name cannot be looked up: {(error.strerror or '').lower()}"
    except ssl.SSLError as error:
        return f"TLS fails: {error.reason or error}"
    except OSError as error:
        return (os.strerror(error.errno) if error.errno else str(error)).lower()
    return ""


def _way_out(why: str, host: str) -> str:
    if "looked up" in why:
        return f"see what the resolver says: getent hosts {host}"
    if "refused" in why or "connect call" in why:
        return "nothing listens there: start it, or mend the port"
    if "no answer" in why:
        return "a firewall, or a machine that is off"
    return ""
