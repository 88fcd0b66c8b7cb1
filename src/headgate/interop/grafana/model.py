"""A dashboard as values, and as the JSON that Grafana reads.

Theory of operation. A board is rows of panels, a panel is expressions with how they are drawn. The
place of each follows from its width: panels flow from left to right, 24 columns wide, and a row
begins a new line. Ids are counted, so that the same board is always the same text. What is written
is schema version 39 (Grafana 10.4 and later; newer ones migrate it by themselves).

Every expression is held against the table of metrics when a board is written; one that asks for
what does not exist raises `Unnamed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from headgate.interop.naming import demand

__all__ = [
    "DATASOURCE",
    "SCHEMA_VERSION",
    "Board",
    "Panel",
    "Query",
    "Row",
    "Variable",
    "expressions",
    "to_dashboard",
]

SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
ERRORS: Final = "/search?service=headgate&lookback=1h&limit=50&tags=%7B%22error%22%3A%22true%22%7D"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Draw = Literal["timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "state-timeline"]


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""
    has_exemplars: bool = False
    is_now: bool = False
    """Asked once, for the end of the range."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    draw: Draw = "timeseries"
    width: int = 8
    height: int = 8
    text: str = ""
    bounds: tuple[tuple[float, str], ...] = ()
    """From which value on it has which colour."""
    below: str = "green"
    """The colour before the first of them."""
    is_stacked: bool = False
    least: float | None = 0.0
    most: float | None = None
    links: tuple[tuple[str, str], ...] = ()
    """Title and URL of links on each series."""
    names: tuple[tuple[str, str], ...] = ()
    """Values and what is shown for them."""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    label: str
    metric: str
    of: str
    """The label whose values it offers."""


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-1h"


def expressions(board: Board) -> Iterator[tuple[str, str]]:
    """Where, and what is asked there."""
    for row in board.rows:
        for panel in row.panels:
            for query in panel.queries:
                yield f"{board.title} / {panel.title}", query.expr


