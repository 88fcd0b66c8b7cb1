"""The gateway holds requests against the documents of the services: here as it does it."""

from __future__ import annotations

import json

import pytest

from headgate.security.validation import Found, ValidationRules, describe
from headgate.testing import FakeMesh
from headgate_shop.base.settings import Settings
from headgate_shop.products.app import app as products
from headgate_shop.users.app import app as users

GOOD = {"name": "A", "description": "B", "category": "kitchen", "brand": "C", "price": 100}
JOIN = {"email": "a@b.test", "password": "forty quiet lanterns"}
ADDRESS = {"street": "Weg 1", "city": "Ulm", "postcode": "89073", "country": "DE"}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    made = {}
    for name, app in (("products", products), ("users", users)):
        document = app(Settings(name, folder / name), mesh=FakeMesh()).openapi()
        (folder / f"{name}.json").write_text(json.dumps(document))
        made[name] = describe(ValidationRules(openapi=str(folder / f"{name}.json")))
    return made


def is_taken(description, method, path, body=None, kind="application/json"):
    place, _, query = path.partition("?")
    found = description.find(method, place)
    if not isinstance(found, Found):
        return False
    operation = found.operation
    operation.compile()
    if found.path_faults or operation.head_faults(query, []):
        return False
    if body is None:
        return True
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if operation.body_announced([kind], "", is_there=True) is not None:
        return False
    return operation.body_refusal(kind, content) is None


@pytest.mark.parametrize(
    ("method", "path", "body", "taken"),
    [
        ("GET", "/api/products?limit=24&sort=-price&category=bed-linen", None, True),
        ("GET", "/api/products?limit=0", None, False),
        ("GET", "/api/products?limit=many", None, False),
        ("GET", "/api/products?sort=cheap", None, False),
        ("GET", "/api/products?category=A%26B", None, False),
        ("GET", "/api/v2/products/search/walnut%20board?in_stock=true", None, True),
        ("GET", "/api/v2/products/search/walnut?in_stock=perhaps", None, False),
        ("GET", "/api/products/p-00001", None, True),
        ("GET", "/api/products/%2e%2e", None, False),
        ("GET", "/images/art-lamp-0123456789abcdef.svg", None, True),
        ("GET", "/images/..%2fproducts.db", None, False),
        ("POST", "/api/admin/products", GOOD, True),
        ("POST", "/api/admin/products", {**GOOD, "stock": 2, "id": "mine-1"}, True),
        ("POST", "/api/admin/products", {**GOOD, "price": -1}, False),
        ("POST", "/api/admin/products", {**GOOD, "price": "1"}, False),
        ("POST", "/api/admin/products", {**GOOD, "admin": True}, False),
        ("POST", "/api/admin/products", {"name": "A"}, False),
        ("PATCH", "/api/admin/products/p-1", {"price": 5, "rating": None}, True),
        ("PATCH", "/api/admin/products/p-1", {"id": "p-2"}, False),
        ("POST", "/api/admin/products/p-1/stock", {"set": 4}, True),
        ("POST", "/api/admin/products/p-1/stock", {"set": 10**7}, False),
    ],
)
def test_products_are_described_so_that_the_gateway_can_refuse(
    described, method, path, body, taken
):
    assert is_taken(described["products"], method, path, body) is taken


@pytest.mark.parametrize(
    ("method", "path", "body", "taken"),
    [
        ("POST", "/api/auth/register", JOIN, True),
        ("POST", "/api/auth/register", {**JOIN, "name": "Ada"}, True),
        ("POST", "/api/auth/register", {**JOIN, "role": "admin"}, False),
        ("POST", "/api/auth/register", {**JOIN, "email": 7}, False),
        ("POST", "/api/auth/verify-email", {"token": "x" * 513}, False),
        ("POST", "/api/auth/login", {**JOIN, "totp": "123456"}, True),
        ("PUT", "/api/users/profile", {"name": "Ada", "address": ADDRESS}, True),
        ("PUT", "/api/users/profile", {"name": "Ada", "address": {"country": "Mars"}}, False),
        ("PUT", "/api/users/profile", {"name": "Ada", "id": "other"}, False),
        ("GET", "/api/users/erasures/erasure-0123456789abcdef0123456789abcdef", None, True),
        ("GET", "/api/users/erasures/1", None, False),
        ("GET", "/api/admin/users?limit=50&role=admin", None, True),
        ("GET", "/api/admin/users?limit=5000", None, False),
        ("PUT", "/api/admin/users/a00001/roles", {"roles": ["admin"]}, True),
        ("PUT", "/api/admin/users/a00001/roles", {"roles": ["Not A Role"]}, False),
    ],
)
def test_users_are_described_so_that_the_gateway_can_refuse(described, method, path, body, taken):
    assert is_taken(described["users"], method, path, body) is taken


def test_files_are_described_by_their_types(described):
    where = "/api/admin/products"
    for path, kind, taken in (
        (f"{where}/import", "text/csv", True),
        (f"{where}/import", "application/x-ndjson", True),
        (f"{where}/import", "application/json", False),
        (f"{where}/p-1/image", "image/png", True),
        (f"{where}/p-1/image", "image/svg+xml", False),
    ):
        assert is_taken(described["products"], "POST", path, b"x", kind) is taken, (path, kind)


def test_the_old_version_is_marked_and_the_new_one_is_not(described, tmp_path):
    document = products(Settings("products", tmp_path), mesh=FakeMesh()).openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            is_old = path.startswith("/api/products")
            assert operation.get("deprecated", False) is is_old, path
    names = [one["operationId"] for each in document["paths"].values() for one in each.values()]
    assert len(names) == len(set(names))
