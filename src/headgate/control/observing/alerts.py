"""The department that judges alert rules and tells their receivers.

Theory of operation
-------------------
A turn comes every second: rules that are due are evaluated (`Watching`); what they answered so far
is brought to `Telling`; what it decides is written to the store together with the state it was
decided from, and only then sent (`Post`). When the store takes nothing, as on a full disk, or does
not answer, as on one that hangs, it is sent all the same: told twice after a crash is better than
not told. A sign of life goes to its URL beside the turns: one that hangs holds up no alert.

All times are wall time. Each turn compares how far wall and monotonic clock have moved; when they
differ by more than a moment, the clock was set, and everything that remembers a time is shifted.

Rules are judged from the history alone (`ask`); control's own figures are in there, too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from headgate.config import Config
from headgate.config.alerting import AlertsSpec, receivers_of, routing_of, rules_of
from headgate.config.budgets import generated_rules
from headgate.control.observing.alerts_post import Post
from headgate.control.observing.alerts_replaying import AskRange, replay_rule
from headgate.control.observing.alerts_store import Store
from headgate.control.observing.alerts_watching import Ask, Watching
from headgate.control.observing.observing import Surroundings
from headgate.errors import HeadgateError
from headgate.observe import Rows
from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.allowance import Allowances
from headgate.observe.alerts.matching import LabelMatcher
from headgate.observe.alerts.muting import Silence
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.outbox import Outbox
from headgate.observe.alerts.rendering import Links
from headgate.observe.alerts.replaying import Replay
from headgate.observe.alerts.routing import Routing
from headgate.observe.alerts.sending import Sender
from headgate.observe.alerts.telling import Ack, Muted, Telling

__all__ = ["Alerts", "NoSuchRule"]

Mark = Callable[[float, str, str, Mapping[str, str]], object]
Tell = Callable[..., object]
"""`LiveViews.tell(kind, text, **attributes)`."""

TURN_S: Final = 1.0
_SAVE_S: Final = 10.0
_CLOCK_SET_S: Final = 2.0
_MOST_SILENCES: Final = 1000
_REPLAY_S: Final = 60.0

log = logging.getLogger("headgate.alerts")


class NoSuchRule(HeadgateError):
    """No rule has this name."""


class Alerts:
    name = "alerts"

    def __init__(
        self,
        surroundings: Surroundings,
        ask: Ask | None = None,
        mark: Mark | None = None,
        ask_range: AskRange | None = None,
        *,
        tell: Tell | None = None,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - alerts have times of the clock
        rng: random.Random | None = None,
        turn_s: float = TURN_S,
    ) -> None:
        self._surroundings = surroundings
        self.mark = mark
        self.tell = tell
        self.ask_range = ask_range
        self._mono = mono
        self._wall = wall
        self._turn_s = turn_s
        self.spec: AlertsSpec | None = None
        self.watching = Watching(ask, mono, wall)
        self.telling = Telling(Routing(routing_of(AlertsSpec()).root))
        self._allowances = Allowances({})
        self._rng = rng if rng is not None else random.Random()
        outbox = Outbox(rng=self._rng)
        self.post = Post(outbox, Sender(), wall, self._on_changed)
        self.store = Store()
        self._is_dirty = False
        self._saved_at = 0.0
        self._clocks = (mono(), wall())
        self._firing: dict[str, Alert] = {}
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._beat_due = 0.0
        self._beat_fault = ""

    # ------------------------------------------------------------------------------ the frame

    def start(self) -> None:
        self.watching.start()
        self.store.start()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="alerts")

    def take(self, config: Config) -> None:
        said = getattr(config, "alerts", None)
        if said is False:
            self.spec = None
            self.watching.rules = {}
            return
        spec = said if isinstance(said, AlertsSpec) else AlertsSpec()
        self.spec = spec
        rules = rules_of(spec, generated_rules(config))
        self.watching.timeout_s = spec.timeout
        self.watching.take(rules)
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
        path = self._surroundings.state_dir / self.name / "alerts.db"
        self.store.take(path, most=spec.keep_notifications)

    async def close(self) -> None:
        ending = [task for task in (self._task, self._beating) if task is not None]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self.watching.close()
        await self.post.close()
        if self._writing is not None:
            await self.store.has_ended(self._writing)
        await self._save()
        await self.store.close()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def worries(self) -> Iterable[str]:
        yield from (f"alerts: {fault}" for fault in self.store.worries())
        yield from (f"alerts: {fault}" for fault in self.watching.worries())
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
        for result, count in self.watching.counts.items():
            rows["headgate_alerts_evaluations_total"].append(([result], count))
        for (channel, outcome), count in self.post.counts.items():
            rows["headgate_alerts_notifications_total"].append(([channel, outcome], count))
        rows["headgate_alerts_queued"].append(([], len(self.post.outbox)))
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
        if not self.store.is_open:
            await self._open()
        self._mind_the_clock()
        if self.spec is None:
            return
        self.watching.begin()
        now = self._wall()
        alerts = self.alerts()
        said = self._allowances.admit(self.telling.turn(alerts, now), now)
        self._mark_changes(alerts)
        self.post.put(self.post.spread(said), now)
        self._is_dirty = self._is_dirty or bool(said)
        if self._is_dirty or self._mono() - self._saved_at >= _SAVE_S:
            await self._save()
        self.post.run(now)
        self._beat()

    def _mind_the_clock(self) -> None:
        mono, wall = self._mono(), self._wall()
        by_s = (wall - self._clocks[1]) - (mono - self._clocks[0])
        self._clocks = (mono, wall)
        if abs(by_s) <= _CLOCK_SET_S:
            return
        log.warning("the clock was set by %.0f s; times of alerts move with it", by_s)
        self.watching.shift(by_s)
        self.telling.shift(by_s)
        self._allowances.shift(by_s)
        self.post.outbox.shift(by_s)

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
                # Not its summary, which says how bad it is.
                self._mark(alert, f"resolved: {alert.rule}", "resolved")

    def _mark(self, alert: Alert, text: str, state: str) -> None:
        self._is_dirty = True
        log.log(logging.INFO if state == "resolved" else logging.WARNING, "alert %s", text)
        attributes = {**alert.matched, "id": alert.id, "state": state}
        try:
            if self.mark is not None:
                self.mark(self._wall(), "alert", text, attributes)
        except Exception:
            log.exception("the history does not take a marker")
        if self.tell is not None:
            # Labels are whatever a rule says, so they do not stand beside the names of an event.
            self.tell(
                "alert",
                _with_labels(text, alert) if state == "resolved" else text,
                alert=alert.id,
                rule=alert.rule,
                level=alert.level,
                state=state,
                labels=dict(alert.labels),
            )

    # ------------------------------------------------------------------------------ the store

    def _on_changed(self) -> None:
        self._is_dirty = True

    async def _open(self) -> None:
        now = self._wall()
        kept = await self.store.open(now)
        if kept is None:
            return
        try:
            self._restore(kept, now)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            self.store.makes_no_sense(error)
            log.warning("kept state of alerts is left out", exc_info=True)

    def _restore(self, kept: Mapping[str, Any], now: float) -> None:
        saved_at = float(kept.get("saved", {}).get("at", now))
        if not math.isfinite(saved_at):
            saved_at = now
        # Saved in the future: the clock was set back while nobody looked.
        by_s = min(0.0, now - saved_at)
        away_s = max(0.0, now - saved_at)
        self.watching.restore(dict(kept.get("rules", {})), away_s=away_s, by_s=by_s)
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
        if not self.store.is_open or self._writing is not None:
            return  # a write that hangs is waited for once
        self._writing = asyncio.get_running_loop().create_task(self._write(), name="alerts-write")
        self._writing.add_done_callback(self._written)
        await self.store.has_ended(self._writing)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._is_dirty = True
            log.error("the state of alerts is not written", exc_info=error)

    async def _write(self) -> None:
        kept = {
            "saved": {"at": self._wall()},
            "rules": self.watching.dump(),
            "telling": self.telling.dump(),
            "allowances": self._allowances.dump(),
            "outbox": self.post.outbox.dump(),
        }
        rows, self.post.rows = self.post.rows, []
        self._is_dirty = False
        self._saved_at = self._mono()
        if not await self.store.write(kept, rows):
            self.post.rows = [*rows, *self.post.rows][-2000:]
            self._is_dirty = True

    # -------------------------------------------------------------------------- sign of life

    def _beat(self) -> None:
        spec = self.spec
        beat = spec.heartbeat if spec is not None else None
        if spec is None or beat is None or self._mono() < self._beat_due:
            return
        if self._wall() - self.watching.judged_at > 3 * spec.every + self._turn_s + 5.0:
            return  # nothing is judged: silence is the message
        self._beat_due = self._mono() + beat.every
        if beat.to is not None:
            now = self._wall()
            said = Notification(f"beat-{int(now)}", "heartbeat", "heartbeat", beat.to, now, {}, ())
            self.post.put(self.post.spread([said]), now)
            return
        if self._beating is None or self._beating.done():
            ping = self._ping(beat.url or "")
            self._beating = asyncio.get_running_loop().create_task(ping, name="alerts-heartbeat")

    async def _ping(self, url: str) -> None:
        try:
            self._beat_fault = await self.post.sender.ping(url)
        except Exception as error:
            log.exception("a heartbeat failed")
            self._beat_fault = repr(error)

    # ------------------------------------------------------------------------- for the admin

    def alerts(self) -> list[Alert]:
        return self.watching.alerts()

    def muted(self) -> Mapping[str, Muted]:
        return self.telling.muted

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state."""
        return [each.row() for each in self.watching.rules.values()]

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
        return await self.store.told(**asked)

    async def replayed(self, name: str, since_s: float, step_s: float | None) -> Replay:
        """A rule over the past. Raises NoSuchRule, HeadgateError."""
        each = self.watching.rules.get(name)
        if each is None:
            raise NoSuchRule(f"there is no rule {name}")
        if each.fault:
            raise HeadgateError(each.fault)
        ask = self.watching.ask
        if ask is None:
            raise HeadgateError("there is no history to replay")
        deadline = self._mono() + _REPLAY_S
        return await asyncio.to_thread(
            replay_rule,
            each.judge.rule,
            each.expr,
            ask,
            self.ask_range,
            end=self._wall(),
            since_s=since_s,
            step_s=step_s,
            routing=self.telling.routing,
            is_over=lambda: self._mono() > deadline,
        )


def _with_labels(text: str, alert: Alert) -> str:
    said = ", ".join(f"{name}={value}" for name, value in alert.labels if name != "alertname")
    return f"{text} ({said})" if said else text


def _links(spec: AlertsSpec) -> dict[str, str]:
    if spec.url is None:
        return dict(spec.links)
    base = spec.url.rstrip("/").replace("{", "{{").replace("}", "}}")
    return {
        "history": f"{base}/api/history/range?query={{expr}}&start={{from}}&end={{to}}",
        "traces": f"{base}/api/traces?route={{route}}&since={{from}}&until={{to}}",
        "logs": f"{base}/api/logs?level=warning&since={{from}}&until={{to}}",
        "alert": f"{base}/api/alerts/{{id}}",
        **spec.links,
    }
