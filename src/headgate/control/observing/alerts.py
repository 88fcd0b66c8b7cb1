"""The department that judges alert rules and tells their receivers.

Theory of operation
-------------------
A turn comes every second: rules that are due are evaluated, each on a thread with a time limit and
none twice at once (`overdue` counts those that were), so that a slow rule delays no other; what
they answered so far is brought to `Telling`; what it decides is written to the store together with
the state it was decided from, and only then sent. When the store takes nothing, as on a full disk,
it is sent all the same: told twice after a crash is better than not told.

All times are wall time. Each turn compares how far wall and monotonic clock have moved; when they
differ by more than a moment, the clock was set, and everything that remembers a time is shifted.

Rules are judged from the history alone (`ask`); control's own figures are in there, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.config import Config
from headgate.config.alerting import AlertsSpec, receivers_of, routing_of, rules_of
from headgate.control.observing.alerts_post import Post
from headgate.control.observing.observing import Surroundings
from headgate.errors import HeadgateError
from headgate.observe import Rows
from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.allowance import Allowances
from headgate.observe.alerts.judging import Judge, SampleLike
from headgate.observe.alerts.keeping import Keeper
from headgate.observe.alerts.matching import LabelMatcher
from headgate.observe.alerts.muting import Silence
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.outbox import Outbox
from headgate.observe.alerts.rendering import Links
from headgate.observe.alerts.replaying import Replay, replay
from headgate.observe.alerts.routing import Routing
from headgate.observe.alerts.rules import Rule
from headgate.observe.alerts.sending import Sender
from headgate.observe.alerts.telling import Ack, Muted, Telling

__all__ = ["Alerts", "Ask", "NoSuchRule"]

Ask = Callable[[Any, float], Sequence[SampleLike]]
"""(parsed expression, wall time) -> samples. Blocks; called on a thread."""
AskRange = Callable[[Any, float, float, float], Sequence[Any]]
"""(parsed expression, start, end, step) -> series with labels, times and values. Blocks."""
Mark = Callable[[float, str, str, Mapping[str, str]], object]

TURN_S: Final = 1.0
_SAVE_S: Final = 10.0
_CLOCK_SET_S: Final = 2.0
_THREADS: Final = 4
_MOST_SILENCES: Final = 1000
_REPLAY_S: Final = 60.0
_MOST_STEPS: Final = 130_000
_STEPS_AT_ONCE: Final = 5000

log = logging.getLogger("headgate.alerts")


class NoSuchRule(HeadgateError):
    """No rule has this name."""


@dataclass(slots=True)
class _Watched:
    """A rule with what it takes to evaluate it."""

    judge: Judge
    expr: Any = None
    fault: str = ""
    """Why the expression cannot be read."""
    due: float = 0.0
    """Monotonic."""
    took_ms: float = 0.0
    evaluations: int = 0
    running: asyncio.Task[None] | None = field(default=None, repr=False)


class Alerts:
    name = "alerts"

    def __init__(
        self,
        surroundings: Surroundings,
        ask: Ask | None = None,
        mark: Mark | None = None,
        ask_range: AskRange | None = None,
        *,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - alerts have times of the clock
        rng: random.Random | None = None,
        turn_s: float = TURN_S,
    ) -> None:
        self._surroundings = surroundings
        self.ask = ask
        self.mark = mark
        self.ask_range = ask_range
        self._mono = mono
        self._wall = wall
        self._turn_s = turn_s
        self.spec: AlertsSpec | None = None
        self._watched: dict[str, _Watched] = {}
        self.telling = Telling(Routing(routing_of(AlertsSpec()).root))
        self._allowances = Allowances({})
        self._rng = rng if rng is not None else random.Random()
        outbox = Outbox(rng=self._rng)
        self.post = Post(outbox, Sender(), wall, self._on_changed)
        self._keeper: Keeper | None = None
        self._is_opened = False
        self._store_fault = ""
        self._is_dirty = False
        self._saved_at = 0.0
        self._clocks = (mono(), wall())
        self._firing: dict[str, Alert] = {}
        self._counts: dict[str, int] = {}
        self._kept_rules: dict[str, Any] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._disk: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._judged_at = 0.0
        self._beat_due = 0.0
        self._beat_fault = ""

    # ------------------------------------------------------------------------------ the frame

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="alert-rules")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="alert-store")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="alerts")

    def take(self, config: Config) -> None:
        said = getattr(config, "alerts", None)
        if said is False:
            self.spec = None
            self._watched.clear()
            return
        spec = said if isinstance(said, AlertsSpec) else AlertsSpec()
        self.spec = spec
        rules = rules_of(spec)
        now = self._mono()
        watched: dict[str, _Watched] = {}
        for place, rule in enumerate(rules):
            old = self._watched.get(rule.name)
            if old is not None and old.judge.rule == rule:
                watched[rule.name] = old
                continue
            made = _Watched(Judge(rule), due=now + rule.every_s * place / max(1, len(rules)))
            kept = self._kept_rules.pop(rule.name, None) if old is None else old.judge.dump()
            if kept:
                made.judge.restore(kept)
            made.expr, made.fault = _parsed(rule)
            watched[rule.name] = made
        self._watched = watched
        routing = routing_of(spec)
        self.telling.reroute(routing)
        self._allowances.per_hour = dict(routing.per_hour)
        self.post.take(receivers_of(spec))
        self.post.outbox.give_up_after_s = spec.give_up_after
        sender = self.post.sender
        sender.timeout_s = spec.send_timeout
        sender.external_url = spec.url or ""
        sender.source = sender.external_url or "headgate"
        sender.links = Links(_links(spec), {rule.name: rule.expr for rule in rules})
        if self._keeper is None:
            path = self._surroundings.state_dir / self.name / "alerts.db"
            self._keeper = Keeper(path, most=spec.keep_notifications)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        tasks = [each.running for each in self._watched.values() if each.running is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.post.close()
        if self._is_opened:
            await self._save()
        if self._keeper is not None and self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._keeper.close)
        for pool in (self._pool, self._disk):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def worries(self) -> Iterable[str]:
        if self._store_fault:
            yield f"alerts: {self._store_fault}"
        if self._keeper is not None:
            yield from (f"alerts: {fault}" for fault in self._keeper.faults)
        wrong = [name for name, each in self._watched.items() if each.fault]
        if wrong:
            yield f"alerts: cannot read the expression of {', '.join(wrong[:3])}"
        for name, why in list(self.post.failing.items())[:3]:
            yield f"alerts: {name} does not take notifications: {why}"
        if self._beat_fault:
            yield f"alerts: the heartbeat fails: {self._beat_fault}"

    def rows_into(self, rows: Rows) -> None:
        counted: dict[tuple[str, ...], int] = {}
        for alert in self.alerts():
            if alert.state != "resolved":
                key = (alert.rule, alert.level, alert.state)
                counted[key] = counted.get(key, 0) + 1
        for named, count in counted.items():
            rows["headgate_alerts"].append((list(named), count))
        for result, count in self._counts.items():
            rows["headgate_alerts_evaluations_total"].append(([result], count))
        for (channel, outcome), count in self.post.counts.items():
            rows["headgate_alerts_notifications_total"].append(([channel, outcome], count))
        rows["headgate_alerts_queue"].append(([], len(self.post.outbox)))
        rows["headgate_alerts_held_back_total"].append(([], self._allowances.held_back))

    # ---------------------------------------------------------------------------------- turns

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception:
                log.exception("a turn of alerts failed")
            await asyncio.sleep(self._turn_s)

    async def _turn(self) -> None:
        if self._keeper is not None and not self._is_opened:
            await self._open()
        self._mind_the_clock()
        if self.spec is None:
            return
        self._begin_evaluations()
        now = self._wall()
        alerts = self.alerts()
        said = self._allowances.admit(self.telling.turn(alerts, now), now)
        self._mark_changes(alerts)
        self.post.put(self.post.spread(said), now)
        if said or self._is_dirty or self._mono() - self._saved_at >= _SAVE_S:
            await self._save()
        self.post.run(now)
        await self._beat()

    def _mind_the_clock(self) -> None:
        mono, wall = self._mono(), self._wall()
        by_s = (wall - self._clocks[1]) - (mono - self._clocks[0])
        self._clocks = (mono, wall)
        if abs(by_s) <= _CLOCK_SET_S:
            return
        log.warning("the clock was set by %.0f s; times of alerts move with it", by_s)
        for each in self._watched.values():
            each.judge.shift(by_s)
        self.telling.shift(by_s)
        self._allowances.shift(by_s)
        self.post.outbox.shift(by_s)
        self._judged_at += by_s

    def _begin_evaluations(self) -> None:
        now = self._mono()
        for each in self._watched.values():
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

    async def _evaluate(self, each: _Watched) -> None:
        began = self._mono()
        at = self._wall()
        timeout_s = self.spec.timeout if self.spec is not None else 2.0
        try:
            if each.fault:
                raise HeadgateError(each.fault)
            if self.ask is None or self._pool is None:
                raise HeadgateError("there is no history to judge by")
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._pool, self.ask, each.expr, at)
            done, _ = await asyncio.wait({work}, timeout=timeout_s)
            if not done:
                self._count("timeout")
                each.judge.judge_failed(f"took longer than {timeout_s:g} s", self._wall())
                # `running` stands until the thread is free: a rule never holds two of them.
                await asyncio.wait({work})
                work.exception()
                return
            samples = work.result()
            each.judge.judge(samples, at)
            self._count("ok")
            self._judged_at = self._wall()
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
        self._counts[result] = self._counts.get(result, 0) + 1

    def _mark_changes(self, alerts: Sequence[Alert]) -> None:
        """Tell the log and the history what began and what ended."""
        firing = {each.id: each for each in alerts if each.state == "firing"}
        before, self._firing = self._firing, firing
        for ident, alert in firing.items():
            told = before.get(ident)
            if told is None or told.level != alert.level:
                self._mark(alert, f"{alert.level}: {alert.summary}", "firing")
        for ident, alert in before.items():
            if ident not in firing:
                self._mark(alert, f"resolved: {alert.summary}", "resolved")

    def _mark(self, alert: Alert, text: str, state: str) -> None:
        self._is_dirty = True
        log.log(logging.INFO if state == "resolved" else logging.WARNING, "alert %s", text)
        if self.mark is None:
            return
        attributes = {**alert.matched, "id": alert.id, "state": state}
        try:
            self.mark(self._wall(), "alert", text, attributes)
        except Exception:
            log.exception("the history does not take a marker")

    # ------------------------------------------------------------------------------ the store

    def _on_changed(self) -> None:
        self._is_dirty = True

    async def _open(self) -> None:
        keeper = self._keeper
        if keeper is None or self._disk is None:
            return
        now = self._wall()
        loop = asyncio.get_running_loop()
        try:
            kept = await loop.run_in_executor(self._disk, keeper.open, now)
        except (OSError, sqlite3.Error) as error:
            self._store_fault = f"what was told is not kept: {error}"
            return
        self._is_opened = True
        self._store_fault = ""
        try:
            self._restore(kept, now)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            keeper.faults.append(f"some of what was kept makes no sense and is left out: {error!r}")
            log.warning("kept state of alerts is left out", exc_info=True)

    def _restore(self, kept: Mapping[str, Any], now: float) -> None:
        saved_at = float(kept.get("saved", {}).get("at", now))
        # Saved in the future: the clock was set back while nobody looked.
        by_s = min(0.0, now - saved_at)
        rules = dict(kept.get("rules", {}))
        for name, rows in rules.items():
            each = self._watched.get(name)
            if each is None:
                self._kept_rules[name] = rows
                continue
            each.judge.restore(rows, away_s=max(0.0, now - saved_at))
            each.judge.shift(by_s)
        if "telling" in kept:
            self.telling.restore(kept["telling"])
            self.telling.shift(by_s)
        if "allowances" in kept:
            self._allowances.restore(kept["allowances"])
            self._allowances.shift(by_s)
        self.post.outbox.restore(kept.get("outbox", ()))
        self.post.outbox.shift(by_s)
        self._firing = {each.id: each for each in self.alerts() if each.state == "firing"}

    async def _save(self) -> None:
        """Write the state and what was decided from it. A failure is told, and holds nothing up."""
        keeper = self._keeper
        if keeper is None or self._disk is None or not self._is_opened:
            return
        kept = {
            "saved": {"at": self._wall()},
            "rules": {name: each.judge.dump() for name, each in self._watched.items()},
            "telling": self.telling.dump(),
            "allowances": self._allowances.dump(),
            "outbox": self.post.outbox.dump(),
        }
        rows, self.post.rows = self.post.rows, []
        self._is_dirty = False
        self._saved_at = self._mono()
        work = asyncio.get_running_loop().run_in_executor(self._disk, keeper.write, kept, rows)
        try:
            await asyncio.shield(work)
        except (OSError, sqlite3.Error) as error:
            self._store_fault = f"what was told is not kept: {error}"
            self.post.rows = [*rows, *self.post.rows][-2000:]
            self._is_dirty = True
        else:
            self._store_fault = ""

    # -------------------------------------------------------------------------- sign of life

    async def _beat(self) -> None:
        spec = self.spec
        beat = spec.heartbeat if spec is not None else None
        if spec is None or beat is None or self._mono() < self._beat_due:
            return
        if self._wall() - self._judged_at > 3 * spec.every + self._turn_s + 5.0:
            return  # nothing is judged: silence is the message
        self._beat_due = self._mono() + beat.every
        if beat.to is not None:
            now = self._wall()
            said = Notification(f"beat-{int(now)}", "heartbeat", "heartbeat", beat.to, now, {}, ())
            self.post.put(self.post.spread([said]), now)
            return
        self._beat_fault = await self.post.sender.ping(beat.url or "")

    # ------------------------------------------------------------------------- for the admin

    def alerts(self) -> list[Alert]:
        return [alert for each in self._watched.values() for alert in each.judge.alerts()]

    def muted(self) -> Mapping[str, Muted]:
        return self.telling.muted

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state."""
        found = []
        for name, each in self._watched.items():
            judge, rule = each.judge, each.judge.rule
            states = [alert.state for alert in judge.alerts()]
            state = next((s for s in ("firing", "pending") if s in states), "inactive")
            found.append(
                {
                    "name": name,
                    "expr": rule.expr,
                    "state": state,
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
                    "took_ms": each.took_ms,
                    "evaluations": each.evaluations,
                    "error": each.fault or judge.error,
                }
            )
        return found

    def silence(
        self,
        matchers: tuple[LabelMatcher, ...],
        starts: float | None,
        ends: float,
        author: str,
        comment: str,
    ) -> Silence:
        """Raises HeadgateError when it makes no sense."""
        now = self._wall()
        begins = now if starts is None else starts
        if not matchers:
            raise HeadgateError("a silence needs at least one condition")
        if not any(not each.matches({}) for each in matchers):
            raise HeadgateError("these conditions hold for every alert; name a label it must have")
        if ends <= max(begins, now):
            raise HeadgateError("a silence must end after it begins, and not in the past")
        if len(self.telling.silences) >= _MOST_SILENCES:
            raise HeadgateError(f"there are {_MOST_SILENCES} silences; end some of them first")
        made = Silence(secrets.token_hex(6), matchers, begins, ends, author, comment, now)
        self.telling.silences[made.id] = made
        self._is_dirty = True
        return made

    def unsilence(self, ident: str) -> Silence | None:
        self._is_dirty = True
        return self.telling.silences.pop(ident, None)

    def acknowledge(self, ident: str, by: str, comment: str) -> Ack | None:
        alert = next((each for each in self.alerts() if each.id == ident), None)
        if alert is None:
            return None
        self._is_dirty = True
        return self.telling.acknowledge(alert, by, comment, self._wall())

    async def test(self, receiver: str) -> list[dict[str, Any]] | None:
        known = self.post.receivers.get(receiver)
        if known is None:
            return None
        now = self._wall()
        ident = secrets.token_hex(8)
        said = Notification(
            f"test-{ident}", f"test-{ident}", "test", receiver, now, {}, (), "Sent by hand."
        )
        found = await self.post.test(known, said)
        self._is_dirty = True
        return found

    async def told(self, **asked: Any) -> list[dict[str, Any]]:
        if self._is_dirty:
            await self._save()
        if self._keeper is None or self._disk is None or not self._is_opened:
            return []
        keeper = self._keeper
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: keeper.told(**asked))

    async def replayed(self, name: str, since_s: float, step_s: float | None) -> Replay:
        """A rule over the past. Raises NoSuchRule, HeadgateError."""
        each = self._watched.get(name)
        if each is None:
            raise NoSuchRule(f"there is no rule {name}")
        if each.fault:
            raise HeadgateError(each.fault)
        ask = self.ask
        if ask is None:
            raise HeadgateError("there is no history to replay")
        rule, expr = each.judge.rule, each.expr
        end = self._wall()
        start = end - since_s
        step = max(step_s if step_s is not None else rule.every_s, since_s / _MOST_STEPS, 0.1)
        deadline = self._mono() + _REPLAY_S
        routing = self.telling.routing

        def steps() -> Iterable[tuple[float, Sequence[SampleLike] | str]]:
            count = int(since_s / step) + 1
            for first in range(0, count, _STEPS_AT_ONCE):
                places = range(first, min(first + _STEPS_AT_ONCE, count))
                yield from _answers(ask, self.ask_range, expr, start, step, places)

        def work() -> Replay:
            return replay(
                rule,
                steps(),
                start=start,
                end=end,
                step_s=step,
                routing=routing,
                is_over=lambda: self._mono() > deadline,
            )

        return await asyncio.to_thread(work)


