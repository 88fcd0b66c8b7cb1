"""What no single field can see of who is let in: names that must exist, rules nobody can meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from headgate.config import (
    access,
    acme,
    auditing,
    auth_jwt,
    auth_keys,
    auth_login,
    browsers,
    guarding,
    injection,
    mesh,
    pushing,
    redacting,
    tracing,
    validating,
    vaulting,
)
from headgate.config.authenticating import AUTH_TYPES, AuthUseSpec, auth_methods
from headgate.config.faults import Loc, did_you_mean
from headgate.config.problems import Problem
from headgate.config.routes import targets
from headgate.config.templates import template_params
from headgate.security.access import needs_identity

if TYPE_CHECKING:
    from headgate.config.model import Config
    from headgate.config.routes import RouteSpec

__all__ = ["check_security"]

_POLICIES = {
    "allow": access,
    "addresses": guarding,
    "bots": guarding,
    "cors": browsers,
    "csrf": browsers,
    "secure_headers": browsers,
    "injection": injection,
    "validation": validating,
}
_METHODS = {"jwt": auth_jwt, "login": auth_login}


def check_security(config: Config) -> Iterator[Problem]:
    yield from _check_methods(config)
    yield from _check_told(config)
    known = auth_methods(config.auth)
    for loc, use in _uses(config):
        for at, name in enumerate(use.methods):
            if name not in known:
                yield Problem(
                    (*loc, "methods", at),
                    "{value} is no entry under auth",
                    did_you_mean(name, known) or _known(known),
                )
    for loc, spec in _places(config):
        for policy, module in _POLICIES.items():
            said = getattr(spec, policy)
            if said is not None and said is not False:
                yield from _own(module, said, (*loc, policy))
    if config.bans:
        yield from _own(guarding, config.bans, ("bans",))
    for name, module in (
        ("vault", vaulting),
        ("secrets", vaulting),
        ("audit", auditing),
        ("tracing", tracing),
        ("metrics_push", pushing),
        ("redaction", redacting),
    ):
        said = getattr(config, name)
        if said:
            yield from _own(module, said, (name,))
    for parts, message, hint, is_warning in acme.acme_problems(config):
        yield Problem(parts, message, hint, warning=is_warning)
    for parts, message, hint, is_warning in mesh.mesh_problems(config):
        yield Problem(parts, message, hint, warning=is_warning)
    yield from _check_routes(config)
    yield from _check_ways(config)


def _known(known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f"it has {names}" if names else "write auth: {jwt: {...}} at the top of the file"


def _check_methods(config: Config) -> Iterator[Problem]:
    seen: dict[str, Loc] = {}
    for kind in AUTH_TYPES:
        for at, spec in enumerate(getattr(config.auth, kind)):
            loc: Loc = ("auth", kind, at)
            first = seen.setdefault(spec.name, loc)
            if first != loc:
                yield Problem(
                    (*loc, "name"),
                    "{value} is the name of another method",
                    "give each a name of its own",
                    see=first,
                )
            yield from _own(_METHODS.get(kind, auth_keys), spec, loc)
    for parts, message, hint, is_warning in auth_login.problems_between(config.auth.login):
        yield Problem(("auth", "login", *parts), message, hint, warning=is_warning)
    for name, what in config.auth.identity.headers.items():
        if what not in _CARRIED and not (what.startswith("claim.") and len(what) > len("claim.")):
            yield Problem(
                ("auth", "identity", "headers", name),
                "{value} is nothing that is known of who asks",
                did_you_mean(what, _CARRIED) or f"write claim.NAME or one of {', '.join(_CARRIED)}",
            )


def _check_told(config: Config) -> Iterator[Problem]:
    """Two headers of one name: a service would believe either."""
    identity = config.auth.identity
    seen: dict[str, Loc] = {}
    if identity.token:
        seen[_canonical(identity.token.header)] = ("auth", "identity", "token", "header")
    for name in identity.headers:
        loc: Loc = ("auth", "identity", "headers", name)
        first = seen.setdefault(_canonical(name), loc)
        if first != loc:
            yield Problem(
                loc,
                "is the name of another header that tells who asks",
                "names that differ in capitals or underscores are one to services",
                at_key=True,
                see=first,
            )


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


_CARRIED = ("subject", "consumer", "api_key", "tier", "roles", "scopes", "groups", "method")


def _own(module: Any, spec: Any, loc: Loc) -> Iterator[Problem]:
    """What the policy's own file finds."""
    for parts, message, hint, is_warning in module.problems(spec):
        yield Problem((*loc, *parts), message, hint, warning=is_warning)


