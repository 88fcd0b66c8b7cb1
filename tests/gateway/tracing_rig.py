"""What a gateway under test says of its traces."""

from __future__ import annotations

from time import monotonic
from typing import Any

from headgate.observe.tracing.record import SpanRecord
from tests.gateway.rig import Gateway, wait_until

ALL: dict[str, Any] = {"tracing": {"sample": "100%"}}
NONE: dict[str, Any] = {"tracing": {"sample": 0, "keep_slow": "off"}}
"""Only errors are kept."""
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CARRIED = f"traceparent: 00-{TRACE_ID}-{PARENT}-01"


class Told:
    """The spans that a gateway hands over, as control would hear them."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.events: list[dict[str, Any]] = []
        gateway.on_loop(self._listen)

    def _listen(self) -> None:
        self.gateway.worker._report = self.events.append

    @property
    def spans(self) -> list[SpanRecord]:
        worker = self.gateway.worker
        self.gateway.on_loop(lambda: worker._tell_traces(monotonic(), is_last=True))
        rows = [row for event in self.events if event["event"] == "spans" for row in event["spans"]]
        return [SpanRecord.of_json(row) for row in rows]

    def wait(self, count: int) -> list[SpanRecord]:
        """So many spans and no more, once nothing is in flight; each trace's parents are there."""
        wait_until(lambda: self.gateway.in_flight == 0)
        wait_until(lambda: len(self.spans) >= count)
        spans = self.spans
        assert len(spans) == count, [span.name for span in spans]
        ids = {span.span_id for span in spans}
        assert len(ids) == count
        for span in spans:
            assert span.kind == "server" or span.parent_id in ids, span.name
        return spans

    def named(self, count: int) -> dict[str, SpanRecord]:
        return {span.name: span for span in self.wait(count)}


def parent_of(head: Any) -> tuple[str, str, str]:
    """Trace id, span id and flags of what a service was told."""
    values = head.all("traceparent")
    assert len(values) == 1, values
    version, trace_id, span_id, flags = values[0].split("-")
    assert (version, len(trace_id), len(span_id), len(flags)) == ("00", 32, 16, 2)
    return trace_id, span_id, flags
