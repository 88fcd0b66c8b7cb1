"""HTTP for sinks: one kept connection, one deadline for a whole exchange, bounded answers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from headgate.policy.retry import parse_retry_after

__all__ = ["Answer", "Poster", "wait_of"]

_ANSWER_MAX: Final = 8 * 1024 * 1024
_LONGEST_WAIT_S: Final = 300.0
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    retry_after_s: float

    @property
    def is_busy(self) -> bool:
        return self.status in _BUSY


class Poster:
    """Raises ValueError for what is no URL of HTTP."""

    def __init__(
        self, url: str, path: str, headers: Mapping[str, str], ca_file: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the URL of this sink begins with http:// or https://, then a host")
        self._host = parts.hostname
        self._port = parts.port
        own = parts.path.rstrip("/")
        self._path = own if own.endswith(path.partition("?")[0]) else own + path
        self._headers = {"user-agent": "headgate", **{k.lower(): v for k, v in headers.items()}}
        if parts.username and "authorization" not in self._headers:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            basic = base64.b64encode(pair.encode()).decode("ascii")
            self._headers["authorization"] = f"Basic {basic}"
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
        self._open: http.client.HTTPConnection | None = None

    def post(self, body: bytes, kind: str, deadline: float) -> Answer:
        """Raises OSError, also for an answer that is no HTTP."""
        is_kept = self._open is not None
        try:
            return self._try(body, kind, deadline)
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if not is_kept:
                raise
            # It was closed while nothing was to be said.
            return self._try(body, kind, deadline)
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionError(f"it does not answer in HTTP ({type(error).__name__})") from error
        except (OSError, ValueError) as error:
            self.close()
            raise OSError(str(error) or type(error).__name__) from error

    def _try(self, body: bytes, kind: str, deadline: float) -> Answer:
        left_s = max(0.05, deadline - time.monotonic())
        connection = self._open
        if connection is None:
            if self._tls is not None:
                connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=left_s, context=self._tls
                )
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=left_s)
            self._open = connection
            connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
        connection.request("POST", self._path, body, {**self._headers, "content-type": kind})
        sock = connection.sock
        answer = connection.getresponse()
        content = self._read(answer, sock, deadline)
        if answer.will_close:
            self.close()
        return Answer(answer.status, content, wait_of(answer.getheader("retry-after")))

    def _read(
        self, answer: http.client.HTTPResponse, sock: socket.socket | None, deadline: float
    ) -> bytes:
        """One that drips must not hold us."""
        got = bytearray()
        while piece := answer.read1(65536):
            got += piece
            if len(got) > _ANSWER_MAX:
                raise ConnectionError("its answer has no end")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("its answer takes too long")
            if sock is not None and sock.fileno() >= 0:
                sock.settimeout(left_s)
        answer.close()  # all of it was read, and the connection may be used again
        return bytes(got)

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def wait_of(retry_after: str | None) -> float:
    """Seconds that a peer asks for; zero where it says nothing that can be followed."""
    wall = time.time()  # noqa: TID251  it may be a date
    return min(_LONGEST_WAIT_S, parse_retry_after(retry_after or "", wall) or 0.0)
