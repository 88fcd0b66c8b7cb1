"""One rule judged over time: inactive -> pending -> firing -> resolved, for each label set.

Theory of operation
-------------------
`Judge.judge(samples, now)` is called with what the expression answered. Each label set has, for
each level, three times: `since` (the value has been beyond the bound without a break), `fired`
(and that for `for`), `lull` (it has been back on the good side of `clear` while firing; the level
ends after `keep_firing_for` of it). These are the rules of Prometheus, level by level, so that
both fire at the same evaluation; on top of them come

- one alert with the highest level that fires, instead of one alert a level;
- cooldown: what has ended fires again no sooner than that, unless at a higher level;
- flapping: when what fired changes too often, it is held in `firing` and marked, until it calms;
- a bound: label sets over `most` are not kept, and one alert with `overflow="true"` says so.

Nothing here reads a clock. `now` is wall time; whoever finds that the clock was set calls `shift`,
so that durations are of time that passed. An expression that failed changes nothing (`on_error:
keep`) or is an alert with `error="true"`. `dump` and `restore` carry the state over a restart;
time during which nobody looked counts for no `for`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any, Final, Protocol, cast

from headgate.observe.alerts.alert import Alert, Labels, State, fingerprint, finite, sorted_labels
from headgate.observe.alerts.rules import LEVELS, RANK, Level, Rule
from headgate.observe.alerts.wording import Wording

__all__ = ["KEPT_RESOLVED_S", "NO_DATA_KEPT_S", "Judge", "SampleLike"]

KEPT_RESOLVED_S: Final = 900.0
NO_DATA_KEPT_S: Final = 3600.0
"""With `no_data: keep`, a label set that is gone for so long will not come back."""
_LONGEST_VALUE: Final = 500


class SampleLike(Protocol):
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def value(self) -> float: ...


@dataclass(slots=True)
class _Tracked:
    labels: Labels
    id: str
    value: float = float("nan")
    began: float = 0.0
    since: dict[Level, float] = field(default_factory=dict)
    fired: dict[Level, float] = field(default_factory=dict)
    lull: dict[Level, float] = field(default_factory=dict)
    bits: str = ""
    is_flapping: bool = False
    fired_at: float | None = None
    resolved_at: float | None = None
    worst: Level | None = None
    """The highest level that it fired with, for the cooldown and for telling its end."""
    heard_at: float = 0.0

    @property
    def level(self) -> Level | None:
        return max(self.fired, key=lambda level: RANK[level], default=None)

    @property
    def is_idle(self) -> bool:
        return not self.since and not self.fired and not self.is_flapping


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer with the labels that alerts have."""

    found: dict[str, tuple[Labels, float]]
    first: tuple[tuple[Labels, float], ...]


