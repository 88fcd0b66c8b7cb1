"""`headgate sidecar`: what it refuses before it becomes one, and what it hands over."""

from __future__ import annotations

import asyncio
import socket

import pytest

from headgate.cli import sidecar as command
from headgate.cli.app import main
from headgate.mesh.sidecar.joining import look
from headgate.mesh.sidecar.reading import read
from headgate.wire.first_byte import begins_with_tls

FILE = """
listeners: [127.0.0.1:8080]
services: {users: {discover: registry}}
routes: [{match: {path: /}, to: users}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HEADGATE_URL", "HEADGATE_TOKEN", "HEADGATE_JOIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "gw.yaml").write_text(FILE)
    return tmp_path


ORDERS = ("--name", "orders", "--port", "3004", "gw.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gw.yaml",), "say --name"),
        (("--name", "orders", "gw.yaml"), "say --port, or --inbound off"),
        (("--name", "orders", "--port", "1"), "give the gateway's FILE, or --control"),
        ((*ORDERS, "--process", "http://127.0.0.1:1"), "give one of them"),
        (("--name", "o", "--process", "ftp://x", "gw.yaml"), "--process 'ftp://x' is not"),
        ((*ORDERS, "--outbound", "0.0.0.0:9901"), "calls as this service"),
        ((*ORDERS, "--outbound", "9901"), "--outbound '9901' is not an address"),
        ((*ORDERS, "--inbound", "nonsense"), "--inbound 'nonsense'"),
        ((*ORDERS, "--mtls", "maybe"), "none of auto, off, permissive, strict"),
        ((*ORDERS, "--mtls", "strict"), "needs an identity"),
        ((*ORDERS, "--health", "ready"), "is no path"),
        ((*ORDERS, "--drain", "soon"), "--drain 'soon'"),
        ((*ORDERS, "--advertise", "here"), "--advertise 'here'"),
        ((*ORDERS, "--token-file", "none.token"), "cannot be read as a token"),
        (("--name", "orders", "--port", "1", "none.yaml"), "there is no file none.yaml"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_before_anything_begins(folder, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(["sidecar", *words])
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


@pytest.fixture
def handed(monkeypatch):
    """The settings that the command would become a sidecar with."""
    found = []

    def become(settings):
        found.append(settings)
        raise SystemExit(0)

    monkeypatch.setattr(command, "_become", become)

    def run(*words: str):
        with pytest.raises(SystemExit):
            main(["sidecar", *words])
        return found.pop()

    return run


def test_without_a_token_nothing_is_encrypted_and_with_one_the_rules_decide(
    folder, handed, monkeypatch
):
    alone = handed(*ORDERS)
    assert (alone.beside.mtls, alone.control) == ("off", "")
    assert alone.beside.state_dir == str(folder / ".headgate-orders")
    monkeypatch.setenv("HEADGATE_JOIN_TOKEN", "secret-1")
    monkeypatch.setenv("HEADGATE_URL", "http://127.0.0.1:9")
    joins = handed(*ORDERS)
    assert (joins.beside.mtls, joins.join_token) == ("auto", "secret-1")
    assert joins.control == "http://127.0.0.1:9"


def test_a_process_that_only_calls_needs_no_port(folder, handed):
    found = handed("--name", "cron", "--inbound", "off", "gw.yaml")
    assert not found.beside.takes_calls
    assert found.beside.outbound == "127.0.0.1:9901"
    only = handed(
        "--name", "users", "--process", "unix:/run/u.sock", "--outbound", "off", "gw.yaml"
    )
    assert (only.beside.process, only.beside.outbound) == ("unix:/run/u.sock", "")


# -- what children do ------------------------------------------------------------------------------


def test_a_file_is_read_for_what_a_sidecar_needs_or_its_faults_are_said(folder):
    found = read({"file": str(folder / "gw.yaml")})
    assert found == {"portion": {"services": {"users": {"discover": "registry"}}}}
    (folder / "bad.yaml").write_text("listeners: 7\n")
    assert any("bad.yaml:1" in fault for fault in read({"file": "bad.yaml"})["faults"])


def test_an_identity_that_cannot_be_had_is_said(folder):
    asked = {"folder": str(folder / "own"), "control": "http://127.0.0.1:1", "service": "orders"}
    for token, said in (("", "no token to join with"), ("t", "cannot be asked")):
        found = look({**asked, "token": token})
        assert said in found["trouble"]


# -- one port for both -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "found"),
    [(b"\x16\x03\x01", True), (b"GET / HTTP/1.1\r\n", False), (b"PRI", False), (None, None)],
    ids=["tls", "http", "http2", "closed"],
)
def test_the_first_byte_tells_tls_and_stays_where_it_is(sent, found):
    async def play():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            asking = asyncio.create_task(begins_with_tls(ours, 20.0))
            await asyncio.sleep(0)
            if sent is None:
                theirs.close()
            else:
                theirs.sendall(sent)
            assert await asking is found
            assert sent is None or ours.recv(100) == sent

    asyncio.run(play())


def test_silence_is_not_waited_for_for_ever():
    async def play():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            assert await begins_with_tls(ours, 0.01) is None

    asyncio.run(play())
