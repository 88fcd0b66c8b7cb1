"""Beacons of Web Vitals: what is taken, and what is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.meters.registry import Registry
from headgate.observe.meters.vitals import VITALS, VitalsEndpoint, figures_of

GOOD = {"page": "/", "figures": {"LCP": 1200.5, "INP": 300, "CLS": 0.3, "FCP": 900, "TTFB": 100}}


async def told(endpoint, *bodies, method="POST", path="/", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app=endpoint)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return [
            (
                await client.request(
                    method,
                    path,
                    content=json.dumps(body) if not isinstance(body, (bytes, type(None))) else body,
                    headers=named,
                )
            ).status_code
            for body in bodies
        ]


def numbers(registry, name):
    return {family.name: family.numbers for family in registry.collect()}[name]


def test_a_beacon_is_counted_and_judged():
    registry = Registry()
    endpoint = VitalsEndpoint(["/"], registry=registry)
    assert asyncio.run(told(endpoint, GOOD, {**GOOD, "page": "/user/4711"})) == [204, 204]
    ratings = numbers(registry, "web_vitals_ratings_total")
    assert ratings["LCP", "/", "good"] == 1
    assert ratings["INP", "/", "needs_improvement"] == 1
    assert ratings["CLS", "other", "poor"] == 1
    found = {family.name: family for family in registry.collect()}
    assert found["web_vitals_seconds"].sketches["LCP", "/"].sum == pytest.approx(1.2005)
    assert found["web_vitals_layout_shift"].sketches["/",].sum == pytest.approx(0.3)
    assert numbers(registry, "web_vitals_beacons_total") == {("ok",): 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[" * 2000,
        [],
        {"page": "/"},
        {"page": 7, "figures": {}},
        {"page": "/", "figures": {"XSS": 1}},
        {"page": "/", "figures": {"LCP": "1"}},
        {"page": "/", "figures": {"LCP": True}},
        {"page": "/", "figures": {"LCP": -1}},
        {"page": "/", "figures": {"LCP": 1e9}},
        b'{"page": "/", "figures": {"LCP": NaN}}',
        b'{"page": "/", "figures": {"LCP": ' + b"9" * 1000 + b"}}",
    ],
    ids=range(13),
)
def test_what_no_browser_of_ours_sends_is_refused(body):
    registry = Registry()
    endpoint = VitalsEndpoint(["/"], registry=registry)
    assert asyncio.run(told(endpoint, body)) == [400]
    assert numbers(registry, "web_vitals_beacons_total") == {("malformed",): 1}
    assert not numbers(registry, "web_vitals_ratings_total")


def test_a_large_body_is_not_read():
    registry = Registry()
    endpoint = VitalsEndpoint(["/"], registry=registry)
    assert asyncio.run(told(endpoint, b"x" * 3000)) == [413]
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [],
        "client": None,
    }
    asyncio.run(endpoint(scope, receive, send))
    assert sent[0]["status"] == 413
    assert len(asked) == 3


def test_other_sites_are_refused():
    endpoint = VitalsEndpoint(["/"], registry=Registry())
    assert asyncio.run(told(endpoint, GOOD, sec_fetch_site="cross-site")) == [403]
    assert asyncio.run(told(endpoint, GOOD, sec_fetch_site="same-origin")) == [204]


def test_a_client_that_sends_too_much_is_refused_and_comes_back():
    now = [0.0]
    registry = Registry()
    endpoint = VitalsEndpoint(
        ["/"], registry=registry, client_rate=1, client_burst=3, clock=lambda: now[0]
    )
    assert asyncio.run(told(endpoint, *[GOOD] * 5)) == [204, 204, 204, 429, 429]
    now[0] = 1.0
    assert asyncio.run(told(endpoint, GOOD, GOOD)) == [204, 429]


def test_all_clients_together_are_bounded_and_so_is_what_is_known_of_them():
    endpoint = VitalsEndpoint(["/"], registry=Registry(), rate=5, clock=lambda: 0.0)
    takes = [endpoint._whole.take("", 0.0) for _ in range(7)]
    assert takes == [True] * 5 + [False] * 2
    for at in range(5000):
        endpoint._clients.take(f"10.0.{at // 256}.{at % 256}", 0.0)
    assert len(endpoint._clients._buckets) == 2048


def test_the_script_is_served_and_kept_by_browsers():
    async def scene():
        transport = httpx.ASGITransport(app=VitalsEndpoint(["/"], registry=Registry()))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            first = await client.get("/vitals.js")
            again = await client.get("/vitals.js", headers={"if-none-match": first.headers["etag"]})
            other = await client.get("/else")
            wrong = await client.delete("/vitals.js")
            return first, again, other, wrong

    first, again, other, wrong = asyncio.run(scene())
    assert first.headers["content-type"].startswith("text/javascript")
    assert "sendBeacon" in first.text
    assert [r.status_code for r in (first, again, other, wrong)] == [200, 304, 404, 405]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body):
    try:
        page, figures = figures_of(body)
    except ValueError:
        return
    assert isinstance(page, str)
    assert all(vital.name in VITALS for vital, _ in figures)