def to_dashboard(board: Board, *, traces_url: str) -> dict[str, Any]:
    """Raises Unnamed."""
    for where, expr in expressions(board):
        demand(expr, where)
    for variable in board.variables:
        demand(f"count by ({variable.of}) ({variable.metric})", f"{board.title} / {variable.name}")
    return {
        "annotations": {"list": list(_annotations())},
        "description": board.text,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": list(_links(board)),
        "liveNow": False,
        "panels": list(_placed(board)),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["headgate"],
        "templating": {"list": list(_variables(board, traces_url))},
        "time": {"from": board.since, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
        "weekStart": "",
    }


def _annotations() -> Iterator[dict[str, Any]]:
    yield {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    for name, colour, expr, title in (
        (
            "Alerts",
            "red",
            'sum by (rule, level) (headgate_alerts{state="firing"}) > 0',
            "{{rule}} ({{level}})",
        ),
        (
            "Configuration",
            "blue",
            'changes(headgate_config_generation{process="control"}[1m]) > 0',
            "another configuration serves",
        ),
    ):
        yield {
            "datasource": DATASOURCE,
            "enable": True,
            "expr": demand(expr, f"the annotation {name}"),
            "hide": False,
            "iconColor": colour,
            "name": name,
            "step": "30s",
            "tagKeys": "",
            "textFormat": "",
            "titleFormat": title,
            "useValueForTime": False,
        }


def _links(board: Board) -> Iterator[dict[str, Any]]:
    bare = {"asDropdown": False, "icon": "external link", "includeVars": True, "keepTime": True}
    yield {
        **bare,
        "asDropdown": True,
        "tags": ["headgate"],
        "targetBlank": False,
        "title": "Headgate",
        "tooltip": "The other dashboards",
        "type": "dashboards",
        "url": "",
    }
    if any(one.name == "route" for one in board.variables):
        yield {
            **bare,
            "includeVars": False,
            "keepTime": False,
            "tags": [],
            "targetBlank": True,
            "title": "Traces with errors",
            "tooltip": "In Jaeger; `headgate traces list --errors` says the same",
            "type": "link",
            "url": "${traces_url}" + ERRORS,
        }


def _variables(board: Board, traces_url: str) -> Iterator[dict[str, Any]]:
    yield {
        "current": {},
        "hide": 0,
        "includeAll": False,
        "label": "Data from",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }
    for one in board.variables:
        asked = f"label_values({one.metric}, {one.of})"
        yield {
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "datasource": DATASOURCE,
            "definition": asked,
            "hide": 0,
            "includeAll": True,
            "label": one.label,
            "multi": True,
            "name": one.name,
            "options": [],
            "query": {"query": asked, "refId": f"variable-{one.name}"},
            "refresh": 2,
            "regex": "",
            "skipUrlSync": False,
            "sort": 1,
            "type": "query",
        }
    yield {
        "current": {"selected": False, "text": traces_url, "value": traces_url},
        "hide": 2,
        "label": "Jaeger",
        "name": "traces_url",
        "options": [{"selected": True, "text": traces_url, "value": traces_url}],
        "query": traces_url,
        "skipUrlSync": False,
        "type": "textbox",
    }


def _placed(board: Board) -> Iterator[dict[str, Any]]:
    y, ident = 0, 0
    for row in board.rows:
        ident += 1
        yield {
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "id": ident,
            "panels": [],
            "title": row.title,
            "type": "row",
        }
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            ident += 1
            grid = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            yield _panel(panel, ident, grid)
            x += panel.width
            tallest = max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, ident: int, grid: dict[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "datasource": DATASOURCE,
        "description": panel.text,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "gridPos": grid,
        "id": ident,
        "options": _OPTIONS[panel.draw],
        "targets": [_target(panel, query, place) for place, query in enumerate(panel.queries)],
        "title": panel.title,
        "transformations": [],
        "type": panel.draw,
    }
    if panel.draw == "table":
        made["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}}},
        ]
    return made


def _target(panel: Panel, query: Query, place: int) -> dict[str, Any]:
    is_now = query.is_now or panel.draw in ("table", "stat", "gauge", "bargauge")
    form = "time_series"
    if panel.draw == "table":
        form = "table"
    elif panel.draw == "heatmap":
        form = "heatmap"
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "exemplar": query.has_exemplars,
        "expr": query.expr,
        "format": form,
        "instant": is_now,
        "legendFormat": query.legend or "__auto",
        "range": not is_now,
        "refId": "ABCDEFGHIJKLMNOP"[place],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": panel.below, "value": None}]
    steps += [{"color": colour, "value": bound} for bound, colour in panel.bounds]
    made: dict[str, Any] = {
        "color": {"mode": "thresholds" if panel.bounds else "palette-classic"},
        "links": [{"targetBlank": True, "title": title, "url": url} for title, url in panel.links],
        "mappings": [],
        "thresholds": {"mode": "absolute", "steps": steps},
        "unit": panel.unit,
    }
    if panel.names:
        shown = {value: {"index": at, "text": text} for at, (value, text) in enumerate(panel.names)}
        made["mappings"] = [{"options": shown, "type": "value"}]
    if panel.least is not None:
        made["min"] = panel.least
    if panel.most is not None:
        made["max"] = panel.most
    if panel.draw == "timeseries":
        made["color"] = {"mode": "palette-classic"}
        made["custom"] = {
            "axisPlacement": "auto",
            "drawStyle": "line",
            "fillOpacity": 25 if panel.is_stacked else 8,
            "gradientMode": "none",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "pointSize": 4,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if panel.is_stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.bounds else "off"},
        }
    return made


_REDUCE: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": _REDUCE,
        "textMode": "auto",
        "wideLayout": True,
    },
    "gauge": {
        "orientation": "auto",
        "reduceOptions": _REDUCE,
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
    },
    "bargauge": {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": _REDUCE,
        "showUnfilled": True,
        "valueMode": "color",
    },
    "table": {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {},
        "color": {
            "exponent": 0.5,
            "mode": "scheme",
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": False},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    },
    "state-timeline": {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    },
}
