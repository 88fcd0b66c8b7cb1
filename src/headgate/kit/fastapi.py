"""Dependencies for FastAPI, in an app that `harden` was given.

User = Annotated[Identity, Depends(current_user())]
Admin = Annotated[Identity, Depends(current_user(roles=("admin",)))]

@app.get("/orders", dependencies=[Depends(limited("10/s"))])
async def orders(user: User, cache: Annotated[Cache, Depends(cache())]): ...

answer = await mesh.service("users").get("/internal/me", headers=forwarded(request))
"""
# No `from __future__ import annotations`: FastAPI reads the dependencies in these annotations, and
# they are names of the functions around them.

from collections.abc import Awaitable, Callable, Collection

from fastapi import Response
from starlette.requests import HTTPConnection

from headgate.cache import Cache
from headgate.kit.judging import judged, wanted_of
from headgate.kit.problems import Problem
from headgate.kit.serving import NotHardened, Serving, serving_of
from headgate.policy.limiter.headers import LimitHeaders
from headgate.resilience import limit
from headgate.resilience.settings import RateText
from headgate.security.identity import Identity

__all__ = ["cache", "current_user", "flag", "forwarded", "limited"]

KeyOf = Callable[[HTTPConnection], str]


def current_user(
    *, roles: Collection[str] = (), optional: bool = False
) -> Callable[[HTTPConnection], Awaitable[Identity | None]]:
    """A dependency: who asks, as the gateway says it. 401 for nobody, 403 without one of `roles`.

    With `optional`, nobody is None; a token that does not hold is refused all the same.
    """
    wanted = wanted_of(roles)

    async def dependency(connection: HTTPConnection) -> Identity | None:
        return judged(await _found(connection), wanted, optional=optional)

    return dependency


async def _found(connection: HTTPConnection) -> Identity | None:
    serving = serving_of(connection.scope)
    if serving.identity is None:
        who_asks = serving.equipment.who_asks
        if who_asks is None:
            raise NotHardened("who asks cannot be told: harden(app, identity_keys=...) is missing")
        serving.identity = await who_asks.find(connection.scope["headers"])
    return serving.identity


def forwarded(request: HTTPConnection) -> dict[str, str]:
    """Headers that pass on who asks, and the id of the request, with a call to another service.

    Deadline and trace go with every call of the mesh by themselves. The other service must take
    tokens of the same audience; one that was not verified here is passed on as it is.
    """
    serving = serving_of(request.scope)
    headers = {"x-request-id": serving.request_id} if serving.request_id else {}
    who_asks = serving.equipment.who_asks
    if who_asks is not None:
        token = request.headers.get(who_asks.header)
        if token:
            headers[who_asks.header] = token
    return headers


def cache() -> Callable[[HTTPConnection], Awaitable[Cache]]:
    """A dependency: the cache that `harden(app, cache=...)` was given."""

    async def dependency(connection: HTTPConnection) -> Cache:
        found = serving_of(connection.scope).equipment.cache
        if found is None:
            raise NotHardened("there is no cache: harden(app, cache=...) is missing")
        return found

    return dependency


def limited(
    *rates: RateText, key: KeyOf | None = None, cost: int = 1, name: str = "limited"
) -> Callable[[HTTPConnection, Response], Awaitable[None]]:
    """A dependency: so many requests in so much time, of each user, and of each address where
    nobody is signed in. 429 with `Retry-After` and `RateLimit` above that.

    Each call of `limited` counts for itself; give the same one to routes that shall share.
    """
    guard = limit(*rates, name=name)
    told = LimitHeaders(name, guard.rules[0])

    async def dependency(connection: HTTPConnection, response: Response) -> None:
        who = key(connection) if key is not None else await _who(connection)
        verdict = guard.try_hit(who, cost)
        fields = told.fields(verdict)
        if not verdict.allowed:
            raise Problem(429, "too many requests", code="rate_limited", headers=dict(fields))
        for field, value in fields:
            response.headers[field] = value

    return dependency


async def _who(connection: HTTPConnection) -> str:
    serving = serving_of(connection.scope)
    identity = serving.identity or await _tried(connection, serving)
    if identity is not None:
        return f"user {identity.subject}"
    client = connection.client
    return f"address {client.host}" if client is not None else ""


async def _tried(connection: HTTPConnection, serving: Serving) -> Identity | None:
    who_asks = serving.equipment.who_asks
    if who_asks is None:
        return None
    try:
        return await who_asks.find(connection.scope["headers"])
    except Problem:
        return None  # whoever needs to know says it; here it counts for the address


def flag(name: str, default: bool | None = None) -> Callable[[HTTPConnection], Awaitable[bool]]:
    """A dependency: whether a flag of `harden(app, flags=...)` is on for whoever asks.

    Of one that was not given there, `default` is the answer; without it that is an error.
    """

    async def dependency(connection: HTTPConnection) -> bool:
        flags = serving_of(connection.scope).equipment.flags
        if flags is None or name not in flags.names:
            if default is None:
                raise NotHardened(f"there is no flag {name!r}: harden(app, flags=...) names none")
            return default
        return flags.is_on(name, await _who(connection))

    return dependency
