"""Small charts as SVG, to stand in a page: colours are classes of the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

__all__ = ["WIDE", "Line", "bars", "lines"]

WIDTH: Final = 480
HEIGHT: Final = 150
WIDE: Final = 980
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 22
_APART: Final = 12.0
Point = tuple[float, float | None]


class Line:
    """Points of one line; None is a gap."""

    __slots__ = ("css", "points", "said")

    def __init__(self, said: str, css: str, points: Sequence[Point]) -> None:
        self.said, self.css, self.points = said, css, points


def lines(
    title: str,
    drawn: Sequence[Line],
    start: float,
    end: float,
    *,
    low: float,
    high: float,
    marks: Sequence[tuple[float, str]],
    days: Sequence[tuple[float, str]],
    bound: tuple[float, str] | None = None,
    shaded: Sequence[tuple[float, float]] = (),
    is_filled: bool = False,
    width: int = WIDTH,
) -> str:
    """Lines over time. `marks` are the values named at the left, `days` those below."""

    def x(at: float) -> float:
        return _LEFT + (at - start) / ((end - start) or 1.0) * (width - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / ((high - low) or 1.0)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    parts = [_open(title, width)]
    for begin, finish in shaded:
        wide = max(x(finish) - x(begin), 1.0)
        parts.append(
            f'<rect class="closed" x="{x(begin):.1f}" y="{_TOP}" width="{wide:.1f}"'
            f' height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
    parts += _frame(marks, y, [(x(at), said) for at, said in days], width)
    for line in drawn:
        for run in _runs(line.points):
            path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            if is_filled and len(run) > 1:
                foot = y(max(low, min(0.0, high)))
                first, last = x(run[0][0]), x(run[-1][0])
                parts.append(
                    f'<polygon class="fill {line.css}" points="{first:.1f},{foot:.1f} {path}'
                    f' {last:.1f},{foot:.1f}"/>'
                )
            if len(run) == 1:
                at, value = run[0]
                parts.append(
                    f'<circle class="{line.css}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.5"/>'
                )
            else:
                parts.append(f'<polyline class="line {line.css}" points="{path}"/>')
    if bound is not None:
        at = y(bound[0])
        parts.append(
            f'<line class="bound" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text class="boundtext" x="{width - _RIGHT - 2}" y="{max(at - 4, 9):.1f}"'
            f' text-anchor="end">{escape(bound[1])}</text>'
        )
    parts.append("</svg>")
    return "".join(parts)


def bars(
    title: str,
    values: Sequence[tuple[str, float | None, str, str]],
    *,
    low: float,
    high: float,
    marks: Sequence[tuple[float, str]],
    bound: tuple[float, str] | None = None,
    every: int = 1,
) -> str:
    """A bar for each (name, value, class, tip)."""

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / ((high - low) or 1.0)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    names = [
        (_LEFT + slot * (place + 0.5), name)
        for place, (name, *_) in enumerate(values)
        if place % every == 0
    ]
    parts = [_open(title), *_frame(marks, y, names, is_ticked=False)]
    for place, (_, value, css, tip) in enumerate(values):
        left = _LEFT + slot * place + slot * 0.12
        top = y(value) if value is not None else _TOP
        top = min(top, HEIGHT - _BOTTOM - 2.0)
        tall = HEIGHT - _BOTTOM - top
        parts.append(
            f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" width="{slot * 0.76:.1f}"'
            f' height="{tall:.1f}" rx="1.5"><title>{escape(tip)}</title></rect>'
        )
    if bound is not None:
        at = y(bound[0])
        parts.append(
            f'<line class="bound" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
    parts.append("</svg>")
    return "".join(parts)


def _open(title: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(title)}"'
        ' preserveAspectRatio="xMidYMid meet">'
    )


def _frame(
    marks: Sequence[tuple[float, str]],
    y: Callable[[float], float],
    days: Sequence[tuple[float, str]],
    width: int = WIDTH,
    *,
    is_ticked: bool = True,
) -> list[str]:
    parts = []
    taken: list[float] = []
    for value, said in marks:
        at = y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        if any(abs(at - other) < _APART for other in taken):
            continue  # the mark named first has the room
        taken.append(at)
        parts.append(
            f'<text x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{escape(said)}</text>'
        )
    for at, said in days:
        if is_ticked:
            parts.append(
                f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{HEIGHT - _BOTTOM}"'
                f' y2="{HEIGHT - _BOTTOM + 4}"/>'
            )
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(said)}</text>'
        )
    return parts


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]
