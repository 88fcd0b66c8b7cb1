"""Mutual TLS at a running gateway: who shows which certificate, on new and resumed connections."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx
import pytest

from headgate.testing import EchoServer
from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get
from tests.wire.test_tls import Ca

pytestmark = pytest.mark.integration


@pytest.fixture
def ca(tmp_path):
    return Ca(tmp_path)


def listening(ca: Ca, echo: EchoServer, how: str = "require", **route: Any) -> dict[str, Any]:
    cert, key = ca.issue("h.example")
    tls = {
        "cert_file": cert,
        "key_file": key,
        "client_ca_file": str(ca.path),
        "client_certificate": how,
    }
    made = document(echo.url, listener={"tls": tls}, route={"auth": "certificate", **route})
    return {**made, "auth": {"certificate": {"match": [{"cn": "billing", "roles": ["biller"]}]}}}


def client_context(ca: Ca, *files: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca.path))
    if files:
        context.load_cert_chain(*files)
    return context


def test_a_certificate_says_who_asks(start, ca, echo):
    gateway = start(listening(ca, echo, allow={"roles": "biller"}))
    for cn, status in (("billing", 200), ("other", 403)):
        tls = client_context(ca, *ca.issue(cn=cn))
        client = gateway.client(tls=tls, server_name="h.example")
        for _ in range(3):
            client.send(get("/"))
            assert client.answer()[0].status == status
    assert echo.seen[-1].get("x-auth-subject") == "billing"
    assert echo.seen[-1].get("x-auth-roles") == "biller"


def test_equal_heads_of_two_clients_are_two_clients(start, ca, echo):
    gateway = start(listening(ca, echo))
    one, two = (
        gateway.client(tls=client_context(ca, *ca.issue(cn=cn)), server_name="h.example")
        for cn in ("ann", "bob")
    )
    for client, who in ((one, "ann"), (two, "bob"), (one, "ann"), (one, "ann"), (two, "bob")):
        client.send(get("/"))
        assert client.answer()[0].status == 200
        assert echo.seen[-1].get("x-auth-subject") == who


def test_without_a_certificate_there_is_no_connection(start, ca, echo):
    gateway = start(listening(ca, echo))
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        client = gateway.client(tls=client_context(ca), server_name="h.example")
        client.send(get("/"))  # in TLS 1.3 the refusal comes after the client's own handshake
        client.answer()
    assert not echo.seen


def test_one_of_another_authority_is_refused(start, ca, echo, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = Ca(tmp_path / "other")
    for how in ("require", "ask"):
        gateway = start(listening(ca, echo, how))
        context = client_context(ca, *stranger.issue(cn="billing"))
        with pytest.raises((ssl.SSLError, OSError, AssertionError)):
            client = gateway.client(tls=context, server_name="h.example")
            client.send(get("/"))
            client.answer()
    assert not echo.seen


def test_where_one_is_only_asked_for_the_route_decides(start, ca, echo):
    gateway = start(listening(ca, echo, "ask"))
    client = gateway.client(tls=client_context(ca), server_name="h.example")
    client.send(get("/"))
    assert client.answer()[0].status == 401


def test_a_resumed_session_still_knows_the_certificate(start, ca, echo):
    gateway = start(listening(ca, echo))
    context = client_context(ca, *ca.issue(cn="ann"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its sessions can be taken over at once
    first = gateway.client(tls=context, server_name="h.example")
    first.send(get("/"))
    assert first.answer()[0].status == 200
    again = context.wrap_socket(
        socket.create_connection(("127.0.0.1", gateway.port())),
        server_hostname="h.example",
        session=first.sock.session,
    )
    with again:
        assert again.session_reused
        again.sendall(get("/again"))
        assert again.recv(100).startswith(b"HTTP/1.1 200 ")
    assert echo.seen[-1].get("x-auth-subject") == "ann"


def test_http2_knows_the_certificate_as_well(start, ca, echo):
    gateway = start(listening(ca, echo))
    context = client_context(ca, *ca.issue(cn="ann"))
    context.check_hostname = False
    with httpx.Client(http2=True, verify=context) as client:
        answer = client.get(f"https://127.0.0.1:{gateway.port()}/")
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert echo.seen[-1].get("x-auth-subject") == "ann"


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_authorities_that_are_dismissed_vouch_for_nobody_on_open_connections(
    start, ca, echo, tmp_path, http2
):
    made = listening(ca, echo)
    gateway = start(made)
    (tmp_path / "other").mkdir()
    other = Ca(tmp_path / "other")
    tls = client_context(ca, *ca.issue(cn="billing"))
    if http2:
        tls.set_alpn_protocols(["h2"])
        tls.check_hostname = False
    client = (Client(gateway.port(), tls=tls) if http2
              else gateway.client(tls=tls, server_name="h.example"))  # fmt: skip

    def asks() -> int:
        if isinstance(client, Client):
            return client.get("/").status
        client.send(get("/"))
        return client.answer()[0].status

    try:
        assert [asks() for _ in range(3)] == [200] * 3
        gateway.apply(made)
        assert [asks() for _ in range(3)] == [200] * 3
        changed = {**made, "listeners": [{**made["listeners"][0]}]}
        changed["listeners"][0]["tls"] = {
            **made["listeners"][0]["tls"], "client_ca_file": str(other.path),
        }  # fmt: skip
        gateway.apply(changed)
        assert asks() == 401
    finally:
        client.close()
