"""Whether a request would be let in, and why: the slow twin of `doors`, for `headgate explain`.

Every guard of the route is asked, also those behind the one that refuses, because the reader wants
to know what else stands in the way. Nothing is counted, banned or answered by it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway.credentials import is_shown, strips_of
from headgate.security.access import Asked
from headgate.security.method import Refused, Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from headgate.gateway.compile import RouteParts
    from headgate.plan.plan import RoutePlan
    from headgate.security.bans import Bans
    from headgate.security.denied import Denied
    from headgate.security.identity import Identity
    from headgate.security.method import Method, Parts
    from headgate.security.shown import ShownRequest

log: Final = logging.getLogger("headgate.security")

_PATIENCE_S: Final = 10.0
"""For all methods of the route together."""


@dataclass(frozen=True, slots=True)
class Judgement:
    is_let_in: bool
    lines: tuple[str, ...]
    """What each guard says, in the order in which a request meets them."""

    def to_json(self) -> dict[str, Any]:
        return {"let_in": self.is_let_in, "lines": list(self.lines)}


async def judge(
    route: RoutePlan,
    parts: RouteParts,
    methods: Mapping[str, Method],
    bans: Bans | None,
    shown: ShownRequest,
    params: Mapping[str, str],
    wall: float,
    now: float,
) -> Judgement:
    lines: list[str] = []
    verdicts: list[bool] = []

    def say(policy: str, held: bool, text: str) -> None:
        verdicts.append(held)
        lines.append(f"{policy}: {text}")

    def guard(policy: str, found: Denied | None) -> None:
        if found is None:
            say(policy, True, "nothing against it")
        else:
            say(policy, False, f"refuses with {found.status}: {found.detail or found.reason}")

    if bans is not None:
        guard("bans", bans.check(shown.client_ip, now))
    if parts.addresses is not None:
        guard("addresses", parts.addresses.check(shown.client_ip))
    if parts.bots is not None:
        guard("bots", parts.bots.check(shown, now))
    identity = None
    if route.auth is not None:
        identity = await _authenticate(route, methods, shown, wall, say)
    elif route.is_unsaid:
        say("auth", False, "the route says nothing, and auth.deny_by_default is on")
    else:
        say("auth", True, "nobody is asked who they are")
    if parts.access is not None:
        asked = Asked(
            shown.method,
            shown.path,
            params,
            shown.client_ip,
            wall,
            host=shown.host,
            is_tls=shown.is_tls,
            headers=shown.headers,
        )
        guard("allow", parts.access.check(identity, asked))
        lines += [
            f"  {'yes' if held else 'no '} {condition}"
            for condition, held in parts.access.explain(identity, asked)
        ]
    return Judgement(all(verdicts), tuple(lines))


async def _authenticate(
    route: RoutePlan,
    methods: Mapping[str, Method],
    shown: ShownRequest,
    wall: float,
    say: Callable[[str, bool, str], None],
) -> Identity | None:
    plan = route.auth
    if plan is None:
        return None
    said: list[str] = []
    asked = [methods[name] for name in plan.methods]
    if any(shown.path in method.own_paths for method in asked):
        owners = " and ".join(
            name for name in plan.methods if shown.path in methods[name].own_paths
        )
        # Not asked: what is shown there may be good for once only.
        say("auth", False, f"{owners} answers at this path itself")
        return None
    has_shown = is_shown(shown, strips_of(asked))
    ends_at = asyncio.get_running_loop().time() + _PATIENCE_S
    for name, method in zip(plan.methods, asked, strict=True):
        try:
            got = method.verify(shown, wall)
            if isawaitable(got):
                async with asyncio.timeout_at(ends_at):
                    got = await got
        except TimeoutError:
            said.append(f"{name} does not answer within {_PATIENCE_S:g} s")
            has_shown = True
            continue
        except Exception as error:
            said.append(f"{name} fails with {type(error).__name__}; see the log")
            log.warning("the method %r failed when it was asked to explain", name, exc_info=error)
            has_shown = True
            break
        if isinstance(got, Verified):
            for line in said:
                say("auth", True, line)
            say("auth", True, f"{name} says this is {_who(got.identity)}")
            return got.identity
        if isinstance(got, Refused):
            has_shown = True
            said.append(f"{name} refuses ({got.error}): {got.reason}")
        elif got is None:
            said.append(f"{name} finds nothing that is for it")
        else:
            has_shown = True
            said.append(f"{name} answers with {got.status} itself")
    is_let_in = plan.always or (plan.anonymous and not has_shown)
    for line in said:
        say("auth", is_let_in, line)
    if is_let_in:
        what = "nothing holds" if has_shown else "nothing is shown"
        say("auth", True, f"{what}, and anonymous requests are let in")
    return None


def _who(identity: Identity) -> str:
    parts = [repr(identity.subject)]
    if identity.consumer and identity.consumer != identity.subject:
        parts.append(f"consumer {identity.consumer!r}")
    for word in ("roles", "scopes", "groups"):
        values = sorted(getattr(identity, word))
        if values:
            parts.append(f"{word} {', '.join(values)}")
    if identity.tier:
        parts.append(f"tier {identity.tier}")
    return ", ".join(parts)


class LoneParts:
    """What a command lends to methods: no other workers, nothing kept."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: dict[tuple[object, ...], Any] = {}

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        """Nobody hears."""

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Nobody speaks."""

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        """Asking is no offence."""

    def count(self, policy: str, outcome: str) -> None:
        """Nothing is decided."""

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Nor worth a line."""

    def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()


async def judge_alone(
    route: RoutePlan,
    parts: RouteParts,
    methods: Mapping[str, Method],
    shown: ShownRequest,
    params: Mapping[str, str],
    wall: float,
    now: float,
) -> Judgement:
    """The same where no gateway runs: methods are started for this one question."""
    lent = LoneParts()
    wanted: Sequence[str] = route.auth.methods if route.auth is not None else ()
    started: Parts = lent
    try:
        for name in wanted:
            methods[name].start(started)
        return await judge(route, parts, methods, None, shown, params, wall, now)
    finally:
        for name in wanted:
            methods[name].close()
        lent.close()
