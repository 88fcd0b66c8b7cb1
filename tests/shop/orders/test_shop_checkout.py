from __future__ import annotations

import asyncio
import json

from headgate_shop.base import events
from headgate_shop.orders import driver, order_routes
from tests.shop.orders.shelf import Shelf
from tests.shop.orders.till import at_a_till, open_till, wanted


@at_a_till
async def test_what_is_in_the_cart_is_bought(till):
    await till.put("ada", "kettle", 2)
    await till.put("ada", "cup")
    answer = await till.buy("ada", "one", total=3000)
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert (order["status"], order["total"], order["currency"]) == ("paid", 3000, "EUR")
    assert {line["product_id"]: line["total"] for line in order["lines"]} == {
        "kettle": 2000,
        "cup": 1000,
    }
    assert [one["status"] for one in order["history"]] == ["pending", "paid"]
    assert answer.headers["location"] == f"/api/orders/{order['id']}"
    assert (await till.cart("ada"))["lines"] == []
    assert till.shelf.available == {"kettle": 8, "cup": 99}
    assert await till.told(events.ORDER_PLACED) == [f"{order['id']}/order.placed"]
    assert await till.told(events.ORDER_PAID) == [f"{order['id']}/order.paid"]
    await till.balances()


@at_a_till
async def test_the_same_key_buys_once(till):
    await till.put("ada")
    first = await till.buy("ada", "k")
    again = await till.buy("ada", "k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    other = await till.buy("ada", "k", total=1)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert await till.rows() == 1
    # A key is its owner's: with another customer it means another checkout.
    await till.put("noor")
    assert (await till.buy("noor", "k", total=1000)).json()["id"] != first.json()["id"]
    await till.balances()


@at_a_till
async def test_the_same_key_many_times_at_once_buys_once(till):
    await till.put("ada")
    answers = await asyncio.gather(*(till.buy("ada", "k") for _ in range(8)))
    assert {one.status_code for one in answers} == {201}
    assert len({one.json()["id"] for one in answers}) == 1
    await till.balances()


@at_a_till
async def test_a_key_whose_order_came_to_be_meanwhile_is_told_of_it(till, monkeypatch):
    async def not_yet(self, user_id, key, wanted):
        return None  # as it was when this request looked

    await till.put("ada")
    first = await till.buy("ada", "k")
    monkeypatch.setattr("headgate_shop.orders.checkout.Checkout.earlier", not_yet)
    assert (await till.buy("ada", "k")).json() == first.json()
    await till.put("ada")  # also when there is something in the cart again
    assert (await till.buy("ada", "k")).json() == first.json()
    assert await till.rows() == 1


@at_a_till
async def test_one_cart_is_bought_once_under_two_keys(till):
    await till.put("ada")
    answers = await asyncio.gather(till.buy("ada", "a"), till.buy("ada", "b"))
    assert sorted(one.status_code for one in answers) == [201, 409]
    assert {one.json().get("code") for one in answers} == {None, "cart_empty"}
    assert await till.rows() == 1


CARDS = {
    "4000000000000002": "refused",
    "4000000000009995": "no_money",
    "4000 0000 0000 0069": "expired_card",
    "4000-0000-0000-0127": "wrong_cvc",
}


@at_a_till
async def test_a_refused_card_costs_nothing_and_the_cart_comes_back(till):
    for number, reason in CARDS.items():
        user = f"of-{reason}"
        await till.put(user, "kettle", 3)
        answer = await till.buy(user, "k", number)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["reason"]) == (
            402,
            "payment_refused",
            reason,
        )
        again = (await till.buy(user, "k", number)).json()
        assert again | {"request_id": ""} == problem | {"request_id": ""}
        assert [line["quantity"] for line in (await till.cart(user))["lines"]] == [3]
    await till.balances()
    assert till.shelf.available["kettle"] == 10
    assert await till.told(events.ORDER_PAID) == []
    assert (await till.buy(user, "another")).status_code == 201
    assert [one["status"] for one in await till.orders(user)] == ["paid", "refused"]


