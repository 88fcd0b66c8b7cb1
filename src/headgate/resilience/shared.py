"""One quota ledger for services, and for the gateway: `Shared`.

    home = Shared("redis://localhost")

    @limit("100/min", by="user", key="{user_id}", home=home, rule="orders")
    async def order(user_id): ...

    async with home:                     # once, around all that the service does
        await serve()

Theory of operation. The ledger stands in Redis, where the gateways have theirs (`state:` of their
file). A process leases some hits at a time (`headgate.policy.limiter.lease` has the theory and the
bounds), so most are answered at once. One task (`shared_talk.py`) asks for all limits of a
`Shared`, leases ahead, and gives back at the end what was not spent.

Within a process a rule has one lease, however many limits name it; these must agree on what it is.

`start` makes the running event loop the one that talks. Hits may come from other threads and loops
too: they hand their question over and wait for the answer, bounded. `start_thread` gives the ledger
a thread and a loop of its own, for programs that have none.

States: new -> started -> closed, and started again if need be. Hits that must ask and find it not
started raise RuntimeError: a service that forgets to start would otherwise never count together. A
process that was forked starts its own: what was started before the fork belongs to the parent.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from headgate.resilience.settings import Clock, Duration, seconds

if TYPE_CHECKING:
    from headgate.policy.limiter.lease import Back, LeaseRules
    from headgate.policy.limiter.rules import LimitRules
    from headgate.resilience.shared_talk import LeasedRule, Saying, Talk
    from headgate.state.home import LimitHome, SharedSnapshot

__all__ = ["Shared"]

RULES_MAX: Final = 10_000
_PREFIX: Final = "headgate"
_DEADLINE_S: Final = 0.05
_START_S: Final = 10.0


class Shared:
    """Where limits are kept that several processes share. Start it once in each process."""

    def __init__(
        self,
        place: str | LimitHome,
        *,
        deadline: Duration = _DEADLINE_S,
        prefix: str = _PREFIX,
        expect: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        """`place` is a URL as in the gateway's `state:`, or a home that somebody else starts.

        `deadline` is how long Redis may take to answer before it counts as away. `expect` is how
        many processes there are, the gateway's workers included: what each allows by itself where
        Redis has not been there yet to say so.
        """
        deadline_s = seconds("deadline", deadline)
        if not deadline_s:
            raise ValueError("deadline=0: nothing answers in no time; 50ms is the default")
        self.deadline_s = deadline_s
        self.lock = threading.Lock()
        """Of all leases: one, because what is said of several must be in one order."""
        self.clock = clock
        self._rules: dict[str, LeasedRule] = {}
        self._talk: Talk | None = None
        self._task: asyncio.Task[None] | None = None
        self._pid = 0
        self._is_starting = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._prefix = prefix
        self._expect = expect
        self._home: LimitHome | None = None
        self._url = ""
        if isinstance(place, str):
            from headgate.state.redis_place import place_of

            self.place = place_of(place, deadline_s).text  # what is wrong with it is said here
            self._url = place
        else:
            self.place = type(place).__name__
            self._home = place

    @classmethod
    def memory(cls, *, clock: Clock = time.monotonic) -> Shared:
        """A ledger in this process alone, for tests and for a service that runs once."""
        from headgate.state.memory import MemoryShared

        return cls(MemoryShared(clock), clock=clock)

    def __repr__(self) -> str:
        return f"<Shared {self.place}, {'started' if self._is_here else 'not started'}>"

    # ---- life, in the loop of the service

    async def start(self) -> None:
        """Connect. A Redis that is not there is no error: limits do what `when_away` says."""
        from headgate.resilience.shared_talk import Talk

        if self._is_here or self._is_starting:
            raise RuntimeError(f"{self!r} is started already; start it once in each process")
        if self._pid and self._pid != os.getpid():
            # What was leased before the fork is the parent's to spend.
            for rule in self._rules.values():
                rule.leased.expired(inf, 2 * len(rule.leased) + 1)
        self._is_starting = True
        try:
            home, close = await self._open()
        finally:
            self._is_starting = False

        def rules() -> tuple[LeasedRule, ...]:
            return tuple(self._rules.values())

        talk = Talk(home, rules, self.lock, self.clock, self._expect)
        self._talk, self._home, self._pid = talk, home, os.getpid()
        talk.turn()  # before the first hit: how many share it, and whether it is there
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(talk.live(close), name="shared limits")

    async def close(self) -> None:
        """Give back what is leased and not spent, and part. A second call does nothing."""
        talk, task = self._talk, self._task
        if talk is None or task is None or self._pid != os.getpid():
            return
        if not task.done():
            if task.get_loop() is not asyncio.get_running_loop():
                raise RuntimeError(f"{self!r} runs in another event loop: close it there")
            talk.finish()
            # The task ends by itself, also when who closes is cancelled.
            await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # ---- life, in a thread of its own

    def start_thread(self) -> None:
        """For programs without an event loop: talk to the ledger in a thread."""
        if self._is_here:
            raise RuntimeError(f"{self!r} is started already; start it once in each process")
        loop = asyncio.new_event_loop()
        # A daemon, for a program that forgets to stop it must still end.
        thread = threading.Thread(target=loop.run_forever, name="shared limits", daemon=True)
        thread.start()
        self._thread, self._loop = thread, loop
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result(_START_S)
        except BaseException:
            self.stop_thread()
            raise

    def stop_thread(self) -> None:
        """Give back what is leased and not spent, and end the thread."""
        thread, loop = self._thread, self._loop
        self._thread = self._loop = None
        if thread is None or loop is None or not thread.is_alive():  # as in a forked process
            return
        try:
            asyncio.run_coroutine_threadsafe(self.close(), loop).result(_START_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_START_S)
            loop.close()

    def __enter__(self) -> Self:
        self.start_thread()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_thread()

    # ---- for those who ask

    @property
    def is_started(self) -> bool:
        return self._is_here

    @property
    def is_away(self) -> bool:
        """The ledger does not answer, or this is not started: each decides as it was told."""
        return not self._is_here or self._home is None or self._home.is_away

    @property
    def holders(self) -> int:
        """How many processes share the ledger, this one and the gateway's workers included."""
        return self._expect if self._talk is None else self._talk.holders

    def snapshot(self) -> SharedSnapshot | None:
        """How the ledger is, seen from here; None before it was started."""
        told = getattr(self._home, "snapshot", None)
        return None if told is None else told(self.clock())

    # ---- for the limits

    def leased(self, rule: str, rules: LimitRules, lease: LeaseRules) -> LeasedRule:
        """The lease of this rule, made when it is first named."""
        from headgate.resilience.shared_talk import LeasedRule

        with self.lock:
            known = self._rules.get(rule)
            if known is None:
                if len(self._rules) >= RULES_MAX:
                    raise ValueError(
                        f"rule={rule}: {self.place} has {RULES_MAX} rules already; make a limit "
                        "once and tell calls apart by key"
                    )
                known = LeasedRule(rule, rules, lease)
                known.leased.holders = self.holders
                self._rules[rule] = known
            elif known.rules != rules or known.lease != lease:
                raise ValueError(
                    f"rule={rule} is limited otherwise in this process already: {known.rules}, "
                    f"{known.lease}; give the same settings, or another rule"
                )
            return known

    def say(self, saying: Saying, backs: list[tuple[str, Back]]) -> bool:
        """With the lock held: bring this to the ledger. False: decide without."""
        talk = self._talk
        if talk is None or talk.is_over or self._pid != os.getpid():
            raise RuntimeError(
                f"{self!r}: write `async with home:` (or `with home:`, without an event loop) "
                "around what the service does, in each process"
            )
        return talk.say(saying, backs)

    def give_back(self, backs: list[tuple[str, Back]]) -> None:
        """With the lock held: what was just granted, before anything else is said.

        Else a limit of seats that has said since what it holds would lose them twice.
        """
        if self._talk is not None and not self._talk.is_over:
            self._talk.outbox.appendleft(backs)

    @property
    def _is_here(self) -> bool:
        talk = self._talk
        return talk is not None and not talk.is_over and self._pid == os.getpid()

    async def _open(self) -> tuple[LimitHome, Callable[[], Awaitable[None]]]:
        """The home, and how it is closed."""
        if self._home is not None and not self._url:
            return self._home, _leave_it
        from headgate.state.redis import RedisShared

        home = RedisShared(
            self._url, deadline_s=self.deadline_s, prefix=self._prefix, clock=self.clock
        )
        try:
            await home.start()
        except BaseException:
            await home.close()
            raise
        return home, home.close


async def _leave_it() -> None:
    """A home that was given is closed by who gave it."""
