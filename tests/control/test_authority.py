"""The authority as control has it: its part of the admin API, its disk, and the gateway's own."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.config import Config, from_document
from headgate.control.admin.guard import Guard
from headgate.control.admin.identity import add_identity
from headgate.control.admin.problem import install
from headgate.control.authority import MeshAuthority
from headgate.control.join_book import FILE
from headgate.mesh.identity.certificates import new_key, read_key, read_shown, request_for
from headgate.mesh.identity.proof import prove
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.renewing import read_held
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC
from headgate.security.service_identity.contexts import own_files

WALL = 1_900_000_000.0
DOCUMENT: dict[str, Any] = {
    "listeners": ["127.0.0.1:8080"],
    "mesh": {"trust_domain": "shop.internal", "identity": {"ttl": "1h"}},
    "services": {"users": "http://127.0.0.1:3001"},
    "routes": [{"match": {"path": "/"}, "to": "users"}],
}


def config(**more: Any) -> Config:
    return from_document({**DOCUMENT, **more})


@dataclass
class Rig:
    folder: Path
    wall: float = WALL
    said: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    records: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    config: Config = field(default_factory=config)

    def __post_init__(self) -> None:
        self.mesh_authority = self.made()
        self.app = FastAPI()
        install(self.app)
        router = APIRouter()
        add_identity(router, self)
        self.app.include_router(router)

    def made(self) -> MeshAuthority:
        made = MeshAuthority(
            self.folder, self, self.record, wall=lambda: self.wall, random=os.urandom
        )
        made.take(self.config)
        asyncio.run(made.turn())
        return made

    def restart(self) -> None:
        self.mesh_authority = self.made()

    def publish(self, topic: str, message: Mapping[str, Any], *, retain: str | None = None) -> None:
        assert retain == "files"
        self.said.append((topic, message))

    def record(self, action: str, actor: str, **more: Any) -> None:
        json.dumps(more)
        self.records.append((action, actor, more))

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(asked())

    def token(self, service: str = "orders", **more: Any) -> str:
        answer = self.ask("POST", "/api/mesh/tokens", {"service": service, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def join(self, token: str, key_pem: str | None = None) -> httpx.Response:
        key = read_key(key_pem) if key_pem is not None else new_key()[0]
        body = {"token": token, "csr": request_for(key)}
        return self.ask("POST", "/api/mesh/identity/join", body)

    def renew(self, chain: str, key_pem: str) -> httpx.Response:
        request = request_for(new_key()[0])
        body = {"certificate": chain, "csr": request, "proof": prove(read_key(key_pem), request)}
        return self.ask("POST", "/api/mesh/identity/renew", body)

    def turn(self) -> float:
        return asyncio.run(self.mesh_authority.turn())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_service_joins_with_a_token_and_renews_with_what_it_got(rig: Rig) -> None:
    _, key_pem = new_key()
    joined = rig.join(rig.token(), key_pem)
    assert joined.status_code == 200
    assert joined.headers["cache-control"] == "no-store"
    said = joined.json()
    assert said["id"] == "spiffe://shop.internal/service/orders"
    assert said["ends"] == WALL + 3600
    bundle = rig.ask("GET", "/api/mesh/identity/bundle").json()
    assert bundle == {"trust_domain": "shop.internal", "bundle": said["bundle"]}
    rig.wall += 1800
    renewed = rig.renew(said["chain"], key_pem).json()
    first, second = read_shown(said["chain"]), read_shown(renewed["chain"])
    assert (second.joining, second.id) == (first.joining, first.id)
    rows = rig.ask("GET", "/api/mesh/identities").json()["identities"]
    assert [(row["service"], row["how"], row["count"]) for row in rows] == [("orders", "renew", 2)]
    written = [(action, actor) for action, actor, _ in rig.records]
    assert written == [
        ("mesh.authority", "control"),
        ("mesh.certificate.join", "orders"),
        ("mesh.certificate.renew", "orders"),
    ]


def test_a_token_is_for_one_joining_also_after_a_restart(rig: Rig) -> None:
    token = rig.token()
    _, key_pem = new_key()
    assert rig.join(token, key_pem).status_code == 200
    rig.restart()
    refused = rig.join(token)
    assert refused.status_code == 401
    assert refused.json()["why"] == "token"
    assert "used already" in refused.json()["detail"]
    assert rig.join(token, key_pem).status_code == 200
    kept = (rig.folder / "mesh" / FILE).read_text()
    assert token not in kept
    assert token[13:] not in kept


def test_a_token_that_comes_twice_is_written_down_and_a_guess_is_not(rig: Rig) -> None:
    token = rig.token()
    rig.join(token)
    rig.records.clear()
    for _ in range(20):
        assert rig.join(token).status_code == 401
    assert rig.join("hgj_aaaaaaaa_" + "x" * 43).status_code == 401
    assert {(action, actor) for action, actor, _ in rig.records} == {
        ("mesh.certificate.join", "orders")
    }
    assert 1 <= len(rig.records) <= 7
    assert "used already" in rig.records[0][2]["detail"]["why"]


def test_two_who_come_at_once_with_one_token_are_not_both_let_in(rig: Rig) -> None:
    token = rig.token()

    async def both() -> list[str]:
        async def one() -> str:
            try:
                await rig.mesh_authority.join(token, request_for(new_key()[0]), "t")
            except IdentityRefused as error:
                return error.why
            return "in"

        return sorted(await asyncio.gather(*(one() for _ in range(6))))

    assert asyncio.run(both()) == ["in", *["token"] * 5]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("join", {"token": "x", "csr": "y"}, 401),
        ("join", {"token": "x"}, 422),
        ("join", {"token": "x" * 300, "csr": "y"}, 422),
        ("join", {"token": "x", "csr": "y", "service": "billing"}, 422),
        ("renew", {"certificate": "x", "csr": "y", "proof": "z"}, 401),
        ("renew", {"certificate": "x" * 40_000, "csr": "y", "proof": "z"}, 422),
    ],
    ids=range(6),
)
def test_nonsense_is_refused(rig: Rig, path: str, body: dict[str, str], status: int) -> None:
    assert rig.ask("POST", f"/api/mesh/identity/{path}", body).status_code == status


def test_a_bad_request_does_not_use_up_a_token(rig: Rig) -> None:
    token = rig.token()
    body = {"token": token, "csr": "nothing"}
    assert rig.ask("POST", "/api/mesh/identity/join", body).status_code == 422
    assert rig.join(token).status_code == 200


def test_a_certificate_without_its_key_renews_nothing(rig: Rig) -> None:
    chain = rig.join(rig.token()).json()["chain"]
    answer = rig.renew(chain, new_key()[1])
    assert (answer.status_code, answer.json()["why"]) == (401, "certificate")


def test_one_that_has_ended_or_is_of_another_mesh_renews_nothing(rig: Rig, tmp_path: Path) -> None:
    _, key_pem = new_key()
    chain = rig.join(rig.token(), key_pem).json()["chain"]
    other = Rig(tmp_path / "other")
    assert "not issued here" in other.renew(chain, key_pem).json()["detail"]
    rig.wall += 3600
    assert "ended" in rig.renew(chain, key_pem).json()["detail"]


@pytest.mark.parametrize("kind", ["service", "joining", "serial"])
def test_who_is_denied_gets_no_more(rig: Rig, kind: str) -> None:
    _, key_pem = new_key()
    chain = rig.join(rig.token(), key_pem).json()["chain"]
    shown = read_shown(chain)
    what = {"service": "orders", "joining": shown.joining, "serial": shown.serial}[kind]
    later = rig.renew(chain, key_pem)
    assert later.status_code == 200
    body = {"kind": kind, "what": what, "why": "stolen"}
    denied = rig.ask("POST", "/api/mesh/denials", body)
    assert denied.status_code == 201, denied.text
    rig.restart()
    answer = rig.renew(chain, key_pem)
    assert (answer.status_code, answer.json()["why"]) == (403, "denied")
    row = rig.ask("GET", "/api/mesh/denials").json()["denials"][0]
    assert row["why"] == "stolen"
    gone = rig.ask("DELETE", f"/api/mesh/denials/{row['kind']}/{row['what']}")
    assert gone.status_code == 200
    assert rig.renew(chain, key_pem).status_code == 200
    assert rig.ask("DELETE", f"/api/mesh/denials/{row['kind']}/x").status_code == 404


def test_a_denied_service_does_not_come_back_by_a_token(rig: Rig) -> None:
    token = rig.token()
    rig.ask("POST", "/api/mesh/denials", {"what": "orders"})
    answer = rig.join(token)
    assert (answer.status_code, answer.json()["why"]) == (403, "denied")
    rig.ask("DELETE", "/api/mesh/denials/service/orders")
    assert rig.join(token).status_code == 200


def test_a_thief_who_renewed_is_denied_with_the_line(rig: Rig) -> None:
    """The serial that is known to be stolen is not the one the thief has by now."""
    key, key_pem = new_key()
    chain = rig.join(rig.token(), key_pem).json()["chain"]
    mine, mine_pem = new_key()
    request = request_for(mine)
    body = {"certificate": chain, "csr": request, "proof": prove(key, request)}
    stolen = rig.ask("POST", "/api/mesh/identity/renew", body).json()["chain"]
    what = {"kind": "serial", "what": read_shown(stolen).serial}
    assert rig.ask("POST", "/api/mesh/denials", what).json()["kind"] == "joining"
    assert rig.renew(stolen, mine_pem).status_code == 403
    assert rig.renew(chain, key_pem).status_code == 403


def test_one_service_has_so_many_certificates_in_a_minute(tmp_path: Path) -> None:
    few = config(mesh={"identity": {"signs_per_minute": 3}})
    rig = Rig(tmp_path, config=few)
    token = rig.token(uses=10)
    answers = [rig.join(token) for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["retry_after_s"] > 0
    # Those that were refused have used nothing up; others are not held up.
    assert rig.ask("GET", "/api/mesh/tokens").json()["tokens"][0]["uses_left"] == 7
    assert rig.join(rig.token("users")).status_code == 200


def test_tokens_are_listed_and_revoked(rig: Rig) -> None:
    made = rig.ask("POST", "/api/mesh/tokens", {"service": "users", "expires_in": "2d"}).json()
    rig.token("billing")
    rows = rig.ask("GET", "/api/mesh/tokens").json()["tokens"]
    assert [(row["service"], row["state"]) for row in rows] == [
        ("billing", "good"),
        ("users", "good"),
    ]
    assert all("token" not in row for row in rows)
    assert rig.ask("DELETE", f"/api/mesh/tokens/{made['id']}").json()["service"] == "users"
    assert rig.ask("DELETE", f"/api/mesh/tokens/{made['id']}").status_code == 404
    assert rig.join(made["token"]).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"service": "Users"},
        {"service": "a b"},
        {"service": "a", "expires_in": "0s"},
        {"service": "a", "expires_in": "900d"},
        {"service": "a", "expires_in": "soon"},
        {"service": "a", "uses": 0},
    ],
    ids=range(6),
)
def test_a_token_that_makes_no_sense_is_not_made(rig: Rig, body: dict[str, Any]) -> None:
    assert rig.ask("POST", "/api/mesh/tokens", body).status_code == 422


def test_without_a_mesh_everybody_is_told_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, config=config(mesh=None))
    for method, path, body in (
        ("POST", "/api/mesh/tokens", {"service": "a"}),
        ("POST", "/api/mesh/identity/join", {"token": "x", "csr": "y"}),
        ("GET", "/api/mesh/identity/bundle", None),
        ("POST", "/api/mesh/authority/root", {}),
    ):
        answer = rig.ask(method, path, body)
        assert answer.status_code == 503
        assert "mesh: {}" in answer.json()["detail"]
    assert rig.ask("GET", "/api/mesh/authority").json()["is_on"] is False
    assert rig.ask("GET", "/api/mesh/identities").json()["total"] == 0
    assert not (tmp_path / "mesh").exists()
    rows: Any = _Rows()
    rig.mesh_authority.rows_into(rows)
    assert not rows


class _Rows(dict[str, list[Any]]):
    def __missing__(self, name: str) -> list[Any]:
        self[name] = []
        return self[name]


def test_figures_tell_what_was_issued_and_refused(rig: Rig) -> None:
    token = rig.token()
    rig.join(token)
    rig.join(token)
    rows: Any = _Rows()
    rig.mesh_authority.rows_into(rows)
    assert rows["headgate_mesh_certificates_issued_total"] == [(["orders", "join"], 1)]
    assert rows["headgate_mesh_certificates_refused_total"] == [(["token"], 1)]
    assert rows["headgate_mesh_roots"] == [([], 1)]
    assert rows["headgate_mesh_join_tokens"] == [([], 0)]


# -- the disk -----------------------------------------------------------------------------------


def test_a_full_disk_lets_nobody_in_and_uses_up_no_token(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = rig.token()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = rig.join(token)
        assert answer.status_code == 503
        assert "space" in answer.json()["detail"]
        assert rig.ask("POST", "/api/mesh/tokens", {"service": "a"}).status_code == 503
        assert rig.ask("POST", "/api/mesh/denials", {"what": "a"}).status_code == 503
    assert rig.join(token).status_code == 200
    assert len(rig.mesh_authority.tokens()) == 1
    assert not rig.mesh_authority.denials()


@pytest.mark.parametrize("content", [b"", b"{}", b"\0\0", b'{"tokens": [1], "denials": []}'])
def test_a_spoilt_book_is_moved_aside_and_told(rig: Rig, content: bytes) -> None:
    token = rig.token()
    (rig.folder / "mesh" / FILE).write_bytes(content)
    rig.restart()
    assert any("deny it again" in words for words in rig.mesh_authority.worries())
    assert (rig.folder / "mesh" / f"{FILE}.spoilt").read_bytes() == content
    assert rig.join(token).status_code == 401
    assert rig.join(rig.token()).status_code == 200


def test_an_authority_that_cannot_be_opened_is_a_worry_until_it_can(rig: Rig) -> None:
    key = rig.folder / "mesh" / "authority.key"
    away = key.rename(rig.folder / "key")
    rig.restart()
    assert any("authority" in words for words in rig.mesh_authority.worries())
    assert rig.ask("GET", "/api/mesh/identity/bundle").status_code == 503
    away.rename(key)
    rig.turn()
    assert not rig.mesh_authority.worries()
    assert rig.join(rig.token()).status_code == 200


# -- the gateway's own --------------------------------------------------------------------------


def served(folder: Path) -> Config:
    listener = {"bind": "127.0.0.1:8443", "tls": {"certificate": "mesh"}}
    return config(listeners=[listener], state_dir=str(folder))


def test_the_gateway_has_an_identity_of_its_own_where_it_uses_one(tmp_path: Path) -> None:
    assert read_held(own_files(Rig(tmp_path / "plain").folder)) is None
    rig = Rig(tmp_path, config=served(tmp_path))
    files = own_files(tmp_path)
    held = read_held(files)
    assert held is not None
    assert str(held.id) == "spiffe://shop.internal/service/gateway"
    assert [topic for topic, _ in rig.said] == [CERTIFICATES_TOPIC]
    assert rig.turn() > 0
    rig.restart()
    again = read_held(files)
    assert again is not None
    assert again.serial == held.serial
    rig.wall += 1801
    rig.turn()
    later = read_held(files)
    assert later is not None
    assert later.serial != held.serial
    assert len(rig.said) == 2


def test_a_new_root_reaches_the_gateways_own_bundle_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, config=served(tmp_path))
    assert rig.ask("POST", "/api/mesh/authority/root", {}).status_code == 202
    rig.turn()
    assert own_files(tmp_path).bundle.read_text().count("BEGIN CERTIFICATE") == 2
    said = rig.ask("GET", "/api/mesh/authority").json()
    assert len(said["roots"]) == 2
    assert said["intermediates"][-1]["root"] == said["roots"][0]["id"]
    assert len(rig.said) == 2


@pytest.mark.parametrize("how", ["spoilt", "gone", "foreign"])
def test_an_own_identity_that_is_no_good_is_made_anew(tmp_path: Path, how: str) -> None:
    rig = Rig(tmp_path, config=served(tmp_path))
    files = own_files(tmp_path)
    if how == "spoilt":
        files.identity.write_text("x")
    elif how == "gone":
        files.bundle.unlink()
    else:
        other = Rig(tmp_path / "other", config=served(tmp_path / "other"))
        files.identity.write_bytes(own_files(other.folder).identity.read_bytes())
    rig.turn()
    held = read_held(files)
    assert held is not None
    assert files.bundle.read_text() == rig.mesh_authority.bundle()
    rig.turn()
    assert len(rig.said) == 2


def test_joining_needs_no_token_of_the_admin_api_and_orders_do() -> None:
    async def status(method: str, path: str, host: bytes = b"127.0.0.1:9900") -> int:
        said: list[int] = []

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                said.append(message["status"])

        guard = Guard(app, own_host="127.0.0.1", is_local=False, token=lambda: "t")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(b"host", host)],
            "client": ("127.0.0.1", 5),
            "state": {},
        }
        await guard(cast("Any", scope), cast("Any", receive), cast("Any", send))
        return said[0]

    async def all_of_them() -> None:
        for path in ("join", "renew"):
            assert await status("POST", f"/api/mesh/identity/{path}") == 299
            # Services know control by a name of their own.
            assert await status("POST", f"/api/mesh/identity/{path}", b"control:9900") == 299
        assert await status("GET", "/api/mesh/identity/bundle") == 299
        for method, path in (
            ("GET", "/api/mesh/tokens"),
            ("POST", "/api/mesh/tokens"),
            ("POST", "/api/mesh/denials"),
            ("GET", "/api/mesh/identities"),
            ("POST", "/api/mesh/authority/root"),
        ):
            assert await status(method, path) == 401

    asyncio.run(all_of_them())
