"""What was measured, kept for a while: by the second, then by the minute, then by the hour.

    from headgate.observe.history.store import Store    # needs numpy and zstandard

    store = Store(folder, Keep())
    store.append(wall, mono, [Family("x_total", "counter", ("route",), {("a",): 1.0})])
    store.select("x_total", (), start, end)

Here are only the values, which are light: the configuration takes its defaults from them.
"""

from __future__ import annotations

from headgate.observe.history.markers import Marker, Markers
from headgate.observe.history.rules import Family, Keep, KeepRules, Scrape

__all__ = ["Family", "Keep", "KeepRules", "Marker", "Markers", "Scrape"]
