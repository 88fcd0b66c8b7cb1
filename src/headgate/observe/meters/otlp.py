"""Metrics pushed to a collector by OTLP over HTTP, from a thread of its own.

A forked child pushes for itself. At the end there is one last push, for two seconds at most.
"""

from __future__ import annotations

import atexit
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import headgate
from headgate.observe.meters.families import Family
from headgate.observe.meters.metric import log
from headgate.observe.meters.otlp_encode import encode
from headgate.observe.meters.otlp_post import Pushed, Receiver, wait_after

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["Pusher"]

_LAST_S: Final = 2.0
_all: weakref.WeakSet[Pusher] = weakref.WeakSet()


class Pusher:
    """Pushes a registry, until it is closed.

    Pusher(registry, "http://localhost:4318/v1/metrics", service="shop").start()
    """

    def __init__(
        self,
        registry: Registry,
        url: str,
        *,
        service: str,
        every_s: float = 30.0,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._receiver = Receiver(url, headers=headers, tls=tls)
        if not 1.0 <= every_s <= 3600.0:
            raise ValueError(f"every_s={every_s:g} lies between a second and an hour")
        self._registry = registry
        self._every_s, self._timeout_s = every_s, timeout_s
        self._resource = {"service.name": service, "host.name": socket.gethostname()}
        self._extra = dict(resource or {})
        self._rng = rng or random.Random()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_warned = False
        self._results = {"ok": 0, "failed": 0, "refused": 0}
        self._end_include = registry.include(self._families)

    def __repr__(self) -> str:
        return f"<Pusher of {self._receiver!r}>"

    @property
    def results(self) -> dict[str, int]:
        """How many pushes went well, failed, were refused."""
        return self._results.copy()

    def start(self) -> Pusher:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate-otlp", daemon=True)
        self._thread.start()
        _all.add(self)
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Push a last time and end."""
        atexit.unregister(self.close)
        _all.discard(self)
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(self._timeout_s + 1.0)
            self.push(timeout_s=min(_LAST_S, self._timeout_s))
        self._end_include()

    def push(self, timeout_s: float | None = None) -> Pushed:
        """Push now. It never raises."""
        try:
            result = self._receiver.post(self._body(), timeout_s or self._timeout_s)
        except Exception as error:  # noqa: BLE001 - a push must not end its thread
            log.exception("metrics could not be made ready for a push")
            result = Pushed(False, why=type(error).__name__)
        self._count(result)
        return result

    def _body(self) -> bytes:
        wall = time.time()  # noqa: TID251 - the collector asks for it
        resource = {
            **self._resource,
            "process.pid": str(os.getpid()),
            "service.instance.id": f"{self._resource['host.name']}:{os.getpid()}",
            "telemetry.sdk.language": "python",
            **self._extra,
        }
        # What this process has counted: each pushes for itself.
        return encode(
            self._registry.own(),
            resource,
            start_wall=self._registry.started_wall,
            wall=wall,
            version=headgate.__version__,
        )

    def _run(self) -> None:
        stop, failures = self._stop, 0
        wait_s = min(self._every_s, 5.0)  # the first soon, so that a short life is seen
        while not stop.wait(wait_s):
            result = self.push()
            failures = 0 if result.is_ok else failures + 1
            wait_s = wait_after(result, failures, self._every_s, self._rng)

    def _count(self, result: Pushed) -> None:
        kind = "ok" if result.is_ok else "failed" if result.may_pass else "refused"
        self._results[kind] += 1
        if result.is_ok:
            self._is_warned = False
        elif not self._is_warned:
            self._is_warned = True
            log.warning("metrics could not be pushed to %s: %s", self._receiver.host, result.why)

    def _families(self) -> list[Family]:
        return [
            Family(
                "observe_pushes_total",
                "counter",
                "Pushes by OTLP, by what came of them.",
                ("result",),
                numbers={(name,): count for name, count in self._results.items()},
            )
        ]

    def begin_anew(self) -> None:
        """In a forked child: the thread has stayed with the parent."""
        if self._thread is not None:
            self._results = dict.fromkeys(self._results, 0)
            # What the parent had counted, the parent pushes.
            self._registry.begin_anew()
            self.start()


def _after_fork() -> None:
    for pusher in list(_all):
        pusher.begin_anew()


os.register_at_fork(after_in_child=_after_fork)
