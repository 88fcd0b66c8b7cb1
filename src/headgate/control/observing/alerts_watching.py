"""The rules that are watched, and their evaluation.

Theory of operation. A rule that is due is evaluated on a thread with a time limit, and never twice
at once (`overdue` counts those that were asked for again), so that a slow rule delays no other.
Nothing here raises: what went wrong is an answer of its own to the rule's judge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.judging import Judge, Prepared, SampleLike
from headgate.observe.alerts.rules import Rule

__all__ = ["Ask", "Watched", "Watching"]

Ask = Callable[[Any, float], Sequence[SampleLike]]
"""(parsed expression, wall time) -> samples. Blocks; called on a thread."""

_THREADS: Final = 4
_PUT_OFF_S: Final = 300.0

log = logging.getLogger("headgate.alerts")


@dataclass(slots=True)
class Watched:
    """A rule with what it takes to evaluate it."""

    judge: Judge
    expr: Any = None
    fault: str = ""
    """Why the expression cannot be read."""
    due: float = 0.0
    """Monotonic."""
    took_ms: float = 0.0
    evaluations: int = 0
    cut_short: int = 0
    """How many times in a row it took too long."""
    running: asyncio.Task[None] | None = field(default=None, repr=False)

    def row(self) -> dict[str, Any]:
        """For whoever asks how it is."""
        judge, rule = self.judge, self.judge.rule
        states = [alert.state for alert in judge.alerts()]
        return {
            "name": rule.name,
            "expr": rule.expr,
            "state": next((s for s in ("firing", "pending") if s in states), "inactive"),
            "built_in": rule.is_built_in,
            "thresholds": {one.level: one.bound for one in rule.thresholds},
            "clear": {one.level: one.clear for one in rule.thresholds},
            "direction": rule.direction,
            "severity": rule.lowest,
            "for_s": rule.for_s,
            "every_s": rule.every_s,
            "unit": rule.unit,
            "alerts": sum(one != "resolved" for one in states),
            "dropped": judge.dropped,
            "last_at": judge.last_at,
            "last_values": [
                {"labels": dict(labels), "value": value if abs(value) < 1e308 else None}
                for labels, value in judge.last_values
            ],
            "took_ms": self.took_ms,
            "evaluations": self.evaluations,
            "error": self.fault or judge.error,
        }


class Watching:
    def __init__(
        self, ask: Ask | None, mono: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.ask = ask
        self._mono = mono
        self._wall = wall
        self.rules: dict[str, Watched] = {}
        self.counts: dict[str, int] = {}
        """What became of evaluations."""
        self.judged_at = 0.0
        """Wall time of the last one that had an answer."""
        self.timeout_s = 2.0
        self._kept: dict[str, Any] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._threads = asyncio.Semaphore(_THREADS)

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="alert-rules")

    def take(self, rules: Sequence[Rule]) -> None:
        """Watch these; what is known of those that stay is kept."""
        now = self._mono()
        watched: dict[str, Watched] = {}
        for place, rule in enumerate(rules):
            old = self.rules.get(rule.name)
            if old is not None and old.judge.rule == rule:
                watched[rule.name] = old
                continue
            made = Watched(Judge(rule), due=now + rule.every_s * place / max(1, len(rules)))
            kept = self._kept.pop(rule.name, None) if old is None else old.judge.dump()
            if kept:
                made.judge.restore(kept)
            made.expr, made.fault = _parsed(rule)
            watched[rule.name] = made
        self.rules = watched

    async def close(self) -> None:
        tasks = [each.running for each in self.rules.values() if each.running is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def alerts(self) -> list[Alert]:
        return [alert for each in self.rules.values() for alert in each.judge.alerts()]

    def worries(self) -> Iterable[str]:
        wrong = [name for name, each in self.rules.items() if each.fault]
        if wrong:
            yield f"cannot read the expression of {', '.join(wrong[:3])}"

    # -------------------------------------------------------------------------- evaluations

    def begin(self) -> None:
        """Begin the evaluations that are due."""
        now = self._mono()
        for each in self.rules.values():
            if now < each.due:
                continue
            if each.running is not None:
                self._count("overdue")
            else:
                each.running = asyncio.get_running_loop().create_task(
                    self._evaluate(each), name=f"alert-{each.judge.rule.name}"
                )
            every_s = each.judge.rule.every_s
            # Turns that were missed, as while the machine slept, are not made up for.
            each.due = max(each.due + every_s, now + every_s / 2)

    def _put_off(self, each: Watched) -> None:
        """One that takes too long again and again comes less often: it holds a thread for as long
        as a question may take, and threads are few.
        """
        each.cut_short += 1
        every_s = each.judge.rule.every_s
        later_s = min(every_s * 2.0 ** min(each.cut_short, 20), max(_PUT_OFF_S, every_s))
        each.due = self._mono() + later_s

    async def _evaluate(self, each: Watched) -> None:
        began = self._mono()
        at = self._wall()
        timeout_s = self.timeout_s
        try:
            if each.fault:
                raise HeadgateError(each.fault)
            if self.ask is None or self._pool is None:
                raise HeadgateError("there is no history to judge by")
            loop = asyncio.get_running_loop()
            # To wait for a thread is not to take long.
            async with self._threads:
                began = self._mono()
                at = self._wall()
                work = loop.run_in_executor(self._pool, _answer, self.ask, each, at)
                done, _ = await asyncio.wait({work}, timeout=timeout_s)
                if not done:
                    self._count("timeout")
                    each.judge.judge_failed(f"took longer than {timeout_s:g} s", self._wall())
                    # `running` stands until the thread is free: a rule never holds two of them.
                    await asyncio.wait({work})
                    work.exception()
                    self._put_off(each)
                    return
            each.cut_short = 0
            each.judge.take(work.result(), at)
            self._count("ok")
            self.judged_at = self._wall()
        except HeadgateError as error:
            self._count("failed")
            each.judge.judge_failed(str(error), at)
        except Exception as error:
            self._count("failed")
            if not each.judge.error:
                log.exception("the alert rule %s cannot be evaluated", each.judge.rule.name)
            each.judge.judge_failed(f"{type(error).__name__}: {error}", at)
        finally:
            each.evaluations += 1
            each.took_ms = round((self._mono() - began) * 1000, 2)
            each.running = None

    def _count(self, result: str) -> None:
        self.counts[result] = self.counts.get(result, 0) + 1

    # -------------------------------------------------------------------------------- state

    def shift(self, by_s: float) -> None:
        """The clock was set."""
        for each in self.rules.values():
            each.judge.shift(by_s)
        self.judged_at += by_s

    def dump(self) -> dict[str, Any]:
        return {name: each.judge.dump() for name, each in self.rules.items()}

    def restore(self, kept: Mapping[str, Any], *, away_s: float, by_s: float) -> None:
        """What an earlier process knew; of rules that are not there yet it is held for `take`."""
        for name, rows in kept.items():
            each = self.rules.get(name)
            if each is None:
                self._kept[name] = rows
                continue
            each.judge.restore(rows, away_s=away_s)
            each.judge.shift(by_s)


def _answer(ask: Ask, each: Watched, at: float) -> Prepared:
    """On a thread, with all that thousands of label sets would hold up the loop for."""
    return each.judge.prepared(ask(each.expr, at))


def _parsed(rule: Rule) -> tuple[Any, str]:
    try:
        from headgate.observe.query import parse
    except ImportError as error:
        return None, f"expressions need numpy: {error}"
    try:
        return parse(rule.expr), ""
    except HeadgateError as error:
        return None, str(error)
