"""Asking control for a certificate, by the standard library alone: one small request an hour."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from headgate.errors import HeadgateError
from headgate.mesh.identity.refusals import IdentityRefused, Why

__all__ = ["Asks", "ControlAsked", "ControlAway"]

TIMEOUT_S: Final = 10.0
_MAX_ANSWER: Final = 512 * 1024
_WHYS: Final[Mapping[int, Why]] = {
    400: "request",
    401: "token",
    403: "denied",
    409: "unavailable",
    422: "request",
    429: "rate",
}


class ControlAway(HeadgateError):
    """Control could not be asked, or did not answer as control does."""


class Asks(Protocol):
    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What is answered to a POST. Raises IdentityRefused or ControlAway."""
        ...


class ControlAsked:
    """An `Asks` of the admin API at `http://`, `https://` or `unix:/path`. Blocking."""

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        """`ca_file`: the authority of the admin API's own certificate; by default the system's."""
        self._path = ""
        self._tls: ssl.SSLContext | None = None
        for prefix in ("http+unix://", "unix:"):
            if url.startswith(prefix):
                self._path = url[len(prefix) :]
        self.url = url.rstrip("/")
        try:
            parts = urlsplit("http://localhost" if self._path else self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in {"http", "https"} or not host or parts.username:
            raise ControlAway(f"{url!a} is no address of control; write http://host:port")
        self._host, self._port, self._prefix = host, port, parts.path
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ControlAway(f"{ca_file}: cannot be read as authorities: {error}") from None

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        connection = self._connection()
        try:
            connection.request(
                "POST",
                self._prefix + path,
                json.dumps(body).encode(),
                {"content-type": "application/json", "accept": "application/json"},
            )
            response = connection.getresponse()
            data = response.read(_MAX_ANSWER + 1)
            status = response.status
            said_after = response.headers.get("retry-after", "")
        except ssl.SSLCertVerificationError as error:
            raise ControlAway(
                f"{self.url}: its certificate is not trusted ({error.verify_message}); ca_file "
                "says by whom it is"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ControlAway(f"{self.url}: cannot be asked: {why}") from None
        finally:
            connection.close()
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if len(data) > _MAX_ANSWER or not isinstance(said, dict):
            raise ControlAway(f"{self.url}: answered {status} with something that is not control's")
        if status == 200:
            return cast("dict[str, Any]", said)
        detail = " ".join(str(said.get("detail") or said.get("title") or status).split())[:400]
        if status in _WHYS:
            wait = said.get("retry_after_s")
            wait_s = float(wait) if isinstance(wait, int | float) and 0 <= wait < 1e6 else None
            if wait_s is None and said_after.isdecimal() and len(said_after) < 6:
                wait_s = float(said_after)
            why_code = said.get("why")
            known: tuple[Why, ...] = ("token", "certificate", "request", "denied", "rate")
            code = next((one for one in known if one == why_code), _WHYS[status])
            raise IdentityRefused(code, detail, wait_s)
        raise ControlAway(f"{self.url}: answered {status}: {detail}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._path:
            return _UnixConnection(self._path)
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=TIMEOUT_S, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(os.fspath(self._socket_path))
