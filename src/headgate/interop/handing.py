"""Which files are handed over to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from headgate.errors import HeadgateError
from headgate.interop import alertmanager, prometheus
from headgate.interop.elastic.files import files as elastic
from headgate.interop.grafana.files import files as grafana
from headgate.interop.site import Site

__all__ = ["KINDS", "hand_over"]

KINDS: Final[Mapping[str, Callable[[Site], dict[str, str]]]] = {
    "prometheus": prometheus.files,
    "alertmanager": alertmanager.files,
    "grafana": grafana,
    "elastic": elastic,
}


def hand_over(kind: str, site: Site) -> dict[str, str]:
    """The texts of the files for one of KINDS, by their paths."""
    if kind not in KINDS:
        raise HeadgateError(f'nothing is handed over to "{kind}"; there are: {", ".join(KINDS)}')
    return KINDS[kind](site)
