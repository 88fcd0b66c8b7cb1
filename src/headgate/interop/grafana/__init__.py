"""Dashboards for Grafana and what it takes to have them there without a click."""

from __future__ import annotations

from headgate.interop.grafana.boards import BOARDS
from headgate.interop.grafana.files import files
from headgate.interop.grafana.model import Board, Panel, Query, Row, to_dashboard

__all__ = ["BOARDS", "Board", "Panel", "Query", "Row", "files", "to_dashboard"]
