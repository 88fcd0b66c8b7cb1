"""The ids of a request's spans, which follow from its own id: nothing of them is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.gateway.exchange import Exchange

__all__ = ["HEDGE", "MIRROR", "SAMPLED_PART", "own_span", "span_of", "trace_of"]

SAMPLED_PART: Final = slice(18, None)
"""The digits of a trace's id that say whether it is sampled. (A slice that is made once is 20 ns
less than one that is made each time.)"""

HEDGE: Final = 1 << 20
MIRROR: Final = 1 << 21
"""The numbers of what is asked beside a request's own attempts begin behind these."""

_ODD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


def trace_of(ex: Exchange) -> bytes:
    """The id of the trace that a request belongs to, 32 digits."""
    trace = ex.prep.trace
    if trace is not None and trace.trace_id:
        return trace.trace_id
    return ex.root_id or ex.own_id


def own_span(ex: Exchange) -> bytes:
    """The id of the gateway's own span of a request."""
    return ex.own_id[:16]


def span_of(ex: Exchange, number: int) -> bytes:
    """The id of an attempt's span: what the service is told. Odd factors make them all differ."""
    own = ex.own_id[16:]
    if number == 1:
        return own
    return b"%016x" % (((int(own, 16) + (number - 1) * _ODD) & _MASK) or 1)
