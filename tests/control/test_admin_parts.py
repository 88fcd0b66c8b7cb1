"""The parts of the admin API that need no gateway: roles, pages, tags, origins, tokens, versions."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from headgate.config.admin import AdminClientSpec, AdminSpec
from headgate.control.admin import paging
from headgate.control.admin.client_certificates import caller_of
from headgate.control.admin.csrf import cors_headers, foreign_origin, preflight_headers
from headgate.control.admin.etags import answer, check_match, etag, is_unchanged
from headgate.control.admin.limits import Limits
from headgate.control.admin.problem import Problem
from headgate.control.admin.reference import openapi
from headgate.control.admin.roles import EXCEPTIONS, Role, at_least, may, needed
from headgate.control.admin.tokens import FILE, TokenBook, TokenRefused, digest_of
from headgate.control.config_file import ConfigFile, NotWritable
from headgate.control.config_history import ConfigHistory, in_words, literal_secrets
from headgate.control.reload import ReloadResult
from headgate.security.certificate_auth import CertificateFacts
from headgate.units import Rate

WALL = 1_800_000_000.0


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/api/x", "query_string": b"a=1&cursor=old"}
    return Request({**scope, "headers": raw, "server": ("gateway", 80), "scheme": "http"})


# -- roles -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/routes", Role.VIEWER),
        ("HEAD", "/api/routes", Role.VIEWER),
        ("POST", "/api/explain", Role.VIEWER),
        ("POST", "/api/reload", Role.OPERATOR),
        ("DELETE", "/api/bans/192.0.2.7", Role.OPERATOR),
        ("PURGE", "/api/anything", Role.OPERATOR),
        ("PUT", "/api/config", Role.ADMIN),
        ("POST", "/api/config/rollback/7", Role.ADMIN),
        ("POST", "/api/config/validate", Role.OPERATOR),
        ("GET", "/api/tokens", Role.ADMIN),
        ("HEAD", "/api/tokens", Role.ADMIN),
        ("DELETE", "/api/tokens/abc", Role.ADMIN),
        ("GET", "/api/audit", Role.OPERATOR),
        ("HEAD", "/api/audit/verify", Role.OPERATOR),
        ("POST", "/v1/traces", Role.INGEST),
        ("POST", "/api/markers", Role.INGEST),
        ("GET", "/api/markers", Role.VIEWER),
        ("POST", "/api/cache/purge", Role.PURGE),
        ("GET", "/api/cache/news", Role.VIEWER),
        ("POST", "/api/revocations", Role.REVOKE),
        ("GET", "/api/revocations", Role.VIEWER),
    ],
    ids=str,
)
def test_a_request_needs_a_role(method, path, role):
    assert needed(method, path) is role


def test_ingest_may_report_and_nothing_else():
    assert may(Role.INGEST, "POST", "/v1/logs")
    assert may(Role.INGEST, "POST", "/api/logs")
    assert not may(Role.INGEST, "GET", "/api/logs")
    assert not may(Role.INGEST, "GET", "/api/whoami")
    assert not may(Role.INGEST, "POST", "/api/reload")
    assert not may(Role.VIEWER, "POST", "/v1/traces")
    assert may(Role.OPERATOR, "POST", "/v1/traces")


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        pytest.param(
            Role.PURGE, {("POST", "/api/cache/purge"), ("GET", "/api/cache/news")}, id="purge"
        ),
        pytest.param(Role.REVOKE, {("POST", "/api/revocations")}, id="revoke"),
    ],
)
def test_a_right_for_one_thing_opens_nothing_else(role, rights):
    operations = [
        ("POST", "/api/cache/purge"),
        ("GET", "/api/cache/news"),
        ("GET", "/api/cache/stats"),
        ("POST", "/api/revocations"),
        ("GET", "/api/revocations"),
        ("GET", "/api/registry/services"),
        ("POST", "/api/logs"),
        ("POST", "/api/reload"),
        ("GET", "/api/tokens"),
        ("GET", "/api/whoami"),
    ]
    assert {one for one in operations if may(role, *one)} == rights
    for method, path in rights:
        assert may(Role.OPERATOR, method, path) and may(Role.ADMIN, method, path)
        assert not may(Role.SERVICE, method, path) and not may(Role.INGEST, method, path)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_a_larger_role_may_what_a_smaller_may(role):
    row = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    assert [at_least(role, wanted) for wanted in row] == [
        index <= row.index(role) for index in range(3)
    ]


def test_every_exception_is_of_an_operation_that_there_is():
    paths = openapi()["paths"]
    for need in EXCEPTIONS:
        begins = need.template.removesuffix("**")
        found = [path for path in paths if path == begins or path.startswith(begins)]
        methods = {method.upper() for path in found for method in paths[path]}
        assert need.method in {"*", *methods}, need


def test_every_operation_says_its_role_and_its_problems():
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["x-role"] in {"none", needed(method.upper(), path).value}
            assert "429" in operation["responses"]
            for status, response in operation["responses"].items():
                if status.isdigit() and int(status) >= 400 and path != "/api/health":
                    assert response["content"], (path, status)


# -- pages -----------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.integers(1, 7))
def test_pages_show_every_item_once_by_key(names, limit):
    names.sort()
    seen: list[str] = []
    cursor = ""
    while True:
        found = paging.page(names, limit=limit, cursor=cursor, key=lambda name: name)
        seen += found.items
        if found.next is None:
            break
        cursor = found.next
    assert seen == names


def test_what_comes_and_goes_between_pages_moves_nothing():
    first = paging.page(["b", "d", "f"], limit=2, key=lambda name: name)
    second = paging.page(["a", "c", "e", "f"], limit=2, cursor=first.next or "", key=lambda n: n)
    assert list(second.items) == ["e", "f"]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "bnVsbA", "W10", "LTE", "é", "W1tbW1tb" * 50])
def test_a_cursor_of_somebody_else_is_refused(cursor):
    for key in (None, lambda name: name):
        with pytest.raises(Problem) as caught:
            paging.page(["a"], limit=1, cursor=cursor, key=key)
        assert caught.value.status == 422


def test_a_page_links_to_the_next_one():
    found = paging.page(list(range(5)), limit=2)
    link = found.headers(request())["link"]
    assert link == f'</api/x?a=1&cursor={found.next}>; rel="next"'
    assert paging.page([1], limit=2).headers(request()) == {}


# -- tags ------------------------------------------------------------------------------------


def test_a_tag_follows_the_value_and_not_its_spelling():
    assert etag({"a": 1, "b": 2}) == etag({"b": 2, "a": 1})
    assert etag({"a": 1}) != etag({"a": 1.5})


@pytest.mark.parametrize(
    ("given_tag", "status"),
    [(None, 428), ('"other"', 412), ('W/"own"', 412), ("*", 0), ('"x", "own"', 0), ('"own"', 0)],
    ids=str,
)
def test_a_write_names_what_it_changes(given_tag, status):
    asked = request() if given_tag is None else request(if_match=given_tag)
    try:
        check_match(asked, '"own"')
    except Problem as error:
        assert error.status == status
    else:
        assert status == 0


def test_what_is_unchanged_is_not_sent():
    tag = etag({"a": 1})
    assert is_unchanged(request(if_none_match=f'"x", W/{tag}'), tag)
    assert answer(request(if_none_match=tag), {"a": 1}).status_code == 304
    assert answer(request(), {"a": 1}).headers["etag"] == tag


# -- pages of other origins ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),
        ({"origin": "http://gw:9900"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "https://gw:9900"}, True),
        ({"origin": "https://console.example"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://gw:9900", "sec-fetch-site": "same-origin"}, False),
    ],
    ids=str,
)
def test_changes_from_foreign_pages_are_refused(headers, is_refused):
    said = {"host": "gw:9900", **headers}
    allowed = ("https://console.example",)
    assert bool(foreign_origin("POST", "http", said, allowed)) is is_refused
    assert foreign_origin("GET", "http", said, allowed) == ""


def test_only_named_origins_may_read():
    allowed = ("https://console.example",)
    assert cors_headers({"origin": "https://console.example"}, allowed)[
        "access-control-allow-origin"
    ]
    assert "access-control-allow-origin" not in cors_headers({"origin": "https://e.org"}, allowed)
    assert cors_headers({"origin": "https://console.example"}, ()) == {}
    assert preflight_headers({"origin": "https://e.org"}, allowed) == {}


# -- tokens ----------------------------------------------------------------------------------


def test_a_made_token_is_known_until_it_expires_or_is_revoked(tmp_path):
    book = TokenBook(tmp_path)
    text, made = book.make("ci", Role.OPERATOR, by="me", wall=WALL, expires=WALL + 60)
    assert text.startswith(f"hg_{made.id}_")
    found = book.known(text, WALL + 1)
    assert found is not None
    assert (found.name, found.role) == ("token/ci", Role.OPERATOR)
    assert book.known(text, WALL + 60) is None
    assert book.known(text + "x", WALL) is None
    again = TokenBook(tmp_path)
    assert again.known(text, WALL + 2) is not None
    again.revoke(made.id)
    assert again.known(text, WALL + 2) is None
    assert TokenBook(tmp_path).known(text, WALL + 2) is None


def test_no_token_is_kept_as_it_is(tmp_path):
    book = TokenBook(tmp_path)
    text, made = book.make("ci", Role.VIEWER, by="me", wall=WALL)
    kept = (tmp_path / FILE).read_text()
    assert text not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert made.digest not in repr(made)


def test_two_tokens_do_not_share_a_name(tmp_path):
    book = TokenBook(tmp_path)
    book.make("ci", Role.VIEWER, by="me", wall=WALL)
    with pytest.raises(TokenRefused):
        book.make("ci", Role.ADMIN, by="me", wall=WALL)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"tokens": 7}', b'{"tokens": [{"id": 1}]}', b"\xff\x00", b"[" * 100_000],
    ids=["torn", "list", "number", "row", "bytes", "deep"],
)
def test_a_spoilt_file_lets_nobody_in_and_is_told(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    book = TokenBook(tmp_path)
    assert "spoilt" in book.trouble
    assert book.known("anything", WALL) is None
    assert (tmp_path / f"{FILE}.spoilt").read_bytes() == content
    book.make("new", Role.VIEWER, by="me", wall=WALL)


def test_a_full_disk_makes_no_token(tmp_path, monkeypatch):
    book = TokenBook(tmp_path)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        book.make("ci", Role.VIEWER, by="me", wall=WALL)
    assert book.all() == []


def test_tokens_of_the_file_come_by_hash_text_or_file(tmp_path):
    hashed = tmp_path / "hash"
    hashed.write_text(f"sha256:{digest_of('by-file-0123456789')}\n")
    spec = AdminSpec.model_validate(
        {
            "tokens": [
                {"name": "a", "role": "viewer", "token": "by-text-0123456789"},
                {"name": "b", "role": "operator", "hash": digest_of("by-hash-0123456789")},
                {"name": "c", "role": "ingest", "token_hash_file": "hash"},
                {"name": "d", "token": "over-0123456789", "expires": "2020-01-01"},
            ]
        }
    )
    book = TokenBook(tmp_path)
    book.take(spec, tmp_path)

    def role(text: str) -> Any:
        found = book.known(text, WALL)
        return found.role if found else None

    assert role("by-text-0123456789") is Role.VIEWER
    assert role("by-hash-0123456789") is Role.OPERATOR
    assert role("by-file-0123456789") is Role.INGEST
    assert role("over-0123456789") is None
    hashed.write_text(digest_of("another-0123456789") + "\n\n")
    assert role("another-0123456789") is Role.INGEST
    assert role("by-file-0123456789") is None
    hashed.unlink()
    assert role("another-0123456789") is None


def test_wrong_tokens_are_counted_by_address():
    limits = Limits(AdminSpec(failures=Rate(3, 60.0)))
    for _ in range(3):
        assert limits.wait_after_failures_s("192.0.2.1", 100.0) == 0
        limits.failed("192.0.2.1", 100.0)
    assert 0 < limits.wait_after_failures_s("192.0.2.1", 100.0) <= 60
    assert limits.wait_after_failures_s("192.0.2.2", 100.0) == 0
    assert limits.wait_after_failures_s("192.0.2.1", 200.0) == 0


@pytest.mark.parametrize(
    ("spec", "role"),
    [
        ({"subject": "ops", "role": "admin"}, Role.ADMIN),
        ({"subject": "CN=ops,O=Example"}, Role.VIEWER),
        ({"subject": "o*"}, Role.VIEWER),
        ({"subject": "other"}, None),
        ({"san": "spiffe://example/ops"}, Role.VIEWER),
        ({"san": "*.EXAMPLE.org"}, Role.VIEWER),
        ({"san": "ops"}, None),
        ({"san": "?ps.example.org"}, None),
    ],
    ids=str,
)
def test_a_certificate_has_the_role_of_the_entry_that_fits(spec, role):
    names = {
        "cn": ("ops",),
        "dn": ("CN=ops,O=Example",),
        "dns": ("ops.example.org",),
        "uri": ("spiffe://example/ops",),
    }
    facts = CertificateFacts("f" * 64, 1, b"", WALL - 10, WALL + 10, names)
    clients = [AdminClientSpec.model_validate(spec)]
    found = caller_of(facts, clients, WALL)
    assert (found.role if found else None) is role
    assert caller_of(facts, clients, WALL + 11) is None


# -- versions of the configuration -----------------------------------------------------------


def result(number: int, *, ok: bool = True) -> ReloadResult:
    faults = [] if ok else [{"message": "no"}]
    return ReloadResult(ok, number, reason=f"change {number}", at=WALL + number, faults=faults)


def test_the_oldest_versions_go_and_the_rest_survive_a_restart(tmp_path):
    file = tmp_path / "headgate.yaml"
    history = ConfigHistory(tmp_path, file)
    history.take(3)
    for number in range(6):
        file.write_text(f"a: {number}")
        history.keep(file.read_bytes(), result(number), {"a": number}, ())
    history.keep(None, result(7, ok=False), {"a": 5}, ())
    again = ConfigHistory(tmp_path, file)
    found = again.versions()
    assert [one.ok for one in found] == [False, True, True]
    kept = again.get(found[1].number)
    assert kept is not None
    assert (kept.document, kept.text) == ({"a": 5}, "a: 5")


def test_a_spoilt_version_spoils_no_other(tmp_path):
    file = tmp_path / "headgate.yaml"
    history = ConfigHistory(tmp_path, file)
    for number in range(3):
        file.write_text(f"a: {number}")
        history.keep(file.read_bytes(), result(number), {"a": number}, ())
    (tmp_path / "config-history" / "000002.json").write_bytes(b'{"version": {"num')
    again = ConfigHistory(tmp_path, file)
    assert [one.number for one in again.versions()] == [3, 1]
    assert list(again.worries())


def test_a_version_for_which_the_disk_was_full_is_written_when_it_has_room(tmp_path, monkeypatch):
    file = tmp_path / "headgate.yaml"
    history = ConfigHistory(tmp_path, file)
    file.write_text("a: 1")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        history.keep(b"a: 1", result(1), {"a": 1}, ())
        assert "No space" in next(iter(history.worries()))
        assert not [one for one in (tmp_path / "config-history").iterdir() if one.suffix != ""]
    file.write_text("a: 2")

    async def once_more() -> None:
        trying = asyncio.create_task(history.keep_trying(0.01))
        async with asyncio.timeout(20):
            while list(history.worries()):
                await asyncio.sleep(0.01)
        trying.cancel()

    asyncio.run(once_more())
    (made,) = history.versions()
    kept = history.get(made.number)
    assert kept is not None
    assert (kept.version.at, kept.text, history.lost) == (WALL + 1, "a: 1", 0)


def test_versions_that_wait_for_a_disk_are_bounded_and_written_in_order(tmp_path, monkeypatch):
    history = ConfigHistory(tmp_path, tmp_path / "headgate.yaml")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for number in range(13):
            assert history.keep(None, result(number), {"a": number}, ()) is None
    assert history.lost == 3
    made = history.keep(None, result(13), {"a": 13}, ())
    assert made is not None
    assert made.words == ("a 12 -> 13",)
    assert history.lost == 3
    assert [one.generation for one in history.versions()] == list(range(13, 2, -1))


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        ({"admin": {"token": "literal"}}, ["admin.token"]),
        ({"admin": {"token": "${env:TOKEN}"}}, []),
        ({"admin": {"token": "${env:TOKEN:-fallback}"}}, ["admin.token"]),
        ({"url": "redis://me:secret@host"}, ["url"]),
        ({"url": "redis://${env:WHO}@host"}, []),
        ({"a": [{"password": 7}]}, ["a[0].password"]),
        ({"headers": {"set": {"authorization": "Bearer ${file:t}"}}}, []),
        ({"headers": {"set": {"authorization": "Bearer x"}}}, ["headers.set.authorization"]),
        ({"x": "$2b$10$abcdefghijklmnopqrstuv"}, ["x"]),
    ],
    ids=str,
)
def test_secrets_that_stand_as_they_are_are_found(raw, paths):
    assert list(literal_secrets(raw)) == paths


def test_changes_are_told_in_words():
    rows: list[dict[str, Any]] = [
        {"path": "routes[name=a]", "after": {}},
        {"path": "routes[name=b]", "before": {}},
        {"path": "services.users.retry", "before": 1, "after": 2},
        {"path": "admin.token", "changed": "a secret"},
        {"path": "workers", "after": 2},
    ]
    assert in_words(rows) == [
        "route a added",
        "route b removed",
        "service users: retry 1 -> 2",
        "admin.token changed (a secret)",
        "workers = 2",
    ]


def test_examples_in_the_description_are_json(tmp_path: Path):
    for operations in openapi()["paths"].values():
        for operation in operations.values():
            json.dumps(operation)
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                assert "example" in body


# -- the file --------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "headgate.yaml"
    path.write_text("old")
    file = ConfigFile(path)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    draft = file.draft(b"new")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.draft(b"newer")
    with pytest.raises(OSError, match="No space"):
        file.swap(draft)
    draft.unlink()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["headgate.yaml"]


def test_a_link_stays_a_link_and_the_mode_stays_what_it_was(tmp_path):
    real = tmp_path / "real.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "sub" / "headgate.yaml"
    link.parent.mkdir()
    link.symlink_to(real)
    file = ConfigFile(link)
    backup = file.swap(file.draft(b"new"))
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert backup.read_text() == "old"
    file.restore(backup)
    assert real.read_text() == "old"


def test_a_folder_is_not_written(tmp_path):
    with pytest.raises(NotWritable, match="folder"):
        ConfigFile(tmp_path).draft(b"x")
