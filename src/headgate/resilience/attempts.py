"""Trying again in a loop, for what is no function of its own: see `retrying`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from headgate.resilience.hop import ATTEMPT
from headgate.resilience.tries import Failed, Policy, Tries, TryTimedOut, refuse_per_try

__all__ = ["Attempt", "Attempts"]


class Attempts:
    """`for attempt in ...: with attempt: ...`, plain or async; ends after the first success."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._tries: Tries | None = None
        self._wait_s: float | None = None
        self._over = False

    def __iter__(self) -> Iterator[Attempt]:
        return self

    def __aiter__(self) -> Attempts:
        return self

    def __next__(self) -> Attempt:
        if self._over:
            raise StopIteration
        if self._wait_s is not None:
            self.policy.sleep(self._wait_s)
        return self._attempt()

    async def __anext__(self) -> Attempt:
        if self._over:
            raise StopAsyncIteration
        if self._wait_s is not None:
            await self.policy.sleep_async(self._wait_s)
        return self._attempt()

    def _attempt(self) -> Attempt:
        # A body that leaves the loop without entering its attempt has ended it as well.
        self._over = True
        if self._tries is None and self.policy.budget is not None:
            self.policy.budget.count()
        return Attempt(self, 1 if self._tries is None else self._tries.made)

    def ended(self, error: BaseException | None) -> bool:
        """Whether there is another try."""
        if not isinstance(error, Exception):
            return False
        if self._tries is None:
            self._tries = Tries(self.policy)
        self._wait_s = self._tries.next_wait(Failed(error))
        self._over = self._wait_s is None
        return not self._over


class Attempt:
    """One try. An exception inside it is held back if there is another."""

    def __init__(self, attempts: Attempts, number: int) -> None:
        self._attempts = attempts
        self._before: tuple[int, int] | None = None
        self._timer: asyncio.Timeout | None = None
        self.number = number

    @property
    def of(self) -> int:
        return self._attempts.policy.rules.attempts

    def __enter__(self) -> Self:
        refuse_per_try(self._attempts.policy.rules, "block; use async with")
        return self._enter()

    def _enter(self) -> Self:
        self._before = ATTEMPT.get()
        ATTEMPT.set((self.number, self.of))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        ATTEMPT.set(self._before)
        return self._attempts.ended(error)

    async def __aenter__(self) -> Self:
        per_try_s = self._attempts.policy.rules.per_try_s
        if per_try_s is not None:
            self._timer = asyncio.timeout(per_try_s)
            await self._timer.__aenter__()
        return self._enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        ATTEMPT.set(self._before)
        late: TryTimedOut | None = None
        if self._timer is not None:
            try:
                await self._timer.__aexit__(kind, error, trace)
            except TimeoutError as over:
                policy = self._attempts.policy
                late = TryTimedOut(policy.name, policy.rules.per_try_s or 0.0)
                late.__cause__ = over
        if late is None:
            return self._attempts.ended(error)
        if self._attempts.ended(late):
            return True
        raise late
