"""What stands at the entrance of a worker: methods, bans and the steps that a request meets first.

Theory of operation
-------------------
A method lives as long as what the file says of it does not change; its keys, caches and nonces
stay over reloads that mention other things. `take` brings all of it in line with a plan, and
`steps` answers what stands before a route's own policies. Nothing here can refuse a plan:
whatever may fail was built before (see `compile`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway import identity_key
from headgate.gateway.doors import (
    Authentication,
    allowing,
    barring,
    by_address,
    by_kind,
    hooked,
    refuse_unsaid,
)
from headgate.gateway.identity_headers import Telling
from headgate.gateway.judging import judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.config import Config
    from headgate.gateway.compile import Compiled, RouteParts
    from headgate.gateway.judging import Judgement
    from headgate.gateway.parts import WorkerParts
    from headgate.gateway.steps import Step
    from headgate.observe import Rows
    from headgate.plan.plan import Plan, RoutePlan
    from headgate.security.method import Method
    from headgate.security.shown import ShownRequest

IDENTITY_KEY: Final = "identity-key.pem"
"""In the state directory."""


class Entrance:
    def __init__(self, parts: WorkerParts) -> None:
        self.parts = parts
        self._methods: dict[str, tuple[Any, Method]] = {}
        self._telling: Telling | None = None
        self._routes: dict[str, tuple[RoutePlan, RouteParts]] = {}

    def take(self, plan: Plan, compiled: Compiled, now: float) -> None:
        config = plan.config
        parts = self.parts
        parts.begin()
        self._take_methods(config, compiled)
        self._take_bans(config, now)
        key = compiled.identity_key
        token = config.auth.identity.token
        if token and key is None:
            key = parts.keep(
                ("identity-key",),
                lambda: identity_key.kept(Path(config.state_dir or ".headgate") / IDENTITY_KEY),
            )
        self._telling = Telling(config.auth.identity, key)
        for route in compiled.routes:
            for each in route.filters:
                each.start(parts)
        self._routes = {
            route.name: (route, built)
            for route, built in zip(plan.routes, compiled.routes, strict=True)
        }
        parts.settle()

    def _take_methods(self, config: Config, compiled: Compiled) -> None:
        said = methods_said(config)
        kept: dict[str, tuple[Any, Method]] = {}
        for name, method in compiled.methods.items():
            before = self._methods.get(name)
            if before is not None and before[0] == said[name]:
                kept[name] = before
            else:
                kept[name] = (said[name], method)
        for name, (_, method) in self._methods.items():
            if name not in kept or kept[name][1] is not method:
                method.close()
        for name, (_, method) in kept.items():
            before = self._methods.get(name)
            if before is None or before[1] is not method:
                method.start(self.parts)
        self._methods = kept

    def _take_bans(self, config: Config, now: float) -> None:
        parts = self.parts
        spec = config.bans
        if not spec:
            parts.bans = None
            return
        from headgate.security.bans import Bans

        rules = spec.rules(config.trusted_proxies)
        if parts.bans is None:
            parts.bans = parts.keep(("bans",), lambda: _attached(Bans(rules, now), parts))
        else:
            parts.keep(("bans",), lambda: parts.bans)
            parts.bans.take_rules(rules, now)

    def steps(self, route: RoutePlan, parts: RouteParts) -> list[Step]:
        """What a request to this route meets first."""
        lent = self.parts
        found: list[Step] = []
        if lent.bans is not None:
            found.append(barring(lent.bans, lent))
        if parts.addresses is not None:
            found.append(by_address(parts.addresses, lent))
        if parts.bots is not None:
            found.append(by_kind(parts.bots, lent))
        found += hooked(parts.early)
        if route.auth is not None and self._telling is not None:
            methods = [self._methods[name][1] for name in route.auth.methods]
            found.append(Authentication(methods, route.auth, self._telling, lent).step)
        elif route.is_unsaid:
            found.append(refuse_unsaid)
        if parts.access is not None:
            found.append(allowing(parts.access, lent))
        return found

    async def judge(
        self, route: str, shown: ShownRequest, params: Mapping[str, str], now: float
    ) -> Judgement | None:
        """Whether this request would be let in; None where nothing stands at the entrance."""
        found = self._routes.get(route)
        if found is None or not found[0].is_guarded:
            return None
        methods = {name: method for name, (_, method) in self._methods.items()}
        wall = time.time()  # noqa: TID251 - tokens live in wall time
        return await judge(*found, methods, self.parts.bans, shown, params, wall, now)

    def turn(self, now: float) -> None:
        """A few times a second."""
        if self.parts.bans is not None:
            self.parts.bans.sweep(now)

    def snapshot(self, now: float) -> dict[str, Any]:
        wall = time.time()  # noqa: TID251 - tokens and keys live in wall time
        return {
            "methods": {name: method.snapshot(wall) for name, (_, method) in self._methods.items()},
            "bans": self.parts.bans.snapshot(now) if self.parts.bans is not None else [],
        }

    def rows_into(self, rows: Rows) -> None:
        for (policy, outcome), count in self.parts.counts.items():
            rows["headgate_guard_decisions_total"].append(([policy, outcome], count))


def methods_said(config: Config) -> dict[str, Any]:
    """What the file says of each method."""
    from headgate.config.authenticating import auth_methods

    return {name: spec for name, (_, spec) in auth_methods(config.auth).items()}


def _attached(bans: Any, parts: WorkerParts) -> Any:
    bans.attach(parts)
    return bans
