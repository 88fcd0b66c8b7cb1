"""What services and clients are told of a request beside what they say to each other.

The lines that belong to one request alone: its id, who it is forwarded for, its trace, how long it
took. What is the same for all requests with one head is in `prepared`, for all of a listener in
`site`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from headgate.gateway.request_ids import take_id
from headgate.gateway.tracing_ids import SAMPLED_PART, trace_of
from headgate.gateway.tracing_marks import Marked

if TYPE_CHECKING:
    from headgate.gateway.exchange import Downstream
    from headgate.gateway.prepared import Prepared
    from headgate.wire.message import Header

__all__ = ["Told"]


class Told(Marked):
    """The part of an exchange that both rims ask for lines."""

    if TYPE_CHECKING:
        # What the exchange brings.
        down: Downstream
        ended: float
        error: str | None
        own_id: bytes
        prep: Prepared
        request_id: bytes
        started: float

    __slots__ = ()

    def request_block(self) -> bytes:
        """The HTTP/1.1 lines that belong to this one request."""
        site = self.site
        prep = self.prep
        if prep.trusted_forwarding:
            forwarded, host = prep.forwarding_of(self), b""  # type: ignore[arg-type]  # none but exchanges are
        else:
            forwarded, host = self.down.forwarded_block, prep.host_block
        request_id = self.request_id
        floor = prep.quick_floor
        if floor is not None and self.sampled is None and self.attempts == 1:
            # The first that anybody is told of a trace that begins here.
            own = self.own_id
            self.sampled = sampled = own[SAMPLED_PART] >= floor  # type: ignore[misc]  # a slot of the exchange
            return b"".join(
                (
                    forwarded,
                    host,
                    site.request_id_prefix,
                    request_id,
                    b"\r\ntraceparent: 00-",
                    own,
                    b"-",
                    own[16:],
                    b"-03\r\n" if sampled else b"-02\r\n",
                )
            )
        if site.tracing is not None:
            lines = site.tracing.lines(self)  # type: ignore[arg-type]  # none but exchanges are
            return b"".join((forwarded, host, site.request_id_prefix, request_id, b"\r\n", lines))
        if not prep.makes_trace:
            return b"".join((forwarded, host, site.request_id_prefix, request_id, b"\r\n"))
        # A trace that begins here has the request's id, where a trusted peer's id is not of
        # another form; its first span need only be unique within it.
        trace = request_id if len(request_id) == 32 else take_id()
        return b"".join(
            (
                forwarded,
                host,
                site.request_id_prefix,
                request_id,
                b"\r\ntraceparent: 00-",
                trace,
                b"-",
                trace[:16],
                b"-01\r\n",
            )
        )

    def request_extras(self) -> list[Header]:
        """The same as `request_block`, for HTTP/2."""
        lines = self.request_block().split(b"\r\n")
        lines.pop()
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def response_block(self) -> bytes:
        """The HTTP/1.1 lines that belong to this one response."""
        site = self.site
        if site.response_time:
            block = b"%b%b\r\nx-response-time: %.3fms\r\n" % (
                site.request_id_prefix,
                self.request_id,
                ((self.ended or monotonic()) - self.started) * 1000,
            )
        else:
            block = b"%b%b\r\n" % (site.request_id_prefix, self.request_id)
        if site.tells_trace and site.tracing is not None:
            block += site.tracing.answer_lines(self)  # type: ignore[arg-type]  # none but exchanges are
        explanation = self.prep.explanation
        return block if explanation is None else block + self._explained(explanation)

    def _explained(self, told: bytes) -> bytes:
        """The operator's header: what follows from the head, and what became of this request."""
        if self.instance is not None:
            instance = self.instance.encode("ascii", "replace")
            told += b'; instance="%b"; attempts=%d' % (instance, self.attempts)
        if self.error is not None:
            told += b'; error="%b"' % self.error.encode("ascii", "replace")
        if self.site.tracing is not None:
            told += b'; trace="%b"' % trace_of(self)  # type: ignore[arg-type]  # none but exchanges are
        return b"x-headgate-explain: %b\r\n" % told

    def response_extras(self) -> list[Header]:
        lines = self.response_block().split(b"\r\n")
        lines.pop()
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
