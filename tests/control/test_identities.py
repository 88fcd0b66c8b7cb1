"""Who asks, over several workers: revocations, explanations, the gateway's own key."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.control.running import wait_until
from tests.control.serving import Instance, Serving, Visitor, serving

pytestmark = pytest.mark.integration

SECRET = "a secret that is long enough for it"
ROUTES = [
    {
        "name": "accounts",
        "match": {"path": "/accounts/{id}"},
        "to": "users",
        "auth": "jwt",
        "allow": {"roles": ["clerk"], "params": {"id": "subject"}},
    },
    {"name": "open", "match": {"path": "/open/"}, "to": "users"},
]


def bearer(**claims: Any) -> str:
    return "Bearer " + jwt.encode({"exp": time.time() + 600, **claims}, SECRET, algorithm="HS256")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Serving]:
    with Instance() as instance:
        config = {
            "services": {"users": instance.url},
            "routes": ROUTES,
            "auth": {
                "jwt": {"secret": SECRET, "audience": "*"},
                "identity": {"token": {"audience": "users"}},
            },
        }
        with serving(tmp_path, **config) as made:
            yield made


def asks(visitor: Visitor, token: str) -> int:
    return visitor.status("/accounts/ann", authorization=token)


def test_what_is_revoked_holds_no_more_in_any_worker(gateway: Serving):
    visitors = list(gateway.visitors().values())
    old = bearer(sub="ann", roles=["clerk"], iat=time.time() - 10, jti="one")
    assert [asks(visitor, old) for visitor in visitors * 2] == [200] * 4
    gateway.post("/api/revocations", kind="sub", value="ann")
    wait_until(lambda: {asks(visitor, old) for visitor in visitors} == {401})
    (said,) = gateway.ask("/api/revocations")
    assert (said["kind"], said["value"]) == ("sub", "ann")
    # A worker that starts later knows it too.
    fresh = gateway.kill_worker(gateway.worker_pids()[0])
    assert asks(gateway.visitor_of(fresh), old) == 401


def test_a_revocation_that_makes_no_sense_is_refused(gateway: Serving):
    for order in ({"kind": "jti", "value": ""}, {"kind": "jti", "value": "a", "last": "soon"}):
        with pytest.raises(Exception, match=r"characters|duration"):
            gateway.post("/api/revocations", **order)


def test_explain_says_whether_a_token_may_and_why(gateway: Serving):
    def explained(token: str, *more: str) -> str:
        header = f"authorization: {token}"
        done = gateway.command(
            "explain", "GET", "http://x/accounts/ann", "headgate.yaml", "-H", header, *more
        )
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout
        return done.stdout

    good = bearer(sub="ann", roles=["clerk"])
    wrong = bearer(sub="bob", roles=["clerk", "guest"])
    for more in ((), ("--live",)):
        said = explained(good, *more)
        assert "the request is let in" in said
        assert "jwt says this is 'ann', roles clerk" in said
        said = explained(wrong, *more)
        assert "the request is not let in" in said
        assert "yes" in said
        assert "no " in said
        assert "refuses" in explained("Bearer x.y.z", *more)
    assert (
        "let in" not in gateway.command("explain", "GET", "http://x/open/", "headgate.yaml").stdout
    )


def test_methods_tell_what_they_know_without_their_secrets(gateway: Serving):
    said = gateway.ask("/api/auth")
    assert {name for worker in said.values() for name in worker} == {"jwt"}
    assert SECRET not in json.dumps(said)


def test_the_key_for_services_is_there_without_a_token(gateway: Serving):
    url = f"http://127.0.0.1:{gateway.admin_port}/api/identity/keys"
    with urllib.request.urlopen(url, timeout=10) as answer:
        (key,) = json.load(answer)["keys"]
    assert (key["kty"], key["alg"]) == ("OKP", "EdDSA")
    assert "d" not in key
    # The workers sign with the same one.
    visitor = next(iter(gateway.visitors().values()))
    assert asks(visitor, bearer(sub="ann", roles=["clerk"])) == 200


def test_open_routes_are_reported(gateway: Serving):
    def access(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headgate", "access", str(gateway.file), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = access()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "jwt" in shown.stdout
    assert "clerk" in shown.stdout
    only = access("--open", "--format", "json")
    assert only.returncode == 1
    assert [row["route"] for row in json.loads(only.stdout)] == ["where", "open"]
