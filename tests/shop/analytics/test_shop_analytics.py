from __future__ import annotations

import time

import pytest

from headgate_shop.analytics.app import app
from headgate_shop.base import events
from tests.shop.running import order, running, settings_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def desk(tmp_path):
    settings, signer = settings_of("analytics", tmp_path)
    async with running(app, settings, signer) as found:
        yield found


async def summary(desk, days=1):
    return await desk.get(f"/api/admin/analytics/summary?days={days}")


async def test_a_paid_order_is_in_the_figures_and_a_cancelled_one_is_not(desk):
    now = time.time()
    for topic in (events.ORDER_PLACED, events.ORDER_PAID):
        await desk.tell(topic, order(1, ("kettle", 2, 1000), ("cup", 1, 500), at=now))
        await desk.tell(topic, order(2, ("cup", 4, 500), at=now))
    both = await desk.until(lambda: summary(desk), lambda got: got["orders"] == 2)
    assert (both["revenue"], both["units"], both["average_order"]) == (4500, 7, 2250)
    await desk.tell(events.ORDER_CANCELLED, order(2, ("cup", 4, 500), at=now, reason="changed"))
    one = await desk.until(lambda: summary(desk), lambda got: got["orders"] == 1)
    assert (one["revenue"], one["units"]) == (2500, 3)
    top = await desk.get("/api/admin/analytics/top?by=revenue")
    assert [(row["product_id"], row["revenue"]) for row in top["items"]] == [
        ("kettle", 2000),
        ("cup", 500),
    ]


async def test_a_cancellation_that_overtakes_the_payment_holds(desk):
    now = time.time()
    await desk.tell(events.ORDER_CANCELLED, order(1, ("kettle", 1, 1000), at=now, reason="late"))
    await desk.tell(events.ORDER_PAID, order(1, ("kettle", 1, 1000), at=now))
    await desk.tell(events.ORDER_PAID, order(2, ("cup", 1, 500), at=now))
    found = await desk.until(lambda: summary(desk), lambda got: got["orders"])
    assert (found["orders"], found["revenue"]) == (1, 500)


async def test_the_same_message_counts_once(desk):
    now = time.time()
    for name in ("a", "a", "b"):  # b: the same news under another id
        await desk.tell(events.ORDER_PAID, order(1, ("kettle", 1, 1000), at=now), id=name)
    await desk.tell(events.ORDER_PAID, order(2, ("cup", 1, 500), at=now))
    found = await desk.until(lambda: summary(desk), lambda got: got["revenue"] >= 1500)
    assert (found["orders"], found["revenue"]) == (2, 1500)


