"""The storefront behind the gateway, with all services: what a customer does from end to end."""

from __future__ import annotations

import re
import time

import httpx
import pytest
from playwright.sync_api import expect

from tests.shop.storefront.drawn import browser, opened

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

HOME = {"name": "Noor Haddad", "street": "Canal 7", "postcode": "1012", "city": "Amsterdam"}
CARD = {"card_number": "4242424242424242", "card_expiry": "1240", "card_cvc": "123"}
REFUSED = CARD | {"card_number": "4000000000000002"}
PASSWORD = "three calm otters 7"


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


def link_in(mail):
    """Where the link of a mail leads, on this shop."""
    found = re.search(r"https?://[^/\s]+(/confirm#\S+)", mail["text"])
    assert found is not None, mail["text"]
    return found[1]


def pay(page, card):
    for field, value in card.items():
        page.locator(f"#{field}").fill("")
        page.locator(f"#{field}").press_sequentially(value)
    page.get_by_role("button", name="Buy now").click()


@pytest.mark.parametrize("is_phone", [False, True], ids=["desktop", "phone"])
def test_a_new_customer_finds_buys_and_looks_at_the_order(shop, chromium, is_phone):
    email = f"noor-{'phone' if is_phone else 'desk'}@shop.test"
    with shop.client() as client:
        sold = {"in_stock": "true", "sort": "rating", "limit": 1}
        name = client.get("/api/products", params=sold).json()["items"][0]["name"]
    with opened(chromium, shop.url, is_phone=is_phone) as watched:
        page = watched.go("/")
        page.get_by_role("navigation", name="Categories").get_by_role("link").nth(1).click()
        page.wait_for_url("**/category/**")
        page.get_by_label("Search the shop").fill(name)
        page.get_by_label("Search the shop").press("Enter")
        page.wait_for_url("**/search?q=*")
        page.get_by_role("link", name=name, exact=True).first.click()
        page.wait_for_url("**/product/**")
        page.get_by_role("button", name="Add to cart").click()
        expect(page.locator("[data-cart-count]")).to_have_text("1")
        assert not watched.is_too_wide()

        watched.go("/signup")
        page.get_by_label("Name").fill(HOME["name"])
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        expect(page.get_by_role("heading", name="Look into your mail")).to_be_visible()
        mail = shop.mails(to=email, within_s=60)[0]
        watched.go(link_in(mail))
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_text("Your address is confirmed.")).to_be_visible()
        watched.go("/signin?next=/checkout")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()

        # The cart came along, and a card that the bank refuses buys nothing.
        expect(page.get_by_role("heading", name="Checkout")).to_be_visible()
        expect(page.get_by_text(f"1 \u00d7 {name}")).to_be_visible()
        for field, value in HOME.items():
            page.locator(f"#{field}").fill(value)
        page.locator("#country").select_option("NL")
        assert not watched.is_too_wide()
        pay(page, REFUSED)
        expect(page.get_by_text("The bank refused this card.")).to_be_visible()
        pay(page, CARD)
        page.wait_for_url("**/orders/*")
        expect(page.locator("h1 + .tag")).to_have_text("Paid")
        expect(page.get_by_text("Netherlands")).to_be_visible()
        number = page.get_by_role("heading", level=1).inner_text()
        watched.go("/orders")
        expect(page.get_by_role("link", name=number)).to_be_visible()
        assert not watched.is_too_wide()
        watched.go("/account")
        page.get_by_label("Telephone").fill("+31 20 555 0100")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download my data").click()
        assert email in download.value.path().read_text()
        if is_phone:
            watched.go("/account/erase")
            page.get_by_label("Write “erase” to go on").fill("erase")
            page.get_by_role("button", name="Erase everything").click()
            expect(page.get_by_text("orders: ")).to_be_visible()
        else:
            page.get_by_role("button", name="Sign out").first.click()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        told = [one for one in watched.errors if "status of 402" not in one]
        assert not told


def test_what_is_looked_at_and_how_quick_it_was_is_told(shop, chromium):
    metrics = f"http://127.0.0.1:{shop.service('storefront')['port']}/metrics"
    with opened(chromium, shop.url) as watched:
        with watched.page.expect_response("**/api/events") as told:
            watched.go("/product/p-00001")
        assert told.value.status == 202
        watched.page.goto("about:blank")  # a page tells of itself when it is left
        until = time.monotonic() + 60.0
        while 'web_vitals_beacons_total{result="ok"}' not in httpx.get(metrics).text:
            assert time.monotonic() < until
            time.sleep(0.1)
    assert 'page="/product/{id}"' in httpx.get(metrics).text


def test_pages_of_strangers_come_from_the_gateway_and_an_edit_shows_at_once(shop):
    with shop.client() as anybody, shop.client("admin") as admin:
        path = "/product/p-00004"
        anybody.get(path)
        assert "hit" in anybody.get(path).headers["cache-status"]
        found = admin.get("/api/products/p-00004").json()
        change = {"name": "A Name Of Today"}
        assert admin.patch("/api/admin/products/p-00004", json=change).status_code == 200
        assert "A Name Of Today" in anybody.get(path).text
        back = {"name": found["name"]}
        assert admin.patch("/api/admin/products/p-00004", json=back).status_code == 200
        assert "A Name Of Today" not in anybody.get(path).text


def test_a_cookie_of_another_day_does_not_shut_anybody_out(shop):
    headers = {"cookie": "shop_session=eyJhbGciOiJFZERTQSJ9.e30.AAAA", "sec-fetch-site": "none"}
    with shop.client() as client:
        for path in ("/", "/products", "/cart", "/signin"):
            assert client.get(path, headers=headers).status_code == 200, path


def test_while_products_is_away_the_shop_stays_open(shop):
    with shop.client() as client:
        before = client.get("/product/p-00002")
        assert before.status_code == 200
        own = {"cookie": "shop_cart=2f1c9a30-6a0d-4f43-9d5a-4b7b3f0e8f11", "sec-fetch-site": "none"}
        assert client.get("/product/p-00002", headers=own).status_code == 200
        shop.stop("products")
        shop.stop("products-next")
        try:
            shop.until("products", "stopped")
            kept = client.get("/product/p-00002", headers=own)
            assert kept.status_code == 200
            assert "Stock is being counted" in kept.text
            cart = client.get("/cart", headers=own)
            assert cart.status_code == 200
        finally:
            shop.go("products")
            shop.go("products-next")
            shop.until("products", "running")
            shop.until("products-next", "running")
