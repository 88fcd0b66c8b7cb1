"""The endpoints of health for WSGI servers: the same paths and answers as `HealthEndpoints` has.

Theory of operation. Checks are coroutines or functions that may wait, and WSGI has no loop. So one
thread of ours has a loop for them; it begins with the first question, anew in a child after a fork,
and ends with the process. There is no background refresh before that first question.

A WSGI app hears nothing of its end. Whoever knows of it (a hook of gunicorn, say) calls
`checks.drain()`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Coroutine, Iterable
from http import HTTPStatus
from typing import Any, Final, TypeVar

from headgate.observe.health.asgi import MEDIA_TYPE, RETRY_AFTER_S, document, may_see, report_of
from headgate.observe.health.checks import Checks
from headgate.observe.wsgi_body import Environ, StartResponse, WsgiApp

__all__ = ["HealthWsgi", "scope_of"]

T = TypeVar("T")

_LONGEST_S: Final = 30.0
_PATHS: Final = frozenset({"live", "ready", "startup"})

log = logging.getLogger("headgate.health")


class HealthWsgi:
    """`app = HealthWsgi(checks, app)`; without an app it knows its own paths alone."""

    def __init__(
        self, checks: Checks, app: WsgiApp | None = None, *, path: str = "/health", token: str = ""
    ) -> None:
        if not path.startswith("/"):
            raise ValueError(f'the path "{path}" must begin with /')
        self._checks = checks
        self._app = app
        self._path = path.rstrip("/")
        self._token = token
        self._loop = _LoopThread(checks)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asked = self._asked(str(environ.get("PATH_INFO", "")))
        if asked is None:
            if self._app is not None:
                return self._app(environ, start_response)
            return _send(start_response, environ, 404, {"status": "fail"})
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            said = {"status": "fail", "output": "ask with GET or HEAD"}
            return _send(start_response, environ, 405, said, [("Allow", "GET, HEAD")])
        sees_all = may_see(scope_of(environ), self._token)
        try:
            report = self._loop.run(report_of(self._checks, asked))
        except Exception:
            log.exception("health cannot be told")
            return _send(start_response, environ, 503, {"status": "fail"}, _LATER)
        body = document(report, self._checks if sees_all else None)
        if report.is_fine:
            return _send(start_response, environ, 200, body)
        return _send(start_response, environ, 503, body, _LATER)

    def _asked(self, path: str) -> str | None:
        given = path.rstrip("/")
        if given == self._path:
            return ""
        before, _, last = given.rpartition("/")
        return last if before == self._path and last in _PATHS else None


class _LoopThread:
    """A loop in a thread of its own, for the checks."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = self._begun(), os.getpid()
            loop = self._loop
        done = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return done.result(_LONGEST_S)
        finally:
            done.cancel()

    def _begun(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_turn, args=(loop,), name="headgate-health", daemon=True)
        thread.start()
        loop.call_soon_threadsafe(self._checks.start)
        return loop


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def scope_of(environ: Environ) -> dict[str, Any]:
    """What of a request says where it comes from, as an ASGI server would say it."""
    headers = [
        (key[5:].lower().replace("_", "-").encode(), str(value).encode("latin-1", "replace"))
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]
    address = environ.get("REMOTE_ADDR")
    return {"headers": headers, "client": (address, 0) if address else None}


_LATER: Final = [("Retry-After", str(RETRY_AFTER_S))]


def _send(
    start_response: StartResponse,
    environ: Environ,
    status: int,
    said: dict[str, Any],
    more: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    body = json.dumps(said).encode()
    headers = [
        ("Content-Type", MEDIA_TYPE),
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(body))),
        *more,
    ]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
