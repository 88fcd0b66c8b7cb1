"""What the control process sees, keeps and tells: history, traces, logs, alerts, budgets, checks.

Each is a `Department`; `Observing` holds them all and passes on what control hears.
"""

from __future__ import annotations

from headgate.control.observing.observing import Department, Observing, Surroundings

__all__ = ["Department", "Observing", "Surroundings"]
