"""Each prepared failure, played on the whole shop: what customers notice, and how soon it is over.

What was measured is printed as the table of `docs/howto/failures.md`; the bounds here are far above
it, as a machine may have much else to do.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time

import pytest

from headgate_shop.operations.failures import DATABASE_MS
from headgate_shop.stage.client import Stage
from tests.shop.ledger import on_stage
from tests.shop.watching_customers import Customers, Operator, Shopper, client_of, settled

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

SOON_S = 45.0
_numbers = itertools.count()
TABLE: list[tuple[str, str, str, str]] = []


@pytest.fixture(scope="module")
def operator(shop):
    with Operator(shop) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    for row in (("Failure", "Customers notice", "Seen after", "Over after"), *TABLE):
        print("| " + " | ".join(row) + " |")


@pytest.fixture(scope="module")
def product(shop):
    with client_of(shop) as client:
        found = client.get("/api/products?in_stock=true&sort=rating&limit=12").json()["items"]
        for item in found:
            stock = client.get(f"/api/products/{item['id']}/stock").json()
            if (stock["available"] or 0) >= 20:
                return item["id"]
    raise AssertionError("no product has twenty in stock")


@pytest.fixture
def shopper(shop):
    made = Shopper(shop)
    before = set(made.listed())
    yield made
    # Nothing is lost and nothing is doubled, whatever failed.
    made.until_paid()
    assert set(made.listed()) - before == {order["id"] for order in made.orders.values()}
    made.close()


def asks(product):
    """What is kept by the gateway, and what is asked of the service each time."""
    return {
        "catalogue": "/api/products?limit=24",
        "product": f"/api/products/{product}",
        "search": lambda: f"/api/products?limit=5&min_price={next(_numbers) + 1}",
        "stock": f"/api/products/{product}/stock",
        "page": f"/product/{product}",
        "tips": f"/api/products/{product}/recommendations",
    }


def noted(failure, notice, seen_s, over_s):
    over = "at once" if over_s < 0.1 else f"{over_s:.1f} s"
    TABLE.append((failure, notice, f"{seen_s:.1f} s", over))


def is_well(shop, operator, *names):
    for name in names:
        shop.until(name, "running", SOON_S)
    settled(
        lambda: all(operator.service(name)["state"] in ("ok", "warn") for name in names),
        lambda: f"{[operator.service(name) for name in names]} {operator.state()}",
    )
    settled(lambda: operator.parts["failures"] == [])


def test_killed_products_nobody_waits_for_the_catalogue(shop, operator, product):
    with Customers(shop, asks(product)) as customers:
        since = operator.begin("kill", "products")
        operator.sees("The process of products ended", since)
        seen_s = operator.sees(r"it runs again, after", since)
        is_well(shop, operator, "products")
        settled(lambda: customers.noticed("stock", since)["known"] > 3)
    for name in ("catalogue", "product", "page", "tips"):
        assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
    # What is in no cache is tried again until somebody is back to answer it.
    assert set(customers.noticed("search")) <= {"200", "503"}
    assert set(customers.noticed("stock")) <= {"known", "unknown"}
    over_s = max(
        customers.well_after("stock", since, "known"), customers.well_after("search", since, "200")
    )
    assert over_s < SOON_S
    refused, unknown = customers.noticed("search")["503"], customers.noticed("stock")["unknown"]
    notice = f"a search takes up to {customers.slowest('search', since):.1f} s"
    notice += f", {refused} are refused" if refused else ""
    notice += f", stock is unknown {unknown} times" if unknown else ""
    noted("kill products", notice, seen_s, over_s)


@pytest.mark.parametrize("service", ["orders", "payments"])
def test_a_checkout_survives_a_kill(shop, operator, product, shopper, service):
    shopper.buy(product)
    since = operator.begin("kill", service)
    began = time.monotonic()
    bought = [shopper.buy(product) for _ in range(3)]
    took_s = time.monotonic() - began
    seen_s = operator.sees(f"Kill a service: {service}: it runs again", since)
    is_well(shop, operator, service)
    pending = sum(order["status"] == "pending" for order in bought)
    shopper.until_paid()
    notice = f"3 orders took {took_s:.1f} s" + (
        f", {pending} accepted as pending" if pending else ""
    )
    noted(f"kill {service}", notice, seen_s, operator.sees("it runs again, after", since))


def test_products_taken_away_the_catalogue_goes_on(shop, operator, product, shopper):
    with client_of(shop) as client, Customers(shop, asks(product)) as customers:
        items = client.get("/api/products?limit=40&sort=name").json()["items"]
        others = [item["id"] for item in items if item["id"] != product]
        since = operator.begin("outage", "products")
        seen_s = operator.sees("process of products is gone", since)
        settled(lambda: operator.service("products")["state"] == "down")
        asked = len(customers.answers)
        settled(lambda: len(customers.answers) > asked + 30)
        for other in others[:5]:  # whose stock nobody has asked for yet
            said = client.get(f"/api/products/{other}/stock")
            assert (said.status_code, said.json()["state"]) == (200, "unknown")
        undone = operator.undo("outage")
        is_well(shop, operator, "products")
        settled(lambda: customers.noticed("search", undone + 1)["200"] > 3)
    for name in ("catalogue", "product", "page", "tips"):
        assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
    # 502: it was under way when the process ended, and the tries after that were spent.
    assert {"200", "503"} <= set(customers.noticed("search")) <= {"200", "502", "503"}
    over_s = customers.well_after("search", undone, "200")
    assert over_s < SOON_S
    noted(
        "products taken away",
        "the catalogue comes from the cache; other stock is unknown, a new search is refused",
        seen_s,
        over_s,
    )
    shopper.buy(product)


def test_payments_taken_away_nothing_is_ordered_and_carts_go_on(shop, operator, product, shopper):
    since = operator.begin("outage", "payments")
    seen_s = operator.sees("process of payments is gone", since)
    shopper.fill(product)
    began = time.monotonic()
    refused = shopper.check_out("no-payment-1")
    took_s = time.monotonic() - began
    assert (refused.status_code, refused.json().get("code")) == (503, "payment_away")
    for number in range(12):  # what payments lacks is no fault of orders
        assert shopper.check_out(f"no-payment-{number + 2}").json()["code"] == "payment_away"
        assert shopper.cart()["lines"]
    undone = operator.undo("outage")
    is_well(shop, operator, "payments", "orders")
    shopper.buy(product)
    over_s = time.monotonic() - undone
    notice = (
        f"told after {took_s:.1f} s that nothing can be paid; the cart stays, nothing is ordered"
    )
    noted("payments taken away", notice, seen_s, over_s)


def test_analytics_taken_away_tips_are_missing(shop, operator, product):
    fresh = "/api/products/p-000{}/recommendations"
    paths = itertools.cycle(fresh.format(number) for number in range(10, 40))
    with Customers(shop, {"tips": lambda: next(paths), **asks(product)}) as customers:
        since = operator.begin("outage", "analytics")
        seen_s = operator.sees("process of analytics is gone", since)
        settled(lambda: operator.service("analytics")["state"] == "down")
        asked = len(customers.answers)
        settled(lambda: len(customers.answers) > asked + 30)
        undone = operator.undo("outage")
        is_well(shop, operator, "analytics")
    for name in ("tips", "catalogue", "page"):
        assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
    noted("analytics taken away", "recommendations are missing", seen_s, time.monotonic() - undone)


def test_a_slow_database_of_products_leaves_the_catalogue_quick(shop, operator, product, shopper):
    with Customers(shop, asks(product)) as customers:
        since = operator.begin("slow-database", "products")
        settled(lambda: customers.slowest("search", since) > DATABASE_MS / 1000)
        seen_s = operator.sees("Slow the database: products: begun", since)
        asked = len(customers.answers)
        settled(lambda: len(customers.answers) > asked + 12)
        undone = operator.undo("slow-database")
        settled(lambda: customers.noticed("search", undone + 1)["200"] > 3)
        is_well(shop, operator, "products", "products-next")
    for name in ("catalogue", "product", "page", "tips"):
        assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
    assert set(customers.noticed("stock")) <= {"known", "unknown"}
    slow_s = customers.slowest("search", since)
    over_s = customers.well_after("search", undone, "200")
    notice = f"a new search takes up to {slow_s:.1f} s; the catalogue comes from the cache"
    noted("slow database of products", notice, seen_s, over_s)
    shopper.buy(product)


def test_a_slow_database_of_orders_loses_and_doubles_nothing(shop, operator, product, shopper):
    since = operator.begin("slow-database", "orders")
    seen_s = operator.sees("Slow the database: orders: begun", since)
    time.sleep(0.6)  # until the service has looked at its file
    began = time.monotonic()
    shopper.buy(product)
    took_s = time.monotonic() - began
    undone = operator.undo("slow-database")
    is_well(shop, operator, "orders")
    shopper.buy(product)
    notice = f"cart and checkout take {took_s:.0f} s"
    noted("slow database of orders", notice, seen_s, time.monotonic() - undone)


def test_a_bad_deploy_to_the_canary_is_noticed_by_nobody(shop, operator, product):
    with Customers(shop, asks(product)) as customers, client_of(shop) as tester:
        since = operator.begin("bad-deploy")
        numbers = itertools.count(1000)

        def ask_the_canary():
            said = tester.get(f"/api/products?min_price={next(numbers)}", headers={"x-canary": "1"})
            assert said.status_code == 200, said.text
            return operator.has_seen("the canary is taken out", since)

        settled(ask_the_canary)
        seen_s = operator.sees("the canary is taken out", since)
        undone = operator.undo("bad-deploy")

        def is_back():
            ask_the_canary()  # the trials are of requests
            return operator.has_seen("Breaker of products-next closed", undone)

        settled(is_back)
        over_s = operator.sees("Breaker of products-next closed", undone)
        is_well(shop, operator, "products-next")
    for name in ("catalogue", "product", "search", "page", "tips"):
        assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
    noted("bad deploy to the canary", "nothing: products answers in its place", seen_s, over_s)


def test_a_burst_is_answered(shop, operator, product, shopper):
    with Customers(shop, asks(product)) as customers:
        since = operator.begin("burst")
        seen_s = operator.sees("Burst of traffic: begun", since)
        settled(lambda: (operator.parts.get("stage") or {})["traffic"]["rate"] == 250)
        asked = len(customers.answers)
        settled(lambda: len(customers.answers) > asked + 30)
        shopper.buy(product)
        undone = operator.undo("burst")
    for name in ("catalogue", "product", "search", "page", "tips"):
        assert not [how for how in customers.noticed(name) if how not in ("200", "503")]
    slow_s = customers.slowest("catalogue", since)
    refused = sum(customers.noticed(name)["503"] for name in ("catalogue", "search", "page"))
    notice = f"catalogue within {slow_s:.2f} s, {refused} of {len(customers.answers)} turned away"
    noted("burst", notice, seen_s, time.monotonic() - undone)


def test_redis_cannot_be_dropped_where_there_is_none(operator):
    assert "this shop runs without a Redis" in operator.refused("redis")


def test_a_dropped_redis_is_noticed_by_nobody(product):
    with Stage(size="tiny", peers=("redis",)) as shop, Operator(shop) as operator:
        shopper = Shopper(shop)
        with Customers(shop, asks(product)) as customers:
            since = operator.begin("redis")
            seen_s = operator.sees("Drop Redis: begun", since)
            shopper.buy(product)
            asked = len(customers.answers)
            settled(lambda: len(customers.answers) > asked + 30)
            undone = operator.undo("redis")
            shopper.buy(product)
            shopper.until_paid()
            over_s = time.monotonic() - undone
        for name in ("catalogue", "product", "search", "page", "tips"):
            assert set(customers.noticed(name)) == {"200"}, (name, customers.noticed(name))
        shopper.close()
        noted("Redis dropped", "nothing; mails and forecasts wait", seen_s, over_s)


def test_the_books_agree_through_the_gateway_whoever_is_killed_whenever(shop):
    """Orders, products, payments, and workers of the gateway; customers send the same key again.

    SHOP_LEDGER_KILLS and SHOP_LEDGER_SEED as in `test_shop_ledger.py`.
    """
    kills = int(os.environ.get("SHOP_LEDGER_KILLS", "5"))
    seed = int(os.environ.get("SHOP_LEDGER_SEED", "1"))
    print(asyncio.run(on_stage.play(shop, kills, seed)))
