"""What `headgate.harden` costs: a hello with it beside a bare one, part by part.

    python -m benchmarks.kit_costs

One core, no sockets: what is measured is the app's side alone, in microseconds a request. Each
kind of app is measured in turns, bare and hardened, and the best of the rounds counts: what is
larger is the machine doing something else.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate.kit import PARTS, harden
from headgate.observe import Registry
from headgate.observe.tracing import Tracer, TracingRules

ROUNDS = 7
REQUESTS = 1500
HEADERS = [
    (b"host", b"shop.test"),
    (b"user-agent", b"bench"),
    (b"accept", b"*/*"),
    (b"x-request-id", b"0af7651916cd43dd8448eb211c80319c"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    (b"x-headgate-deadline", b"15000"),
]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
        }
    )
    await send({"type": "http.response.body", "body": b"hello"})


def starlette() -> Any:
    async def hello(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/hello", hello)])


def fastapi() -> Any:
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app


def flask() -> Any:
    app = Flask("hello")

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    return app


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/hello",
        "raw_path": b"/hello",
        "query_string": b"",
        "root_path": "",
        "headers": HEADERS,
        "client": ("10.0.0.1", 1),
        "server": ("shop.test", 80),
    }


async def round_of(app: Callable[..., Awaitable[None]], requests: int) -> float:
    sent = asyncio.Event()

    def receiver() -> Callable[[], Awaitable[dict[str, Any]]]:
        is_given = False

        async def receive() -> dict[str, Any]:
            nonlocal is_given
            if is_given:
                await sent.wait()
            is_given = True
            return {"type": "http.request", "body": b"", "more_body": False}

        return receive

    async def send(_message: Any) -> None:
        """Nothing is sent anywhere."""

    began = time.perf_counter()
    for _ in range(requests):
        await app(scope(), receiver(), send)
    return (time.perf_counter() - began) / requests * 1e6


def round_of_wsgi(app: Callable[..., Iterable[bytes]], requests: int) -> float:
    def start(*_told: Any) -> None:
        """Likewise."""

    began = time.perf_counter()
    for _ in range(requests):
        found = app(
            {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/hello",
                "SERVER_NAME": "shop.test",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "10.0.0.1",
                "HTTP_HOST": "shop.test",
                "HTTP_X_REQUEST_ID": "0af7651916cd43dd8448eb211c80319c",
                "HTTP_X_HEADGATE_DEADLINE": "15000",
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(),
            },
            start,
        )
        for _piece in found:
            pass
        close = getattr(found, "close", None)
        if close is not None:
            close()
    return (time.perf_counter() - began) / requests * 1e6


def hardened(app: Any, *off: str) -> Any:
    # As in a service whose traces are collected, of a request that nobody sampled.
    tracer = Tracer(TracingRules(sample=0.0, keep_slow_s=0.0, keep_errors=False))
    # Nothing of the process is set up: where lines go is not what is measured.
    return harden(app, service="hello", registry=Registry(), tracer=tracer, off=off)


def measured(apps: dict[str, Any], is_wsgi: bool = False) -> dict[str, float]:
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            gc.collect()
            if is_wsgi:
                took = round_of_wsgi(app, REQUESTS)
            else:
                took = asyncio.run(round_of(app, REQUESTS))
            best[name] = min(took, best.get(name, took))
    return best


def main() -> None:
    import logging

    from headgate.observe.logs.outlet import Outlet

    logging.getLogger().addHandler(Outlet())  # logging is set up already, and writes nowhere
    found: dict[str, dict[str, float]] = {}
    for name, make in (("bare ASGI", lambda: bare), ("Starlette", starlette), ("FastAPI", fastapi)):
        found[name] = measured({"bare": make(), "hardened": hardened(make())})
    found["Flask"] = measured({"bare": flask(), "hardened": hardened(flask())}, is_wsgi=True)
    parts = measured(
        {
            "nothing": hardened(bare, *PARTS),
            **{f"without {part}": hardened(bare, part) for part in PARTS},
            "everything": hardened(bare),
        }
    )
    if "--json" in sys.argv:
        print(json.dumps({"apps": found, "parts": parts}, indent=1))
        return
    print("| App | bare | hardened | more |\n|---|---|---|---|")
    for name, took in found.items():
        more = took["hardened"] - took["bare"]
        print(f"| {name} | {took['bare']:.1f} us | {took['hardened']:.1f} us | {more:.1f} us |")
    print()
    whole = parts["everything"]
    for name, took_us in parts.items():
        print(f"{name:20} {took_us:6.1f} us  {whole - took_us:+6.1f}")


if __name__ == "__main__":
    main()
