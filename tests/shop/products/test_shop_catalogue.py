from __future__ import annotations

import asyncio
import itertools

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate_shop.data.catalogue import catalogue
from headgate_shop.products.tables import PRODUCTS
from tests.shop.products.shelves import nothing_to_forget, open_shelves, run_statement, until

ITEMS = {item.id: item for item in catalogue(60)}
LISTS = "/api/products"


async def all_pages(shop, **params):
    found, cursor = [], ""
    for _ in range(20):
        page = await shop.get(LISTS, params={**params, "cursor": cursor})
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            assert page["total"] >= len(found)
            return found
    raise AssertionError("a list without an end")


def test_every_order_shows_each_product_once_and_sorted(both):
    async def scene():
        async with both() as shop:
            for sort, key, is_down in (
                ("price", lambda one: one["price"], False),
                ("-price", lambda one: one["price"], True),
                ("newest", lambda one: one["created_at"], True),
                ("name", lambda one: one["name"].casefold(), False),
                ("rating", lambda one: one["rating"], True),
                ("featured", lambda one: one["featured"], True),
            ):
                found = await all_pages(shop, sort=sort, limit=25)
                assert sorted(one["id"] for one in found) == sorted(ITEMS)
                values = [key(one) for one in found]
                assert values == sorted(values, reverse=is_down), sort

    asyncio.run(scene())


def test_filters_narrow_and_go_together(both):
    async def scene():
        async with both() as shop:
            for params, fits in (
                ({"category": "kitchen"}, lambda one: one.category == "kitchen"),
                ({"brand": "Harrowick"}, lambda one: one.brand == "Harrowick"),
                ({"min_price": 3000, "max_price": 9000}, lambda one: 3000 <= one.price <= 9000),
                ({"featured": "true"}, lambda one: one.featured),
                ({"in_stock": "true"}, lambda one: one.stock > 0),
                ({"in_stock": "false"}, lambda one: one.stock == 0),
                ({"category": "nowhere"}, lambda one: False),
                (
                    {"category": "garden", "featured": "false", "max_price": 5000},
                    lambda one: one.category == "garden" and not one.featured and one.price <= 5000,
                ),
            ):
                wanted = {one.id for one in ITEMS.values() if fits(one)}
                page = await shop.get(LISTS, params={**params, "limit": 100})
                assert {one["id"] for one in page["items"]} == wanted, params
                assert page["total"] == len(wanted)
            page = await shop.get(LISTS, params={"category": "kitchen", "brand": "Harrowick"})
            in_kitchen = {one.brand for one in ITEMS.values() if one.category == "kitchen"}
            assert page["brands"] == sorted(in_kitchen)

    asyncio.run(scene())


def test_a_search_finds_words_in_any_order_and_by_their_beginnings(both):
    async def scene():
        async with both() as shop:
            for query in ("Storage Matte Caddy", "caddies storage", "stor cad", "Quillby caddy"):
                found = await shop.names(f"{LISTS}/search/{query}")
                assert "Echo Matte Black Storage Caddy" in found, query
            # A name counts for more than a description.
            found = await shop.get(f"{LISTS}/search/lamp")
            names = [("Lamp" in one["name"]) for one in found["items"]]
            assert names == sorted(names, reverse=True) and names[0]
            assert found["meant"] is None
            inside = await shop.get(
                f"{LISTS}/search/lamp", params={"category": "lighting", "sort": "price"}
            )
            assert {one["category"] for one in inside["items"]} == {"lighting"}
            prices = [one["price"] for one in inside["items"]]
            assert prices == sorted(prices)

    asyncio.run(scene())


def test_a_misspelt_search_finds_what_was_meant(both):
    async def scene():
        async with both() as shop:
            found = await shop.get(f"{LISTS}/search/storge caddi")
            assert found["items"][0]["name"] == "Echo Matte Black Storage Caddy"
            assert found["meant"] == "storage caddy" or found["meant"] == "storage caddi"
            # Nothing has both words: one of them is enough.
            either = await shop.get(f"{LISTS}/search/caddy lamp")
            assert either["total"] > 1
            nothing = await shop.get(f"{LISTS}/search/xylophoniac")
            assert nothing == {"items": [], "next": None, "total": 0, "brands": [], "meant": None}

    asyncio.run(scene())


