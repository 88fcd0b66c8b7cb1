from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from headgate.testing import FakeMesh
from headgate_shop.base import events
from headgate_shop.data import SeedSize
from headgate_shop.forecasting import reckoning
from headgate_shop.forecasting.app import app
from headgate_shop.forecasting.seed import seed
from tests.shop.running import order, running, settings_of

pytestmark = pytest.mark.anyio

SIZE = SeedSize(products=12, customers=10, days=60, orders_per_day=12)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(reckoning, "QUIET_S", 0.02)
    monkeypatch.setattr(reckoning, "RESTS_S", 0.05)


@pytest.fixture
async def mesh():
    async with FakeMesh() as found:
        yield found


@pytest.fixture
async def desk(tmp_path, mesh):
    settings, signer = settings_of("forecasting", tmp_path)
    async with running(app, settings, signer, mesh=mesh) as found:
        yield found


def forecast(desk, product="kettle", days=7):
    """Nothing, as long as nothing is known of the product."""

    async def ask():
        path = f"/api/admin/forecasts/{product}?days={days}"
        answer = await desk.client.get(path, headers=desk.admin)
        return answer.json() if answer.status_code == 200 else NOTHING

    return ask


NOTHING = {"is_current": False, "forecast": [], "sold_today": 0, "history": [{"quantity": 0}] * 9}


def is_current(got):
    return got["is_current"] and got["forecast"]


async def test_a_forecast_moves_when_orders_come_in_and_back_when_they_are_cancelled(
    tmp_path, mesh
):
    settings, signer = settings_of("forecasting", tmp_path)
    made = await seed(settings, SIZE)
    assert made["orders"] > 400
    assert (await seed(settings, SIZE))["orders"] == 0
    async with running(app, settings, signer, mesh=mesh) as desk:
        items = await desk.until(
            lambda: desk.get("/api/admin/forecasts?limit=12"), lambda got: len(got["items"]) == 12
        )
        product = items["items"][3]["product_id"]
        before = await desk.until(forecast(desk, product), is_current)
        assert len(before["forecast"]) == 7
        assert before["method"] and before["error"] is not None
        assert before["forecast"][0]["day"] == datetime.now(UTC).date().isoformat()
        assert len(before["history"]) == 90
        now = time.time()
        for number in range(3):
            await desk.tell(events.ORDER_PAID, order(number, (product, 5, 100), at=now))
        after = await desk.until(
            forecast(desk, product), lambda got: is_current(got) and got["sold_today"] == 15
        )
        assert _week(after) > _week(before) + 10
        assert after["forecast"][1]["expected"] > before["forecast"][1]["expected"]
        for number in range(3):
            await desk.tell(
                events.ORDER_CANCELLED, order(number, (product, 5, 100), at=now, reason="no")
            )
        again = await desk.until(
            forecast(desk, product), lambda got: is_current(got) and got["sold_today"] == 0
        )
        # Nothing is left of it but that the day is a little older.
        assert _week(again) == pytest.approx(_week(before), rel=0.1, abs=0.2)


def _week(got):
    return sum(row["expected"] for row in got["forecast"])


async def test_expected_lies_between_low_and_high(tmp_path, mesh):
    settings, signer = settings_of("forecasting", tmp_path)
    await seed(settings, SIZE)
    async with running(app, settings, signer, mesh=mesh) as desk:
        found = await desk.until(forecast(desk, "p-00001", 28), is_current)
        assert len(found["forecast"]) == 28
        assert all(0 <= row["low"] <= row["expected"] <= row["high"] for row in found["forecast"])
        days = [row["day"] for row in found["forecast"]]
        assert days == sorted(set(days))
        pages, cursor = [], ""
        while True:
            page = await desk.get(f"/api/admin/forecasts?limit=5&cursor={cursor}")
            pages += [one["product_id"] for one in page["items"]]
            if not (cursor := page["next"]):
                break
        assert sorted(pages) == [f"p-{number:05d}" for number in range(1, 13)]


async def test_a_product_that_was_just_begun_has_a_forecast_of_its_own(desk):
    now = time.time()
    await desk.tell(
        events.PRODUCT_CHANGED, {"product_id": "kettle", "name": "Kettle", "price": 1, "at": now}
    )
    empty = await desk.until(forecast(desk), is_current)
    assert (empty["method"], _week(empty)) == ("nothing sold yet", 0)
    await desk.tell(events.ORDER_PAID, order(1, ("kettle", 2, 100), at=now - 3 * 86400))
    found = await desk.until(forecast(desk), lambda got: is_current(got) and _week(got) > 0)
    assert found["method"] == "mean"
    assert found["name"] == "Kettle"


async def test_the_same_message_counts_once(desk):
    now = time.time()
    for name in ("a", "a", "b"):
        await desk.tell(events.ORDER_PAID, order(1, ("kettle", 2, 100), at=now), id=name)
    await desk.tell(events.ORDER_PAID, order(2, ("kettle", 1, 100), at=now))
    found = await desk.until(forecast(desk), lambda got: got["sold_today"] >= 3)
    assert found["sold_today"] == 3


async def test_what_is_running_out_is_named_with_its_days(desk, mesh):
    books = {
        "items": [
            {"product_id": "kettle", "available": 4},
            {"product_id": "cup", "available": 9000},
        ]
    }
    mesh.fake("products").on("GET", "/internal/books").returns(json=books)
    now = time.time()
    for day in range(10):
        at = now - day * 86400
        await desk.tell(events.ORDER_PAID, order(day, ("kettle", 4, 100), ("cup", 4, 100), at=at))
    for product in ("kettle", "cup"):
        await desk.until(forecast(desk, product), lambda got: is_current(got) and _week(got) > 10)
    found = await desk.get("/api/admin/forecasts?running_out=true&within=7")
    assert [one["product_id"] for one in found["items"]] == ["kettle"]
    item = found["items"][0]
    assert item["available"] == 4
    assert 0 <= item["days_left_at_least"] <= item["days_left"] <= 3


async def test_without_an_answer_of_products_the_list_says_so(desk, mesh):
    mesh.fake("products").on("GET", "/internal/books").fails("connect")
    await desk.tell(events.ORDER_PAID, order(1, ("kettle", 4, 100), at=time.time()))
    await desk.until(forecast(desk), is_current)
    found = await desk.get("/api/admin/forecasts?running_out=true")
    assert "products" in found["degraded"]
    assert found["items"][0]["days_left"] is None


async def test_an_unknown_product_is_a_404_and_bad_numbers_are_a_422(desk):
    admin = desk.admin
    for path, status in (
        ("/nobody", 404),
        ("/kettle?days=0", 422),
        ("/kettle?days=29", 422),
        ("/%20", 422),
        ("?cursor=abc", 422),
        ("?cursor=nan~p", 422),
        ("?running_out=perhaps", 422),
    ):
        answer = await desk.client.get(f"/api/admin/forecasts{path}", headers=admin)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await desk.client.get("/api/admin/forecasts")).status_code == 401


async def test_days_that_are_over_are_sums_that_add_up(desk):
    day = datetime.now(UTC).replace(hour=12, minute=0, second=0) - timedelta(days=3)
    for number in range(3):
        await desk.tell(
            events.ORDER_PAID,
            order(number, ("kettle", 1, 5), ("kettle", 2, 5), at=day.timestamp()),
        )
    found = await desk.until(forecast(desk), lambda got: got["history"][-3]["quantity"] == 9)
    assert sum(row["quantity"] for row in found["history"]) == 9
