"""The shape of a day: how many come when. A day of the demo takes `DAY_S`."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["DAY_S", "busy"]

DAY_S: Final = 600.0
_HOURS: Final = (
    0.30, 0.20, 0.15, 0.12, 0.12, 0.20, 0.40, 0.70, 0.90, 1.05, 1.15, 1.25,
    1.35, 1.30, 1.15, 1.10, 1.15, 1.30, 1.55, 1.85, 2.00, 1.75, 1.20, 0.60,
)  # fmt: skip
_MEAN: Final = sum(_HOURS) / 24


def busy(at_s: float) -> float:
    """What of the usual rate there is `at_s` into the demo, which begins at nine; 1 on average."""
    hour = (at_s % DAY_S / DAY_S * 24 + 9) % 24
    first = int(hour)
    share = (1 - math.cos((hour - first) * math.pi)) / 2  # smooth from one hour to the next
    return (_HOURS[first] * (1 - share) + _HOURS[(first + 1) % 24] * share) / _MEAN
