"""The agent: how a service comes by its identity and keeps it, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from headgate.mesh.identity import Agent, SpiffeId
from headgate.mesh.identity.agent import RENEW, NoIdentity
from headgate.mesh.identity.asking import ControlAsked, ControlAway
from headgate.mesh.identity.certificates import read_shown
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.renewing import Held, due_at, pause_s, read_held
from headgate.security.service_identity.contexts import IdentityFiles
from tests.mesh.identity.mesh_rig import DOMAIN, RULES, WALL, Clock, Desk, short

HALF_S = RULES.ttl_s / 2


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "authority")


def after_pause(agent: Agent) -> float:
    """A turn as if the pause after a failure were over."""
    agent._again_at = 0.0
    return agent.turn()


def serial(files: IdentityFiles) -> str:
    return read_shown(files.identity.read_text()).serial


# -- joining ------------------------------------------------------------------------------------


def test_it_joins_once_and_keeps_what_it_got(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    assert agent.turn() == 0.0
    assert agent.turn() > 0
    assert agent.id == SpiffeId(DOMAIN, "orders")
    assert agent.server_name("users") == "users.mesh.internal"
    for path in agent.files.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (agent.files.folder / "next.key").exists()
    # Another start needs no token any more.
    again = desk.agent(tmp_path / "own")
    assert again.turn() > 0
    assert again.id == agent.id
    assert desk.asked == ["join"]


def test_a_lost_answer_costs_no_token(desk: Desk, tmp_path: Path) -> None:
    token = desk.token("orders")
    desk.loses = 1
    assert desk.agent(tmp_path / "own", token=token).turn() > 0
    # Killed in between: the next process has the same key.
    agent = desk.agent(tmp_path / "own", token=token)
    assert agent.turn() == 0.0
    assert agent.turn() > 0
    assert desk.asked == ["join", "join"]


def test_a_token_file_is_read_at_every_try(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "token"
    agent = desk.agent(tmp_path / "own", token_file=path)
    agent.turn()
    assert "token" in agent.snapshot().trouble
    path.write_text(desk.token("orders") + "\n")
    assert after_pause(agent) == 0.0


def test_it_refuses_to_be_somebody_else(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", service="billing", token=desk.token("orders"))
    agent.turn()
    assert "orders" in agent.snapshot().trouble
    assert not agent.files.identity.exists()


def test_the_folder_of_another_service_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    first = desk.agent(tmp_path / "own", token=desk.token("orders"))
    first.turn()
    before = serial(first.files)
    other = desk.agent(tmp_path / "own", service="billing", token=desk.token("billing"))
    other.turn()
    assert "folder of its own" in other.snapshot().trouble
    assert serial(first.files) == before
    assert desk.asked == ["join"]


def test_who_asked_is_told_of_new_files(desk: Desk, tmp_path: Path) -> None:
    told: list[bool] = []
    files = IdentityFiles(tmp_path / "own")
    agent = desk.agent(
        tmp_path / "own",
        token=desk.token("orders"),
        on_renewed=lambda: told.append(files.identity.exists()),
    )
    agent.turn()
    agent.turn()
    assert told == [True]


def test_a_used_token_is_told_at_once(desk: Desk, tmp_path: Path) -> None:
    token = desk.token("orders")
    desk.agent(tmp_path / "first", token=token).turn()
    began = time.monotonic()
    with pytest.raises(NoIdentity, match="used already"):
        desk.agent(tmp_path / "second", token=token).start(60.0)
    assert time.monotonic() - began < 50


def test_without_anybody_to_ask_it_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("HEADGATE_URL", raising=False)
    with pytest.raises(NoIdentity, match="HEADGATE_URL"):
        Agent(tmp_path)
    with pytest.raises(ControlAway, match="no address"):
        Agent(tmp_path, control="ftp://x")


# -- renewing -----------------------------------------------------------------------------------


def test_it_renews_at_half_of_its_life_and_keeps_its_line(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    first = read_shown(agent.files.identity.read_text())
    for _ in range(3):
        left_s = agent.turn()
        assert 0.4 * RULES.ttl_s - 1 <= left_s <= HALF_S + 1
        desk.wall.now += left_s + 0.1
        assert agent.turn() == 0.0
    last = read_shown(agent.files.identity.read_text())
    assert last.joining == first.joining
    assert last.serial != first.serial
    assert last.public_key != first.public_key
    assert desk.asked == ["join", "renew", "renew", "renew"]


def test_many_services_that_joined_together_do_not_renew_together(
    desk: Desk, tmp_path: Path
) -> None:
    due = set()
    for at in range(8):
        agent = desk.agent(tmp_path / str(at), token=desk.token("orders"), rng=None)
        agent.turn()
        due.add(round(agent.turn()))
    assert len(due) > 4


def test_processes_of_one_folder_ask_once(desk: Desk, tmp_path: Path) -> None:
    token = desk.token("orders")
    agents = [desk.agent(tmp_path / "own", token=token, rng=None) for _ in range(4)]
    for each in agents:
        each.turn()
        each.turn()
    assert desk.asked == ["join"]
    desk.wall.now += HALF_S + 1
    for each in agents:
        each.turn()
    assert desk.asked == ["join", "renew"]


def test_while_another_process_asks_it_waits(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.files.folder.mkdir()
    with (agent.files.folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert 0 < agent.turn() < 1
        assert not desk.asked
    assert agent.turn() == 0.0


def test_while_control_is_away_it_goes_on_to_the_end_and_says_so(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()
    desk.trouble = ControlAway("http://c: cannot be asked: refused")
    desk.wall.now += HALF_S + 1
    before = serial(agent.files)
    pauses = [after_pause(agent) for _ in range(6)]
    assert max(pauses) <= HALF_S / 20 + 1
    assert serial(agent.files) == before
    state = agent.snapshot()
    assert state.failures == 6
    assert "refused" in state.trouble
    assert len(caplog.records) == 1
    assert "is not renewed" in caplog.text
    desk.trouble = None
    assert after_pause(agent) == 0.0
    assert serial(agent.files) != before
    assert agent.snapshot().trouble == ""


def test_after_the_end_only_a_token_helps(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(desk.token("orders", life_s=2 * RULES.ttl_s))
    agent = desk.agent(tmp_path / "own", token_file=path)
    agent.turn()
    agent.turn()
    desk.wall.now += RULES.ttl_s + 1
    assert agent.turn() > 0
    assert "used already" in agent.snapshot().trouble
    path.write_text(desk.token("orders"))
    assert after_pause(agent) == 0.0
    assert agent.turn() > 0
    assert desk.asked[-1] == "join"


def test_who_is_denied_keeps_what_it_has_and_gets_no_more(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()
    desk.book.deny("service", "orders", wall=WALL, by="ops", why="")
    desk.wall.now += HALF_S + 1
    before = serial(agent.files)
    agent.turn()
    assert "denied" in agent.snapshot().trouble
    assert serial(agent.files) == before


def test_a_clock_that_jumps_forward_renews_at_once(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()
    desk.wall.now += 0.8 * RULES.ttl_s
    assert agent.turn() == 0.0
    assert desk.asked == ["join", "renew"]


def test_a_clock_that_is_put_back_does_not_let_it_end(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()
    real = time.monotonic
    # Ours only: control goes by the right one.
    agent._wall = Clock(WALL - 100_000)
    assert agent.turn() > 0
    monkeypatch.setattr(time, "monotonic", lambda: real() + HALF_S + 1)
    desk.wall.now += HALF_S + 1
    assert agent.turn() == 0.0
    assert desk.asked == ["join", "renew"]


# -- answers that are not what was asked for ----------------------------------------------------


def other_key(desk: Desk, answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "chain": desk.issue("orders")[0].chain}


def other_bundle(desk: Desk, answer: dict[str, Any]) -> dict[str, Any]:
    from headgate.mesh.identity.certificates import make_root

    return {**answer, "bundle": make_root(DOMAIN, WALL, 3600.0, 60.0).pem}


def no_intermediate(desk: Desk, answer: dict[str, Any]) -> dict[str, Any]:
    end = "-----END CERTIFICATE-----\n"
    return {**answer, "chain": answer["chain"].split(end)[0] + end}


BAD = {
    "other-key": other_key,
    "other-bundle": other_bundle,
    "no-intermediate": no_intermediate,
    "empty": lambda _desk, _answer: {},
    "numbers": lambda _desk, _answer: {"chain": 1, "bundle": 2},
    "text": lambda _desk, answer: {**answer, "chain": "x" * 1000},
    "no-bundle": lambda _desk, answer: {**answer, "bundle": ""},
}


@pytest.mark.parametrize("how", BAD)
def test_an_answer_that_peers_would_refuse_is_not_taken(
    how: str, desk: Desk, tmp_path: Path
) -> None:
    def ask(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = BAD[how](desk, desk(path, body))
        return answer

    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    before = agent.files.identity.read_bytes(), agent.files.bundle.read_bytes()
    agent._ask = ask
    desk.wall.now += HALF_S + 1
    agent.turn()
    assert agent.snapshot().trouble
    assert before == (agent.files.identity.read_bytes(), agent.files.bundle.read_bytes())


def test_a_renewal_that_makes_it_somebody_else_is_not_taken(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()

    def ask(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert path == RENEW
        from headgate.mesh.identity.certificates import Request, read_request

        asked = read_request(body["csr"])
        request = Request(asked.public_key, asked.der)
        issued = desk.authority.sign(request, "billing", "b2", desk.wall())
        return {"chain": issued.chain, "bundle": issued.bundle}

    agent._ask = ask
    desk.wall.now += HALF_S + 1
    agent.turn()
    assert "billing" in agent.snapshot().trouble
    held = read_held(agent.files)
    assert held is not None
    assert held.id.service == "orders"


# -- the disk -----------------------------------------------------------------------------------


def test_a_full_disk_loses_no_token_and_no_certificate(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    real, room = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for room in (0, 2, 2):  # nothing fits; the key does; the bundle does as well
        after_pause(agent)
        assert "space" in agent.snapshot().trouble
        assert read_held(agent.files) is None
    room = 100
    assert after_pause(agent) == 0.0
    before = serial(agent.files)
    agent.turn()
    desk.wall.now += HALF_S + 1
    room = 0
    agent.turn()
    assert serial(agent.files) == before
    room = 100
    assert after_pause(agent) == 0.0
    assert serial(agent.files) != before


def test_what_a_killed_process_left_is_removed_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.files.folder.mkdir()
    for name in (".identity.pem.4711", ".next.key.12", "mine.txt", ".mine"):
        (agent.files.folder / name).write_text("x")
    assert agent.turn() == 0.0
    assert {path.name for path in agent.files.folder.iterdir()} == {
        "identity.pem",
        "bundle.pem",
        "lock",
        "mine.txt",
        ".mine",
    }


@pytest.mark.parametrize("content", ["", "x", "-----BEGIN CERTIFICATE-----\n", "\0" * 100])
def test_spoilt_files_are_as_if_they_were_not_there(
    desk: Desk, tmp_path: Path, content: str
) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.files.identity.write_text(content)
    agent._token = desk.token("orders")
    assert agent.turn() == 0.0
    assert agent.turn() > 0


# -- pure ---------------------------------------------------------------------------------------


@given(st.floats(-1e9, 1e9), st.floats(1, 1e6), st.floats(0, 1))
def test_it_is_due_well_before_its_end(got: float, life_s: float, chance: float) -> None:
    held = Held(SpiffeId("a", "b"), "1", WALL + got, WALL + got + life_s, "", "")
    due = due_at(held, chance)
    assert held.got <= due <= held.ends
    assert due - held.got == pytest.approx(life_s * (0.4 + 0.1 * chance), abs=1e-3)


@given(st.integers(1, 60), st.floats(0, 100), st.floats(-10, 1e5), st.none() | st.floats(0, 1e6))
def test_pauses_grow_and_are_bounded(
    failures: int, before_s: float, life_s: float, asked_s: float | None
) -> None:
    import random

    wait_s = pause_s(failures, before_s, life_s, random.Random(1), asked_s)
    assert 0.05 <= wait_s <= 60
    if asked_s:
        assert wait_s >= min(asked_s, 60)


def test_the_agent_says_no_secret(desk: Desk, tmp_path: Path) -> None:
    token = desk.token("orders")
    agent = desk.agent(tmp_path / "own", token=token)
    agent.turn()
    held = read_held(agent.files)
    said = f"{agent!r} {agent.snapshot()!r} {held!r}"
    assert token not in said
    assert "PRIVATE" not in said


# -- alive --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_certificates_change_under_load_and_no_request_fails(tmp_path: Path) -> None:
    """Both sides renew all the time, while every request makes a connection of its own and one
    connection lives through it all.
    """
    desk = Desk(tmp_path / "authority", Clock(time.time()), short(3600.0))
    # Not of the test's machine: it stands still at times, and certificates would end.
    own = {
        name: desk.agent(tmp_path / name, token=desk.token(name), rng=None)
        for name in ("users", "orders")
    }
    for each in own.values():
        each.start()
    try:
        served, serials, failed = asyncio.run(_load(own["users"], own["orders"]))
    finally:
        for each in own.values():
            each.close()
    assert not failed
    assert served >= 100
    assert len(serials) >= 4
    assert all(each.snapshot().renewals >= 4 for each in own.values())
    assert not [t for t in threading.enumerate() if t.name == "headgate-identity"]


async def _load(users: Agent, orders: Agent) -> tuple[int, set[str], list[str]]:
    served, failed = 0, list[str]()
    serials: set[str] = set()
    sides = users.contexts().server, orders.contexts().client

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                who = users.peer(writer.get_extra_info("ssl_object"))
                writer.write(f"{who} ".encode() + line)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=sides[0])
    port = server.sockets[0].getsockname()[1]

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        writer.write(b"x\n")
        line = await reader.readline()
        if line != f"spiffe://{DOMAIN}/service/orders x\n".encode():
            failed.append(repr(line))
        served += 1

    def connect() -> Any:
        return asyncio.open_connection(
            "127.0.0.1", port, ssl=sides[1], server_hostname=orders.server_name("users")
        )

    try:
        long = await connect()
        until = time.monotonic() + 25
        while (served < 100 or len(serials) < 4) and time.monotonic() < until:
            for each in (users, orders):
                each.renew_soon()
            await ask(*long)
            for _ in range(8):
                try:
                    reader, writer = await connect()
                    serials.add(writer.get_extra_info("peercert")["serialNumber"])
                    await ask(reader, writer)
                    writer.close()
                    await writer.wait_closed()
                except (OSError, ssl.SSLError) as error:
                    failed.append(str(error))
        while any(each.snapshot().renewals < 4 for each in (users, orders)):
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.01)
        await ask(*long)
        long[1].close()
        await long[1].wait_closed()
    finally:
        server.close()
        await server.wait_closed()
    return served, serials, failed


@pytest.mark.integration
def test_servers_and_clients_of_others_take_the_contexts(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "authority", Clock(time.time()))
    users, orders = (
        desk.agent(tmp_path / name, token=desk.token(name)) for name in ("users", "orders")
    )
    for each in (users, orders):
        each.turn()
        each.turn()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    def ask(url: str) -> str:
        with httpx.Client(verify=orders.tls_for("users")) as client:
            return client.get(url).text

    async def main() -> None:
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        config.load()
        config.ssl = users.contexts().server
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        try:
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
            url = f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
            async with httpx.AsyncClient(verify=orders.tls_for("users")) as client:
                assert (await client.get(url)).text == "hello"
            assert await asyncio.to_thread(ask, url) == "hello"
            async with httpx.AsyncClient(verify=orders.tls_for("billing")) as client:
                with pytest.raises(httpx.ConnectError, match="mismatch"):
                    await client.get(url)
        finally:
            server.should_exit = True
            await task

    asyncio.run(main())


@pytest.mark.integration
def test_it_lives_as_long_as_its_block(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "authority", Clock(time.time()))

    async def use() -> SpiffeId:
        async with desk.agent(tmp_path / "own", token=desk.token("orders")) as own:
            return own.id

    assert asyncio.run(use()).service == "orders"
    with desk.agent(tmp_path / "own") as own:
        assert own.id.service == "orders"
    assert not [t for t in threading.enumerate() if t.name == "headgate-identity"]


@pytest.mark.integration
def test_control_that_is_not_there_or_not_control_is_told(tmp_path: Path) -> None:
    from tests.ports import free_port

    with pytest.raises(ControlAway, match="cannot be asked"):
        ControlAsked(f"http://127.0.0.1:{free_port()}")("/x", {})
    with pytest.raises(ControlAway, match="cannot be asked"):
        ControlAsked(f"unix:{tmp_path}/none.sock")("/x", {})
    for answer, said in (
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "not control's"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "not control's"),
        (b"nonsense\r\n\r\n", "cannot be asked"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}", "answered 500"),
        (b"", "cannot be asked"),
    ):
        with pytest.raises(ControlAway, match=said):
            _asked_of(answer)
    body = b'{"detail":"no\\nway","why":"denied","retry_after_s":3}'
    head = b"HTTP/1.1 403 X\r\ncontent-length: %d\r\n\r\n" % len(body)
    with pytest.raises(IdentityRefused, match="no way") as error:
        _asked_of(head + body)
    assert (error.value.why, error.value.retry_after_s) == ("denied", 3.0)
    head = b"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}"
    with pytest.raises(IdentityRefused) as error:
        _asked_of(head)
    assert (error.value.why, error.value.retry_after_s) == ("rate", 7.0)


def _asked_of(answer: bytes) -> object:
    """What is made of these bytes."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            with raw:
                raw.settimeout(20)
                raw.recv(65536)
                raw.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return ControlAsked(f"http://127.0.0.1:{listener.getsockname()[1]}")("/x", {})
        finally:
            thread.join(20)


@pytest.mark.integration
def test_a_service_that_only_serves_from_the_files_loads_little() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, headgate.mesh.identity.agent\n"
            "heavy = {'cryptography', 'pydantic', 'fastapi', 'sqlite3', 'hvac'}\n"
            "print(sorted(heavy & set(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout.strip() == "[]"
