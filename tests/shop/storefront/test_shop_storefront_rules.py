from __future__ import annotations

from datetime import date
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.storefront import forms
from headgate_shop.storefront.asking import AWAY, Reply
from headgate_shop.storefront.baskets import basket_of
from headgate_shop.storefront.checkout import next_key, refusal_of
from headgate_shop.storefront.filters import Filters, filters_of
from headgate_shop.storefront.goods import (
    category_of,
    is_product_id,
    product_of,
    shelf_of,
    stock_of,
)
from headgate_shop.storefront.orders_view import order_of, orders_of
from headgate_shop.storefront.prices import cents_of, price

TODAY = date(2026, 6, 15)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["id", "name", "price", "items", "lines", "total", "product_id", "quantity", "trouble",
     "history", "status", "at", "address", "image", "rating", "currency", "number", "state",
     "available", "detail", "slug", "brands", "next"]
)  # fmt: skip
SHAPED = st.recursive(
    JSON, lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3)
)


@pytest.mark.parametrize(
    ("cents", "text"),
    [(0, "€0.00"), (5, "€0.05"), (199, "€1.99"), (129_900, "€1,299.00"), (-250, "\u2212€2.50")],
)
def test_a_price_reads_as_people_write_it(cents, text):
    assert str(price(cents)) == text


def test_a_currency_without_a_sign_is_named():
    assert str(price(100, "SEK")) == "SEK\N{NO-BREAK SPACE}1.00"


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("12", 1200), ("12.5", 1250), ("12,50", 1250), (" €7 ", 700), ("0.09", 9),
        ("", None), ("-3", None), ("1e9", None), ("12.345", None), ("٣", None), ("9" * 10, None),
        ("1.", 100), (".5", None), ("12.a", None),
    ],
)  # fmt: skip
def test_a_price_field_is_read(text, cents):
    assert cents_of(text) == cents


@pytest.mark.parametrize(
    "given_",
    [
        None, "", "https://evil.example/", "//evil.example", "/\\evil.example", "\\/evil.example",
        "/a//evil.example", "/\t/evil.example", "/ /x", "/\n", "javascript:alert(1)", "signin",
        "/signin", "/signin?next=/signin", "/signout", "/" + "a" * 600, "/caf\u00e9", "/\x7f",
        "/\x00", "http:/evil.example", "///",
    ],
)  # fmt: skip
def test_where_to_go_next_is_never_another_site(given_):
    assert forms.safe_next(given_) == "/"


@pytest.mark.parametrize(
    "given_", ["/", "/cart", "/orders/o-1?placed=1", "/search?q=a%20b", "/products?next=//x"]
)
def test_a_path_of_ours_is_gone_to(given_):
    assert forms.safe_next(given_) == given_


@given(st.text(max_size=60))
def test_whatever_is_given_the_next_page_is_on_this_host(text):
    found = urlsplit("http://shop.test" + forms.safe_next(text))
    assert found.netloc == "shop.test"
    assert not forms.safe_next(text).startswith("//")


def test_a_whole_address_has_no_faults():
    checked = forms.address_of(
        {"name": " Ada  Byron ", "street": "S 1", "postcode": "1", "city": "L", "country": "gb"}
    )
    assert checked.is_fine
    assert checked.values["name"] == "Ada Byron"
    assert checked.values["country"] == "GB"


def test_each_missing_line_of_an_address_is_told():
    assert set(forms.address_of({}).faults) == set(forms.ADDRESS)
    assert set(forms.address_of({"country": "XX", "name": "a" * 200}).faults) == set(forms.ADDRESS)


