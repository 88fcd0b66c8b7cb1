"""The table and the plot of `benchmarks.invalidation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["write_page"]

BEGIN = "<!-- table: written by benchmarks.invalidation -->"
END = "<!-- end of table -->"
TITLES = {
    "redis": "Redis: 8 services, 2 gateways",
    "links": "linked: 8 services, 1 gateway",
    "file": "file: 8 services",
    "hub": "one gateway, purged by hand",
}
_COLOURS = {"redis": "#d1495b", "links": "#2e6f9e", "file": "#3f7d4e", "hub": "#8a8f98"}


def write_page(kept: dict[str, Any], docs: Path | None) -> str:
    """The table; into the page and beside the plot, if there is a place for them."""
    table = _table(kept)
    if docs is not None:
        page = docs / "invalidation.md"
        before, _, rest = page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n{table}{END}{after}")
        _draw(kept, docs / "images" / "invalidation.svg")
    return table


def _table(kept: dict[str, Any]) -> str:
    lines = [
        f"Of {kept['date']}, {kept['cores']} cores, load {kept['load']}. In milliseconds:",
        "",
        "| what | rounds | p50 | p99 | max |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, usual in TITLES.items():
        found = kept["cases"].get(case)
        if found is None:
            continue
        title = usual
        rows = found["rows"]
        queued = sum(bool(row["queued"]) for row in rows)
        if queued:
            title += f" (calls that said it was queued: {queued})"
        for name, values in _series(rows).items():
            figures = " | ".join(f"{_at(values, part):.1f}" for part in (0.5, 0.99, 1.0))
            lines.append(f"| {title}: {name} | {len(values)} | {figures} |")
    return "\n".join(lines) + "\n\n"


def _series(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    made: dict[str, list[float]] = {"the call takes": [row["took_ms"] for row in rows]}
    for who in ("services", "gateways"):
        late = [(row[f"{who}_ms"], row["took_ms"]) for row in rows if row[f"{who}_ms"] is not None]
        if late:
            made[f"last old answer of {who}, from the call"] = [ms for ms, _ in late]
            made[f"last old answer of {who}, from the return"] = [
                max(0.0, ms - took) for ms, took in late
            ]
    return made


def _at(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _draw(kept: dict[str, Any], file: Path) -> None:
    from matplotlib import pyplot as plt

    import benchmarks.plots  # noqa: F401 - chooses the backend, and texts that stay the same

    figure, axes = plt.subplots(figsize=(8.5, 3.4))
    for case, title in TITLES.items():
        found = kept["cases"].get(case)
        if found is None:
            continue
        for who, style in (("services", "-"), ("gateways", "--")):
            late = sorted(
                max(0.1, row[f"{who}_ms"]) for row in found["rows"] if row[f"{who}_ms"] is not None
            )
            if late:
                share = [(place + 1) / len(late) for place in range(len(late))]
                axes.step(late, share, style, color=_COLOURS[case], label=f"{title}, {who}")
    axes.axvline(100, color="#444444", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the call to the last old answer (logarithmic)")
    axes.set_ylabel("share of the rounds")
    axes.legend(loc="lower right", fontsize=7)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
