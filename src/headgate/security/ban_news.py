"""What a process tells others about its bans, and how much of it.

Theory of operation. Bans and lifts wait in turn, one a key, and go out as long as there is
allowance: `SAY_BURST` at once, `SAY_PER_S` a second, so that an attack from ten thousand addresses
does not become a storm on the board. A ban is put into words when it goes out, so its remaining
time is right; one that has ended meanwhile is not told at all. When `UNSAID_MAX` wait, further ones
are not told: the others find out for themselves.

What is told is kept on the board under its key for those that come later, until the ban has ended.
The board has room for so many messages, of orders and health too, so no more than `RETAINED_MAX`
are kept there: all processes know about the same bans, so each of them sees when that is reached.
One process of each machine, which is control, tends the board: it takes off what has ended.

Counts that have come to a share of their rule are told once a second in one message, which nobody
keeps. Only what came after that share is told, and it is told fresh; so what others add to their
windows is never older than theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Protocol

from headgate.security.ban_list import BanList
from headgate.security.ban_rules import BanRule, Count

__all__ = ["LIFTED_S", "TOPIC", "WARM_MAX", "BanNews", "BoardParts"]

TOPIC: Final = "ban"
RETAINED_MAX: Final = 2000
SAY_PER_S: Final = 50.0
SAY_BURST: Final = 200.0
UNSAID_MAX: Final = 10_000
LIFTED_S: Final = 3600.0
"""How long a lift is of use to those who have not heard of it."""
WARM_MAX: Final = 200
_WARM_SHARE: Final = 0.25


class BoardParts(Protocol):
    """Of `security.method.Parts`, what bans need."""

    def spawn(self, work: Coroutine[object, object, None]) -> object: ...
    def publish(
        self, topic: str, message: Mapping[str, Any], retain: str | None = None
    ) -> None: ...
    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None: ...


class BanNews:
    def __init__(self, bans: Callable[[], BanList], wall: Callable[[], float], now: float) -> None:
        self._bans = bans
        self._wall = wall
        self._parts: BoardParts | None = None
        self._forget: Callable[[str, str], None] | None = None
        self._unsaid: dict[str, dict[str, Any] | None] = {}
        """In turn; None is the ban as it then stands."""
        self._said: dict[str, float] = {}
        """What is kept on the board, of ours or, where we tend it, of all, and until when it is of
        use there.
        """
        self._warm: dict[tuple[str, str], Count] = {}
        self._allowance = SAY_BURST
        self._allowed_at = now
        self._dropped = 0

    @property
    def unsaid(self) -> int:
        """What was not told, or not yet."""
        return self._dropped + len(self._unsaid)

    def attach(self, parts: BoardParts, forget: Callable[[str, str], None] | None) -> None:
        self._parts = parts
        self._forget = forget

    def say_ban(self, key: str, now: float) -> None:
        self._say(key, None, now)

    def say_lift(self, key: str, at: float, now: float) -> None:
        self._say(key, {"what": "lift", "key": key, "at": at}, now)

    def is_on_board(self, key: str, until: float) -> None:
        """Another one said it; it is of use there until then."""
        if self._forget is not None:
            self._said[key] = until

    def counted(self, key: str, rule: BanRule, count: Count, weight: float) -> None:
        """One more was counted here."""
        if self._parts is not None and count.total >= rule.more_than * _WARM_SHARE:
            count.told += weight
            if len(self._warm) < WARM_MAX:
                self._warm[key, rule.name] = count

    def is_banned(self, key: str, counts: Iterable[str]) -> None:
        """What was counted by these rules needs no telling any more."""
        for name in counts:
            self._warm.pop((key, name), None)

    def cool(self) -> None:
        """The counts are not what they were."""
        self._warm.clear()

    def sweep(self, now: float) -> None:
        self._flush(now)
        warm, self._warm = self._warm, {}
        counts = []
        for (key, name), count in warm.items():
            if count.told > 0:
                counts.append([key, name, round(count.told, 3)])
                count.told = 0
        if counts and self._parts is not None:
            self._parts.publish(TOPIC, {"what": "saw", "counts": counts})
        for key in [key for key, until in self._said.items() if until <= now]:
            del self._said[key]
            if self._forget is not None:
                self._forget(TOPIC, key)

    def _say(self, key: str, message: dict[str, Any] | None, now: float) -> None:
        if self._parts is None:
            return
        self._unsaid.pop(key, None)
        if len(self._unsaid) >= UNSAID_MAX:
            self._dropped += 1
            return
        self._unsaid[key] = message
        self._flush(now)

    def _flush(self, now: float) -> None:
        parts = self._parts
        if parts is None:
            return
        passed_s = max(now - self._allowed_at, 0.0)
        self._allowed_at = now
        self._allowance = min(self._allowance + passed_s * SAY_PER_S, SAY_BURST)
        while self._unsaid and self._allowance >= 1.0:
            key = next(iter(self._unsaid))
            message = self._unsaid.pop(key)
            until = now + LIFTED_S
            if message is None:
                ban = self._bans().get(key)
                if ban is None or now >= ban.until:
                    continue
                until = ban.until
                message = {
                    "what": "ban",
                    "key": ban.key,
                    "for_s": round(ban.until - now, 3),
                    "at": self._wall(),
                    "since": ban.since,
                    "why": ban.why,
                    "by": ban.by,
                    "times": ban.times,
                }
            self._allowance -= 1.0
            most = max(len(self._said), len(self._bans()))
            is_kept = key in self._said or most <= RETAINED_MAX
            if is_kept:
                self._said[key] = until
            parts.publish(TOPIC, message, retain=key if is_kept else None)
