"""TLS that comes to nothing, on either side: it is counted, and somebody says why."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import logging
import socket
import ssl
import threading
from functools import partial

import pytest
import trustme

from headgate.gateway import listener as listener_module
from headgate.gateway.handshakes import FailedHandshakes
from headgate.observe import ListenerStats
from tests.gateway.rig import PATIENCE_S, document, get, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def issue(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")

    def issued(name, **more):
        made = authority.issue_cert("localhost", "127.0.0.1", **more)
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return {"cert_file": str(cert), "key_file": str(key)}

    return issued


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def failed(gateway, fault, count=1):
    """Whether so many have been counted under this class, and nothing under another."""
    rows = gateway.on_loop(gateway.worker.snapshot)["rows"].get("headgate_tls_handshakes_total", [])
    counts = {labels[1]: value for labels, value in rows if labels[1] != "ok" and value}
    return counts == {fault: count}


def bare(gateway, data):
    with socket.create_connection(("127.0.0.1", gateway.port()), timeout=PATIENCE_S) as sock:
        if data:
            sock.sendall(data)
        with contextlib.suppress(OSError):
            while sock.recv(4096):
                pass


def shake(gateway, context, name="localhost"):
    sock = socket.create_connection(("127.0.0.1", gateway.port()), timeout=PATIENCE_S)
    with (
        sock,
        contextlib.suppress(OSError),
        context.wrap_socket(sock, server_hostname=name) as tls,
    ):
        tls.sendall(get())
        tls.recv(1)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", "not_tls"),
        (b"CONNECT h:443 HTTP/1.1\r\nhost: h\r\n\r\n", "not_tls"),
        (b"SSH-2.0-OpenSSH_9.6\r\n" * 10, "not_tls"),
        (b"\x00" * 64, "not_tls"),
    ],
    ids=["http", "connect", "ssh", "zeros"],
)
def test_what_is_no_tls(start, instance, issue, data, fault, caplog):
    caplog.set_level(logging.INFO, "headgate.tls")
    gateway = start(document(instance, listener={"tls": issue("plain")}))
    for count in (1, 2, 3):
        bare(gateway, data)
        wait_until(partial(failed, gateway, fault, count))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("127.0.0.1:0: a TLS handshake failed (not_tls): ")


def test_a_client_that_is_too_old(start, instance, issue, trusting):
    tls = {**issue("new"), "min_version": "1.3"}
    gateway = start(document(instance, listener={"tls": tls}))
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    shake(gateway, trusting)
    wait_until(lambda: failed(gateway, "version"))


def test_a_client_with_other_ciphers(start, instance, issue, trusting):
    gateway = start(document(instance, listener={"tls": issue("ciphers")}))
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    trusting.set_ciphers("AES128-SHA256")
    shake(gateway, trusting)
    wait_until(lambda: failed(gateway, "no_shared_cipher"))


@pytest.mark.parametrize(
    ("why", "alert"),
    [
        ("version", "ALERT_PROTOCOL_VERSION"),
        ("cipher", "ALERT_HANDSHAKE_FAILURE"),
        ("no certificate, 1.2", "ALERT_HANDSHAKE_FAILURE"),
        ("no certificate, 1.3", "ALERT_CERTIFICATE_REQUIRED"),
    ],
)
def test_a_client_that_fails_is_told_why(start, instance, issue, ca_file, trusting, why, alert):
    tls = dict(issue("told"))
    if why == "version":
        tls["min_version"] = "1.3"
    elif why != "cipher":
        tls["client_ca_file"] = ca_file
    if not why.endswith("1.3"):
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    if why == "cipher":
        trusting.set_ciphers("AES128-SHA256")
    gateway = start(document(instance, listener={"tls": tls}))
    sock = socket.create_connection(("127.0.0.1", gateway.port()), timeout=PATIENCE_S)
    with (
        sock,
        pytest.raises(ssl.SSLError) as caught,
        trusting.wrap_socket(sock, server_hostname="localhost") as told,
    ):
        told.recv(1)  # with TLS 1.3 the client hears of it after its own part
    assert alert in str(caught.value.reason)
    fault = why if why == "version" else "no_client_certificate"
    wait_until(lambda: failed(gateway, "no_shared_cipher" if why == "cipher" else fault))


def test_who_has_been_told_and_stays_is_ended(start, instance, issue, monkeypatch):
    monkeypatch.setattr(listener_module, "_HANDSHAKE_S", 0.3)
    tls = {**issue("stays"), "min_version": "1.3"}
    gateway = start(document(instance, listener={"tls": tls}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(("127.0.0.1", gateway.port()), timeout=PATIENCE_S) as sock:
        sock.sendall(outgoing.read())
        assert sock.recv(100)[:1] == b"\x15"  # an alert
        assert sock.recv(100) == b""
    assert failed(gateway, "version")


def test_a_client_that_does_not_trust_us(start, instance, issue, caplog):
    caplog.set_level(logging.INFO, "headgate.tls")
    gateway = start(document(instance, listener={"tls": issue("stranger")}))
    shake(gateway, ssl.create_default_context())
    wait_until(lambda: failed(gateway, "certificate_refused"))
    assert [record.getMessage() for record in caplog.records] == [
        "127.0.0.1:0: a TLS handshake failed (certificate_refused): tlsv1 alert unknown ca;"
        " the client does not trust our certificate; the client asked for localhost"
    ]


def test_client_certificates(start, instance, issue, ca_file, trusting):
    tls = {**issue("mutual"), "client_ca_file": ca_file}
    gateway = start(document(instance, listener={"tls": tls}))
    shake(gateway, trusting)
    wait_until(lambda: failed(gateway, "no_client_certificate"))
    gateway.close()


def test_a_client_certificate_of_somebody_else(start, instance, issue, ca_file, trusting, tmp_path):
    tls = {**issue("mutual2"), "client_ca_file": ca_file}
    gateway = start(document(instance, listener={"tls": tls}))
    trustme.CA().issue_cert("me").configure_cert(trusting)
    shake(gateway, trusting)
    wait_until(lambda: failed(gateway, "client_certificate"))


def test_a_client_that_closes_is_counted_and_not_told(start, instance, issue, caplog):
    caplog.set_level(logging.INFO, "headgate.tls")
    gateway = start(document(instance, listener={"tls": issue("closing")}))
    for count, data in enumerate((b"", b"\x16\x03\x01"), 1):
        with socket.create_connection(("127.0.0.1", gateway.port())) as sock:
            sock.sendall(data)
        wait_until(partial(failed, gateway, "closed", count))
    assert not caplog.records


def test_a_client_that_says_nothing(start, instance, issue, monkeypatch, caplog):
    monkeypatch.setattr(listener_module, "_HANDSHAKE_S", 0.3)
    caplog.set_level(logging.INFO, "headgate.tls")
    gateway = start(document(instance, listener={"tls": issue("silent")}))
    bare(gateway, b"")
    wait_until(lambda: failed(gateway, "timeout"))
    assert "not done within 0.3 s" in caplog.text


def test_handshakes_that_succeed_are_no_failures(start, instance, issue, trusting):
    gateway = start(document(instance, listener={"tls": issue("fine")}, routes=[{"respond": 200}]))
    for _ in range(3):
        with gateway.client(tls=trusting, server_name="localhost") as client:
            client.send(get())
            assert client.answer()[0].status == 200
    wait_until(lambda: gateway.clients == 0)
    gateway.on_loop(gc.collect)
    assert gateway.count("headgate_tls_handshakes_total", result="ok") == 3
    assert gateway.count("headgate_tls_handshakes_total") == 3


def test_behind_a_proxy_header_as_well(start, instance, issue):
    gateway = start(
        document(
            instance,
            listener={"tls": issue("proxied"), "proxy_protocol": True},
            trusted_proxies=["127.0.0.0/8"],
        )
    )
    bare(gateway, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n")
    wait_until(lambda: failed(gateway, "not_tls"))


def test_a_flood_has_a_line_a_minute(caplog):
    caplog.set_level(logging.INFO, "headgate.tls")
    now = 0.0
    stats = ListenerStats()
    told = FailedHandshakes(":443", stats, lambda: now)
    for _ in range(1000):
        told.on_fault("version", "unsupported protocol", None)
    told.on_fault("other", "what is this", "a\x1b[31m" + "b" * 200)
    now = 61.0
    told.on_fault("version", "unsupported protocol", None)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "\x1b" not in lines[1]
    assert len(lines[1]) < 250
    assert lines[2].endswith("unsupported protocol; and 999 more of these before it")
    assert stats.tls_failed.counts == {"version": 1001, "other": 1}


# -- upstream


@pytest.fixture
def logged(tmp_path):
    path = tmp_path / "access.log"

    def lines():
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    return {"path": str(path), "format": "json"}, lines


@pytest.mark.parametrize(
    ("certificate", "trusts", "error"),
    [
        ("expired", True, "upstream_tls: certificate has expired"),
        ("good", False, "upstream_tls: unable to get local issuer certificate"),
        ("other-name", True, "upstream_tls: ip address mismatch"),
        ("none", True, "upstream_tls: wrong version number"),
    ],
)
def test_the_log_says_why_an_instance_has_no_tls(
    start, authority, ca_file, tmp_path, logged, certificate, trusts, error
):
    spec, lines = logged
    now = datetime.datetime.now(datetime.UTC)
    past = now - datetime.timedelta(days=2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ["other.example"] if certificate == "other-name" else ["localhost", "127.0.0.1"]
    more = {"not_before": past, "not_after": now - datetime.timedelta(days=1)}
    authority.issue_cert(*names, **(more if certificate == "expired" else {})).configure_cert(
        context
    )
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(PATIENCE_S)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                with sock, contextlib.suppress(OSError):
                    if certificate == "none":
                        sock.recv(1)
                        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        sock.recv(4096)
                    else:
                        context.wrap_socket(sock, server_side=True).recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"https://127.0.0.1:{server.getsockname()[1]}"
    tls = {"ca_file": ca_file} if trusts else {}
    gateway = start(document(url, service={"tls": tls, "retry": False}, access_log=spec))
    head, body = gateway.ask(get())
    assert head.status == 502
    assert b"expired" not in body  # it is for the operator and not for the client
    gateway.on_loop(gateway.worker.reopen_logs)  # which writes what is gathered
    found = wait_until(lines)
    assert found[0]["error"].lower().startswith(error)
    server.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)
    server.close()
