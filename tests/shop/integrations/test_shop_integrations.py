from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from headgate.testing import FakeMesh
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.integrations import connectors, first_time, line, syncing, tables
from headgate_shop.integrations.app import app
from headgate_shop.integrations.connectors import ChatConnector, ShopConnector
from headgate_shop.partners import marketplace
from headgate_shop.partners.app import app as partners_app
from tests.shop.running import order, running, settings_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(syncing, "WAIT_MAX_S", 0.2)
    monkeypatch.setattr(syncing, "WAIT_S", 0.05)
    monkeypatch.setattr(line, "RESET_AFTER", "100ms")
    for connector in connectors.CONNECTORS:
        monkeypatch.setattr(connector, "rate", "50/s")
    monkeypatch.setattr(marketplace, "PROCESSING_S", 0.02)
    monkeypatch.setattr(connectors.marketplace, "LOOK_EVERY_S", 0.02)


@pytest.fixture
async def mesh(tmp_path):
    settings, _ = settings_of("partners", tmp_path)
    found = FakeMesh()
    found.app("partners", partners_app(settings))
    async with found:
        yield found


@pytest.fixture
async def desk(tmp_path, mesh):
    settings, signer = settings_of("integrations", tmp_path)
    async with running(app, settings, signer, mesh=mesh) as found:
        yield found


def there(mesh, name, kind):
    async def ask():
        answer = await mesh.service("partners").get(f"/simulator/{name}/{kind}")
        return answer.json()["items"]

    return ask


async def play(mesh, name, **mood):
    answer = await mesh.service("partners").post(f"/simulator/{name}", json=mood)
    assert answer.is_success, answer.text


def product(number=1, price=1250, at=None, **more):
    return {
        "product_id": f"p-{number:05d}",
        "name": f"Kettle {number}",
        "price": price,
        "category": "kitchen",
        "at": at or time.time(),
        **more,
    }


async def test_an_order_becomes_one_invoice_and_one_message(desk, mesh):
    sold = order(1, ("kettle", 2, 1000), ("cup", 1, 500), at=time.time(), user_id="ada")
    for name in ("a", "a", "b"):
        await desk.tell(events.ORDER_PAID, sold, id=name)
    invoices = await desk.until(there(mesh, "ledger", "invoice"), len)
    messages = await desk.until(there(mesh, "chat", "message"), len)
    assert [(one["id"], one["total"], one["type"]) for one in invoices] == [
        ("I-order-1", 2500, "ACCREC")
    ]
    assert invoices[0]["contact"]["emailAddress"] == "ada@shop.test"
    assert [one["text"] for one in messages] == ["Order order-1 sold: 3 pieces, 25.00 EUR"]
    await desk.tell(events.ORDER_CANCELLED, sold | {"reason": "changed"})
    invoices = await desk.until(there(mesh, "ledger", "invoice"), lambda got: len(got) == 2)
    assert (invoices[1]["id"], invoices[1]["type"]) == ("C-order-1", "ACCRECCREDIT")
    await desk.until(there(mesh, "chat", "message"), lambda got: len(got) == 2)


async def test_an_order_that_was_cancelled_before_it_was_paid_is_not_invoiced(desk, mesh):
    now = time.time()
    await desk.tell(events.ORDER_CANCELLED, order(1, ("cup", 1, 500), at=now, reason="late"))
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=now))
    await desk.tell(events.ORDER_PAID, order(2, ("cup", 1, 500), at=now))
    invoices = await desk.until(there(mesh, "ledger", "invoice"), len)
    assert [one["id"] for one in invoices] == ["I-order-2"]