@at_a_till
async def test_what_is_short_is_named(till):
    await till.put("ada", "kettle", 11)
    answer = await till.buy("ada")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "out_of_stock")
    assert problem["short"] == [{"product_id": "kettle", "available": 10, "name": "KETTLE"}]
    assert "KETTLE (left: 10)" in problem["detail"]
    cart = await till.cart("ada")
    assert cart["trouble"][0]["code"] == "short" and cart["trouble"][0]["available"] == 10
    await till.balances()


@at_a_till
async def test_what_is_no_longer_sold_is_named(till):
    await till.put("ada", "cup")
    del till.shelf.prices["cup"]
    assert (await till.cart("ada"))["trouble"][0]["code"] == "gone"
    answer = await till.buy("ada")
    assert (answer.status_code, answer.json()["code"], answer.json()["gone"]) == (
        409,
        "gone",
        ["cup"],
    )


@at_a_till
async def test_another_price_than_the_customer_saw_buys_nothing(till):
    await till.put("ada", "kettle")
    till.shelf.prices["kettle"] = 1200
    assert (await till.cart("ada"))["trouble"][0]["code"] == "price_changed"
    answer = await till.buy("ada", total=1000)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["total"], problem["before"]) == (
        409,
        "price_changed",
        1200,
        1000,
    )
    await till.balances()
    assert (await till.buy("ada", total=1200)).status_code == 201


@at_a_till
async def test_what_costs_nothing_needs_no_payment(till):
    till.shelf.prices["cup"] = 0
    await till.put("ada", "cup")
    order = (await till.buy("ada")).json()
    assert (order["status"], order["total"]) == ("paid", 0)
    assert till.payments.count("POST", "/payments") == 0
    await till.client.post(f"/api/orders/{order['id']}/cancel", headers=till.who("ada"))
    await till.balances()


@at_a_till
async def test_a_payment_service_that_is_away_leaves_all_as_it_was(till):
    await till.put("ada")
    till.payments.plan = ["lost"]
    answer = await till.buy("ada", "k")
    assert (answer.status_code, answer.json()["code"]) == (503, "payment_away")
    assert answer.headers["retry-after"]
    assert await till.rows() == 0 and len((await till.cart("ada"))["lines"]) == 1
    assert (await till.buy("ada", "k")).status_code == 201  # the key was not used up


FATES = ["lost", "unheard", "busy"]


@at_a_till
async def test_a_broken_call_to_products_is_made_good(till):
    for ending in ("/reservations", "/commit"):
        till.products.only = lambda method, path, ending=ending: path.endswith(ending)
        for fate in FATES:
            await till.put("ada")
            till.products.plan = [fate]
            assert (await till.buy("ada")).status_code == 201, (ending, fate)
            assert till.products.plan == []
    await till.balances()
    assert till.shelf.available["kettle"] == 4


@at_a_till
async def test_a_payment_that_was_not_heard_of_is_looked_up(till):
    till.payments.only = lambda method, path: method == "POST" and path == "/payments"
    for fate in FATES:
        await till.put("ada")
        till.payments.seen.clear()
        till.payments.plan = [fate]
        assert (await till.buy("ada")).status_code == 201, fate
        # Where it was carried out it is found, and not asked for again.
        assert till.payments.count("POST", "/payments") == (1 if fate == "unheard" else 2)
        assert any(method == "GET" for method, _ in till.payments.seen)
    await till.balances()


@at_a_till
async def test_an_order_that_takes_long_is_told_to_be_pending(till, monkeypatch):
    monkeypatch.setattr(order_routes, "WAIT_S", 0.6)
    await till.put("ada")
    till.payments.only = lambda method, path: "/payments" in path
    till.payments.plan = ["busy"] * 100
    answer = await till.buy("ada", "k")
    order = answer.json()
    assert (answer.status_code, order["status"]) == (202, "pending")
    assert answer.headers["retry-after"] == "1"
    till.payments.plan = []
    await till.hurry()
    await till.settled()
    assert (await till.order("ada", order["id"]))["status"] == "paid"
    assert (await till.buy("ada", "k")).json()["id"] == order["id"]
    await till.balances()