HOSTILE = [
    "\"' OR 1=1 --", "*", "NEAR(a b", "a AND", "^x", "{a b}:c", "col:", "a & | !b", "(((", ":*",
    "\\", "%", "_", "a\u2028b", "\ufffd", "字典 搜索", "ß ﬁ ²", "-" * 150, "a " * 100, "'", "<->", "\u0301",
]  # fmt: skip


def test_a_hostile_search_is_only_a_search(both):
    async def scene():
        async with both() as shop:
            for query in HOSTILE:
                answer = await shop.client.get(f"{LISTS}/search/{_quoted(query)}")
                assert answer.status_code == 200, (query, answer.text)
            assert (await shop.client.get(f"{LISTS}/search/a%2Fb")).status_code == 200
            assert (await shop.client.get(f"{LISTS}/search/{'x' * 201}")).status_code == 422

    asyncio.run(scene())


def _quoted(text):
    from urllib.parse import quote

    return quote(text, safe="")


def test_any_text_can_be_searched_for_and_any_list_asked(both):
    async def scene():
        async with both() as shop:
            loop = asyncio.get_running_loop()

            @settings(max_examples=12, suppress_health_check=list(HealthCheck))
            @given(st.text(max_size=60), st.sampled_from(["name", "price", "rating", ""]))
            def ask(text, sort):
                params = {"sort": sort} if sort else {}
                asked = shop.client.get(f"{LISTS}/search/{_quoted(text)}", params=params)
                answer = asyncio.run_coroutine_threadsafe(asked, loop).result(30)
                assert answer.status_code == 200, (text, answer.text)

            await asyncio.to_thread(ask)

    asyncio.run(scene())


def test_pages_neither_repeat_nor_leave_out_while_products_come_and_go(shelves):
    async def scene():
        async with shelves() as shop:
            first = await shop.get(LISTS, params={"sort": "price", "limit": 20})
            shown = [one["id"] for one in first["items"]]
            draft = {
                "name": "A New Thing",
                "description": "Cheap.",
                "category": "kitchen",
                "brand": "B",
            }
            for price in (1, first["items"][10]["price"], 10_000_000):
                made = await shop.client.post(
                    "/api/admin/products", json={**draft, "price": price}, headers=shop.admin
                )
                assert made.status_code == 201
            gone = await shop.client.delete(
                f"/api/admin/products/{shown[19]}", headers=shop.admin
            )  # the very product that the cursor stands at
            assert gone.status_code == 204
            cursor = first["next"]
            while cursor:
                page = await shop.get(
                    LISTS, params={"sort": "price", "limit": 20, "cursor": cursor}
                )
                shown += [one["id"] for one in page["items"]]
                cursor = page["next"]
            assert len(shown) == len(set(shown))
            assert set(ITEMS) <= set(shown)

    asyncio.run(scene())


def test_the_canary_goes_on_with_a_list_that_was_begun_by_the_other(shelves, warehouse):
    async def scene():
        async with shelves() as now:
            from dataclasses import replace

            after = replace(now.settings, service="products-next")
            async with open_shelves(after, warehouse.signer) as canary:
                mine = await now.get(LISTS, params={"limit": 10})
                theirs = await canary.get(LISTS, params={"limit": 10})
                assert mine["items"] != theirs["items"]
                whole = await now.get(LISTS, params={"limit": 60})
                rest = await canary.get(LISTS, params={"limit": 50, "cursor": mine["next"]})
                assert mine["items"] + rest["items"] == whole["items"]
                one = await now.client.get(f"{LISTS}/p-00001")
                other = await canary.client.get(f"{LISTS}/p-00001")
                assert one.json() == other.json()
                versions = [each.headers["x-shop-version"] for each in (one, other)]
                assert versions == ["1.0.0", "2.0.0"]
                assert one.headers["etag"] != other.headers["etag"]

    asyncio.run(scene())


REFUSED = [
    ({"limit": 0}, 422, "limit"),
    ({"limit": 101}, 422, "limit"),
    ({"sort": "cheap"}, 422, "sort"),
    ({"min_price": -1}, 422, "min_price"),
    ({"min_price": 10**12}, 422, "min_price"),
    ({"min_price": 5, "max_price": 4}, 422, "max_price 4"),
    ({"category": "../etc"}, 422, "category"),
    ({"brand": "a\0b"}, 422, "NUL"),
    ({"in_stock": "perhaps"}, 422, "in_stock"),
    ({"cursor": "AAAAAAAAAAAAAAAAAAAAAAAA"}, 400, "cursor"),
    ({"cursor": "x" * 700}, 422, "cursor"),
]


