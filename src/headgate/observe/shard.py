"""What one worker counts: plain objects without locks, one set a process.

Theory of operation. The worker's one thread alone writes and reads these, so a count is `+= 1` on
a slot. Objects are looked up by name when a plan is built and then held by those who count; the
request path never looks one up. `WorkerStats.snapshot()` turns all of it into JSON-able rows named
as in `metrics.METRICS`; the control process adds the rows of all workers up (`merge.py`).

Bounds. Routes, instances and listeners are registered in the order of the plan, which is the same
in all workers. Once a family is full, one more name gets the common `other` object. Names of a
former plan stay until their places are needed; then they are folded into `other`, so that no count
is lost and none goes backwards. Requests of a former plan may still be under way when its routes
are folded: folding makes a route share the lists of `other`, and what they count lands there.
Instances and listeners are folded only once nothing is open to them.

What an editor must not break: `RouteStats.record` runs once a request and costs less than half a
microsecond (`benchmarks/observe_costs.py`); everything else may be slow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final, Generic, Protocol, TypeVar

from headgate.observe import histogram
from headgate.observe.histogram import BOUNDS
from headgate.observe.metrics import METRICS, OTHER

Row = tuple[list[str], Any]
"""Label values and a number, or for a histogram `{"counts": [...], "sum": s}`."""
Rows = dict[str, list[Row]]

DEFAULT_MAX_SETS: Final = 1000
_CODE_SETS_A_ROUTE: Final = 10  # how many method-code pairs a route may have on average

_STEP_ROUTES: Final = 10
_STEP_INSTANCES: Final = 50
_SPARE_MAX: Final = 200
_SPARE_TRIES: Final = 16

_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
)
_STATUSES = frozenset((*(int(status) for status in HTTPStatus), 499))


class _Budget:
    """How many more label sets a family may have."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return True


