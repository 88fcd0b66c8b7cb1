from __future__ import annotations

import asyncio
import re
from http.cookies import SimpleCookie

import pytest

from tests.shop.storefront.scripted import PASSWORD
from tests.shop.storefront.visits import on_a_visit

CARD = {"card_number": "4242 4242 4242 4242", "card_expiry": "12/40", "card_cvc": "123"}
HOME = {"name": "Ada", "street": "S 1", "postcode": "12345", "city": "London", "country": "GB"}


def set_cookies(answer):
    """Each cookie that an answer sets, with what is said of it."""
    lines = answer.headers.get_list("set-cookie")
    return {name: each for line in lines for name, each in SimpleCookie(line).items()}


async def add(visit, number="p-00001", quantity="1"):
    answer = await visit.post("/cart/add", product_id=number, quantity=quantity)
    assert answer.status_code == 303, answer.text
    return answer


async def key_of(visit):
    text = (await visit.get("/checkout")).text
    fields = dict(re.findall(r'<input type="hidden" name="(key|total)" value="([^"]*)"', text))
    assert len(fields["key"]) == 36
    return fields


# -- the cart of a stranger ----------------------------------------------------------------------


@on_a_visit
async def test_a_cart_begins_with_the_first_thing_in_it(visit):
    assert "set-cookie" not in (await visit.get("/cart")).headers
    answer = await add(visit)
    cookie = set_cookies(answer)["shop_cart"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "lax"
    assert not cookie["secure"]
    assert answer.headers["location"] == "/cart?added=p-00001"
    again = await add(visit, quantity="2")
    assert "set-cookie" not in again.headers
    cart = await visit.get("/cart?added=p-00001")
    assert cart.headers["cache-control"] == "private, no-store"
    assert 'value="3"' in cart.text
    assert "is in your cart" in cart.text
    assert (await visit.get("/pieces/cart")).json() == {"count": 3}


@on_a_visit
async def test_scripts_are_answered_with_the_count(visit):
    headers = {"accept": "application/json"}
    form = {"product_id": "p-00001", "quantity": "2"}
    answer = await visit.client.post("/cart/add", data=form, headers=headers)
    assert answer.json() == {"ok": True, "count": 2}
    visit.town.away.add("orders")
    answer = await visit.client.post("/cart/add", data=form, headers=headers)
    assert answer.status_code == 503
    assert answer.json()["code"] == "away"
    nothing = {"product_id": ""}
    assert (await visit.client.post("/cart/add", data=nothing, headers=headers)).status_code == 404


@on_a_visit
async def test_a_cart_is_changed_by_steps_by_number_and_by_removing(visit):
    await add(visit)
    await visit.post("/cart/update", product_id="p-00001", quantity="4", step="1")
    assert 'value="5"' in (await visit.get("/cart")).text
    await visit.post("/cart/update", product_id="p-00001", quantity="2")
    assert 'value="2"' in (await visit.get("/cart")).text
    answer = await visit.post("/cart/update", product_id="p-00001", remove="1", quantity="2")
    assert answer.headers["location"] == "/cart?removed=1"
    assert "Nothing in here yet" in (await visit.get("/cart")).text


@on_a_visit
async def test_an_address_can_put_no_words_on_a_page(visit):
    text = (await visit.get("/cart?trouble=Call+555-0199+now")).text
    assert "555-0199" not in text
    assert "555-0199" not in (await visit.get("/product/p-00001?trouble=Call+555-0199")).text


@on_a_visit
async def test_a_cookie_that_is_no_cart_is_none(visit):
    visit.client.cookies.set("shop_cart", "../../etc")
    assert "Nothing in here yet" in (await visit.get("/cart")).text
    assert not visit.town.paths("orders")


@on_a_visit
async def test_with_a_cart_pages_are_the_visitors_own(visit):
    await add(visit)
    answer = await visit.get("/")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "thing in it" in answer.text


# -- sign in and out -----------------------------------------------------------------------------


@on_a_visit
async def test_signing_in_sets_cookies_that_scripts_cannot_read(visit):
    form = {"email": "ada@shop.test", "password": PASSWORD, "next": "/orders"}
    answer = await visit.post("/signin", **form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/orders")
    cookies = set_cookies(answer)
    assert set(cookies) == {"shop_session", "shop_refresh", "shop_device"}
    for cookie in cookies.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "lax"
    assert 0 < int(cookies["shop_session"]["max-age"]) < 600
    assert cookies["shop_device"]["path"] == "/signin"
    home = await visit.get("/")
    assert "Account" in home.text
    assert home.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("next_", ["https://evil.example", "//evil.example", "/\\evil.example"])
@on_a_visit
async def test_signing_in_leads_to_no_other_site(visit, next_):
    page = await visit.client.get("/signin", params={"next": next_})
    assert "evil" not in page.text
    form = {"email": "ada@shop.test", "password": PASSWORD, "next": next_}
    assert (await visit.post("/signin", **form)).headers["location"] == "/"


@on_a_visit
async def test_over_tls_cookies_are_for_tls_alone(visit):
    visit.app.state.shop.cookies._is_secure = True
    answer = await visit.post("/signin", email="ada@shop.test", password=PASSWORD)
    assert all(cookie["secure"] for cookie in set_cookies(answer).values())


@on_a_visit
async def test_a_wrong_password_says_so_and_is_not_repeated(visit):
    answer = await visit.post("/signin", email="ada@shop.test", password="wrong-word")
    assert answer.status_code == 401
    assert "do not go together" in answer.text
    assert 'value="ada@shop.test"' in answer.text
    assert "wrong-word" not in answer.text
    assert "set-cookie" not in answer.headers


@on_a_visit
async def test_guesses_are_told_with_where_they_come_from(visit):
    headers = {"x-forwarded-for": "203.0.113.9"}
    form = {"email": "a@b.c", "password": "x"}
    await visit.client.post("/signin", data=form, headers=headers)
    assert visit.town.sent("/api/auth/login")[1]["x-forwarded-for"] == "203.0.113.9"
    said = {"code": "too_many_attempts", "retry_after_s": 120}
    visit.town.answers["users/api/auth/login"] = (429, said)
    answer = await visit.post("/signin", email="a@b.c", password="x")
    assert answer.status_code == 429
    assert "in 2 minutes" in answer.text


@on_a_visit
async def test_a_second_factor_is_asked_for_when_it_is_needed(visit):
    visit.town.answers["users/api/auth/login"] = (401, {"code": "mfa_required"})
    answer = await visit.post("/signin", email="ada@shop.test", password=PASSWORD)
    assert 'name="totp"' in answer.text
    del visit.town.answers["users/api/auth/login"]
    form = {"email": "ada@shop.test", "password": PASSWORD, "totp": "123 456"}
    answer = await visit.post("/signin", **form)
    assert answer.status_code == 303
    assert visit.town.sent("/api/auth/login")[0]["totp"] == "123456"


@on_a_visit
async def test_signing_out_ends_the_session_and_forgets_it_here(visit):
    await visit.sign_in()
    answer = await visit.post("/signout")
    assert answer.headers["location"] == "/?bye=1"
    assert not visit.town.refreshes
    assert (await visit.get("/account")).headers["location"] == "/signin?next=%2Faccount"
    assert (await visit.get("/signout")).status_code == 200


@on_a_visit
async def test_pages_of_a_person_are_kept_by_nobody(visit):
    await visit.sign_in()
    await add(visit)
    for path in ("/account", "/orders", "/checkout", "/cart", "/account/erase"):
        assert (await visit.get(path)).headers["cache-control"] == "private, no-store", path


@on_a_visit
async def test_the_cart_of_a_stranger_comes_along(visit):
    await add(visit, "p-00003", "2")
    await visit.sign_in()
    answer = await visit.get("/cart")
    assert visit.town.goods["p-00003"]["name"] in answer.text
    assert set_cookies(answer)["shop_cart"]["max-age"] == "0"
    assert visit.town.paths("orders").count("POST /api/cart/merge") == 1
    await visit.get("/cart")
    assert visit.town.paths("orders").count("POST /api/cart/merge") == 1


@on_a_visit
async def test_a_cart_that_cannot_come_along_now_does_so_later(visit):
    await add(visit, "p-00003")
    await visit.sign_in()
    visit.town.away.add("orders/api/cart/merge")
    assert "set-cookie" not in (await visit.get("/")).headers
    visit.town.away.clear()
    answer = await visit.get("/")
    assert set_cookies(answer)["shop_cart"]["max-age"] == "0"
    assert "private" in answer.headers["cache-control"]


# -- a session that has ended --------------------------------------------------------------------


def end_session(visit):
    """What a browser does when the cookie's time is over."""
    visit.client.cookies.delete("shop_session")


@on_a_visit
async def test_an_ended_session_is_renewed_on_the_way(visit):
    await visit.sign_in()
    end_session(visit)
    answer = await visit.get("/orders?cursor=a%20b")
    assert answer.status_code == 307
    assert answer.headers["location"] == "/orders?cursor=a%20b"
    assert answer.headers["cache-control"] == "no-store"
    again = await visit.get("/orders")
    assert again.status_code == 200


@on_a_visit
async def test_a_form_that_was_sent_with_an_ended_session_is_sent_again(visit):
    await visit.sign_in()
    end_session(visit)
    form = {"product_id": "p-00001", "quantity": "1"}
    answer = await visit.client.post("/cart/add", data=form, follow_redirects=True)
    assert [one.status_code for one in answer.history] == [307, 303]
    assert visit.town.goods["p-00001"]["name"] in answer.text


@on_a_visit
async def test_two_tabs_renew_at_once(visit):
    await visit.sign_in()
    end_session(visit)
    cookie = {"cookie": f"shop_refresh={visit.client.cookies['shop_refresh']}"}
    visit.client.cookies.clear()
    answers = await asyncio.gather(*(visit.client.get("/", headers=cookie) for _ in range(3)))
    assert [one.status_code for one in answers] == [307] * 3


@on_a_visit
async def test_nobody_is_sent_in_circles(visit):
    await visit.sign_in()
    visit.town.sessions.clear()
    # The gateway takes no token: with the new one it is the same.
    first = await visit.get("/products")
    assert first.status_code == 307
    visit.town.sessions.clear()
    second = await visit.get("/products")
    assert second.status_code == 200
    assert "Sign in" in second.text


@on_a_visit
async def test_a_path_that_begins_with_slashes_is_not_another_site(visit):
    await visit.sign_in()
    end_session(visit)
    answer = await visit.client.get("http://shop.test//evil.example/a")
    assert answer.status_code != 307 or answer.headers["location"].startswith("/evil.example")


@on_a_visit
async def test_a_refresh_token_that_is_over_signs_out(visit):
    await visit.sign_in()
    end_session(visit)
    visit.town.refreshes.clear()
    answer = await visit.get("/products")
    assert answer.status_code == 307
    assert set_cookies(answer)["shop_refresh"]["max-age"] == "0"
    assert (await visit.get("/products")).status_code == 200
    assert (await visit.get("/orders")).headers["location"].startswith("/signin")


@on_a_visit
async def test_while_users_is_away_the_session_is_not_thrown_away(visit):
    await visit.sign_in()
    end_session(visit)
    visit.town.away.add("users")
    answer = await visit.get("/products")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    answer = await visit.get("/orders")
    assert answer.headers["location"] == "/signin?next=%2Forders&unsure=1"
    assert "cannot tell that it is you" in (await visit.get(answer.headers["location"])).text


# -- sign up -------------------------------------------------------------------------------------


@on_a_visit
async def test_signing_up_sends_to_the_mail_and_the_code_confirms(visit):
    form = {"email": "new@shop.test", "password": "three calm otters", "full_name": "New"}
    answer = await visit.post("/signup", **form)
    assert "Look into your mail" in answer.text
    assert visit.town.sent("/api/auth/register")[0] == {
        "email": "new@shop.test", "password": "three calm otters", "name": "New",
    }  # fmt: skip
    assert (await visit.post("/confirm", token="wrong-token")).status_code == 410
    answer = await visit.post("/confirm", token="token-of-the-mail")
    assert answer.headers["location"] == "/signin?confirmed=1"
    answer = await visit.post("/confirm", token="token-of-the-other-mail")
    assert answer.headers["location"] == "/signin?confirmed=1"
    assert (await visit.post("/confirm")).status_code == 422


@on_a_visit
async def test_a_weak_password_is_told_with_reasons(visit):
    answer = await visit.post("/signup", email="new@shop.test", password="short")
    assert answer.status_code == 422
    assert "fewer than 12 characters" in answer.text
    assert 'value="new@shop.test"' in answer.text
    answer = await visit.post("/signup", email="@", password="")
    assert answer.text.count("field__fault") >= 2
    assert 'aria-invalid="true"' in answer.text


@on_a_visit
async def test_a_forgotten_password_is_set_anew(visit):
    answer = await visit.post("/forgot", email="ada@shop.test")
    assert "Look into your mail" in answer.text
    answer = await visit.post("/reset", token="t" * 20, password="four calm otters")
    assert answer.headers["location"] == "/signin?reset=1"
    assert (await visit.post("/reset", token="", password="")).status_code == 422


# -- checkout ------------------------------------------------------------------------------------


@on_a_visit
async def test_checking_out_asks_for_a_sign_in_and_for_goods(visit):
    assert (await visit.get("/checkout")).headers["location"] == "/signin?next=%2Fcheckout"
    await visit.sign_in()
    assert (await visit.get("/checkout")).headers["location"] == "/cart"


@on_a_visit
async def test_an_order_is_placed_once_however_often_the_form_is_sent(visit):
    await visit.sign_in()
    await add(visit, quantity="2")
    form = {**HOME, **CARD, **await key_of(visit)}
    first = await visit.post("/checkout", **form)
    assert (first.status_code, first.headers["location"]) == (303, "/orders/o-0001?placed=1")
    again = await visit.post("/checkout", **form)
    assert again.headers["location"] == first.headers["location"]
    assert len(visit.town.orders) == 1
    page = await visit.get(first.headers["location"])
    assert "Thank you, it is bought." in page.text
    assert "United Kingdom" in page.text
    assert "HG-1000" in (await visit.get("/orders")).text


@on_a_visit
async def test_mistakes_are_told_by_field_and_the_card_is_not_repeated(visit):
    await visit.sign_in()
    await add(visit)
    form = {**HOME, **CARD, **await key_of(visit), "city": "", "card_cvc": "9"}
    answer = await visit.post("/checkout", **form)
    assert answer.status_code == 422
    assert 'href="#city"' in answer.text
    assert 'href="#card_cvc"' in answer.text
    assert 'value="S 1"' in answer.text
    assert "4242 4242 4242 4242</td>" in answer.text  # in the list of cards for trying out
    assert 'value="4242' not in answer.text
    assert form["key"] in answer.text
    assert "POST /api/checkout" not in visit.town.paths("orders")


@on_a_visit
async def test_a_refused_card_is_said_and_the_next_try_has_a_new_key(visit):
    await visit.sign_in()
    await add(visit)
    form = {**HOME, **CARD, **await key_of(visit), "card_number": "4000000000009995"}
    answer = await visit.post("/checkout", **form)
    assert answer.status_code == 402
    assert "not enough money" in answer.text
    assert form["key"] not in answer.text
    assert "4000000000009995" not in answer.text


@on_a_visit
async def test_without_an_answer_the_key_and_the_total_stay(visit):
    await visit.sign_in()
    await add(visit)
    form = {**HOME, **CARD, **await key_of(visit)}
    visit.town.answers["orders/api/checkout"] = (500, {})
    visit.town.carts.clear()
    answer = await visit.post("/checkout", **form)
    assert answer.status_code == 503
    assert "not be bought twice" in answer.text
    assert f'value="{form["key"]}"' in answer.text
    assert f'name="total" value="{form["total"]}"' in answer.text


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (409, {"code": "out_of_stock", "short": [{"name": "Cup", "available": 1}]}, "only 1 left"),
        (409, {"code": "price_changed", "total": 1}, "Prices have changed"),
        (409, {"code": "gone"}, "no longer for sale"),
        (503, {"code": "payment_away"}, "bank does not answer"),
        (422, {"errors": [{"where": "body.address.city", "message": "too long"}]}, "Too long"),
        (201, {"id": "//"}, "not be bought twice"),
    ],
    ids=["short", "price", "gone", "bank", "field", "nonsense"],
)
@on_a_visit
async def test_what_stands_in_the_way_of_an_order_is_explained(visit, status, said, words):
    await visit.sign_in()
    await add(visit)
    visit.town.answers["orders/api/checkout"] = (status, said)
    answer = await visit.post("/checkout", **HOME, **CARD, **await key_of(visit))
    assert answer.status_code >= 400
    assert words in answer.text