def _places(config: Config) -> Iterator[tuple[Loc, Any]]:
    yield (), config
    for name, service in config.services.items():
        yield ("services", name), service
    for at, route in enumerate(config.routes):
        yield ("routes", at), route


def _uses(config: Config) -> Iterator[tuple[Loc, AuthUseSpec]]:
    if isinstance(config.auth.default, AuthUseSpec):
        yield ("auth", "default"), config.auth.default
    for loc, spec in _places(config):
        if loc and isinstance(spec.auth, AuthUseSpec):
            yield (*loc, "auth"), spec.auth


def _check_routes(config: Config) -> Iterator[Problem]:
    for at, route in enumerate(config.routes):
        first = next(iter(targets(route)), None)
        service = config.services.get(first) if first is not None else None
        uses = [route.auth, service.auth if service is not None else None, config.auth.default]
        use = next((each for each in uses if each is not None), None)
        allows = [route.allow, service.allow if service is not None else None, config.allow]
        allow = next((each for each in allows if each is not None), None)
        if not use and allow and needs_identity(allow.rules()):
            yield Problem(
                ("routes", at) if route.allow is None else ("routes", at, "allow"),
                "nobody can be let through: the route asks nobody who they are",
                "say auth: on the route, its service or as auth.default",
                warning=True,
            )
        if route.allow:
            asks = frozenset(use.methods) if isinstance(use, AuthUseSpec) else None
            methods = frozenset(route.match.methods) or None
            params = None
            if route.match.exact is not None or route.match.path is not None:
                params = frozenset(template_params(route.match.path or ""))
            found = access.route_problems(route.allow, methods=methods, params=params, auth=asks)
            for parts, message, hint, is_warning in found:
                yield Problem(("routes", at, "allow", *parts), message, hint, warning=is_warning)
        if use is None and config.auth.deny_by_default:
            yield Problem(
                ("routes", at),
                "refuses every request: it says no auth, and auth.deny_by_default is on",
                "say auth: with a method, or auth: false where anybody may come in",
                warning=True,
            )


def _check_ways(config: Config) -> Iterator[Problem]:
    """Of several services of a route it is the first whose policies hold. What another one says of
    whom it lets in must not be forgotten because of that.
    """
    for at, route in enumerate(config.routes):
        first = next(iter(targets(route)), None)
        if first is None:
            continue
        others = (*targets(route)[1:], *_side_ways(config, route))
        service = config.services.get(first)
        for policy, top in (
            ("auth", config.auth.default),
            ("allow", config.allow),
            ("addresses", config.addresses),
        ):
            if getattr(route, policy) is not None:
                continue
            holds = getattr(service, policy, None)
            holds = top if holds is None else holds
            for name in dict.fromkeys(others):
                said = getattr(config.services.get(name), policy, None)
                if said is not None and said is not False and said != holds:
                    yield Problem(
                        ("routes", at),
                        f"sends requests to {name} past what services.{name}.{policy} says: of "
                        "several services it is the first one's policies that hold",
                        f"say {policy}: on the route",
                        see=("services", name, policy),
                        needs=(("services", name, policy), ("routes", at)),
                    )


def _side_ways(config: Config, route: RouteSpec) -> Iterator[str]:
    """Services that a route may send requests to beside its targets."""
    for pins in (route.split.header, route.split.cookie) if route.split else ():
        for services in pins.values():
            yield from services.values()
    first = config.services.get(next(iter(targets(route)), ""))
    levels = (route.fallback, first.fallback if first is not None else None, config.fallback)
    fallback = next((each for each in levels if each is not None), None)
    if fallback and fallback.service is not None:
        yield fallback.service
    if route.mirror is not None:
        yield route.mirror.to
