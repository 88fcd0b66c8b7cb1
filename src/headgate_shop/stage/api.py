"""The stage's own API, on loopback: who runs, kill, stop, start, traffic, mails.

GET  /state
POST /services/{name}/kill | stop {"for_s": 120} | start
POST /traffic {"rate": requests a second, or null for the usual rate}
POST /redis/stop | start
GET  /mails?limit=&to=      GET /mails/{id}
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate_shop.stage.mail import MailCatcher

__all__ = ["Steering", "application"]

BODY_BYTES: Final = 4096
MAILS: Final = 200
RATE: Final = 2000.0


class Steering(Protocol):
    """What the API steers."""

    def state(self) -> dict[str, Any]: ...

    def names(self) -> tuple[str, ...]:
        """Of the services that can be killed, stopped and started."""
        ...

    def kill(self, name: str) -> None: ...

    def stop(self, name: str, for_s: float | None) -> None: ...

    def start(self, name: str) -> None: ...

    def set_traffic(self, rate: float | None) -> None: ...


_Handler: TypeAlias = Callable[[Request], Awaitable[Any]]


class _Wrong(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def application(steering: Steering, mails: MailCatcher, token: str) -> Starlette:
    expected = f"Bearer {token}".encode()

    def guarded(handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            shown = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(shown, expected):
                return _problem(401, "the stage's token is needed")
            try:
                return JSONResponse(await handler(request))
            except _Wrong as wrong:
                return _problem(wrong.status, str(wrong))

        return answer

    async def state(_: Request) -> Any:
        return steering.state()

    async def service(request: Request) -> Any:
        name, order = request.path_params["name"], request.path_params["order"]
        if name not in steering.names():
            raise _Wrong(404, f"no service is called {name!r}")
        return _steer(steering, name, order, await _body(request))

    async def redis(request: Request) -> Any:
        if "redis" not in steering.names():
            raise _Wrong(409, "no Redis runs; start the shop with --with redis")
        return _steer(steering, "redis", request.path_params["order"], {})

    async def traffic(request: Request) -> Any:
        said = await _body(request)
        rate = said.get("rate")
        if rate is not None and (
            isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= RATE
        ):
            raise _Wrong(422, f"rate must be a number from 0 to {RATE:.0f}, or null")
        steering.set_traffic(rate)
        return steering.state()["traffic"]

    async def letters(request: Request) -> Any:
        limit = request.query_params.get("limit", "50")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 6):
            raise _Wrong(422, "limit must be a number")
        found = mails.newest(min(int(limit), MAILS), request.query_params.get("to", ""))
        rows = [{"id": m.id, "at": m.at, "to": m.to, "subject": m.subject} for m in found]
        return {"total": mails.total, "mails": rows}

    async def letter(request: Request) -> Any:
        found = mails.find(request.path_params["number"])
        if found is None:
            raise _Wrong(404, "there is no such mail, or no more")
        said = asdict(found)
        sender = said.pop("sender")
        return {**said, "from": sender}

    return Starlette(
        routes=[
            Route("/state", guarded(state)),
            Route("/services/{name}/{order}", guarded(service), methods=["POST"]),
            Route("/redis/{order}", guarded(redis), methods=["POST"]),
            Route("/traffic", guarded(traffic), methods=["POST"]),
            Route("/mails", guarded(letters)),
            Route("/mails/{number}", guarded(letter)),
        ]
    )


def _steer(steering: Steering, name: str, order: str, said: dict[str, Any]) -> Any:
    match order:
        case "kill":
            steering.kill(name)
        case "start":
            steering.start(name)
        case "stop":
            for_s = said.get("for_s")
            if for_s is not None and (
                isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s < 1e5
            ):
                raise _Wrong(422, "for_s must be a number of seconds")
            steering.stop(name, for_s)
        case _:
            raise _Wrong(404, f"{order!r} is none of kill, stop and start")
    return steering.state()


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES:
            raise _Wrong(413, f"more than {BODY_BYTES} bytes")
    if not data:
        return {}
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Wrong(400, f"that is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise _Wrong(422, "an object is wanted")
    return said


def _problem(status: int, detail: str) -> Response:
    said = {"type": "about:blank", "status": status, "detail": detail}
    return JSONResponse(said, status, media_type="application/problem+json")
