"""A call from its first attempt to its answer, by the policies of its service.

Theory of operation
-------------------
    call -> attempt -> answer -> the caller has it
              |          | worth another try: wait, attempt again
              | failed: attempt again, at another instance, or let the caller know
              | slow, and hedged: a second attempt beside it; whichever answers first counts

An *attempt* is one try at one instance. It takes a breaker's permit and a place in the balancer's
counts in `_begin` and gives both back exactly once, in `settle`, however it ends: an answer, a
failure, a cancellation. Of a stream the place is given back when the stream ends.

The rules are the gateway's (`gateway.attempts` says the same of requests that pass through):
what an instance cannot have seen may always go to another; the rest is tried again only as the
policy says, within its budget and the caller's time, and never when a layer around this call
retries itself. The call obeys what surrounds it: the deadline and the attempt of the request that
is being served (`resilience.hop`), and tells both to whom it asks. When there was no budget for a
retry, here or below, the layer above is told (`x-headgate-no-retry`).

What an editor must not break: this is paid for each call. No task and no timer of the loop while
all goes well, except for a hedge; the wire keeps the deadline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.mesh.client.attempt import Attempt, Call
from headgate.mesh.client.racing import may_race, race
from headgate.mesh.client.response import Response, made_up
from headgate.mesh.client.sending import Line
from headgate.mesh.client.spans import answered, begun
from headgate.mesh.http import Timeouts
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import CURRENT, Span
from headgate.plan.members import NO_MEMBERS, Members, joined
from headgate.policy.answers import Rejected
from headgate.policy.budget import RetryBudget
from headgate.policy.hops import ATTEMPT as ATTEMPT_FIELD
from headgate.policy.hops import DEADLINE as DEADLINE_FIELD
from headgate.policy.hops import NO_RETRY, format_attempt, format_deadline
from headgate.policy.retry import parse_retry_after, wait_before
from headgate.policy.serving import Serving
from headgate.resilience.errors import BreakerOpen, CallTimedOut, DeadlineExceeded
from headgate.resilience.hop import ATTEMPT, HOP, UNTIL
from headgate.wire.connect import Endpoint, Tls
from headgate.wire.message import find

if TYPE_CHECKING:
    from headgate.mesh.client.edges import Edge
    from headgate.mesh.client.sending import Sender
    from headgate.mesh.http import Response as WireResponse
    from headgate.plan.calls import CallPlan
    from headgate.wire.instance_url import InstanceUrl
    from headgate.wire.message import Header

__all__ = ["Caller"]

ELSEWHERE_MAX: Final = 3
"""Instances to try for a request that reached none of them, without any retry policy."""
_UNSENT: Final = frozenset({"connect", "dns", "tls", "no_instance"})
_QUEUE_KINDS: Final = frozenset({"queue_full", "queue_timeout"})
_FALLBACK_FOR: Final = {"timeout": "timeout", "queue_full": "full", "queue_timeout": "full"}
_TOLD_NOT_TO: Final = (ATTEMPT_FIELD, b"1/2")
"""Somebody above retries: those below are not to, either."""

Reach = Callable[["CallPlan", "InstanceUrl"], "tuple[Tls | None, tuple[Header, ...]]"]
"""How an instance is reached: by which TLS, and with what every request says of us."""


class Caller:
    """One service, as this process calls it. What it knows outlives plans and instances."""

    def __init__(
        self,
        plan: CallPlan,
        sender: Sender,
        edge: Edge,
        *,
        rng: random.Random,
        reach: Reach,
        fall_back: Callable[[str, Call], Awaitable[Response]] | None = None,
    ) -> None:
        now = monotonic()
        self.plan = plan
        self.edge = edge
        self.serving = Serving(plan, now, rng)
        self._sender = sender
        self._rng = rng
        self._reach = reach
        self.hint = ""
        """What to say besides where there is no instance."""
        self._other = fall_back
        self.budget: RetryBudget | None = None
        self._lines: dict[str, Line] = {}
        self.take(plan)

    def take(self, plan: CallPlan, found: Members = NO_MEMBERS) -> None:
        """Another plan, or other instances; what stays keeps what is known of it."""
        now = monotonic()
        before = self.plan
        plan = joined(plan, found)
        self.plan = plan
        self.serving.take(plan, now)
        same_way = before.tls == plan.tls and before.host == plan.host
        lines: dict[str, Line] = {}
        for each in plan.instances:
            line = self._lines.get(each.url) if same_way else None
            lines[each.url] = (
                line if line is not None else self._line(plan, each.url, each.endpoint)
            )
        self._lines = lines
        self.size = len(lines)
        hedge = plan.hedge
        self._hedged: frozenset[str] = hedge.methods if hedge is not None else frozenset()
        self.serving.take_hedging([hedge.rules] if hedge is not None else [], now)
        listens = plan.outlier is not None or hedge is not None
        self._note = self.serving.note if listens else None
        breaker = plan.breaker
        self._failures = breaker.statuses if breaker is not None else _SERVER_ERRORS
        self._errors = breaker.errors if breaker is not None else None
        if plan.budget is None:
            self.budget = None
        elif self.budget is None:
            self.budget = RetryBudget(plan.budget, now)
        else:
            self.budget.take_rules(plan.budget, now)
        retry = plan.retry
        self._retry = retry
        self._elsewhere = retry is None or retry.other_instance
        self._attempt_fields: tuple[Header, ...] = ()
        if retry is not None:
            self._attempt_fields = tuple(
                (ATTEMPT_FIELD, format_attempt(number, retry.attempts))
                for number in range(retry.attempts + 1)
            )
        self._methods = retry.methods if retry is not None else frozenset[str]()
        self._statuses = retry.statuses if retry is not None else frozenset[int]()
        self._per_try_s = inf
        if retry is not None and retry.per_try_s is not None:
            self._per_try_s = retry.per_try_s
        elif plan.timeouts.per_try_s is not None:
            self._per_try_s = plan.timeouts.per_try_s
        self.timeouts = Timeouts(
            plan.timeouts.connect_s, plan.timeouts.first_byte_s, plan.pool.queue_timeout_s
        )

    def _line(self, plan: CallPlan, url: str, found: InstanceUrl) -> Line:
        tls, fields = self._reach(plan, found)
        if plan.host != "instance":
            fields = (*fields, (b"host", plan.host.encode("latin-1")))
        return Line(url, Endpoint(found.host, found.port, found.path), tls, fields)

    # -- one call ------------------------------------------------------------------------------

    async def call(self, call: Call) -> Response:
        """The answer, whatever its status; raises UpstreamFailed, Refused or TimedOut."""
        now = call.started = monotonic()
        self._set_out(call, now)
        edge = self.edge
        failed = True
        try:
            response = await self._try(call, now)
            failed = response.status_code >= 500
        except asyncio.CancelledError:
            failed = False  # the caller has left, which says nothing of the service
            raise
        finally:
            edge.ended(monotonic() - call.started, failed=failed)
        return response

    async def call_instead(self, call: Call) -> Response:
        """Ask this service in place of another, which has failed; in the time that is left."""
        other = Call(call.method, call.target, call.fields, call.body, call.repeatable)
        other.key = call.key
        other.is_stream = call.is_stream
        other.timeouts = call.timeouts
        other.is_diverted = True
        if call.expires_at != inf:
            other.timeout_s = max(call.expires_at - monotonic(), 0.0)
        return await self.call(other)

    def _set_out(self, call: Call, now: float) -> None:
        """What is settled before the first attempt and holds for all of them."""
        total_s = call.timeout_s if call.timeout_s is not None else self.plan.timeouts.total_s
        if total_s is not None:
            call.expires_at = now + total_s
        until = UNTIL.get()
        if until is not None:
            ends_at = until.at if until.clock is monotonic else now + until.left_s
            if ends_at < call.expires_at:
                call.expires_at = ends_at
                call.is_theirs = True
        hop = HOP.get()
        if hop is not None:
            call.hop = hop
        above = ATTEMPT.get()
        if above is not None and above[1] > 1:
            call.may_retry = False
            call.above = (ATTEMPT_FIELD, format_attempt(*above))
        elif hop is not None and not hop.may_retry:
            call.may_retry = False
            call.above = _TOLD_NOT_TO
        if call.repeatable is None:
            call.repeatable = call.method in self._methods
        if self.budget is not None:
            self.budget.count(now)

    async def _try(self, call: Call, now: float) -> Response:
        plan = self.plan
        while True:
            call.attempts += 1
            attempt: Attempt | None = None
            try:
                if now >= call.expires_at:
                    raise self._late(call)
                attempt = self._begin(call, now)
                if self._hedged and call.method in self._hedged and may_race(call, self.size):
                    attempt, raw = await race(self, call, attempt)
                else:
                    raw = await self.send(call, attempt)
            except UpstreamFailed as failure:
                now = monotonic()
                wait_s = self._wait_after(call, failure, now)
                if wait_s is None:
                    why = _FALLBACK_FOR.get(failure.kind, "failed")
                    if self._falls_back(call, why):
                        return await self._fall_back(call, now)
                    if failure.kind == "timeout" and now >= call.expires_at - _EARLY_S:
                        raise self._late(call) from failure
                    raise
            except BreakerOpen:
                if self._falls_back(call, "open"):
                    return await self._fall_back(call, monotonic())
                raise
            else:
                now = monotonic()
                retry = self._retry
                member = attempt.member
                if (
                    retry is None
                    or (raw.status not in self._statuses and not retry.headers)
                    or not retry.retries_response(raw.status, raw.raw_headers)
                    or (wait_s := self._wait_for_another(call, raw, now)) is None
                ):
                    fallback = plan.fallback
                    if (
                        fallback is not None
                        and raw.status in fallback.statuses
                        and not call.is_diverted
                    ):
                        self._drop(attempt, raw)
                        return await self._fall_back(call, now)
                    return Response(
                        raw,
                        plan.name,
                        member.id if member is not None else "",
                        call.attempts,
                        now - call.started,
                        self._ender(attempt) if call.is_stream else None,
                    )
                self._drop(attempt, raw)
            if attempt is not None and attempt.member is not None and self._elsewhere:
                call.tried = (*call.tried, attempt.member)
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
                now = monotonic()
            self.edge.retries += 1

    # -- one attempt ---------------------------------------------------------------------------

    def _begin(self, call: Call, now: float) -> Attempt:
        """Choose an instance. What is taken is given back by `settle`."""
        attempt = Attempt(call.key, call.tried, now)
        serving = self.serving
        member = serving.pick(attempt, now)
        if member is None:
            self.settle(attempt, None, now)
            raise UpstreamFailed("no_instance", f"{self.plan.name}: {self._why_none()}")
        if isinstance(member, Rejected):
            self.settle(attempt, None, now)
            raise BreakerOpen(self.plan.name, f"breaker {member.reason}", member.retry_after_s)
        attempt.member = member
        serving.group.started(member)
        return attempt

    async def send(self, call: Call, attempt: Attempt) -> WireResponse:
        member = attempt.member
        line = self._lines.get(member.id) if member is not None else None
        if line is None:
            # It has gone since it was chosen: a hedge begins a turn of the loop later.
            self.settle(attempt, None, monotonic())
            raise UpstreamFailed("closed", f"{self.plan.name}: the instance has gone")
        began = attempt.began
        fields = [*call.fields, *line.fields]
        if call.above is not None:
            fields.append(call.above)
        elif self._retry is not None and call.repeatable:
            fields.append(self._attempt_fields[min(call.attempts, self._retry.attempts)])
        expires_at = call.expires_at
        if expires_at != inf and self.plan.timeouts.deadline:
            fields.append((DEADLINE_FIELD, format_deadline(expires_at - began)))
        if self._per_try_s != inf:
            expires_at = min(expires_at, began + self._per_try_s)
        span: Span | None = None
        if trace.is_on or CURRENT.get() is not None:
            span = begun(self.plan.name, call, line, fields)
        try:
            raw = await self._sender.send(
                line.endpoint,
                line.tls,
                call.method,
                call.target,
                fields,
                call.body,
                None if expires_at == inf else expires_at,
                stream=call.is_stream,
                timeouts=call.timeouts or self.timeouts,
            )
        except UpstreamFailed as failure:
            now = monotonic()
            kind = failure.kind
            says_nothing = (
                kind in _QUEUE_KINDS
                or (call.is_theirs and now >= call.expires_at - _EARLY_S)
                or (self._errors is not None and kind not in self._errors)
            )
            self.settle(attempt, None if says_nothing else True, now, kind)
            if span is not None:
                span.error(kind)
                span.end()
            raise
        except BaseException:
            # The caller has left, or what it sends has failed: the instance is not to blame.
            self.settle(attempt, None, monotonic())
            if span is not None:
                span.end()
            raise
        now = monotonic()
        status = raw.status
        failed = status in self._failures
        self.settle(
            attempt, failed, now, f"status {status}" if failed else "", stays=call.is_stream
        )
        if span is not None:
            answered(span, status)
        return raw

    def settle(
        self,
        attempt: Attempt,
        failed: bool | None,
        now: float,
        kind: str = "",
        *,
        stays: bool = False,
    ) -> None:
        """The attempt has shown what it is worth; None: it decided nothing. `stays`: its stream
        goes on, so that its place is given back later.
        """
        took_s = now - attempt.began
        breaker, permit = attempt.breaker, attempt.permit
        if breaker is not None and permit is not None:
            attempt.breaker = None
            if failed is None:
                breaker.abandon(permit, now)
            elif failed:
                breaker.fail(permit, now, took_s)
            else:
                breaker.succeed(permit, now, took_s)
        member = attempt.member
        if member is None:
            return
        if failed is not None and self._note is not None:
            self._note(member, failed, took_s, now, kind)
        if not stays and attempt.is_open:
            attempt.is_open = False
            self.serving.group.finished(member, took_s, bool(failed), now)

    def _ender(self, attempt: Attempt) -> Callable[[], None]:
        def end() -> None:
            self._leave(attempt)

        return end

    def _leave(self, attempt: Attempt) -> None:
        member = attempt.member
        if attempt.is_open and member is not None:
            attempt.is_open = False
            now = monotonic()
            self.serving.group.finished(member, now - attempt.began, False, now)

    def _drop(self, attempt: Attempt, raw: WireResponse) -> None:
        """An answer that nobody will see."""
        raw.abort()
        self._leave(attempt)

    # -- another one? --------------------------------------------------------------------------

    def _wait_after(self, call: Call, failure: UpstreamFailed, now: float) -> float | None:
        """Seconds until another attempt after a failed one; None for none."""
        kind = failure.kind
        if now >= call.expires_at or kind in _QUEUE_KINDS or kind == "no_instance":
            return None
        is_at_hand = isinstance(call.body, bytes)
        if (
            kind in _UNSENT
            and (is_at_hand or not getattr(call.body, "is_begun", True))
            and call.attempts < min(self.size, ELSEWHERE_MAX)
        ):
            # Nothing has reached the instance, so that any method may go elsewhere.
            return 0.0
        retry = self._retry
        if retry is None or kind not in retry.errors:
            return None
        return self._wait_for_another(call, None, now)

    def _wait_for_another(self, call: Call, raw: WireResponse | None, now: float) -> float | None:
        retry = self._retry
        if retry is None:
            return None
        hop = call.hop
        told_s: float | None = None
        if raw is not None:
            if find(raw.raw_headers, NO_RETRY) is not None:
                # No budget is left below; who is above would only be turned away there as well.
                if hop is not None:
                    hop.budget_spent = True
                return None
            if retry.retry_after:
                said = find(raw.raw_headers, b"retry-after")
                if said is not None:
                    told_s = parse_retry_after(said, time.time())  # noqa: TID251 - HTTP dates
        if (
            call.attempts >= retry.attempts
            or not call.repeatable
            or not call.may_retry
            or not isinstance(call.body, bytes)
        ):
            return None
        wait_s = wait_before(retry, call.attempts, call.waited_s, self._rng, told_s)
        if wait_s is None or now + wait_s >= call.expires_at:
            return None
        if self.budget is not None and not self.budget.try_take(now):
            if hop is not None:
                hop.budget_spent = True
            return None
        call.waited_s = wait_s
        return wait_s

    def _late(self, call: Call) -> DeadlineExceeded | CallTimedOut:
        if call.is_theirs:
            return DeadlineExceeded(max(0.0, monotonic() - call.expires_at))
        return CallTimedOut(self.plan.name, call.expires_at - call.started)

    def _falls_back(self, call: Call, why: str) -> bool:
        """Whether another answer takes the place of this failure."""
        fallback = self.plan.fallback
        if fallback is None or why not in fallback.reasons or call.is_diverted:
            return False
        return fallback.service is None or isinstance(call.body, bytes)

    async def _fall_back(self, call: Call, now: float) -> Response:
        fallback = self.plan.fallback
        if fallback is None:
            raise RuntimeError("there is no fallback")
        if fallback.service is not None and self._other is not None:
            return await self._other(fallback.service, call)
        raw = made_up(fallback.status, fallback.headers, fallback.body, self.plan.name)
        return Response(raw, self.plan.name, "", call.attempts, now - call.started)

    def is_failure(self, status: int) -> bool:
        """Whether an answer counts against who gave it."""
        return status in self._failures

    def _why_none(self) -> str:
        if not self.size:
            return f"no instance is known{self.hint}"
        return "none of its instances may serve: all are out of work, or tried"


_SERVER_ERRORS: Final = frozenset(range(500, 600))
_EARLY_S: Final = 0.003
"""How much before its time a timer may fire: uvloop counts in whole milliseconds."""
