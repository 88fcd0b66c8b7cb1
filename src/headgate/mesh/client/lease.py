"""A registration as its holder sees it. Pure: what was answered goes in, what to do next comes out.

Theory of operation
-------------------
    wanted -> held -> beat, beat, ...
      ^        |  404: the registry does not know it (it has lost its memory, or we were silent)
      +--------+
               |  409: another process has registered this id since
               v
             fenced, for good

    wanted, held -> left: by our own word

Control that is away changes nothing: the lease is held for as long as the registry says, and tries
go on, more seldom with each failure, but never more seldom than beats. Beats come up to a fifth
early by chance, so that processes that began together do not beat together. A registry that refuses
what is asked for is asked again now and then, since an operator may change its mind; what it calls
invalid is not, because it would stay so.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, Literal

__all__ = ["Lease", "State"]

State = Literal["wanted", "held", "fenced", "invalid", "left"]
Next = Literal["register", "beat", "nothing"]

_EARLY: Final = 0.2
_FIRST_S: Final = 0.1
_LONGEST_S: Final = 5.0
_REFUSED_S: Final = 30.0
_BEAT_S: Final = 5.0
_BEATS: Final = 3
INVALID: Final = frozenset({400, 413, 422})


class Lease:
    __slots__ = ("_failures", "_is_refused", "beat_every_s", "fence", "state", "ttl_s")

    def __init__(self) -> None:
        self.state: State = "wanted"
        self.fence = 0
        self.ttl_s = _BEAT_S * _BEATS
        self.beat_every_s = _BEAT_S
        self._failures = 0
        self._is_refused = False

    @property
    def next(self) -> Next:
        if self.state == "wanted":
            return "register"
        return "beat" if self.state == "held" else "nothing"

    def registered(self, status: int, content: object) -> None:
        """The answer to a registration; 0 for none."""
        if self.state != "wanted":
            return  # late news: we have left meanwhile
        if 200 <= status < 300 and isinstance(content, Mapping):
            self._take(content)
            self.state = "held"
            self._succeeded()
        elif status in INVALID:
            self.state = "invalid"
        else:
            self._failed(status)

    def beaten(self, status: int, content: object) -> None:
        """The answer to a beat; 0 for none."""
        if self.state != "held":
            return
        if 200 <= status < 300:
            if isinstance(content, Mapping):
                self._take(content)
            self._succeeded()
        elif status == 404:
            self.state = "wanted"
            self._succeeded()
        elif status == 409:
            self.state = "fenced"
        else:
            self._failed(status)

    def left(self) -> None:
        if self.state in ("wanted", "held"):
            self.state = "left"

    def wait_s(self, rng: random.Random) -> float:
        """Until what is `next`."""
        if not self._failures:
            if self.state == "wanted":
                return _FIRST_S * rng.random()
            return self.beat_every_s * (1.0 - _EARLY * rng.random())
        longest_s = _REFUSED_S if self._is_refused else min(_LONGEST_S, self.beat_every_s)
        bound = min(longest_s, _FIRST_S * 2.0 ** min(self._failures, 16))
        return bound * (0.5 + 0.5 * rng.random())

    def _take(self, content: Mapping[str, Any]) -> None:
        fence = content.get("fence")
        if isinstance(fence, int) and not isinstance(fence, bool):
            self.fence = fence
        ttl_s = _seconds(content.get("ttl_s"))
        if ttl_s is not None:
            self.ttl_s = ttl_s
        self.beat_every_s = _seconds(content.get("beat_every_s")) or self.ttl_s / _BEATS

    def _succeeded(self) -> None:
        self._failures = 0
        self._is_refused = False

    def _failed(self, status: int) -> None:
        self._failures += 1
        self._is_refused = 400 <= status < 500


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0.01 <= value <= 86_400.0 else None