async def test_a_product_goes_to_the_shop_and_the_marketplace_and_follows_its_changes(desk, mesh):
    at = time.time()
    await desk.tell(events.PRODUCT_CHANGED, product(at=at))
    shop = await desk.until(there(mesh, "shopfront", "product"), len)
    assert (shop[0]["title"], shop[0]["variants"][0]["price"]) == ("Kettle 1", "12.50")
    listing = await desk.until(there(mesh, "marketplace", "listing"), len)
    assert (listing[0]["sku"], listing[0]["price"]) == ("p-00001", 12.5)
    await desk.tell(events.PRODUCT_CHANGED, product(price=999, at=at + 2))
    await desk.tell(events.PRODUCT_CHANGED, product(price=5, at=at + 1))  # overtaken: old news
    await desk.until(
        there(mesh, "shopfront", "product"),
        lambda got: [one["variants"][0]["price"] for one in got] == ["9.99"],
    )
    await desk.until(there(mesh, "marketplace", "listing"), lambda got: got[0]["price"] == 9.99)
    await desk.tell(events.PRODUCT_REMOVED, {"product_id": "p-00001", "at": at + 3})
    await desk.until(
        there(mesh, "shopfront", "product"), lambda got: got[0]["status"] == "archived"
    )
    await desk.until(
        there(mesh, "marketplace", "listing"), lambda got: got[0]["operation"] == "DELETE"
    )


async def test_orders_of_partners_are_fetched_page_by_page_and_once(desk, mesh, monkeypatch):
    monkeypatch.setattr(connectors.shop, "PAGE", 10)
    monkeypatch.setattr(connectors.marketplace, "PAGE", 10)
    partners = mesh.service("partners")
    for name in ("shopfront", "marketplace"):
        answer = await partners.post(f"/simulator/{name}/order", json={"count": 25})
        assert answer.status_code == 201
    for name in ("shop", "marketplace"):
        await sync(desk, name)
        await desk.until(lambda name=name: state(desk, name), lambda got: got["pulled"] == 25)
    before = await state(desk, "shop")
    assert "~" not in before["cursor"]
    await partners.post("/simulator/shopfront/order", json={"count": 1})
    await sync(desk, "shop")
    await desk.until(lambda: state(desk, "shop"), lambda got: got["pulled"] == 26)


async def sync(desk, name):
    answer = await desk.client.post(f"/api/admin/integrations/{name}/sync", headers=desk.admin)
    assert answer.status_code == 202, answer.text


async def state(desk, name):
    return await desk.get(f"/api/admin/integrations/{name}")


async def test_while_a_partner_is_down_news_waits_and_goes_out_once_it_is_back(desk, mesh):
    await play(mesh, "ledger", down=True)
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=time.time()))
    await desk.until(there(mesh, "chat", "message"), len)  # the others go on
    down = await desk.until(
        lambda: state(desk, "accounting"),
        lambda got: got["failures_in_a_row"] >= 2 and got["outgoing"]["waiting"] == 1,
    )
    assert down["state"] in ("failing", "syncing")
    assert "503" in down["errors"][0]["error"] or "not asked" in down["errors"][0]["error"]
    health = (await desk.client.get("/health")).json()
    assert health["status"] in ("ok", "degraded", "warn", "pass")
    await play(mesh, "ledger")
    desk_asked = asyncio.get_running_loop().time() + 25
    while not await there(mesh, "ledger", "invoice")():
        await sync(desk, "accounting")
        assert asyncio.get_running_loop().time() < desk_asked
        await asyncio.sleep(0.1)
    up = await desk.until(lambda: state(desk, "accounting"), lambda got: got["state"] == "ok")
    assert up["outgoing"] == {"waiting": 0, "refused": 0, "sent": 1}
    assert up["days"][-1]["failures"] >= 1
    assert 0 < up["days"][-1]["uptime"] < 1


async def test_an_answer_that_was_lost_makes_no_second_invoice(desk, mesh):
    for name in ("ledger", "chat", "shopfront"):
        await play(mesh, name, hang_share=1.0)
    await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=time.time()))
    await desk.tell(events.PRODUCT_CHANGED, product())
    await desk.until(there(mesh, "ledger", "invoice"), len)
    await desk.until(there(mesh, "chat", "message"), len)
    await desk.until(lambda: state(desk, "chat"), lambda got: got["state"] == "failing")
    for name in ("ledger", "chat", "shopfront"):
        await play(mesh, name)
    for name in ("accounting", "chat", "shop"):

        async def asked(name=name):
            await sync(desk, name)
            await asyncio.sleep(0.1)
            return await state(desk, name)

        found = await desk.until(asked, lambda got: got["outgoing"]["sent"] == 1)
        assert found["outgoing"]["refused"] == 0
    assert len(await there(mesh, "ledger", "invoice")()) == 1
    assert len(await there(mesh, "chat", "message")()) == 1
    assert len(await there(mesh, "shopfront", "product")()) == 1


