"""Which traces are kept.

Theory of operation
-------------------
The decision has two halves. At its head a trace falls into the share of `sample` or it does not, by
its id alone, so that all who see the id agree; a caller that has decided is followed. What the head
has not chosen is written down all the same as long as there is room, and judged at its tail, when
the local root ends: kept if anything in it failed, or if it was slow. Services behind cannot be
told in time, and come to the same end by the same rules: an error and a slow answer travel upwards.

"Slow" is a fixed time, or the slowest hundredth of each route. That is followed by `Slowest`
without keeping the durations: after the first hundred, each duration moves the mark up by much or
down by a little, in such a proportion that it comes to rest where one in a hundred is above.
"""

from __future__ import annotations

import math
from typing import Final

from headgate.observe.tracing.rules import AUTO, TracingRules

__all__ = ["Slowest", "Tail"]

_WARM: Final = 100
_MOST_ROUTES: Final = 512
_STEP: Final = 0.1


class Slowest:
    """The mark above which one in a hundred durations lies, followed as they come."""

    __slots__ = ("_first", "_log_mark", "_share")

    def __init__(self, share: float = 0.01) -> None:
        self._share = share
        self._first: list[float] | None = []
        self._log_mark = 0.0

    @property
    def mark_s(self) -> float | None:
        """None until enough was seen."""
        return None if self._first is not None else math.exp(self._log_mark)

    def is_slow(self, duration_s: float) -> bool:
        """Whether this one is above the mark, which it then moves."""
        log = math.log(max(duration_s, 1e-7))
        first = self._first
        if first is not None:
            first.append(log)
            if len(first) >= _WARM:
                first.sort()
                self._log_mark = first[int(len(first) * (1 - self._share)) - 1]
                self._first = None
            return False
        if log > self._log_mark:
            self._log_mark += _STEP * (1 - self._share)
            return True
        self._log_mark -= _STEP * self._share
        return False


class Tail:
    """The judgement at the end of a local root."""

    __slots__ = ("_auto", "_errors", "_routes", "_slow_s")

    def __init__(self, rules: TracingRules) -> None:
        self._errors = rules.keep_errors
        self._auto = rules.keep_slow_s == AUTO
        self._slow_s = rules.keep_slow_s if rules.keep_slow_s > 0 else math.inf
        self._routes: dict[str, Slowest] = {}

    @property
    def judges(self) -> bool:
        """Whether it keeps anything at all that the head has not chosen."""
        return self._errors or self._auto or self._slow_s < math.inf

    def keeps(self, name: str, duration_s: float, *, failed: bool) -> bool:
        slow = self._of_route(name, duration_s) if self._auto else duration_s >= self._slow_s
        return slow or (failed and self._errors)

    def _of_route(self, name: str, duration_s: float) -> bool:
        route = self._routes.get(name)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                name = ""  # names that never end share one mark
                route = self._routes.get(name)
            if route is None:
                route = self._routes[name] = Slowest()
        return route.is_slow(duration_s)