def _answers(
    ask: Ask, ask_range: AskRange | None, expr: Any, start: float, step: float, places: range
) -> Iterable[tuple[float, Sequence[SampleLike] | str]]:
    """What the expression answers at each of these places."""
    times = [start + place * step for place in places]
    if ask_range is None:
        for at in times:
            try:
                yield at, ask(expr, at)
            except HeadgateError as error:
                yield at, str(error)
        return
    by_place: dict[int, list[SampleLike]] = {}
    try:
        for series in ask_range(expr, times[0], times[-1], step):
            for at, value in zip(series.times.tolist(), series.values.tolist(), strict=True):
                place = round((at - times[0]) / step)
                by_place.setdefault(place, []).append(_Answered(series.labels, value))
    except HeadgateError as error:
        yield from ((at, str(error)) for at in times)
        return
    for place, at in enumerate(times):
        yield at, by_place.get(place, ())


@dataclass(frozen=True, slots=True)
class _Answered:
    labels: Mapping[str, str]
    value: float


def _parsed(rule: Rule) -> tuple[Any, str]:
    try:
        from headgate.observe.query import parse
    except ImportError as error:
        return None, f"expressions need numpy: {error}"
    try:
        return parse(rule.expr), ""
    except HeadgateError as error:
        return None, str(error)


def _links(spec: AlertsSpec) -> dict[str, str]:
    if spec.url is None:
        return dict(spec.links)
    base = spec.url.rstrip("/").replace("{", "{{").replace("}", "}}")
    return {
        "history": f"{base}/api/history/query_range?query={{expr}}&start={{from}}&end={{to}}",
        "traces": f"{base}/api/traces?route={{route}}&since={{from}}&until={{to}}",
        "logs": f"{base}/api/logs?since={{from}}&until={{to}}",
        "alert": f"{base}/api/alerts/{{id}}",
        **spec.links,
    }
