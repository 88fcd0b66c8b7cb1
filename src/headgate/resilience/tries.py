"""The tries of one call from its first failure on: whether there is another, and after how long."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias

from headgate.errors import UpstreamFailed
from headgate.policy.hops import NO_RETRY
from headgate.policy.retry import RetryRules, parse_retry_after, wait_before
from headgate.resilience.budget import Budget
from headgate.resilience.errors import CallTimedOut
from headgate.resilience.hop import HOP, remaining
from headgate.resilience.settings import Event, OnEvent

__all__ = [
    "Failed",
    "Outcome",
    "Policy",
    "Returned",
    "Tries",
    "TryTimedOut",
    "is_transient",
    "refuse_per_try",
]

_NO_RETRY_NAME: Final = NO_RETRY.decode()


class Policy(Protocol):
    """What the tries of a call read of their Retry."""

    name: str
    rules: RetryRules
    budget: Budget | None
    on_event: OnEvent | None
    sleep: Callable[[float], None]
    sleep_async: Callable[[float], Awaitable[None]]
    rng: random.Random
    lock: threading.Lock
    retries_total: int
    gave_up_total: int

    def wants(self, error: BaseException) -> bool: ...


class TryTimedOut(CallTimedOut):
    """By `per_try`, which asks for another try whatever `on` says."""


class Failed:
    """Holds its exception no longer than it must: it stands in the frame that the exception's
    traceback holds.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def end(self) -> object:
        error, self.error = self.error, None
        if error is None:
            raise RuntimeError("an outcome ends once")
        try:
            raise error
        finally:
            del error

    def drop(self) -> None:
        self.error = None


class Returned:
    __slots__ = ("result",)

    error: Final = None

    def __init__(self, result: object) -> None:
        self.result = result

    def end(self) -> object:
        return self.result

    def drop(self) -> None:
        self.result = None


Outcome: TypeAlias = Failed | Returned


class Tries:
    """The tries of one call, from its first failure on."""

    __slots__ = ("_policy", "_previous_s", "made")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._previous_s = 0.0
        self.made = 1

    def next_wait(self, outcome: Outcome) -> float | None:
        """Seconds until the next try; None: there is none."""
        policy = self._policy
        error = outcome.error
        if error is not None and not policy.wants(error):
            return None
        why, wait_s = self._decide(error)
        with policy.lock:
            if why:
                policy.gave_up_total += 1
            else:
                policy.retries_total += 1
        if policy.on_event is not None:
            what = "gave_up" if why else "retried"
            cause = "bad result" if error is None else type(error).__name__
            policy.on_event(Event("retry", policy.name, what, why or cause, wait_s))
        if why:
            return None
        outcome.drop()
        self.made += 1
        self._previous_s = wait_s
        return wait_s

    def _decide(self, error: BaseException | None) -> tuple[str, float]:
        policy = self._policy
        rules = policy.rules
        if self.made >= rules.attempts:
            return "no attempt left", 0.0
        hop = HOP.get()
        if hop is not None and not hop.may_retry:
            return "the layer above retries", 0.0
        headers = _headers_of(error)
        if headers is not None and headers.get(_NO_RETRY_NAME):
            return "a layer below has no budget", 0.0
        wait_s = wait_before(
            rules,
            self.made,
            self._previous_s,
            policy.rng,
            _retry_after_of(error, headers),
        )
        if wait_s is None:
            return "asked to wait for too long", 0.0
        left_s = remaining()
        if left_s is not None and wait_s >= left_s:
            return "the deadline comes sooner", 0.0
        if policy.budget is not None and not policy.budget.try_take():
            if hop is not None:
                hop.budget_spent = True
            return "no budget", 0.0
        return "", wait_s


def is_transient(error: BaseException, rules: RetryRules) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, UpstreamFailed):
        return error.kind in rules.errors
    response = getattr(error, "response", None)
    for holder, name in ((response, "status_code"), (response, "status"), (error, "status")):
        status = getattr(holder, name, None)
        if isinstance(status, int):
            return status in rules.statuses
    return False


def _headers_of(error: BaseException | None) -> Mapping[str, str] | None:
    """Of the response that the exception carries; as httpx, requests and aiohttp have it."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    return headers if hasattr(headers, "get") else None


def _retry_after_of(error: BaseException | None, headers: Mapping[str, str] | None) -> float | None:
    after_s = getattr(error, "retry_after_s", None)
    if isinstance(after_s, (int, float)):
        return float(after_s)
    value = None if headers is None else headers.get("retry-after") or headers.get("Retry-After")
    if not isinstance(value, (str, bytes)):
        return None
    return parse_retry_after(value, time.time())  # noqa: TID251 - an HTTP date is wall time


def refuse_per_try(rules: RetryRules, what: str) -> None:
    if rules.per_try_s is not None:
        raise TypeError(
            f"per_try cannot stop the plain {what}; give remaining() to what blocks in it"
        )