class _Sums:
    """What is added up for a route."""

    __slots__ = ("bytes_in", "bytes_out", "seconds", "upstream_s", "whole_s")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.upstream_s = 0.0
        self.whole_s = 0.0
        """Of responses that came in one piece; they belong to both of the above."""
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, other: _Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class RouteStats:
    """Requests of one route to one service.

    A response that came in one piece took as long upstream as it took altogether. Those, nearly
    all where answers are small, are counted once, in `whole`.
    """

    __slots__ = ("_budget", "_made", "_made_at", "codes", "duration", "sums", "upstream", "whole")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self.codes: dict[str, dict[int, list[int]]] = {}
        self.duration = histogram.empty()
        self.upstream = histogram.empty()
        self.whole = histogram.empty()
        self.sums = _Sums()
        self._made: list[tuple[str, Row]] = []
        """The rows of the last snapshot, by family, and how many requests they are of."""
        self._made_at = 0

    def record(
        self,
        method: str,
        status: int,
        duration_s: float,
        upstream_s: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count one request that has ended. `upstream_s` < 0: it never went upstream."""
        try:
            self.codes[method][status][0] += 1
        except KeyError:
            self._count_rare(method, status)
        bucket = bisect_left(BOUNDS, duration_s)
        sums = self.sums
        if upstream_s == duration_s:
            self.whole[bucket] += 1
            sums.whole_s += duration_s
        else:
            self.duration[bucket] += 1
            sums.seconds += duration_s
            if upstream_s >= 0.0:
                self.upstream[bisect_left(BOUNDS, upstream_s)] += 1
                sums.upstream_s += upstream_s
        if bytes_in:
            sums.bytes_in += bytes_in
        sums.bytes_out += bytes_out

    def _count_rare(self, method: str, status: int) -> None:
        """Count a pair seen for the first time, or one without a label set of its own."""
        if method not in _METHODS:
            method = OTHER
        if status not in _STATUSES:
            status = -max(0, min(status // 100, 9))  # shown as its class
        codes = self.codes.setdefault(method, {})
        if status not in codes:
            if not self._budget.take():
                codes, status = self.codes.setdefault(OTHER, {}), 0
            codes.setdefault(status, [0])
        codes[status][0] += 1

    @property
    def is_quiet(self) -> bool:
        return True  # folding is safe at any time

    def fold_into(self, other: RouteStats) -> None:
        """Move everything counted here to `other`, and what is still to come."""
        for method, codes in self.codes.items():
            into = other.codes.setdefault(method, {})
            for status, count in codes.items():
                if status in into:
                    into[status][0] += count[0]
                    self._budget.left += 1
                else:
                    into[status] = count
        histogram.add(other.duration, self.duration)
        histogram.add(other.upstream, self.upstream)
        histogram.add(other.whole, self.whole)
        other.sums.add(self.sums)
        self.codes, self.sums = other.codes, other.sums
        self.duration, self.upstream, self.whole = other.duration, other.upstream, other.whole

    def rows_into(self, rows: Rows, route: str, service: str) -> None:
        """Append this route's rows, once it has counted anything. They are for reading only: those
        of a route that had no request since are those of the last time.
        """
        total = sum([count[0] for codes in self.codes.values() for count in codes.values()])
        if total != self._made_at:
            self._made = list(self._rows(route, service))
            self._made_at = total
        for family, row in self._made:
            rows[family].append(row)

    def _rows(self, route: str, service: str) -> Iterator[tuple[str, Row]]:
        for method, codes in self.codes.items():
            for status, count in codes.items():
                labels = [route, service, method, _code_label(status)]
                yield "headgate_http_requests_total", (labels, count[0])
        labels = [route, service]
        sums = self.sums
        duration, upstream = self.duration.copy(), self.upstream.copy()
        histogram.add(duration, self.whole)
        histogram.add(upstream, self.whole)
        counted = {"counts": duration, "sum": sums.seconds + sums.whole_s}
        yield "headgate_http_request_duration_seconds", (labels, counted)
        if any(upstream):
            counted = {"counts": upstream, "sum": sums.upstream_s + sums.whole_s}
            yield "headgate_upstream_duration_seconds", (labels, counted)
        yield "headgate_http_request_body_bytes_total", (labels, sums.bytes_in)
        yield "headgate_http_response_body_bytes_total", (labels, sums.bytes_out)


def _code_label(status: int) -> str:
    if status > 0:
        return str(status)
    return f"{-status}xx" if status else OTHER


class Counts:
    """Counters under names that come from code, bounded in case one does not."""

    __slots__ = ("_max", "counts")

    def __init__(self, max_sets: int = 64) -> None:
        self._max = max_sets
        self.counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        """Add to the counter `name`, or to `other` when there are too many names."""
        try:
            self.counts[name] += count
        except KeyError:
            if len(self.counts) >= self._max:
                name = OTHER
            self.counts[name] = self.counts.get(name, 0) + count

    def take_over(self, counts: Counts) -> None:
        """Add all of `counts`."""
        for name, count in counts.counts.items():
            self.add(name, count)


class ListenerStats:
    """Client connections of one listener."""

    __slots__ = ("accepted", "open", "refused", "tls_failed", "tls_ok")

    def __init__(self) -> None:
        self.open = 0
        self.accepted = 0
        self.tls_ok = 0
        self.tls_failed = Counts()
        """By what went wrong."""
        self.refused = Counts()

    @property
    def is_quiet(self) -> bool:
        return not self.open

    def fold_into(self, other: ListenerStats) -> None:
        other.accepted += self.accepted
        other.tls_ok += self.tls_ok
        other.tls_failed.take_over(self.tls_failed)
        other.refused.take_over(self.refused)

    def rows_into(self, rows: Rows, listener: str) -> None:
        rows["headgate_connections"].append(([listener], self.open))
        rows["headgate_connections_accepted_total"].append(([listener], self.accepted))
        handshakes = rows["headgate_tls_handshakes_total"]
        if self.tls_ok or self.tls_failed.counts:
            handshakes.append(([listener, "ok"], self.tls_ok))
        for reason, count in self.tls_failed.counts.items():
            handshakes.append(([listener, reason], count))
        for reason, count in self.refused.counts.items():
            rows["headgate_connections_refused_total"].append(([listener, reason], count))


class InstanceStats:
    """Connections to one instance of a service, and what became of exchanges with it."""

    __slots__ = (
        "active",
        "attempts",
        "attempts_s",
        "created",
        "failures",
        "idle",
        "queued",
        "retries",
        "reused",
    )

    def __init__(self) -> None:
        self.active = 0
        self.idle = 0
        self.queued = 0
        self.created = 0
        self.reused = 0
        self.retries = 0
        self.attempts = 0
        """That have ended, where there was a choice of instances; noted before each snapshot."""
        self.attempts_s = 0.0
        self.failures = Counts()

    @property
    def is_quiet(self) -> bool:
        return not (self.active or self.idle or self.queued)

    def fold_into(self, other: InstanceStats) -> None:
        other.created += self.created
        other.reused += self.reused
        other.retries += self.retries
        other.attempts += self.attempts
        other.attempts_s += self.attempts_s
        other.failures.take_over(self.failures)

    def rows_into(self, rows: Rows, service: str, instance: str) -> None:
        labels = [service, instance]
        rows["headgate_upstream_connections"].append(([*labels, "active"], self.active))
        rows["headgate_upstream_connections"].append(([*labels, "idle"], self.idle))
        rows["headgate_upstream_queue"].append((labels, self.queued))
        rows["headgate_upstream_connections_created_total"].append((labels, self.created))
        rows["headgate_upstream_connections_reused_total"].append((labels, self.reused))
        rows["headgate_upstream_retries_total"].append((labels, self.retries))
        if self.attempts:
            rows["headgate_upstream_attempts_total"].append((labels, self.attempts))
            rows["headgate_upstream_attempt_seconds_total"].append((labels, self.attempts_s))
        for kind, count in self.failures.counts.items():
            rows["headgate_upstream_failures_total"].append(([*labels, kind], count))


class LogStats:
    """What became of access log lines. Written by the log's own thread as well."""

    __slots__ = ("dropped", "failed", "written")

    def __init__(self) -> None:
        self.written = 0
        self.dropped = 0
        self.failed = 0

    def rows_into(self, rows: Rows) -> None:
        lines = rows["headgate_access_log_lines_total"]
        for result in self.__slots__:
            lines.append(([result], getattr(self, result)))


class _Stats(Protocol):
    @property
    def is_quiet(self) -> bool: ...
    def fold_into(self, other: Any, /) -> None: ...


S = TypeVar("S", bound=_Stats)


class _Family(Generic[S]):
    """The objects of one kind by name: bounded, and what does not fit in `other`."""

    def __init__(self, make: Callable[[], S], width: int, max_sets: int) -> None:
        self.named: dict[tuple[str, ...], S] = {}
        self._make = make
        self._max = max_sets
        self._spare: dict[tuple[str, ...], None] = {}
        """Names that the current plan does not have, kept until their places are needed."""
        self._other = (OTHER,) * width
        self.folded = 0
        """How often one was folded into `other`."""

    def get(self, key: tuple[str, ...]) -> S:
        stats = self.named.get(key)
        if stats is not None:
            self._spare.pop(key, None)
            return stats
        if len(self.named) >= self._max and not self._make_room():
            key = self._other
            if key in self.named:
                return self.named[key]
        stats = self.named[key] = self._make()
        return stats

    def keep(self, keys: Iterable[tuple[str, ...]]) -> None:
        """Name those of the current plan; the places of all others may be given away."""
        current = frozenset(keys)
        self._spare = {key: None for key in self.named if key not in current and key != self._other}

    def let_go(self, key: tuple[str, ...]) -> None:
        """One that is named no more while the plan stays. Where this goes on for long, names that
        nobody has any more must not pile up: beyond a number of them, half are folded at a time,
        so that who reads in steps is seldom sent back to the beginning.
        """
        if key in self.named and key != self._other:
            self._spare[key] = None
        if len(self._spare) > _SPARE_MAX:
            for _ in range(_SPARE_MAX // 2):
                if not self._make_room():
                    break

    def _make_room(self) -> bool:
        """Give one place away; `get` asks again for every name too many, so few are looked at."""
        for _ in range(min(len(self._spare), _SPARE_TRIES)):
            gone = next(iter(self._spare))
            del self._spare[gone]
            stats = self.named.get(gone)
            if stats is None:
                continue
            if not stats.is_quiet:
                self._spare[gone] = None  # still in use; perhaps not when its turn comes again
                continue
            if self._other not in self.named:
                self.named[self._other] = self._make()
            self.named.pop(gone).fold_into(self.named[self._other])
            self.folded += 1
            return True
        return False


class WorkerStats:
    """All that one worker counts."""

    def __init__(self, process: str, start: str, *, max_sets: int = DEFAULT_MAX_SETS) -> None:
        """`process` is a stable name such as "worker-0"; `start` differs for each life of it."""
        self.process = process
        self.start = start
        self.generation = 0
        self.in_flight = 0
        self.timeouts = Counts()
        self.refused_downstream = Counts()
        self.refused_upstream = Counts()
        self.filter_errors = Counts()
        self.log = LogStats()
        budget = _Budget(max_sets * _CODE_SETS_A_ROUTE)
        self._routes = _Family(lambda: RouteStats(budget), 2, max_sets)
        self._instances = _Family(InstanceStats, 2, max_sets)
        self._listeners = _Family(ListenerStats, 1, max_sets)
        self._sources: list[Callable[[Rows], Iterator[None] | None]] = []

    def route(self, route: str, service: str = "") -> RouteStats:
        """The object that counts for a route; looked up when the plan is built."""
        return self._routes.get((route, service))

    def instance(self, service: str, instance: str) -> InstanceStats:
        return self._instances.get((service, instance))

    def listener(self, name: str) -> ListenerStats:
        return self._listeners.get((name,))

    def keep(
        self,
        routes: Iterable[tuple[str, str]],
        instances: Iterable[tuple[str, str]],
        listeners: Iterable[str],
    ) -> None:
        """Say which names the new plan has, before looking them up."""
        self._routes.keep(routes)
        self._instances.keep(instances)
        self._listeners.keep((name,) for name in listeners)

    def let_go_instance(self, service: str, instance: str) -> None:
        """An instance has gone, though the plan stays; it may come back under its name."""
        self._instances.let_go((service, instance))

    def add_source(self, rows_into: Callable[[Rows], Iterator[None] | None]) -> None:
        """Have `rows_into(rows)` called at each snapshot, to append rows of its own; where they
        are many, in steps.
        """
        self._sources.append(rows_into)

    def snapshot(self) -> dict[str, Any]:
        """Everything counted since the start of the process; JSON-able."""
        steps = self.steps()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: dict[str, Any] = done.value
                return found

    def steps(self) -> Generator[None, None, dict[str, Any]]:
        """The same as `snapshot`, in steps of a fraction of a millisecond; the result is the
        generator's. When a new plan folds names meanwhile, what was counted under them would be
        found twice, so it begins anew.
        """
        while True:
            folded = self._folded()
            rows = new_rows()
            yield from self._named_into(rows)
            if folded == self._folded():
                return (yield from self._rest_into(rows))

    def _folded(self) -> int:
        return self._routes.folded + self._instances.folded + self._listeners.folded

    def _named_into(self, rows: Rows) -> Generator[None, None, None]:
        for at, ((route, service), route_stats) in enumerate(list(self._routes.named.items())):
            route_stats.rows_into(rows, route, service)
            if at % _STEP_ROUTES == 0:
                yield
        for at, ((service, instance), stats) in enumerate(list(self._instances.named.items())):
            stats.rows_into(rows, service, instance)
            if at % _STEP_INSTANCES == 0:
                yield

    def _rest_into(self, rows: Rows) -> Generator[None, None, dict[str, Any]]:
        rows["headgate_http_requests_in_flight"].append(([], self.in_flight))
        rows["headgate_config_generation"].append(([self.process], self.generation))
        for (listener,), listener_stats in self._listeners.named.items():
            listener_stats.rows_into(rows, listener)
        for kind, count in self.timeouts.counts.items():
            rows["headgate_timeouts_total"].append(([kind], count))
        for side, refused in (
            ("downstream", self.refused_downstream),
            ("upstream", self.refused_upstream),
        ):
            for reason, count in refused.counts.items():
                rows["headgate_protocol_refusals_total"].append(([side, reason], count))
        for name, count in self.filter_errors.counts.items():
            rows["headgate_filter_errors_total"].append(([name], count))
        self.log.rows_into(rows)
        for source in self._sources:
            yield
            steps = source(rows)
            if steps is not None:
                yield from steps
        return {
            "process": self.process,
            "start": self.start,
            "rows": {name: family for name, family in rows.items() if family},
        }


def new_rows() -> Rows:
    """Empty rows of every family."""
    return {name: [] for name in METRICS}
