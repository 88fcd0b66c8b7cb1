"""`Config` -> `Plan`, and the same plan asked "what would become of this request?"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from headgate.config import PolicyFields, TimeoutSpec
from headgate.config.model import Spec
from headgate.errors import HeadgateError
from headgate.plan.conditions import MatchInput
from headgate.plan.explain import Account, account
from headgate.plan.match import Matched, rule_from_spec
from headgate.plan.paths_out import change_of
from headgate.plan.plan import InstancePlan, Plan, RoutePlan, ServicePlan, Timeouts
from headgate.plan.router import Router
from headgate.units import format_duration, format_size
from headgate.wire.host import parse_authority
from headgate.wire.target import BadTarget, parse_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.config import CompressSpec, Config, RouteSpec, ServiceSpec
    from headgate.plan.explain import Origin

_SHORT: Final = 160


def build(config: Config) -> Plan:
    """Build the whole plan. Raises ConfigInvalid; nothing of the old plan is touched."""
    services = {name: _service(name, spec, config) for name, spec in config.services.items()}
    routes = tuple(_route(index, spec, config) for index, spec in enumerate(config.routes))
    rules = [
        rule_from_spec(spec.match, index, spec.name, spec.priority)
        for index, spec in enumerate(config.routes)
    ]
    return Plan(config, routes, services, config.listeners, Router(rules))


def explain(
    plan: Plan, method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> Account:
    """Which route would take this request, why nearer ones would not, which policies apply."""
    fields = tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers
    )
    parts = urlsplit(url)
    raw = url[url.index(parts.netloc) + len(parts.netloc) :] if parts.netloc else url
    target = parse_target(method, (raw.partition("#")[0] or "/").encode("utf-8"))
    if isinstance(target, BadTarget):
        raise HeadgateError(f"the gateway answers {target.status} to this URL: {target.reason}")
    said = next((value for name, value in fields if name == b"host"), parts.netloc.encode())
    authority = parse_authority(said) if said else None
    if said and authority is None:
        raise HeadgateError(f"the gateway answers 400: {said.decode('latin-1')!r} is no host")
    request = MatchInput(
        method,
        authority.host if authority else "",
        target.path,
        target.query,
        tuple(field for field in fields if field[0] != b"host"),
        client_ip,
    )
    explanation = plan.router.explain(request)
    answer = explanation.answer
    if not isinstance(answer, Matched):
        return account(explanation)
    route = plan.routes[answer.index]
    return account(explanation, route.policies, route.target)


def _service(name: str, spec: ServiceSpec, config: Config) -> ServicePlan:
    timeout = spec.timeout or config.timeout or TimeoutSpec()
    return ServicePlan(
        name,
        tuple(InstancePlan(i.url, i.weight, i.endpoint) for i in spec.instances),
        spec.balance,
        spec.http,
        spec.host,
        spec.pool,
        spec.tls,
        timeout.connect,
    )


class _Levels:
    """The three places where a policy may stand, nearest first."""

    def __init__(self, route: RouteSpec, index: int, config: Config) -> None:
        service = config.services.get(route.to) if route.to is not None else None
        self._levels: list[tuple[Origin, str, PolicyFields]] = [
            ("route", f"routes[{index}].", route)
        ]
        if service is not None:
            self._levels.append(("service", f"services.{route.to}.", service))
        self._levels.append(("global", "", config))
        self.lines: list[tuple[str, str, Origin]] = []

    def nearest(self, policy: str, default: object) -> tuple[Any, str]:
        """The nearest level that says `policy`, whole; and where in the document it stands."""
        for origin, prefix, level in self._levels:
            value = getattr(level, policy)
            if value is not None:
                self.lines.append((policy, _in_short(policy, value), origin))
                return value, prefix + policy
        if default is not None:
            self.lines.append((policy, _in_short(policy, default), "default"))
        return default, policy


def _route(index: int, spec: RouteSpec, config: Config) -> RoutePlan:
    levels = _Levels(spec, index, config)
    timeout = cast("TimeoutSpec", levels.nearest("timeout", TimeoutSpec())[0])
    body_limit = cast("int", levels.nearest("body_limit", config.limits.body)[0])
    headers, headers_where = levels.nearest("headers", None)
    compress = cast("CompressSpec | bool | None", levels.nearest("compress", None)[0])
    plugins, plugins_where = levels.nearest("plugins", None)
    return RoutePlan(
        index=index,
        name=spec.name,
        service=spec.to,
        redirect=spec.redirect,
        respond=spec.respond,
        host=spec.host,
        change_path=change_of(spec),
        upgrades=frozenset(name.lower() for name in spec.upgrade),
        timeouts=Timeouts(
            timeout.connect, timeout.first_byte, timeout.idle, timeout.tunnel, timeout.total
        ),
        body_limit=body_limit,
        headers=headers,
        compress=None if isinstance(compress, bool) else compress,
        plugins=plugins or (),
        plugins_where=plugins_where,
        headers_where=headers_where,
        policies=tuple(levels.lines),
    )


def _in_short(policy: str, value: object) -> str:
    """A policy in one line, in the file's own units, with what was said and not every default."""
    if policy == "body_limit" and isinstance(value, int):
        text = format_size(value)
    elif isinstance(value, TimeoutSpec):
        text = ", ".join(
            f"{name} {format_duration(wait)}" for name, wait in value if wait is not None
        )
    elif isinstance(value, Spec):
        said = value.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(said, ensure_ascii=False) if said else "on, with all defaults"
    elif isinstance(value, tuple):
        text = ", ".join(plugin.use for plugin in value) or "none"
    else:
        text = "off" if value is False else str(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
