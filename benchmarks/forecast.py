"""How good forecasts are: errors and coverage of the intervals on series whose future is known.

    python -m benchmarks.forecast            # prints the table, writes docs/images/forecast.svg

Every series is cut, continued and compared with what came. Against it stands the seasonal naive
forecast: the same hour a week ago (a day ago, where there is no week).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from headgate.observe.forecast.forecasting import Forecast, forecast
from headgate.observe.forecast.regular import Floats, Regular

ROOT = Path(__file__).resolve().parent.parent
HOURS = 24
Make = Callable[[np.random.Generator, int], Floats]


def _shape(hours: int, *, weekend: float = 1.0, sharp: float = 1.0) -> Floats:
    at = np.arange(hours)
    day = (1 + np.sin(2 * np.pi * (at % HOURS - 9) / HOURS)) / 2
    week = np.where((at // HOURS) % 7 >= 5, weekend, 1.0)
    shape: Floats = (0.15 + day**sharp) * week
    return shape


def _noise(rng: np.random.Generator, hours: int, size: float, memory: float = 0.0) -> Floats:
    found = rng.standard_normal(hours) * size * np.sqrt(1 - memory**2)
    for at in range(1, hours):
        found[at] += memory * found[at - 1]
    noise: Floats = found
    return noise


def day(rng: np.random.Generator, hours: int) -> Floats:
    return 100 * _shape(hours) * np.exp(_noise(rng, hours, 0.08))


def week(rng: np.random.Generator, hours: int) -> Floats:
    return 100 * _shape(hours, weekend=0.45) * np.exp(_noise(rng, hours, 0.08, 0.5))


def growing(rng: np.random.Generator, hours: int) -> Floats:
    growth = np.exp(np.arange(hours) / HOURS * 0.012)
    return 60 * growth * _shape(hours, weekend=0.6) * np.exp(_noise(rng, hours, 0.1, 0.6))


def outliers(rng: np.random.Generator, hours: int) -> Floats:
    values = week(rng, hours)
    for at in rng.integers(0, hours, hours // 150):
        values[at : at + 3] *= rng.choice([0.05, 4.0])
    return values


def shifted(rng: np.random.Generator, hours: int) -> Floats:
    values = week(rng, hours)
    values[int(hours * 0.45) :] *= 1.8
    return values


def gaps(rng: np.random.Generator, hours: int) -> Floats:
    values = week(rng, hours)
    for at in rng.integers(0, hours - 60, 4):
        values[at : at + int(rng.integers(3, 40))] = np.nan
    return values


def recorded(rng: np.random.Generator, hours: int) -> Floats:
    """Like a real gateway: two peaks a day, holidays, slow drift, bursts, counts of events."""
    at = np.arange(hours)
    hour = at % HOURS
    shape = 0.1 + np.exp(-((hour - 10.5) ** 2) / 8) + 0.8 * np.exp(-((hour - 19.5) ** 2) / 6)
    weekday = (at // HOURS) % 7
    shape = shape * np.array([1, 1.05, 1.02, 1.0, 0.95, 0.6, 0.55])[weekday]
    drift = np.exp(np.cumsum(rng.standard_normal(hours // HOURS + 1) * 0.025))[at // HOURS]
    holiday = np.where(np.isin(at // HOURS, rng.integers(0, hours // HOURS, 3)), 0.6, 1.0)
    rate = 40 * shape * drift * holiday * np.exp(_noise(rng, hours, 0.12, 0.7))
    burst = rng.random(hours) < 0.004
    return rng.poisson(rate * 600).astype(np.float64) / 600 * np.where(burst, 2.5, 1.0)


def disk(rng: np.random.Generator, hours: int) -> Floats:
    """Fills, with a rotation every night and a change of pace."""
    pace = np.where(np.arange(hours) < hours // 3, 0.02, 0.03)
    filled = np.cumsum(pace * np.exp(_noise(rng, hours, 0.3)))
    return 40 + filled + 0.25 * (np.arange(hours) % HOURS) / HOURS


def walk(rng: np.random.Generator, hours: int) -> Floats:
    """Nothing to be foreseen: a random walk."""
    values: Floats = np.maximum(1.0, 100 + np.cumsum(rng.standard_normal(hours) * 1.5))
    return values


SERIES: dict[str, Make] = {
    "day": day,
    "day and week": week,
    "growing 1.2 % a day": growing,
    "with outliers": outliers,
    "moved at once": shifted,
    "with gaps": gaps,
    "like recorded": recorded,
    "a disk": disk,
    "random walk": walk,
}


def naive(values: Floats, steps: int) -> Floats:
    period = 7 * HOURS if len(values) >= 14 * HOURS else HOURS
    last = values[-period:]
    filled = np.where(np.isfinite(last), last, np.nanmedian(values))
    return np.resize(filled, steps)


def _inside(truth: Floats, low: Floats, high: Floats) -> float:
    return float(np.mean((truth >= low) & (truth <= high)))


def judged(make: Make, weeks: float, ahead_days: int, runs: int, seed: int) -> dict[str, float]:
    """Means over runs: errors as a share of the mean, and how much lies in the intervals."""
    rows = []
    past, steps = int(weeks * 7 * HOURS), ahead_days * HOURS
    for run in range(runs):
        rng = np.random.default_rng(seed + run)
        values = make(rng, past + steps)
        start = time.perf_counter()
        made = forecast(Regular(0.0, 3600.0, values[:past]), steps * 3600.0)
        took = time.perf_counter() - start
        if not isinstance(made, Forecast):
            continue
        truth = values[past : past + len(made.middle)]
        known = np.isfinite(truth)
        truth = truth[known]
        size = float(np.mean(np.abs(truth)))

        rows.append(
            (
                float(np.mean(np.abs(truth - made.middle[known]))) / size,
                float(np.mean(np.abs(truth - naive(values[:past], len(known))[known]))) / size,
                _inside(truth, made.low80[known], made.high80[known]),
                _inside(truth, made.low95[known], made.high95[known]),
                took * 1000,
            )
        )
    error, plain, in80, in95, ms = np.mean(rows, axis=0)
    return {"error": error, "naive": plain, "in80": in80, "in95": in95, "ms": ms}


def table(runs: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, make in SERIES.items():
        for weeks, ahead in ((6, 7), (6, 28), (1, 3)):
            row = judged(make, weeks, ahead, runs, seed=1000)
            found.append({"series": name, "weeks": weeks, "ahead_days": ahead, **row})
    return found


def markdown(rows: list[dict[str, object]]) -> str:
    lines = [
        "| series | past | ahead | error | naive | within 80 % | within 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['series']} | {row['weeks']} wk | {row['ahead_days']} d | {row['error']:.1%}"
        f" | {row['naive']:.1%} | {row['in80']:.0%} | {row['in95']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def picture() -> str:
    """One recorded-like series with its forecast, as an SVG."""
    rng = np.random.default_rng(7)
    past, steps = 28 * HOURS, 14 * HOURS
    values = recorded(rng, past + steps)
    made = forecast(Regular(0.0, 3600.0, values[:past]), steps * 3600.0)
    if not isinstance(made, Forecast):
        raise SystemExit(made.why)
    width, height, left, low = 860, 260, 44, 26
    first = 14 * HOURS
    top = max(float(np.nanmax(values[first:])), float(made.high80.max())) * 1.12

    def x(at: float) -> float:
        return left + (at - first) / (past + steps - first) * (width - left - 8)

    def y(value: float) -> float:
        return height - low - min(value, top) / top * (height - low - 10)

    def path(places: Floats, line: Floats) -> str:
        return " ".join(f"{x(at):.1f},{y(v):.1f}" for at, v in zip(places, line, strict=True))

    ahead = past + np.arange(len(made.middle))
    bands = [
        f'<polygon fill="#2563c9" fill-opacity="{shade}" points="{path(ahead, high)}'
        f' {path(ahead[::-1], lower[::-1])}"/>'
        for lower, high, shade in (
            (made.low95, made.high95, 0.12),
            (made.low80, made.high80, 0.18),
        )
    ]
    seen = np.arange(first, past)
    came = np.arange(past, past + steps)
    marks = [
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.0f}</text>'
        f'<line x1="{left}" x2="{width - 8}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#8884"/>'
        for v in np.arange(0, top, 20)
    ]
    marks += [
        f'<text x="{x(at):.1f}" y="{height - 8}" text-anchor="middle">day {at // HOURS}</text>'
        for at in range(first, past + steps, 4 * HOURS)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="system-ui,sans-serif" font-size="11" fill="#667">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(marks)}{"".join(bands)}'
        f'<polyline fill="none" stroke="#444" points="{path(seen, values[first:past])}"/>'
        f'<polyline fill="none" stroke="#2563c9" stroke-width="1.5"'
        f' points="{path(ahead, made.middle)}"/>'
        f'<polyline fill="none" stroke="#c2591b" points="{path(came, values[past:])}"/>'
        f'<text x="{left + 8}" y="22">requests a second: grey the past, blue the forecast with 80'
        " % and 95 %, orange what came</text></svg>\n"
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked.add_argument("--runs", type=int, default=20)
    asked.add_argument("--json", type=Path, default=None)
    said = asked.parse_args()
    rows = table(said.runs)
    print(markdown(rows))
    (ROOT / "docs" / "images" / "forecast.svg").write_text(picture())
    if said.json is not None:
        said.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
