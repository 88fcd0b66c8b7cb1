"""Charts in the terminal."""

from __future__ import annotations

import pytest

from headgate.cli.history import plotted


def series(*points):
    return [{"metric": {"route": "a"}, "values": [[at, str(value)] for at, value in points]}]


def dots(text):
    return [line.partition("|")[2] for line in text.splitlines() if "|" in line]


def test_a_line_is_drawn_through_its_figures():
    rows = dots(plotted(series((0, 0), (50, 100), (100, 0)), width=50, height=6))
    assert len(rows) == 6
    assert all(row.strip() for row in rows)


def test_a_line_breaks_where_figures_are_missing():
    points = [(at, 1) for at in (*range(10), *range(90, 100))]
    top = dots(plotted(series(*points), width=60, height=3))[0]
    assert " " * 20 in top


def test_what_has_happened_stands_below_the_chart():
    said = [
        {"at": 50.0, "kind": "deploy", "text": "shop 2.4\x1b[2J"},
        {"at": 500.0, "kind": "alert", "text": "later"},
    ]
    text = plotted(series((0, 1), (100, 2)), width=51, height=3, markers=said)
    lines = text.splitlines()
    assert lines[3].index("a") == 10 + 20
    assert "deploy  shop 2.4?[2J" in lines[5]
    assert "later" not in text


@pytest.mark.parametrize("points", [[(5, 3)], [(5, 3), (5, 4)], [(0, 7), (9, 7)]])
def test_odd_series_are_drawn(points):
    assert plotted(series(*points), width=40, height=4)
