"""The security overview: its pieces are one good file, and the example keeps what it promises."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from headgate.config import from_document, load
from headgate.testing import EchoServer
from tests.gateway.conftest import start  # noqa: F401 - a fixture
from tests.gateway.rig import get, request
from tests.security.test_access_running import SECRET, token

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "security.md"
EXAMPLE = ROOT / "examples" / "security.yaml"


def test_the_pieces_of_the_page_make_one_file():
    whole: dict = {"listeners": [{"bind": "127.0.0.1:8080"}]}
    pieces = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(pieces) > 4
    for piece in pieces:
        said = yaml.safe_load(piece)
        assert not whole.keys() & said.keys()
        whole |= said
    # The description is read when filters are built, not here.
    from_document(whole)


# -- the example ---------------------------------------------------------------------------------

ORDER = {"items": [{"product": "tea", "count": 2}]}


@pytest.fixture
def gateway(start, tmp_path):  # noqa: F811
    """The example, with a secret in place of an issuer and an echo in place of the shop."""
    document = copy.deepcopy(load(EXAMPLE, {}).document)
    document["listeners"] = [{"bind": "127.0.0.1:0"}]
    document["admin"] = {"bind": "off"}
    document["access_log"] = {"format": "off"}
    document["state_dir"] = str(tmp_path)
    jwt = document["auth"]["jwt"]
    del jwt["keys"]
    jwt |= {"issuer": "https://id.example", "secret": SECRET}
    document["auth"]["identity"] = {"token": False}
    with EchoServer() as echo:
        document["services"] = {"web": echo.url, "shop": echo.url}
        yield start(document)


def bearer(subject, *roles):
    return "authorization: Bearer " + token(subject, realm_access={"roles": roles})


def status(gateway, method, path, *fields, body=b""):
    return gateway.ask(request(method, path, *fields, body=body))[0].status


@pytest.mark.integration
def test_somebody_must_be_known(gateway):
    assert status(gateway, "GET", "/api/users/ann/orders") == 401
    assert status(gateway, "GET", "/api/users/ann/orders", bearer("ann")) == 200
    assert status(gateway, "GET", "/api/feed/") == 401
    assert status(gateway, "GET", "/api/products/7") == 200


@pytest.mark.integration
def test_each_has_their_own_orders_and_support_reads_all(gateway):
    assert status(gateway, "GET", "/api/users/bob/orders", bearer("ann")) == 403
    assert status(gateway, "GET", "/api/users/bob/orders", bearer("eve", "support")) == 200
    assert status(gateway, "DELETE", "/api/users/bob/orders", bearer("eve", "support")) == 403
    assert status(gateway, "GET", "/api/admin/", bearer("ann")) == 403


@pytest.mark.integration
def test_an_order_must_be_one(gateway):
    def ordered(order):
        fields = (bearer("ann"), "content-type: application/json")
        body = json.dumps(order).encode()
        return status(gateway, "POST", "/api/users/ann/orders", *fields, body=body)

    assert ordered(ORDER) == 200
    assert ordered({**ORDER, "discount": 100}) == 400
    assert ordered({"items": [{"product": "' or 1=1 --", "count": 1}]}) == 403


@pytest.mark.integration
def test_services_are_told_who_asks_and_nobody_else_says_it(gateway):
    _, body = gateway.ask(
        get("/api/users/ann/orders", bearer("ann", "customer"), "x-auth-subject: root")
    )
    headers = json.loads(body)["headers"]
    assert headers["x-auth-subject"] == "ann"
    assert headers["x-auth-roles"] == "customer"
    assert "authorization" not in headers


@pytest.mark.integration
def test_browsers_are_told_what_to_keep_to(gateway):
    head, _ = gateway.ask(get("/api/products/7", "origin: https://app.example"))
    assert head.get("access-control-allow-origin") == "https://app.example"
    assert head.get("x-content-type-options") == "nosniff"
    assert "frame-ancestors 'none'" in head.get("content-security-policy")
    head, _ = gateway.ask(get("/api/products/7", "origin: https://evil.example"))
    assert head.get("access-control-allow-origin") is None
