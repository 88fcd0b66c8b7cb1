"""An exchange on a route with traffic policies: what is decided before the first attempt.

Theory of operation
-------------------
    head -> before (shed) -> steps (flag, limits, split, fault, concurrency) -> attempts
              each may answer, or wait: what comes of the body is held meanwhile

What is taken for the exchange as a whole (a seat of the concurrency limit, tokens that may be
refunded) is given back in `_finish`, which runs exactly once, before the client may go on: its next
request may need the same seat. A fallback takes the place of a failure once. The service it names
is asked like the first, with what filters have made of the request, or after they have seen it.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from headgate.gateway import problem
from headgate.gateway.exchange import PENDING_MAX
from headgate.gateway.race import RacedExchange
from headgate.gateway.side import forward_as
from headgate.gateway.steps import STOP, Flow, name_of
from headgate.wire.message import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headgate.gateway.doors import Passport
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.steps import Held, Step
    from headgate.wire.message import Forward, Header

log: Final = logging.getLogger("headgate.gateway")

CONTINUE: Final = ResponseHead(100, reason=b"Continue", length=0)

_After = tuple["tuple[Step, ...]", "Callable[[bytes], None]"]
"""What follows when a step has waited: the steps that are left, and what comes behind them."""


class PolicedExchange(RacedExchange):
    is_cached: ClassVar[bool] = False
    """Whether a cache is asked before the service."""
    is_degraded = False
    """The level of degradation says that anything held is better than asking."""
    gated: Held | None = None
    """A seat of the concurrency limit, or a place in its queue."""
    spent: Sequence[Callable[[PolicedExchange], None]] = ()
    """What limits want to hear at the end: costs and refunds depend on the outcome."""
    _after: _After | None = None
    _whole: asyncio.Future[None] | None = None
    """Done when nothing more comes of a body that a step waits for."""
    _whole_max = 0
    _is_admitted = False
    """Every policy has been asked; what still comes of the body is remembered as it comes."""
    _is_diverted = False
    """The fallback's service has been chosen before anything was sent."""
    _uncounted: tuple[Step, ...] = ()
    """Limits that the way to the fallback's service would lead around."""

    @property
    def priority(self) -> int:
        """Its place in `shed.PRIORITIES`."""
        return self.traffic.priority_of(self)

    @property
    def query(self) -> str:
        passport = self.passport
        return self.prep.head.query if passport is None else passport.query

    # -- before the first attempt --------------------------------------------------------------

    def _heard_scheme(self, scheme: str) -> None:
        self.is_secure = scheme == "https"

    def start(self, body: bytes, end: bool) -> None:
        prep = self.prep
        self.is_secure = self.down.is_tls
        if prep.trusted_forwarding:
            self._take_trusted()
            if prep.turns_away(self, end):
                return
        self.bytes_in = len(body)
        self.request_done = end
        self._open()
        route = self.route
        if route is None or prep.head.length > route.body_limit or len(body) > route.body_limit:
            self.refuse(413, "request body too large")
        elif route.has_hooks:
            self._run(self.traffic.before, body, self._begin)
        else:
            self._pass_steps(body)

    def _open(self) -> None:
        """The request as filters see it, where there are any."""

    def _begin(self, body: bytes) -> None:
        """Nothing speaks against the request as such: ask the policies of its route."""
        if self._is_diverted:
            self._run(self._uncounted, body, self._admitted)
            return
        self._run(self.traffic.steps, body, self._admitted)

    def _admitted(self, body: bytes) -> None:
        """Every policy lets the request through."""
        self._is_admitted = True
        route = self.route
        if self.service is not None:
            if self._replay is not None and body:
                self._remember(body)
            self._dispatch(body, self.request_done)
        elif route is not None:
            self.answer(route.local_answer(self))

    def _pass_steps(self, body: bytes) -> None:
        """All steps in a row where no filter stands between them: nearly always they answer at
        once.
        """
        traffic = self.traffic
        at = 0
        try:
            for step in traffic.all_steps:
                at += 1
                got = step(self)
                if got is not None:
                    break
            else:
                got = None
        except Exception as error:  # noqa: BLE001 - it is logged, and costs only its request
            self._policy_failed(error)
            return
        if got is None:
            self._admitted(body)
        elif at <= len(traffic.before):
            self._halt(got, (traffic.before[at:], self._begin), body, traffic.before[at - 1])
        else:
            self._halt(
                got, (traffic.all_steps[at:], self._admitted), body, traffic.all_steps[at - 1]
            )

    def _run(self, steps: tuple[Step, ...], body: bytes, then: Callable[[bytes], None]) -> None:
        for at, step in enumerate(steps, 1):
            try:
                got = step(self)
            except Exception as error:  # noqa: BLE001 - it is logged, and costs only its request
                self._policy_failed(error)
                return
            if got is not None:
                self._halt(got, (steps[at:], then), body, step)
                return
        then(body)

    def _halt(
        self, got: Flow | Awaitable[Flow | None], after: _After, body: bytes, step: Step
    ) -> None:
        """A step has answered, or has to wait."""
        if got is STOP:
            if body and self._after is not None:
                self._hold(body)  # for the fallback's service
            return
        after = self._wait(after, body, f"policy {name_of(step)}")
        if not isinstance(got, Flow):
            self.site.spawn(self._await_step(got, after))

    def _wait(self, after: _After, body: bytes, waits_for: str = "policy") -> _After:
        """Hold the request until a decision is there, but not beyond the end of its time."""
        self._after = after
        if self.site.tracing is not None:
            self.waiting = (waits_for, monotonic())
        if body:
            self._hold(body)
        left_s = self._left_s()
        if left_s < inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, self._out_of_time, after)
        return after

    def _left_s(self) -> float:
        """How long the request may still take."""
        route = self.route
        ends_s = route.total_s if route is not None else inf
        theirs_s = self.prep.deadline_s
        if theirs_s is not None:
            ends_s = min(ends_s, theirs_s)
        return inf if ends_s == inf else max(self.started + ends_s - monotonic(), 0.0)

    def _out_of_time(self, after: _After) -> None:
        if self._after is not after or self.finished:
            return
        self._timer = None
        self._after = None
        gated = self.gated
        if gated is not None:
            # Its place in the line is free for who still has time.
            self.gated = None
            gated.end(self, monotonic())
        self.error = "timeout in a policy's line"
        self.site.stats.timeouts.add("policy")
        # Before it is known who asks, nothing but a refusal can be answered.
        is_let_in = after[1] != self._begin
        if not (is_let_in and self.fall_back("timeout")):
            self.refuse(504, "the time for the request was over before it could be sent")

    async def _await_step(self, awaitable: Awaitable[object | None], after: _After) -> None:
        try:
            got = await awaitable
        except asyncio.CancelledError as error:
            # Given up by whoever owns it, as a look-up that others share: nobody else will answer.
            if self._after is after:
                self._policy_failed(error)
            raise
        except Exception as error:  # noqa: BLE001 - it is logged, and costs only its request
            if self._after is after:
                self._policy_failed(error)
            return
        if got is not STOP and self._after is after:
            self.go_on()

    def _policy_failed(self, error: BaseException) -> None:
        route = self.route.name if self.route is not None else ""
        log.error("a traffic policy failed on route %r", route, exc_info=error)
        self._after = None
        self.refuse(500, "a policy failed")

    def go_on(self) -> None:
        """What a step waited for is there."""
        after, self._after = self._after, None
        waiting = self.waiting
        if waiting is not None:
            self.waiting = None
            self.mark("step", *waiting, monotonic())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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

    async def whole_body(self, most: int) -> bytes | None:
        """What is sent, once all of it is here; None where that is more than `most` bytes. For a
        step that waits, and answers.
        """
        self._whole = self._whole or asyncio.get_running_loop().create_future()
        self._whole_max = most
        if self.prep.head.expects_continue and not self.request_done and not self.bytes_in:
            self.down.send_informational(CONTINUE)  # it is wanted, and nobody else will say so
        self._look_for_end()
        await self._whole
        if self.bytes_in > most:
            return None
        return self._take_held()

    def _look_for_end(self) -> None:
        whole = self._whole
        if whole is None or whole.done():
            return
        if self.request_done or self.finished or self.bytes_in > self._whole_max:
            whole.set_result(None)
        elif self._pending_bytes > PENDING_MAX:
            self.down.resume()  # the rest is waited for, so that there is no use in a pause

    def on_request_data(self, data: bytes) -> None:
        if (
            self._replay is not None
            and (self._after is None or self._is_admitted)
            and not self.finished
        ):
            if self.is_tunnel:
                self._replay = None
            else:
                self._remember(data)
        super().on_request_data(data)
        self._look_for_end()

    # -- answers of our own --------------------------------------------------------------------

    def fall_back(self, why: str, *, is_early: bool = False, is_uncounted: bool = False) -> bool:
        """Answer by the route's fallback, if it has one for this; whether it has.

        `is_early`: nobody has been asked who they are, and filters have not seen the request.
        `is_uncounted`: the route's limits have not been asked; a service is, within them.
        """
        fallback = self.traffic.fallback
        if fallback is None or why not in fallback.on or self._is_answered():
            return False
        stats = self.traffic.stats
        entry = self.traffic.entry if is_early else ()
        if fallback.reply is not None:
            if entry:
                return False  # it may not be for everybody
            stats.fallbacks += 1
            self.answer(fallback.reply)
            return True
        other = fallback.service
        if other is None or other is self.service or self._is_diverted:
            return False
        loop = asyncio.get_running_loop()
        if not self.attempts:
            # Nothing has been sent: it goes there on the way it would have taken to the first.
            stats.fallbacks += 1
            self._is_diverted = True
            self.change_service(other)
            counting = self.traffic.counting
            if is_early:
                self._uncounted = counting
                self._after = (entry, self._begin)
            else:
                self._after = (counting if is_uncounted else (), self._go_to_fallback)
            self._timer = loop.call_later(0, self.go_on)
            return True
        if not self._can_repeat():
            return False
        stats.fallbacks += 1
        self._let_go()
        self._leave_member(monotonic(), failed=True)
        self.change_service(other)
        forward, sent = self.forward, self._replay_bytes
        if forward is not None and 0 <= forward.length != sent and self._has_whole_request():
            # A filter that gathers may have changed the body without a word.
            self.forward = forward_as(forward, forward.headers, sent)
        self._rewind()
        self.sent_before += self.attempts
        self.settle_sampled()
        self.attempts = 0
        self.tried = ()
        self.key = 0
        self.came_back_to = self.answered_by = None
        self._waited_s = 0.0
        self._timer = loop.call_later(0, self._again)
        return True

    def _go_to_fallback(self, body: bytes) -> None:
        """Nothing was sent; its service is asked now. A route with a cache may have come further
        than its policies.
        """
        self._admitted(body)

    def cut(self, reason: str, detail: str = "") -> None:
        """Break the connection off without an answer. `reason` is counted, so it is one of few."""
        self.error = detail or reason
        self._let_go()
        self.down.abort(reason)
        if not self.finished:
            self._finish()

    def admit(self, passport: Passport) -> None:
        """It is known who asks: from here on the request goes as that passport says."""
        self.passport = passport
        self.identity = passport.identity
        service = self.service
        if service is not None:
            known = passport.forwards.get(service.name)
            self.forward = known or passport.forward_to(service, self.prep)

    def answer_instead(
        self, status: int, headers: Sequence[tuple[str, str]], body: bytes = b""
    ) -> None:
        """Answer here what no service is asked."""
        self.answer(problem.reply(status, headers, body))

    def plain_forward(self, service: ServiceRuntime) -> Forward | None:
        """The request as the service gets it, before filters."""
        prep, passport = self.prep, self.passport
        return prep.forward_to(service) if passport is None else passport.forward_to(service, prep)

    def copy_for(self, service: ServiceRuntime, length: int) -> Forward | None:
        """The request as it was sent, for a mirror: what must not travel on does not."""
        own, prep, passport = self.forward, self.prep, self.passport
        plain = prep.forward_to(service) if passport is None else passport.copy_to(service, prep)
        if plain is None or own is None or own.upgrade is not None:
            return None
        fields = own.headers if passport is None else passport.copied(own.headers, plain.headers)
        if fields == plain.headers and length == plain.length:
            return plain
        return forward_as(plain, fields, length)  # filters have changed it

    def change_service(self, service: ServiceRuntime) -> None:
        """Send the request to another service than the route's first."""
        if service is self.service:
            return
        self.service = service
        self.forward = self.plain_forward(service)
        if self.route is not None:
            self.stats = self.route.stats_to(service)

    # -- endings -------------------------------------------------------------------------------

    def _finish(self, now: float = 0.0) -> None:
        now = now or monotonic()
        self._after = None
        RacedExchange._finish(self, now)  # noqa: SLF001 - of its own base
        if self._whole is not None:
            self._look_for_end()
        mirror = self.traffic.mirror
        if (
            mirror is not None
            and self.attempts
            and self._can_repeat()
            and self._has_whole_request()
            and not self.is_tunnel
        ):
            mirror.copy(self, b"".join(self._replay or ()), now)

    def _give_back(self, now: float) -> None:
        gated, spent = self.gated, self.spent
        if gated is None and not spent:
            return
        # Others may be let in by this: from here on nothing reaches the exchange any more.
        self.finished = True
        self._let_go()
        if gated is not None:
            self.gated = None
            gated.end(self, now)
        for tell in spent:
            tell(self)

    def _has_whole_request(self) -> bool:
        return self.request_done

    def on_request_end(self, trailers: Sequence[Header] = ()) -> None:
        if self._after is not None:
            if not self.request_done and not self.finished:
                self.request_done = True
                self.trailers_in = trailers
                self._look_for_end()
            return
        super().on_request_end(trailers)
