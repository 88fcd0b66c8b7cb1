"""The plot of `benchmarks.overload`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

import benchmarks.plots  # noqa: F401 - its settings

_COLOURS = {"without": "#8a8f98", "with": "#d1495b"}


def draw_overload(
    found: Mapping[str, Mapping[str, Any]], begin: float, end: float, file: Path
) -> None:
    """Goodput and p99 over time, without and with policies; the overload as a grey band."""
    figure, grid = plt.subplots(
        2, len(found), figsize=(5.2 * len(found), 5.4), sharex=True, squeeze=False
    )
    for column, row in enumerate(found.values()):
        above, below = grid[0][column], grid[1][column]
        asked = row["with"]["series"]
        above.plot(
            asked["at"], asked["asked"], color="#333333", linewidth=0.8, linestyle=":",
            label="asked",
        )  # fmt: skip
        above.axhline(row["room"], color="#3f7d4e", linewidth=0.8, label="room for")
        for label, colour in _COLOURS.items():
            series = row[label]["series"]
            name = f"good, {label} policies"
            above.plot(series["at"], series["good"], color=colour, linewidth=1.4, label=name)
            below.plot(series["at"], series["p99"], color=colour, linewidth=1.2)
        for axes in (above, below):
            axes.axvspan(begin, end, color="#eeeeee", zorder=0)
            axes.spines[["top", "right"]].set_visible(False)
        above.set_title(row["title"], fontsize=9)
        below.set_xlabel("seconds")
        below.set_ylim(0, 1050)
    grid[0][0].set_ylabel("requests a second")
    grid[0][0].legend(loc="upper right", frameon=False, fontsize=7)
    grid[1][0].set_ylabel("p99 of good answers, ms")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
