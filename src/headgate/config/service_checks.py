"""Policies of a service as a whole that contradict themselves, or have no effect there.

See ``traffic_checks`` for what stands on routes, and for the rules of both.
"""

from __future__ import annotations

from collections.abc import Iterator

from headgate.config.balancing import BALANCE_IN_FILE, BalanceSpec
from headgate.config.breaking import BREAKER_IN_FILE
from headgate.config.discovery import problems as discover_problems
from headgate.config.faults import Loc
from headgate.config.health import HEALTH_IN_FILE, OUTLIER_IN_FILE
from headgate.config.in_words import judged
from headgate.config.model import Config
from headgate.config.policies import ServicePolicyFields
from headgate.config.problems import Problem
from headgate.config.registry import REGISTRY_IN_FILE
from headgate.config.registry import problems as registry_problems
from headgate.config.services import ServiceSpec

__all__ = ["check_registry", "check_service", "check_service_policies", "no_effect"]


def check_service_policies(
    spec: ServicePolicyFields, loc: Loc, config: Config
) -> Iterator[Problem]:
    if spec.balance is not None:
        yield from _check_balance(spec.balance, (*loc, "balance"))
    if spec.health:
        problems = spec.health.rules().problems()
        yield from judged(problems, spec.health, (*loc, "health"), HEALTH_IN_FILE)
    if spec.outlier:
        problems = spec.outlier.rules().problems()
        yield from judged(problems, spec.outlier, (*loc, "outlier"), OUTLIER_IN_FILE)
    if spec.breaker:
        problems = spec.breaker.rules().problems()
        yield from judged(problems, spec.breaker, (*loc, "breaker"), BREAKER_IN_FILE)
        if not spec.breaker.failures.status and not spec.breaker.failures.errors:
            yield Problem(
                (*loc, "breaker", "failures"), "nothing counts as a failure: it would never open"
            )
    balance = spec.balance or config.balance
    if spec.affinity and balance is not None and balance.by == "consistent_hash":
        yield Problem(
            (*loc, "affinity"),
            "the cookie decides before consistent_hash does: new clients are spread by their hash, "
            "and then stay where they are when instances come and go",
            "one of the two is enough",
            warning=True,
            at_key=True,
            needs=((*loc, "affinity"), (*loc, "balance"), ("balance",)),
        )
    if spec.affinity and spec.affinity.secret is not None and not spec.affinity.secret.strip():
        yield Problem((*loc, "affinity", "secret"), "the secret is empty")


def _check_balance(spec: BalanceSpec, loc: Loc) -> Iterator[Problem]:
    yield from judged(spec.rules().problems(), spec, loc, BALANCE_IN_FILE)
    for name, by in (
        ("key", "consistent_hash"),
        ("bound", "consistent_hash"),
        ("bound_from", "consistent_hash"),
        ("decay", "peak_ewma"),
    ):
        if name in spec.model_fields_set and spec.by != by:
            yield no_effect((*loc, name), f'without "by: {by}"', loc)


def check_registry(config: Config) -> Iterator[Problem]:
    if not config.registry:
        return
    spec = config.registry
    for path, what, hint, is_warning in registry_problems(spec, config.state):
        yield Problem(("registry", *path), what, hint, warning=is_warning)
    yield from judged(spec.rules().problems(), spec, ("registry",), REGISTRY_IN_FILE)


def check_service(service: ServiceSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    yield from check_service_policies(service, loc, config)
    yield from _check_discover(service, loc, config)
    described = service.openapi
    if described is not None and (described.path is None) == (described.file is None):
        yield Problem(
            (*loc, "openapi"), "needs one of path and file", "write openapi: /openapi.json"
        )
    if len(service.instances) == 1 and service.discover is None:
        instances = (*loc, "instances")
        discover = (*loc, "discover")
        for name, why in (
            ("outlier", "a service's only instance is never taken out"),
            ("affinity", "there is only one instance to come back to"),
        ):
            if getattr(service, name):
                yield Problem(
                    (*loc, name),
                    f"has no effect: {why}",
                    warning=True,
                    at_key=True,
                    needs=((*loc, name), instances, discover),
                )
        if service.hedge:
            yield Problem(
                (*loc, "hedge"),
                "there is no second instance to ask",
                warning=True,
                at_key=True,
                needs=((*loc, "hedge"), instances, discover),
            )
    balance = service.balance or config.balance
    zone = config.zone if balance is None or balance.zone is None else balance.zone
    if not zone:
        for index, instance in enumerate(service.instances):
            if instance.zone:
                at = (*loc, "instances", index, "zone")
                yield Problem(
                    at,
                    "has no effect: it is not said where this gateway is",
                    "write zone at the top of the file",
                    warning=True,
                    needs=(at, ("zone",), ("balance",), (*loc, "balance")),
                )
                break


def _check_discover(service: ServiceSpec, loc: Loc, config: Config) -> Iterator[Problem]:
    discover = service.discover
    if discover is None:
        if not service.instances:
            said = "instances" in service.model_fields_set
            yield Problem(
                (*loc, "instances") if said else loc,
                "has no instances, and nothing says where to find any",
                "write instances: [http://host:port], or discover: registry",
                at_key=True,
                needs=((*loc, "instances"), (*loc, "discover")),
            )
        return
    for path, what, hint, is_warning in discover_problems(discover):
        yield Problem((*loc, "discover", *path), what, hint, warning=is_warning)
    if discover.registry and not config.registry:
        yield Problem(
            (*loc, "discover"),
            "nobody can register: the registry is off",
            "take registry: off out of the file",
            needs=((*loc, "discover"), ("registry",)),
        )


def no_effect(loc: Loc, why: str, *needs: Loc) -> Problem:
    return Problem(loc, f"has no effect {why}", warning=True, at_key=True, needs=(loc, *needs))
