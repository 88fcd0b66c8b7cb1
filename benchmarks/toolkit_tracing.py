"""Tracing, for `make bench-toolkit`: a span with an attribute, around a function that does nothing.

"Recorded" is measured to where the span has left the caller: into the ring of kept spans for ours,
into a batch processor whose exporter throws it away for OpenTelemetry. Making records of them, and
bytes, is the work of a thread in both.

    python -m benchmarks.toolkit_tracing      # these rows alone
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from benchmarks.toolkit_measure import HEADGATE, Primitive, of, run, work


def ours(*, sample: float, below: bool = False) -> Callable[[], Any]:
    from headgate.observe.tracing.rules import TracingRules
    from headgate.observe.tracing.span import CURRENT
    from headgate.observe.tracing.tracer import Tracer

    # Without judging at the end: then a trace that is not sampled is not recorded.
    tracer = Tracer(TracingRules(sample=sample, keep_slow_s=0.0, keep_errors=False))
    root: Any = tracer.root("root") if below else None

    def call() -> Any:
        with tracer.span("load user", user=42):
            return work()

    def call_below() -> Any:
        # Making the parent current belongs to the harness: all contenders share the context.
        token = CURRENT.set(root)
        with tracer.span("load user", user=42):
            work()
        CURRENT.reset(token)

    return call_below if below else call


def ours_tail() -> Callable[[], Any]:
    from headgate.observe.tracing.rules import TracingRules
    from headgate.observe.tracing.tracer import Tracer

    tracer = Tracer(TracingRules(sample=0.0))

    def call() -> Any:
        with tracer.span("load user", user=42):
            return work()

    return call


def opentelemetry(*, sample: float, below: bool = False) -> Callable[[], Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import set_span_in_context

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(sample)))
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000))
    tracer = provider.get_tracer("bench")
    parent = set_span_in_context(tracer.start_span("root")) if below else None

    def call() -> Any:
        with tracer.start_as_current_span("load user", parent, attributes={"user": 42}):
            return work()

    return call


PEER: Final = "opentelemetry-sdk"

PRIMITIVES: Final = (
    Primitive(
        "span, not sampled",
        False,
        of(
            work,
            (HEADGATE, lambda: ours(sample=0.0, below=True)),
            (PEER, lambda: opentelemetry(sample=0.0, below=True)),
        ),
    ),
    Primitive(
        "root span, not sampled",
        False,
        of(work, (HEADGATE, lambda: ours(sample=0.0)), (PEER, lambda: opentelemetry(sample=0.0))),
    ),
    Primitive(
        "root span, recorded",
        False,
        of(
            work,
            (HEADGATE, lambda: ours(sample=1.0)),
            ("headgate, judged at its end and let go", ours_tail),
            (PEER, lambda: opentelemetry(sample=1.0)),
        ),
    ),
)


def main() -> None:
    missing: set[str] = set()
    for primitive in PRIMITIVES:
        for row in asyncio.run(run(primitive, 7, missing)):
            print(primitive.name, row)
    for name in missing:
        print(f"{name} is not installed")


if __name__ == "__main__":
    main()
