"""All dashboards, in the order in which one looks at them."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.cache import CACHE
from headgate.interop.grafana.guards import GUARDS
from headgate.interop.grafana.inside import INSIDE
from headgate.interop.grafana.model import Board
from headgate.interop.grafana.objectives import OBJECTIVES
from headgate.interop.grafana.observing import OBSERVING
from headgate.interop.grafana.overview import OVERVIEW
from headgate.interop.grafana.processes import PROCESSES
from headgate.interop.grafana.routes import ROUTES
from headgate.interop.grafana.services import SERVICES

__all__ = ["BOARDS"]

BOARDS: Final[tuple[Board, ...]] = (
    OVERVIEW,
    ROUTES,
    SERVICES,
    CACHE,
    GUARDS,
    OBJECTIVES,
    OBSERVING,
    PROCESSES,
    INSIDE,
)
