"""What no single field can see: names that must exist, choices that exclude each other.

Theory of operation
-------------------
``check`` is pure: a valid ``Config`` in, a list of ``Problem`` out, by path and without lines.
The loader adds the lines; ``from_document`` needs none. It touches no file and no network, so
that a worker can run it too, and it is linear in the number of routes.

An error is what cannot work or can never take effect; a warning is what works but is likely not
what was meant.

When the models refused parts of the file, ``check`` is asked about the rest (see ``rest``). So a
problem that was concluded from other places than its own says which they are: ``needs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from headgate.config.admin import problems as admin_problems
from headgate.config.alert_checks import check_alerts
from headgate.config.budget_checks import check_budgets
from headgate.config.cache_checks import check_caching
from headgate.config.faults import Loc, did_you_mean
from headgate.config.history import problems as history_problems
from headgate.config.listeners import ListenerSpec, parse_bind
from headgate.config.logs import problems as log_problems
from headgate.config.model import Config
from headgate.config.monitoring import problems as monitor_problems
from headgate.config.problems import Problem
from headgate.config.routes import (
    MatchSpec,
    RewriteSpec,
    RouteSpec,
    ValueMatchSpec,
)
from headgate.config.security_checks import check_security
from headgate.config.services import ServiceSpec
from headgate.config.templates import names_in, template_params
from headgate.config.traffic_checks import check_traffic
from headgate.config.walk import ANY

__all__ = ["check"]

REDIRECT_NAMES: Final = ("scheme", "host", "path", "query")
"""What a redirect's template may use beside the parameters of its match."""

_MAX_SUGGESTIONS: Final = 50  # each compares with every service; a broken file has thousands
_BODYLESS: Final = (204, 205, 304)
_LOOPBACK: Final = ("127.", "localhost", "::1")


def check(config: Config, *, also_known: Iterable[str] = ()) -> list[Problem]:
    """Everything wrong across fields. ``also_known`` are services that exist but are broken."""
    return [
        *_check_listeners(config),
        *_check_admin(config),
        *_check_services(config),
        *_check_routes(config, {*config.services, *also_known}),
        *check_traffic(config, {*config.services, *also_known}),
        *check_security(config),
        *check_caching(config),
        *_check_use(config),
        *_check_logging(config),
        *_check_history(config),
        *_check_monitors(config),
        *check_alerts(config),
        *check_budgets(config),
        *_check_rest(config),
    ]


def _check_history(config: Config) -> Iterator[Problem]:
    for path, what, hint, is_warning in history_problems(config.history, config.services):
        yield Problem(("history", *path), what, hint, warning=is_warning)


def _check_monitors(config: Config) -> Iterator[Problem]:
    for path, what, hint, is_warning in monitor_problems(config.monitors):
        yield Problem(("monitors", *path), what, hint, warning=is_warning)


def _check_logging(config: Config) -> Iterator[Problem]:
    for path, what, hint, is_warning in log_problems(config.logging):
        yield Problem(("logging", *path), what, hint, warning=is_warning)


# -- listeners ----------------------------------------------------------------------------


def _check_listeners(config: Config) -> Iterator[Problem]:
    if not config.listeners:
        yield Problem(("listeners",), "nothing to listen on", "add listeners: [0.0.0.0:8080]")
    binds: dict[object, int] = {}
    names: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        loc: Loc = ("listeners", index)
        address = listener.address
        if address.path is not None or address.port:
            first = binds.setdefault(address, index)
            if first != index:
                yield Problem(
                    (*loc, "bind"),
                    "{value} is taken by another listener",
                    see=("listeners", first, "bind"),
                )
        if listener.name is not None:
            first = names.setdefault(listener.name, index)
            if first != index:
                yield Problem(
                    (*loc, "name"),
                    "{value} is the name of another listener",
                    see=("listeners", first, "name"),
                )
        yield from _check_listener(listener, loc, config)