@on_a_visit
async def test_an_order_that_is_being_paid_waits_and_tells(visit):
    await visit.sign_in()
    await add(visit)
    cart = visit.town.cart(next(iter(visit.town.carts)))
    order = visit.town.ordered(cart, HOME, "pending")
    visit.town.answers["orders/api/checkout"] = (202, order)
    answer = await visit.post("/checkout", **HOME, **CARD, **await key_of(visit))
    page = await visit.get(answer.headers["location"])
    assert "The bank has not answered yet." in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text
    state = f"/orders/{order['id']}/state"
    assert f'data-pending="{state}"' in page.text
    assert (await visit.get(state)).json() == {"status": "pending"}
    order["status"] = "paid"
    assert (await visit.get(state)).json() == {"status": "paid"}


@on_a_visit
async def test_what_an_order_was_of_is_linked_while_it_is_for_sale(visit):
    await visit.sign_in()
    await add(visit)
    await add(visit, "p-00002")
    cart = visit.town.cart(next(iter(visit.town.carts)))
    for line in cart["lines"]:
        del line["image"]
    visit.town.ordered(cart, HOME, "paid")
    text = (await visit.get("/orders/o-0001")).text
    assert "/images/p-00001.svg" in text
    assert 'href="/product/p-00002"' in text
    gone = visit.town.goods.pop("p-00002")
    text = (await visit.get("/orders/o-0001")).text
    assert gone["name"] in text
    assert 'href="/product/p-00002"' not in text
    visit.town.away.add("products")
    assert gone["name"] in (await visit.get("/orders/o-0001")).text


