"""A plan's routes with their filters and guards built: what can still fail, done before anything
changes.

Plugins are code of others and policies name files, so building them belongs to the trial of a
reload as much as checking the text does; `headgate check` and the control process call this too.
Nothing that is built here is started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from headgate.config.authenticating import auth_methods
from headgate.errors import ConfigInvalid, Fault
from headgate.gateway.filters.base import FilterContext
from headgate.gateway.filters.chain import build_chain
from headgate.gateway.filters.compress import Compress
from headgate.gateway.filters.content_digest import ContentDigest
from headgate.gateway.filters.headers import EditInvalid, header_filters
from headgate.gateway.filters.load import load_filter
from headgate.gateway.methods import build_methods

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headgate.gateway.filters.base import Filter
    from headgate.gateway.filters.chain import Chain
    from headgate.gateway.identity_key import IdentityKey
    from headgate.plan.plan import Plan, RoutePlan
    from headgate.security.access import Access
    from headgate.security.addresses import Addresses
    from headgate.security.bots import Bots
    from headgate.security.method import Method

_FILTERS: Final = {
    "cors": ("cors", "Cors"),
    "csrf": ("csrf", "csrf_filters"),
    "injection": ("injection", "Injection"),
    "validation": ("validation", "Validation"),
    "secure_headers": ("secure_headers", "SecureHeaders"),
}
"""Policies that are filters, by module and what makes them."""


@dataclass(frozen=True, slots=True)
class RouteParts:
    """What is built for one route."""

    chain: Chain | None
    early: tuple[Filter, ...] = ()
    """Filters whose `on_request` is called before anybody is asked who they are."""
    filters: tuple[Filter, ...] = ()
    warnings: tuple[Fault, ...] = ()
    addresses: Addresses | None = None
    bots: Bots | None = None
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    routes: tuple[RouteParts, ...]
    """One a route, by index."""
    methods: Mapping[str, Method] = field(default_factory=dict)
    identity_key: IdentityKey | None = None
    """Given by file; one that the gateway keeps itself is found when the plan is taken up."""

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What works and should be looked at; of one place that many routes share, once."""
        return tuple(dict.fromkeys(found for route in self.routes for found in route.warnings))


def compile_plan(plan: Plan, folder: Path | None = None) -> Compiled:
    """Build everything. Raises ConfigInvalid with every fault found."""
    faults: list[Fault] = []
    methods: Mapping[str, Method] = {}
    try:
        methods = build_methods(plan.config)
    except ConfigInvalid as error:
        faults.extend(error.faults)
    key = _identity_key(plan, faults)
    built: dict[tuple[str, str], object] = {}
    said = auth_methods(plan.config.auth)
    routes = []
    for route in plan.routes:
        try:
            routes.append(_route(route, said, folder, built))
        except ConfigInvalid as error:
            faults.extend(error.faults)
    if faults:
        # One plugin on a service is built for each of its routes; say what is wrong once.
        raise ConfigInvalid(tuple(dict.fromkeys(faults)))
    return Compiled(tuple(routes), methods, key)


def _identity_key(plan: Plan, faults: list[Fault]) -> IdentityKey | None:
    token = plan.config.auth.identity.token
    if not token or token.key_file is None:
        return None
    from headgate.gateway import identity_key  # it reads keys, and is heavy

    try:
        return identity_key.load(token.key_file)
    except ValueError as error:
        faults.append(Fault("", 0, 0, "auth.identity.token.key_file", str(error)))
        return None


def _route(
    route: RoutePlan,
    methods: Mapping[str, tuple[str, Any]],
    folder: Path | None,
    built: dict[tuple[str, str], object],
) -> RouteParts:
    context = FilterContext(route.name, route.service)
    parts: dict[str, Any] = {}
    guarding: list[Filter] = []
    warnings: list[tuple[str, str]] = []
    for guard in route.guards:
        try:
            if guard.policy in _FILTERS:
                made = _built(guard.policy, guard.spec, context)
                guarding.extend(made)
                warnings += [(guard.where, text) for each in made for text in each.warnings]
            else:
                # The same place in the file makes one for all its routes.
                known = built.get((guard.policy, guard.where))
                if known is None:
                    known = built[guard.policy, guard.where] = _guard(guard.policy, guard.spec)
                parts[_PART_OF[guard.policy]] = known
        except ValueError as error:
            raise ConfigInvalid((Fault("", 0, 0, guard.where, str(error)),)) from error
    # What a signature covers of the body is checked before anybody else sees the body.
    digests = [
        ContentDigest(spec.digest(), context)
        for kind, spec in (methods[name] for name in _named(route) if name in methods)
        if kind == "signature"
    ]
    own = _filters(route, folder, context)
    for index, each in enumerate(own[int(route.compress is not None) :]):
        where = f"{route.plugins_where}[{index}]"
        warnings += [(where, text) for text in each.warnings]
    filters = [*digests, *guarding, *own]
    return RouteParts(
        build_chain(filters),
        tuple(each for each in filters if each.is_early),
        tuple(filters),
        tuple(Fault("", 0, 0, where, text, level="warning") for where, text in warnings),
        **parts,
    )


def _named(route: RoutePlan) -> tuple[str, ...]:
    return route.auth.methods if route.auth is not None else ()


_PART_OF: Final = {"addresses": "addresses", "bots": "bots", "allow": "access"}


def _built(policy: str, spec: Any, context: FilterContext) -> list[Filter]:
    """The filters of one policy."""
    module, name = _FILTERS[policy]
    made = getattr(import_module(f"headgate.gateway.filters.{module}"), name)(spec, context)
    return made if isinstance(made, list) else [made]


def _guard(policy: str, spec: Any) -> object:
    # Imported on use: most gateways have few of them.
    if policy == "addresses":
        from headgate.security.addresses import Addresses

        return Addresses(spec.rules())
    if policy == "bots":
        from headgate.security.bots import Bots

        return Bots(spec.rules())
    from headgate.security.access import compile_access

    return compile_access(spec.rules())


def _filters(route: RoutePlan, folder: Path | None, context: FilterContext) -> list[Filter]:
    """A route's own filters in the order in which they see the request.

    Plugins come first, so that they see the request as the client sent it and the response as
    the client will get it before it is compressed; compression is outermost on the way back.
    """
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
