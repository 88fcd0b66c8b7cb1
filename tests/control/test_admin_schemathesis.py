"""Every operation of the admin API, asked with what its own description allows and what it does
not: no answer is a server error, and each is what the description says.

What ends the gateway is left out, and so are live views, which do not end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from headgate.control.admin.reference import openapi
from tests.control.running import Gateway
from tests.control.serving import Serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = 5
ENDING = {"/api/drain", "/api/upgrade"}
SLOW = {"/api/reload"}
AS_PROMETHEUS = ("/api/query", "/api/series", "/api/labels", "/api/label/")
"""Answers in the form of Prometheus, for dashboards that know no other."""
UNAVAILABLE = {502, 503, 504, 507}
"""What may be away, and then has to say so: an answer that a test may meet, and no fault."""


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(openapi()))
    for path in list(found["paths"]):
        operations = found["paths"][path]
        for method in list(operations):
            if path in ENDING or "text/event-stream" in json.dumps(operations[method]):
                del operations[method]
        if not operations:
            del found["paths"][path]
    return found


SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS: list[Any] = [result.ok() for result in SCHEMA.get_all_operations()]  # type: ignore[union-attr]  # an error here fails the module, as it should


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Serving(tmp_path_factory.mktemp("fuzzed"))
    gateway.write(
        "hello",
        admin={"bind": f"127.0.0.1:{gateway.admin_port}", "rate": "100000/1s"},
        services={"users": {"instances": ["http://127.0.0.1:1"], "breaker": {}}},
        routes=[{"name": "users", "match": {"path": "/users"}, "to": "users", "limit": "5/1s"}],
    )
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def session(gateway: Gateway) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # it would look for proxies and a netrc before each request
        session.headers["authorization"] = f"Bearer {gateway.state.token()}"
        yield session


def parts_of(operation: Any) -> tuple[Any, ...]:
    return (
        operation.path_parameters,
        operation.query,
        operation.headers,
        operation.cookies,
        operation.body,
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label.replace(" ", "-"))
def test_no_request_makes_a_server_error(gateway, session, operation):
    url = f"http://127.0.0.1:{gateway.admin_port}"
    strategy = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    has_choice = any(len(part) for part in parts_of(operation))
    if has_choice:  # or else there is nothing to get wrong
        strategy |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    count = EXAMPLES if has_choice and operation.path not in SLOW else 1

    @seed(20260131)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def asked(case: Any) -> None:
        answer = case.call(base_url=url, session=session, timeout=30)
        said = answer.content[:500]
        assert answer.status_code < 500 or answer.status_code in UNAVAILABLE, said
        if answer.status_code >= 400 and case.method != "HEAD":
            kinds = answer.headers.get("content-type", ["?"])
            if operation.path.startswith(AS_PROMETHEUS):
                assert json.loads(answer.content)["status"] == "error" or "problem" in str(kinds)
                return
            assert "application/problem+json" in str(kinds), (answer.status_code, kinds, said)
            assert json.loads(answer.content)["status"] == answer.status_code

    asked()


def test_the_gateway_still_serves_after_all_that(gateway):
    assert gateway.health()["status"] in {"ok", "degraded"}
    assert len(gateway.worker_pids()) == 2
    said = [line for line in gateway.log if "Traceback" in line]
    assert not said, gateway.said[-5000:]