@on_a_visit
async def test_an_order_is_cancelled_or_it_is_said_that_it_is_not(visit):
    await visit.sign_in()
    await add(visit)
    cart = visit.town.cart(next(iter(visit.town.carts)))
    visit.town.ordered(cart, HOME, "paid")
    visit.town.answers["orders/api/orders/o-0001/cancel"] = (409, {"code": "shipped"})
    answer = await visit.post("/orders/o-0001/cancel")
    assert "could not be cancelled" in (await visit.get(answer.headers["location"])).text
    del visit.town.answers["orders/api/orders/o-0001/cancel"]
    answer = await visit.post("/orders/o-0001/cancel")
    assert "Cancelled" in (await visit.get(answer.headers["location"])).text
    assert (await visit.get("/orders/o-9999")).status_code == 404
    assert (await visit.get("/orders/a%20b")).status_code == 404


# -- the account ---------------------------------------------------------------------------------


@on_a_visit
async def test_the_profile_is_saved_and_fills_in_the_checkout(visit):
    await visit.sign_in()
    form = {"full_name": "Ada B", "phone": "call me", **HOME}
    answer = await visit.post("/account", **form)
    assert answer.status_code == 422
    assert "Digits, spaces" in answer.text
    answer = await visit.post("/account", **{**form, "phone": "+44 20 7946 0000"})
    assert answer.headers["location"] == "/account?saved=1"
    await add(visit)
    assert 'value="S 1"' in (await visit.get("/checkout")).text


