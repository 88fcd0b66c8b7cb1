from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from headgate.cache import Cache
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.products import keeping
from headgate_shop.products.keeping import Purges, open_cache
from headgate_shop.products.tables import PURGES
from tests.shop.products.shelves import hearing, nothing_to_forget, open_shelves, until
from tests.shop.products.told import AdminApi
from tests.state.redis_server import RedisServer

DRAFT = {
    "name": "Blue Kettle",
    "description": "It whistles.",
    "category": "kitchen",
    "brand": "Ostrell",
    "price": 4995,
}
ADMIN = "/api/admin/products"


def test_a_product_is_made_edited_and_removed(both):
    async def scene():
        async with both() as shop, hearing(shop.settings) as heard:
            made = await shop.client.post(ADMIN, json={**DRAFT, "stock": 3}, headers=shop.admin)
            assert made.status_code == 201, made.text
            where, product = made.headers["location"], made.json()
            assert await shop.get(where) == product
            assert (await shop.get(f"{where}/stock"))["available"] == 3
            assert product["id"] in [
                one["id"] for one in (await shop.get("/api/products/search/whistles"))["items"]
            ]
            changed = await shop.edit(product["id"], price=3990, category="new-things")
            assert changed.json()["price"] == 3990
            # At once, wherever it stands.
            assert (await shop.get(where))["price"] == 3990
            listed = await shop.get("/api/products", params={"category": "new-things"})
            assert [one["price"] for one in listed["items"]] == [3990]
            slugs = [one["slug"] for one in await shop.get("/api/products/categories")]
            assert "new-things" in slugs
            replaced = await shop.client.put(
                f"{ADMIN}/{product['id']}", json={**DRAFT, "name": "Red Pan"}, headers=shop.admin
            )
            assert replaced.json()["name"] == "Red Pan"
            assert (await shop.get("/api/products/search/whistles red"))["total"] == 1
            gone = await shop.client.delete(f"{ADMIN}/{product['id']}", headers=shop.admin)
            assert gone.status_code == 204
            assert (await shop.client.get(where)).status_code == 404
            assert (await shop.get("/api/products/search/whistles"))["total"] == 0
            again = await shop.client.post(
                ADMIN, json={**DRAFT, "id": product["id"]}, headers=shop.admin
            )
            assert again.status_code == 409 and again.json()["code"] == "taken"
            await until(lambda: len(heard) == 4)
            told = [(one.topic, one.data.get("price")) for one in heard]
            changed = events.PRODUCT_CHANGED
            assert sorted(told, key=str) == [
                (changed, 3990),
                (changed, 4995),
                (changed, 4995),
                (events.PRODUCT_REMOVED, None),
            ]

    asyncio.run(scene())


def test_an_edit_of_an_old_version_is_refused(both):
    async def scene():
        async with both() as shop:
            seen = await shop.client.get("/api/v2/products/p-00004")
            mine = {**shop.admin, "if-match": seen.headers["etag"]}
            first = await shop.client.patch(f"{ADMIN}/p-00004", json={"price": 1}, headers=mine)
            assert first.status_code == 200
            for method, body in (("PATCH", {"price": 2}), ("PUT", DRAFT), ("DELETE", None)):
                late = await shop.client.request(
                    method, f"{ADMIN}/p-00004", json=body, headers=mine
                )
                assert late.status_code == 412 and late.json()["version"] == 2
            next_one = {**shop.admin, "if-match": first.headers["etag"]}
            second = await shop.client.patch(
                f"{ADMIN}/p-00004", json={"price": 2}, headers=next_one
            )
            assert second.json()["price"] == 2

    asyncio.run(scene())


def test_of_many_who_edit_one_version_one_wins(both):
    async def scene():
        async with both() as shop:
            seen = await shop.client.get("/api/products/p-00004")
            mine = {**shop.admin, "if-match": seen.headers["etag"]}
            answers = await asyncio.gather(
                *(
                    shop.client.patch(f"{ADMIN}/p-00004", json={"price": price}, headers=mine)
                    for price in range(8)
                )
            )
            assert sorted(one.status_code for one in answers) == [200] + [412] * 7
            won = next(one for one in answers if one.status_code == 200).json()
            assert await shop.get("/api/products/p-00004") == won

    asyncio.run(scene())


REFUSED = [
    {**DRAFT, "price": -1},
    {**DRAFT, "price": 10**9},
    {**DRAFT, "price": "12"},
    {**DRAFT, "price": 1.5},
    {**DRAFT, "name": ""},
    {**DRAFT, "name": "   "},
    {**DRAFT, "name": "a\0b"},
    {**DRAFT, "name": "x" * 201},
    {**DRAFT, "description": "\x1b[31m"},
    {**DRAFT, "category": "Kitchen & co"},
    {**DRAFT, "currency": "USD"},
    {**DRAFT, "rating": 6},
    {**DRAFT, "featured": "yes"},
    {**DRAFT, "id": "../../etc"},
    {**DRAFT, "stock": -1},
    {**DRAFT, "surprise": 1},
    {"name": "only"},
    [],
]


