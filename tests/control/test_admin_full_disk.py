"""The whole admin API while no file can grow: it answers, says so, and goes on once there is room.

Every process of a gateway that runs is given a limit of nothing for the size of files, as a quota
would: whatever would make a file longer fails, in all stores at once, without a disk to fill and
without being root. What stands on disk can be read and written over, as on a full disk.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from headgate.control.client import Refused
from tests.control.running import PATIENCE_S, wait_until
from tests.control.serving import Serving
from tests.control.test_admin_schemathesis import OPERATIONS, UNAVAILABLE

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FULL = UNAVAILABLE | {507}


def everybody(gateway: Serving) -> list[int]:
    """The supervisor and all below it."""
    found, todo = [], [gateway.pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        children = Path(f"/proc/{pid}/task/{pid}/children")
        todo += [int(child) for child in children.read_text().split()]
    return found


@contextmanager
def no_room(gateway: Serving) -> Iterator[None]:
    """Until it is left, no file of the gateway can grow."""
    pids = everybody(gateway)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    gateway = Serving(tmp_path_factory.mktemp("full"))
    gateway.write(
        "hello",
        admin={"bind": f"127.0.0.1:{gateway.admin_port}", "rate": "100000/1s"},
        access_log={"path": str(gateway.folder / "access.log")},
        services={"users": {"instances": ["http://127.0.0.1:1"], "breaker": {}}},
        routes=[
            {"name": "users", "match": {"path": "/users"}, "to": "users", "limit": "1000/1s"},
            {"name": "here", "match": {"path": "/here"}, "respond": 200},
        ],
    )
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def session(gateway: Serving) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["authorization"] = f"Bearer {gateway.state.token()}"
        yield session


def asked(session: requests.Session, base: str, operation: Any) -> list[str]:
    """One request that its description allows; what was wrong with the answer."""
    wrong: list[str] = []

    @seed(20260131)
    @settings(
        max_examples=1,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        answer = case.call(base_url=base, session=session, timeout=30)
        if answer.status_code >= 500 and answer.status_code not in FULL:
            wrong.append(f"{operation.label}: {answer.status_code} {answer.content[:300]!r}")
        elif answer.status_code >= 500 and json.loads(answer.content)["status"] < 500:
            wrong.append(f"{operation.label}: {answer.content[:300]!r}")

    ask()
    return wrong


def test_without_room_every_endpoint_answers_and_the_gateway_is_whole_again_after(gateway, session):
    base = f"http://127.0.0.1:{gateway.admin_port}"
    visitor = requests.Session()
    visitor.trust_env = False
    with visitor, no_room(gateway):
        wrong = [said for each in OPERATIONS for said in asked(session, base, each)]
        assert not wrong
        # What must be kept is refused and says so; nothing is promised that will be forgotten.
        with pytest.raises(Refused) as refused:
            gateway.admin.ask("POST", "/api/tokens", {"name": "full", "role": "viewer"})
        assert refused.value.status in {503, 507}
        health = wait_until(lambda: (said := gateway.health())["reasons"] and said)
        assert health["status"] == "degraded"
        assert visitor.get(f"http://127.0.0.1:{gateway.port}/here", timeout=30).status_code == 200
        assert len(gateway.worker_pids()) == 2
    made = wait_until(lambda: token_of(gateway), PATIENCE_S * 2)
    assert made
    wait_until(lambda: not of_the_disk(gateway), PATIENCE_S * 2)
    assert not [line for line in gateway.log if "Traceback" in line], gateway.said[-5000:]


def token_of(gateway: Serving) -> Any:
    try:
        return gateway.admin.ask("POST", "/api/tokens", {"name": "room", "role": "viewer"}).content
    except Refused as refused:
        assert refused.status in FULL
        return None


def of_the_disk(gateway: Serving) -> list[str]:
    """What worries it about its files."""
    words = ("written", "kept", "disk", "large", "I/O", "store")
    return [why for why in gateway.health()["reasons"] if any(word in why for word in words)]
