"""The ways in: Unix sockets, TLS with several certificates, the PROXY protocol."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest
import trustme

from headgate.config import ConfigInvalid
from tests.gateway.rig import PATIENCE_S, Closed, Peer, document, get, response, wait_until

pytestmark = pytest.mark.integration


def served(client, instance, asked=get()):
    """One request through `client`; what the instance saw and what came back."""
    client.send(asked)
    upstream = instance.accepted[-1] if instance.accepted else instance.accept()
    seen = upstream.head()
    upstream.send(response())
    return seen, client.answer()[0]


# -- Unix sockets


def test_a_unix_listener(start, instance, tmp_path):
    path = str(tmp_path / "in.sock")
    gateway = start(document(instance, listener={"bind": f"unix:{path}"}))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    with Peer(sock) as client:
        for _ in range(2):
            seen, head = served(client, instance)
            assert head.status == 200
    # Nobody's address is known: what stands there must not look like a client's.
    assert seen.get("x-forwarded-for") in (None, "unknown", "unix")
    wait_until(lambda: gateway.clients == 0)


def test_several_listeners_serve_one_plan(start, instance, tmp_path):
    said = document(instance)
    said["listeners"] = [{"bind": "127.0.0.1:1"}, {"bind": "127.0.0.1:2"}]
    gateway = start(said)
    for bind in ("127.0.0.1:1", "127.0.0.1:2"):
        with gateway.client(bind) as client:
            assert served(client, instance)[1].status == 200


def test_a_listener_taken_out_by_a_reload_takes_nothing_more(start, instance):
    said = document(instance)
    said["listeners"] = [{"bind": "127.0.0.1:1"}, {"bind": "127.0.0.1:2"}]
    gateway = start(said)
    staying = gateway.client("127.0.0.1:2")
    served(staying, instance)
    gateway.apply({**said, "listeners": [{"bind": "127.0.0.1:1"}]})
    assert staying.is_closed()
    with gateway.client("127.0.0.1:1") as client:
        assert served(client, instance)[1].status == 200


def test_a_broken_reload_leaves_the_old_plan(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        served(client, instance)
        with pytest.raises(ConfigInvalid, match=r"routes\[0\]\.to"):
            gateway.apply(document(instance, route={"to": "nowhere"}))
        assert served(client, instance)[1].status == 200


# -- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(authority, tmp_path_factory):
    """Certificate files for two hosts."""
    folder = tmp_path_factory.mktemp("certificates")
    made = []
    for host in ("shop.example", "api.example"):
        issued = authority.issue_cert(host)
        cert, key = folder / f"{host}.pem", folder / f"{host}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        made.append({"cert_file": str(cert), "key_file": str(key)})
    return made


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_http_over_tls(start, instance, certificates, trusting):
    gateway = start(document(instance, listener={"tls": certificates[0]}))
    with gateway.client(tls=trusting, server_name="shop.example") as client:
        for _ in range(3):
            seen, head = served(client, instance, get(host="shop.example"))
            assert head.status == 200
            assert seen.get("x-forwarded-proto") == "https"
        body = bytes(range(256)) * 4096
        client.send(get(host="shop.example"))
        upstream = instance.accepted[-1]
        upstream.head()
        upstream.send(response(body))
        assert client.answer()[1] == body
    gateway.assert_settles()


def test_each_name_has_its_certificate(start, instance, certificates, trusting):
    gateway = start(document(instance, listener={"tls": {"certificates": certificates}}))
    for host in ("shop.example", "api.example"):
        with gateway.client(tls=trusting, server_name=host) as client:
            names = client.sock.getpeercert()["subjectAltName"]
            assert names == (("DNS", host),)
            assert served(client, instance, get(host=host))[1].status == 200


def test_a_request_for_the_other_certificates_host_is_421(start, instance, certificates, trusting):
    gateway = start(document(instance, listener={"tls": {"certificates": certificates}}))
    with gateway.client(tls=trusting, server_name="shop.example") as client:
        client.send(get(host="api.example"))
        assert client.answer()[0].status == 421
    assert instance.is_left_alone()


def test_plain_text_on_a_tls_listener_reaches_nobody(start, instance, certificates):
    gateway = start(document(instance, listener={"tls": certificates[0]}))
    with gateway.client() as client:
        client.send(get())
        client.to_end()
    assert instance.is_left_alone()
    wait_until(lambda: gateway.clients == 0)


def test_tls_may_ask_for_13(start, instance, certificates, trusting):
    gateway = start(document(instance, listener={"tls": {**certificates[0], "min_version": "1.3"}}))
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        gateway.client(tls=trusting, server_name="shop.example")


def test_a_reload_changes_the_certificate_and_keeps_connections(
    start, instance, certificates, trusting
):
    said = document(instance, listener={"tls": certificates[0]})
    gateway = start(said)
    with gateway.client(tls=trusting, server_name="shop.example") as client:
        served(client, instance, get(host="shop.example"))
        gateway.apply(document(instance, listener={"tls": certificates[1]}))
        with gateway.client(tls=trusting, server_name="api.example") as fresh:
            assert served(fresh, instance, get(host="api.example"))[1].status == 200
        assert served(client, instance, get(host="shop.example"))[1].status == 200


def test_a_tls_client_that_leaves_without_goodbye(start, instance, certificates, trusting):
    gateway = start(document(instance, listener={"tls": certificates[0]}))
    for how in ("fin", "rst"):
        client = gateway.client(tls=trusting, server_name="shop.example")
        client.send(get(host="shop.example"))
        upstream = instance.accept()
        upstream.head()
        client.leave(how)
        assert upstream.is_closed()
        gateway.assert_settles()
        wait_until(lambda: gateway.clients == 0)


# -- the PROXY protocol

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 80\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
    + struct.pack(">H", 12)
    + socket.inet_aton("192.0.2.8")
    + socket.inet_aton("198.51.100.1")
    + struct.pack(">HH", 5555, 80)
)


def proxied(instance, **listener):
    return document(
        instance,
        listener={"proxy_protocol": True, **listener},
        trusted_proxies=["127.0.0.1"],
    )


@pytest.mark.parametrize(
    "header, address", [(V1, "192.0.2.7"), (V2, "192.0.2.8")], ids=["v1", "v2"]
)
@pytest.mark.parametrize("cut", [None, 1, 10])
def test_the_proxy_header_names_the_client(start, instance, header, address, cut):
    gateway = start(proxied(instance))
    with gateway.client() as client:
        sent = header + get()
        if cut is not None:
            client.send(sent[:cut])
            assert client.is_quiet(0.05)
            sent = sent[cut:]
        seen, _ = served(client, instance, sent)
        assert seen.get("x-forwarded-for") == address
        seen, _ = served(client, instance)
        assert seen.get("x-forwarded-for") == address


@pytest.mark.parametrize("header, address", [(V1, "192.0.2.7"), (V2, "192.0.2.8")])
def test_the_proxy_header_in_front_of_tls(start, instance, certificates, trusting, header, address):
    gateway = start(proxied(instance, tls=certificates[0]))
    sock = socket.create_connection(("127.0.0.1", gateway.port()), PATIENCE_S)
    sock.sendall(header)
    with Peer(trusting.wrap_socket(sock, server_hostname="shop.example")) as client:
        seen, head = served(client, instance, get(host="shop.example"))
        assert head.status == 200
        assert seen.get("x-forwarded-for") == address
        assert seen.get("x-forwarded-proto") == "https"


@pytest.mark.parametrize("sent", [get(), b"PROXY nonsense\r\n", b"PROXY TCP4 1.2.3.4\r\n" + get()])
def test_without_a_proxy_header_there_is_no_service(start, instance, sent):
    gateway = start(proxied(instance))
    with gateway.client() as client:
        client.try_send(sent)
        assert client.to_end() == b""
    assert instance.is_left_alone()
    assert gateway.count("headgate_connections_refused_total") == 1


def test_a_stranger_may_not_say_who_he_is(start, instance):
    said = proxied(instance)
    said["trusted_proxies"] = ["10.0.0.0/8"]
    gateway = start(said)
    with gateway.client() as client:
        client.try_send(V1 + get())
        assert client.to_end() == b""
    assert instance.is_left_alone()


def test_a_proxy_header_that_does_not_come_is_not_waited_for(start, instance):
    gateway = start({**proxied(instance), "limits": {"header_timeout": "300ms"}})
    with gateway.client() as client:
        client.send(V1[:10])
        assert client.is_closed()


def test_a_proxy_header_on_a_plain_listener_is_a_bad_request(start, instance):
    gateway = start(document(instance))
    assert gateway.ask(V1 + get())[0].status == 400
    assert instance.is_left_alone()


def test_the_health_check_of_a_proxy_speaks_for_itself(start, instance):
    """LOCAL (v2) carries no address: the connection is the proxy's own."""
    gateway = start(proxied(instance))
    local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    with gateway.client() as client:
        seen, _ = served(client, instance, local + get())
        assert seen.get("x-forwarded-for") == "127.0.0.1"


def test_many_connections_with_a_proxy_header_are_counted_back(start, instance):
    gateway = start(proxied(instance))
    standing = len(gateway.worker._tasks)
    for at in range(40):
        client = gateway.client()
        client.try_send(V1 if at % 2 else V1[:9])
        client.leave("rst" if at % 3 else "fin")
    wait_until(lambda: gateway.clients == 0 and len(gateway.worker._tasks) == standing)
    with gateway.client() as client:
        assert served(client, instance, V1 + get())[1].status == 200
    with pytest.raises(Closed), gateway.client() as client:
        client.send(get())
        client.head()
