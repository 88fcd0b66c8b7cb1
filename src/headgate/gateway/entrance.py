"""What stands at the entrance of a worker: methods, bans and the steps that a request meets first.

Theory of operation
-------------------
A method lives as long as what the file says of it does not change; its keys, caches and nonces
stay over reloads that mention other things. `take` brings all of it in line with a plan, and
`steps` answers what stands before a route's own policies. Nothing here can refuse a plan:
whatever may fail was built before (see `compile`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.config.guarding import ban_rules_of
from headgate.errors import ConfigInvalid, Fault
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
from headgate.gateway.mesh_gate import MeshGate
from headgate.security.bans import Bans, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headgate.config import Config
    from headgate.gateway.compile import Compiled, RouteParts
    from headgate.gateway.identity_key import IdentityKey
    from headgate.gateway.judging import Judgement
    from headgate.gateway.parts import Loan, WorkerParts
    from headgate.gateway.steps import Step
    from headgate.observe import Rows
    from headgate.plan.plan import Plan, RoutePlan
    from headgate.security.bots import Bots
    from headgate.security.method import Method, Parts
    from headgate.security.shown import ShownRequest

log: Final = logging.getLogger("headgate.security")

IDENTITY_KEY: Final = "identity-key.pem"
"""In the state directory."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seated:
    """A method that serves, and what it was made from."""

    said: Any
    method: Method
    loan: Loan


class Entrance:
    def __init__(self, parts: WorkerParts) -> None:
        self.parts = parts
        self._mesh = MeshGate(parts)
        self._methods: dict[str, _Seated] = {}
        self._loans: list[Loan] = []
        self._has_ban_rules = False
        self.on_banned: Callable[[], None] | None = None
        """Called when somebody is banned whose requests on open connections nobody looks at."""
        self._telling: Telling | None = None
        self._own_key: tuple[Path, IdentityKey] | None = None
        self._routes: dict[str, tuple[RoutePlan, RouteParts]] = {}

    def ready(self, plan: Plan, compiled: Compiled) -> IdentityKey | None:
        """The key that services are told with, where the plan wants one; read or made before
        anything changes, because it may fail. Raises ConfigInvalid.
        """
        config = plan.config
        if compiled.identity_key is not None or not config.auth.identity.token:
            return compiled.identity_key
        path = Path(config.state_dir or ".headgate") / IDENTITY_KEY
        if self._own_key is None or self._own_key[0] != path:
            from headgate.gateway import identity_key  # it makes keys, and is heavy

            try:
                self._own_key = path, identity_key.kept(path)
            except (OSError, ValueError) as error:
                why = f"no key to sign with: {error}"
                raise ConfigInvalid((Fault("", 0, 0, "auth.identity.token", why),)) from error
        return self._own_key[1]

    def take(self, plan: Plan, compiled: Compiled, key: IdentityKey | None, now: float) -> None:
        config = plan.config
        parts = self.parts
        parts.begin()
        self._take_methods(config, compiled)
        self._take_bans(config, now)
        self._mesh.take(config)
        self._telling = Telling(config.auth.identity, key)
        # Filters are made anew with each plan, and so are their loans.
        before, self._loans = self._loans, []
        looking: list[Bots] = []
        for route in compiled.routes:
            for each in route.filters:
                _begin(each, self._lend())
            if route.bots is not None and route.bots not in looking:
                looking.append(route.bots)
                _begin(route.bots, self._lend())
        for loan in before:
            loan.end()
        self._routes = {
            route.name: (route, built)
            for route, built in zip(plan.routes, compiled.routes, strict=True)
        }
        parts.settle()

    def _lend(self) -> Loan:
        loan = self.parts.lend()
        self._loans.append(loan)
        return loan

    def _take_methods(self, config: Config, compiled: Compiled) -> None:
        said = methods_said(config)
        kept: dict[str, _Seated] = {}
        for name, method in compiled.methods.items():
            before = self._methods.get(name)
            if before is not None and before.said == said[name]:
                kept[name] = before
            else:
                kept[name] = _Seated(said[name], method, self.parts.lend())
        for name, seated in self._methods.items():
            if kept.get(name) is not seated:
                seated.method.close()
                seated.loan.end()
        for name, seated in kept.items():
            if self._methods.get(name) is seated:
                seated.loan.renew()
            else:
                _begin(seated.method, seated.loan)
        self._methods = kept

    def _take_bans(self, config: Config, now: float) -> None:
        """The list is always there: an operator may ban by hand where the file has no rules."""
        rules = ban_rules_of(config.bans, config.trusted_proxies)
        self._has_ban_rules = bool(config.bans)
        if self.parts.bans is None:
            self.parts.bans = Bans(rules, now)
            self.parts.bans.on_change = self._hear_of_ban
            self.parts.bans.attach(self.parts.lend())
        else:
            self.parts.bans.take_rules(rules, now)

    def _hear_of_ban(self, change: Change) -> None:
        # Where there are rules, each request is looked at.
        if change.what == "banned" and not self._has_ban_rules and self.on_banned is not None:
            self.on_banned()

    def owned(self) -> dict[str, tuple[int, ...]]:
        """Paths that methods own, each with the routes that name its method."""
        found: dict[str, list[int]] = {}
        for route, _ in self._routes.values():
            for name in route.auth.methods if route.auth is not None else ():
                for path in self._methods[name].method.own_paths:
                    found.setdefault(path, []).append(route.index)
        return {path: tuple(routes) for path, routes in found.items()}

    def steps(self, route: RoutePlan, parts: RouteParts) -> list[Step]:
        """What a request to this route meets first."""
        lent = self.parts
        found: list[Step] = []
        if lent.bans is not None and self._has_ban_rules:
            found.append(barring(lent.bans, lent))
        if parts.addresses is not None:
            found.append(by_address(parts.addresses, lent))
        if parts.bots is not None:
            found.append(by_kind(parts.bots, lent))
        found += self._mesh.steps(route.service)
        found += hooked(parts.early)
        if route.auth is not None and self._telling is not None:
            methods = [self._methods[name].method for name in route.auth.methods]
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
        methods = {name: seated.method for name, seated in self._methods.items()}
        wall = time.time()  # noqa: TID251 - tokens live in wall time
        return await judge(*found, methods, self.parts.bans, shown, params, wall, now)

    def snapshot(self, now: float) -> dict[str, Any]:
        wall = time.time()  # noqa: TID251 - tokens and keys live in wall time
        bans = self.parts.bans
        return {
            "methods": {
                name: seated.method.snapshot(wall) for name, seated in self._methods.items()
            },
            "bans": {"list": bans.snapshot(now), "figures": bans.figures()} if bans else {},
        }

    def rows_into(self, rows: Rows) -> None:
        for (policy, outcome), count in self.parts.counts.items():
            rows["headgate_guard_decisions_total"].append(([policy, outcome], count))
        self._mesh.rows_into(rows)


class _Starts(Protocol):
    def start(self, parts: Parts) -> None: ...


def _begin(what: _Starts, loan: Loan) -> None:
    """Start what a plan brings. The plan stands already, and plugins are code of others."""
    try:
        what.start(loan)
    except Exception:
        log.exception("%s could not take up its work", type(what).__qualname__)


def methods_said(config: Config) -> dict[str, Any]:
    """What the file says of each method."""
    from headgate.config.authenticating import auth_methods

    return {name: spec for name, (_, spec) in auth_methods(config.auth).items()}