def _check_listener(listener: ListenerSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    is_unix = listener.address.path is not None
    if listener.mode is not None and not is_unix:
        yield Problem((*loc, "mode"), "only Unix sockets have a mode", at_key=True)
    if listener.proxy_protocol and not is_unix and not config.trusted_proxies:
        yield Problem(
            (*loc, "proxy_protocol"),
            "every connection would be refused: no sender is trusted",
            "name the proxies in trusted_proxies",
            needs=((*loc, "proxy_protocol"), ("trusted_proxies",)),
        )
    tls = listener.tls
    if tls is None:
        return
    yield from _pair(tls.cert_file, tls.key_file, (*loc, "tls"))
    ways = [
        name
        for name, said in (
            ("certificate", tls.certificate is not None),
            ("certificates", bool(tls.certificates)),
            ("cert_file", tls.cert_file is not None or tls.key_file is not None),
        )
        if said
    ]
    if not ways:
        hint = "write cert_file and key_file, certificates, or certificate: local or acme"
        needs = _under((*loc, "tls"), "cert_file", "key_file", "certificates", "certificate")
        yield Problem((*loc, "tls"), "no certificate", hint, needs=needs)
    elif len(ways) > 1:
        needs = _under((*loc, "tls"), *ways)
        yield Problem((*loc, "tls"), f"only one of {_listed(ways)} can be said", needs=needs)


def _check_admin(config: Config) -> Iterator[Problem]:
    admin = config.admin
    if admin.bind == "off":
        return
    bind = parse_bind(admin.bind)
    for index, listener in enumerate(config.listeners):
        if listener.address == bind and (bind.path is not None or bind.port):
            yield Problem(
                ("admin", "bind"),
                "{value} is taken by a listener",
                see=("listeners", index, "bind"),
            )
    for path, what, hint, is_warning in admin_problems(admin):
        yield Problem(("admin", *path), what, hint, warning=is_warning)
    if bind.path is None and not bind.host.startswith(_LOOPBACK) and admin.tls is None:
        yield Problem(
            ("admin", "bind"),
            "{value} can be reached from other machines, without TLS",
            "bind 127.0.0.1 unless the network is private",
            warning=True,
        )
    if admin.token is not None and not admin.token.strip():
        yield Problem(("admin", "token"), "the token is empty")


# -- services -----------------------------------------------------------------------------


def _check_services(config: Config) -> Iterator[Problem]:
    for name, service in config.services.items():
        yield from _check_service(service, ("services", name))


def _check_service(service: ServiceSpec, loc: Loc) -> Iterator[Problem]:
    seen: dict[object, int] = {}
    uses_tls = False
    for index, instance in enumerate(service.instances):
        endpoint = instance.endpoint
        uses_tls = uses_tls or endpoint.scheme == "https"
        first = seen.setdefault(endpoint, index)
        if first != index:
            yield Problem(
                (*loc, "instances", index, "url"),
                "{value} is there twice",
                "give one of them a higher weight instead",
                see=(*loc, "instances", first, "url"),
            )
    if service.instances and not any(instance.weight for instance in service.instances):
        yield Problem((*loc, "instances"), "every instance has weight 0, so none can be chosen")
    yield from _pair(service.tls.cert_file, service.tls.key_file, (*loc, "tls"))
    if not uses_tls and service.tls.model_fields_set and service.discover is None:
        yield Problem(
            (*loc, "tls"),
            "has no effect: no instance is https://",
            warning=True,
            at_key=True,
            needs=((*loc, "instances"), (*loc, "discover")),
        )


# -- routes -------------------------------------------------------------------------------


def _check_routes(config: Config, services: set[str]) -> Iterator[Problem]:
    names: dict[str, int] = {}
    matches: dict[object, int] = {}
    suggestions = _MAX_SUGGESTIONS
    spoken = {listener.label: _scheme_of(listener) for listener in config.listeners}
    for index, route in enumerate(config.routes):
        loc: Loc = ("routes", index)
        first = names.setdefault(route.name, index)
        if first != index:
            yield Problem(
                (*loc, "name"), "{value} is the name of another route", see=("routes", first)
            )
        for at, name in _named_services(route, loc):
            if name in services:
                continue
            hint = ""
            if suggestions:
                suggestions -= 1
                hint = did_you_mean(name, services)
                if not hint:
                    hint = _known(services)
            needs = (at, ("services", name))
            is_key = at[-2:-1] == ("to",)  # of a split
            yield Problem(at, "no service named {value}", hint, needs=needs, at_key=is_key)
        yield from _check_target(route, loc)
        yield from _check_match(route.match, (*loc, "match"))
        if route.match.listener or route.match.scheme is not None:
            may_be_told = bool(config.trusted_proxies)
            yield from _check_arrival(route.match, (*loc, "match"), spoken, may_be_told)
        first = matches.setdefault(_match_key(route), index)
        if first != index:
            yield Problem(
                loc,
                "never reached: it matches the same requests as an earlier route",
                see=("routes", first),
                needs=(
                    *_under(loc, "match", "priority"),
                    *_under(("routes", first), "match", "priority"),
                ),
            )


def _named_services(route: RouteSpec, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Every service that a route names, and where."""
    if isinstance(route.to, str):
        yield (*loc, "to"), route.to
    elif route.to is not None:
        yield from (((*loc, "to", name), name) for name in route.to)
    if route.mirror is not None:
        yield (*loc, "mirror", "to"), route.mirror.to
    if route.split is not None:
        for field in ("header", "cookie"):
            pins: dict[str, dict[str, str]] = getattr(route.split, field)
            for name, values in pins.items():
                for value, service in values.items():
                    yield (*loc, "split", field, name, value), service


def _fallback_services(config: Config) -> Iterator[str]:
    for level in (config, *config.services.values(), *config.routes):
        if level.fallback and level.fallback.service is not None:
            yield level.fallback.service


def _check_target(route: RouteSpec, loc: Loc) -> Iterator[Problem]:
    said = [name for name in ("to", "redirect", "respond") if getattr(route, name) is not None]
    if not said:
        hint = "add one of to, redirect and respond"
        needs = _under(loc, "to", "redirect", "respond")
        yield Problem(loc, "says nothing to do", hint, needs=needs)
        return
    if len(said) > 1:
        needs = _under(loc, *said)
        yield Problem(loc, f"only one of {_listed(said)} can be said", needs=needs)
    params = _params(route.match)
    if route.to is None:
        yield from (
            Problem(
                (*loc, name),
                f'"{name}" has no effect without "to"',
                at_key=True,
                needs=_under(loc, name, "to"),
            )
            for name in ("strip", "rewrite", "host", "split", "mirror", "fault", "flag", "cache")
            if name in route.model_fields_set and getattr(route, name)
        )
    if route.strip and route.match.regex is not None:
        hint = "use rewrite with groups of the regex"
        yield Problem((*loc, "strip"), "a regex has no literal start to strip", hint)
    elif route.strip and route.match.path is None and route.match.exact is None:
        message = "there is nothing to strip: the match has no path"
        needs = ((*loc, "strip"), *_under((*loc, "match"), "path", "exact", "regex"))
        yield Problem((*loc, "strip"), message, needs=needs)
    if route.rewrite is not None:
        if route.strip:
            yield Problem((*loc, "rewrite"), 'cannot be said together with "strip"', at_key=True)
        yield from _check_rewrite(route.rewrite, params, (*loc, "rewrite"))
    if route.redirect is not None:
        yield from _check_names(
            route.redirect.to, {*params, *REDIRECT_NAMES}, (*loc, "redirect", "to")
        )
    if route.respond is not None and route.respond.body and route.respond.status in _BODYLESS:
        yield Problem((*loc, "respond", "body"), "an answer of this status has no body")


def _check_rewrite(rewrite: RewriteSpec, params: set[str], loc: Loc) -> Iterator[Problem]:
    if (rewrite.template is None) == (rewrite.regex is None and rewrite.to is None):
        yield Problem(loc, 'write either "template", or "regex" with "to"')
    elif rewrite.template is not None:
        yield from _check_names(rewrite.template, params, (*loc, "template"))
    elif rewrite.regex is None or rewrite.to is None:
        missing = "regex" if rewrite.regex is None else "to"
        yield Problem(loc, f'"{missing}" is required beside the other')
    else:
        try:
            re.compile(rewrite.regex).sub(rewrite.to, "")
        except (re.error, IndexError):
            yield Problem((*loc, "to"), '{value} names a group that "regex" does not have')


def _check_names(template: str, known: set[str], loc: Loc) -> Iterator[Problem]:
    for name in names_in(template):
        if name not in known:
            hint = did_you_mean(name, known) or _known(known)
            yield Problem(
                loc,
                "{value} uses a parameter that the match does not have",
                hint,
                needs=(loc, *_under((*loc[:2], "match"), "path", "exact", "regex")),
            )


def _check_match(match: MatchSpec, loc: Loc) -> Iterator[Problem]:
    said = [name for name in ("path", "exact", "regex") if getattr(match, name) is not None]
    if len(said) > 1:
        needs = _under(loc, *said)
        yield Problem(loc, f"only one of {_listed(said)} can be said", needs=needs)
    for field in ("headers", "query", "cookies"):
        conditions: dict[str, ValueMatchSpec] = getattr(match, field)
        for name, value in conditions.items():
            ways = [value.equals is not None, value.regex is not None, value.present, value.absent]
            if sum(ways) != 1:
                yield Problem(
                    (*loc, field, name), "write exactly one of equals, regex, present and absent"
                )


def _scheme_of(listener: ListenerSpec) -> str:
    return "https" if listener.tls is not None else "http"


def _check_arrival(
    match: MatchSpec, loc: Loc, spoken: Mapping[str, str], may_be_told: bool
) -> Iterator[Problem]:
    """Listeners by what they speak; a trusted proxy may tell of another scheme than they do."""
    heard: set[str] = set()
    for index, name in enumerate(match.listener or spoken):
        if name in spoken:
            heard.add(spoken[name])
            continue
        at = (*loc, "listener", index)
        hint = did_you_mean(name, spoken) or _known(set(spoken))
        yield Problem(at, "no listener named {value}", hint, needs=(at, ("listeners",)))
    if match.scheme is not None and heard and match.scheme not in heard and not may_be_told:
        which = "none of these listeners" if match.listener else "no listener"
        yield Problem(
            (*loc, "scheme"),
            f"never holds: {which} speaks {{value}}, and no proxy is trusted to tell of it",
            "add tls to a listener, or trusted_proxies"
            if match.scheme == "https"
            else "add a listener without tls, or trusted_proxies",
            warning=True,
            needs=((*loc, "scheme"), (*loc, "listener"), ("listeners",), ("trusted_proxies",)),
        )


def _params(match: MatchSpec) -> set[str]:
    if match.path is not None:
        return set(template_params(match.path))
    if match.regex is not None:
        return set(re.compile(match.regex).groupindex)
    return set()


_NOTHING: Final[tuple[object, ...]] = ()


def _match_key(route: RouteSpec) -> object:
    """Equal for routes that match the same requests with the same rank, so the first hides all
    others. Names of parameters do not matter, nor does a prefix's final slash.
    """
    match = route.match
    path: object
    if match.path is None:
        path = (match.exact, match.regex)
    elif "{" in match.path:
        path = tuple(
            f"{{:{segment[1:-1].partition(':')[2] or 'str'}}}" if segment[:1] == "{" else segment
            for segment in match.path.split("/")
        )
    else:
        path = match.path.removesuffix("/")
    if match.headers or match.query or match.cookies:
        values: tuple[object, ...] = (
            frozenset((name.lower(), _condition(v)) for name, v in match.headers.items()),
            frozenset((name, _condition(v)) for name, v in match.query.items()),
            frozenset((name, _condition(v)) for name, v in match.cookies.items()),
        )
    else:
        values = _NOTHING
    return (
        route.priority,
        frozenset(match.host),
        path,
        frozenset(match.methods) | ({"HEAD"} if "GET" in match.methods else set()),
        values,
        frozenset(match.client_ip),
        match.scheme,
        frozenset(match.listener),
    )


def _condition(value: ValueMatchSpec) -> tuple[object, ...]:
    return (value.equals, value.regex, value.present, value.absent)


# -- the rest -----------------------------------------------------------------------------


def _check_use(config: Config) -> Iterator[Problem]:
    if not config.routes:
        yield Problem(
            ("routes",), "there are no routes: every request is answered with 404", warning=True
        )
        return
    if config.mesh is not None:
        return  # services of a mesh are called past the gateway, too
    used = set(_fallback_services(config))
    for route in config.routes:
        used.update(name for _, name in _named_services(route, ()))
    for name in config.services:
        if name not in used:
            yield Problem(
                ("services", name),
                "no route leads to this service",
                warning=True,
                at_key=True,
                needs=(("routes", ANY, "to"),),
            )


def _check_rest(config: Config) -> Iterator[Problem]:
    for status, page in config.error_pages.items():
        if (page.file is None) == (page.body is None):
            yield Problem(("error_pages", str(status)), "write either file or body")
    if config.dns.min_ttl > config.dns.max_ttl:
        needs = _under(("dns",), "min_ttl", "max_ttl")
        yield Problem(("dns", "min_ttl"), "{value} is more than max_ttl", needs=needs)


def _pair(cert_file: str | None, key_file: str | None, loc: Loc) -> Iterator[Problem]:
    if (cert_file is None) != (key_file is None):
        missing = "cert_file" if cert_file is None else "key_file"
        needs = _under(loc, "cert_file", "key_file")
        yield Problem(loc, f'"{missing}" is required beside the other', needs=needs)


def _under(loc: Loc, *names: str) -> tuple[Loc, ...]:
    return tuple((*loc, name) for name in names)


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _known(names: set[str]) -> str:
    if not names:
        return "there are none"
    few = sorted(names)[:8]
    return f"known are {', '.join(few)}{', ...' if len(names) > len(few) else ''}"
