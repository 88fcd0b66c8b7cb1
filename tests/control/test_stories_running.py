"""What became of a request, asked of a gateway that runs: by the API and by the command."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.control.client import Refused
from tests.control.running import Gateway, wait_until
from tests.control.serving import Instance, Serving, Visitor
from tests.ports import free_port

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def orders() -> Iterator[Instance]:
    with Instance("orders") as instance:
        yield instance


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, orders: Instance) -> Iterator[Serving]:
    gateway = Serving(tmp_path_factory.mktemp("told"))
    gateway.write(
        history="off",
        access_log={"path": str(gateway.folder / "access.log")},
        services={
            "orders": {"instances": [orders.url], "breaker": {}, "retry": {"attempts": 2}},
            "gone": {"instances": [f"http://127.0.0.1:{free_port()}"]},
        },
        routes=[
            {"name": "orders", "match": {"path": "/orders"}, "to": "orders"},
            {"name": "gone", "match": {"path": "/gone"}, "to": "gone"},
            {
                "name": "few",
                "match": {"path": "/few"},
                "respond": 200,
                "limit": {"rate": "1/1h", "by": "route", "share": "worker"},
            },
        ],
        trusted_proxies=["127.0.0.0/8"],
    )
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def answered(gateway: Gateway, path: str, **headers: str) -> tuple[int, str]:
    """Status and the id that the answer carries."""
    url = f"http://127.0.0.1:{gateway.port}{path}"
    asked = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.headers["x-request-id"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["x-request-id"]


def told(gateway: Serving, id_: str) -> dict[str, Any]:
    """Once it is there: spans and lines come a moment later."""

    def ask() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = gateway.ask(f"/api/explain/{id_}")
        except Refused:
            return None
        return found if found["requests"] else None

    found: dict[str, Any] = wait_until(ask)
    return found


def test_a_request_that_no_instance_answered_is_told_by_the_id_of_its_answer(gateway):
    status, id_ = answered(gateway, "/gone?page=2")
    assert status == 502
    (one,) = told(gateway, id_)["requests"]
    assert (one["status"], one["route"], one["service"]) == (502, "gone", "gone")
    assert (one["path"], one["query"], one["client"]) == ("/gone", "page=2", "127.0.0.1")
    assert one["error"] == "upstream_connect"
    assert one["meaning"]["says"] == "no connection to the instance"
    assert one["kept"] == "error"
    assert "attempt 1" in [step["what"] for step in one["steps"]]
    said = gateway.command("explain", id_)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("GET 127.0.0.1/gone?page=2: 502 after ")
    assert "attempt 1" in said.stdout
    as_json = json.loads(gateway.command("explain", id_, "--format", "json").stdout)
    assert as_json["requests"] == [one]


def test_a_trace_is_told_with_what_services_logged_of_it_and_what_happened(gateway, orders):
    orders.status = 503
    try:
        status, _ = answered(gateway, "/orders/42", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    finally:
        orders.status = 200
    assert status == 503
    line = {"message": "no free\nconnection", "level": "error", "service": "orders"}
    gateway.admin.ask("POST", "/api/logs", json.dumps({**line, "trace_id": TRACE}).encode() + b"\n")
    found = wait_until(
        lambda: (
            (one := told(gateway, TRACE))
            and any("message" in x["line"] for x in one["lines"])
            and one
        )
    )
    (one,) = found["requests"]
    assert one["trace_id"] == TRACE
    assert [step["said"] for step in one["steps"] if step["what"].startswith("attempt")] == [
        f"{orders.url}, answered 503",
        f"{orders.url}, answered 503",
    ]
    assert "orders: no free connection" in found["text"]
    assert not found["is_of_before"]
    gateway.post("/api/reload")
    assert told(gateway, TRACE)["is_of_before"]


def test_requests_that_share_an_id_of_the_proxy_in_front_are_all_told(gateway):
    for _ in range(2):
        assert answered(gateway, "/gone", **{"x-request-id": "from-above.1/x:2"})[0] == 502
    found = wait_until(
        lambda: (one := told(gateway, "from-above.1%2Fx%3A2")) and len(one["requests"]) == 2 and one
    )
    assert {one["request_id"] for one in found["requests"]} == {"from-above.1/x:2"}
    assert len({one["trace_id"] for one in found["requests"]}) == 2
    assert (
        gateway.command("explain", "from-above.1/x:2").stdout.count("GET 127.0.0.1/gone: 502") == 2
    )


def test_of_one_that_is_not_kept_it_is_said_what_is(gateway, orders):
    status, id_ = answered(gateway, "/orders/1")
    assert status == 200
    for name in (id_, "f" * 32, "no-such", "x" * 200):
        with pytest.raises(Refused) as refused:
            gateway.ask(f"/api/explain/{name}")
        assert refused.value.status == 404
        assert "traces are kept of 1% of requests" in str(refused.value)
    said = gateway.command("explain", "no-such")
    assert said.returncode != 0
    assert "nothing is kept of such a request" in said.stderr


def test_a_line_alone_tells_it_where_no_trace_is_kept(gateway):
    gateway.write(
        history="off",
        tracing="off",
        access_log={"path": str(gateway.folder / "access.log")},
        logging={"store": {"access": "all"}},
        routes=[{"name": "few", "match": {"path": "/few"}, "respond": 200}],
    )
    gateway.post("/api/reload")
    visitor = Visitor(gateway)
    visitor.close()
    status, id_ = answered(gateway, "/few")
    assert status == 200
    (one,) = told(gateway, id_)["requests"]
    assert (one["status"], one["route"], one["steps"], one["kept"]) == (200, "few", [], "")
    assert gateway.command("explain", id_).stdout.startswith("GET 127.0.0.1/few: 200 after ")
