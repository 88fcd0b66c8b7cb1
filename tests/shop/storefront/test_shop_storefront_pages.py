from __future__ import annotations

import re

import pytest

from tests.shop.storefront.visits import on_a_visit

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.mark.parametrize(
    "path",
    ["/", "/products", "/category/kitchen", "/search?q=bowl", "/product/p-00001"],
)
@on_a_visit
async def test_a_page_for_strangers_may_be_kept_and_sets_no_cookie(visit, path):
    answer = await visit.get(path)
    assert answer.status_code == 200
    assert "s-maxage" in answer.headers["cache-control"]
    assert answer.headers["cache-control"].startswith("public")
    assert answer.headers["vary"] == "Cookie"
    assert "products" in answer.headers["cache-tag"].replace(" ", "").split(",")
    assert "set-cookie" not in answer.headers
    again = await visit.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


@on_a_visit
async def test_a_product_page_is_tagged_with_all_that_it_shows(visit):
    answer = await visit.get("/product/p-00003")
    tags = answer.headers["cache-tag"].replace(" ", "").split(",")
    assert {"product:p-00003", "product:p-00001", "products"} <= set(tags)


@on_a_visit
async def test_pages_run_no_script_and_no_style_of_their_own(visit):
    await visit.sign_in()
    await visit.post("/cart/add", product_id="p-00001", quantity="1")
    for path in ("/", "/products", "/product/p-00001", "/cart", "/checkout", "/account", "/nope"):
        answer = await visit.get(path)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", answer.text)
        assert "https://" not in answer.text.replace("https://www.w3.org", "")


