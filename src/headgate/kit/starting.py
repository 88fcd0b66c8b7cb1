"""What begins when an app begins to serve, and ends with it: logs, traces, keys, cache, figures.

Theory of operation. Nothing happens when an app is hardened, for apps are made in tests and by
tools too. It begins with the app's lifespan, or with the first request of a WSGI app. What belongs
to the process and not to one app (logging, the tracer) is only set up where nobody has done so
before. Traces that wait are delivered at the end; logging stays until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from headgate.errors import HeadgateError
from headgate.kit.serving import Equipment
from headgate.kit.settings import Settings
from headgate.observe import REGISTRY, Registry, Runtime, watch_cache, watch_runtime
from headgate.observe.tracing import Tracer, setup, shutdown, trace

__all__ = ["Start", "tracer_of"]

log: Final = logging.getLogger("headgate.kit")

_NAMELESS: Final = "service"
_TRACES: Final = "HEADGATE_TRACES"
_TRACES_TOKEN: Final = "HEADGATE_TRACES_TOKEN"  # noqa: S105 - the name of a variable
_OTEL: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


def tracer_of(settings: Settings) -> Tracer:
    return settings.tracer or trace


class Start:
    """What one app has begun."""

    def __init__(
        self,
        settings: Settings,
        equipment: Equipment,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._equipment = equipment
        self._environ = environ
        self._runtime: Runtime | None = None
        self._ends: list[Callable[[], None]] = []
        self._tracer: Tracer | None = None
        self.has_begun = False

    @property
    def registry(self) -> Registry:
        registry = self._settings.registry
        return REGISTRY if registry is None else registry

    def begin(self) -> None:
        """What needs no loop. May be called twice."""
        if self.has_begun:
            return
        self.has_begun = True
        settings = self._settings
        if settings.has("logs"):
            self._begin_logs()
        if settings.has("tracing"):
            self._begin_traces()
        if settings.has("metrics"):
            self._runtime = watch_runtime(self.registry)
            if self._equipment.cache is not None:
                self._ends.append(watch_cache(self._equipment.cache, registry=self.registry))

    async def begin_on_loop(self) -> None:
        self.begin()
        if self._equipment.who_asks is not None:
            self._equipment.who_asks.start()
        if self._equipment.cache is not None:
            try:
                await self._equipment.cache.start()
            except (OSError, HeadgateError) as error:
                # It is reached again on use, and serves from memory meanwhile.
                log.warning("the cache is not reached: %s", error)

    async def end_on_loop(self) -> None:
        if self._equipment.who_asks is not None:
            await self._equipment.who_asks.close()
        if self._equipment.cache is not None:
            await self._equipment.cache.close()
        tracer, self._tracer = self._tracer, None
        if tracer is not None:
            await asyncio.to_thread(shutdown, tracer)  # what waits is delivered
        self.end()

    def end(self) -> None:
        self.has_begun = False
        if self._runtime is not None:
            self._runtime.stop()
            self._runtime = None
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    def _begin_logs(self) -> None:
        from headgate.observe import logs
        from headgate.observe.logs.outlet import Outlet

        if any(isinstance(handler, Outlet) for handler in logging.getLogger().handlers):
            return  # somebody has chosen
        settings = self._settings
        logs.setup(
            settings.service or _NAMELESS,
            version=settings.version,
            level=settings.log_level,
            format=settings.log_format,
        )

    def _begin_traces(self) -> None:
        settings = self._settings
        tracer = tracer_of(settings)
        if tracer.is_on:
            return
        self._tracer = tracer
        environ = self._environ
        target = settings.traces or environ.get(_TRACES, "")
        token = settings.traces_token or environ.get(_TRACES_TOKEN, "")
        is_ours = bool(target)
        target = target or environ.get(_OTEL, "")
        if not target:
            # Nobody collects: traces of callers are gone on with, none begins here.
            setup(
                settings.service or _NAMELESS,
                version=settings.version,
                sample=0.0,
                keep_slow=None,
                keep_errors=False,
                tracer=tracer,
            )
            return
        setup(
            settings.service or _NAMELESS,
            version=settings.version,
            export=target,
            headers={"authorization": f"Bearer {token}"} if token and is_ours else None,
            tracer=tracer,
        )
