"""The shortest way: an answer that is known before its request has been read to the end.

Theory of operation. When a head has been answered from memory on a route where nothing else has to
be asked, the answer is remembered with the head (`Remembered.reply`) until the second is over, as
`Age` tells seconds, or its freshness. As long as that response is live and no barrier has moved,
the same head is answered by this exchange, which knows of no service. Once a second it takes the
whole way again, so that the store hears that the response is used.

A route that asks anything of a request (who it is, where it comes from, how many there were) has
steps, and is never answered this way (`RouteCache.is_quick`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from headgate.gateway.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.cache.barriers import Barriers
    from headgate.gateway.exchange import Downstream
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site

    Begin = Callable[[Downstream, Site, Prepared, float], Exchange]


class Hit(Exchange):
    outcome = "hit"

    __slots__ = ()

    def start(self, body: bytes, end: bool) -> None:
        self.request_done = end
        memo = self.prep.cached
        if memo is None or memo.reply is None or memo.kept is None:
            self.refuse(500, "a kept answer was lost")
            return
        self.ended = now = monotonic()
        head, content = memo.reply
        memo.kept.hits += 1
        memo.counts["hit"] += 1
        self.response_started = True
        self.status = head.status
        self.response_headers = head.headers
        self.bytes_out = len(content)
        self.down.send_head(self, head, content, True)
        self.finished = True
        self.prep.count(self, now)
        self.down.done(self)


def hits_first(begin: Begin, barriers: Barriers) -> Begin:
    """Begin a request by `begin`, unless its answer is at hand."""

    def start(down: Downstream, site: Site, prep: Prepared, now: float) -> Exchange:
        memo = prep.cached
        if memo is not None and now < memo.until:
            kept = memo.kept
            if (
                kept is not None
                and kept.is_live
                and not kept.is_soft_struck
                and kept.seen == barriers.version
            ):
                return Hit(down, site, prep, now)
        return begin(down, site, prep, now)

    return start