def test_what_cannot_be_asked_is_refused_with_the_reason(shelves):
    async def scene():
        async with shelves() as shop:
            for params, status, says in REFUSED:
                answer = await shop.client.get(LISTS, params=params)
                assert answer.status_code == status, params
                assert answer.headers["content-type"] == "application/problem+json"
                assert says in answer.json()["detail"], params

    asyncio.run(scene())


def test_a_product_is_told_in_both_versions_and_the_old_one_says_that_it_ends(shelves):
    async def scene():
        async with shelves() as shop:
            old = await shop.client.get(f"{LISTS}/p-00003")
            new = await shop.client.get("/api/v2/products/p-00003")
            v1, v2 = old.json(), new.json()
            assert list(v1) == [
                "id", "name", "description", "category", "brand", "price", "currency", "featured",
                "image", "rating", "created_at", "updated_at",
            ]  # fmt: skip
            assert v1["price"] == ITEMS["p-00003"].price
            assert v2["price"] == {"amount": v1["price"], "currency": "EUR"}
            assert v2["images"] == [v1["image"]]
            assert old.headers["deprecation"].startswith("@")
            assert old.headers["link"] == '</api/v2/products/p-00003>; rel="successor-version"'
            assert "sunset" in old.headers
            assert "deprecation" not in new.headers
            for path in (v2["links"]["self"], v2["links"]["stock"], v2["links"]["category"]):
                await shop.get(path)
            gone = await shop.client.get(f"{LISTS}/p-99999")
            assert gone.status_code == 404 and gone.json()["code"] == "product_unknown"

    asyncio.run(scene())


def test_answers_carry_the_tags_of_all_that_they_were_made_of(shelves):
    async def scene():
        async with shelves() as shop:
            answer = await shop.client.get(LISTS, params={"category": "garden", "limit": 3})
            ids = [one["id"] for one in answer.json()["items"]]
            tags = answer.headers["cache-tag"].split(",")
            assert tags == ["products", "category:garden", *(f"product:{one}" for one in ids)]
            assert "max-age=300" in answer.headers["cdn-cache-control"]
            one = await shop.client.get(f"{LISTS}/{ids[0]}")
            assert one.headers["cache-tag"] == f"product:{ids[0]},category:garden"
            again = await shop.client.get(
                f"{LISTS}/{ids[0]}", headers={"if-none-match": one.headers["etag"]}
            )
            assert again.status_code == 304 and again.content == b""
            stock = await shop.client.get(f"{LISTS}/{ids[0]}/stock")
            assert "max-age=2" in stock.headers["cdn-cache-control"]

    asyncio.run(scene())


def test_stock_says_how_it_stands(shelves):
    async def scene():
        async with shelves() as shop:
            states = {}
            for count in (0, 4, 5):
                await shop.set_stock("p-00007", set=count)
                states[count] = await shop.get(f"{LISTS}/p-00007/stock")
            assert [one["state"] for one in states.values()] == ["out", "low", "in_stock"]
            assert [one["available"] for one in states.values()] == [0, 4, 5]
            missing = await shop.client.get(f"{LISTS}/nope/stock")
            assert missing.status_code == 404

    asyncio.run(scene())


def test_categories_count_what_is_in_them(both):
    async def scene():
        async with both() as shop:
            found = await shop.get(f"{LISTS}/categories")
            assert sum(one["count"] for one in found) == 60
            assert [one["name"] for one in found] == sorted(one["name"] for one in found)
            for one in found:
                image = await shop.client.get(one["image"])
                assert image.status_code == 200
                assert one["slug"] and image.headers["content-type"] == "image/svg+xml"

    asyncio.run(scene())


def test_several_products_are_told_at_once_in_the_order_of_the_ids(shelves):
    async def scene():
        async with shelves() as shop:
            found = await shop.get(
                "/internal/products", params={"ids": "p-00009,zz,p-00002,p-00009"}
            )
            assert [one["id"] for one in found["items"]] == ["p-00009", "p-00002"]
            assert found["items"][0]["available"] == ITEMS["p-00009"].stock
            many = ",".join(f"p{n}" for n in range(201))
            refused = await shop.client.get("/internal/products", params={"ids": many})
            assert refused.status_code == 422

    asyncio.run(scene())


