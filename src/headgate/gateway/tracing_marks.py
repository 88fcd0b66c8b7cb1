"""What an exchange notes of its slow ways, for the spans of a request that is kept.

See `tracing_spans` for the form of marks. Nothing here runs for a request that goes the usual way:
one attempt, on a connection that is at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headgate.wire.message import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.errors import UpstreamFailed
    from headgate.gateway.exchange import Upstream
    from headgate.gateway.pool import Line
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.site import Site
    from headgate.wire.message import Header

_MARKS_MAX: Final = 64
GRPC_FAULTS: Final = frozenset((b"2", b"4", b"12", b"13", b"14", b"15"))
"""UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: those that are the
server's, as OpenTelemetry has it."""
_JUST_S: Final = 50e-6
"""What is shorter is no wait, and no handshake."""


class Marked:
    """The part of an exchange that knows of its trace."""

    root_id: bytes | None = None
    """The trace, where another request has begun it: that of a cache's fill."""
    asked_for: bytes | None = None
    """The span of that request."""
    sent_before = 0
    """Attempts at another service, before its fallback."""
    taken_over = 0
    """The number of the attempt that is the one, where that is not the last of its own."""
    waiting: tuple[str, float] | None = None
    """What it waits for before it is sent, and since when."""

    if TYPE_CHECKING:
        # What the exchange brings.
        attempts: int
        instance: str | None
        line: Line | None
        marks: list[tuple[Any, ...]] | None
        sampled: bool | None
        """Whether its head says that it is kept; None until somebody has been told, or it ends.
        True also where its end has to be looked at for another reason."""
        service: ServiceRuntime | None
        site: Site
        waits_since: float

    __slots__ = ()

    def settle_sampled(self) -> None:
        """What services are told from here on takes more than the quick way of the first."""
        tracing = self.site.tracing
        if tracing is not None:
            self.sampled = tracing.is_sampled(self)  # type: ignore[misc, arg-type]

    def mark(self, *what: Any) -> None:
        """Note what happened on a slow way, for the spans of a request that is kept."""
        if self.site.tracing is None:
            return
        if self.marks is None:
            self.marks = []  # type: ignore[misc]  # a slot of the exchange itself
        if len(self.marks) < _MARKS_MAX:
            self.marks.append(what)

    def note_grpc(self, trailers: Sequence[Header]) -> None:
        """A gRPC call that failed answers 200, and tells of it behind its messages."""
        tracing = self.site.tracing
        if tracing is None or not tracing.rules.keep_errors:
            return
        status = find(trailers, b"grpc-status")
        if status in GRPC_FAULTS:
            self.mark("grpc", status.decode())
            self.sampled = True  # type: ignore[misc]  # which only has its end looked at closely

    def note_wait(self, up: Upstream, since: float, now: float) -> None:
        """A connection is there that was waited for: in the line, or until it was made."""
        if self.site.tracing is None:
            return
        number = self.sent_before + self.attempts
        made = up.made
        if made is None or made[2] <= since:
            self.mark("wait", number, since, now, "queue", "")
            return
        began, connected, ready = made
        if began - since > _JUST_S:
            self.mark("wait", number, since, began, "queue", "")
        self.mark("wait", number, max(began, since), connected, "connect", "")
        if ready - connected > _JUST_S:
            self.mark("wait", number, connected, ready, "tls", "")

    def note_attempt(
        self, now: float, failure: UpstreamFailed | None, status: int = 0, *, unsent: bool = False
    ) -> None:
        """An attempt is over that is not the one to answer, or that came to nothing."""
        if self.site.tracing is None:
            return
        number = self.taken_over or self.sent_before + self.attempts
        kind = failure.kind if failure is not None else ""
        if unsent and self.waits_since and kind:
            name = "queue" if kind.startswith("queue") else "tls" if kind == "tls" else "connect"
            self.mark("wait", number, self.waits_since, now, name, kind)
        said = failure.detail if failure is not None and failure.detail == "stale" else kind
        # Without a line nobody was asked.
        instance = self.instance if self.line is not None else None
        name = self.service.name if self.service is not None else ""
        self.mark("attempt", number, self._attempt_began(), now, instance, name, said, status)

    def _attempt_began(self) -> float:
        """0.0: with the end of the one before."""
        return 0.0
