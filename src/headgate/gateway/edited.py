"""An exchange whose filters are header edits with constant values: nothing is called for them.

The edits of the request are part of what its head becomes (see `Prepared`); those of the response
are made here, once for equal heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.gateway.policed import PolicedExchange
from headgate.wire.message import ResponseHead

if TYPE_CHECKING:
    from headgate.gateway.exchange import Downstream
    from headgate.gateway.filters.headers import Edits
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site
    from headgate.gateway.traffic import RouteTraffic

VARIANTS: Final = 8
"""How many different outcomes of filters are kept with a head; more means they vary with each
request, and keeping them would only cost memory."""


class EditedExchange(PolicedExchange):
    __slots__ = ("_edits",)

    def __init__(
        self,
        down: Downstream,
        site: Site,
        prep: Prepared,
        now: float,
        edits: Edits,
        traffic: RouteTraffic,
    ) -> None:
        PolicedExchange.__init__(self, down, site, prep, now, traffic)
        self._edits = edits

    def _take_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        if head.status != 101:
            head = edited(head, self._edits)
        PolicedExchange._take_head(self, head, body, end)  # noqa: SLF001 - of its own base

    def answer(self, reply: tuple[ResponseHead, bytes]) -> None:
        head, body = reply
        super().answer((edited(head, self._edits), body))


def edited(head: ResponseHead, edits: Edits) -> ResponseHead:
    """The head after constant edits; made once for equal heads."""
    variants = head.variants
    if variants is None:
        variants = head.variants = {}
    known = variants.get(edits)
    if known is None:
        fields = tuple(edits.apply_constant(head.headers))
        known = ResponseHead(head.status, fields, reason=head.reason, length=head.length)
        if len(variants) >= VARIANTS:
            variants.clear()  # those of former plans, most likely
        variants[edits] = known
    return known