def test_what_is_featured_comes_in_the_order_of_the_release(shelves):
    async def scene():
        async with shelves() as shop:
            found = await shop.get(f"{LISTS}/featured")
            standing = [ITEMS[one["id"]].popularity for one in found["items"]]
            assert standing == sorted(standing, reverse=True)
            assert all(one["featured"] for one in found["items"])
            assert len((await shop.get(f"{LISTS}/featured", params={"limit": 2}))["items"]) == 2

    asyncio.run(scene())


def test_a_list_from_the_cache_is_the_same_and_asks_the_database_nothing(shelves):
    async def scene():
        async with shelves() as shop:
            paths = [f"{LISTS}/p-00001", f"{LISTS}?limit=5", f"{LISTS}/search/lamp"]
            await until(lambda: nothing_to_forget(shop.settings))
            first = [(await shop.client.get(path)).content for path in paths]
            await run_statement(shop.settings, sa.update(PRODUCTS).values(name="behind its back"))
            second = [(await shop.client.get(path)).content for path in paths]
            assert first == second
            assert len(set(itertools.chain(first, second))) == 3

    asyncio.run(scene())


def test_what_is_known_is_served_while_the_database_is_away(shelves, monkeypatch):
    from headgate_shop.products import public
    from headgate_shop.products.reading import Catalogue

    monkeypatch.setitem(public.LASTING, "ttl", "10ms")

    async def away(*_):
        raise OSError("the database is away")

    async def scene():
        async with shelves() as shop:
            await until(lambda: nothing_to_forget(shop.settings))
            seen = await shop.get(f"{LISTS}/p-00001")
            listed = await shop.get(f"{LISTS}?limit=2")
            monkeypatch.setattr(Catalogue, "product", away)
            monkeypatch.setattr(Catalogue, "page", away)
            await asyncio.sleep(0.05)
            old = await shop.client.get(f"{LISTS}/p-00001")
            assert old.json() == seen
            # No cache in front is to keep it for new.
            assert old.headers["cache-control"] == "no-cache"
            assert "cdn-cache-control" not in old.headers
            assert await shop.get(f"{LISTS}?limit=2") == listed

    asyncio.run(scene())


def test_a_brand_narrows_a_search_but_not_the_choice_of_brands(both):
    async def scene():
        async with both() as shop:
            whole = await shop.get(f"{LISTS}/search/lamp", params={"limit": 100})
            brand = whole["items"][0]["brand"]
            found = await shop.get(
                f"{LISTS}/search/lamp", params={"brand": brand, "min_price": 1, "limit": 100}
            )
            of_brand = [one for one in whole["items"] if one["brand"] == brand]
            assert found["items"] == of_brand
            assert found["total"] == len(of_brand) < whole["total"]
            assert found["brands"] == whole["brands"] == sorted(set(whole["brands"]))
            nobody = await shop.get(f"{LISTS}/search/lamp", params={"brand": "Nobody"})
            assert (nobody["total"], nobody["items"]) == (0, [])

    asyncio.run(scene())


def test_a_list_whose_rest_has_gone_still_says_how_many_there_are(both):
    async def scene():
        async with both() as shop:
            first = await shop.get(LISTS, params={"sort": "price", "limit": 59})
            last = next(iter(set(ITEMS) - {one["id"] for one in first["items"]}))
            gone = await shop.client.delete(f"/api/admin/products/{last}", headers=shop.admin)
            assert gone.status_code == 204
            rest = await shop.get(
                LISTS, params={"sort": "price", "limit": 59, "cursor": first["next"]}
            )
            assert (rest["items"], rest["next"], rest["total"]) == ([], None, 59)
            assert rest["brands"] == sorted({one["brand"] for one in first["items"]})

    asyncio.run(scene())


def test_a_search_is_one_short_read(shelves, monkeypatch):
    from headgate_shop.base.database import Database

    async def scene():
        async with shelves() as shop:
            await until(lambda: nothing_to_forget(shop.settings))
            whole = await shop.get(f"{LISTS}/search/lamp", params={"limit": 7})
            asked = []
            rows = Database.rows

            async def counted(self, prepared, **values):
                asked.append(prepared.text)
                return await rows(self, prepared, **values)

            monkeypatch.setattr(Database, "rows", counted)
            found = await shop.get(f"{LISTS}/search/lamp", params={"limit": 7, "min_price": 1})
            assert len(asked) == 1
            assert found == {**whole, "next": found["next"]}

    asyncio.run(scene())