@on_a_visit
async def test_hostile_names_are_shown_and_not_run(visit):
    goods = visit.town.goods["p-00001"]
    goods |= {"name": EVIL, "brand": EVIL, "description": EVIL, "featured": True}
    await visit.post("/cart/add", product_id="p-00001", quantity="1")
    for path in (
        "/",
        "/products",
        "/product/p-00001",
        "/cart",
        f"/search?q={EVIL}",
        "/pieces/recent?ids=p-00001",
    ):
        text = (await visit.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        assert "&lt;script&gt;" in text, path


@on_a_visit
async def test_a_hostile_brand_or_sort_in_an_address_is_not_run(visit):
    answer = await visit.client.get("/products", params={"brand": EVIL, "min": EVIL, "sort": EVIL})
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


@on_a_visit
async def test_filters_sorting_and_pages_work_by_address_alone(visit):
    answer = await visit.get("/products?sort=price&max=60&in_stock=1")
    assert "Up to €60.00" in answer.text
    onward = re.search(r'href="(/products\?[^"]*cursor=[^"]*)"', answer.text)
    assert onward is not None
    second = await visit.get(onward[1].replace("&amp;", "&"))
    assert second.status_code == 200
    assert "Back to the beginning" in second.text
    first = set(re.findall(r'href="(/product/[^"]+)"', answer.text))
    assert first.isdisjoint(re.findall(r'href="(/product/[^"]+)"', second.text))


@on_a_visit
async def test_what_there_is_not_is_said_with_a_way_on(visit):
    assert (await visit.get("/product/p-99999")).status_code == 404
    assert (await visit.get("/category/nothing")).status_code == 404
    assert (await visit.get("/category/Not-A-Slug!")).status_code == 404
    found = await visit.get("/no/such/page")
    assert found.status_code == 404
    assert 'href="/products"' in found.text
    assert found.headers["cache-control"] == "private, no-store"
    empty = await visit.get("/search?q=zzzzzz")
    assert empty.status_code == 200
    assert "Nothing on this shelf" in empty.text


@on_a_visit
async def test_a_search_for_nothing_shows_all_goods(visit):
    answer = await visit.get("/search?q=%20&sort=price")
    assert (answer.status_code, answer.headers["location"]) == (303, "/products?sort=price")


@on_a_visit
async def test_a_word_that_is_not_known_is_given_with_what_may_be_meant(visit):
    said: dict[str, object] = {"items": [], "next": None, "total": 0, "meant": "kettle"}
    visit.town.answers["products/api/products/search/ketle"] = (200, said)
    answer = await visit.get("/search?q=ketle")
    assert 'href="/search?q=kettle"' in answer.text


# -- parts that are away -------------------------------------------------------------------------


@on_a_visit
async def test_without_recommendations_the_section_is_left_out(visit):
    assert "Often bought with it" in (await visit.get("/product/p-00001")).text
    visit.town.away.add("analytics")
    answer = await visit.get("/product/p-00001")
    assert answer.status_code == 200
    assert "Often bought with it" not in answer.text
    assert "Add to cart" in answer.text


@on_a_visit
async def test_stock_that_cannot_be_asked_is_called_so_and_the_page_is_kept_shortly(visit):
    visit.town.away.add("products/api/products/p-00001/stock")
    answer = await visit.get("/product/p-00001")
    assert answer.status_code == 200
    assert "Stock is being counted" in answer.text
    assert "Add to cart" in answer.text
    assert answer.headers["cache-control"] == "public, max-age=0, s-maxage=2"


@on_a_visit
async def test_what_is_sold_out_cannot_be_put_into_the_cart(visit):
    visit.town.goods["p-00001"]["available"] = 0
    text = (await visit.get("/product/p-00001")).text
    assert "Sold out" in text
    assert "Add to cart" not in text


@on_a_visit
async def test_while_products_is_away_pages_show_what_was_kept(visit):
    before = await visit.get("/product/p-00001")
    home = await visit.get("/")
    visit.town.away.update({"products", "analytics"})
    after = await visit.get("/product/p-00001")
    assert (before.status_code, after.status_code) == (200, 200)
    assert visit.town.goods["p-00001"]["name"] in after.text
    assert "Stock is being counted" in after.text
    assert "s-maxage=15" not in after.headers["cache-control"]
    again = await visit.get("/")
    assert again.status_code == 200
    assert again.text.count("card__name") == home.text.count("card__name")


@on_a_visit
async def test_while_products_is_away_and_nothing_is_kept_a_calm_page_says_what_works(visit):
    visit.town.away.add("products")
    for path in ("/", "/products", "/product/p-00002", "/search?q=x"):
        answer = await visit.get(path)
        assert answer.status_code == 503, path
        assert answer.headers["retry-after"] == "10"
        assert "The shelves are being set up again" in answer.text
        assert "What works:" in answer.text
        assert answer.headers["cache-control"] == "private, no-store"


@on_a_visit
async def test_an_edit_shows_at_once_where_nobody_tells_of_edits(visit):
    await visit.get("/product/p-00001")
    visit.town.goods["p-00001"] |= {"name": "Something New", "price": 12345}
    text = (await visit.get("/product/p-00001")).text
    assert "Something New" in text
    assert "123" in text


@on_a_visit
async def test_while_orders_is_away_browsing_goes_on_and_the_cart_says_so(visit):
    await visit.post("/cart/add", product_id="p-00001", quantity="1")
    visit.town.away.add("orders")
    home = await visit.get("/")
    assert home.status_code == 200
    answer = await visit.get("/cart")
    assert answer.status_code == 503
    assert "Your cart is safe, but out of reach" in answer.text
    added = await visit.post("/cart/add", product_id="p-00002", quantity="1")
    assert added.headers["location"] == "/product/p-00002?trouble=away"
    told = await visit.get(added.headers["location"])
    assert "Nothing was changed" in told.text


@on_a_visit
async def test_while_orders_is_away_order_pages_and_the_checkout_say_so(visit):
    await visit.sign_in()
    visit.town.away.add("orders")
    for path in ("/orders", "/orders/o-0001", "/checkout"):
        answer = await visit.get(path)
        assert answer.status_code == 503, path
        assert "out of reach" in answer.text


@on_a_visit
async def test_while_users_is_away_signing_in_says_so_and_the_account_shows_the_rest(visit):
    await visit.sign_in()
    visit.town.away.add("users")
    account = await visit.get("/account")
    assert account.status_code == 200
    assert "cannot be shown just now" in account.text
    assert (await visit.get("/account/export")).status_code == 503
    answer = await visit.post("/signin", email="ada@shop.test", password="x")
    assert answer.status_code == 503
    assert "Accounts do not answer" in answer.text


@on_a_visit
async def test_a_service_that_answers_nonsense_is_as_good_as_away(visit):
    for path in ("featured", "categories", "p-00001", "p-00001/stock"):
        visit.town.answers[f"products/api/products/{path}"] = (200, {"items": "?", "id": 3})
    visit.town.answers["products/api/products"] = (200, {"items": [None, 3, {"id": ""}]})
    assert (await visit.get("/product/p-00001")).status_code == 503
    assert (await visit.get("/")).status_code == 503
    assert (await visit.get("/products")).status_code == 200


@on_a_visit
async def test_our_own_mistakes_are_a_page_that_tells_nothing_of_us(visit):
    visit.client._transport.raise_app_exceptions = False
    shop = visit.app.state.shop

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of ours")

    object.__setattr__(shop.shelves, "featured", broken)
    answer = await visit.get("/")
    assert answer.status_code == 500
    assert "That was our mistake" in answer.text
    assert "secret" not in answer.text


# -- for scripts ---------------------------------------------------------------------------------


@on_a_visit
async def test_suggestions_are_few_and_none_when_products_is_away(visit):
    found = (await visit.get("/pieces/suggest?q=bowl")).json()["items"]
    assert 0 < len(found) <= 6
    assert set(found[0]) == {"name", "url", "image", "price"}
    assert (await visit.get("/pieces/suggest?q=b")).json() == {"items": []}
    visit.town.away.add("products")
    answer = await visit.get("/pieces/suggest?q=lamp")
    assert (answer.status_code, answer.json()) == (200, {"items": []})
    assert answer.headers["cache-control"] == "no-store"


@on_a_visit
async def test_recently_viewed_shows_what_is_still_for_sale(visit):
    ids = "p-00002,../x,p-99999,p-00004," + "y" * 2000
    answer = await visit.get(f"/pieces/recent?ids={ids}")
    assert re.findall(r'href="/product/([^"]+)"', answer.text) == ["p-00002", "p-00004"]
    assert (await visit.get("/pieces/recent")).text.strip() == ""


@on_a_visit
async def test_files_have_names_by_their_content_and_are_kept_for_a_year(visit):
    text = (await visit.get("/")).text
    names = set(re.findall(r'"(/static/[^"]+)"', text))
    assert len(names) == 4
    for name in names:
        answer = await visit.get(name)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        for other in re.findall(r'from "\./([^"]+)"', answer.text):
            assert (await visit.get(f"/static/{other}")).status_code == 200, other
    assert (await visit.get("/static/shop.css")).status_code == 404
    assert (await visit.get("/static/..%2fapp.py")).status_code == 404


@on_a_visit
async def test_vitals_are_taken_from_pages_that_are_known(visit):
    beacon = {"page": "/product/{id}", "figures": {"LCP": 900.0}}
    assert (await visit.client.post("/vitals/", json=beacon)).status_code == 204
    assert (await visit.client.post("/vitals/", content=b"x" * 5000)).status_code == 413


@on_a_visit
async def test_forms_of_an_unknown_kind_or_size_are_refused(visit):
    answer = await visit.client.post("/cart/add", json={"product_id": "p-00001"})
    assert answer.status_code == 415
    answer = await visit.client.post("/cart/add", data={"product_id": "x" * 40_000})
    assert answer.status_code == 413
    many = {f"a{number}": "1" for number in range(100)}
    assert (await visit.client.post("/cart/add", data=many)).status_code == 400
    bad = {"content-type": "application/x-www-form-urlencoded"}
    answer = await visit.client.post("/cart/add", content=b"\xff=\xfe", headers=bad)
    assert answer.status_code in (400, 404)
