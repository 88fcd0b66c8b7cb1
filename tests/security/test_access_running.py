"""Access rules at a running gateway."""

from __future__ import annotations

import base64
import hmac
import json

import pytest

from headgate.testing import EchoServer
from tests.gateway.conftest import start  # noqa: F401 - a fixture
from tests.gateway.rig import document, get, request

pytestmark = pytest.mark.integration


@pytest.fixture
def echo():
    with EchoServer() as server:
        yield server


def ask(gateway, data):
    head, body = gateway.ask(data)
    return head.status, body


def test_what_is_not_allowed_is_refused_with_a_reason(start, echo):  # noqa: F811
    allow = {"methods": ["GET"], "addresses": ["127.0.0.0/8"]}
    gateway = start(document(echo.url, route={"allow": allow}))
    assert ask(gateway, get())[0] == 200
    status, body = ask(gateway, request("DELETE", "/"))
    assert (status, json.loads(body)["detail"]) == (403, "this method is not open to you")


def test_an_address_outside_is_refused(start, echo):  # noqa: F811
    gateway = start(document(echo.url, route={"allow": {"addresses": "203.0.113.0/24"}}))
    status, body = ask(gateway, get())
    assert (status, json.loads(body)["detail"]) == (403, "not open to your address")


def test_a_route_opens_what_is_closed_further_out(start, echo):  # noqa: F811
    routes = [
        {"match": {"path": "/open"}, "to": "upstream", "allow": "anybody"},
        {"match": {"path": "/"}, "to": "upstream"},
    ]
    gateway = start(document(echo.url, routes=routes, allow="nobody"))
    assert ask(gateway, get("/open"))[0] == 200
    assert ask(gateway, get("/else"))[0] == 403


def test_a_verdict_on_one_head_is_not_that_of_another(start, echo):  # noqa: F811
    allow = [{"methods": "GET", "none": "banned"}, {"methods": "PUT"}]
    gateway = start(document(echo.url, route={"allow": allow}))
    with gateway.client() as client:
        for _ in range(3):
            for method, expected in (("GET", 200), ("PUT", 200), ("DELETE", 403)):
                client.send(request(method, "/"))
                head, _ = client.answer()
                assert head.status == expected


# -- with tokens ---------------------------------------------------------------------------------

SECRET = "0123456789abcdef0123456789abcdef"
AUTH = {"jwt": {"issuer": "https://id.example", "audience": "shop", "secret": SECRET}}


def token(subject, **claims):
    """Signed by hand: a header, claims and an HMAC (RFC 7515)."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    known = {"iss": "https://id.example", "aud": "shop", "exp": 4_000_000_000, "sub": subject}
    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = b".".join((head, part(json.dumps(known | claims).encode())))
    mac = hmac.new(SECRET.encode(), signed, "sha256").digest()
    return b".".join((signed, part(mac))).decode()


def with_token(path, *who, method="GET", **claims):
    lines = [f"Authorization: Bearer {token(*who, **claims)}"] if who else []
    return request(method, path, *lines)


ROUTES = [
    {
        "match": {"path": "/users/{id}"},
        "to": "upstream",
        "auth": "jwt",
        "allow": [{"params": {"id": "subject"}}, "admin"],
    },
    {
        "match": {"path": "/reports/{tenant}"},
        "to": "upstream",
        "auth": "jwt",
        "allow": {"scopes": "reports", "params": {"tenant": "claim:tenant"}, "none": "suspended"},
    },
]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (with_token("/users/ann", "ann"), 200),
        (with_token("/users/bob", "ann"), 403),
        (with_token("/users/%61nn", "ann"), 200),
        (with_token("/users/ann%2Fbob", "ann"), 403),
        (with_token("/users/ann/../bob", "ann"), 403),
        (with_token("/users/ANN", "ann"), 403),
        (with_token("/users/bob", "root", roles=["admin"]), 200),
        (with_token("/users/bob", "root", roles="adminx admi"), 403),
        (with_token("/users/ann"), 401),
        (with_token("/reports/acme", "ann", scope="read reports", tenant="acme"), 200),
        (with_token("/reports/acme", "ann", scope="read reports", tenant=["acme", "x"]), 200),
        (with_token("/reports/other", "ann", scope="reports", tenant="acme"), 403),
        (with_token("/reports/acme", "ann", scope="read", tenant="acme"), 403),
        (with_token("/reports/acme", "ann", scope="reports"), 403),
        (
            with_token("/reports/acme", "b", scope="reports", tenant="acme", roles=["suspended"]),
            403,
        ),
    ],
    ids=range(15),
)
def test_a_token_may_do_what_its_claims_allow(start, echo, asked, status):  # noqa: F811
    gateway = start(document(echo.url, routes=ROUTES, auth=AUTH))
    with gateway.client() as client:
        for _ in range(2):  # the second comes from what was kept with the head
            client.send(asked)
            head, _ = client.answer()
            assert head.status == status


def test_a_verdict_of_one_token_is_not_that_of_another(start, echo):  # noqa: F811
    gateway = start(document(echo.url, routes=ROUTES, auth=AUTH))
    with gateway.client() as client:
        for _ in range(3):
            for who, status in (("ann", 200), ("bob", 403)):
                client.send(with_token("/users/ann", who))
                head, _ = client.answer()
                assert head.status == status
