"""Registering a service that runs no event loop: WSGI servers, scripts, threads.

    with register_sync("orders", port=3004):
        serve()

Theory of operation. A thread runs a loop with the same registration as `register` has. It must be
begun in the process that serves, because threads do not survive a fork: with gunicorn in
`post_worker_init` and not in `when_ready`. On SIGTERM the thread leaves and drains while the
service goes on; then the signal comes again, to whoever had it before.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from headgate.mesh.client.registering import Registration, RegistrationSnapshot, wish_of
from headgate.mesh.client.source import control_of
from headgate.mesh.client.terminating import Terminating

__all__ = ["SyncRegistration", "register_sync"]

_START_S = 10.0


def register_sync(
    service: str,
    *,
    source: str | os.PathLike[str] | None = None,
    token: str | None = None,
    health: Callable[[], Any] | None = None,
    signals: bool = True,
    when_open: bool = True,
    **settings: Any,
) -> SyncRegistration:
    """As `register`, for plain code: a context manager, or `start()` and `leave()`.

    `when_open` waits in the background until the port takes connections.
    """
    registration = Registration(
        control_of(source, token=token),
        wish_of(service, **settings),
        health=health,
        signals=False,
        when_open=when_open,
    )
    return SyncRegistration(registration, signals=signals)


class SyncRegistration:
    def __init__(self, registration: Registration, *, signals: bool = True) -> None:
        self.registration = registration
        self._signal = Terminating(self._terminate) if signals else None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._failure: BaseException | None = None
        self._by_signal = False

    def start(self) -> Self:
        """Begin in a thread; raises what `register` would."""
        if self._thread is not None:
            raise RuntimeError("a registration begins once")
        self._thread = threading.Thread(
            target=self._main, name="headgate-mesh-register", daemon=True
        )
        if self._signal is not None:
            self._signal.install()  # first: from the moment that we are registered we may be told
        self._thread.start()
        self._is_up.wait(_START_S)
        if self._failure is not None:
            if self._signal is not None:
                self._signal.remove()
            raise self._failure
        atexit.register(self.leave)
        return self

    def leave(self) -> None:
        """Tell the registry, and come back when `drain` is over."""
        atexit.unregister(self.leave)
        thread = self._thread
        if thread is None:
            return
        self._begin_leaving()
        thread.join()
        if self._signal is not None and not self._by_signal:
            self._signal.remove()

    def snapshot(self) -> RegistrationSnapshot:
        return self.registration.snapshot()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    # -- the thread ----------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever started it hears of it
            self._failure = error
        finally:
            self._is_up.set()
            if self._signal is not None and self._signal.held:
                # The main thread gets the signal again, and this time it passes.
                signal.pthread_kill(threading.main_thread().ident or 0, self._signal.held)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leaving = asyncio.Event()
        await self.registration.start()
        self._is_up.set()
        if not self._by_signal:
            await self._leaving.wait()
        await self.registration.leave()

    def _begin_leaving(self) -> None:
        loop, leaving = self._loop, self._leaving
        if loop is not None and leaving is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(leaving.set)
            except RuntimeError:
                return  # it has just been closed

    def _terminate(self) -> None:
        self._by_signal = True
        self._begin_leaving()