async def test_events_make_a_funnel_in_which_a_session_counts_once(desk):
    batch = [
        {"type": "view", "session": "s1", "product_id": "kettle"},
        {"type": "view", "session": "s1", "product_id": "kettle"},
        {"type": "cart", "session": "s1", "product_id": "kettle"},
        {"type": "view", "session": "s2", "product_id": "cup"},
        {"type": "search", "session": "s3", "query": "kettle"},
    ]
    answer = await desk.client.post("/api/events", json={"events": batch})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 5})
    await desk.tell(
        events.SHOPPING,
        {"events": [{"type": "checkout", "at": time.time(), "session": "s1", "user_id": "c-1"}]},
    )
    await desk.tell(events.ORDER_PAID, order(1, ("kettle", 1, 1000), at=time.time()))
    found = await desk.until(
        lambda: desk.get("/api/admin/analytics/funnel?days=1"),
        lambda got: [step["sessions"] for step in got["steps"]] == [3, 2, 1, 1, 1],
    )
    steps = {step["step"]: step for step in found["steps"]}
    assert steps["view"]["events"] == 3
    assert steps["cart"]["of_previous"] == 0.5
    assert (await summary(desk))["conversion"] == round(1 / 3, 4)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"events": []}, id="empty"),
        pytest.param({"events": [{"type": "buy", "session": "s"}]}, id="type"),
        pytest.param({"events": [{"type": "view"}]}, id="no-session"),
        pytest.param({"events": [{"type": "view", "session": "a b"}]}, id="session"),
        pytest.param({"events": [{"type": "view", "session": "s", "user_id": "x"}]}, id="user"),
        pytest.param({"events": [{"type": "view", "session": "s", "at": "now"}]}, id="at"),
        pytest.param({"events": [{"type": "view", "session": "s"}] * 51}, id="many"),
        pytest.param({"events": "view"}, id="text"),
    ],
)
async def test_a_batch_that_is_not_right_is_refused_whole(desk, body):
    answer = await desk.client.post("/api/events", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_is_bought_together_is_recommended(desk):
    now = time.time()
    pairs = [("kettle", "cup")] * 4 + [("kettle", "tray")] + [("lamp", "tray")] * 6
    for number, (one, other) in enumerate(pairs):
        await desk.tell(events.ORDER_PAID, order(number, (one, 1, 900), (other, 1, 100), at=now))
    await desk.until(lambda: summary(desk), lambda got: got["orders"] == len(pairs))
    found = await desk.get("/api/products/kettle/recommendations")
    assert [one["product_id"] for one in found["items"]] == ["cup"]
    assert found["items"][0]["together"] == 4
    answer = await desk.client.get("/api/products/kettle/recommendations")
    assert answer.headers["cache-tag"] == "recommendations,product:kettle"
    assert "max-age=60" in answer.headers["cache-control"]
    assert (await desk.get("/api/products/nobody/recommendations"))["items"] == []


async def test_a_removed_product_is_recommended_no_more(desk):
    now = time.time()
    for number in range(4):
        await desk.tell(
            events.ORDER_PAID, order(number, ("kettle", 1, 900), ("cup", 1, 100), at=now)
        )
    for number in range(4, 9):
        await desk.tell(events.ORDER_PAID, order(number, ("lamp", 1, 900), at=now))
    await desk.until(lambda: summary(desk), lambda got: got["orders"] == 9)
    ask = lambda: desk.get("/api/products/kettle/recommendations")  # noqa: E731
    assert (await ask())["items"]
    await desk.tell(events.PRODUCT_REMOVED, {"product_id": "cup", "at": now})
    await desk.tell(
        events.PRODUCT_CHANGED,
        {"product_id": "kettle", "name": "Kettle", "price": 900, "category": "kitchen", "at": now},
    )
    await desk.until(ask, lambda got: not got["items"])


async def test_a_person_is_exported_and_erased_and_the_figures_stay(desk):
    now = time.time()
    await desk.tell(events.ORDER_PAID, order(1, ("kettle", 1, 1000), at=now, user_id="ada"))
    await desk.until(lambda: summary(desk), lambda got: got["orders"])
    found = await desk.get("/internal/users/ada/export")
    assert [one["order_id"] for one in found["orders"]] == ["order-1"]
    for _ in range(2):
        answer = await desk.client.delete("/internal/users/ada")
        assert answer.status_code == 200
    # What is told of them late has no name either.
    await desk.tell(events.ORDER_PAID, order(2, ("cup", 1, 500), at=now, user_id="ada"))
    await desk.until(lambda: summary(desk), lambda got: got["orders"] == 2)
    assert (await desk.get("/internal/users/ada/export"))["orders"] == []


async def test_figures_are_for_administrators(desk):
    for path in ("summary", "sales", "funnel", "top"):
        answer = await desk.client.get(f"/api/admin/analytics/{path}")
        assert answer.status_code == 401
        user = desk.signer.headers("ada", "user")
        answer = await desk.client.get(f"/api/admin/analytics/{path}", headers=user)
        assert answer.status_code == 403


async def test_sales_come_by_day_hour_and_category(desk):
    now = time.time()
    await desk.tell(
        events.PRODUCT_CHANGED,
        {"product_id": "cup", "name": "Cup", "price": 1, "category": "kitchen", "at": now},
    )
    top = "/api/admin/analytics/top"
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=now - 86400))
    await desk.tell(events.ORDER_PAID, order(2, ("cup", 2, 500), at=now))
    await desk.until(
        lambda: desk.get(top), lambda got: got["items"][:1] and got["items"][0]["units"] == 3
    )
    by_day = (await desk.get("/api/admin/analytics/sales?by=day&days=3"))["items"]
    assert [row["revenue"] for row in by_day] == [0, 500, 1000]
    by_hour = (await desk.get("/api/admin/analytics/sales?by=hour&days=2"))["items"]
    assert sum(row["revenue"] for row in by_hour) == 1500
    answer = await desk.client.get("/api/admin/analytics/sales?by=hour&days=99", headers=desk.admin)
    assert answer.status_code == 422
    found = (await desk.get("/api/admin/analytics/sales?by=category&days=2"))["items"]
    assert sum(row["revenue"] for row in found) == 1500
    changed = (await summary(desk))["change"]["revenue"]
    assert changed == pytest.approx(1.0)


async def test_a_message_that_lacks_something_is_a_dead_letter_and_others_go_on(desk):
    await desk.tell(events.ORDER_PAID, {"order_id": "x"})
    await desk.tell(events.SHOPPING, {"events": "many"})
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=time.time()))
    await desk.until(lambda: summary(desk), lambda got: got["orders"] == 1)


async def test_business_figures_are_in_the_metrics(desk):
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=time.time()))
    await desk.until(lambda: summary(desk), lambda got: got["orders"])

    async def metrics():
        return (await desk.client.get("/metrics")).text

    await desk.until(metrics, lambda text: "shop_orders_total" in text)


async def test_events_of_services_without_a_session_count_and_odd_ones_are_left_out(desk):
    told = [
        {"type": "view", "session": "", "product_id": "cup", "at": time.time(), "user_id": ""},
        {"type": "view", "product_id": "cup"},
        {"type": "fly", "session": "s"},
        "view",
        {"type": "view", "session": "s2", "product_id": None, "query": 7},
        {"type": "view", "session": "s1", "product_id": "cup"},
    ]
    await desk.tell(events.SHOPPING, {"events": told})
    found = await desk.until(
        lambda: desk.get("/api/admin/analytics/funnel?days=1"),
        lambda got: got["steps"][1]["events"],
    )
    assert [(step["events"], step["sessions"]) for step in found["steps"][:2]] == [(1, 1), (3, 1)]