@on_a_visit
async def test_a_person_takes_their_data_along(visit):
    await visit.sign_in()
    answer = await visit.get("/account/export")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.json()["users"]["email"] == "ada@shop.test"


@on_a_visit
async def test_erasing_wants_the_word_and_shows_how_far_it_is(visit):
    await visit.sign_in()
    assert (await visit.post("/account/erase", word="yes")).status_code == 422
    assert "DELETE /api/users/me" not in visit.town.paths("users")
    answer = await visit.post("/account/erase", word=" Erase ")
    assert answer.headers["location"] == "/account/erased?of=erasure-0001"
    assert set_cookies(answer)["shop_refresh"]["max-age"] == "0"
    page = await visit.get(answer.headers["location"])
    assert "Figures about you: waiting" in page.text
    assert "Your name on orders: erased" in page.text
    assert (await visit.get("/account/erased?of=../../x")).status_code == 200


@on_a_visit
async def test_only_an_admin_is_shown_the_way_to_operations(visit):
    await visit.sign_in()
    assert "/operations/" not in (await visit.get("/")).text
    await visit.post("/signout")
    await visit.sign_in("admin@shop.test")
    assert "/operations/" in (await visit.get("/")).text


@on_a_visit
async def test_a_page_that_stays_open_renews_the_session_before_it_ends(visit):
    assert (await visit.post("/session/renew")).status_code == 401  # there is none
    await visit.sign_in()
    before = visit.client.cookies["shop_refresh"]
    answer = await visit.post("/session/renew")
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    assert set(set_cookies(answer)) >= {"shop_session", "shop_refresh"}
    assert visit.client.cookies["shop_refresh"] != before
    visit.town.away = {"users"}
    assert (await visit.post("/session/renew")).status_code == 503
    assert visit.client.cookies["shop_refresh"]  # nothing is lost by that
    visit.town.away = set()
    visit.town.refreshes.clear()
    over = await visit.post("/session/renew")
    assert over.status_code == 401
    assert set_cookies(over)["shop_refresh"]["max-age"] == "0"
