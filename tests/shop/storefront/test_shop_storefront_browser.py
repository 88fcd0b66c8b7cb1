"""The pages in a real browser, with scripted services behind them."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.shop.storefront.drawn import browser, opened, shown
from tests.shop.storefront.scripted import PASSWORD, Town

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

HOME = {"name": "Ada Byron", "street": "S 1", "postcode": "12345", "city": "London"}
CARD = {"card_number": "4242424242424242", "card_expiry": "1240", "card_cvc": "123"}
STRANGERS = [
    "/", "/products", "/category/kitchen?in_stock=1&max=90", "/search?q=bowl", "/search?q=zzzz",
    "/product/p-00001", "/product/p-00006", "/cart", "/signin", "/signup", "/forgot",
    "/confirm", "/reset", "/signout", "/nope",
]  # fmt: skip
SIGNED_IN = [
    "/", "/cart", "/checkout", "/orders", "/orders/o-0001", "/orders/o-0002", "/account",
    "/account/erase", "/account/erased?of=erasure-0001",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The town and the URL of its storefront."""
    town = Town()
    for goods in town.goods.values():
        goods["available"] = max(goods["available"], 20)
    with shown(tmp_path_factory.mktemp("storefront"), town) as url:
        yield town, url


@pytest.fixture(autouse=True)
def _fresh(place):
    town, _ = place
    for kept in (town.carts, town.orders, town.keys, town.answers, town.away):
        kept.clear()


def sign_in(watched, path="/signin"):
    page = watched.go(path)
    page.get_by_label("E-mail address").fill("ada@shop.test")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Account").first).to_be_visible()


def complaints(watched):
    """What the browser complained of, but for pages that are meant to be missing."""
    return [one for one in watched.errors if "status of 404" not in one]


def judged(watched, path):
    page = watched.go(path)
    found = Axe().run(page).response["violations"]
    told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    assert not told, (path, told)
    assert not watched.is_too_wide(), path


@pytest.mark.parametrize(("is_phone", "scheme"), [(False, "light"), (True, "dark")])
def test_every_page_is_fit_for_everybody(chromium, place, is_phone, scheme):
    town, url = place
    with opened(chromium, url, is_phone=is_phone, scheme=scheme) as watched:
        for path in STRANGERS:
            judged(watched, path)
        sign_in(watched)
        watched.go("/product/p-00001").get_by_role("button", name="Add to cart").click()
        expect(watched.page.get_by_text("is in your cart")).to_be_visible()
        cart = town.cart(next(iter(town.carts)))
        town.ordered(cart, HOME | {"country": "GB"}, "paid")
        town.ordered(cart, HOME | {"country": "GB"}, "pending")
        for path in SIGNED_IN:
            judged(watched, path)
        # What was written wrong, and suggestions, are part of the pages too.
        page = watched.go("/checkout")
        page.get_by_role("button", name="Buy now").click()
        expect(page.get_by_label("Street and number")).to_be_focused()
        assert not Axe().run(page).response["violations"]
        page.get_by_label("Search the shop").press_sequentially("bo")
        expect(page.get_by_role("option").first).to_be_visible()
        assert not Axe().run(page).response["violations"]
        assert not complaints(watched)


def test_nothing_is_wider_than_any_screen_whatever_it_is_called(chromium, place):
    town, url = place
    with opened(chromium, url) as watched:
        sign_in(watched)
        page = watched.go("/product/p-00001")
        page.get_by_role("button", name="Add to cart").click()
        expect(page.get_by_text("is in your cart")).to_be_visible()
        name = town.goods["p-00001"]["name"]
        town.goods["p-00001"]["name"] = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk"
        try:
            for width in (320, 600, 800, 1024):
                page.set_viewport_size({"width": width, "height": 800})
                for path in (
                    "/",
                    "/products?min=1&max=900&in_stock=1",
                    "/product/p-00001",
                    "/cart",
                    "/checkout",
                ):
                    watched.go(path)
                    assert not watched.is_too_wide(), (width, path)
        finally:
            town.goods["p-00001"]["name"] = name


