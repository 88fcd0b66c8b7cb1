"""The three plots of the report. Same input, same bytes: no dates, no random ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "headgate"
mpl.rcParams["svg.fonttype"] = "path"
mpl.rcParams["font.size"] = 9

from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

_COLOURS = {
    "headgate": "#d1495b",
    "nginx": "#3f7d4e",
    "envoy": "#7a4fa3",
    "envoy-remembering": "#b79bd0",
    "haproxy": "#2e6f9e",
    "caddy": "#8a8f98",
}
_MEGABYTE = 1024 * 1024


def draw_throughput(
    rows: Mapping[str, Mapping[str, float]], titles: Mapping[str, str], file: Path
) -> None:
    """Bars relative to nginx, one group a scenario."""
    _bars({name: row for name, row in rows.items() if row}, titles, file, "nginx = 1", line_at=1.0)


def draw_latency(
    rows: Mapping[str, Mapping[str, tuple[float, float]]],
    titles: Mapping[str, str],
    file: Path,
) -> None:
    """Added p50 and p99, one group each; logarithmic, because saturation is."""
    flat: dict[str, dict[str, float]] = {}
    for name, row in rows.items():
        for index, quantile in enumerate(("p50", "p99")):
            # A difference of two noisy numbers may fall below zero; it has no place on a log axis.
            flat[f"{name}, {quantile}"] = {
                peer: max(0.01, pair[index]) for peer, pair in row.items()
            }
    _bars(flat, titles, file, "milliseconds added (logarithmic)", is_log=True)


def draw_memory(memory: Mapping[str, Any], titles: Mapping[str, str], file: Path) -> None:
    """Resident memory, one group a situation."""
    flat: dict[str, dict[str, float]] = {}
    for peer, cases in memory["peers"].items():
        for case, found in cases.items():
            if isinstance(found, dict) and "rss_bytes" in found:
                flat.setdefault(case, {})[peer] = found["rss_bytes"] / _MEGABYTE
    _bars(flat, titles, file, "MB resident (logarithmic)", is_log=True)


def _bars(
    rows: Mapping[str, Mapping[str, float]],
    titles: Mapping[str, str],
    file: Path,
    label: str,
    *,
    is_log: bool = False,
    line_at: float | None = None,
) -> None:
    peers = [peer for peer in _COLOURS if any(peer in row for row in rows.values())]
    height = 0.8 / max(1, len(peers))
    figure, axes = plt.subplots(figsize=(8.5, 0.6 + 0.17 * len(peers) * len(rows) + 0.5))
    for place, peer in enumerate(peers):
        where = [index + place * height for index, row in enumerate(rows.values()) if peer in row]
        values = [row[peer] for row in rows.values() if peer in row]
        axes.barh(where, values, height=height * 0.9, color=_COLOURS[peer], label=titles[peer])
        for at, value in zip(where, values, strict=True):
            axes.text(
                value,
                at,
                f" {value:.2f}" if value < 100 else f" {value:,.0f}",
                va="center",
                fontsize=6.5,
            )
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(rows))], list(rows))
    axes.invert_yaxis()
    if is_log:
        axes.set_xscale("log")
    if line_at is not None:
        axes.axvline(line_at, color="#333333", linewidth=0.8)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def draw_weather(
    series: Mapping[str, Mapping[str, list[float]]],
    phases: list[tuple[str, float, float]],
    file: Path,
) -> None:
    """Success rate and p99 over time, without and with policies; faults as grey bands."""
    colours = {"without": "#8a8f98", "with": "#d1495b"}
    figure, (above, below) = plt.subplots(2, 1, figsize=(9.5, 5.2), sharex=True)
    for label, rows in series.items():
        above.plot(rows["at"], [100 * v for v in rows["success"]], color=colours[label],
                   label=f"{label} policies", linewidth=1.3)  # fmt: skip
        below.plot(rows["at"], rows["p99"], color=colours[label], linewidth=1.3)
    for title, began, ended in phases:
        if title.startswith("calm"):
            continue
        for axes in (above, below):
            axes.axvspan(began, ended, color="#eeeeee", zorder=0)
        above.text((began + ended) / 2, 103, title, ha="center", fontsize=8)
    above.set_ylabel("answered well, %")
    above.set_ylim(-2, 112)
    above.legend(loc="lower left", frameon=False)
    below.set_ylabel("p99, ms (logarithmic)")
    below.set_yscale("log")
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def draw_cache_weather(
    series: Mapping[str, list[float]], phases: list[tuple[str, float, float]], file: Path
) -> None:
    """Hit ratio and latency over time; moments of trouble as grey bands."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9.5, 5.2), sharex=True)
    above.plot(series["at"], [100 * v for v in series["hits"]], color="#2a6f97", linewidth=1.3)
    below.plot(series["at"], series["p99"], color="#d1495b", linewidth=1.3, label="p99")
    below.plot(series["at"], series["p50"], color="#8a8f98", linewidth=1.3, label="median")
    for title, began, ended in phases:
        if title.startswith("calm") or title == "filling":
            continue
        for axes in (above, below):
            axes.axvspan(began, ended, color="#eeeeee", zorder=0)
        above.text((began + ended) / 2, 103, title, ha="center", fontsize=8)
    above.set_ylabel("answered from the cache, %")
    above.set_ylim(-2, 112)
    below.set_ylabel("ms (logarithmic)")
    below.set_yscale("log")
    below.set_xlabel("seconds")
    below.legend(loc="upper left", frameon=False)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
