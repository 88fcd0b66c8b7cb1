"""The tracer of this process, and how it is set up.

from headgate.observe import trace
from headgate.observe.tracing import setup

setup("users", version="1.4.2", export="http://localhost:4318")

with trace.span("load user", user=42) as span:
    ...
"""

from __future__ import annotations

import atexit
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from headgate.observe.meters import exemplars
from headgate.observe.tracing.record import Value
from headgate.observe.tracing.rules import AUTO, ExportRules, Format, TracingRules
from headgate.observe.tracing.tracer import Tracer

__all__ = ["resource_of", "setup", "shutdown", "trace"]

trace: Final = Tracer()
"""The tracer of this process. Until `setup` it costs a call and does nothing."""

_R: Final = TracingRules()


def resource_of(
    service: str, version: str = "", more: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """What is said once of all spans: whose they are."""
    found: dict[str, Value] = {
        "service.name": service,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": platform.python_version(),
        "telemetry.sdk.name": "headgate",
        "telemetry.sdk.language": "python",
    }
    if version:
        found["service.version"] = version
    return {**found, **(more or {})}


def setup(
    service: str,
    *,
    version: str = "",
    sample: float = _R.sample,
    keep_slow: float | str | None = _R.keep_slow_s,
    keep_errors: bool = _R.keep_errors,
    propagate: Sequence[Format] = _R.propagate,
    export: str | ExportRules | None = None,
    headers: Mapping[str, str] | None = None,
    undecided: bool = False,
    resource: Mapping[str, Value] | None = None,
    tracer: Tracer | None = None,
) -> Tracer:
    """Trace this service from now on. Called again it replaces what was said before.

    `sample` is the part of traces that begin here and are kept, 0 to 1; a caller that has decided
    is followed. `keep_slow` is in seconds, "auto" (the slowest hundredth of each route) or None.
    `export` is the address of a collector, or of Headgate's admin API with a token for `ingest` in
    `headers`. With `undecided` all spans are sent, marked, so that a trace which another service
    keeps is whole: for Headgate's store only, others would keep them all.
    """
    if not service:
        raise ValueError("a service needs a name: setup('users')")
    if not 0 <= sample <= 1:
        raise ValueError(f"sample={sample!r} is not between 0 and 1; write 0.01 for one percent")
    if isinstance(keep_slow, str) and keep_slow != "auto":
        raise ValueError(f"keep_slow={keep_slow!r} is neither a number of seconds nor 'auto'")
    slow_s = AUTO if isinstance(keep_slow, str) else float(keep_slow or 0.0)
    unknown = [each for each in propagate if each not in {"w3c", "b3", "b3multi"}]
    if isinstance(propagate, str) or unknown or not propagate:
        raise ValueError(f"propagate={propagate!r} is no list of 'w3c', 'b3' and 'b3multi'")
    mine = trace if tracer is None else tracer
    shutdown(mine)
    mine.service = service
    mine.sends_undecided = undecided
    mine.take_up(
        TracingRules(
            sample=sample,
            keep_slow_s=slow_s,
            keep_errors=keep_errors,
            propagate=tuple(propagate),
            trust_sampled="all",
        )
    )
    if mine is trace:
        from headgate.observe.logs import context as lines  # threads and files

        exemplars.current = trace.exemplar  # metrics name the trace that a value was seen in
        lines.current = trace.names  # and lines of the log the span they were written in
    if export:
        from headgate.observe.tracing.export import Exporter  # a thread, gzip, http

        rules = (
            ExportRules(url=export, headers=tuple((headers or {}).items()))
            if isinstance(export, str)
            else export
        )
        about = resource_of(service, version, resource)
        exporter = Exporter(rules, resource=about, take=mine.take)
        exporter.start()
        mine.exporter = exporter
    return mine


def shutdown(tracer: Tracer | None = None, timeout_s: float = 5.0) -> None:
    """Deliver what waits, for so long at most, and trace no more."""
    mine = trace if tracer is None else tracer
    exporter, mine.exporter = mine.exporter, None
    mine.take_up(None)
    if exporter is not None:
        exporter.close(timeout_s)


atexit.register(shutdown)
