"""A plan's routes with their filters built: what can still fail, done before anything changes.

Plugins are code of others, so building them belongs to the trial of a reload as much as checking
the text does; `headgate check` and the control process call this too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headgate.errors import ConfigInvalid, Fault
from headgate.gateway.filters.base import FilterContext
from headgate.gateway.filters.chain import build_chain
from headgate.gateway.filters.compress import Compress
from headgate.gateway.filters.headers import EditInvalid, header_filters
from headgate.gateway.filters.load import load_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.gateway.filters.base import Filter
    from headgate.gateway.filters.chain import Chain
    from headgate.plan.plan import Plan, RoutePlan


def compile_chains(plan: Plan, folder: Path | None = None) -> list[Chain | None]:
    """The chain of each route, by index. Raises ConfigInvalid with every fault found."""
    faults: list[Fault] = []
    chains: list[Chain | None] = []
    for route in plan.routes:
        try:
            chains.append(build_chain(_filters(route, folder)))
        except ConfigInvalid as error:
            faults.extend(error.faults)
    if faults:
        # One plugin on a service is built for each of its routes; say what is wrong once.
        raise ConfigInvalid(tuple(dict.fromkeys(faults)))
    return chains


def _filters(route: RoutePlan, folder: Path | None) -> Sequence[Filter]:
    """A route's filters in the order in which they see the request.

    Plugins come first, so that they see the request as the client sent it and the response as
    the client will get it before it is compressed; compression is outermost on the way back.
    """
    context = FilterContext(route.name, route.service)
    filters: list[Filter] = []
    if route.compress is not None:
        filters.append(Compress(route.compress, context))
    for index, plugin in enumerate(route.plugins):
        where = f"{route.plugins_where}[{index}]"
        filters.append(load_filter(plugin.use, plugin.options, context, folder=folder, where=where))
    if route.headers is not None:
        try:
            filters.extend(header_filters(route.headers, context))
        except EditInvalid as error:
            raise ConfigInvalid(
                (Fault("", 0, 0, f"{route.headers_where}.{error.where}", error.reason),)
            ) from error
    return filters
