"""An exchange that chooses among instances and may try more than once.

Theory of operation
-------------------
An *attempt* is one try at one instance. It takes (a breaker's permit, a place in the balancer's
counts) when it begins and gives back exactly once, in `_settle` and `_leave_member`, however it
ends: an answer, a failure, a newer attempt that won, a client that left.

    attempt -> answer -> shown
       |          | worth another try: wait, attempt again
       | failed, or too slow: attempt again, here or elsewhere, or answer for it
       | slow, and hedged: a second attempt beside it; whichever answers first is the attempt

Retries follow RFC 9110 9.2.2: what an instance cannot have acted on may always go elsewhere; the
rest only as the policy says, within its budget, while the body is at hand in full, and never when a
layer above has said that it retries itself. Once anything of a response has gone to the client
there is no other attempt.
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.gateway import problem
from headgate.gateway.exchange import PENDING_MAX, Exchange
from headgate.gateway.traffic import ELSEWHERE_MAX
from headgate.policy.answers import Rejected
from headgate.policy.hops import ATTEMPT, DEADLINE, NO_RETRY, format_deadline
from headgate.policy.retry import parse_retry_after, wait_before
from headgate.wire.message import ResponseHead, find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.gateway.doors import Passport
    from headgate.gateway.exchange import Downstream, Upstream
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.side import Hedge
    from headgate.gateway.site import Site
    from headgate.gateway.traffic import RouteTraffic
    from headgate.policy.balancer import Member
    from headgate.policy.breaker import Breaker, Permit
    from headgate.wire.message import Header

_FALLBACK_FOR: Final = {"timeout": "timeout", "queue_full": "full", "queue_timeout": "full"}
_SHORT_S: Final = 2.0
_EARLY_S: Final = 0.003
"""How much before its time a timer may fire: uvloop counts in whole milliseconds."""
_QUEUE_KINDS: Final = frozenset({"queue_full", "queue_timeout"})


class AttemptedExchange(Exchange):
    # What runs for each request names its base in place of `super()`, which costs two calls more.

    goes_at_once = False

    # No slots: most of these are seldom set, and a default on the class costs a request nothing.
    passport: Passport | None = None
    """What the request's head was found to be worth, where the route asks who it is."""
    member: Member | None = None
    tried: tuple[Member, ...] = ()
    """Instances that have failed this request; others are preferred."""
    is_secure = False
    """Whether the client's own connection is encrypted, as far as trusted proxies tell."""
    key = 0
    """What the balancer hashes, once known."""
    stamped: bytes = b""
    """Lines for the service, beside what the request's head becomes."""
    extra: bytes = b""
    """Lines for the response's head: limits, affinity."""
    told: tuple[Header, ...] = ()
    """The response's headers as they came, where some are for us alone."""
    deadline_is_theirs = False
    stood_s = 0.0
    """How long it stood in line for a seat."""
    answered_by: Member | None = None
    came_back_to: Member | None = None
    """The instance that the client's affinity cookie names."""
    _attempt_at = 0.0
    _is_judged = True
    _breaker: Breaker | None = None
    _last_member: Member | None = None
    _permit: Permit | None = None
    _hedges: Sequence[Hedge] = ()
    """Attempts beside the first, as long as the question is open."""
    _replay_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _try_timer: asyncio.TimerHandle | None = None
    _waited_s = 0.0

    def __init__(
        self, down: Downstream, site: Site, prep: Prepared, now: float, traffic: RouteTraffic
    ) -> None:
        Exchange.__init__(self, down, site, prep, now)
        self.traffic = traffic
        self._replay: list[bytes] | None = [] if traffic.replay_max else None

    # -- attempts ------------------------------------------------------------------------------

    def _dispatch(self, body: bytes, end: bool) -> None:
        route, service = self.route, self.service
        if route is None or service is None:
            self.refuse(500, "no service")
            return
        if service.is_plain and self.traffic.is_plain and self.prep.deadline_s is None:
            super()._dispatch(body, end)
            return
        if body:
            # What is held goes along, so an attempt that fails at once has lost nothing of it.
            self._hold(body)
        now = monotonic()
        self.attempts += 1
        if self.attempts == 1:
            self._set_out(service, now)
        self.waits_since = 0.0
        self._attempt_at = now
        self._is_judged = False
        if now >= self.expires_at:
            self._no_attempt(UpstreamFailed("timeout", service.name))
            return
        member = service.pick(self, now)
        if member is None:
            self._no_attempt(service.nobody())
            return
        if isinstance(member, Rejected):
            self._reject(member)
            return
        self.member = member
        service.group.started(member)
        traffic = self.traffic
        if traffic.per_try_s != inf or self.expires_at - now < _SHORT_S:
            self._time_try(now)
        self._send_by(service.line_of[member.id], b"", end)
        if traffic.shedder is not None and self.up is not None:
            # The shedder watches the least delay: one who did not wait is news as well.
            traffic.shedder.waited(self.stood_s, now)
        if traffic.hedges and self.attempts == 1:
            self._plan_hedge(service, now)

    def on_connected(self, up: Upstream) -> None:
        waited_since = self.waits_since
        if waited_since:
            now = monotonic()
            self.connect_s = now - waited_since
            self.note_wait(up, waited_since, now)
            self.waits_since = 0.0
            shedder = self.traffic.shedder
            if shedder is not None:
                shedder.waited(now - waited_since + self.stood_s, now)
        super().on_connected(up)

    def _attempt_began(self) -> float:
        return self._attempt_at

    def note_attempt(
        self, now: float, failure: UpstreamFailed | None, status: int = 0, *, unsent: bool = False
    ) -> None:
        Exchange.note_attempt(self, now, failure, status, unsent=unsent)
        if self.taken_over:
            self.taken_over = 0  # what follows has numbers of its own again

    def side_block(self, number: int, make: Callable[[], bytes]) -> bytes:
        """What `make` says to who is asked beside it, with a span of its own."""
        if self.site.tracing is None:
            return make()
        self.settle_sampled()
        before, self.taken_over = self.taken_over, number
        try:
            return make()
        finally:
            self.taken_over = before

    def _time_try(self, now: float) -> None:
        """End the attempt in time; the wheel that watches connections is too coarse for this."""
        traffic = self.traffic
        if traffic.per_try_s == inf and self.expires_at - now >= _SHORT_S:
            return
        ends_at = min(self._attempt_at + traffic.per_try_s, self.expires_at)
        loop = asyncio.get_running_loop()
        self._try_timer = loop.call_later(max(ends_at - now, 0.0), self._on_try_timeout)

    def _set_out(self, service: ServiceRuntime, now: float) -> None:
        """What is settled with the first attempt and holds for all of them."""
        route, traffic = self.route, self.traffic
        if route is not None:
            self.expires_at = self.started + route.total_s
        theirs_s = self.prep.deadline_s
        if theirs_s is not None and self.started + theirs_s < self.expires_at:
            self.expires_at = self.started + theirs_s
            self.deadline_is_theirs = True
        if traffic.budget is not None:
            traffic.budget.count(now)
        if service.key_of is not None:
            self.key = service.key_of(self)
        if service.affinity is not None:
            self.came_back_to = service.affinity.member_of(self)

    def _remember(self, data: bytes) -> None:
        """Keep what is sent of a body for another attempt, within the policy's bound."""
        self._replay_bytes += len(data)
        if self._replay_bytes > self.traffic.replay_max:
            self._replay = None
        elif self._replay is not None:
            self._replay.append(data)

    def _rewind(self) -> None:
        """The next attempt sends the body from its beginning."""
        replay = self._replay
        if not replay:
            return
        self._pending = list(replay)
        self._pending_bytes = self._replay_bytes
        # As `_hold` would have left it, whatever the last instance said of its own pace. With all
        # of it here there is only to be heard whether the client is still there.
        if self._pending_bytes > PENDING_MAX and not self.request_done:
            self.down.pause()
        else:
            self.down.resume()

    def on_request_end(self, trailers: Sequence[Header] = ()) -> None:
        if trailers and self._replay is not None:
            self.trailers_in = trailers
        super().on_request_end(trailers)

    def take_permit(self, breaker: Breaker, permit: Permit) -> None:
        self._breaker = breaker
        self._permit = permit

    def _no_attempt(self, failure: UpstreamFailed) -> None:
        self.line = None
        self.on_upstream_failed(failure, unsent=True)

    def _reject(self, rejected: Rejected) -> None:
        """A breaker lets nothing through."""
        self._settle(None, monotonic())
        self.line = None
        self.note_attempt(self._attempt_at, None)
        self.traffic.stats.rejected_open += 1
        self.error = "breaker_open"
        if not self.fall_back("open"):
            self.refuse(503, rejected.reason, retry_after_s=rejected.retry_after_s)

    def _on_try_timeout(self) -> None:
        self._try_timer = None
        if self.finished or self.response_started or self._is_judged:
            return
        name = self.instance or ""
        now = monotonic()
        if 0.0 < self.expires_at - now < _EARLY_S:
            self.expires_at = now
        self._let_go()
        self.on_upstream_failed(UpstreamFailed("timeout", f"{name}: per try"))

    def _settle(self, failed: bool | None, now: float, kind: str = "") -> None:
        """The attempt has shown what it is worth; None: it decided nothing. Once an attempt."""
        if self._is_judged:
            return
        self._is_judged = True
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        if self._timer is not None:
            # That of a hedge: nothing else can wait while an attempt is under way.
            self._timer.cancel()
            self._timer = None
        took_s = now - self._attempt_at
        breaker, permit = self._breaker, self._permit
        if breaker is not None and permit is not None:
            self._breaker = None
            if failed is None:
                breaker.abandon(permit, now)
            elif failed:
                breaker.fail(permit, now, took_s)
            else:
                breaker.succeed(permit, now, took_s)
        service, member = self.service, self.member
        if failed is None or service is None or member is None:
            return
        if service.note is not None:
            service.note(member, failed, took_s, now, kind)

    def _leave_member(self, now: float, *, failed: bool) -> None:
        """The instance no longer works for this exchange."""
        member, service = self.member, self.service
        if member is not None and service is not None:
            self.member = None
            self._last_member = member
            service.group.finished(member, now - self._attempt_at, failed, now)

    # -- the answer ----------------------------------------------------------------------------

    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        if self.finished:
            return
        if not self._is_judged:
            now = monotonic()
            service = self.service
            failed = service is not None and head.status in service.failures
            self._settle(failed, now, f"status {head.status}" if failed else "")
            if failed and self._hedges:
                # Who is asked beside it may do better, and has been asked already.
                if end:
                    self.up = None
                self._leave_member(now, failed=True)
                self._exclude_member()
                self.note_attempt(now, None, head.status)
                if self._promote_hedge():
                    return
            self.answered_by = self.member or self._last_member
            if self._hedges:
                self._call_off_hedges()
            traffic = self.traffic
            retries = traffic.retries
            if (
                retries is not None
                and (head.status in retries.statuses or retries.headers)
                and self._is_worth_another(head)
            ):
                wait_s = self._wait_for_another(head, now)
                if wait_s is not None:
                    self.note_attempt(now, None, head.status)
                    if not end:
                        self._let_go()
                    self.up = None
                    self._leave_member(now, failed=failed)
                    self._again_in(wait_s)
                    return
            fallback = traffic.fallback
            if fallback is not None and head.status in fallback.statuses:
                if end:
                    self.up = None
                self.note_attempt(now, None, head.status)
                if self.fall_back("flag"):
                    return
        hidden = self.traffic.hidden
        if hidden:
            self.told = head.headers
            head = _without(head, hidden)
        self._take_head(head, body, end)

    _take_head = Exchange.on_response_head
    """This is the answer."""

    def _is_worth_another(self, head: ResponseHead) -> bool:
        rules = self.traffic.retries
        if rules is None or head.status == 101:
            return False  # a tunnel stands, whatever the rules say
        if head.status in rules.statuses:
            return True
        for name, value in rules.headers:
            found = find(head.headers, name.encode("latin-1"))
            if found is not None and (value is None or found == value.encode("latin-1")):
                return True
        return False

    def _wait_for_another(self, head: ResponseHead | None, now: float) -> float | None:
        """Seconds until the next attempt; None when there is to be none."""
        traffic = self.traffic
        rules = traffic.retries
        if (
            rules is None
            or self.attempts >= rules.attempts
            or self.prep.head.method not in rules.methods
            or not self._can_repeat()
            or self.prep.is_retried_above
        ):
            return None
        told_s = None
        if head is not None:
            if find(head.headers, NO_RETRY) is not None:
                return None
            if rules.retry_after:
                said = find(head.headers, b"retry-after")
                if said is not None:
                    told_s = parse_retry_after(said, time.time())  # noqa: TID251 - HTTP dates
        wait_s = wait_before(rules, self.attempts, self._waited_s, self.site.rng, told_s)
        if wait_s is None or now + wait_s >= self.expires_at:
            return None
        if traffic.budget is not None and not traffic.budget.try_take(now):
            self.traffic.stats.budget_spent += 1
            self.add_line(NO_RETRY + b": 1\r\n")
            return None
        self._waited_s = wait_s
        return wait_s

    def _is_answered(self) -> bool:
        """Whether anything of an answer has been seen by those who must not see two."""
        return self.response_started

    def _can_repeat(self) -> bool:
        """Whether everything that has been sent of the request is still at hand."""
        return self._replay is not None or self.bytes_in == 0

    def _again_in(self, wait_s: float) -> None:
        if self.traffic.other_instance:
            self._exclude_member()
        self._rewind()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._again)

    def _exclude_member(self) -> None:
        member = self._last_member
        if member is not None and member not in self.tried:
            self.tried = (*self.tried, member)

    def _again(self) -> None:
        self._timer = None
        if self.finished:
            return
        if self.attempts:  # else it is the first at the fallback's service
            self.traffic.stats.retries += 1
        self._dispatch(b"", self._has_whole_request())

    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None:
        if self.finished:
            return
        now = monotonic()
        self.up = None
        self.waiting_on = None
        if self.line is not None:
            self.line.stats.failures.add(failure.kind)
        if failure.kind == "timeout":
            self.site.stats.timeouts.add("upstream")
        self.note_attempt(now, failure, unsent=unsent)
        service = self.service
        says_nothing = (
            failure.kind in _QUEUE_KINDS
            or (self.deadline_is_theirs and now >= self.expires_at)
            or service is None
            or not service.counts(failure.kind)
            or self._is_stale(failure)
            or (unsent and failure.kind == "timeout")  # it was spent in our own line
        )
        self._settle(None if says_nothing else True, now, failure.kind)
        self._leave_member(now, failed=not says_nothing)
        if self._hedges and not self.response_started:
            self._exclude_member()
            if self._promote_hedge():
                return
        if self.response_started:
            self.error = failure.log_word
            self.down.abort(f"upstream {failure.kind} in the middle of a response")
            self._finish()
            return
        wait_s = self._wait_after(failure, now, unsent=unsent)
        if wait_s is None:
            self.fail(failure)
        elif wait_s > 0.0:
            self._again_in(wait_s)
        else:
            self._rewind()
            self._dispatch(b"", self._has_whole_request())

    def _wait_after(self, failure: UpstreamFailed, now: float, *, unsent: bool) -> float | None:
        """Seconds until another attempt after a failed one; None for none."""
        service = self.service
        if service is None or now >= self.expires_at or self._is_answered():
            return None
        if self._is_stale(failure):
            return 0.0
        kind = failure.kind
        if kind in _QUEUE_KINDS or kind == "no_instance":
            return None
        if unsent and (self.waits_since or self._can_repeat()):
            # Nothing reached the instance, so any method may go elsewhere. What is held of the
            # body has not been sent either, unless an instance had taken it and then refused.
            line = self.line
            if kind == "closed" and line is not None and service.line_of.get(line.name) is not line:
                # It was our line that closed, because its instance has gone or is reached in
                # another way now. That was no try, however often it happens.
                self.attempts -= 1
                self.sent_before += 1
                return 0.0
            self._exclude_member()
            # One that has gone meanwhile does not stand among the instances any more.
            went = sum(member.index < 0 for member in self.tried)
            if self.attempts < min(service.size + went, ELSEWHERE_MAX):
                return 0.0
        rules = self.traffic.retries
        if rules is None or kind not in rules.errors:
            return None
        wait_s = self._wait_for_another(None, now)
        return None if wait_s is None else max(wait_s, 1e-6)

    # -- attempts beside the first: see `race` --------------------------------------------------

    def _plan_hedge(self, service: ServiceRuntime, now: float) -> None:
        """The first attempt is under way: ask a second instance if it takes long."""

    def _promote_hedge(self) -> bool:
        """The attempt is over: go on with one that is under way beside it, if there is one."""
        return False

    def _call_off_hedges(self) -> None:
        """The question is answered."""

    # -- answers of our own --------------------------------------------------------------------

    def refuse(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        self.error = self.error or reason
        headers: tuple[Header, ...] = ()
        if retry_after_s is not None:
            headers = ((b"retry-after", b"%d" % max(1, -int(-retry_after_s // 1))),)
        self.answer(problem.render(self, status, reason, headers=headers))

    def fail(self, failure: UpstreamFailed) -> None:
        self.error = failure.log_word
        if not self.fall_back(_FALLBACK_FOR.get(failure.kind, "failed")):
            super().fail(failure)

    def fall_back(self, why: str, *, is_early: bool = False, is_uncounted: bool = False) -> bool:
        """Answer by the route's fallback, if it has one for this; whether it has."""
        return False

    # -- what the policies add to messages -----------------------------------------------------

    def stamp(self, name: bytes, value: bytes) -> None:
        """Tell the service something of this one request."""
        self.stamped += b"%b: %b\r\n" % (name, value)

    def add_line(self, line: bytes) -> None:
        """Add a header line to the response."""
        self.extra += line

    def request_block(self) -> bytes:
        block = Exchange.request_block(self)
        traffic, prep = self.traffic, self.prep
        if prep.attempt_above is not None:
            # Whoever retries is above; those below must hear of it from us.
            block = b"%b%b: %b\r\n" % (block, ATTEMPT, prep.attempt_above)
        elif traffic.retries is not None:
            block += traffic.attempt_lines[self.attempts]
        if self.expires_at != inf and traffic.tells_deadline:
            left_s = max(self.expires_at - monotonic(), 0.0)
            block = b"%b%b: %b\r\n" % (block, DEADLINE, format_deadline(left_s))
        return block + self.stamped if self.stamped else block

    def response_block(self) -> bytes:
        block = Exchange.response_block(self) + self.extra
        service = self.service
        if service is not None and service.affinity is not None:
            block += service.affinity.line(self)
        return block

    # -- endings -------------------------------------------------------------------------------

    def _finish(self, now: float = 0.0) -> None:
        now = now or monotonic()
        if not self._is_judged:
            self._settle(None, now)
        if self._hedges:
            self._call_off_hedges()
        timer = self._timer
        if timer is not None:
            self._timer = None
            timer.cancel()
        if self.member is not None:
            self._leave_member(now, failed=self.error is not None and self.status >= 500)
        self._give_back(now)
        Exchange._finish(self, now)  # noqa: SLF001 - of its own base

    def _give_back(self, now: float) -> None:
        """Give back what was taken for the exchange as a whole."""


def _without(head: ResponseHead, hidden: frozenset[bytes]) -> ResponseHead:
    """The head without fields that are for the gateway alone; made once for equal heads."""
    if not any(name in hidden for name, _ in head.headers):
        return head
    variants = head.variants
    if variants is None:
        variants = head.variants = {}
    known = variants.get(hidden)
    if known is None:
        fields = tuple(field for field in head.headers if field[0] not in hidden)
        known = ResponseHead(
            head.status, fields, reason=head.reason, length=head.length, upgrade=head.upgrade
        )
        variants[hidden] = known
    return known
