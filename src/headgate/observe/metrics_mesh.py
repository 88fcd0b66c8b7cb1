"""Metrics of the mesh: the registry, identities, who calls whom."""

from __future__ import annotations

from typing import Final

from headgate.observe.metric import Metric

__all__ = ["MESH"]

MESH: Final[tuple[Metric, ...]] = ()
