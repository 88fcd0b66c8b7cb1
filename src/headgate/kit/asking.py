"""What a handler of a WSGI app asks about its request, by its environ.

    from headgate.kit.asking import current_user, forwarded, has_left

    @app.get("/orders")
    def orders():
        user = current_user(request.environ)
        for page in many:
            if has_left(request.environ):
                return "", 499                    # nobody reads it
            ...

Theory of operation
-------------------
Tokens are verified by the same code as in an ASGI app, which looks after its keys on a loop. Where
threads serve there is none, so one runs on a thread of its own, from the first question on; a
process that was forked from one with such a thread begins its own.

That a caller has left is known to the server alone, and each has another way to tell:

    gunicorn, werkzeug    the connection is in the environ; the kernel knows whether its other end
                          has been closed
    waitress              a function in the environ
    uWSGI                 a function of its module

Others do not tell. A response that is sent in pieces needs none of this: a server that cannot write
closes it.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from headgate.kit.judging import judged, wanted_of
from headgate.kit.problems import Problem
from headgate.kit.serving import NotHardened, serving_of

if TYPE_CHECKING:
    from headgate.kit.who_asks import WhoAsks
    from headgate.security.identity import Identity

__all__ = ["current_user", "forwarded", "has_left"]

Environ = Mapping[str, Any]
PATIENCE_S: Final = 10.0
"""Longer than a token waits for the first keys."""
_SOCKETS: Final = ("gunicorn.socket", "werkzeug.socket")
_FUNCTION: Final = "waitress.client_disconnected"
# Linux tells of a half that was closed, which is how a client leaves; elsewhere of both halves.
_GONE: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


@overload
def current_user(
    environ: Environ, *, roles: Collection[str] = ..., optional: Literal[False] = False
) -> Identity: ...


@overload
def current_user(
    environ: Environ, *, roles: Collection[str] = ..., optional: bool
) -> Identity | None: ...


def current_user(
    environ: Environ, *, roles: Collection[str] = (), optional: bool = False
) -> Identity | None:
    """Who asks, as the gateway says it. Raises Problem: 401 for nobody, 403 without one of `roles`.

    With `optional`, nobody is None; a token that does not hold is refused all the same.
    """
    serving = serving_of(environ)
    if serving.identity is None:
        who_asks = serving.equipment.who_asks
        if who_asks is None:
            raise NotHardened("who asks cannot be told: harden(app, identity_keys=...) is missing")
        token = _token(environ, who_asks)
        if token:
            serving.identity = _desk(who_asks).find(token)
    return judged(serving.identity, wanted_of(roles), optional=optional)


def forwarded(environ: Environ) -> dict[str, str]:
    """Headers that pass on who asks, and the id of the request, with a call to another service."""
    serving = serving_of(environ)
    headers = {"x-request-id": serving.request_id} if serving.request_id else {}
    who_asks = serving.equipment.who_asks
    if who_asks is not None and (token := _token(environ, who_asks)):
        headers[who_asks.header] = token
    return headers


def has_left(environ: Environ) -> bool | None:
    """Whether the caller has gone away; None where the server does not tell. Costs some
    microseconds: ask between two pieces of work.
    """
    for name in _SOCKETS:
        connection = environ.get(name)
        if connection is not None:
            return _is_closed(connection)
    tell = environ.get(_FUNCTION)
    if callable(tell):
        return bool(tell())
    uwsgi = sys.modules.get("uwsgi")  # its server puts it there, and nobody else
    if uwsgi is not None:
        return not uwsgi.is_connected(uwsgi.connection_fd())
    return None


def _is_closed(connection: Any) -> bool:
    try:
        number = connection.fileno()
    except (OSError, ValueError):
        return True
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, _GONE)
    return bool(poll.poll(0))


def _token(environ: Environ, who_asks: WhoAsks) -> str:
    return str(environ.get(f"HTTP_{who_asks.header.upper().replace('-', '_')}") or "")


class _Desk:
    """A loop on a thread of its own, where tokens are verified."""

    def __init__(self, who_asks: WhoAsks) -> None:
        self.pid = os.getpid()
        # Not the object itself, by which we are known: then neither would ever go.
        self._ask = weakref.WeakMethod(who_asks.find)
        self._field = who_asks.header.encode("ascii")
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="who asks", daemon=True).start()

    def find(self, token: str) -> Identity | None:
        ask = self._ask()
        if ask is None:
            return None
        asked = ask([(self._field, token.encode("latin-1", "replace"))])
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result(PATIENCE_S)
        except TimeoutError as error:
            future.cancel()
            raise Problem(
                503, "who asks cannot be found out now", headers={"retry-after": "1"}
            ) from error

    def close(self) -> None:
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._loop.stop)


_desks: Final[weakref.WeakKeyDictionary[WhoAsks, _Desk]] = weakref.WeakKeyDictionary()
_opening: Final = threading.Lock()


def _desk(who_asks: WhoAsks) -> _Desk:
    found = _desks.get(who_asks)
    if found is None or found.pid != os.getpid():
        with _opening:
            found = _desks.get(who_asks)
            if found is None or found.pid != os.getpid():
                found = _desks[who_asks] = _Desk(who_asks)
                weakref.finalize(who_asks, found.close)
    return found
