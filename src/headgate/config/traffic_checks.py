"""Policies of traffic that contradict themselves, each other or what they stand on.

Theory of operation
-------------------
Each policy's own rules are asked first (see ``in_words``). What is added here is what they cannot
know: the other policies, the services and routes around them, and what the file says without
effect. As in ``checks``, an error is what cannot work, a warning is what works but is likely not
what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from headgate.config.authenticating import auth_methods
from headgate.config.degrading import DEGRADE_IN_FILE, FallbackSpec
from headgate.config.faults import Loc, did_you_mean
from headgate.config.in_words import judged
from headgate.config.limiting import LIMIT_IN_FILE, LimitSpec, limit_names
from headgate.config.model import Config
from headgate.config.policies import PolicyFields, TimeoutSpec
from headgate.config.problems import Problem
from headgate.config.protecting import CONCURRENCY_IN_FILE, SHED_IN_FILE, ConcurrencySpec
from headgate.config.retrying import BUDGET_IN_FILE, RETRY_IN_FILE, HedgeSpec, RetrySpec
from headgate.config.routes import RouteSpec, targets
from headgate.config.service_checks import (
    check_registry,
    check_service,
    check_service_policies,
    no_effect,
)
from headgate.config.services import ServiceSpec
from headgate.config.splitting import FAULT_IN_FILE, Part
from headgate.config.templates import template_params
from headgate.config.walk import ANY
from headgate.policy.split import SplitRules
from headgate.units import format_duration

__all__ = ["check_traffic"]

_IDENTITY: Final = ("user", "api_key", "consumer", "claim")
_WHOLE: Final = 100.0
_ROUNDING: Final = 1e-6


class _Level(NamedTuple):
    """A place where policies may stand."""

    spec: PolicyFields
    loc: Loc
    owner: str
    """Whose count a limit is that says no ``scope``."""
    services: tuple[str, ...]
    """The services it is about; none when it is about all."""


def check_traffic(config: Config, services: set[str]) -> Iterator[Problem]:
    """Everything wrong with the policies of traffic. ``services`` are those that exist."""
    levels = list(_levels(config))
    tells_who = any(level.spec.plugins for level in levels) or _asks_somebody(config)
    for level in levels:
        yield from _check_level(level, config, services, tells_who=tells_who)
    yield from _check_shared_counts(levels)
    yield from check_service_policies(config, (), config)
    yield from check_registry(config)
    for name, service in config.services.items():
        yield from check_service(service, ("services", name), config)
    for index, route in enumerate(config.routes):
        yield from _check_route(route, ("routes", index), config)
    yield from _check_worker(config, services)


def _levels(config: Config) -> Iterator[_Level]:
    yield _Level(config, (), "global", ())
    for name, service in config.services.items():
        yield _Level(service, ("services", name), f"service/{name}", (name,))
    for index, route in enumerate(config.routes):
        yield _Level(route, ("routes", index), f"route/{route.name}", targets(route))


# -- what may stand at three levels -------------------------------------------------------


def _check_level(
    level: _Level, config: Config, services: set[str], *, tells_who: bool
) -> Iterator[Problem]:
    """``tells_who``: somewhere in the file."""
    spec, loc = level.spec, level.loc
    if spec.timeout is not None:
        yield from _check_timeout(spec.timeout, (*loc, "timeout"))
        if isinstance(spec, RouteSpec) and "connect" in spec.timeout.model_fields_set:
            yield Problem(
                (*loc, "timeout", "connect"),
                "has no effect on a route: connections are a service's, and its routes share them",
                "say it in the timeout of the service",
                warning=True,
                at_key=True,
            )
    if spec.retry:
        timeout = _nearest(level, "timeout", config)
        yield from _check_retry(spec.retry, (*loc, "retry"), timeout)
    if spec.hedge:
        yield from judged(spec.hedge.rules().problems(), spec.hedge, (*loc, "hedge"))
        yield from _check_hedge(spec.hedge, (*loc, "hedge"), _nearest(level, "timeout", config))
    if spec.limit:
        if isinstance(spec, RouteSpec):
            tells_who = bool(_nearest(level, "plugins", config)) or _asks_somebody(config)
        for index, limit in enumerate(spec.limit):
            at = (*loc, "limit", index)
            yield from _check_limit(limit, at)
            yield from _check_keys(limit, at, spec, tells_who=tells_who)
    if spec.concurrency:
        yield from _check_concurrency(spec.concurrency, (*loc, "concurrency"))
    if spec.importance is not None and spec.importance.header and not config.trusted_proxies:
        yield Problem(
            (*loc, "importance", "header"),
            "nobody is believed: trusted_proxies names no one",
            "name the proxies in front of Headgate there",
            warning=True,
            needs=((*loc, "importance"), ("trusted_proxies",)),
        )
    if spec.fallback:
        yield from _check_fallback(spec.fallback, (*loc, "fallback"), level, services)


def _nearest(level: _Level, policy: str, config: Config) -> object:
    """What the level itself, its service or the file says."""
    around: list[PolicyFields] = [level.spec]
    if level.services and level.services[0] in config.services:
        around.append(config.services[level.services[0]])
    found = (getattr(each, policy) for each in (*around, config))
    return next((value for value in found if value is not None), None)


def _check_timeout(timeout: TimeoutSpec, loc: Loc) -> Iterator[Problem]:
    if timeout.total is None:
        return
    for name in ("per_try", "connect", "first_byte"):
        wait: float | None = getattr(timeout, name)
        if name in timeout.model_fields_set and wait is not None and wait > timeout.total:
            yield Problem(
                (*loc, name),
                f"{name} {format_duration(wait)} is more than total "
                f"{format_duration(timeout.total)}, which ends it first",
                warning=name != "per_try",
                needs=((*loc, name), (*loc, "total")),
            )


def _check_retry(retry: RetrySpec, loc: Loc, timeout: object) -> Iterator[Problem]:
    per_try = total = None
    if isinstance(timeout, TimeoutSpec) and "per_try" in timeout.model_fields_set:
        per_try, total = timeout.per_try, timeout.total
    rules = retry.rules(per_try)
    yield from judged(rules.problems(), retry, loc, RETRY_IN_FILE)
    if retry.attempts == 1:
        return
    if retry.budget:
        budget = retry.budget.rules()
        problems = budget.problems()
        yield from judged(problems, retry.budget, (*loc, "budget"), BUDGET_IN_FILE)
    if per_try is not None and total is not None and per_try == total:
        yield Problem(
            loc,
            f"no time is left for a second try: one may take {format_duration(per_try)}, and all "
            f"together {format_duration(total)}",
            "make timeout.per_try shorter",
            needs=(loc, *_wherever("timeout")),
        )


def _check_hedge(hedge: HedgeSpec, loc: Loc, timeout: object) -> Iterator[Problem]:
    after_s = hedge.after.seconds
    if after_s is None or not isinstance(timeout, TimeoutSpec):
        return
    for name in ("per_try", "total"):
        ends_s: float | None = getattr(timeout, name)
        if name in timeout.model_fields_set and ends_s is not None and after_s >= ends_s:
            yield Problem(
                (*loc, "after"),
                f"never comes about: timeout.{name} ends the first try after "
                f"{format_duration(ends_s)}",
                warning=True,
                needs=((*loc, "after"), *_wherever("timeout")),
            )
            return


def _check_limit(limit: LimitSpec, loc: Loc) -> Iterator[Problem]:
    said = limit.model_fields_set
    if (limit.rate is None) == (limit.concurrency is None):
        yield Problem(loc, "write exactly one of rate and concurrency", needs=(loc,))
        return
    if limit.concurrency is not None:
        for name in ("algorithm", "burst", "tiers"):
            if name in said and getattr(limit, name):
                yield Problem((*loc, name), '"concurrency" has none', needs=(loc,), at_key=True)
    else:
        yield from judged(limit.rules().problems(), limit, loc, LIMIT_IN_FILE)
    most = limit.rules().capacity
    if limit.cost.units > most:
        yield Problem(
            (*loc, "cost"),
            f"a request costs {limit.cost.units}, but there are never more than {most}: "
            "every request would be refused",
            needs=(loc,),
        )
    if limit.share == "worker" and "when_away" in said:
        yield Problem(
            (*loc, "when_away"),
            'has no effect: a limit with "share: worker" asks nobody',
            warning=True,
            at_key=True,
            needs=(loc,),
        )


def _asks_somebody(config: Config) -> bool:
    """Whether the file has a way to find out who asks; which routes take it is seen elsewhere."""
    return bool(auth_methods(config.auth))


def _check_keys(
    limit: LimitSpec, loc: Loc, spec: PolicyFields, *, tells_who: bool
) -> Iterator[Problem]:
    keys = [key for each in limit.by for key in each.keys]
    unknown = [key for key in keys if key.kind in _IDENTITY]
    if (unknown or (limit.tiers and limit.rate is not None)) and not tells_who:
        what = str(unknown[0]) if unknown else "tiers"
        yield Problem(
            (*loc, "by" if unknown else "tiers"),
            f'nobody is known by "{what}" here, as nothing tells who a client is: '
            "all are counted by their address",
            "say auth: on these routes, or let a plugin set the identity",
            warning=True,
            needs=(loc, *_wherever("plugins")),
        )
    if isinstance(spec, RouteSpec):
        match = spec.match
        known = set(template_params(match.path)) if match.path is not None else set()
        for key in keys:
            if key.kind == "param" and match.regex is None and key.name not in known:
                yield Problem(
                    (*loc, "by"),
                    f'"{key}" is a parameter that the match does not have',
                    did_you_mean(key.name, known),
                    needs=(loc, (*loc[:2], "match")),
                )


def _check_concurrency(spec: ConcurrencySpec, loc: Loc) -> Iterator[Problem]:
    yield from judged(spec.rules().problems(), spec, loc, CONCURRENCY_IN_FILE)
    adaptive = spec.adaptive_rules()
    if adaptive is not None:
        yield from judged(adaptive.problems(), spec, loc, CONCURRENCY_IN_FILE)
    useless = ["target"] if spec.adaptive == "gradient" else []
    if spec.adaptive is False:
        useless = ["least", "most", "target"]
    for name in useless:
        if name in spec.model_fields_set:
            wanted = "adaptive: aimd" if name == "target" else "adaptive"
            yield no_effect((*loc, name), f'without "{wanted}"', loc)
    if "queue_timeout" in spec.model_fields_set and not spec.queue:
        yield no_effect((*loc, "queue_timeout"), 'without "queue"', loc)


def _check_fallback(
    fallback: FallbackSpec, loc: Loc, level: _Level, services: set[str]
) -> Iterator[Problem]:
    if (fallback.respond is None) == (fallback.service is None):
        yield Problem(loc, "write exactly one of respond and service", needs=(loc,))
        return
    name = fallback.service
    if name is not None and name not in services:
        yield _unknown_service((*loc, "service"), name, services)
    elif level.services == (name,):  # of several, the others may fall back to it
        yield Problem(
            (*loc, "service"),
            "{value} is the service that has failed",
            "name another one, or use respond",
            needs=((*loc, "service"), (*level.loc, "to")),
        )


def _check_shared_counts(levels: Sequence[_Level]) -> Iterator[Problem]:
    """Limits of several places that count together must be the same."""
    seen: dict[str, tuple[LimitSpec, Loc]] = {}
    for level in levels:
        limits = level.spec.limit or ()
        for index, (limit, name) in enumerate(zip(limits, limit_names(limits), strict=True)):
            owner = level.owner
            if limit.scope == "global":
                owner = "global"
            elif limit.scope == "service" and level.services:
                owner = f"service/{level.services[0]}"
            loc = (*level.loc, "limit", index)
            first, where = seen.setdefault(f"{owner}/{name}", (limit, loc))
            if first.rules() != limit.rules() or first.tiers != limit.tiers:
                yield Problem(
                    loc,
                    "counts together with another limit that has another rate",
                    "give one of them a name",
                    see=where,
                    needs=(loc, where),
                )


# -- routes -------------------------------------------------------------------------------


def _check_route(route: RouteSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    if isinstance(route.to, dict):
        yield from _check_parts(route.to, (*loc, "to"))
        yield from _check_left_out(route, loc, config)
    elif route.split is not None and route.split.sticky is not None and route.to is not None:
        yield no_effect((*loc, "split", "sticky"), 'with one service in "to"', (*loc, "to"))
    if route.mirror is not None and route.mirror.to in targets(route):
        yield Problem(
            (*loc, "mirror", "to"),
            "{value} would get every request twice",
            "name another service",
            needs=((*loc, "mirror"), (*loc, "to")),
        )
    if route.fault is not None:
        yield from judged(
            route.fault.rules().problems(), route.fault, (*loc, "fault"), FAULT_IN_FILE
        )
    if route.flag is not None and route.flag not in config.degrade.flags:
        yield Problem(
            (*loc, "flag"),
            "no flag named {value}",
            did_you_mean(route.flag, config.degrade.flags) or "flags stand in degrade.flags",
            needs=((*loc, "flag"), ("degrade",)),
        )
    methods = set(route.match.methods)
    for name in ("retry", "hedge"):
        said: RetrySpec | HedgeSpec | bool | None = getattr(route, name)
        if not said or isinstance(said, bool) or not methods:
            continue
        if not methods & set(said.methods) and not (name == "retry" and _is_one(said)):
            yield Problem(
                (*loc, name),
                f'none of the route\'s methods is among those of "{name}"',
                f"if they may be sent twice, name them in {name}.methods",
                warning=True,
                at_key=True,
                needs=((*loc, name), (*loc, "match")),
            )


def _is_one(said: RetrySpec | HedgeSpec) -> bool:
    return isinstance(said, RetrySpec) and said.attempts == 1


def _check_parts(parts: dict[str, Part], loc: Loc) -> Iterator[Problem]:
    if not parts:
        yield Problem(loc, "must have at least one entry", needs=(loc,))
        return
    percents = [part.is_percent for part in parts.values()]
    total = sum(part.weight for part in parts.values())
    if any(percents) and not all(percents):
        message = "percentages and weights cannot stand side by side"
        yield Problem(loc, message, "write either everywhere", needs=(loc,))
    elif all(percents) and abs(total - _WHOLE) > _ROUNDING:
        message = f"the parts come to {total:g}%, not 100%"
        yield Problem(loc, message, needs=(loc,), at_key=True)
    else:
        rules = SplitRules(parts=tuple((name, part.weight) for name, part in parts.items()))
        yield from (Problem(loc, text, needs=(loc,)) for text in rules.problems())


def _check_left_out(route: RouteSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    """Policies of the second service that do not count, as those of the first do."""
    main, *others = targets(route) or ("",)
    first = config.services.get(main)
    for name in others:
        other = config.services.get(name)
        if first is None or other is None:
            continue
        for policy in PolicyFields.model_fields:
            theirs = getattr(other, policy)
            if theirs is None or getattr(route, policy) is not None:
                continue
            if theirs != getattr(first, policy):
                yield Problem(
                    (*loc, "to", name),
                    f'its "{policy}" does not count here: the route takes that of {main}',
                    f'say "{policy}" on the route',
                    warning=True,
                    at_key=True,
                    needs=(
                        (*loc, "to"),
                        (*loc, policy),
                        ("services", name, policy),
                        ("services", main, policy),
                    ),
                )


# -- the worker as a whole ----------------------------------------------------------------


def _check_worker(config: Config, services: set[str]) -> Iterator[Problem]:
    if config.shed:
        yield from judged(config.shed.rules().problems(), config.shed, ("shed",), SHED_IN_FILE)
    degrade = config.degrade
    if "degrade" not in config.model_fields_set:
        return
    for problem in judged(degrade.rules().problems(), degrade, ("degrade",), DEGRADE_IN_FILE):
        about = [
            index
            for index, level in enumerate(degrade.levels)
            if f'"{level.name}"' in problem.message
        ]
        at: Loc = ("degrade", "levels", about[0]) if about else problem.loc
        yield replace(problem, loc=at)
    used = {route.flag for route in config.routes}
    for flag in degrade.flags:
        if flag not in used and not any(flag in level.flags_off for level in degrade.levels):
            yield Problem(
                ("degrade", "flags", flag),
                "no route has this flag",
                warning=True,
                at_key=True,
                needs=(("degrade", "flags", flag), ("routes", ANY, "flag"), ("degrade", "levels")),
            )
    for index, level in enumerate(degrade.levels):
        loc: Loc = ("degrade", "levels", index, "when")
        for name in level.when.open:
            if name not in services:
                yield _unknown_service((*loc, "open"), name, services, is_quoted=True)
                continue
            service = config.services.get(name)
            if service is not None and not _has_breaker(service, config):
                yield Problem(
                    (*loc, "open"),
                    f'never comes about: the service "{name}" has no breaker',
                    warning=True,
                    needs=((*loc, "open"), ("breaker",), ("services", name)),
                )
        if level.when.shedding and not config.shed:
            yield Problem(
                (*loc, "shedding"),
                'never comes about without "shed" at the top of the file',
                warning=True,
                needs=((*loc, "shedding"), ("shed",)),
            )


def _has_breaker(service: ServiceSpec, config: Config) -> bool:
    return bool(config.breaker if service.breaker is None else service.breaker)


def _unknown_service(
    loc: Loc, name: str, services: Iterable[str], *, is_quoted: bool = False
) -> Problem:
    known = ", ".join(sorted(services)[:8])
    hint = did_you_mean(name, services) or (f"known are {known}" if known else "there are none")
    shown = f'"{name}"' if is_quoted else "{value}"
    return Problem(loc, f"no service named {shown}", hint, needs=(loc, ("services", name)))


def _wherever(policy: str) -> tuple[Loc, ...]:
    return ((policy,), ("services", ANY, policy), ("routes", ANY, policy))
