"""The part of the admin API about rate limits: what they decide, who uses most, a key's own state.

Keys are told as limits have them: `header:x-who=anna`, an address, and for several together each
with its length before it. Asked for may be the bare value too. Of headers and cookies that are
credentials only a digest is told.

Where a limit is shared, its home in this process knows every key. Otherwise each worker counts for
itself, and is asked. Of limits that live in Redis neither knows the keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin import models
from headgate.control.admin.listing import (
    ASKED,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    no_such,
    shown,
)
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import Problem
from headgate.control.admin.traffic import limits_of
from headgate.control.channel import ChannelClosed
from headgate.control.control import Control
from headgate.plan.plan import Plan
from headgate.plan.traffic import LimitPlan
from headgate.policy.limiter.keys import client_ip_key, short_key
from headgate.policy.limiter.rules import LimitRules

__all__ = ["LimitDetail", "LimitKey", "add_rate_limits"]

ANSWER_S = 1.0
_CREDENTIALS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "session", "sessionid"}
)


class LimitKey(Answer):
    key: str
    used: float | None = None
    remaining: int | None = None
    limit: int | None = None
    is_refused: bool = False
    """The next request of this key is refused."""
    retry_after_s: float = 0.0
    reset_s: float = 0.0
    """Until all of it can be had again, if nobody asks."""
    worker: int | None = None
    """Where each worker counts for itself."""


class LimitDetail(models.LimitState):
    name: str
    """As headers, logs and `reset` call it."""
    routes: list[str]
    rate: int
    period_s: float
    algorithm: str
    by: list[str]
    """What makes a key; empty: one for everybody."""
    is_shadow: bool
    """It only counts whom it would have refused."""
    top: list[LimitKey] = Field(default_factory=list)
    """Who uses most, the most first."""
    key: list[LimitKey] = Field(default_factory=list)
    """The key that was asked for: one row, or one a worker."""


class LimitReset(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[str, Field(max_length=1000)]
    """Its id, or its name if no other has it."""
    key: Annotated[str, Field(max_length=4096)]
    """Whose count to forget, as `top` shows it."""


def _plans(plan: Plan) -> dict[str, tuple[LimitPlan, LimitRules, list[str]]]:
    """Every limit and tier of one by its id, with the routes that have it."""
    found: dict[str, tuple[LimitPlan, LimitRules, list[str]]] = {}
    for route in plan.routes:
        for limit in route.limits:
            found.setdefault(limit.id, (limit, limit.rules, []))[2].append(route.name)
            for tier, rules in limit.tiers.items():
                found.setdefault(f"{limit.id}@{tier}", (limit, rules, []))[2].append(route.name)
    return found


def _named(plan: Plan, name: str) -> str:
    """The id of a limit, by its id or its name."""
    plans = _plans(plan)
    if name in plans:
        return name
    same = [id_ for id_, (limit, _, _) in plans.items() if limit.name == name and "@" not in id_]
    if len(same) == 1:
        return same[0]
    if same:
        raise Problem(422, f'several limits are named "{name}": say one of {", ".join(same)}')
    raise no_such("limit", name, [*plans, *{limit.name for limit, _, _ in plans.values()}])


def _text_of(plan: LimitPlan, key: str) -> str:
    """A key as limits have it, from what somebody typed."""
    try:
        ipaddress.ip_address(key)
    except ValueError:
        pass
    else:
        return client_ip_key(key, plan.ipv6_prefix)
    if len(plan.keys) != 1 or plan.keys[0].kind in ("ip", "template"):
        return key
    mark = f"{plan.keys[0]}="
    return key if key.startswith(mark) else mark + short_key(key)


def _shown(plan: LimitPlan, key: str) -> str:
    """A key without what lets somebody in."""
    if any(spec.name in _CREDENTIALS for spec in plan.keys) or any(
        spec.kind == "template" for spec in plan.keys
    ):
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        mark, equals, _ = key.partition("=")
        return f"{mark}{equals}***{digest}" if equals else key
    return key


def _details(control: Control) -> list[LimitDetail]:
    plans = _plans(control.plan())
    counted = {row.id: row for row in limits_of(control)}
    rows = []
    for id_, (limit, rules, routes) in plans.items():
        known = counted.get(id_)
        state: dict[str, Any] = (
            known.model_dump()
            if known is not None
            else {"id": id_, "allowed": 0, "refused": 0, "shadowed": 0, "keys": 0}
        )
        if known is None:
            state["home"] = "shared" if limit.share == "shared" else "worker"
        rows.append(
            LimitDetail(
                **state,
                name=limit.name,
                routes=routes,
                rate=rules.limit,
                period_s=rules.period_s,
                algorithm=rules.algorithm,
                by=[str(key) for key in limit.keys],
                is_shadow=limit.shadow,
            )
        )
    return rows


async def _ask_workers(control: Control, asked: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    payload = json.dumps(asked).encode()

    async def ask(link: Any) -> tuple[int, dict[str, Any]]:
        try:
            answer = await link.channel.ask("traffic", payload, timeout_s=ANSWER_S)
            found: dict[str, Any] = json.loads(answer.payload)
        except (TimeoutError, ChannelClosed, ValueError):
            return link.index, {}
        return link.index, found

    return list(await asyncio.gather(*(ask(link) for link in control.hub.links.values())))


def _in_redis(control: Control) -> bool:
    return bool(control.plan().state != "memory")


async def _keys_of(control: Control, row: LimitDetail, most: int) -> list[LimitKey]:
    if row.home == "shared":
        used = control.shared.top_limit_keys(row.id, most)
        found = []
        for key, count in used:
            verdict = control.shared.limit_key(row.id, str(key))
            plan = _plans(control.plan())[row.id][0]
            found.append(_key(_shown(plan, str(key)), verdict, used=count))
        return found
    rows = [
        LimitKey(
            key=_shown(_plans(control.plan())[row.id][0], key),
            used=round(used, 3),
            limit=row.rate,
            worker=index,
        )
        for index, said in await _ask_workers(control, {"limit": row.id, "most": most})
        for key, used in said.get("top", ())
    ]
    rows.sort(key=lambda each: (-(each.used or 0.0), each.key))
    return rows[:most]


async def _key_of(control: Control, row: LimitDetail, key: str) -> list[LimitKey]:
    if row.home == "shared":
        return [_key(key, control.shared.limit_key(row.id, key))]
    return [
        LimitKey(
            key=key,
            used=verdict["limit"] - verdict["remaining"],
            remaining=verdict["remaining"],
            limit=verdict["limit"],
            is_refused=not verdict["allowed"],
            retry_after_s=_finite(verdict["retry_after_s"]),
            reset_s=_finite(verdict["reset_s"]),
            worker=index,
        )
        for index, said in await _ask_workers(control, {"limit": row.id, "key": key})
        if (verdict := said.get("key")) is not None
    ]


def add_rate_limits(router: APIRouter, control: Control) -> None:
    @router.get("/api/limits", tags=["limits"], responses=ASKED, response_model=list[LimitDetail])
    async def limits(
        request: Request,
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every rate limit with what it decided; of all workers together."""
        await control.hub.refresh()
        return listed(
            request,
            _details(control),
            key=lambda row: str(row["id"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.post("/api/limits/reset", tags=["limits"], responses=ASKED)
    async def reset(order: LimitReset) -> models.Accepted:
        """Forget what one key has used. It happens once: what comes after is counted as ever."""
        id_ = _named(control.plan(), order.limit)
        plan, rules, _ = _plans(control.plan())[id_]
        if rules.algorithm == "concurrency":
            raise Problem(
                422,
                f"{id_} counts what is under way: there is nothing to forget, it falls by itself",
            )
        if _in_redis(control) and plan.share == "shared":
            raise Problem(422, f"{id_} is counted in Redis; reset it there, by its key")
        key = _text_of(plan, order.key)
        control.shared.clear_limit_key(id_, key)
        control.orders.limit_key(id_, key)
        return models.Accepted(message=f"{_shown(plan, key)} of {plan.name} begins anew")

    @router.get(
        "/api/limits/{id:path}", tags=["limits"], responses=ASKED, response_model=LimitDetail
    )
    async def one(
        request: Request,
        id: Annotated[str, Path(max_length=1000)],  # noqa: A002 - the API's name
        key: Annotated[str, Query(max_length=4096, description="Show how this key stands")] = "",
        top: Annotated[int, Query(ge=0, le=1000, description="Show who uses most")] = 20,
    ) -> Response:
        """One limit, by its id or its name: who uses most, and how one key stands."""
        await control.hub.refresh()
        named = _named(control.plan(), id)
        row = next(each for each in _details(control) if each.id == named)
        if _in_redis(control) and row.home == "shared":
            if key:
                raise Problem(422, f"{named} is counted in Redis, where its keys are")
            return shown(request, row)
        row.top = await _keys_of(control, row, top) if top else []
        if key:
            row.key = await _key_of(control, row, _text_of(_plans(control.plan())[named][0], key))
        return shown(request, row)


def _key(key: str, verdict: Any, *, used: float | None = None) -> LimitKey:
    if verdict is None:
        return LimitKey(key=key, used=used)
    return LimitKey(
        key=key,
        used=round(used if used is not None else verdict.limit - verdict.remaining, 3),
        remaining=verdict.remaining,
        limit=verdict.limit,
        is_refused=not verdict.allowed,
        retry_after_s=round(_finite(verdict.retry_after_s), 3),
        reset_s=round(_finite(verdict.reset_s), 3),
    )


def _finite(seconds: float) -> float:
    """JSON has no infinity."""
    return min(1000000000.0, seconds)
