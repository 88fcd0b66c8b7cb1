"""What control records: changes by the admin API, reloads, bans, revocations, counts of workers."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.config.auditing import AuditSpec
from headgate.control.admin.audit import Audited, add_audit
from headgate.control.admin.guard import Guard
from headgate.control.admin.peer import PeerProtocol
from headgate.control.admin.problem import Problem, install
from headgate.control.admin.server import AdminServer
from headgate.control.auditing import Auditing, boot_id
from headgate.security.audit import Query, find, verify_folder
from headgate.security.audit.files import CHECKPOINTS
from headgate.security.redact import RedactionRules, Redactor

KEY = "hg_7f3k9q2m4x1z_" + "aB3" * 16 + "c"


class Clock:
    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def mono(self) -> float:
        return self.at - 1_600_000_000.0

    def wall(self) -> float:
        return self.at


def api(auditing: Auditing, peer: tuple[int, int] | None = None) -> Any:
    app = FastAPI()
    install(app)
    router = APIRouter()
    add_audit(router, SimpleNamespace(auditing=auditing))

    @router.post("/api/thing/{name}")
    async def change(name: str, order: dict[str, Any]) -> dict[str, str]:
        if name == "wrong":
            raise Problem(422, "this is wrong")
        if name == "broken":
            raise RuntimeError("broken")
        return {"name": name}

    @router.delete("/api/thing/{name}")
    async def remove(name: str) -> dict[str, str]:
        return {"name": name}

    @router.post("/api/explain")
    async def explain() -> dict[str, str]:
        return {}

    app.include_router(router)
    made = Audited(Guard(app, token=lambda: "right", own_host="", is_local=False), auditing)

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        if peer is not None:
            scope = {**scope, "state": {"peer": peer}}
        await made(scope, receive, send)

    return with_peer


Ask = Callable[..., Awaitable[httpx.Response]]


def run(
    folder: Path,
    work: Callable[[Auditing, Ask], Awaitable[None]],
    *,
    clock: Clock | None = None,
    peer: tuple[int, int] | None = None,
    redactor: Redactor | None = None,
    **spec: Any,
) -> None:
    async def running() -> None:
        folder.mkdir(exist_ok=True)
        clocks = {"mono": clock.mono, "wall": clock.wall} if clock else {}
        auditing = Auditing(folder, AuditSpec.model_validate(spec), redactor, **clocks)
        auditing.start()
        app = api(auditing, peer)

        async def ask(method: str, path: str, body: Any = None, token: str = "right"):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                headers = {"authorization": f"Bearer {token}"}
                return await client.request(method, path, json=body, headers=headers)

        try:
            async with asyncio.timeout(30):
                await work(auditing, ask)
        finally:
            await auditing.close()

    asyncio.run(running())
    if (folder / "audit").exists():
        verdict = verify_folder(folder / "audit")
        assert verdict.is_good, verdict.findings


def entries(folder: Path, action: str = "") -> list[dict[str, Any]]:
    return find(folder / "audit", Query(action=action), limit=1000, newest_first=False).entries


def test_changes_are_recorded_with_actor_order_and_outcome(tmp_path):
    async def work(auditing, ask):
        got = await ask("POST", "/api/thing/one?dry=1", {"why": "test", "token": "hunter2"})
        assert got.status_code == 200 and len(got.headers["x-request-id"]) == 32
        assert (await ask("POST", "/api/thing/wrong", {})).status_code == 422
        assert (await ask("POST", "/api/thing/broken", {})).status_code == 500
        assert (await ask("DELETE", "/api/thing/one")).status_code == 200
        assert (await ask("DELETE", "/api/nothing")).status_code == 404
        assert (await ask("GET", "/api/audit")).status_code == 200
        await ask("POST", "/api/explain", {"headers": {"x": "canary"}})

    run(tmp_path, work)
    found = entries(tmp_path, "admin.*")
    assert [(each["action"], each["target"], each["outcome"]) for each in found] == [
        ("admin.post", "/api/thing/one", "ok"),
        ("admin.post", "/api/thing/wrong", "refused"),
        ("admin.post", "/api/thing/broken", "failed"),
        ("admin.delete", "/api/thing/one", "ok"),
        ("admin.delete", "/api/nothing", "refused"),
        ("admin.post", "/api/explain", "ok"),
    ]
    first = found[0]
    assert first["actor"] == "admin-token" and first["origin"] == "127.0.0.1"
    assert first["after"] == {"why": "test", "token": "[redacted:password]"}
    assert first["detail"] == {"status": 200, "query": "dry=1"}
    assert "after" not in found[-1]


def test_the_user_of_the_socket_is_named(tmp_path):
    async def work(auditing, ask):
        await ask("DELETE", "/api/thing/one")

    run(tmp_path, work, peer=(4711, 0))
    (found,) = entries(tmp_path, "admin.*")
    assert found["actor"].startswith("uid:0") and found["origin"] == "unix pid 4711"


def test_wrong_tokens_are_counted_and_do_not_fill_the_log(tmp_path):
    async def work(auditing, ask):
        for _ in range(50):
            assert (await ask("GET", "/api/audit", token="canary")).status_code == 401
        assert (await ask("POST", "/api/thing/x", {}, token="canary")).status_code == 401

    run(tmp_path, work)
    (found,) = [each for each in entries(tmp_path) if not each["action"].startswith("audit.")]
    assert found["action"] == "security.admin_token_refused"
    assert found["detail"]["count"] == 51 and found["origin"] == "127.0.0.1"
    assert "canary" not in json.dumps(entries(tmp_path))


def test_large_and_odd_bodies_are_noted_within_a_bound(tmp_path):
    async def work(auditing, ask):
        await ask("POST", "/api/thing/large", {"x": "a" * 40_000})
        await ask("POST", "/api/thing/huge", {"x": "a" * 400_000})

    run(tmp_path, work)
    large, huge = entries(tmp_path, "admin.*")
    assert "left_out" in large["after"] and huge["detail"]["status"] == 413


def test_a_client_that_leaves_does_not_hide_what_was_begun(tmp_path):
    async def work(auditing, ask):
        begun = asyncio.Event()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        async def nothing() -> Any:
            return {"type": "http.disconnect"}

        async def swallow(_: Any) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/api/thing/x", "headers": []}
        task = asyncio.get_running_loop().create_task(
            Audited(endless, auditing)(scope, nothing, swallow)
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(tmp_path, work)
    (found,) = entries(tmp_path, "admin.*")
    assert found["outcome"] == "failed" and found["detail"]["status"] == 0


# ---- reading


def test_the_log_is_read_page_by_page_and_verified(tmp_path):
    async def work(auditing, ask):
        for number in range(25):
            auditing.record("order.given", "uid:0", target=str(number))
        seen, after = [], ""
        while True:
            got = (await ask("GET", f"/api/audit?action=order.*&limit=10{after}")).json()
            seen += [each["target"] for each in got["entries"]]
            if got["next"] is None:
                break
            after = f"&after={got['next']}"
        assert seen == [str(number) for number in range(24, -1, -1)]
        got = (await ask("GET", "/api/audit?since=1h&target=7&oldest_first=true")).json()
        assert [each["target"] for each in got["entries"]] == ["7"]
        verdicts = await asyncio.gather(*(ask("GET", "/api/audit/verify") for _ in range(5)))
        assert all(each.json()["ok"] for each in verdicts)
        for path in ("since=never", "limit=0", "limit=5000", "after=-1", "text=" + "x" * 300):
            assert (await ask("GET", f"/api/audit?{path}")).status_code == 422
        path = next((tmp_path / "audit").glob("2*.jsonl"))
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"order.given", b"order.taken"))
        got = (await ask("GET", "/api/audit/verify")).json()
        assert not got["ok"] and got["faults"] and path.name in got["findings"][0]["where"]
        path.write_bytes(whole)

    run(tmp_path, work)


def test_without_a_log_the_answer_says_so(tmp_path):
    async def work() -> None:
        auditing = Auditing(tmp_path, False)
        auditing.start()
        assert auditing.record("x", "y") is None and not auditing.is_on
        transport = httpx.ASGITransport(app=api(auditing))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"authorization": "Bearer right"}
            got = await client.get("/api/audit", headers=headers)
            assert got.status_code == 404 and "no audit log" in got.json()["detail"]
            assert (await client.delete("/api/thing/x", headers=headers)).status_code == 200
        assert list(auditing.worries()) == [] and auditing.snapshot() == {"on": False}
        await auditing.close()

    asyncio.run(work())


# ---- reloads and news


def test_a_reload_tells_what_it_changed_and_no_secret(tmp_path):
    before = {
        "admin": {"token": "old-canary"},
        "state": "redis://:pw-canary@h/0",
        "routes": [{"name": "a", "to": "x"}],
        "limit": "ref-canary",
    }
    after = {
        "admin": {"token": "new-canary"},
        "state": "redis://:pw2-canary@h/1",
        "routes": [{"name": "b", "to": "y"}, {"name": "a", "to": "y"}],
        "limit": "other-canary",
    }

    async def work(auditing, ask):
        hidden = (("ref-canary", "${env:A}"), ("other-canary", "${env:A}"))
        auditing.reloaded("SIGHUP", generation=2, before=before, after=after, hidden=hidden)
        auditing.reloaded(
            "SIGHUP",
            generation=2,
            before=after,
            after=None,
            faults=[{"message": "line 3 is wrong"}],
        )

    run(tmp_path, work)
    taken, refused = entries(tmp_path, "config.reloaded")
    assert "canary" not in json.dumps(taken)
    rows = {row["path"]: row for row in taken["detail"]["changes"]}
    assert rows["admin.token"] == {"path": "admin.token", "changed": "a secret"}
    assert rows["limit"] == {"path": "limit", "changed": "a secret"}
    assert rows["routes[name=a].to"]["after"] == "y"
    assert taken["detail"]["changed"] == len(rows) == 5
    assert refused["outcome"] == "refused" and refused["detail"]["faults"] == ["line 3 is wrong"]


def test_bans_and_revocations_are_written_once_and_old_news_not_at_all(tmp_path):
    clock = Clock()

    async def work(auditing, ask):
        ban = {"what": "ban", "key": "192.0.2.7", "at": clock.at, "since": clock.at, "by": "logins",
               "why": "more than 20", "for_s": 900, "times": 1}  # fmt: skip
        for _ in range(3):
            auditing.ban_heard(ban)
        auditing.ban_heard({**ban, "key": "192.0.2.8", "at": clock.at - 100})
        auditing.ban_heard({"what": "lift", "key": "192.0.2.7", "at": clock.at})
        auditing.ban_heard({"what": "saw", "counts": []})
        auditing.ban_heard({"what": "ban"})
        revoked = {"kind": "jti", "value": "abc", "issuer": "", "before": None, "until": 2e9}
        auditing.revocation_heard(revoked)
        auditing.revocation_heard(revoked)
        auditing.revocation_heard({"rubbish": 1})
        for number in range(500):
            auditing.ban_heard({**ban, "key": f"10.0.{number // 250}.{number % 250}"})

    run(tmp_path, work, clock=clock)
    found = entries(tmp_path)
    assert [each["target"] for each in found if each["action"] == "ban.lifted"] == ["192.0.2.7"]
    assert [each["target"] for each in found if each["action"] == "token.revoked"] == ["jti abc"]
    added = [each for each in found if each["action"] == "ban.added"]
    assert added[0]["actor"] == "rule:logins" and len(added) == 60
    counted = [each["detail"]["count"] for each in found if each["action"] == "security.ban_added"]
    assert sum(counted) == 501 - 60


def test_events_of_workers_are_added_up_over_a_minute(tmp_path):
    clock = Clock()

    async def work(auditing, ask):
        row = {"kind": "login_failed", "address": "192.0.2.7", "count": 40, "example": {"u": KEY}}
        auditing.heard(1, {"event": "security", "counted": [row, {"rubbish": 1}, 5]})
        auditing.heard(2, {"event": "security", "counted": [{**row, "count": 2}]})
        auditing.heard(2, {"event": "security", "counted": None})
        auditing.heard(2, {"event": "security"})
        await auditing._turn()
        assert not find(auditing.folder, Query(action="security.*")).entries
        clock.at += 61
        await auditing._turn()

    run(tmp_path, work, clock=clock)
    (found,) = entries(tmp_path, "security.login_failed")
    assert found["detail"]["count"] == 42 and found["origin"] == "192.0.2.7"
    assert KEY not in json.dumps(found)


# ---- when it cannot be written


def broken(auditing: Auditing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(auditing._book, "_put", fail)


def test_no_change_is_taken_that_cannot_be_recorded(tmp_path, monkeypatch):
    async def work(auditing, ask):
        with monkeypatch.context() as patch:
            broken(auditing, patch)
            auditing.record("x", "y")
            got = await ask("DELETE", "/api/thing/one")
            assert got.status_code == 503 and "Input/output error" in got.json()["detail"]
            assert (await ask("GET", "/api/audit")).status_code == 200
            assert any("has trouble" in worry for worry in auditing.worries())
        assert (await ask("DELETE", "/api/thing/one")).status_code == 200
        assert list(auditing.worries()) == []

    run(tmp_path, work)
    actions = [each["action"] for each in entries(tmp_path)]
    assert actions == ["audit.opened", "audit.gap", "admin.delete", "audit.closed"]


def test_changes_go_on_without_a_record_where_that_is_wanted(tmp_path, monkeypatch):
    async def work(auditing, ask):
        with monkeypatch.context() as patch:
            broken(auditing, patch)
            assert (await ask("DELETE", "/api/thing/one")).status_code == 200
        auditing.record("x", "y")

    run(tmp_path, work, on_full="drop_and_count")
    gap = entries(tmp_path, "audit.gap")[0]
    assert gap["detail"]["lost"] == {"admin.delete": 1}


def test_a_log_that_another_holds_is_opened_when_it_is_free(tmp_path):
    clock = Clock()

    async def work(auditing, ask):
        second = Auditing(tmp_path, AuditSpec(), mono=clock.mono, wall=clock.wall)
        second.start()
        second.record("x", "y")
        assert any("another process writes" in worry for worry in second.worries())
        auditing._book.close()
        clock.at += 10
        await second._turn()
        assert list(second.worries()) == []
        await second.close()

    run(tmp_path, work, clock=clock)
    assert "audit.gap" in [each["action"] for each in entries(tmp_path)]


def test_with_always_an_answer_comes_after_the_disk(tmp_path, monkeypatch):
    order: list[str] = []

    async def work(auditing, ask):
        sync = auditing._book.sync

        def synced() -> None:
            sync()
            order.append("synced")

        monkeypatch.setattr(auditing._book, "sync", synced)
        await ask("DELETE", "/api/thing/one")
        order.append("answered")

    run(tmp_path, work, durable="always")
    assert order[: order.index("answered")].count("synced") >= 1


def test_a_reload_with_other_settings_opens_the_log_anew(tmp_path):
    async def work(auditing, ask):
        auditing.record("one", "x")
        auditing.take(AuditSpec(checkpoint_entries=5), Redactor())
        auditing.record("two", "x")
        auditing.take(False, Redactor())
        auditing.record("three", "x")
        auditing.take(AuditSpec(), Redactor())
        auditing.record("four", "x", detail={"token": "t"})
        auditing.take(AuditSpec(), Redactor(RedactionRules.none()))
        auditing.record("five", "x", detail={"token": "t"})

    run(tmp_path, work)
    found = {each["action"]: each for each in entries(tmp_path)}
    assert {"one", "two", "audit.switched_off", "four", "five"} < found.keys()
    assert "three" not in found
    assert found["four"]["detail"] != found["five"]["detail"] == {"token": "t"}


# ---- anchors


def test_checkpoints_are_carried_to_files_and_urls(tmp_path):
    posted: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    anchor = tmp_path / "anchor.jsonl"
    places = [str(anchor), f"http://127.0.0.1:{server.server_port}/x"]
    try:

        async def work(auditing, ask):
            auditing.record("one", "x")

        run(tmp_path / "state", work, anchor=places)
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
    own = (tmp_path / "state" / "audit" / CHECKPOINTS).read_bytes()
    assert anchor.read_bytes() == own == b"".join(posted)
    verdict = verify_folder(tmp_path / "state" / "audit", anchors=[anchor])
    assert verdict.is_good and verdict.anchored_to == verdict.last


def test_an_anchor_that_cannot_be_reached_is_a_worry_and_shows_no_secret(tmp_path):
    async def work(auditing, ask):
        auditing.record("one", "x")
        auditing._book.checkpoint()
        while not auditing._anchors.failing:
            await asyncio.sleep(0.01)
        (worry,) = auditing.worries()
        assert "http://127.0.0.1:9/x" in worry and "canary" not in worry

    run(tmp_path, work, anchor=["http://u:canary@127.0.0.1:9/x?k=canary"])


# ---- the server's side


def test_the_kernel_names_who_is_at_the_socket(tmp_path):
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope.get("state", {}).get("peer"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def work() -> None:
        import socket

        import uvicorn

        path = str(tmp_path / "s")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        server = AdminServer(app)
        server._server.config = uvicorn.Config(
            app, http=PeerProtocol, lifespan="off", log_config=None
        )
        await server.start(sock)
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/")
        server.stop()
        await server.wait_stopped(10)

    asyncio.run(work())
    assert seen == [(os.getpid(), os.getuid())]


def test_a_boot_has_a_name():
    assert len(boot_id()) in {0, 16} and boot_id() == boot_id()
