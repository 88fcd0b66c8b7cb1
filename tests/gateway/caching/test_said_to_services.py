"""What services hear from the gateway is one list: no field of its own stands outside of it."""

from __future__ import annotations

import pytest

from headgate.policy.hops import ATTEMPT, DEADLINE, OWN_NAMES, SAID_TO_SERVICES
from tests.gateway.caching.rig import FRESH, cached, dated, serve
from tests.gateway.rig import get, response

pytestmark = pytest.mark.integration

OF_THE_CLIENT = {b"host", b"accept", b"x-of-the-client"}
ALL = {
    "forwarded": {"x_forwarded": True, "forwarded": True, "via": "headgate"},
    "timeout": {"total": "30s", "deadline": True},
    "retry": {"attempts": 3},
    "request_id": {"header": "x-my-id"},
    "explain_token": "a-token-that-is-long-enough",
}
ASKED = ("Accept: text/plain", "X-Of-The-Client: 1")
FROM_A_PROXY = (
    *ASKED,
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: other.example",
    "Forwarded: for=192.0.2.7",
    "Traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
    "Tracestate: a=1",
    "Via: 1.1 before",
    "X-Headgate-Deadline: 20000",
    "X-Headgate-Attempt: 1/3",
    "X-Headgate-No-Retry: 1",
    "X-Headgate-Explain: no",
)


def names_in(head: str) -> set[bytes]:
    _, *lines = head.partition("\r\n\r\n")[0].split("\r\n")
    return {line.partition(":")[0].lower().encode() for line in lines}


@pytest.mark.parametrize("is_trusted", [False, True], ids=["client", "proxy"])
@pytest.mark.parametrize("rules", [True, False], ids=["cached", "passed"])
@pytest.mark.parametrize("lines", [ASKED, FROM_A_PROXY], ids=["plain", "forwarded"])
def test_every_field_that_the_gateway_adds_is_on_the_list(
    start, instance, rules, lines, is_trusted
):
    more = {"trusted_proxies": ["127.0.0.0/8"]} if is_trusted else {}
    gateway = start({**cached(instance, rules=rules), **ALL, **more})
    client = gateway.client()
    client.send(get("/", *lines))
    found = names_in(serve(instance, response(b"ok", FRESH, dated())))
    assert client.answer()[1] == b"ok"
    added = found - OF_THE_CLIENT - {b"x-my-id"}
    assert added <= SAID_TO_SERVICES
    assert {b"via", b"forwarded", b"x-forwarded-for", b"traceparent"} <= added
    assert added & OWN_NAMES == {ATTEMPT, DEADLINE}


@pytest.mark.parametrize(
    "name", [DEADLINE.decode(), ATTEMPT.decode(), "x-my-id", "X-Forwarded-For"]
)
def test_what_varies_by_what_the_gateway_says_is_for_one_alone(start, instance, name):
    gateway = start({**cached(instance), **ALL})
    client = gateway.client()
    for body in (b"one", b"two"):
        client.send(get("/"))
        serve(instance, response(body, FRESH, f"Vary: {name}", dated()))
        assert client.answer()[1] == body
