"""Control's side of the hub: the ledger of limits that workers share, and their board.

Theory of operation. Every worker that said "shared_hello" on its link is a member (see
`state/hub.py` for what is said). Its asks are decided as they come, on this loop, and answered in
order. Its news goes to all other members at once, and to listeners in this process; what control
publishes itself goes to all members. How many members there are is told to all when it changes.

A link that closes ends a member: the seats it held of limits of concurrency are free at once. Hits
that it had leased and not spent stay charged until they have run out.

What is retained comes from those who publish it, and after a new start of control from the workers,
which offer what they keep: the newer version holds. So control keeps nothing on disk, and knows
again what was known within a moment of the first hello.

Bounds: the ledger's; `RETAINED_MAX` retained messages; and of a member that does not read no more
than `BACKLOG_MAX` frames are kept: further news is dropped, and when it reads again it is told
everything retained once more.

With Redis as home the workers do not ask here; news of this machine's control still goes this way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from headgate.control.channel import Channel, Message
from headgate.policy.limiter.lease import Ask, Back
from headgate.policy.limiter.rules import LimitRules, Verdict
from headgate.state.asking import wall_version
from headgate.state.home import Listener
from headgate.state.home import Message as Said
from headgate.state.hub import RULES_MAX
from headgate.state.ledger import Ledger
from headgate.state.news import News

__all__ = ["Shared"]

BACKLOG_MAX: Final = 1000
SWEEP_EVERY_S: Final = 0.1
SWEEP_KEYS: Final = 2000

log = logging.getLogger("headgate.control")


class Linked(Protocol):
    """A worker's link."""

    @property
    def life(self) -> str: ...
    @property
    def channel(self) -> Channel: ...


class _Member:
    __slots__ = ("channel", "has_missed", "holder", "rules")

    def __init__(self, holder: str, channel: Channel) -> None:
        self.holder = holder
        self.channel = channel
        self.rules: dict[int, tuple[str, LimitRules, float]] = {}
        """As declared on this link, by number."""
        self.has_missed = False


