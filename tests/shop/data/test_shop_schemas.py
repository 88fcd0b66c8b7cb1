"""Revisions and tables say the same, and both kinds of database take them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headgate.testing import FakeMesh
from headgate_shop.analytics import app as analytics
from headgate_shop.analytics import seed as analytics_seed
from headgate_shop.analytics import tables as analytics_tables
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.data import TINY
from headgate_shop.forecasting import app as forecasting
from headgate_shop.forecasting import seed as forecasting_seed
from headgate_shop.forecasting import tables as forecasting_tables
from headgate_shop.integrations import app as integrations
from headgate_shop.integrations import tables as integrations_tables
from headgate_shop.partners import app as partners
from headgate_shop.partners import tables as partners_tables
from tests.accounts.postgres_server import PostgresServer
from tests.shop.running import order, running, serving, settings_of

pytestmark = pytest.mark.anyio

TABLES = {
    "analytics": analytics_tables.metadata,
    "forecasting": forecasting_tables.metadata,
    "integrations": integrations_tables.metadata,
    "partners": partners_tables.metadata,
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    server = PostgresServer()
    try:
        server.start()
        yield f"postgresql://headgate@127.0.0.1:{server.port}"
    finally:
        server.stop()


@pytest.mark.parametrize("service", TABLES)
async def test_the_revisions_make_the_tables(service, tmp_path):
    settings, _ = settings_of(service, tmp_path)
    database = Database(settings)
    await database.start()

    def differences(connection: sa.Connection) -> list:
        context = MigrationContext.configure(connection, opts={"version_table": "shop_schema"})
        return compare_metadata(context, TABLES[service])

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.integration)]
)
async def test_a_seed_fills_an_empty_database_and_no_other(kind, tmp_path, request):
    url = request.getfixturevalue("postgres") if kind == "postgres" else ""
    for service, seed in (
        ("analytics", analytics_seed.seed),
        ("forecasting", forecasting_seed.seed),
    ):
        settings, _ = settings_of(service, tmp_path, database=url)
        first, second = await seed(settings, TINY), await seed(settings, TINY)
        assert first["orders"] > 30
        assert second["orders"] == 0


@pytest.mark.integration
async def test_an_order_reaches_all_three_services_on_postgresql(postgres, tmp_path):
    at = time.time()
    partner_settings, _ = settings_of("partners", tmp_path, database=postgres)
    mesh = FakeMesh()
    mesh.app("partners", partners.app(partner_settings))
    shelf = mesh.fake("products")
    shelf.on("GET", "/internal/books").returns(json={"items": []})
    shelf.on("GET", "/internal/catalogue").returns(json={"items": [], "next": None})
    settings, signer = settings_of("analytics", tmp_path, database=postgres)
    async with (
        mesh,
        serving(forecasting.app(replace(settings, service="forecasting"), mesh=mesh)) as forecasts,
        serving(integrations.app(replace(settings, service="integrations"), mesh=mesh)) as links,
        running(analytics.app, settings, signer, mesh=mesh) as desk,
    ):
        before = (await desk.get("/api/admin/analytics/summary?days=1"))["revenue"]
        for number in range(4):
            data = order(number, ("p-00001", 2, 700), ("p-00002", 1, 100), at=at)
            await desk.tell(events.ORDER_PAID, data)

        async def link():
            items = (await links.get("/api/admin/integrations", headers=desk.admin)).json()["items"]
            return {one["name"]: one["outgoing"]["sent"] for one in items}

        # A cancellation that overtook the payment would leave nothing to be invoiced.
        await desk.until(link, lambda got: got == SENT)
        await desk.tell(events.ORDER_CANCELLED, order(3, ("p-00001", 2, 700), at=at, reason="no"))
        await desk.client.post(
            "/api/events", json={"events": [{"type": "cart", "session": "s", "product_id": "p"}]}
        )
        found = await desk.until(
            lambda: desk.get("/api/admin/analytics/summary?days=1"),
            lambda got: got["revenue"] == before + 4500 and got["carts"],
        )
        assert found["change"]
        for path in ("sales?by=category", "sales?by=hour&days=2", "funnel", "top?by=carts"):
            await desk.get(f"/api/admin/analytics/{path}")
        await desk.get("/api/products/p-00001/recommendations")

        async def forecast():
            path = "/api/admin/forecasts/p-00001"
            answer = await forecasts.get(path, headers=desk.admin)
            return answer.json() if answer.status_code == 200 else {}

        await desk.until(forecast, lambda got: got.get("sold_today") == 6 and got["is_current"])
        for query in ("running_out=true", "limit=2"):
            answer = await forecasts.get(f"/api/admin/forecasts?{query}", headers=desk.admin)
            assert answer.status_code == 200, answer.text

        await desk.until(link, lambda got: got["accounting"] == got["chat"] == 5)


SENT = {"shop": 0, "marketplace": 0, "accounting": 4, "chat": 4}
