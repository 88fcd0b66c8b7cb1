"""The cache of responses against itself, and against what stands around it.

Theory of operation
-------------------
A cache hands what one client got to others. What would let it hand on too much is an error, and the
message says whose data would go where; what has no effect, or less than it looks, is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headgate.config.authenticating import AuthUseSpec
from headgate.config.caching import CacheKeySpec, CacheSpec
from headgate.config.faults import Loc, did_you_mean
from headgate.config.model import Config
from headgate.config.policies import PolicyFields
from headgate.config.problems import Problem
from headgate.config.routes import RouteSpec, targets
from headgate.config.service_checks import no_effect
from headgate.config.templates import names_in, template_params
from headgate.config.walk import ANY
from headgate.policy.hops import SAID_TO_SERVICES
from headgate.units import MB, format_size

__all__ = ["check_caching"]

_MEMORY_LEAST: Final = 1 * MB
_DISK_LEAST: Final = 10 * MB
_ANSWERED: Final = frozenset({"GET", "HEAD"})

_OF_THE_CONNECTION: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OF_THE_CACHE: Final = frozenset(
    {
        "cache-control",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
    }
)
_NEARLY_UNIQUE: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
_KEPT_FOR_US: Final = ("x-forwarded-", "x-headgate-")
"""Beginnings of names that the gateway says, or that count by themselves."""


def check_caching(config: Config) -> Iterator[Problem]:
    yield from _check_store(config)
    for loc, spec in _places(config):
        if spec.cache:
            yield from _check_alone(spec.cache, (*loc, "cache"), config)
    told: set[tuple[Loc, str]] = set()
    for at, route in enumerate(config.routes):
        if route.to is None:
            continue  # said there, it is a fault that `checks` reports
        where, cache = _nearest(route, ("routes", at), config)
        if cache:
            yield from _check_route(route, ("routes", at), cache, where, config)
            yield from _check_tags(route, ("routes", at), cache, where, told)


def _places(config: Config) -> Iterator[tuple[Loc, PolicyFields]]:
    yield (), config
    for name, service in config.services.items():
        yield ("services", name), service
    for at, route in enumerate(config.routes):
        yield ("routes", at), route


def _around(route: RouteSpec, loc: Loc, config: Config) -> Iterator[tuple[Loc, PolicyFields]]:
    yield loc, route
    first = next(iter(targets(route)), "")
    if first in config.services:
        yield ("services", first), config.services[first]
    yield (), config


def _nearest(route: RouteSpec, loc: Loc, config: Config) -> tuple[Loc, CacheSpec | bool | None]:
    for where, level in _around(route, loc, config):
        if level.cache is not None:
            return (*where, "cache"), level.cache
    return ("cache",), None


# -- where it is kept ----------------------------------------------------------------------


def _check_store(config: Config) -> Iterator[Problem]:
    store = config.cache_store
    loc: Loc = ("cache_store",)
    if store.memory < _MEMORY_LEAST:
        yield Problem(
            (*loc, "memory"),
            "{value} is too little; 1MB is the least",
            "say cache: false to keep nothing",
        )
    if store.disk and store.disk.size < _DISK_LEAST:
        yield Problem((*loc, "disk", "size"), "{value} is too little; 10MB is the least")
    if store.disk and store.redis:
        yield Problem(
            (*loc, "redis"),
            "there is a second layer already: disk",
            "say one of the two; a Redis is for several machines",
            at_key=True,
            see=(*loc, "disk"),
            needs=((*loc, "redis"), (*loc, "disk")),
        )
    if store.redis is True and config.state == "memory":
        yield Problem(
            (*loc, "redis"),
            "{value} is the Redis of state, but state is memory",
            "write a URL here, or as state",
            needs=((*loc, "redis"), ("state",)),
        )
    if "cache_store" in config.model_fields_set and not any(
        spec.cache for _, spec in _places(config)
    ):
        yield Problem(
            loc,
            "has no effect: nothing says cache",
            "say cache: true on a route",
            warning=True,
            at_key=True,
            needs=(loc, *_wherever("cache")),
        )


# -- what a policy says against itself -----------------------------------------------------


def _check_alone(cache: CacheSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    said = cache.model_fields_set
    if cache.override and cache.ttl is None and not cache.ttl_by_status:
        yield no_effect((*loc, "override"), 'without "ttl" or "ttl_by_status"', loc)
    if cache.ttl is not None:
        for name in ("heuristic", "heuristic_max", "trouble_ttl"):
            if name in said and getattr(cache, name):
                yield no_effect((*loc, name), 'with "ttl", which goes before it', loc)
    elif not cache.heuristic and "heuristic_max" in said:
        yield no_effect((*loc, "heuristic_max"), 'with "heuristic: false"', loc)
    if cache.trouble_ttl and cache.ttl is None and not _knows_stale(config):
        yield Problem(
            (*loc, "trouble_ttl"),
            'never comes about: no level of degrade has "stale" among its measures',
            "write degrade with such a level, and what brings it about",
            warning=True,
            at_key=True,
            needs=(loc, ("degrade",)),
        )
    if "collapse_wait" in said and not cache.collapse:
        yield no_effect((*loc, "collapse_wait"), 'with "collapse: false"', loc)
    if cache.tags_shown and not cache.tag_headers:
        yield no_effect((*loc, "tags_shown"), 'without "tag_headers"', loc)
    memory = config.cache_store.memory
    if cache.body_max > memory:
        at_body = "body_max" in said
        yield Problem(
            (*loc, "body_max") if at_body else ("cache_store", "memory"),
            f"a response of {format_size(cache.body_max)} (body_max) does not fit into what a "
            f"worker keeps in all: {format_size(memory)} (cache_store.memory)",
            "make body_max smaller, or the memory larger",
            needs=(loc, ("cache_store",)),
        )
    yield from _check_cookies(cache, loc)
    yield from _check_key(cache.key, (*loc, "key"), config)


def _knows_stale(config: Config) -> bool:
    return "degrade" in config.model_fields_set and any(
        "stale" in level.measures for level in config.degrade.levels
    )


def _check_cookies(cache: CacheSpec, loc: Loc) -> Iterator[Problem]:
    if cache.set_cookie != "store" or cache.key.user:
        return
    at = (*loc, "set_cookie")
    if cache.key.cookies:
        yield Problem(
            at,
            "the cookie that a response sets would be sent to everybody who comes without it, "
            "and key.cookies takes them for one client from then on",
            "say set_cookie: strip, or pass",
            needs=(loc,),
        )
    else:
        yield Problem(
            at,
            "everybody gets the cookie of whoever asked first: if it is a session, they share it",
            "say set_cookie: strip, or make sure that no cookie is about a client",
            warning=True,
            needs=(loc,),
        )


def _is_told_anew(name: str) -> bool:
    """Whether the gateway itself tells services so, in place of what clients say."""
    return name.startswith(_KEPT_FOR_US) or name.encode("utf-8") in SAID_TO_SERVICES


def _check_key(key: CacheKeySpec, loc: Loc, config: Config) -> Iterator[Problem]:
    identity = config.auth.identity
    who = {_canonical(name) for name in identity.headers}
    if identity.token:
        who.add(_canonical(identity.token.header))
    request_id = _canonical(config.request_id.header)
    seen: dict[str, int] = {}
    for index, written in enumerate(key.headers):
        name = _canonical(written)
        at = (*loc, "headers", index)
        first = seen.setdefault(name, index)
        if first != index:
            yield Problem(at, "{value} is there twice", see=(*loc, "headers", first))
        elif name == "host":
            yield Problem(at, "{value} counts by itself", "say host: true, which is the default")
        elif name == "cookie":
            yield Problem(
                at,
                "{value} as a whole is another one for every client, so that nothing is shared",
                "name the cookies that count under key.cookies",
            )
        elif name in who:
            yield Problem(
                at,
                "{value} is told to services by the gateway; what a client says there is dropped",
                "say key.user or key.claims",
            )
        elif name == request_id or _is_told_anew(name):
            yield Problem(
                at,
                "{value} is said by the gateway itself, in place of what a client says there",
                "the host and the scheme count by themselves",
            )
        elif name in _OF_THE_CONNECTION:
            yield Problem(at, "{value} is about the connection and never reaches a service")
        elif name in _OF_THE_CACHE:
            yield Problem(at, "{value} is what a client asks of a cache, which answers it itself")
        elif name in _NEARLY_UNIQUE:
            yield Problem(
                at,
                "{value} is written differently by nearly every client, so that little is shared",
                "let the service name it in Vary, of which the cache knows what is the same",
                warning=True,
            )


def _canonical(name: str) -> str:
    """Services read `x_lang` as `x-lang`."""
    return name.lower().replace("_", "-")


# -- on a route ----------------------------------------------------------------------------


def _check_route(
    route: RouteSpec, loc: Loc, cache: CacheSpec | bool, where: Loc, config: Config
) -> Iterator[Problem]:
    if isinstance(cache, bool):
        return
    is_own = where[: len(loc)] == loc
    methods = set(route.match.methods)
    if is_own and methods and not methods & _ANSWERED:
        yield Problem(
            where,
            "only answers to GET and HEAD are kept, and the route takes neither",
            "leave it out, or say cache: false to keep what others have stored",
            warning=True,
            at_key=True,
            needs=(where, (*loc, "match")),
        )
    use = _auth_of(route, loc, config)
    key = cache.key
    needs = (where, *_wherever("auth"), *_wherever("plugins"), ("auth",))
    if (key.user or key.claims) and not use and not _plugins_of(route, loc, config):
        name = "user" if key.user else "claims"
        yield Problem(
            (*where, "key", name) if is_own else loc,
            f"nothing is ever kept: key.{name} asks who a client is, and the route asks nobody",
            "say auth: on the route, or leave it out of the key",
            warning=not is_own,
            at_key=is_own,
            see=None if is_own else where,
            needs=needs,
        )
    is_said_to_be_one = "user" in key.model_fields_set and not key.user
    if (
        use
        and cache.override
        and (cache.ttl is not None or cache.ttl_by_status)
        and not _tells_users_apart(key)
        and not is_said_to_be_one
    ):
        yield Problem(
            (*where, "override") if is_own else loc,
            "the route asks who a client is, and its cache does not tell clients apart: what one "
            "user got may be shown to the others for as long as ttl says",
            "say key: {user: true}, or claims by which they differ; key: {user: false} says that "
            "all may see the same",
            at_key=is_own,
            see=None if is_own else where,
            needs=needs,
        )


def _tells_users_apart(key: CacheKeySpec) -> bool:
    """As `cache.http.judging` has it."""
    return key.user or bool(key.claims) or "authorization" in map(str.lower, key.headers)


def _auth_of(route: RouteSpec, loc: Loc, config: Config) -> AuthUseSpec | bool | None:
    for where, level in _around(route, loc, config):
        said: AuthUseSpec | bool | None = config.auth.default if not where else level.auth  # type: ignore[attr-defined]  # routes and services have it
        if said is not None:
            return said
    return None


def _plugins_of(route: RouteSpec, loc: Loc, config: Config) -> bool:
    found = (level.plugins for _, level in _around(route, loc, config))
    return bool(next((said for said in found if said is not None), ()))


def _check_tags(
    route: RouteSpec,
    loc: Loc,
    cache: CacheSpec | bool,
    where: Loc,
    told: set[tuple[Loc, str]],
) -> Iterator[Problem]:
    """Once for each place and name: a template at the top reaches every route."""
    if isinstance(cache, bool):
        return
    match = route.match
    known: set[str] = set()
    if match.path is not None:
        known = set(template_params(match.path))
    elif match.regex is not None:
        known = set(re.compile(match.regex).groupindex)
    is_own = where[: len(loc)] == loc
    for index, tag in enumerate(cache.tags):
        for name in names_in(tag):
            at: Loc = (*where, "tags", index)
            if name in known or (at, name) in told:
                continue
            told.add((at, name))
            message = "{value} uses a parameter that the match does not have"
            hint = did_you_mean(name, known)
            if not is_own:
                message = "{value} uses a parameter that a route does not have"
                hint = "say cache with its tags on the routes that have it"
            yield Problem(
                at,
                message,
                hint,
                see=None if is_own else loc,
                needs=(at, (*loc, "match")),
            )


def _wherever(policy: str) -> tuple[Loc, ...]:
    return ((policy,), ("services", ANY, policy), ("routes", ANY, policy))