class Judge:
    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._wording = Wording(rule)
        self._tracked: dict[str, _Tracked] = {}
        self.dropped = 0
        """Label sets of the last evaluation that found no room."""
        self.error = ""
        self.last_at: float | None = None
        self.last_values: tuple[tuple[Labels, float], ...] = ()

    # ------------------------------------------------------------------------------ judging

    def judge(self, samples: Iterable[SampleLike], now: float) -> None:
        """Take up one answer of the expression. Never raises for what samples say."""
        self.take(self.prepared(samples), now)

    def prepared(self, samples: Iterable[SampleLike]) -> Prepared:
        """What `take` wants of an answer. Most of the work, and on any thread: the rule is all that
        it reads.
        """
        found: dict[str, tuple[Labels, float]] = {}
        for sample in samples:
            labels = self._labels(sample.labels)
            found[fingerprint(labels)] = (labels, float(sample.value))
        return Prepared(found, tuple(nsmallest(20, found.values())))

    def take(self, prepared: Prepared, now: float) -> None:
        found = prepared.found
        self.error = ""
        self.last_at = now
        self.last_values = prepared.first
        forced: dict[str, tuple[Labels, float]] = {}
        if not found and self.rule.no_data == "alert":
            forced = self._own("no_data", 0.0)
        self._take(self._bounded(found, forced), forced, now)

    def judge_failed(self, why: str, now: float) -> None:
        """The expression could not be evaluated: nobody knows, so nothing ends."""
        self.error = why[:_LONGEST_VALUE] or "failed"
        self.last_at = now
        if self.rule.on_error == "alert":
            forced = self._own("error", 0.0)
            for ident, (labels, value) in forced.items():
                self._advance(self._track(ident, labels, now), value, now, is_forced=True)

    def _labels(self, said: Mapping[str, str]) -> Labels:
        labels = {
            str(name): str(value)[:_LONGEST_VALUE]
            for name, value in said.items()
            if name != "__name__"
        }
        labels.update(self._wording.labels(labels))
        labels["alertname"] = self.rule.name
        labels.pop("severity", None)  # ours, by level
        return sorted_labels(labels)

    def _own(self, mark: str, value: float) -> dict[str, tuple[Labels, float]]:
        labels = self._labels({mark: "true"})
        return {fingerprint(labels): (labels, value)}

    def _bounded(
        self,
        found: dict[str, tuple[Labels, float]],
        forced: dict[str, tuple[Labels, float]],
    ) -> dict[str, tuple[Labels, float]]:
        """Those beyond a bound, or followed already, short of what there is no room for."""
        rule, tracked = self.rule, self._tracked
        new = [
            ident
            for ident in found
            if ident not in tracked and self._is_beyond_any(found[ident][1])
        ]
        kept = {ident: each for ident, each in found.items() if ident in tracked}
        live = sum(not each.is_idle for each in tracked.values())
        room = max(0, rule.most - live)
        self.dropped = max(0, len(new) - room)
        if self.dropped:
            sign = -1.0 if rule.direction == "above" else 1.0
            new.sort(key=lambda ident: (sign * found[ident][1], ident))
            forced.update(self._own("overflow", float(self.dropped)))
        kept.update((ident, found[ident]) for ident in new[:room])
        return kept

    def _is_beyond_any(self, value: float) -> bool:
        rule = self.rule
        return not rule.thresholds or any(
            rule.is_beyond(value, each.bound) for each in rule.thresholds
        )

    def _take(
        self,
        found: dict[str, tuple[Labels, float]],
        forced: dict[str, tuple[Labels, float]],
        now: float,
    ) -> None:
        for ident, (labels, value) in found.items():
            self._advance(self._track(ident, labels, now), value, now)
        for ident, (labels, value) in forced.items():
            self._advance(self._track(ident, labels, now), value, now, is_forced=True)
        for ident, each in list(self._tracked.items()):
            if ident in found or ident in forced:
                continue
            if not each.is_idle and self._is_kept_without_data(each, now):
                continue
            self._advance(each, None, now)
            done = each.resolved_at
            calm = "1" not in each.bits
            if each.is_idle and calm and (done is None or now - done >= self._remembered_s):
                del self._tracked[ident]
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Label sets that come and go by the thousand must not fill memory once they are over."""
        over = len(self._tracked) - 4 * self.rule.most
        if over > 0:
            idle = [each for each in self._tracked.values() if each.is_idle]
            idle.sort(key=lambda each: each.heard_at)
            for each in idle[:over]:
                del self._tracked[each.id]

    @property
    def _remembered_s(self) -> float:
        return max(KEPT_RESOLVED_S, self.rule.cooldown_s)

    def _is_kept_without_data(self, each: _Tracked, now: float) -> bool:
        is_own = any(name in ("no_data", "error", "overflow") for name, _ in each.labels)
        is_keeping = self.rule.no_data == "keep" and bool(self.rule.thresholds) and not is_own
        return is_keeping and now - each.heard_at < NO_DATA_KEPT_S

    def _track(self, ident: str, labels: Labels, now: float) -> _Tracked:
        each = self._tracked.get(ident)
        if each is None:
            each = self._tracked[ident] = _Tracked(labels, ident, began=now)
        each.heard_at = now
        return each

    def _advance(
        self, each: _Tracked, value: float | None, now: float, *, is_forced: bool = False
    ) -> None:
        """One evaluation of one label set; no value means that it was not answered."""
        if value is not None:
            each.value = value
        was_idle = not each.since and not each.fired
        for level, bound, clear in self._bounds(is_forced):
            limit = clear if level in each.fired else bound
            is_beyond = value is not None and (limit is None or self.rule.is_beyond(value, limit))
            self._step(each, level, is_beyond, now)
        if was_idle and each.since:
            each.began = now
        self._flap(each)
        self._settle(each, now)

    def _bounds(self, is_forced: bool) -> list[tuple[Level, float | None, float | None]]:
        if is_forced or not self.rule.thresholds:
            return [(self.rule.lowest, None, None)]
        return [(each.level, each.bound, each.clear) for each in self.rule.thresholds]

    def _step(self, each: _Tracked, level: Level, is_beyond: bool, now: float) -> None:
        rule = self.rule
        if is_beyond:
            each.lull.pop(level, None)
            began = each.since.setdefault(level, now)
            if (
                level not in each.fired
                and now - began >= rule.for_s
                and not self._cools(each, level, now)
            ):
                each.fired[level] = now
            return
        if level in each.fired:
            quiet = each.lull.setdefault(level, now)
            if now - quiet < rule.keep_firing_s:
                return
            del each.fired[level]
            del each.lull[level]
        each.since.pop(level, None)

    def _cools(self, each: _Tracked, level: Level, now: float) -> bool:
        if each.fired_at is not None or each.resolved_at is None or each.worst is None:
            return False
        is_worse = RANK[level] > RANK[each.worst]
        return not is_worse and now - each.resolved_at < self.rule.cooldown_s

    def _flap(self, each: _Tracked) -> None:
        flapping = self.rule.flapping
        if flapping is None:
            each.is_flapping = False
            return
        is_on = any(level not in each.lull for level in each.since)
        each.bits = (each.bits + ("1" if is_on else "0"))[-flapping.window :]
        changes = sum(a != b for a, b in zip(each.bits, each.bits[1:], strict=False))
        share = changes / (flapping.window - 1)
        if each.is_flapping:
            each.is_flapping = share > flapping.ends_at
        else:
            has_fired = each.fired_at is not None or each.resolved_at is not None
            each.is_flapping = has_fired and share >= flapping.begins_at

    def _settle(self, each: _Tracked, now: float) -> None:
        """Begin or end the firing of the alert as a whole."""
        level = each.level
        if level is not None or (each.is_flapping and each.worst is not None):
            if each.fired_at is None:
                each.fired_at = now
                each.worst = None
                each.resolved_at = None
            if level is not None and (each.worst is None or RANK[level] > RANK[each.worst]):
                each.worst = level
            elif each.worst is None:
                each.worst = self.rule.lowest
        elif each.fired_at is not None:
            each.resolved_at = now
            each.fired_at = None

    # ------------------------------------------------------------------------------ showing

    def alerts(self) -> list[Alert]:
        """All that are pending, firing, or were resolved lately."""
        shown = []
        for each in self._tracked.values():
            state = _state(each)
            if state is not None:
                shown.append(self._shown(each, state))
        return shown

    def _shown(self, each: _Tracked, state: State) -> Alert:
        if state == "pending":
            level = max(each.since, key=RANK.__getitem__)
        else:
            level = each.level or each.worst or self.rule.lowest
        summary, description = self._wording.texts(dict(each.labels), each.value, level)
        return Alert(
            id=each.id,
            rule=self.rule.name,
            labels=each.labels,
            level=level,
            state=state,
            value=each.value,
            since=each.began,
            fired_at=each.fired_at,
            resolved_at=each.resolved_at if state == "resolved" else None,
            is_flapping=each.is_flapping,
            summary=summary,
            description=description,
            runbook=self.rule.runbook,
        )

    # ------------------------------------------------------------------------ over a restart

    def shift(self, by_s: float) -> None:
        """The clock was set by so much: every remembered time moves with it."""
        for each in self._tracked.values():
            for times in (each.since, each.fired, each.lull):
                for level in times:
                    times[level] += by_s
            each.began += by_s
            each.heard_at += by_s
            each.fired_at = None if each.fired_at is None else each.fired_at + by_s
            each.resolved_at = None if each.resolved_at is None else each.resolved_at + by_s
        self.last_at = None if self.last_at is None else self.last_at + by_s

    def dump(self) -> list[dict[str, Any]]:
        return [
            {
                "labels": dict(each.labels),
                "value": finite(each.value),
                "began": each.began,
                "since": dict(each.since),
                "fired": dict(each.fired),
                "lull": dict(each.lull),
                "bits": each.bits,
                "flapping": each.is_flapping,
                "fired_at": each.fired_at,
                "resolved_at": each.resolved_at,
                "worst": each.worst,
                "heard_at": each.heard_at,
            }
            for each in self._tracked.values()
        ]

    def restore(self, said: Iterable[Mapping[str, Any]], away_s: float = 0.0) -> None:
        """Take over what an earlier judge of a rule of this name knew. What makes no sense, as of
        a level that the rule no longer has, is left out.
        """
        known = {level for level, _, _ in self._bounds(False)} | {self.rule.lowest}
        for row in said:
            labels = sorted_labels({str(k): str(v) for k, v in row["labels"].items()})
            each = _Tracked(labels, fingerprint(labels))
            each.value = float("nan") if row["value"] is None else float(row["value"])
            each.began = float(row["began"])
            each.fired = _times(row["fired"], known)
            each.since = {
                level: at if level in each.fired else at + away_s
                for level, at in _times(row["since"], known).items()
            }
            each.lull = {
                level: at + away_s
                for level, at in _times(row["lull"], known).items()
                if level in each.fired
            }
            each.bits = "".join(bit for bit in str(row["bits"]) if bit in "01")
            each.is_flapping = bool(row["flapping"])
            each.fired_at = _time(row["fired_at"])
            each.resolved_at = _time(row["resolved_at"])
            each.worst = cast("Level", row["worst"]) if row["worst"] in LEVELS else None
            each.heard_at = float(row["heard_at"]) + away_s
            if len(self._tracked) < 2 * self.rule.most:
                self._tracked[each.id] = each


def _state(each: _Tracked) -> State | None:
    if each.fired_at is not None:
        return "firing"
    if each.since:
        return "pending"
    return "resolved" if each.resolved_at is not None else None


def _times(said: Mapping[str, Any], known: set[Level]) -> dict[Level, float]:
    return {level: float(said[level]) for level in known if level in said}


def _time(said: Any) -> float | None:
    return None if said is None else float(said)
