"""`Config` -> `Plan`, and the same plan asked "what would become of this request?"."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from headgate.config.faults import did_you_mean
from headgate.config.policies import TimeoutSpec
from headgate.config.routes import targets
from headgate.errors import HeadgateError
from headgate.plan.caching import cache_of, kept_paths, store_of
from headgate.plan.conditions import MatchInput
from headgate.plan.explain import Account, account
from headgate.plan.guards import auth_of, guards_of
from headgate.plan.levels import Places
from headgate.plan.match import Matched, rule_from_spec
from headgate.plan.members import ways_of
from headgate.plan.paths_out import change_of
from headgate.plan.plan import Plan, RoutePlan, Timeouts
from headgate.plan.policies import degrade_triggers, service_plan, traffic_of
from headgate.plan.router import Router
from headgate.wire.host import parse_authority
from headgate.wire.target import BadTarget, parse_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headgate.config import CompressSpec, Config, RouteSpec
    from headgate.plan.caching import Path
    from headgate.plan.explain import Origin
    from headgate.plan.levels import Levels
    from headgate.plan.plan import ServicePlan


def build(config: Config) -> Plan:
    """Build the whole plan. Raises ConfigInvalid; nothing of the old plan is touched."""
    places = Places(config)
    services = {
        name: service_plan(name, spec, config, places.of_service(name))
        for name, spec in config.services.items()
    }
    levels = [places.of_route(spec, index) for index, spec in enumerate(config.routes)]
    kept = kept_paths(zip(config.routes, levels, strict=True))
    routes = tuple(
        _route(index, spec, levels[index], config, services, kept)
        for index, spec in enumerate(config.routes)
    )
    rules = [
        rule_from_spec(spec.match, index, spec.name, spec.priority)
        for index, spec in enumerate(config.routes)
    ]
    has_degrade = "degrade" in config.model_fields_set
    return Plan(
        config,
        routes,
        services,
        config.listeners,
        Router(rules),
        state=config.state,
        zone=config.zone,
        shed=config.shed.rules() if config.shed else None,
        degrade=config.degrade.rules() if has_degrade else None,
        degrade_when=degrade_triggers(config) if has_degrade else (),
        cache_store=store_of(config) if kept else None,
    )


def parts_of(url: str) -> tuple[str, str, str]:
    """Scheme, authority and target of what somebody wants explained. What begins with a slash is a
    path, also where there are two: clients that send one mean no host by it.
    """
    scheme = authority = ""
    if not url.startswith("/"):
        parts = urlsplit(url)
        scheme, authority = parts.scheme, parts.netloc
        if authority:
            url = url[url.index("//") + 2 + len(authority) :]
    return scheme, authority, url.partition("#")[0] or "/"


def explain(
    plan: Plan,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    client_ip: str,
    listener: str = "",
) -> Account:
    """Which route would take this request, why nearer ones would not, which policies apply.

    `listener` is the one that it comes to; by default the first that speaks the URL's scheme.
    """
    fields = tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers
    )
    said_scheme, said_host, raw = parts_of(url)
    target = parse_target(method, raw.encode("utf-8"))
    if isinstance(target, BadTarget):
        raise HeadgateError(f"the gateway answers {target.status} to this URL: {target.reason}")
    said = next((value for name, value in fields if name == b"host"), said_host.encode())
    authority = parse_authority(said) if said else None
    if said and authority is None:
        raise HeadgateError(f"the gateway answers 400: {said.decode('latin-1')!r} is no host")
    scheme, came_to = _arrival(plan, said_scheme, listener)
    request = MatchInput(
        method,
        authority.host if authority else "",
        target.path,
        target.query,
        tuple(field for field in fields if field[0] != b"host"),
        client_ip,
        scheme,
        came_to,
    )
    explanation = plan.router.explain(request)
    answer = explanation.answer
    if not isinstance(answer, Matched):
        return account(explanation)
    route = plan.routes[answer.index]
    found = _found_lines(route.services, plan.services)
    return account(explanation, (*route.policies, *found), route.target)


def _found_lines(
    named: Sequence[str], services: Mapping[str, ServicePlan]
) -> Iterator[tuple[str, str, Origin]]:
    """How many instances there are, where that does not stand in the file."""
    for name in named:
        service = services.get(name)
        if service is not None and service.discover is not None:
            count = len(service.instances) or "none known, and 503 until one is"
            label = "instances" if len(named) == 1 else f"{name}: instances"
            yield label, f"{count}; found by {ways_of(service.discover)}", "service"


def _arrival(plan: Plan, scheme: str, listener: str) -> tuple[str, str]:
    """Scheme and listener of a request of which either may be unsaid."""
    spoken = {spec.label: "https" if spec.tls is not None else "http" for spec in plan.listeners}
    if listener and listener not in spoken:
        hint = did_you_mean(listener, spoken) or f"known are {', '.join(spoken)}"
        raise HeadgateError(f'no listener is named "{listener[:80]}"; {hint}')
    if not listener:
        fitting = (name for name, speaks in spoken.items() if scheme in ("", speaks))
        listener = next(fitting, next(iter(spoken), ""))
    return scheme or spoken.get(listener, "http"), listener


def _route(
    index: int,
    spec: RouteSpec,
    levels: Levels,
    config: Config,
    services: Mapping[str, ServicePlan],
    kept: frozenset[Path],
) -> RoutePlan:
    timeout = cast("TimeoutSpec", levels.nearest("timeout", TimeoutSpec()).value)
    body_limit = cast("int", levels.nearest("body_limit", config.limits.body).value)
    headers = levels.nearest("headers")
    compress = cast("CompressSpec | bool | None", levels.nearest("compress").value)
    plugins = levels.nearest("plugins")
    cache = cache_of(spec, levels, config, kept)
    traffic = traffic_of(spec, levels, timeout.per_try)
    auth, is_unsaid = auth_of(config, levels)
    named = targets(spec)
    return RoutePlan(
        index=index,
        name=spec.name,
        service=next(iter(named), None),
        redirect=spec.redirect,
        respond=spec.respond,
        host=spec.host,
        change_path=change_of(spec),
        upgrades=frozenset(name.lower() for name in spec.upgrade),
        timeouts=Timeouts(
            timeout.connect,
            timeout.first_byte,
            timeout.idle,
            timeout.tunnel,
            timeout.total,
            timeout.per_try,
            timeout.deadline,
        ),
        body_limit=body_limit,
        headers=headers.value,
        compress=None if isinstance(compress, bool) else compress,
        plugins=plugins.value or (),
        plugins_where=plugins.where,
        headers_where=headers.where,
        auth=auth,
        is_unsaid=is_unsaid,
        guards=guards_of(levels),
        cache=cache,
        policies=(*levels.lines, *_lines_of(named, services)),
        **traffic,
    )


def _lines_of(
    named: Sequence[str], services: Mapping[str, ServicePlan]
) -> Iterator[tuple[str, str, Origin]]:
    """The policies of the route's services, which are theirs and not the route's."""
    for name in named:
        for policy, value, origin in services[name].policies:
            yield (policy if len(named) == 1 else f"{name}: {policy}"), value, origin
