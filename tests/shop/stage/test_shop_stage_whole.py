"""The whole shop behind its gateway: what only all of it together can show."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
import uuid

import httpx
import pytest
from rich.console import Console

from headgate_shop.base.settings import SERVICES
from headgate_shop.stage.story import STORY, Shop, walk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
SOON_S = 60.0


def soon(holds, within_s=SOON_S):
    """Whether it comes to hold."""
    until = time.monotonic() + within_s
    while not (found := holds()):
        if time.monotonic() > until:
            return found
        time.sleep(0.1)
    return found


def test_the_story_of_a_shop_from_registering_to_being_erased(shop):
    said = io.StringIO()
    console = Console(file=said, width=200)
    came_out = walk(Shop(shop.url, shop.news["stage_url"], shop.news["stage_token"]), console)
    assert came_out, said.getvalue()
    assert f"{len(STORY)} of {len(STORY)}" in said.getvalue()


def test_everything_runs_and_the_stage_says_so(shop):
    state = shop.state()
    assert tuple(one["name"] for one in state["services"]) == SERVICES
    assert {one["state"] for one in state["services"]} == {"running"}
    assert state["redis"] is None
    assert state["traffic"]["rate"] == 0


def test_the_gateways_file_has_no_fault(shop):
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "check", "--json", "headgate.yaml"],
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    # Two services stand in for other companies, and no route may lead to them.
    told = [fault["message"] for fault in report["faults"] if "no route leads" not in str(fault)]
    assert told == []


@pytest.mark.parametrize(
    "path",
    [
        "/internal/books",
        "/internal/users/a00001/export",
        "//internal/books",
        "/api/../internal/books",
        "/api/products/../../internal/books",
        "/api/products/%2e%2e/%2e%2e/internal/books",
        "/%69nternal/books",
        "/internal%2fbooks",
        "/Internal/books",
        "/static/../internal/books",
        "/payments",
        "/payments/x",
        "/simulator",
        "/metrics",
        "/health/ready",
        "/openapi.json",
    ],
)
def test_what_services_tell_only_each_other_is_reached_by_no_path(shop, path):
    with socket_client(shop) as client:
        for headers in ({}, {"authorization": f"Bearer {shop.token('admin')}"}):
            said = raw(client, path, headers)
            assert said.status_code in (400, 404), (path, said.status_code, said.text[:200])
            assert "balanced" not in said.text and "captured" not in said.text


def socket_client(shop):
    return httpx.Client(base_url=shop.url, trust_env=False)


def raw(client, path, headers):
    """The path as it stands, which a client would tidy up."""
    url = httpx.URL(client.base_url, raw_path=path.encode())
    return client.send(httpx.Request("GET", url, headers=headers))


def test_an_internal_order_cannot_be_given_from_outside(shop):
    client = shop.client("admin")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/internal/reservations", json={}).status_code in (404, 405)


@pytest.mark.parametrize(
    ("path", "role", "limit"),
    [
        ("/api/products?limit=1", None, ("api", 1000)),
        ("/api/orders", "user", ("api", 1000)),
        ("/api/auth/me", None, ("auth", 50)),
        ("/api/admin/orders", "admin", ("admin", 200)),
        ("/api/queue/stats", "admin", ("admin", 200)),
    ],
    ids=["products", "orders", "auth", "admin", "queue"],
)
def test_each_tier_of_limits_is_the_one_that_was_promised(shop, path, role, limit):
    said = shop.client(role).get(path)
    name, count = limit
    policy = said.headers["ratelimit-policy"]
    assert f'"{name}";q={count};w=900' in policy


def test_one_address_that_guesses_passwords_is_turned_away_and_others_are_not(shop):
    def ask(address):
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=shop.url, transport=transport, trust_env=False) as client:
            return client.get("/api/auth/sessions")

    answers = [ask("127.77.0.2").status_code for _ in range(52)]
    assert set(answers[:50]) == {401}
    assert answers[-1] == 429
    assert ask("127.77.0.3").status_code == 401


def test_nobody_gets_in_without_being_known_where_that_is_asked(shop):
    stranger, user = shop.client(), shop.client("user")
    for path in ("/api/orders", "/api/users/profile", "/api/admin/orders", "/operations/board"):
        assert stranger.get(path).status_code == 401, path
    led = stranger.get("/operations/", follow_redirects=False)
    assert (led.status_code, led.headers["location"]) == (303, "/signin?next=%2Foperations%2F")
    for path in ("/api/admin/orders", "/api/queue/stats", "/api/admin/users", "/operations/"):
        assert user.get(path).status_code == 403, path
    forged = {"x-headgate-identity": "x.y.z", "x-auth-subject": "a00002", "x-auth-roles": "admin"}
    assert stranger.get("/api/admin/orders", headers=forged).status_code == 401
    assert stranger.get("/api/orders", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_page_of_another_site_can_change_nothing(shop):
    client = shop.client(cookies={"shop_session": shop.token("user")})
    evil = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    own = {"origin": shop.url, "sec-fetch-site": "same-origin"}
    for headers, status in ((evil, 403), ({}, 403), (own, 200)):
        said = client.put("/api/cart/items/p-00001", json={"quantity": 1}, headers=headers)
        assert said.status_code == status, said.text


def test_what_does_not_fit_the_description_never_reaches_a_service(shop):
    client = shop.client("user")
    said = client.put("/api/cart/items/p-00001", json={"quantity": "many"})
    assert said.status_code == 400
    assert said.headers["content-type"].startswith("application/problem+json")
    assert said.json()["errors"][0]["pointer"] == "/quantity"


def test_a_tester_sees_the_next_version_and_the_header_says_which_one_it_was(shop):
    explain = {"x-headgate-explain": shop.operator_token, "cache-control": "no-cache"}
    for pin, service in (("0", "products"), ("1", "products-next")):
        said = shop.client().get("/api/products?limit=1", headers={**explain, "x-canary": pin})
        assert said.status_code == 200
        assert f'"{service}"' in said.headers["x-headgate-explain"].replace("=", '"') or (
            service in said.headers["x-headgate-explain"]
        )


def test_both_versions_of_the_products_api_tell_the_same_price(shop):
    client = shop.client()
    first = client.get("/api/products?limit=1")
    item = first.json()["items"][0]
    second = client.get(f"/api/v2/products/{item['id']}").json()
    assert second["price"] == {"amount": item["price"], "currency": item["currency"]}
    assert "successor-version" in first.headers["link"]
    assert "deprecation" in first.headers


def test_pages_are_careful_and_strangers_share_them(shop):
    client = shop.client()
    said = [client.get("/products") for _ in range(12)][-1]
    assert said.status_code == 200
    assert "'unsafe-inline'" not in said.headers["content-security-policy"]
    assert "hit" in said.headers["cache-status"]
    known = shop.client(cookies={"shop_session": shop.token("user")}).get("/products")
    assert "hit" not in known.headers.get("cache-status", "")


def test_all_services_are_in_one_document(shop):
    said = shop.admin().get("/api/services/openapi.json").json()
    for path in (
        "/api/auth/login",
        "/api/products/{product_id}",
        "/api/checkout",
        "/api/admin/analytics/summary",
        "/api/queue/stats",
    ):
        alike = [one for one in said["paths"] if one.count("/") == path.count("/")]
        assert path in said["paths"] or path.replace("product_id", "id") in alike, alike
    assert not [path for path in said["paths"] if path.startswith("/internal")]


def test_recommendations_that_are_away_are_an_empty_list_and_stock_is_unknown(shop):
    client = shop.client()
    for name in ("analytics", "products"):
        shop.stop(name)
    try:
        for name in ("analytics", "products"):
            shop.until(name, "stopped")
        product = f"p-{uuid.uuid4().int % 50 + 1:05d}"
        said = client.get(f"/api/products/{product}/recommendations")
        assert (said.status_code, said.json()["items"]) == (200, [])
        said = client.get(f"/api/products/{product}/stock", headers={"cache-control": "no-cache"})
        assert said.status_code == 200
        assert said.json()["state"] in ("unknown", "in_stock", "low", "out")
    finally:
        for name in ("analytics", "products"):
            shop.go(name)
        for name in ("analytics", "products"):
            shop.until(name, "running")


def test_a_service_that_is_killed_is_back_and_its_customers_wait_a_moment_at_most(shop):
    client = shop.client("user")
    before = shop.service("orders")
    shop.kill("orders")
    # Each of these is tried again until the service is back.
    answers = [client.get("/api/orders").status_code for _ in range(5)]
    after = shop.until("orders", "running")
    assert answers == [200] * 5
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert after["port"] == before["port"]


def test_a_service_that_was_stopped_stays_away_until_its_time_is_over(shop):
    shop.stop("partners", for_s=1.5)
    shop.until("partners", "stopped")
    shop.until("partners", "running")


def test_the_stage_obeys_only_whoever_has_its_token(shop):
    url = shop.news["stage_url"]
    for headers in ({}, {"authorization": "Bearer nothing"}):
        for method, path in (("GET", "/state"), ("POST", "/services/orders/kill")):
            said = httpx.request(method, f"{url}{path}", headers=headers, trust_env=False)
            assert said.status_code == 401
    headers = {"authorization": f"Bearer {shop.news['stage_token']}"}
    for path, body, status in (
        ("/services/nobody/kill", b"", 404),
        ("/services/orders/dance", b"", 404),
        ("/services/orders/stop", b'{"for_s": "long"}', 422),
        ("/services/orders/stop", b"{", 400),
        ("/services/orders/stop", b"[]", 422),
        ("/traffic", b'{"rate": 1e9}', 422),
        ("/traffic", b'{"rate": true}', 422),
        ("/traffic", b"x" * 5000, 413),
        ("/redis/stop", b"", 409),
    ):
        said = httpx.post(f"{url}{path}", content=body, headers=headers, trust_env=False)
        assert said.status_code == status, (path, said.text)
        assert said.json()["detail"]
    assert shop.service("orders")["state"] == "running"


def test_visitors_come_when_they_are_let_in_and_notice_nothing(shop):
    shop.traffic(20)

    def seen():
        totals = shop.state()["traffic"].get("totals", {})
        return totals if totals.get("requests", 0) >= 60 else None

    try:
        totals = soon(seen)
    finally:
        shop.traffic(0)
    assert totals, shop.log("traffic")
    assert totals.get("failed", 0) == 0, (totals, shop.log("traffic"))
    assert totals.get("turned_away", 0) == 0


def test_whoever_is_erased_is_let_in_no_more_from_that_moment_on(shop):
    email, password = "gone-soon@shop.test", "forty quiet lanterns"
    client = shop.client()
    asked = client.post("/api/auth/register", json={"email": email, "password": password})
    assert asked.status_code == 202, asked.text
    (mail, *_) = shop.mails(to=email, within_s=30)
    token = re.findall(r"/confirm#([\w.~-]+)", mail["text"])[0]
    assert client.post("/api/auth/verify-email", json={"token": token}).status_code == 200
    bearer = {"authorization": f"Bearer {shop.sign_in(email, password)['access_token']}"}
    assert client.get("/api/orders", headers=bearer).status_code == 200
    erased = client.delete("/api/users/me", headers=bearer)
    assert erased.status_code == 202, erased.text
    # Each worker of the gateway hears of it within a moment; the token itself has minutes to live.
    until = time.monotonic() + 30
    while (status := client.get("/api/orders", headers=bearer).status_code) != 401:
        assert status == 200 and time.monotonic() < until
        time.sleep(0.05)
    for _ in range(20):
        assert client.get("/api/orders", headers=bearer).status_code == 401
    steps = client.get(erased.headers["location"])  # for whoever has its id: there is no account
    assert steps.status_code == 200
    assert "gateway" in {one["service"] for one in steps.json()["services"]}
