"""The receiving end of OTLP over HTTP, as whoever pushes metrics sees it.

Theory of operation. Figures are cumulative, so a push that fails loses nothing: the next one says
all that it would have said, and nothing is queued. After a failure that may pass (no connection,
429, 5xx) the next push comes early, after a wait that doubles from one second up to the interval,
with chance in it, so that a thousand services do not come back at once; `Retry-After` is honoured
up to five minutes. After a refusal (other 4xx) nothing is tried before the next interval.
"""

from __future__ import annotations

import gzip
import http.client
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import headgate
from headgate.observe.waiting import wait_s

__all__ = ["Pushed", "Receiver", "wait_after"]

_FIRST_WAIT_S: Final = 1.0
_RETRY_AFTER_MAX_S: Final = 300.0
_ANSWER_MAX: Final = 4096
_PASSING: Final = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push."""

    is_ok: bool
    may_pass: bool = False
    """A failure that may be over soon."""
    retry_after_s: float = 0.0
    why: str = ""


def wait_after(result: Pushed, failures: int, every_s: float, rng: random.Random) -> float:
    """How long until the next push, after `failures` in a row."""
    if result.is_ok or not result.may_pass:
        return every_s
    own_s = wait_s(failures, _FIRST_WAIT_S, every_s, rng)
    return max(own_s, min(result.retry_after_s, _RETRY_AFTER_MAX_S))


class Receiver:
    """A collector's address. `post` is for a thread: it waits for the answer."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address; write http://localhost:4318/v1/metrics")
        if parts.username is not None:
            raise ValueError("the address holds a password; give it in headers, as authorization")
        self.scheme, self.host = parts.scheme, parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path if parts.path not in ("", "/") else "/v1/metrics"
        if parts.query:
            self._path += f"?{parts.query}"
        self._headers = dict(headers or {})
        self._tls = tls

    def __repr__(self) -> str:
        return f"<Receiver {self.scheme}://{self.host}:{self.port}>"

    def post(self, body: bytes, timeout_s: float) -> Pushed:
        """Send a request's body and say what came of it. Raises nothing that the net can cause."""
        try:
            return self._post(body, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            return Pushed(False, may_pass=True, why=f"{type(error).__name__}: {error}")

    def _post(self, body: bytes, timeout_s: float) -> Pushed:
        connection: http.client.HTTPConnection
        if self.scheme == "https":
            tls = self._tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout_s, context=tls
            )
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        headers = {
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            "user-agent": f"headgate/{headgate.__version__}",
            **self._headers,
        }
        try:
            connection.request("POST", self._path, gzip.compress(body, 1), headers)
            response = connection.getresponse()
            response.read(_ANSWER_MAX)
            if response.status < 300:
                return Pushed(True)
            from headgate.policy.retry import parse_retry_after  # few ever need it

            wall = time.time()  # noqa: TID251 - it may be a date
            waits = parse_retry_after(response.getheader("retry-after", ""), wall) or 0.0
            passing = response.status in _PASSING
            return Pushed(False, passing, waits, f"answered {response.status}")
        finally:
            connection.close()
