"""Services first, then the edge: what the gateway fetches anew is not to come from a service that
holds the old value itself.

Theory of operation. Who polls for news says how far it has come, so its next question acknowledges
the last answer. A purge is kept for those who poll, then waited for until each of them has
acknowledged it (`services`, within `SERVICES_S`), and only then told to the workers. Whoever asked
for it has done it already and is not waited for, and neither is who gives no name.

    here    waits for news, or was answered within `BETWEEN_S`: is waited for
    behind  was told too late, or is away: the workers were told without it. When it has caught up,
            they are told once more what it missed, for they may have fetched from it meanwhile

Services that share a Redis acknowledge nothing, but serve nothing old for longer than the lease of
their layer (0.1 s). So the workers are told at once, and again after each of `ECHOES_S`: what they
have fetched meanwhile from a service that had not heard is forgotten again, mostly by the first of
these, surely by the last. Of what goes by Redis those who poll are told in the same step, and are
behind if they have not acknowledged by the last. Responses alone (URLs) are nothing that a service
holds: they are told once.

Known are `KNOWN_MAX` of those who poll, for `FORGET_S` after they were last seen, and none over a
restart of control. Beyond `NAMES_MAX` names what is to be told again becomes everything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from headgate.cache.invalidation import ITEMS_MAX, Invalidation
from headgate.control.caching_news import News

__all__ = ["AGAIN", "ECHOES_S", "SERVICES_S", "Order"]

SERVICES_S: Final = 0.25
ECHOES_S: Final = (0.03, 0.13)
"""When all but a service under great load have heard; and above the lease of the Redis layer."""
BETWEEN_S: Final = 1.0
FORGET_S: Final = 600.0
KNOWN_MAX: Final = 256
NAMES_MAX: Final = 20_000
AGAIN: Final = "told again"
"""Who asks for what is told again."""


class _Service:
    __slots__ = ("at", "behind", "polls", "seen_at")

    def __init__(self, at: int) -> None:
        self.at = at
        """It has taken everything up to this stamp."""
        self.behind: int | None = None
        """What came after this was told to the workers before it."""
        self.polls = 0
        self.seen_at = 0.0


class Order:
    def __init__(
        self,
        news: News,
        tell: Callable[[Invalidation], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` gives an invalidation to the workers, under a new stamp."""
        self._news = news
        self._tell = tell
        self._clock = clock
        self._known: dict[str, _Service] = {}
        self._bell = asyncio.Event()
        self._echoes: tuple[list[tuple[float, Invalidation]], ...] = tuple([] for _ in ECHOES_S)
        self._timer: asyncio.TimerHandle | None = None

    # -- those who poll ------------------------------------------------------------------------

    def came(self, name: str, since: int | None) -> None:
        """It asks for what comes after `since`, so it has taken everything up to there."""
        if not name:
            return
        now = self._clock()
        service = self._known.pop(name, None)
        at = self._news.stamp if since is None else min(since, self._news.stamp)
        if service is None:
            service = _Service(at)
            self._make_room(now)
            if self._news.floor <= at < self._news.stamp:
                service.behind = at  # the workers were told before it
        self._known[name] = service  # the last seen is the last
        service.at, service.seen_at = at, now
        behind = service.behind
        if behind is not None and at > behind:
            service.behind = at if at < self._news.stamp else None
            missed = self._news.between(behind, at)
            self._tell_all(missed if missed is not None else [Invalidation(everything="all")])
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    def waits(self, name: str, *, is_over: bool = False) -> None:
        service = self._known.get(name)
        if service is not None:
            service.polls += -1 if is_over else 1
            service.seen_at = self._clock()

    def _make_room(self, now: float) -> None:
        for name, service in list(self._known.items()):
            is_gone = not service.polls and now - service.seen_at > FORGET_S
            if not is_gone and len(self._known) < KNOWN_MAX:
                break
            del self._known[name]

    def _late(self, stamp: int, by: str, *, is_here: bool) -> list[_Service]:
        now = self._clock()
        return [
            service
            for name, service in self._known.items()
            if service.at < stamp
            and name != by
            and (not is_here or service.polls or now - service.seen_at < BETWEEN_S)
        ]

    async def services(self, told: Invalidation) -> int:
        """Until those who poll have taken what `news` has; how many had not in time."""
        if not self._known or not _is_shared(told):
            return 0
        deadline = self._clock() + SERVICES_S
        while self._late(told.stamp, told.by, is_here=True):
            left_s = deadline - self._clock()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    await self._bell.wait()
            except TimeoutError:
                break
        return self._mark(told.stamp, told.by)

    def _mark(self, stamp: int, by: str = "") -> int:
        late = self._late(stamp, by, is_here=False)
        for service in late:
            if service.behind is None:
                service.behind = service.at
        return len(late)

    # -- those on Redis ------------------------------------------------------------------------

    def echo(self, told: Invalidation) -> None:
        """Tell the workers once more when services on Redis have heard. On the running loop."""
        if not _is_shared(told):
            return
        now = self._clock()
        for after_s, waiting in zip(ECHOES_S, self._echoes, strict=True):
            if len(waiting) >= NAMES_MAX:
                waiting[:] = [(now, Invalidation(everything="all", stamp=told.stamp))]
            waiting.append((now + after_s, told))
        self._set_timer()

    def _set_timer(self) -> None:
        heads = [waiting[0][0] for waiting in self._echoes if waiting]
        if self._timer is None and heads:
            delay_s = max(0.0, min(heads) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._clock() + 0.005
        for waiting in self._echoes:
            due = [told for at, told in waiting if at <= now]
            del waiting[: len(due)]
            if not due:
                continue
            if waiting is self._echoes[-1]:
                self._mark(max(told.stamp for told in due))
            self._tell_all(due)
        self._set_timer()

    # -- both ----------------------------------------------------------------------------------

    def _tell_all(self, missed: Iterable[Invalidation]) -> None:
        for each in _merged(missed):
            self._tell(each)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._echoes:
            waiting.clear()


def _is_shared(told: Invalidation) -> bool:
    """Whether it names what services hold and workers as well."""
    return bool(told.tags) or told.everything == "all"


def _merged(missed: Iterable[Invalidation]) -> list[Invalidation]:
    """The same in few messages, of what workers hold."""
    tags: dict[bool, dict[str, None]] = {False: {}, True: {}}
    for each in missed:
        if each.everything == "all":
            return [Invalidation(everything="responses", by=AGAIN)]
        tags[each.soft].update(dict.fromkeys(each.tags))
    if len(tags[False]) + len(tags[True]) > NAMES_MAX:
        return [Invalidation(everything="responses", by=AGAIN)]
    made = []
    for is_soft, names in tags.items():
        named = tuple(names)
        for start in range(0, len(named), ITEMS_MAX):
            part = named[start : start + ITEMS_MAX]
            made.append(Invalidation(tags=part, soft=is_soft, by=AGAIN))
    return made