@pytest.mark.parametrize("is_phone", [False, True], ids=["desktop", "phone"])
def test_the_other_colours_stay_chosen(chromium, place, is_phone):
    _, url = place
    with opened(chromium, url, is_phone=is_phone, scheme="light") as watched:
        page = watched.go("/")
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="other colours").click()
        after = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert before != after
        watched.go("/products")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after
        assert not watched.errors


def test_a_visitor_searches_fills_the_cart_and_changes_it(chromium, place):
    _, url = place
    with opened(chromium, url) as watched:
        page = watched.go("/")
        field = page.get_by_label("Search the shop")
        field.press_sequentially("bowl")
        expect(page.get_by_role("option").first).to_be_visible()
        field.press("ArrowDown")
        field.press("Enter")
        page.wait_for_url("**/product/**")
        name = page.get_by_role("heading", level=1).inner_text()
        page.get_by_role("button", name="One more").click()
        page.get_by_role("button", name="Add to cart").click()
        expect(page.get_by_role("status").get_by_text(name)).to_be_visible()
        expect(page.locator("[data-cart-count]")).to_have_text("2")
        page.get_by_role("link", name="See the cart").click()
        page.get_by_role("button", name=f"One {name} more").click()
        expect(page.locator("[data-cart-count]")).to_have_text("3")
        expect(page.get_by_label(f"How many {name}")).to_have_value("3")
        page.get_by_label(f"How many {name}").fill("2")
        page.get_by_label(f"How many {name}").press("Enter")
        expect(page.locator("[data-cart-count]")).to_have_text("2")
        page.get_by_role("button", name=f"Remove {name}").click()
        expect(page.get_by_role("heading", name="Nothing in here yet")).to_be_visible()
        assert not watched.errors


def test_more_goods_come_below_and_what_was_seen_is_remembered(chromium, place):
    _, url = place
    with opened(chromium, url) as watched:
        page = watched.go("/products")
        cards = page.locator("[data-list] .card")
        expect(cards).to_have_count(24)
        page.get_by_role("link", name="Show more").click()
        expect(cards).to_have_count(48)
        page.get_by_role("link", name="Show more").click()
        expect(cards).to_have_count(60)
        expect(page.get_by_role("link", name="Show more")).to_have_count(0)
        page.get_by_label("Only our picks").check()
        page.wait_for_url("**featured=1*")
        watched.go("/product/p-00003")
        watched.go("/product/p-00001")
        expect(page.get_by_role("heading", name="You looked at these")).to_be_visible()
        assert not watched.errors


def test_everything_up_to_the_order_works_without_scripts(chromium, place):
    town, url = place
    with opened(chromium, url, java_script_enabled=False) as watched:
        page = watched.go("/")
        page.get_by_role("link", name="Kitchen").first.click()
        page.get_by_label("Up to").fill("90")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.get_by_text("Up to €90.00")).to_be_visible()
        page.get_by_label("Search the shop").fill("bowl")
        page.get_by_role("button", name="Search").click()
        page.locator(".card__name a").first.click()
        name = page.get_by_role("heading", level=1).inner_text()
        page.get_by_role("button", name="Add to cart").click()
        expect(page.get_by_role("heading", name="Cart")).to_be_visible()
        page.get_by_role("button", name=f"One {name} more").click()
        expect(page.get_by_label(f"How many {name}")).to_have_value("2")
        page.get_by_label(f"How many {name}").fill("3")
        page.get_by_label(f"How many {name}").press("Enter")
        expect(page.get_by_label(f"How many {name}")).to_have_value("3")
        page.get_by_role("link", name="Check out").click()
        page.get_by_label("E-mail address").fill("ada@shop.test")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Checkout")).to_be_visible()
        for field, value in (HOME | CARD | {"card_expiry": "12/40"}).items():
            page.locator(f"#{field}").fill(value)
        page.locator("#country").select_option("GB")
        page.get_by_role("button", name="Buy now").click()
        expect(page.get_by_text("Thank you, it is bought.")).to_be_visible()
        assert len(town.orders) == 1


