"""An exchange on a route with traffic policies: what is decided before the first attempt.

Theory of operation
-------------------
    head -> before (shed) -> steps (flag, limits, split, fault, concurrency) -> attempts
              each may answer, or wait: what comes of the body is held meanwhile

What is taken for the exchange as a whole (a seat of the concurrency limit, tokens that may be
refunded) is given back in `_finish`, which runs exactly once. A fallback takes the place of a
failure once; the service it names is asked like the first.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.attempts import AttemptedExchange
from headgate.gateway.exchange import PENDING_MAX
from headgate.gateway.steps import STOP, WAIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.steps import Held, Step
    from headgate.wire.message import Header

log: Final = logging.getLogger("headgate.gateway")


class PolicedExchange(AttemptedExchange):
    gated: Held | None = None
    """A seat of the concurrency limit, or a place in its queue."""
    spent: Sequence[Callable[[PolicedExchange], None]] = ()
    """What limits want to hear at the end: costs and refunds depend on the outcome."""
    _after: tuple[tuple[Step, ...], Callable[[bytes], None]] | None = None

    @property
    def priority(self) -> int:
        """Its place in `shed.PRIORITIES`."""
        return self.traffic.priority_of(self)

    # -- before the first attempt --------------------------------------------------------------

    def start(self, body: bytes, end: bool) -> None:
        prep = self.prep
        if prep.trusted_forwarding:
            self._take_trusted()
        self.bytes_in = len(body)
        self.request_done = end
        self._open()
        route = self.route
        if route is None or prep.head.length > route.body_limit or len(body) > route.body_limit:
            self.refuse(413, "request body too large")
        else:
            before = self.traffic.before
            if before:
                self._run(before, body, self._begin)
            else:
                self._begin(body)

    def _open(self) -> None:
        """The request as filters see it, where there are any."""

    def _begin(self, body: bytes) -> None:
        """Nothing speaks against the request as such: ask the policies of its route."""
        self._run(self.traffic.steps, body, self._admitted)

    def _admitted(self, body: bytes) -> None:
        """Every policy lets the request through."""
        route = self.route
        if self.service is not None:
            if self._replay is not None and body:
                self._remember(body)
            self._dispatch(body, self.request_done)
        elif route is not None:
            self.answer(route.local_answer(self))

    def _run(self, steps: tuple[Step, ...], body: bytes, then: Callable[[bytes], None]) -> None:
        for at, step in enumerate(steps, 1):
            got = step(self)
            if got is None:
                continue
            if got is STOP:
                return
            self._after = (steps[at:], then)
            if body:
                self._hold(body)
            if got is not WAIT:
                self.site.spawn(self._await_step(got))
            return
        then(body)

    async def _await_step(self, awaitable: Awaitable[object | None]) -> None:
        try:
            got = await awaitable
        except Exception:
            log.exception("a traffic policy of route %r failed", self.route and self.route.name)
            self._after = None
            self.refuse(500, "a policy failed")
            return
        if got is not STOP:
            self.go_on()

    def go_on(self) -> None:
        """What a step waited for is there."""
        after, self._after = self._after, None
        if after is not None and not self.finished:
            self._run(after[0], self._take_held(), after[1])

    def stop_waiting(self) -> None:
        """What a step waited for will not come: whoever calls answers."""
        self._after = None

    def _take_held(self) -> bytes:
        """What has come of the body while a decision was awaited."""
        if self._pending is None:
            return b""
        held = b"".join(self._pending)
        was_paused = self._pending_bytes > PENDING_MAX
        self._pending = None
        self._pending_bytes = 0
        if was_paused:
            self.down.resume()
        return held

    def on_request_data(self, data: bytes) -> None:
        if self._replay is not None and self._after is None and not self.finished:
            self._remember(data)
        super().on_request_data(data)

    # -- answers of our own --------------------------------------------------------------------

    def fall_back(self, why: str) -> bool:
        """Answer by the route's fallback, if it has one for this; whether it has."""
        fallback = self.traffic.fallback
        if fallback is None or why not in fallback.on or self._is_answered():
            return False
        self.traffic.stats.fallbacks += 1
        if fallback.reply is not None:
            self.answer(fallback.reply)
            return True
        other = fallback.service
        if other is None or other is self.service or not self._can_repeat():
            return False
        self._let_go()
        self._leave_member(monotonic(), failed=True)
        self.change_service(other)
        self.attempts = 0
        self.tried = ()
        self._timer = asyncio.get_running_loop().call_later(0, self._again)
        return True

    def cut(self, reason: str) -> None:
        """Break the connection off without an answer."""
        self.error = reason
        self._let_go()
        self.down.abort(reason)
        if not self.finished:
            self._finish()

    def change_service(self, service: ServiceRuntime) -> None:
        """Send the request to another service than the route's first."""
        if service is self.service:
            return
        self.service = service
        self.forward = self.prep.forward_to(service)
        if self.route is not None:
            self.stats = self.route.stats_to(service)

    # -- endings -------------------------------------------------------------------------------

    def _finish(self, now: float = 0.0) -> None:
        now = now or monotonic()
        self._after = None
        super()._finish(now)
        gated = self.gated
        if gated is not None:
            self.gated = None
            gated.end(self, now)
        mirror = self.traffic.mirror
        if mirror is not None and self.attempts and self.request_done and self._can_repeat():
            mirror.copy(self, b"".join(self._replay or ()), now)
        if self.spent:
            for tell in self.spent:
                tell(self)

    def _has_whole_request(self) -> bool:
        return self.request_done

    def on_request_end(self, trailers: Sequence[Header] = ()) -> None:
        if self._after is not None:
            if not self.request_done and not self.finished:
                self.request_done = True
                self.trailers_in = trailers
            return
        super().on_request_end(trailers)
