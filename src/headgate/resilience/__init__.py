"""The policies of the gateway for a service's own calls, plain and async.

    from headgate.resilience import breaker, retry

    users = breaker("users", failure_rate="50%", window=20)

    @retry(attempts=3)
    @users
    async def fetch(user_id): ...

Names, defaults and units are those of the gateway's file; so are the rules, in `headgate.policy`.
Every primitive decorates functions; most can be entered by `with` or used as plain objects too.
What keeps a state has a `snapshot()`; `on_event` is called for what is out of the ordinary.
"""

from __future__ import annotations

from headgate.resilience.attempts import Attempt, Attempts
from headgate.resilience.batcher import (
    Batcher,
    BatcherClosed,
    BatcherFull,
    BatchFailed,
    BatchRules,
    batched,
)
from headgate.resilience.breaker import BREAKERS, CircuitBreaker, Registry, breaker
from headgate.resilience.budget import Budget
from headgate.resilience.bulkhead import Bulkhead, bulkhead
from headgate.resilience.compose import Policies, policies
from headgate.resilience.deadline import Deadline, DeadlineMiddleware, WsgiDeadline, deadline
from headgate.resilience.errors import (
    BreakerOpen,
    BulkheadFull,
    CallTimedOut,
    DeadlineExceeded,
    RateLimited,
    Refused,
    TimedOut,
)
from headgate.resilience.fallback import Fallback, fallback
from headgate.resilience.hedge import Hedge, hedge
from headgate.resilience.hop import check, hop_headers, remaining
from headgate.resilience.limit import Limit, limit
from headgate.resilience.pool import (
    Lease,
    Pool,
    PoolClosed,
    PoolFull,
    PoolOpenFailed,
    PoolRules,
    PoolTimedOut,
)
from headgate.resilience.retry import Retry, RetrySnapshot, retry, retrying
from headgate.resilience.settings import Event
from headgate.resilience.shared import Shared
from headgate.resilience.timeout import Timeout, timeout

__all__ = [
    "BREAKERS",
    "Attempt",
    "Attempts",
    "BatchFailed",
    "BatchRules",
    "Batcher",
    "BatcherClosed",
    "BatcherFull",
    "BreakerOpen",
    "Budget",
    "Bulkhead",
    "BulkheadFull",
    "CallTimedOut",
    "CircuitBreaker",
    "Deadline",
    "DeadlineExceeded",
    "DeadlineMiddleware",
    "Event",
    "Fallback",
    "Hedge",
    "Lease",
    "Limit",
    "Policies",
    "Pool",
    "PoolClosed",
    "PoolFull",
    "PoolOpenFailed",
    "PoolRules",
    "PoolTimedOut",
    "RateLimited",
    "Refused",
    "Registry",
    "Retry",
    "RetrySnapshot",
    "Shared",
    "TimedOut",
    "Timeout",
    "WsgiDeadline",
    "batched",
    "breaker",
    "bulkhead",
    "check",
    "deadline",
    "fallback",
    "hedge",
    "hop_headers",
    "limit",
    "policies",
    "remaining",
    "retry",
    "retrying",
    "timeout",
]