async def test_a_partner_that_is_in_a_hurry_is_asked_more_slowly(desk, mesh):
    """So that it need not refuse what goes out in a burst, or need not do so often."""
    await play(mesh, "chat", rate=20)
    for number in range(16):
        await desk.tell(events.ORDER_SHIPPED, order(number, ("cup", 1, 5), at=time.time()))
    messages = await desk.until(there(mesh, "chat", "message"), lambda got: len(got) == 16)
    assert len({one["client_msg_id"] for one in messages}) == 16


async def test_what_a_partner_refuses_holds_up_nothing_and_is_tried_again_on_demand(desk, mesh):
    await desk.tell(events.PRODUCT_CHANGED, product(1, price=10**14))  # no price of theirs
    await desk.tell(events.PRODUCT_CHANGED, product(2))
    found = await desk.until(
        lambda: state(desk, "shop"),
        lambda got: got["outgoing"]["refused"] == 1 and got["outgoing"]["sent"] == 1,
    )
    assert found["errors"][0]["error"].startswith("product:p-00001 was refused: status 422")
    assert found["state"] != "failing"
    await sync(desk, "shop")
    await desk.until(lambda: state(desk, "shop"), lambda got: len(got["errors"]) == 2)


async def test_a_connector_that_is_off_keeps_what_is_to_go_out(desk, mesh):
    answer = await desk.client.put(
        "/api/admin/integrations/chat", json={"enabled": False}, headers=desk.admin
    )
    assert (answer.status_code, answer.json()["state"]) == (200, "off")
    await desk.tell(events.STOCK_LOW, product(1) | {"available": 2})
    await desk.until(lambda: state(desk, "chat"), lambda got: got["outgoing"]["waiting"] == 1)
    answer = await desk.client.post("/api/admin/integrations/chat/sync", headers=desk.admin)
    assert answer.status_code == 409
    assert not await there(mesh, "chat", "message")()
    await desk.client.put(
        "/api/admin/integrations/chat", json={"enabled": True}, headers=desk.admin
    )
    found = await desk.until(there(mesh, "chat", "message"), len)
    assert found[0]["text"] == "Kettle 1: 2 left"


async def test_a_process_that_ends_between_telling_and_noting_tells_nothing_twice(
    tmp_path, mesh, monkeypatch
):
    """The place where kill -9 hurts most: the partner has it, and we do not know."""
    settings, signer = settings_of("integrations", tmp_path)
    push = ChatConnector.push
    cut = asyncio.Event()

    async def cut_off(self, outgoing):
        await push(self, outgoing)
        cut.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ChatConnector, "push", cut_off)
    async with running(app, settings, signer, mesh=mesh) as desk:
        await desk.tell(events.ORDER_PAID, order(1, ("cup", 1, 500), at=time.time()))
        await asyncio.wait_for(cut.wait(), 30)
        assert (await state(desk, "chat"))["outgoing"]["waiting"] == 1
    monkeypatch.setattr(ChatConnector, "push", push)
    async with running(app, settings, signer, mesh=mesh) as desk:
        await desk.until(lambda: state(desk, "chat"), lambda got: got["outgoing"]["sent"] == 1)
        assert len(await there(mesh, "chat", "message")()) == 1


async def test_a_person_is_exported_and_erased(desk, mesh):
    await play(mesh, "ledger", down=True)
    sold = order(1, ("cup", 1, 500), at=time.time(), user_id="ada")
    await desk.tell(events.ORDER_PAID, sold)
    found = await desk.until(
        lambda: desk.get("/internal/users/ada/export"), lambda got: got["sent_to_partners"]
    )
    assert found["sent_to_partners"][0]["what"] == "invoice:order-1"
    await desk.tell(events.USER_ERASED, {"user_id": "ada", "at": time.time()})
    await desk.until(
        lambda: desk.get("/internal/users/ada/export"), lambda got: not got["sent_to_partners"]
    )
    answer = await desk.client.delete("/internal/users/ada")
    assert answer.json() == {"erased": 0}


