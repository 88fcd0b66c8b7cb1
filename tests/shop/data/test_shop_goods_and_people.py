from __future__ import annotations

import pytest

from headgate.security.accounts import PasswordRules
from headgate.security.accounts.passwords import weaknesses
from headgate_shop.data import DEMO, TINY
from headgate_shop.data.catalogue import CATEGORIES, catalogue, category_names
from headgate_shop.data.people import ACCOUNTS, customers
from headgate_shop.data.words import COLLECTIONS
from headgate_shop.products.shapes import NewProduct


def test_a_catalogue_is_the_same_each_time_and_a_short_one_its_beginning():
    assert catalogue(60) == catalogue(60) == catalogue(300)[:60]
    assert catalogue(60, seed=2) != catalogue(60)
    assert customers(20) == customers(80)[:20]
    assert customers(20, seed=2) != customers(20)


def test_products_are_different_and_in_every_category():
    items = catalogue(DEMO.products)
    assert len({item.name for item in items}) == len({item.id for item in items}) == DEMO.products
    assert {item.category for item in items} == set(category_names())
    assert len(CATEGORIES) == 12 and len(set(COLLECTIONS)) == len(COLLECTIONS)
    assert 0.01 < sum(item.stock == 0 for item in items) / len(items) < 0.06
    assert 0.8 < sum(item.popularity for item in items) / len(items) < 1.2
    assert 40 < sum(item.featured for item in items) < 200


def test_every_product_could_have_been_made_by_hand():
    for item in catalogue(TINY.products):
        draft = NewProduct(
            id=item.id,
            name=item.name,
            description=item.description,
            category=item.category,
            brand=item.brand,
            price=item.price,
            rating=item.rating,
            featured=item.featured,
            stock=item.stock,
        )
        assert draft.name == item.name and 300 < item.price < 200_000
        assert item.age_days > 0


def test_a_catalogue_that_has_run_out_of_names_numbers_them(monkeypatch):
    from headgate_shop.data import catalogue as module

    monkeypatch.setattr(module, "COLLECTIONS", ("Only",))
    monkeypatch.setattr(module, "NAMES_FREE", 100)
    items = module.catalogue(2000)
    assert len({item.name for item in items}) == 2000


@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda one: one.id)
def test_those_who_can_sign_in_have_a_password_that_is_taken(account):
    assert not weaknesses(account.password, PasswordRules(), [account.email])
    assert account.id.isalnum()


def test_customers_have_addresses_of_their_own():
    found = customers(DEMO.customers)
    assert len({one.email for one in found}) == DEMO.customers
    assert all(one.email.isascii() and "#" not in one.address.postcode for one in found)
    assert all(len(one.address.country) == 2 and one.weight > 0 for one in found)