class Shared:
    """The home of limits for this machine's workers, and a `Board` for control itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ledger = Ledger()
        self._news = News()
        self._members: dict[str, _Member] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._asks = 0
        self._messages = 0
        self._told = 0
        self._missed = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sweep from now on."""

        def sweep() -> None:
            self._sweep = loop.call_later(SWEEP_EVERY_S, sweep)
            self._ledger.sweep(self._clock(), SWEEP_KEYS)

        sweep()

    def stop(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    # ---- members

    @property
    def holders(self) -> int:
        return len(self._members)

    def heard(self, link: Linked, message: Message) -> bool:
        """Take a message of a worker's; False if it is none of ours."""
        kind = message.kind
        if not kind.startswith("shared_"):
            return False
        fields = message.fields
        if kind == "shared_hello":
            self._welcome(link, fields["retained"])
            return True
        member = self._members.get(link.life)
        if member is None:
            log.warning("%s said %s before it said hello", link.life, kind)
            return True
        if member.has_missed:
            self._tell_again(member)
        match kind:
            case "shared_asks":
                self._on_asks(member, fields)
            case "shared_news":
                self._on_news(member, fields)
            case "shared_forget":
                self.forget(fields["topic"], fields["retain"])
            case _:
                log.warning("%s said %s, which means nothing", link.life, kind)
        return True

    def _welcome(self, link: Linked, offered: Sequence[Sequence[Any]]) -> None:
        member = _Member(link.life, link.channel)
        self._members[link.life] = member
        known = {(topic, retain): version for topic, retain, version, _ in offered}
        lacking = [
            list(kept)
            for kept in self._news.kept()
            if kept.version > known.get((kept.topic, kept.retain), -1)
        ]
        member.channel.send("shared_welcome", holders=len(self._members), retained=lacking)
        for topic, retain, version, message in offered:
            if version > self._news.version(topic, retain):
                self._news.hear(topic, message, retain, version)
                self._tell(member, topic, message, retain, version)
        self._tell_holders(member)

    def left(self, link: Linked) -> None:
        """The link has closed; the worker is gone."""
        member = self._members.pop(link.life, None)
        if member is None:
            return
        freed = self._ledger.leave(member.holder, self._clock())
        if freed:
            log.info("%s is gone; %d seats that it held are free", member.holder, freed)
        self._tell_holders(None)

    def _tell_holders(self, but: _Member | None) -> None:
        for member in self._members.values():
            if member is not but:
                member.channel.send("shared_holders", holders=len(self._members))

    # ---- limits

    def _on_asks(self, member: _Member, fields: dict[str, Any]) -> None:
        now = self._clock()
        ledger = self._ledger
        declared = member.rules
        for number, rule, limit, period_s, algorithm, burst, max_keys, seat_ttl_s in fields[
            "rules"
        ]:
            rules = LimitRules(
                limit=limit, period_s=period_s, algorithm=algorithm, burst=burst, max_keys=max_keys
            )
            ledger.declare(rule, rules, seat_ttl_s, now)
            declared[number] = (rule, rules, seat_ttl_s)
            if len(declared) > 2 * RULES_MAX:
                del declared[next(iter(declared))]
        grants = []
        for row in fields["do"]:
            known = declared.get(row[0])
            if len(row) == 4:
                if known is not None:
                    ledger.give_back(known[0], Back(row[1], row[2], row[3]), member.holder, now)
            elif known is not None:
                rule, rules, seat_ttl_s = known
                ask = Ask(row[1], row[2], row[3], row[4], row[5])
                grants.append(ledger.take(rule, rules, seat_ttl_s, ask, member.holder, now))
            else:
                raise KeyError(f"{member.holder} asks for rule {row[0]}, which it never declared")
        self._asks += len(grants)
        self._messages += 1
        member.channel.send("shared_grants", n=fields["n"], grants=grants)

    # ---- news

    def _on_news(self, member: _Member, fields: dict[str, Any]) -> None:
        topic, message, retain = fields["topic"], fields["message"], fields["retain"]
        said = version = fields["version"]
        if retain is not None:
            # Said now, so it is the newest, whatever the wall clock has done meanwhile.
            version = max(said, self._news.version(topic, retain) + 1)
        self._news.hear(topic, message, retain, version)
        self._tell(member if version == said else None, topic, message, retain, version)

    def publish(self, topic: str, message: Said, *, retain: str | None = None) -> None:
        version = 0
        if retain is not None:
            version = max(wall_version(), self._news.version(topic, retain) + 1)
            self._news.keep(topic, retain, message, version)
        self._tell(None, topic, message, retain, version)

    def _tell(
        self, origin: _Member | None, topic: str, message: Said, retain: str | None, version: int
    ) -> None:
        for member in self._members.values():
            if member is origin:
                continue
            if member.channel.backlog >= BACKLOG_MAX:
                member.has_missed = True
                self._missed += 1
                continue
            self._told += 1
            member.channel.send(
                "shared_news", topic=topic, message=message, retain=retain, version=version
            )

    def _tell_again(self, member: _Member) -> None:
        """It reads again: what is retained may be news to it."""
        member.has_missed = False
        rows = [list(kept) for kept in self._news.kept()]
        member.channel.send("shared_welcome", holders=len(self._members), retained=rows)

    def forget(self, topic: str, retain: str) -> None:
        version = self._news.version(topic, retain)
        self._news.forget(topic, retain)
        for member in self._members.values():
            member.channel.send("shared_forget", topic=topic, retain=retain, version=version)

    def subscribe(self, topic: str, listener: Listener) -> Callable[[], None]:
        return self._news.subscribe(topic, listener)

    # ---- for those who ask

    def limit_key(self, rule: str, key: str) -> Verdict | None:
        """How a key of a limit stands; None where no worker has asked for that limit yet."""
        return self._ledger.peek(rule, key, self._clock())

    def clear_limit_key(self, rule: str, key: str) -> bool | None:
        """Forget what a key has used; False where its seats are taken, None as above."""
        return self._ledger.clear(rule, key)

    def top_limit_keys(self, rule: str, most: int) -> list[tuple[Hashable, float]]:
        return self._ledger.top(rule, self._clock(), most)

    def snapshot(self) -> dict[str, Any]:
        return {
            "holders": len(self._members),
            "rules": [asdict(rule) for rule in self._ledger.snapshot()],
            "asks": self._asks,
            "messages": self._messages,
            "retained": len(self._news),
            "told": self._told,
            "missed": self._missed,
        }
