"""The audit log of a gateway of real processes, and canaries in all that it writes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from headgate.security.audit import Query, find, verify_folder
from tests.control.running import Gateway, wait_until
from tests.control.serving import Instance, serving

pytestmark = pytest.mark.integration

JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjYW5hcnkifQ.Y2FuYXJ5LWNhbmFyeS1zaWc"
KEY = "hg_canary3k9q2m_" + "caNAry3" * 7
CANARIES = {
    "jwt": JWT,
    "key": KEY,
    "card": "4111111111111111",
    "card-groups": "4111 1111 1111 1111",
    "email": "canary.ann@example.com",
    "iban": "DE89370400440532013000",
    "own": "BADGE-424242",
    "password": "canary-hunter2",
}


def entries(gateway: Gateway, action: str = "") -> list[dict[str, Any]]:
    folder = gateway.state.path / "audit"
    return find(folder, Query(action=action), limit=1000, newest_first=False).entries


def written(folder: Path) -> dict[str, str]:
    """Every file beneath, but the file of configuration and what holds keys on purpose."""
    return {
        str(path): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in {"headgate.yaml", "headgate.json", "admin-token", "key.pem"}
        and path.suffix not in {".pem", ".yaml"}
    }


def test_a_life_of_a_gateway_is_on_record(tmp_path):
    route = {"name": "all", "match": {"path": "/x"}, "respond": {"body": "x"}}
    with serving(tmp_path, routes=[route]) as gateway:
        gateway.reload(routes=[{**route, "respond": {"body": "y"}}])
        gateway.post("/api/bans", address="192.0.2.7", why="canary")
        os.kill(gateway.control_pid(), signal.SIGKILL)
        wait_until(lambda: gateway.control_pid() and len(entries(gateway, "control.started")) == 2)
        wait_until(lambda: gateway.ask("/api/audit/verify")["ok"])
        listed = gateway.ask("/api/audit?action=admin.*")["entries"]
        assert [each["target"] for each in listed] == ["/api/bans", "/api/reload"]
        assert listed[0]["actor"].startswith(f"uid:{os.getuid()}")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_end() == 0
    actions = [each["action"] for each in entries(gateway)]
    for action in ("control.started", "config.reloaded", "admin.post", "control.stopped"):
        assert action in actions
    assert actions[-1] == "audit.closed"
    (reloaded,) = entries(gateway, "config.reloaded")
    assert any("routes" in row["path"] for row in reloaded["detail"]["changes"])
    verdict = verify_folder(gateway.state.path / "audit")
    assert verdict.is_good and verdict.signed_to == verdict.last


def test_no_canary_is_in_anything_that_is_written(tmp_path):
    with Instance() as instance:
        log = tmp_path / "access.log"
        with serving(
            tmp_path,
            services={"users": {"instances": [instance.url]}},
            access_log={
                "path": str(log),
                "fields": [
                    "path",
                    "query",
                    "user_agent",
                    "referer",
                    "request.header.x-note",
                    "status",
                ],
            },
            redaction={
                "emails": "hash",
                "secret": "0123456789abcdef",
                "patterns": [{"pattern": "BADGE-[0-9]+", "name": "badge"}],
                "fields": ["badge_no"],
            },
        ) as gateway:
            for canary in CANARIES.values():
                send(gateway, canary)
            gateway.post("/api/bans", address="192.0.2.7", why=" ".join(CANARIES.values())[:190])
            wait_until(lambda: log.exists() and log.read_text().count("\n") >= len(CANARIES))
            health = gateway.health()
            assert health["status"] == "ok", health
    said = gateway.said
    files = written(tmp_path)
    assert any("audit" in name for name in files) and str(log) in files
    assert "[redacted:card]" in files[str(log)] and "[redacted:email:" in files[str(log)]
    for name, canary in CANARIES.items():
        assert canary not in said, name
        for path, text in files.items():
            for form in (canary, canary.replace(" ", "%20"), canary.replace("@", "%40")):
                assert form not in text, (name, path)


def send(gateway: Gateway, canary: str) -> None:
    """One request with the canary wherever a client can put it."""
    quoted = canary.replace(" ", "%20").replace("@", "%40")
    named = "password=" if canary == CANARIES["password"] else "q="
    basic = base64.b64encode(f"ann:{canary}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    path = "" if named == "password=" else f"/{quoted}"
    note = f"{named}{canary}"
    connection.request(
        "POST",
        f"/where{path}?{named}{quoted}",
        body=json.dumps({"password": canary}),
        headers={
            "authorization": f"Basic {basic}",
            "cookie": f"sid={canary}",
            "user-agent": f"agent {note}",
            "referer": f"https://ann:{quoted}@shop.example/?{named}{quoted}",
            "x-note": note,
        },
    )
    connection.getresponse().read()
    connection.close()


def test_what_workers_refuse_is_counted_by_address(tmp_path):
    auth = {
        "jwt": {
            "issuer": "https://id.example",
            "audience": "shop",
            "secret": "0123456789abcdef0123456789abcdef",
        }
    }
    route = {
        "name": "all",
        "match": {"path": "/x"},
        "auth": "jwt",
        "respond": {"body": "x"},
    }
    with serving(tmp_path, auth=auth, routes=[route]) as gateway:
        for _ in range(7):
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
            connection.request("GET", "/x", headers={"authorization": f"Bearer {JWT}"})
            assert connection.getresponse().status == 401
            connection.close()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_end() == 0
    found = entries(gateway, "security.bad_credentials")
    assert sum(each["detail"]["count"] for each in found) == 7
    assert {each["origin"] for each in found} == {"127.0.0.1"}
    assert JWT not in json.dumps(found)
