"""The tiered store: what comes each second, sealed by the minute, rolled up by minute and hour.

Theory of operation
-------------------
One thread appends; any thread selects. Samples of a moment go into the column of an open matrix
and, as the bits that changed, into a log, which is all that a crash leaves of them. When its minute
is over the matrix becomes a block (`block.py`), and one column of the next tier: last, count, sum,
min and max of each series. Blocks of that tier are sealed by the hour, and theirs by the day.

Blocks are numbered. A block of the next tier is sealed before a block that it does not hold gets
its number, so at the start the blocks numbered after the newest of the next tier are exactly those
still to be rolled up: nothing else about open matrices needs to be kept.

Time. A clock that goes back by little is waited for; by more, it begins a new block, and a select
sorts what overlaps: what was written later is believed. What is too old is judged by a clock that
mistrusts leaps (`trusted.py`), or one wrong second would empty the store.

Disk. What cannot be written stays in memory, up to a bound, and is written when that is possible.
What is too much goes: the oldest of the finest tier first. What is spoilt is set aside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headgate.observe.history import block as blocks
from headgate.observe.history.beginnings import Beginnings, Lives, key_of
from headgate.observe.history.block import Block
from headgate.observe.history.codec import Floats, Spoilt, nine_digits
from headgate.observe.history.disk import Disk
from headgate.observe.history.figures import Figures
from headgate.observe.history.gather import Held, gathered
from headgate.observe.history.open_block import FIELDS, OpenBlock, rolled_up
from headgate.observe.history.openlog import OpenLog, replay
from headgate.observe.history.rules import TIERS, Family, Keep
from headgate.observe.history.series import Key, SeriesSet
from headgate.observe.history.spans import spans_of
from headgate.observe.history.trusted import TrustedClock
from headgate.observe.query import Matcher, Series

__all__ = ["Figures", "Store"]

_COLUMNS: Final = (64, 60, 24)
_WAIT_S: Final = 5.0
_RETRY_S: Final = 5.0


class Store:
    """A history in a folder; without one, in memory only."""

    def __init__(self, folder: Path | None, keep: Keep = Keep()) -> None:  # noqa: B008  frozen
        self.keep = keep
        self._disk = Disk(folder) if folder is not None else None
        self._log = OpenLog(self._disk.log_path) if self._disk is not None else None
        self._lock = threading.RLock()
        self._blocks: list[Block] = []
        self._sets: dict[str, SeriesSet] = {}
        """Of blocks that are in memory only."""
        self._open = [OpenBlock(size, is_rolled=n > 0) for n, size in enumerate(_COLUMNS)]
        self._rows: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], int]] = {}
        self._logged = 0
        self._is_logging = False
        self._sequence = 0
        self._tried_at = -_RETRY_S
        self._clock = TrustedClock()
        self._beginnings = Beginnings(keep.max_series)
        self.figures = Figures()

    def append(
        self, wall: float, mono: float, families: Sequence[Family], lives: Lives | None = None
    ) -> None:
        """One moment's samples. `mono` does not jump; `lives` says whose: see `beginnings.py`."""
        self._open_disk(mono)
        if not self._clock.is_set:
            # The earlier of the two: a clock that was wrong may have left a block of next year.
            newest = max((one.end for one in self._blocks), default=wall)
            self._clock.begin(min(wall, newest), mono)
        self._clock.note(wall, mono)
        now = self._open[0]
        if now.used:
            newest = float(now.times[now.used - 1])
            if newest - _WAIT_S < wall <= newest:
                self.figures.skipped_moments += 1
                return
            with self._lock:
                zeros = self._beginnings.rows(now, wall, lives, families, self._rows)
            if zeros:
                self._note(wall, zeros)
            if now.is_full or wall <= newest or wall // 60 != now.times[0] // 60:
                self._seal_seconds()
        self._beginnings.noted(None)
        left_out = self.figures.dropped_series
        with self._lock:
            self._put(wall, families)
        if left_out == self.figures.dropped_series:  # else some have counted unseen
            self._beginnings.noted(lives)

    def _put(self, wall: float, families: Iterable[Family]) -> None:
        now = self._open[0]
        rows: list[int] = []
        values: list[float] = []
        for family in families:
            known = self._rows.get((family.name, family.labels))
            if known is None:
                known = self._rows[family.name, family.labels] = {}
            try:
                rows += [known[labels] for labels in family.samples]
            except KeyError:
                del rows[len(values) :]
                kept = self._known(now, family, known)
                rows += [known[labels] for labels in kept]
                values += kept.values()
                continue
            values += family.samples.values()
        column = np.full(len(now.keys), np.nan)
        column[np.array(rows, dtype=np.intp)] = nine_digits(np.array(values, dtype=np.float64))
        now.put(wall, None, {"last": column})
        self.figures.samples += len(values)
        self.figures.series = len(now.keys)
        self._note(wall, column)

    def _known(
        self, now: OpenBlock, family: Family, known: dict[tuple[str, ...], int]
    ) -> dict[tuple[str, ...], float]:
        """Give rows to series that have none; those too many are left out."""
        kept: dict[tuple[str, ...], float] = {}
        for labels, value in family.samples.items():
            if labels not in known:
                if len(now.keys) >= self.keep.max_series:
                    self.figures.dropped_series += 1
                    continue
                known[labels] = now.row(key_of(family, labels), family.kind == "counter")
            kept[labels] = value
        return kept

    def _note(self, wall: float, told: Floats | list[int]) -> None:
        """Into the log; where that fails, a crash would lose this minute, and no more."""
        if self._log is None or not self._is_logging:
            return
        now = self._open[0]
        try:
            if self._logged < len(now.keys):
                self._log.series(now.keys[self._logged :], now.is_counter[self._logged :])
                self._logged = len(now.keys)
            if isinstance(told, list):
                self._log.zeros(told)
            else:
                self._log.moment(wall, told)
        except OSError as error:
            self.figures.trouble = f"the history cannot be written: {error}"
            self._is_logging = False

    def _begin_log(self) -> None:
        self._logged = 0
        self._is_logging = False
        if self._log is None or self._disk is None or not self._disk.is_open:
            return
        try:
            self._log.begin()
            self._is_logging = True
        except OSError as error:
            self.figures.trouble = f"the history cannot be written: {error}"

    def _seal_seconds(self) -> None:
        now = self._open[0]
        if not now.used:
            return
        self._make_way(1, float(now.times[0]))
        self._seal(0)
        with self._lock:
            fresh = OpenBlock(_COLUMNS[0], is_rolled=False)
            living = now.living()
            if len(living) == len(now.keys):
                for key, is_counter in zip(now.keys, now.is_counter, strict=True):
                    fresh.row(key, is_counter)
            else:
                self._beginnings.ended(set(now.keys) - {now.keys[row] for row in living})
                self._rows = {}  # some have ended; the others get rows as they come
            self._open[0] = fresh
        self._begin_log()
        self._tidy()

    def _make_way(self, tier: int, at: float) -> None:
        """Seal the open block of a tier unless a column of this time belongs into it."""
        block = self._open[tier]
        if not block.used:
            return
        each, newest = TIERS[tier].block_s, float(block.times[block.used - 1])
        if block.is_full or at < newest or at // each != block.times[0] // each:
            if tier + 1 < len(TIERS):
                self._make_way(tier + 1, float(block.times[0]))
            self._seal(tier)
            with self._lock:
                self._open[tier] = OpenBlock(_COLUMNS[tier], is_rolled=True)

    def _seal(self, tier: int) -> None:
        """Make a block of what is open, and a column of the next tier."""
        now = self._open[tier]
        series, times = now.series(), now.times[: now.used].copy()
        self._sequence += 1
        fields: dict[str, tuple[Floats, NDArray[np.int64] | None]] = {
            "last": (now.matrix("last"), None)
        }
        gauges = np.flatnonzero(~np.array(now.is_counter, dtype=bool)).astype(np.int64)
        if now.is_rolled and len(gauges):
            for name in FIELDS[1:]:
                matrix = now.matrix(name)[gauges]
                fields[name] = (nine_digits(matrix) if name == "sum" else matrix, gauges)
        data = blocks.to_bytes(tier, self._sequence, series.digest, times, fields)
        made = blocks.read_head(data, len(data))
        made.data = data
        with self._lock:
            self._sets[series.digest] = series
            self._blocks.append(made)
            if tier + 1 < len(TIERS):
                self._roll(now, self._open[tier + 1])
        self._write()

    @staticmethod
    def _roll(now: OpenBlock, into: OpenBlock) -> None:
        rows = [into.row(k, c) for k, c in zip(now.keys, now.is_counter, strict=True)]
        at = float(now.times[: now.used].max())
        into.put(at, np.array(rows, dtype=np.intp), rolled_up(now))

    def _open_disk(self, mono: float) -> None:
        if self._disk is None or self._disk.is_open or mono - self._tried_at < _RETRY_S:
            return
        self._tried_at = mono
        try:
            found = self._disk.open()
        except OSError as error:
            self.figures.trouble = f"the history is in memory only: {error}"
            return
        self.figures.trouble = ""
        with self._lock:
            self._blocks = [*found, *self._blocks]
            held = max((one.sequence for one in found), default=0)
            if self._sequence:
                for one in self._blocks[len(found) :]:
                    one.sequence += held
            self._sequence += held
        self._recover()
        self._count()

    def _recover(self) -> None:
        """Roll up what the last process had not, and take up its log."""
        is_first = not self._open[0].used and not any(one.data for one in self._blocks)
        if is_first:
            for tier in (1, 0):
                self._roll_again(tier)
        keys, kinds, moments = replay(self._disk.log_path) if self._disk else ([], [], [])
        for first in range(0, len(moments), _COLUMNS[0]):
            part = moments[first : first + _COLUMNS[0]]
            self._replayed(keys, kinds, part, is_last=first + _COLUMNS[0] >= len(moments))
        if not is_first or not moments:
            self._begin_log()

    def _replayed(
        self,
        keys: list[Key],
        kinds: list[bool],
        moments: list[tuple[float, Floats]],
        *,
        is_last: bool,
    ) -> None:
        held, held_rows = self._open[0], self._rows
        fresh = OpenBlock(_COLUMNS[0], is_rolled=False)
        for key, kind in zip(keys, kinds, strict=False):
            fresh.row(key, kind)
        for at, values in moments:
            fresh.put(at, None, {"last": values})
        with self._lock:
            self._open[0], self._rows = fresh, {}
        if is_last and not held.used:
            self._begin_log()  # and what was replayed goes into it again
            for at, values in moments:
                self._note(at, values)
            return
        self._make_way(1, float(fresh.times[0]))
        self._seal(0)
        with self._lock:
            self._open[0], self._rows = held, held_rows

    def _roll_again(self, tier: int) -> None:
        """Columns of the open block of the next tier, out of blocks sealed since its last."""
        done = max((one.sequence for one in self._blocks if one.tier == tier + 1), default=0)
        left = [one for one in self._blocks if one.tier == tier and one.sequence > done]
        for one in sorted(left, key=lambda one: one.sequence)[-_COLUMNS[tier + 1] :]:
            try:
                series = self._series(one)
                again = OpenBlock(len(one.times), is_rolled=tier > 0)
                for key, kind in zip(series.keys, series.is_counter, strict=True):
                    again.row(key, kind)
                rows = list(range(len(series.keys)))
                fields = {name: one.read(name, rows) for name in again.names}
            except (Spoilt, OSError) as error:
                self._lose(one, str(error))
                continue
            for column, at in enumerate(one.times):
                again.put(float(at), None, {n: m[:, column] for n, m in fields.items()})
            self._make_way(tier + 1, float(one.times[0]))
            with self._lock:
                self._roll(again, self._open[tier + 1])

    def _write(self) -> None:
        """Bring to the disk what is in memory, the oldest first."""
        if self._disk is None or not self._disk.is_open:
            self._drop_unwritten()
            return
        for one in [one for one in self._blocks if one.data is not None]:
            try:
                self._disk.write(one, self._sets[one.series])
            except OSError as error:
                self.figures.trouble = f"the history is in memory only: {error}"
                self._drop_unwritten()
                return
        self.figures.trouble = ""
        with self._lock:
            for series in self._sets.values():
                self._disk.hold(series)
            self._sets.clear()

    def _drop_unwritten(self) -> None:
        waiting = [one for one in self._blocks if one.data is not None]
        size = sum(one.size for one in waiting)
        for one in sorted(waiting, key=lambda one: (one.tier, one.start)):
            if size <= self.keep.max_memory_bytes:
                break
            size -= one.size
            self.figures.lost_blocks += 1
            with self._lock:
                self._blocks.remove(one)

    def _tidy(self) -> None:
        """Let go what is too old or too much."""
        now, keep = self._clock.now, self.keep.keep.by_tier
        with self._lock:
            gone = [one for one in self._blocks if one.end < now - keep[one.tier]]
            sets = self._disk.sets_bytes() if self._disk is not None else 0
            gone_ids = {id(one) for one in gone}
            size = sets + sum(one.size for one in self._blocks if id(one) not in gone_ids)
            oldest = sorted(self._blocks, key=lambda one: (one.tier, one.start))
            for one in oldest:
                if size <= self.keep.disk_bytes:
                    break
                if id(one) not in gone_ids:
                    gone.append(one)
                    gone_ids.add(id(one))
                    size -= one.size
            self._blocks = [one for one in self._blocks if id(one) not in gone_ids]
            used = {one.series for one in self._blocks}
        if self._disk is not None and self._disk.is_open:
            for one in gone:
                self._disk.remove(one)
            self._disk.drop_sets(used)
        self._count()

    def _count(self) -> None:
        figures = self.figures
        figures.blocks = {
            tier.name: sum(one.tier == number for one in self._blocks)
            for number, tier in enumerate(TIERS)
        }
        figures.unwritten_blocks = sum(one.data is not None for one in self._blocks)
        written = sum(one.size for one in self._blocks if one.data is None)
        figures.bytes_on_disk = written + (self._disk.sets_bytes() if self._disk else 0)
        figures.spoilt = len(self._disk.spoilt) if self._disk else 0

    def _lose(self, one: Block, why: str) -> None:
        with self._lock:
            if one not in self._blocks:
                return
            self._blocks.remove(one)
        if self._disk is not None and one.path is not None and one.path.exists():
            self._disk.set_aside(one.path, why)
        self._count()

    def _series(self, one: Block) -> SeriesSet:
        with self._lock:
            if (held := self._sets.get(one.series)) is not None:
                return held
            if self._disk is None:
                raise Spoilt("the names of its series are lost")
            return self._disk.series(one.series)

    # -------------------------------------------------------------------------------- reading

    def select(
        self,
        name: str,
        matchers: Sequence[Matcher],
        start: float,
        end: float,
        *,
        each_s: float = 1.0,
    ) -> list[Series]:
        """Series with samples no farther apart than `each_s` where there are such, and with what
        there is elsewhere.
        """
        held: list[list[Held]] = [[] for _ in TIERS]
        with self._lock:
            sealed = [one for one in self._blocks if one.end >= start and one.start <= end]
            for tier, now in enumerate(self._open):
                if now.used and now.times[: now.used].max() >= start:
                    series = now.series()
                    rows = series.find(name, matchers)
                    fields = {field: now.read(field, rows).copy() for field in now.names}
                    held[tier].append(
                        Held(series, rows, now.times[: now.used].copy(), fields, 1e18)
                    )
            reach = [
                min(
                    (
                        *(one.start for one in self._blocks if one.tier == tier),
                        *([float(now.times[: now.used].min())] if now.used else ()),
                    ),
                    default=float("inf"),
                )
                for tier, now in enumerate(self._open)
            ]
        wanted = max(
            (tier for tier, rule in enumerate(TIERS) if rule.each_s <= each_s * 1.001), default=0
        )
        spans = spans_of(reach, wanted, start, end, held, sealed)
        meant: dict[str, list[int]] = {}
        for one in sorted(sealed, key=lambda one: one.sequence):
            low, high = spans[one.tier]
            if one.end < low or one.start > high:
                continue
            try:
                series = self._series(one)
                if one.series not in meant:
                    meant[one.series] = series.find(name, matchers)
                rows = meant[one.series]
                if not rows:
                    continue
                is_gauge = not all(series.is_counter[row] for row in rows)
                names = FIELDS if one.tier and is_gauge else FIELDS[:1]
                fields = {field: one.read(field, rows) for field in names}
            except Spoilt as error:
                self._lose(one, str(error))
                continue
            except OSError as error:
                if not isinstance(error, FileNotFoundError):  # else it was let go of meanwhile
                    self.figures.trouble = f"a part of the history cannot be read: {error}"
                continue
            held[one.tier].append(Held(series, rows, one.times, fields, one.sequence))
        return gathered(held, spans, start, end)

    def series(self, name: str, matchers: Sequence[Matcher], start: float, end: float) -> list[Key]:
        """Labels of all series that are meant and have a block in that time."""
        found: dict[Key, None] = {}
        with self._lock:
            sealed = [one for one in self._blocks if one.end >= start and one.start <= end]
            sets = [one.series() for one in self._open if one.used]
        for digest in {one.series for one in sealed}:
            one = next(one for one in sealed if one.series == digest)
            try:
                sets.append(self._series(one))
            except Spoilt as error:
                self._lose(one, str(error))
        for series in sets:
            for row in series.find(name, matchers):
                found[series.keys[row]] = None
        return list(found)

    def apart_s(self, start: float, each_s: float) -> float:
        """How far apart samples are, at the most, in a select from `start` on."""
        tiers = [tier for tier, rule in enumerate(TIERS) if rule.each_s <= each_s * 1.001]
        wanted = max(tiers, default=0)
        with self._lock:
            for tier in range(wanted, len(TIERS)):
                reach = min(
                    (one.start for one in self._blocks if one.tier == tier), default=float("inf")
                )
                coarser = any(one.tier > tier and one.start < reach for one in self._blocks)
                if reach <= start or not coarser:
                    return TIERS[tier].each_s
        return TIERS[-1].each_s

    def spoilt(self) -> list[str]:
        """What was set aside, and why, until somebody has taken it away."""
        return self._disk.lies_there() if self._disk is not None else []

    def close(self) -> None:
        """Seal what is open. The store is not used after."""
        is_open = self._disk is not None and self._disk.is_open
        is_safe = self._is_logging and not any(one.data is not None for one in self._blocks)
        if is_open and not is_safe:  # else the next process goes on with the log
            self._seal_seconds()
        if self._log is not None:
            self._log.close()
        if self._disk is not None:
            self._disk.close()
