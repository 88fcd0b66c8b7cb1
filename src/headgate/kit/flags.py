"""Feature flags of a service: on, off, or on for a share of users.

The rules are those of the gateway's flags (`headgate.policy.degrade`): a share takes always the
same users, others for each flag, and one that was set by hand holds until it is cleared or its time
is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from random import Random
from typing import Final

from headgate.policy.degrade import Degrade, DegradeRules, FlagState
from headgate.units import UnitError, parse_percent

__all__ = ["Flags"]

_BY_HAND: Final = "hand"


class Flags:
    """`Flags({"new-search": True, "one-click": "10%"})`."""

    def __init__(
        self,
        flags: Mapping[str, bool | float | str],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or Random()
        rules = DegradeRules(flags=tuple((name, _share(name, it)) for name, it in flags.items()))
        self._flags = Degrade(rules, clock())
        self.names = frozenset(flags)

    def is_on(self, name: str, key: str = "") -> bool:
        """Whether it is on for whoever `key` stands for; without a key it is drawn."""
        hashed = (
            int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") if key else None
        )
        return self._flags.is_on(name, self._clock(), hashed, self._rng)

    def set(
        self, name: str, value: bool | float | str, *, for_s: float | None = None, why: str = ""
    ) -> None:
        """Switch it by hand. ValueError for a flag that there is not."""
        self._flags.set_flag(name, _share(name, value), self._clock(), why or _BY_HAND, for_s)

    def clear(self, name: str) -> None:
        """Back to what it was made with."""
        self._flags.clear_flag(name, self._clock())

    def snapshot(self) -> tuple[FlagState, ...]:
        return self._flags.snapshot(self._clock()).flags


def _share(name: str, value: bool | float | str) -> float:
    if isinstance(value, bool):
        return 1.0 if value else 0.0
    try:
        return parse_percent(value)
    except UnitError as error:
        raise ValueError(f"the flag {name}: {error}") from None
