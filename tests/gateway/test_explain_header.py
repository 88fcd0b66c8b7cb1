"""`explain_token`: what became of a live request, told to whoever knows the token."""

from __future__ import annotations

import pytest

from tests.gateway.rig import document, get, response

TOKEN = "let-me-see-0123456789"
NAME = "x-headgate-explain"

pytestmark = pytest.mark.integration


def ask(gateway, instance, said: str):
    """Send a request that asks with `said`; the heads as the service and the client saw them."""
    with gateway.client() as client:
        client.send(get("/", f"{NAME}: {said}"))
        upstream = instance.accept()
        seen = upstream.head()
        upstream.send(response())
        return seen, client.answer()[0]


def test_the_operator_is_told_route_instance_and_policies(start, instance):
    seen, head = ask(start(document(instance, explain_token=TOKEN)), instance, TOKEN)
    assert NAME not in seen
    told = head.get(NAME)
    assert told.startswith("route=")
    assert "attempts=1" in told
    assert "timeout:default" in told


def test_a_wrong_token_is_told_nothing(start, instance):
    seen, head = ask(start(document(instance, explain_token=TOKEN)), instance, "guess")
    assert NAME not in seen
    assert NAME not in head


def test_without_a_token_in_the_file_nobody_is_told(start, instance):
    seen, head = ask(start(document(instance)), instance, "")
    assert NAME not in seen
    assert NAME not in head


def test_an_answer_of_our_own_is_explained_too(start):
    gateway = start(document("http://127.0.0.1:1", explain_token=TOKEN))
    head, _ = gateway.ask(get("/", f"{NAME}: {TOKEN}"))
    assert head.status == 502
    assert 'error="upstream_connect"' in head.get(NAME)
