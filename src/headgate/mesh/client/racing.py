"""A call that may ask a second instance beside the first, when the first is slow.

Theory of operation. Whichever answers well first counts, and the others are called off; one that
fails leaves it to those still under way. Each further attempt costs the retry budget what a retry
costs. Only here does a call have tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from headgate.errors import UpstreamFailed
from headgate.mesh.client.attempt import Attempt, Call
from headgate.policy.answers import Rejected

if TYPE_CHECKING:
    from headgate.mesh.client.calling import Caller
    from headgate.mesh.http import Response

__all__ = ["may_race", "race"]


def may_race(call: Call, size: int) -> bool:
    return call.attempts == 1 and size > 1 and not call.is_stream and isinstance(call.body, bytes)


async def race(caller: Caller, call: Call, first: Attempt) -> tuple[Attempt, Response]:
    """Send the first attempt, and others beside it when it takes long."""
    hedge = caller.plan.hedge
    delay = caller.serving.hedge_delays.get(hedge.rules) if hedge is not None else None
    after_s = delay.delay_s(first.began) if delay is not None else None
    if hedge is None or after_s is None:
        return first, await caller.send(call, first)
    loop = asyncio.get_running_loop()
    running: dict[asyncio.Task[Response], Attempt] = {
        loop.create_task(caller.send(call, first), name="headgate-attempt"): first
    }
    most = hedge.rules.most
    failure: UpstreamFailed | None = None
    poor: tuple[Attempt, Response] | None = None
    try:
        while running:
            may_more = call.sides < most and failure is None and poor is None
            done, _ = await asyncio.wait(
                running,
                timeout=after_s if may_more else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                side = _begin_side(caller, call, running.values(), monotonic())
                if side is None:
                    most = call.sides  # nobody to ask, or no budget: it will not be better soon
                    continue
                task = loop.create_task(caller.send(call, side), name="headgate-hedge")
                running[task] = side
                continue
            for task in done:
                attempt = running.pop(task)
                try:
                    raw = task.result()
                except UpstreamFailed as error:
                    failure = error
                    continue
                if caller.is_failure(raw.status) and (running or poor is not None):
                    poor = poor or (attempt, raw)  # who is asked beside it may do better
                    continue
                _call_off(caller, running.values())
                return attempt, raw
        if poor is not None:
            return poor
        if failure is not None:
            raise failure
        raise RuntimeError("an attempt has neither answered nor failed")
    finally:
        for task, attempt in running.items():
            task.cancel()
            task.add_done_callback(partial(_left, caller, attempt))


def _left(caller: Caller, attempt: Attempt, task: asyncio.Task[Response]) -> None:
    """What was called off has ended, in whichever way; nobody waits for it any more."""
    if task.cancelled():
        caller.settle(attempt, None, monotonic())  # if it was cancelled before it began
    elif task.exception() is None:
        task.result().abort()


def _begin_side(
    caller: Caller, call: Call, others: Collection[Attempt], now: float
) -> Attempt | None:
    """A second attempt, if there is budget for it and somebody to ask."""
    budget = caller.budget
    if budget is not None and not budget.try_take(now):
        return None
    tried = tuple(other.member for other in others if other.member is not None)
    attempt = Attempt(call.key, (*call.tried, *tried), now)
    member = caller.serving.pick(attempt, now)
    if member is None or isinstance(member, Rejected) or member in attempt.tried:
        caller.settle(attempt, None, now)
        if budget is not None:
            budget.put_back(now)
        return None
    attempt.member = member
    caller.serving.group.started(member)
    call.sides += 1
    caller.edge.hedges += 1
    return attempt


def _call_off(caller: Caller, others: Collection[Attempt]) -> None:
    now = monotonic()
    for attempt in others:
        # It would have taken longer still; left out, the slow ones would be missing.
        caller.serving.took(now - attempt.began, now)
