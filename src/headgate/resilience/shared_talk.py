"""What one process says to the shared ledger, and hears from it: one task, one order.

Theory of operation. A limit's leases, `Talk.outbox` and `Talk.lock` belong together: a lease is
touched with the lock held, and what follows from that is put into the outbox before the lock is
let go. So the ledger hears things in the order in which they were decided, whichever thread they
come from. One task sends them: asks up to the next thing that is given back go in one question,
and while that is on its way the next ones gather.

Every `TICK_S` the same task looks whether the home is away or back, leases ahead of need what runs
low, and gives back what was not used. When told to `finish`, or cancelled, it gives back
everything, says what is owed, closes the home and ends.

Each `Saying` is told its grants exactly once, with the lock held; None where nobody answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from typing import Final, Protocol

from headgate.policy.limiter.lease import Ask, Back, Grant, LeaseRules, leased_of
from headgate.policy.limiter.rules import LimitRules
from headgate.resilience.settings import Clock
from headgate.state.home import HomeAway, LimitAsk, LimitHome

__all__ = ["TICK_S", "LeasedRule", "Saying", "Talk"]

TICK_S: Final = 0.1
MOST_SAID: Final = 10_000
"""Hits that wait for an answer; further ones are decided as if the home were away."""
_KEYS_A_TURN: Final = 1000
_ASKS_AT_ONCE: Final = 512
_FINISHING_ROUNDS: Final = 2  # a lease of seats forgets its peak with the first

log = logging.getLogger("headgate.resilience")


class LeasedRule:
    """One rule of the ledger, as this process has it."""

    __slots__ = ("id", "lease", "leased", "rules")

    def __init__(self, name: str, rules: LimitRules, lease: LeaseRules) -> None:
        self.id = name
        self.rules = rules
        self.lease = lease
        self.leased = leased_of(rules, lease)

    def ask(self, ask: Ask) -> LimitAsk:
        return LimitAsk(self.id, self.rules, ask, self.lease.seat_ttl_s)


class Saying(Protocol):
    """Some asks that are answered together."""

    @property
    def asks(self) -> Sequence[LimitAsk]: ...

    @property
    def is_void(self) -> bool:
        """Nobody waits any more, and it need not be sent."""
        ...

    def told(self, grants: Sequence[Grant] | None, now: float) -> None: ...


class _Wants:
    """What is asked ahead of need, or only told."""

    __slots__ = ("_wants", "asks")

    is_void = False

    def __init__(self, wants: Sequence[tuple[LeasedRule, Ask]], *, is_last: bool = False) -> None:
        self._wants = wants
        # At the end only what is to be told counts.
        self.asks = [rule.ask(ask._replace(want=0) if is_last else ask) for rule, ask in wants]

    def told(self, grants: Sequence[Grant] | None, now: float) -> None:
        for at, (rule, ask) in enumerate(self._wants):
            if grants is None:
                rule.leased.fail(ask, now)
            else:
                rule.leased.take(ask, grants[at], now)


class _Echo:
    """Asks for nothing: its answer says that all that was said before has arrived."""

    __slots__ = ("asks",)

    is_void = False

    def __init__(self, asks: Sequence[LimitAsk]) -> None:
        self.asks = asks

    def told(self, grants: Sequence[Grant] | None, now: float) -> None:
        return


class Talk:
    def __init__(
        self,
        home: LimitHome,
        rules: Callable[[], Iterable[LeasedRule]],
        lock: threading.Lock,
        clock: Clock,
        expect: int,
    ) -> None:
        self.home = home
        self.outbox: deque[Saying | list[tuple[str, Back]]] = deque()
        self._rules = rules
        self._lock = lock
        self._clock = clock
        self._bell = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._expect = expect
        self._is_due = False
        self._is_finishing = False
        self._has_ended = False

    # ---- from any thread

    @property
    def is_over(self) -> bool:
        """It says nothing any more; also if its loop was closed over its head."""
        return self._has_ended or self._loop.is_closed()

    def say(self, saying: Saying, backs: list[tuple[str, Back]]) -> bool:
        """With the lock held; what is given back goes first. False: decide without the home."""
        if self.home.is_away or len(self.outbox) >= MOST_SAID:
            return False
        if backs:
            self.outbox.append(backs)
        self.outbox.append(saying)
        if threading.get_ident() == self._thread:
            self._bell.set()
        else:
            self._loop.call_soon_threadsafe(self._bell.set)
        return True

    def finish(self) -> None:
        self._is_finishing = True
        self._bell.set()

    # ---- the task

    async def live(self, close: Callable[[], Awaitable[None]]) -> None:
        tick = self._loop.call_later(TICK_S, self._on_tick)
        try:
            while not self._is_finishing:
                await self._say_all()
                await self._bell.wait()
                self._bell.clear()
                if self._is_due:
                    self._is_due = False
                    tick = self._loop.call_later(TICK_S, self._on_tick)
                    self.turn()
        finally:
            tick.cancel()
            try:
                await self._give_back_all()
            finally:
                self._end()
                await close()

    def _on_tick(self) -> None:
        self._is_due = True
        self._bell.set()

    @property
    def holders(self) -> int:
        """How many share the ledger, as far as is known."""
        if self._expect and not self.home.is_away:
            self._expect = 0
        return max(1, self.home.holders, self._expect)

    def turn(self) -> None:
        """Put into the outbox what is asked ahead and what is given back."""
        now = self._clock()
        wants: list[tuple[LeasedRule, Ask]] = []
        backs: list[tuple[str, Back]] = []
        holders = self.holders
        with self._lock:
            for rule in self._rules():
                leased = rule.leased
                leased.holders = holders  # first, for the share of who is alone is made by it
                if self.home.is_away:
                    leased.away(now)
                else:
                    leased.back(now)
                backs += [(rule.id, back) for back in leased.expired(now, _KEYS_A_TURN)]
                wants += [(rule, ask) for ask in leased.wants(now, _KEYS_A_TURN)]
            if backs:
                self.outbox.append(backs)
            if wants:
                self.outbox.append(_Wants(wants))

    async def _say_all(self) -> None:
        while sayings := self._cut():
            grants: list[Grant] | None = None
            asks = [ask for saying in sayings for ask in saying.asks]
            try:
                grants = await self.home.take(asks)
            except HomeAway:
                pass
            except Exception:
                log.exception("the home of shared limits failed")
            finally:  # also when cancelled: nobody is left without an answer
                self._tell(sayings, grants)

    def _cut(self) -> list[Saying]:
        """What goes in the next question; what is given back before it is sent on its way."""
        now = self._clock()
        sayings: list[Saying] = []
        count = 0
        with self._lock:
            while self.outbox and count < _ASKS_AT_ONCE:
                head = self.outbox[0]
                if isinstance(head, list):
                    if sayings:
                        break
                    self.home.give_back(head)
                elif head.is_void:
                    head.told(None, now)
                else:
                    sayings.append(head)
                    count += len(head.asks)
                self.outbox.popleft()
        return sayings

    def _tell(self, sayings: Sequence[Saying], grants: Sequence[Grant] | None) -> None:
        now = self._clock()
        with self._lock:
            if grants is None and self.home.is_away:
                for rule in self._rules():  # now, so that what is decided alone is known as such
                    rule.leased.away(now)
            at = 0
            for saying in sayings:
                count = len(saying.asks)
                saying.told(None if grants is None else grants[at : at + count], now)
                at += count

    # ---- the end

    async def _give_back_all(self) -> None:
        """All that is unspent, and the news of what is owed."""
        for _ in range(_FINISHING_ROUNDS):
            now = self._clock()
            backs: list[tuple[str, Back]] = []
            wants: list[tuple[LeasedRule, Ask]] = []
            echoes: list[LimitAsk] = []
            with self._lock:
                for rule in self._rules():
                    leased = rule.leased
                    # As of the end of time every lease has run out.
                    unspent = leased.expired(inf, 2 * len(leased) + 1)
                    backs += [(rule.id, back) for back in unspent]
                    if unspent:
                        echoes.append(rule.ask(Ask(unspent[0].key, 0, 0, at=now)))
                    wants += [(rule, ask) for ask in leased.wants(now, _KEYS_A_TURN)]
                if backs:
                    self.outbox.append(backs)
                if wants or echoes:
                    self.outbox += (_Wants(wants, is_last=True), _Echo(echoes))
            await self._say_all()

    def _end(self) -> None:
        now = self._clock()
        with self._lock:
            self._has_ended = True
            while self.outbox:
                head = self.outbox.popleft()
                if not isinstance(head, list):
                    head.told(None, now)