def test_a_double_click_buys_once(chromium, place):
    town, url = place
    with opened(chromium, url) as watched:
        sign_in(watched)
        page = watched.go("/product/p-00002")
        page.get_by_role("button", name="Add to cart").click()
        expect(page.get_by_text("is in your cart")).to_be_visible()
        watched.go("/checkout")
        for field, value in HOME.items():
            page.locator(f"#{field}").fill(value)
        for field, value in CARD.items():
            page.locator(f"#{field}").press_sequentially(value)
        expect(page.locator("#card_number")).to_have_value("4242 4242 4242 4242")
        expect(page.locator("#card_expiry")).to_have_value("12/40")
        page.locator("#country").select_option("GB")
        page.get_by_role("button", name="Buy now").dblclick()
        expect(page.get_by_text("Thank you, it is bought.")).to_be_visible()
        assert len(town.orders) == 1
        assert not watched.errors


def test_an_order_that_is_being_paid_goes_on_by_itself(chromium, place):
    town, url = place
    with opened(chromium, url) as watched:
        sign_in(watched)
        basket = {"lines": [], "total": 100}
        order = town.ordered(basket, HOME, "pending")
        page = watched.go(f"/orders/{order['id']}")
        expect(page.get_by_text("The bank has not answered yet.")).to_be_visible()
        order["status"] = "paid"
        expect(page.get_by_text("The bank has not answered yet.")).to_have_count(0)
        expect(page.locator("h1 + .tag")).to_have_text("Paid")
        assert not watched.errors


def test_the_token_of_a_mail_is_taken_out_of_the_address(chromium, place):
    _, url = place
    with opened(chromium, url) as watched:
        page = watched.go("/confirm#token-of-the-mail")
        expect(page.get_by_label("Code from the mail")).to_be_hidden()
        assert page.evaluate("location.href") == f"{url}/confirm"
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_text("Your address is confirmed.")).to_be_visible()
        assert not watched.errors


def test_the_cart_is_reached_by_the_keyboard_alone(chromium, place):
    _, url = place
    with opened(chromium, url) as watched:
        page = watched.go("/")

        def tab_to(selector):
            for _ in range(80):
                page.keyboard.press("Tab")
                if page.evaluate("s => document.activeElement.matches(s)", selector):
                    shown_ = page.evaluate(
                        "() => { const e = document.activeElement, s = getComputedStyle(e),"
                        " c = e.closest('.card'), t = c && getComputedStyle(c);"
                        " return s.outlineStyle !== 'none' || (t && t.outlineStyle !== 'none'); }"
                    )
                    assert shown_, f"where the focus is cannot be seen: {selector}"
                    return
            raise AssertionError(f"the keyboard does not come to {selector}")

        tab_to(".skip")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        tab_to(".card__name a")
        page.keyboard.press("Enter")
        page.wait_for_url("**/product/**")
        tab_to(".buy > .button")
        page.keyboard.press("Enter")
        expect(page.locator("[data-cart-count]")).to_have_text("1")
        watched.go("/products")
        tab_to("a[data-cart]")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Cart")).to_be_visible()
        tab_to(".stepper button[value='1']")
        page.keyboard.press("Enter")
        expect(page.locator("[data-cart-count]")).to_have_text("2")
        # The page was exchanged below the keyboard, which stays where it was.
        assert re.match("One .* more", page.evaluate("document.activeElement.ariaLabel"))
        tab_to("a[href='/checkout']")
        assert not watched.errors


def test_trouble_is_a_word_at_the_edge_and_the_page_stays(chromium, place):
    town, url = place
    with opened(chromium, url) as watched:
        page = watched.go("/product/p-00001")
        town.away.add("orders")
        page.get_by_role("button", name="Add to cart").click()
        expect(page.get_by_text("Nothing was changed; please try again")).to_be_visible()
        assert page.url.endswith("/product/p-00001")
