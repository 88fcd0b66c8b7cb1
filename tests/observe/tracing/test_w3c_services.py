"""The standards of traces and baggage against services: middleware for ASGI and WSGI, and a client."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from headgate.observe.tracing.asgi import TracingMiddleware
from headgate.observe.tracing.instrument import trace_httpx
from headgate.observe.tracing.rules import TracingRules
from headgate.observe.tracing.tracer import Tracer
from headgate.observe.tracing.wsgi import TracingWsgi
from tests.observe.tracing.w3c_cases import CASES, Case, wrong

RULES = (TracingRules(sample=1.0), TracingRules(sample=0.0, keep_errors=False, keep_slow_s=0.0))
"""What is written down and what is not goes on alike."""


def by_asgi(tracer: Tracer, case: Case) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        told.extend((n.decode(), v.decode("latin-1")) for n, v in request.headers.raw)
        return httpx.Response(200)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        transport = httpx.MockTransport(answer)
        async with trace_httpx(httpx.AsyncClient(transport=transport), tracer=tracer) as client:
            await client.get("http://other/")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing(*_: Any) -> Any:
        return {"type": "http.disconnect"}

    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in case.sends]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(TracingMiddleware(app, tracer=tracer)(scope, nothing, nothing))
    return told


def by_wsgi(tracer: Tracer, case: Case) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        told.extend((n.decode(), v.decode("latin-1")) for n, v in request.headers.raw)
        return httpx.Response(200)

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        transport = httpx.MockTransport(answer)
        with trace_httpx(httpx.Client(transport=transport), tracer=tracer) as client:
            client.get("http://other/")
        start_response("200 OK", [])
        return [b""]

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    for name, value in case.sends:  # as servers do it: PEP 3333 and CGI join what is repeated
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value.strip(" \t")
    body: Any = TracingWsgi(app, tracer=tracer)(environ, lambda *_: None)
    list(body)
    body.close()
    return told


@pytest.mark.parametrize("way", [by_asgi, by_wsgi], ids=["asgi", "wsgi"])
@pytest.mark.parametrize("rules", RULES, ids=["written", "not_written"])
def test_a_service_hands_on_what_the_standards_say(way, rules):
    tracer = Tracer(rules, service="users")
    found = {case.rule: said for case in CASES if (said := list(wrong(case, way(tracer, case))))}
    assert not found


def test_the_judge_finds_fault_with_what_breaks_a_rule():
    (case,) = (one for one in CASES if one.rule == "repeated headers are one list" and one.state)
    good = ("traceparent", case.sends[0][1].replace("b7ad6b7169203331", "1" * 16))
    state = ("tracestate", "a=1,b=2,c=3")
    assert not list(wrong(case, [good, state]))
    for told in (
        [],
        [good, good, state],
        [("traceparent", case.sends[0][1]), state],
        [("traceparent", good[1].replace("0af7", "0bf7")), state],
        [("traceparent", good[1][:-2] + "05"), state],
        [("traceparent", "cc" + good[1][2:]), state],
        [good],
        [good, ("tracestate", "a=1,b=2")],
        [good, ("tracestate", "a=1,b=2,c=3,c=3")],
        [good, ("tracestate", "a=1,B=2,c=3")],
        [good, state, ("baggage", "a=" + "x" * 9000)],
    ):
        assert list(wrong(case, told)), told
