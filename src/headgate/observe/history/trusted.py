"""A clock that is not believed when it leaps, until it has kept its word for a while. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["TrustedClock"]

_LEAP_S: Final = 60.0
_TRUST_S: Final = 600.0


class TrustedClock:
    """`now` follows the wall clock, but over a leap goes on as time passes."""

    def __init__(self) -> None:
        self.now = 0.0
        self._mono = 0.0
        self._leapt_at: float | None = None

    @property
    def is_set(self) -> bool:
        return self.now > 0.0

    def begin(self, wall: float, mono: float) -> None:
        """What is known of the time before the clock has said anything."""
        self.now, self._mono = wall, mono

    def note(self, wall: float, mono: float) -> None:
        """What the clock says, and what a clock says that does not jump."""
        expected = self.now + (mono - self._mono)
        if abs(wall - expected) > _LEAP_S:
            if self._leapt_at is None:
                self._leapt_at = mono
            if mono - self._leapt_at <= _TRUST_S:
                self.now, self._mono = expected, mono
                return
        self.now, self._mono = wall, mono
        self._leapt_at = None
