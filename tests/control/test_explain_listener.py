"""`headgate explain` and the admin API, asked about one of several listeners."""

from __future__ import annotations

import pytest

from tests.control.running import Gateway
from tests.ports import free_port

pytestmark = pytest.mark.integration


def test_explain_is_told_the_listener(gateway: Gateway):
    inner = {"bind": f"127.0.0.1:{free_port()}", "name": "inner"}
    routes = [
        {"name": "inside", "match": {"listener": "inner"}, "respond": {"body": "in"}},
        {"name": "outside", "respond": {"body": "out"}},
    ]
    gateway.write(
        listeners=[{"bind": f"127.0.0.1:{gateway.port}", "name": "outer"}, inner], routes=routes
    )
    assert gateway.command("reload").returncode == 0
    for listener, route in (("", "outside"), ("outer", "outside"), ("inner", "inside")):
        asked = {"url": "http://x/", "listener": listener}
        assert gateway.admin.ask("POST", "/api/explain", asked).content["route"] == route
        query = f"/api/explain?url=/&listener={listener}"
        assert gateway.admin.ask("GET", query).content["route"] == route
        words = ["--listener", listener] if listener else []
        for more in ([], ["--live"]):
            command = ["explain", "GET", "http://x/", "headgate.yaml", *more, *words]
            assert f"-> {route}" in gateway.command(*command).stdout
    refused = gateway.command("explain", "GET", "/", "headgate.yaml", "--listener", "iner")
    assert refused.returncode == 1
    assert 'no listener is named "iner"; did you mean "inner"?' in refused.stderr