@pytest.mark.parametrize(
    ("number", "expiry", "cvc", "faults"),
    [
        ("4242 4242 4242 4242", "08/29", "123", set()),
        ("4242-4242-4242-4242", "8 / 2029", "1234", set()),
        ("4242424242424242", "06/26", "123", set()),
        ("4242424242424242", "05/26", "123", {"card_expiry"}),
        ("4242424242424241", "08/29", "123", {"card_number"}),
        ("", "", "", {"card_number", "card_expiry", "card_cvc"}),
        ("4242", "13/29", "12", {"card_number", "card_expiry", "card_cvc"}),
        ("\u0664" * 16, "08/29", "\u0661\u0662\u0663", {"card_number", "card_cvc"}),
        ("4242424242424242", "08/99", "12a", {"card_expiry", "card_cvc"}),
    ],
)
def test_a_card_is_judged_by_field(number, expiry, cvc, faults):
    form = {"card_number": number, "card_expiry": expiry, "card_cvc": cvc}
    assert set(forms.card_of(form, TODAY).faults) == faults


def test_a_profile_needs_no_address_but_no_half_one():
    assert forms.profile_of({"full_name": "Ada", "country": "GB"}).is_fine
    assert set(forms.profile_of({}).faults) == {"full_name"}
    assert "city" in forms.profile_of({"street": "S 1"}).faults
    assert "phone" in forms.profile_of({"phone": "call me"}).faults


def test_faults_of_a_service_come_to_the_fields_they_are_about():
    kit = {"errors": [{"where": "body.address.city", "message": "too long"}, "x", {"where": 3}]}
    plain = {"detail": [{"loc": ["body", "card", "number"], "msg": "too short"}]}
    assert forms.faults_of(kit, {"city": "city"}) == {"city": "Too long"}
    assert forms.faults_of(plain, {"number": "card_number"}) == {"card_number": "Too short"}
    strange: list[object] = [None, [], "x", {"errors": "x"}, {"detail": 3}]
    for nonsense in strange:
        assert forms.faults_of(nonsense, {"city": "city"}) == {}


@pytest.mark.parametrize(
    ("text", "quantity"), [("3", 3), ("", 1), ("-2", 1), ("1e3", 1), ("100000", 99), ("0", 0)]
)
def test_how_many_is_read(text, quantity):
    assert forms.quantity_of(text) == quantity


def test_filters_read_write_and_ask_the_same():
    asked = {"q": " blue  kettle ", "min": "30", "max": "10,50", "in_stock": "1", "sort": "-price"}
    filters = filters_of(asked, category="kitchen")
    assert filters.query == "blue kettle"
    assert filters.params() == {
        "category": "kitchen", "min_price": 1050, "max_price": 3000, "sort": "-price",
        "in_stock": "true", "limit": 24,
    }  # fmt: skip
    url = filters.url("/search")
    assert filters_of(dict(parse_qsl(urlsplit(url).query))) == filters
    assert [chip.text for chip in filters.chips("/search")] == [
        "From €10.50", "Up to €30.00", "In stock",
    ]  # fmt: skip
    assert all("cursor" not in chip.url for chip in filters.chips("/search"))