@at_a_till
async def test_a_pending_order_can_be_called_off(till, monkeypatch):
    monkeypatch.setattr(order_routes, "WAIT_S", 0.6)
    await till.put("ada")
    till.payments.only = lambda method, path: path != "/cards"
    till.payments.plan = ["unheard", *["busy"] * 100]  # it is captured, and nobody knows
    order = (await till.buy("ada")).json()
    assert order["status"] == "pending"
    path = f"/api/orders/{order['id']}/cancel"
    answer = await till.client.post(path, headers=till.who("ada"))
    assert answer.status_code == 202
    till.payments.plan = []
    await till.settled()
    assert (await till.order("ada", order["id"]))["status"] == "cancelled"
    assert await till.money() == 0
    await till.balances()
    assert till.shelf.available["kettle"] == 10


@at_a_till
async def test_a_checkout_that_hangs_for_too_long_is_given_up(till, monkeypatch):
    monkeypatch.setattr(order_routes, "WAIT_S", 0.6)
    await till.put("ada")
    till.payments.only = lambda method, path: path == "/payments" or method == "GET"
    till.payments.plan = ["lost"] * 100
    order = (await till.buy("ada", "k")).json()
    await till.hurry(began_ms=0, due_ms=0)
    await till.settled()
    assert (await till.order("ada", order["id"]))["reason"] == "payment_unknown"
    answer = await till.buy("ada", "k")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    # A request for the payment that comes later than that does nothing.
    till.payments.plan = []
    late = await till.mesh.service("payments").post(
        "/payments",
        json={
            "payment_id": f"{order['id']}.payment",
            "amount": 1000,
            "currency": "EUR",
            "card": {"number": "4242424242424242", "expiry": "12/49", "cvc": "123"},
        },
    )
    assert (late.status_code, late.json()["code"]) == (409, "void")
    await till.balances()


@at_a_till
async def test_goods_that_went_while_it_was_paid_are_refunded(till, monkeypatch):
    monkeypatch.setattr(order_routes, "WAIT_S", 0.6)
    await till.put("ada")
    till.products.only = lambda method, path: path.endswith("/commit")
    till.products.plan = ["busy"] * 100
    order = (await till.buy("ada", "k")).json()
    assert order["status"] == "pending" and await till.money() == 1000
    till.shelf.expire()
    till.products.plan = []
    await till.hurry()
    await till.settled()
    assert (await till.order("ada", order["id"]))["status"] == "refused"
    assert await till.money() == 0
    await till.balances()
    answer = await till.buy("ada", "k")
    assert (answer.status_code, answer.json()["code"]) == (409, "out_of_stock")


@at_a_till
async def test_a_paid_order_is_cancelled_with_refund_and_restock(till):
    await till.put("ada", "kettle", 4)
    order = (await till.buy("ada")).json()
    path = f"/api/orders/{order['id']}/cancel"
    assert (await till.client.post(path, headers=till.who("noor"))).status_code == 404
    answers = await asyncio.gather(
        *(till.client.post(path, headers=till.who("ada")) for _ in range(4))
    )
    assert {one.status_code for one in answers} == {200}
    await till.balances()
    assert await till.money() == 0 and till.shelf.available["kettle"] == 10
    assert await till.told(events.ORDER_CANCELLED) == [f"{order['id']}/order.cancelled"]
    history = (await till.order("ada", order["id"]))["history"]
    assert [one["status"] for one in history] == ["pending", "paid", "cancelled"]


@at_a_till
async def test_a_customer_who_leaves_at_any_moment_has_one_order_or_none(till):
    """The request is cancelled after so many turns of the loop, up to its end."""
    TURNS = [*range(0, 20, 2), *range(20, 120, 16)]
    for turn in TURNS:
        user = f"user-{turn}"
        await till.put(user, "cup")
        request = asyncio.ensure_future(till.buy(user, "k"))
        for _ in range(turn):
            await asyncio.sleep(0.0005)
            if request.done():
                break
        request.cancel()
        await asyncio.wait((request,))
    books = await till.settled()
    before = books["orders"].get("paid", {"count": 0})["count"]
    for turn in TURNS:
        user = f"user-{turn}"
        assert (await till.buy(user, "k")).status_code == 201
        (order,) = await till.orders(user)
        assert order["status"] == "paid"
    assert await till.rows() == len(TURNS)
    assert before <= len(TURNS)
    await till.balances()
    assert till.shelf.available["cup"] == 100 - len(TURNS)