def test_a_bad_product_is_refused_with_the_place(shelves):
    async def scene():
        async with shelves() as shop:
            for body in REFUSED:
                answer = await shop.client.post(ADMIN, json=body, headers=shop.admin)
                assert answer.status_code == 422, body
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["errors"]

    asyncio.run(scene())


def test_only_administrators_edit(shelves):
    async def scene():
        async with shelves() as shop:
            for headers, status in (({}, 401), (shop.customer, 403)):
                for method, path in (
                    ("POST", ""),
                    ("PUT", "/p-00001"),
                    ("PATCH", "/p-00001"),
                    ("DELETE", "/p-00001"),
                    ("POST", "/p-00001/stock"),
                    ("POST", "/p-00001/image"),
                    ("POST", "/import"),
                    ("GET", "/export"),
                    ("GET", "/jobs/import-0123456789abcdef"),
                ):
                    answer = await shop.client.request(
                        method, f"{ADMIN}{path}", json={}, headers=headers
                    )
                    assert answer.status_code == status, (method, path)

    asyncio.run(scene())


def test_nothing_in_an_edit_takes_away_what_it_does_not_name(shelves):
    async def scene():
        async with shelves() as shop:
            before = await shop.get("/api/products/p-00005")
            for change in ({}, {"name": None}, {"featured": before["featured"]}):
                answer = await shop.edit("p-00005", **change)
                assert answer.status_code == 200
            after = await shop.get("/api/products/p-00005")
            assert {**after, "updated_at": 0} == {**before, "updated_at": 0}
            assert (await shop.edit("p-00005", rating=None)).json()["rating"] is None
            missing = await shop.edit("p-none", price=1)
            assert missing.status_code == 404

    asyncio.run(scene())


@pytest.mark.integration
def test_an_edit_shows_at_once_in_the_canary_with_a_redis_between(shelves, warehouse, tmp_path):
    server = RedisServer(tmp_path / "redis")
    (tmp_path / "redis").mkdir()
    server.start()

    async def scene():
        async with shelves(cache=server.url) as shop:
            next_one = replace(shop.settings, service="products-next")
            async with open_shelves(next_one, warehouse.signer) as canary:
                paths = ["/api/products/p-00001", "/api/products?limit=3&sort=price"]
                for each in (shop, canary):
                    for path in paths:
                        await each.get(path)
                await shop.edit("p-00001", price=1)

                async def is_seen():
                    one = await canary.get(paths[0])
                    listed = await canary.get(paths[1])
                    return one["price"] == 1 == listed["items"][0]["price"]

                assert (await shop.get(paths[0]))["price"] == 1
                await until(is_seen)

    try:
        asyncio.run(scene())
    finally:
        server.stop()


@pytest.mark.integration
def test_an_edit_is_told_to_the_gateway_also_when_that_was_away(warehouse, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "GRACE_MS", 0)
    monkeypatch.setattr(keeping, "LOOK_S", 0.05)

    async def scene():
        async with AdminApi() as gateway:
            settings = await warehouse.settings(
                tmp_path / "a", admin_url=gateway.url, admin_token="t"
            )
            database = Database(settings)
            async with open_cache(settings) as cache:
                purges = Purges(database, cache)
                gateway.is_away = True
                async with database.writing() as connection:
                    number = await purges.note(connection, ["product:p-00001", "products"])
                await purges.tell(number)
                assert not gateway.purged and await purges.waiting() >= 1
                gateway.is_away = False
                async with purges:  # whoever looks next tells it, and the row goes
                    await until(lambda: nothing_to_forget(settings))
                assert {"product:p-00001", "products"} <= gateway.purged
                assert gateway.tokens == {"Bearer t"}
            await database.close()

    asyncio.run(scene())


def test_a_purge_that_a_killed_process_left_is_told_by_the_next(shelves, monkeypatch):
    monkeypatch.setattr(keeping, "LOOK_S", 0.05)

    async def scene():
        async with shelves() as shop:
            await until(lambda: nothing_to_forget(shop.settings))
            seen = (await shop.get("/api/products/p-00001"))["price"]
            database = Database(shop.settings)
            async with database.writing() as connection:
                # As by a process that edited and was killed before it could tell.
                await connection.execute(sa.text("UPDATE products SET price = price + 1"))
                await Purges(database, Cache()).note(connection, ["product:p-00001"])
                await connection.execute(sa.update(PURGES).values(at_ms=0))

            async def is_seen():
                return (await shop.get("/api/products/p-00001"))["price"] == seen + 1

            await until(is_seen)
            await database.close()

    asyncio.run(scene())