@pytest.mark.parametrize(
    "query",
    [
        {"category": "../admin"}, {"category": "<b>"}, {"sort": "drop"}, {"min": "x"},
        {"cursor": "a b"}, {"cursor": "x" * 600}, {"in_stock": "maybe"}, {"category": "\u0660"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_understood_is_left_out(query):
    assert filters_of(query) == Filters()


@given(st.dictionaries(st.sampled_from(["q", "brand", "min", "max", "sort", "cursor"]), st.text()))
def test_filters_take_whatever_an_address_holds(query):
    filters = filters_of(query)
    assert filters_of(dict(parse_qsl(urlsplit(filters.url("/search")).query))) == filters


@given(SHAPED)
def test_no_answer_of_a_service_is_too_strange_to_be_read(data):
    product_of(data)
    category_of(data)
    shelf_of(data)
    stock_of(data)
    basket_of(data)
    order_of(data)
    orders_of(data)
    forms.faults_of(data, {"name": "name"})
    refusal_of(Reply(409, data))


def test_a_product_shows_what_it_has():
    found = product_of({"id": "p-1", "name": " Kettle ", "price": 1999, "rating": 4.3})
    assert found is not None
    assert (found.name, str(found.price), found.rating, found.rating_text) == (
        "Kettle", "€19.99", 4.5, "4.3",
    )  # fmt: skip
    assert product_of({"id": "p-1", "name": ""}) is None
    assert product_of({"id": "../x", "name": "n"}) is None
    unpriced = product_of({"id": "p-1", "name": "n", "price": "12"})
    assert unpriced is not None
    assert unpriced.price is None


@pytest.mark.parametrize(
    "image", ["https://e.example/a.png", "//e.example/a", "a.png", '/a"b', 3, None, "/a\\b"]
)
def test_pictures_come_from_this_site_alone(image):
    found = product_of({"id": "p-1", "name": "n", "image": image})
    assert found is not None
    assert found.image == ""


@pytest.mark.parametrize("text", ["..", ".", "", "a/b", "a b", "x" * 81, "%2e", "\u00e9"])
def test_what_is_no_product_id_is_not_asked_for(text):
    assert not is_product_id(text)


@pytest.mark.parametrize(
    "data",
    [None, {}, {"state": "plenty"}, {"state": 3}, {"state": "unknown", "available": 3}],
    ids=["none", "empty", "word", "number", "unknown"],
)
def test_stock_that_is_not_said_is_unknown(data):
    assert stock_of(data).state == "unknown"
    assert stock_of(data).available is None


def test_trouble_stands_with_the_line_it_is_about():
    basket = basket_of(
        {
            "lines": [
                {"product_id": "p-1", "name": "Cup", "price": 500, "quantity": 2, "total": 1000}
            ],
            "total": 1000,
            "currency": "EUR",
            "trouble": [
                {"product_id": "p-1", "code": "short", "detail": "Only 1 left."},
                {"product_id": "p-9", "code": "gone", "detail": "It is gone."},
                {"product_id": None, "code": "prices_old", "detail": "Old prices."},
            ],
        }
    )
    assert basket.lines[0].trouble == "Only 1 left."
    assert set(basket.trouble) == {"Old prices.", "It is gone."}
    assert basket.count == 2


@pytest.mark.parametrize(
    ("reply", "keeps"),
    [
        (AWAY, True),
        (Reply(500), True),
        (Reply(503, {"code": "payment_away"}), True),
        (Reply(402, {"code": "payment_refused"}), False),
        (Reply(409, {"code": "out_of_stock"}), False),
        (Reply(422, {}), False),
    ],
    ids=["none", "500", "bank", "refused", "stock", "invalid"],
)
def test_the_key_stays_as_long_as_it_may_have_been_bought(reply, keeps):
    assert (next_key("k", reply) == "k") is keeps


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(402, {"code": "payment_refused", "reason": "no_money"}), "not enough money"),
        (Reply(402, {"code": "payment_refused"}), "refused this card"),
        (Reply(409, {"code": "price_changed"}), "Prices have changed"),
        (Reply(409, {"code": "cart_empty"}), "cart is empty"),
        (Reply(422, {"code": "key_reused"}), "sent before"),
        (Reply(409, {"code": "new", "detail": "The moon is full."}), "The moon is full."),
        (Reply(429), "a lot of attempts"),
        (AWAY, "not be bought twice"),
        (Reply(503, {"code": "payment_away"}), "bank does not answer"),
    ],
)
def test_every_refusal_is_said_in_words(reply, words):
    assert words in refusal_of(reply)[0]


def test_what_is_short_is_named():
    short = [{"name": "Cup", "available": 2}, {"product_id": "p-9", "available": 0}, 3, {}]
    _, goods = refusal_of(Reply(409, {"code": "out_of_stock", "short": short}))
    assert goods == ["Cup: only 2 left", "p-9: sold out"]
