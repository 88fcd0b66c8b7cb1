"""What a sidecar's worker goes by, made of a gateway's document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.config import from_document
from headgate.errors import HeadgateError
from headgate.mesh.sidecar.document import Beside, document, inner_name, portion
from headgate.plan.build import build, explain

SOURCE: dict[str, Any] = {
    "listeners": ["0.0.0.0:8080"],
    "timeout": "3s",
    "auth": {"jwt": {"issuer": "https://x.example", "secret": "hunter22top"}},
    "mesh": {
        "trust_domain": "shop.example",
        "identity": {"root": {"passphrase": "hunter22top hunter22top"}},
        "access": {"rules": [{"from": "orders", "to": "users"}]},
    },
    "state": "redis://:hunter22top@127.0.0.1/0",
    "services": {
        "users": {
            "discover": "registry",
            "retry": {"attempts": 3},
            "auth": "jwt",
            "cache": {"ttl": "60s"},
            "headers": {"request": {"set": {"authorization": "hunter22top"}}},
            "tls": {"ca_file": "/etc/hunter22top.pem"},
        },
        "orders": {"discover": "registry", "timeout": "5s", "concurrency": {"limit": 10}},
        "pay": ["http://127.0.0.1:9000"],
    },
    "routes": [{"match": {"path": "/"}, "to": "users"}],
}
ORDERS = Beside("orders", "http://127.0.0.1:3004", state_dir="/tmp/none")


def made(beside: Beside = ORDERS, source=SOURCE):
    return document(portion(source, is_remote=True), beside)


def test_nothing_secret_and_nothing_of_the_gateways_clients_is_handed_out():
    text = json.dumps(portion(SOURCE, is_remote=True))
    assert "hunter22" not in text
    for word in ("auth", "cache", "headers", "listeners", "routes", "passphrase"):
        assert f'"{word}"' not in text


def test_names_of_files_stay_where_they_mean_something():
    assert "tls" not in portion(SOURCE, is_remote=True)["services"]["users"]
    assert portion(SOURCE)["services"]["users"]["tls"] == {"ca_file": "/etc/hunter22top.pem"}


def test_what_is_made_is_good_and_made_again_is_the_same():
    said = made()
    config = from_document(said)
    assert [listener.name for listener in config.listeners] == ["outbound", "inbound"]
    assert made() == said


@pytest.mark.parametrize(
    ("listener", "url", "service", "route"),
    [
        ("outbound", "http://users/x", "service users", "outbound users"),
        ("outbound", "http://users:80/x", "service users", "outbound users"),
        ("outbound", "http://users.shop.example/x", "service users", "outbound users"),
        ("outbound", "http://users/pay/x", "service users", "outbound users"),
        ("outbound", "http://localhost/pay/x", "service pay", "outbound /pay/"),
        ("outbound", "http://orders/x", "service orders.mesh", "outbound orders"),
        ("inbound", "http://anything/pay/x", "service orders", "inbound orders"),
    ],
)
def test_a_call_goes_by_host_then_by_path_and_what_comes_in_to_the_process(
    listener, url, service, route
):
    plan = build(from_document(made()))
    found = explain(plan, "GET", url, [], "127.0.0.1", listener)
    assert (found.target, found.route) == (service, route)


def test_an_unknown_name_goes_nowhere():
    plan = build(from_document(made()))
    found = explain(plan, "GET", "http://example.org/x", [], "127.0.0.1", "outbound")
    assert found.route is None or not found.target


def test_policies_of_a_call_hold_outside_and_those_of_the_process_inside():
    services = made()["services"]
    assert services["users"]["retry"] == {"attempts": 3}
    assert services["orders"]["concurrency"] == {"limit": 10}
    assert services["orders"]["breaker"] is False
    assert "concurrency" not in services["orders.mesh"]
    assert services["orders.mesh"]["timeout"] == "5s"


@pytest.mark.parametrize(
    ("mtls", "mode", "clients", "plain"),
    [
        ("auto", "strict", "require", False),
        ("auto", "permissive", "ask", True),
        ("permissive", "strict", "ask", True),
        ("strict", "permissive", "require", False),
    ],
)
def test_who_may_connect_follows_the_rules_unless_said(mtls, mode, clients, plain):
    access = {**SOURCE["mesh"]["access"], "mode": mode}
    source = {**SOURCE, "mesh": {"access": access}}
    inbound = made(Beside("orders", "http://127.0.0.1:1", mtls=mtls), source)["listeners"][1]
    assert inbound["tls"] == {
        "certificate": "mesh",
        "client_certificate": clients,
        "plain": plain,
    }


def test_strict_rules_without_an_identity_are_refused_and_permissive_ones_are_not():
    alone = Beside("orders", "http://127.0.0.1:1", mtls="off")
    with pytest.raises(HeadgateError, match="without an identity nobody is known"):
        made(alone)
    access = {**SOURCE["mesh"]["access"], "mode": "permissive"}
    said = made(alone, {**SOURCE, "mesh": {"access": access}})
    assert "tls" not in said["listeners"][1]
    from_document(said)
    assert from_document(made(Beside("orders", "", mtls="off", inbound="")))  # it only calls


def test_a_process_that_only_calls_and_one_that_only_is_called():
    assert [one["name"] for one in made(Beside("cron"))["listeners"]] == ["outbound"]
    inward = made(Beside("orders", "unix:/run/o.sock", outbound=""))
    assert [one["name"] for one in inward["listeners"]] == ["inbound"]
    from_document(inward)


def test_the_name_of_all_our_instances_is_nobody_elses():
    assert inner_name("orders", {"orders": {}, "orders.mesh": {}}) == "orders.mesh_"
