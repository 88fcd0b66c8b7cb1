"""A worker's side of the hub: limits and news through the control process of its machine.

Theory of operation. The supervisor brings a link to control, and a new one whenever control was
started again; `attach` and `detach` say so. On a new link we say "shared_hello" with the retained
messages that we keep, and are away until control answers "shared_welcome" with how many share the
home and with what we have missed. So what is retained outlives control, as long as one worker
lives; the limits begin anew with it.

What goes over the link (heads of frames, in JSON):

    shared_hello    retained: [[topic, retain, version, message], ...]      from the worker
    shared_asks     n, rules: [[no, id, limit, period_s, algorithm, burst, max_keys, seat_ttl_s]],
                    do: [[no, key, want, least, owed, holding] | [no, key, n, at], ...]
    shared_news     topic, message, retain, version                         both ways
    shared_forget   topic, retain, version (of what is forgotten)           both ways
    shared_welcome  holders, retained                                       from control
    shared_holders  holders
    shared_grants   n, grants: [[granted, remaining, reset_s, retry_after_s, at], ...]

A rule is declared once for each link, before the first ask that uses its number.

A version is the wall clock in microseconds where a retained message was published. Control sees all
of them in one order, and raises the version of one that comes later than a higher: the higher
version holds, everywhere. So who hears of an older message than it keeps (two published at once)
passes it over, and who published one that was raised is told of it, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from headgate.policy.limiter.lease import Grant
from headgate.policy.limiter.rules import LimitRules
from headgate.state.asking import DEADLINE_S, Asking, Batch, Returned
from headgate.state.home import LimitAsk, Message

__all__ = ["HubShared", "Link"]

PROBE_EVERY_S: Final = 1.0
RULES_MAX: Final = 20_000
"""Declared rules that a worker remembers; control remembers twice as many of each."""


class Link(Protocol):
    """One end of a channel to control."""

    def send(
        self, kind: str, /, payload: bytes = b"", fds: Sequence[int] = (), **fields: Any
    ) -> None: ...


class HubShared(Asking):
    """A `LimitHome` and a `Board`; one for each worker process, for all its life."""

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        probe_every_s: float = PROBE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(deadline_s, clock)
        self._probe_every_s = probe_every_s
        self._link: Link | None = None
        self._is_welcome = False
        self._numbers: dict[str, tuple[int, LimitRules, float]] = {}
        """What was declared on this link, by rule."""
        self._next_rule = 0
        self._new_rules: list[list[object]] = []
        self._probe: asyncio.TimerHandle | None = None
        self._probe_number = 0
        self._probed_at = 0.0

    @property
    def place(self) -> str:
        return "hub"

    def expect(self, holders: int) -> None:
        """So many workers will share; until control has said how many there are."""
        if not self._was_here:
            self._holders = max(1, holders)

    # ---- the link

    def attach(self, link: Link) -> None:
        """A new link to control; the one before it is of no use any more."""
        self._drop("control was started again")
        self._link = link
        self._why = "control has not answered yet"
        rows = [list(kept) for kept in self._news.kept()]
        # All that is kept is offered here; what was forgotten remains to be said.
        self._unsaid = {place: None for place in self._unsaid if self._news.get(*place) is None}
        link.send("shared_hello", retained=rows)

    def detach(self, link: Link | None = None) -> None:
        """The link has closed: control is gone. Old news about a link replaced since is none."""
        if link is None or link is self._link:
            self._drop("control is gone")

    def _drop(self, why: str) -> None:
        if self._link is None:
            return
        self._link = None
        self._is_welcome = False
        self._numbers.clear()
        self._next_rule = 0
        self._new_rules = []
        self._stop_probe()
        self._go_away(why)
        self._lose_all()

    def heard(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Take a message of control's; False if it is none of ours."""
        match kind:
            case "shared_grants":
                self._on_grants(fields["n"], fields["grants"])
            case "shared_news":
                self._on_news(**fields)
            case "shared_holders":
                self._holders = max(1, fields["holders"])
            case "shared_welcome":
                self._on_welcome(fields)
            case "shared_forget":
                if fields["version"] >= self._news.version(fields["topic"], fields["retain"]):
                    self._hear_forget(fields["topic"], fields["retain"])
            case _:
                return False
        return True

    def remember(self, topic: str, message: Message, *, retain: str, version: int) -> None:
        """What was retained when an earlier process ended, as of that version. Control is offered
        it like what we keep ourselves.
        """
        self._on_news(topic, message, retain, version)

    def _on_news(self, topic: str, message: Message, retain: str | None, version: int) -> None:
        if retain is None or version > self._news.version(topic, retain):
            self._hear(topic, message, retain, version)

    def _on_welcome(self, fields: Mapping[str, Any]) -> None:
        self._holders = max(1, fields["holders"])
        for topic, retain, version, message in fields["retained"]:
            self._on_news(topic, message, retain, version)
        if not self._is_welcome:
            self._is_welcome = True
            self._come_back()

    # ---- limits

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._flush)

    def _flush(self) -> None:
        batch = self._cut()
        if batch is not None:
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        if self._link is None:
            self._lost(batch)
            return
        rows = [self._row(entry) for said in batch.said for entry in said]
        rules, self._new_rules = self._new_rules, []
        self._link.send("shared_asks", n=batch.number, rules=rules, do=rows)

    def _row(self, entry: LimitAsk | Returned) -> list[object]:
        if isinstance(entry, LimitAsk):
            rule, rules, ask, seat_ttl_s = entry
            known = self._numbers.get(rule)
            if known is None or known[1] is not rules:
                known = self._declare(rule, rules, seat_ttl_s, known)
            return [known[0], ask.key, ask.want, ask.least, ask.owed, ask.holding]
        rule, back = entry
        known = self._numbers.get(rule)
        # A rule that control was not told of has nothing to be given back to.
        return [-1 if known is None else known[0], *back]

    def _declare(
        self,
        rule: str,
        rules: LimitRules,
        seat_ttl_s: float,
        known: tuple[int, LimitRules, float] | None,
    ) -> tuple[int, LimitRules, float]:
        if known is None:
            if len(self._numbers) >= RULES_MAX:
                self._numbers.clear()  # what is still in use is declared again
            number = self._next_rule
            self._next_rule += 1
        else:
            number = known[0]
        declared = (number, rules, seat_ttl_s)
        if known is None or known[1] != rules or known[2] != seat_ttl_s:
            self._new_rules.append(
                [
                    number,
                    rule,
                    rules.limit,
                    rules.period_s,
                    rules.algorithm,
                    rules.burst,
                    rules.max_keys,
                    seat_ttl_s,
                ]
            )
        self._numbers[rule] = declared
        return declared

    def _on_grants(self, number: int, rows: Sequence[Sequence[Any]]) -> None:
        self._answered(number, [Grant(*row) for row in rows])
        if number == self._probe_number:
            self._probe_number = 0
            if self._clock() - self._probed_at <= self.deadline_s:
                self._stop_probe()
                self._come_back()

    # ---- finding control again

    def _went_away(self) -> None:
        if self._link is not None and self._probe is None:
            self._probe = asyncio.get_running_loop().call_later(self._probe_every_s, self._on_probe)

    def _on_probe(self) -> None:
        """Ask nothing, and see whether the answer comes in time. One at a time: while control
        does not read, nothing must pile up.
        """
        self._probe = None
        if self._link is None or not self._is_away:
            return
        self._went_away()
        if self._is_welcome and not self._probe_number:
            self._number += 1
            self._probe_number = self._number
            self._probed_at = self._clock()
            self._link.send("shared_asks", n=self._probe_number, rules=[], do=[])

    def _stop_probe(self) -> None:
        self._probe_number = 0
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    # ---- news

    def _say(self, topic: str, message: Message, retain: str | None, version: int) -> None:
        if self._link is not None:
            self._link.send(
                "shared_news", topic=topic, message=message, retain=retain, version=version
            )

    def _say_forget(self, topic: str, retain: str) -> None:
        if self._link is not None:
            self._link.send("shared_forget", topic=topic, retain=retain, version=0)