async def test_switches_are_for_administrators_and_names_are_checked(desk):
    assert (await desk.client.get("/api/admin/integrations")).status_code == 401
    user = desk.signer.headers("ada", "user")
    for method, path in (("GET", ""), ("GET", "/chat"), ("POST", "/chat/sync"), ("PUT", "/chat")):
        answer = await desk.client.request(
            method, f"/api/admin/integrations{path}", headers=user, json={"enabled": False}
        )
        assert answer.status_code == 403
    for method, path, body, status in (
        ("GET", "/fax", None, 404),
        ("PUT", "/chat", {"enabled": "no"}, 422),
        ("PUT", "/chat", {}, 422),
        ("PUT", "/chat", {"enabled": True, "x": 1}, 422),
    ):
        answer = await desk.client.request(
            method, f"/api/admin/integrations{path}", headers=desk.admin, json=body
        )
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    names = [one["name"] for one in (await desk.get("/api/admin/integrations"))["items"]]
    assert names == ["shop", "marketplace", "accounting", "chat"]


async def test_what_changes_while_it_is_being_sent_is_sent_again(desk, mesh, monkeypatch):
    push = ShopConnector.push
    at = time.time()
    is_first = True

    async def changing(self, outgoing):
        nonlocal is_first
        if is_first:
            is_first = False
            pushed = await push(self, outgoing)
            await desk.tell(events.PRODUCT_CHANGED, product(price=777, at=at + 5))
            database = Database(desk.settings)
            versions = sa.select(tables.outgoing.c.version).where(
                tables.outgoing.c.connector == "shop"
            )

            async def version():
                async with database.reading() as connection:
                    return await connection.scalar(versions)

            await desk.until(version, lambda got: got == 2)
            await database.close()
            return pushed
        return await push(self, outgoing)

    monkeypatch.setattr(ShopConnector, "push", changing)
    await desk.tell(events.PRODUCT_CHANGED, product(at=at))
    await desk.until(
        there(mesh, "shopfront", "product"),
        lambda got: [one["variants"][0]["price"] for one in got] == ["7.77"],
    )
    found = await desk.until(lambda: state(desk, "shop"), lambda got: got["outgoing"]["sent"] == 1)
    assert found["outgoing"]["waiting"] == 0


async def test_products_that_were_there_before_reach_partners_once(tmp_path, mesh, monkeypatch):
    monkeypatch.setattr(first_time, "EVERY_S", 0.02)
    monkeypatch.setattr(first_time, "AWAY_S", 0.02)
    monkeypatch.setattr(first_time, "PAGE", 3)
    asked: list[str] = []
    shelf = mesh.fake("products")

    @shelf.on("GET", "/internal/catalogue")
    def catalogue(request):
        after = (request.params.get("after") or [""])[0]
        asked.append(after)
        if len(asked) in (1, 3):
            return (503, {})  # it is away for a moment
        rows = [
            {
                "id": f"p-{number:05d}",
                "name": f"Kettle {number}",
                "price": 1000,
                "category": "kitchen",
                "updated_at_s": 1000.0 + number,
            }
            for number in range(1, 8)
        ]
        page = [row for row in rows if row["id"] > after][:3]
        return {"items": page, "next": page[-1]["id"] if len(page) == 3 else None}

    settings, signer = settings_of("integrations", tmp_path)
    async with running(app, settings, signer, mesh=mesh) as desk:
        # News that is there already is newer, and stays.
        await desk.tell(events.PRODUCT_CHANGED, product(2, price=777))
        found = await desk.until(there(mesh, "shopfront", "product"), lambda got: len(got) == 7)
        prices = {one["title"]: one["variants"][0]["price"] for one in found}
        assert prices["Kettle 2"] == "7.77" and prices["Kettle 7"] == "10.00"
        await desk.until(there(mesh, "marketplace", "listing"), lambda got: len(got) == 7)
    count = len(asked)
    async with running(app, settings, signer, mesh=mesh):
        await asyncio.sleep(0.2)
    assert len(asked) == count  # once, and not once each start
