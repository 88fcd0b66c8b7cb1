"""Every endpoint there is, asked by every role: a table over the routes themselves, so that one that
is added later is in it from its first day.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import pytest
from starlette.routing import Route

from headgate.control.admin.app import make_api
from headgate.control.admin.guard import OPEN_PATHS, Guard
from headgate.control.admin.roles import EXCEPTIONS, Role
from headgate.control.admin.tokens import Caller
from headgate.control.control import Control

OPEN: Final = OPEN_PATHS
READS: Final = {
    ("POST", "/api/explain"),
    ("POST", "/api/query"),
    ("POST", "/api/query_range"),
    ("POST", "/api/series"),
    ("POST", "/api/labels"),
}
"""These are asked by POST for their size alone. The list stands here a second time on purpose: an
order that is added to `roles.py` as an exception has to be added here, too, by somebody who thinks.
"""
REPORTS: Final = {
    ("POST", "/v1/traces"),
    ("POST", "/v1/logs"),
    ("POST", "/v1/metrics"),
    ("POST", "/api/logs"),
    ("POST", "/api/markers"),
}
PURGING: Final = {("POST", "/api/cache/purge"), ("GET", "/api/cache/news")}
METHODS: Final = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
FOR_OPERATORS: Final = ("/api/audit",)
FOR_ADMINS: Final = ("/api/tokens", "/api/mesh/tokens", "/api/mesh/authority/root")


def operations() -> list[tuple[str, str]]:
    api = make_api(cast("Control", None))
    found = {
        (method.upper(), path)
        for path, said in api.openapi()["paths"].items()
        for method in said
        if method in METHODS
    }
    # What the description leaves out.
    for route in api.routes:
        if isinstance(route, Route):
            found |= {(method, route.path) for method in route.methods or ()}
    return sorted(found)


OPERATIONS: Final = operations()


class Knows:
    """A token is the name of its role."""

    def by_token(self, token: str, _wall: float) -> Caller | None:
        return Caller(token, Role(token)) if token in set(Role) else None

    def by_certificate(self, _facts: Any, _wall: float) -> Caller | None:
        return None


def status(method: str, path: str, token: str) -> int:
    """What the guard says to it; 299 where it lets it in."""
    said: list[int] = []

    async def endpoint(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    headers = [(b"host", b"127.0.0.1")]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {
        "type": "http",
        "method": method,
        "path": path.replace("{", "").replace("}", "").replace(":path", ""),
        "headers": headers,
        "query_string": b"",
        "client": ("127.0.0.1", 1),
    }
    guard = Guard(endpoint, own_host="127.0.0.1", is_local=False, knows=Knows())
    asyncio.run(guard(cast("Any", scope), receive, cast("Any", send)))
    assert len(said) == 1
    return said[0]


def test_there_are_endpoints_and_each_is_asked_for():
    assert len(OPERATIONS) > 100
    assert set(OPERATIONS) >= REPORTS | READS


def expected(method: str, path: str) -> dict[str, int]:
    """By role; nobody is ""."""
    if path in OPEN:
        return {"": 299}
    reads = method in {"GET", "HEAD"} or (method, path) in READS
    of_admins = path.startswith(FOR_ADMINS)
    is_closed = of_admins or path.startswith(FOR_OPERATORS)
    found = {
        "": 401,
        "admin": 299,
        "viewer": 299 if reads and not is_closed else 403,
        "ingest": 299 if (method, path) in REPORTS else 403,
        "purge": 299 if (method, path) in PURGING else 403,
        "revoke": 299 if (method, path) == ("POST", "/api/revocations") else 403,
    }
    return {**found, "operator": 403} if of_admins else found


def test_a_role_gets_what_is_its_and_nothing_else():
    wrong = [
        (method, path, role or "nobody", got, wanted)
        for method, path in OPERATIONS
        for role, wanted in expected(method, path).items()
        if (got := status(method, path, role)) != wanted
    ]
    assert not wrong


def test_every_exception_is_of_an_endpoint_that_there_is():
    """One that is misspelt would leave its endpoint with the default role."""
    paths = {path for _, path in OPERATIONS}
    for need in EXCEPTIONS:
        stem = need.template.removesuffix("/**")
        assert any(path == need.template or path.startswith(f"{stem}/") for path in paths), need


@pytest.mark.parametrize(
    "path",
    ["/api/tokens/", "/api//tokens", "/api/tokens/%2e%2e/x", "/api/audit/", "/API/tokens", "/v1/"],
    ids=range(6),
)
def test_a_path_that_is_written_otherwise_opens_nothing_to_whoever_reports(path):
    for method in ("GET", "PUT", "DELETE", "PATCH", "PURGE"):
        assert status(method, path, "ingest") == 403
        if method != "GET":
            assert status(method, path, "viewer") == 403


@pytest.mark.parametrize("path", ["/api/tokens\n", "/api/\x00", "/api/a\u2028b"], ids=range(3))
def test_a_path_with_control_characters_is_refused(path):
    assert status("GET", path, "admin") == 400
