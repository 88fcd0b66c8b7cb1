"""The standards of traces and baggage against a gateway, over real sockets: HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json

import pytest

from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get, response
from tests.gateway.tracing_rig import ALL, NONE
from tests.observe.tracing.w3c_cases import CASES, wrong

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("more", [ALL, NONE], ids=["sampled", "not_sampled"])
def test_the_gateway_hands_on_what_the_standards_say(start, instance, more):
    gateway = start(document(instance, **more))
    found = {}
    with gateway.client() as client:
        upstream = None
        for case in CASES:
            client.send(get("/", *(f"{name}: {value}" for name, value in case.sends)))
            upstream = upstream or instance.accept()
            seen = upstream.head()
            upstream.send(response())
            assert client.answer()[0].status == 200, case.rule
            if said := list(wrong(case, seen.fields)):
                found[case.rule] = said
    assert not found


def test_the_gateway_does_so_for_http2_as_well(start, echo):
    gateway = start(document(echo.url, **ALL))
    client = Client(gateway.port())
    found = {}
    for case in CASES:
        # Fields of HTTP/2 have small names, and no blanks around their values (RFC 9113, 8.2.1).
        sends = [(n.lower().encode(), v.strip(" \t").encode()) for n, v in case.sends]
        stream = client.get("/echo", *sends)
        client.wait(stream)
        seen = [(str(n), str(v)) for n, v in json.loads(bytes(stream.body))["headers"].items()]
        if said := list(wrong(case, seen)):
            found[case.rule] = said
    client.close()
    assert not found