@at_a_till
async def test_many_who_want_the_last_ones_get_what_is_there(till):
    async def one(user):
        await till.put(user, "kettle", 3)
        return await till.buy(
            user, number="4242424242424242" if user != "u3" else "4000000000000002"
        )

    answers = await asyncio.gather(*(one(f"u{number}") for number in range(8)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(201) == 3 and set(codes) <= {201, 402, 409}
    await till.balances()
    assert till.shelf.available["kettle"] == 1


def test_what_another_process_left_is_finished_after_a_start(tmp_path, monkeypatch):
    shelf = Shelf(kettle=10)

    async def stands_still(self, work):
        await asyncio.Event().wait()

    async def before():
        async with open_till(tmp_path, shelf=shelf) as till:
            await till.put("ada")
            order = (await till.buy("ada", "k")).json()
            assert order["status"] == "pending"
        return order["id"]

    async def after(order_id):
        async with open_till(tmp_path, shelf=shelf) as till:
            await till.hurry(lease_ms=0)  # its lease ends by itself a little later
            await till.settled()
            assert (await till.order("ada", order_id))["status"] == "paid"
            assert (await till.buy("ada", "k")).json()["id"] == order_id
            await till.balances()

    with monkeypatch.context() as patch:
        patch.setattr("headgate_shop.orders.steps.Outside.carry_out", stands_still)
        patch.setattr(order_routes, "WAIT_S", 0.6)
        patch.setattr(driver.Driver, "grace_s", 0.01)
        order_id = asyncio.run(before())
    asyncio.run(after(order_id))


@at_a_till
async def test_a_checkout_that_is_not_one_says_where(till):
    async def send(body, headers):
        return await till.client.post(
            "/api/checkout", content=body, headers={"content-type": "application/json", **headers}
        )

    ada = till.who("ada") | {"idempotency-key": "k"}
    bodies = [
        ({}, "body.address"),
        (wanted() | {"address": {}}, "body.address.name"),
        (wanted() | {"card": {"number": "4242424242424242"}}, "body.card.cvc"),
        (wanted() | {"more": 1}, "body.more"),
        (wanted() | {"total": "12"}, "body.total"),
        (wanted() | {"total": -1}, "body.total"),
    ]
    for body, where in bodies:
        answer = await send(json.dumps(body), ada)
        assert answer.status_code == 422
        assert where in [one["where"] for one in answer.json()["errors"]]
        assert "4242" not in answer.text
    for text in ("", "[]", "{", "\x00", "[" * 5000):
        assert (await send(text, ada)).status_code in (400, 422), text[:9]


@at_a_till
async def test_a_checkout_needs_a_key(till):
    for key in (None, "", " ", '""', "x" * 201, "a\tb"):
        headers = till.who("ada") | ({} if key is None else {"idempotency-key": key})
        answer = await till.client.post("/api/checkout", json=wanted(), headers=headers)
        assert answer.status_code == 400, key
        assert answer.json()["code"] in ("key_required", "key_invalid")


@at_a_till
async def test_a_card_that_is_none_is_named(till):
    await till.put("ada")
    for number in ("4242424242424241", "1" * 12, "abcdefghijklmnop", "\u00b2" * 13):
        answer = await till.buy("ada", number=number)
        assert (answer.status_code, answer.json()["code"]) == (422, "card_invalid"), number
        assert number not in answer.text
    assert await till.rows() == 0


@at_a_till
async def test_strangers_cannot_buy(till):
    answer = await till.client.post("/api/checkout", json={}, headers={"idempotency-key": "k"})
    assert answer.status_code == 401
    answer = await till.buy("ada")
    assert (answer.status_code, answer.json()["code"]) == (409, "cart_empty")


@at_a_till
async def test_too_many_checkouts_under_way_are_refused(till, monkeypatch):
    monkeypatch.setattr(order_routes, "WAIT_S", 0.5)
    monkeypatch.setattr("headgate_shop.orders.checkout.OPEN_MAX", 2)
    till.products.only = lambda method, path: path.endswith("/reservations")
    till.products.plan = ["busy"] * 1000
    for expected in (202, 202, 429):
        await till.put("ada")
        assert (await till.buy("ada")).status_code == expected
