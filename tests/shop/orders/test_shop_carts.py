from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.kit import Problem
from headgate_shop.base import events
from headgate_shop.orders.carts import (
    LINES_MAX,
    QUANTITY_MAX,
    Known,
    Line,
    merged,
    set_quantity,
    shown,
)
from tests.shop.orders.till import at_a_till

LINES = st.lists(
    st.builds(Line, st.sampled_from([f"p{n}" for n in range(60)]), st.integers(1, QUANTITY_MAX)),
    max_size=LINES_MAX,
    unique_by=lambda line: line.product_id,
)


@given(LINES, LINES)
def test_two_carts_in_one_hold_what_both_held_up_to_the_bounds(mine, theirs):
    both = merged(mine, theirs)
    assert len(both) <= LINES_MAX
    assert len({line.product_id for line in both}) == len(both)
    found = {line.product_id: line.quantity for line in both}
    for line in mine:
        assert found[line.product_id] >= line.quantity  # nothing of one's own is pushed out
    for line in theirs:
        if line.product_id in found:
            assert line.quantity <= found[line.product_id] <= QUANTITY_MAX
        else:
            assert len(both) == LINES_MAX


def test_a_full_cart_takes_no_other_product_but_more_of_the_same():
    lines = [Line(f"p{number}", 1) for number in range(LINES_MAX)]
    with pytest.raises(Problem) as full:
        set_quantity(lines, "other", 1, None, 0)
    assert full.value.code == "cart_full"
    assert max(line.quantity for line in set_quantity(lines, "p3", 7, None, 0)) == 7


def test_what_is_wrong_with_a_cart_is_said():
    lines = [Line(name, 3, name, 100) for name in ("fine", "few", "none", "gone", "dear")]
    known = {
        "fine": Known("fine", "Fine", 100, available=3),
        "few": Known("few", "Few", 100, available=2),
        "none": Known("none", "None", 100, available=0),
        "dear": Known("dear", "Dear", 120),
    }
    cart = shown("guest:x", lines, known)
    assert {(one["product_id"], one["code"]) for one in cart["trouble"]} == {
        ("few", "short"),
        ("none", "short"),
        ("gone", "gone"),
        ("dear", "price_changed"),
    }
    told = {one["product_id"]: one["detail"] for one in cart["trouble"]}
    assert told["few"] == "Only 2 of Few are left." and told["none"] == "None is sold out."
    assert cart["total"] == 3 * (100 + 100 + 100 + 100 + 120)


@at_a_till
async def test_a_visitor_has_a_cart_that_joins_the_customers_own(till):
    guest = {"x-cart-id": str(uuid.uuid4())}
    for product, quantity in (("kettle", 2), ("cup", 5)):
        answer = await till.client.put(
            f"/api/cart/items/{product}", json={"quantity": quantity}, headers=guest
        )
        assert answer.status_code == 200, answer.text
    cart = answer.json()
    assert cart["id"] == guest["x-cart-id"] and cart["total"] == 7000
    assert cart["lines"][1] == {
        "product_id": "cup",
        "name": "CUP",
        "price": 1000,
        "quantity": 5,
        "total": 5000,
        "image": "/images/cup.webp",
    }
    assert answer.headers["cache-control"] == "no-store"
    await till.put("ada", "cup", 1)
    body = {"cart_id": guest["x-cart-id"]}
    for _ in range(2):  # the second time there is nothing left to join
        answer = await till.client.post("/api/cart/merge", json=body, headers=till.who("ada"))
        assert {line["product_id"]: line["quantity"] for line in answer.json()["lines"]} == {
            "cup": 6,
            "kettle": 2,
        }
    assert (await till.client.get("/api/cart", headers=guest)).json()["lines"] == []
    assert (await till.client.post("/api/cart/merge", json=body)).status_code == 401
    assert len(await till.told(events.SHOPPING)) == 3


@at_a_till
async def test_lines_are_changed_and_taken_out(till):
    await till.put("ada", "kettle", 2)
    await till.put("ada", "cup", 2)
    cart = (await till.put("ada", "cup", 0)).json()
    assert [line["product_id"] for line in cart["lines"]] == ["kettle"]
    gone = await till.client.delete("/api/cart/items/kettle", headers=till.who("ada"))
    assert gone.json()["lines"] == []
    await till.put("ada", "cup", 2)
    assert (await till.client.delete("/api/cart", headers=till.who("ada"))).json()["lines"] == []


@at_a_till
async def test_a_cart_lives_without_products(till):
    await till.put("ada", "kettle", 2)
    till.products.plan = ["lost"] * 100
    cart = await till.cart("ada")
    assert cart["lines"][0]["price"] == 1000 and cart["trouble"][0]["code"] == "prices_old"
    answer = await till.put("ada", "cup", 1)  # taken on trust, until it can be asked for
    assert answer.status_code == 200
    assert answer.json()["lines"][1]["price"] is None
    till.products.plan = []
    assert (await till.cart("ada"))["lines"][1]["price"] == 1000


@at_a_till
async def test_many_changes_at_once_are_all_made(till):
    await asyncio.gather(
        *(till.put("ada", product, 4) for product in ("kettle", "cup") for _ in range(4))
    )
    assert [line["quantity"] for line in (await till.cart("ada"))["lines"]] == [4, 4]


@at_a_till
async def test_what_a_cart_cannot_hold_is_refused(till):
    async def put(product, body, **headers):
        return await till.client.put(f"/api/cart/items/{product}", json=body, headers=headers)

    ada = till.who("ada")
    for body in ({"quantity": 100}, {"quantity": -1}, {"quantity": "1"}, {"quantity": True}, {}, 3):
        assert (await put("cup", body, **ada)).status_code == 422, body
    assert (await put("unknown", {"quantity": 1}, **ada)).json()["code"] == "gone"
    assert (await put("a%20b", {"quantity": 1}, **ada)).status_code == 422
    assert (await put("x" * 65, {"quantity": 1}, **ada)).status_code == 422
    assert (await put("cup", {"quantity": 1})).status_code == 400
    for cart_id in ("", "me", "1" * 65, "user:ada"):
        answer = await put("cup", {"quantity": 1}, **{"x-cart-id": cart_id})
        assert answer.status_code == 422, cart_id


@at_a_till
async def test_what_is_put_in_from_two_windows_at_once_is_there_twice(till):
    async def more(product, quantity):
        return await till.client.post(
            f"/api/cart/items/{product}", json={"quantity": quantity}, headers=till.who("ada")
        )

    answers = await asyncio.gather(*(more("cup", 2) for _ in range(8)), more("kettle", 1))
    assert {one.status_code for one in answers} == {200}
    cart = await till.cart("ada")
    assert {line["product_id"]: line["quantity"] for line in cart["lines"]} == {
        "cup": 16,
        "kettle": 1,
    }
    full = await more("cup", QUANTITY_MAX)
    assert [line["quantity"] for line in full.json()["lines"] if line["product_id"] == "cup"] == [
        QUANTITY_MAX
    ]
    for quantity in (0, -1, QUANTITY_MAX + 1, "1", 1.5):
        assert (await more("cup", quantity)).status_code == 422
    assert (await more("nothing", 1)).json()["code"] == "gone"
    # One who puts in a product tells of it once, however often more of it is added.
    assert len(await till.told(events.SHOPPING)) == 2
