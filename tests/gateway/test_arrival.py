"""Routes by how a request came: the client's own scheme, and the listener that took it."""

from __future__ import annotations

import ssl

import pytest
import trustme

from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get

pytestmark = pytest.mark.integration

PLAIN, SECURE, INNER = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("localhost", "shop.example")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"cert_file": str(cert), "key_file": str(key)}


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def said(certificate, **more):
    """Three listeners: plain, TLS, and one for the inside."""
    found = document(**more)
    found["listeners"] = [
        {"bind": PLAIN, "name": "plain"},
        {"bind": SECURE, "name": "secure", "tls": certificate},
        {"bind": INNER, "name": "inner"},
    ]
    found["services"] = {}
    found["routes"] = [
        {
            "name": "to-https",
            "match": {"scheme": "http", "listener": ["plain", "secure"]},
            "redirect": "https://{host}{path}{query}",
        },
        {"name": "secure", "match": {"scheme": "https"}, "respond": "secure"},
        {"name": "inner", "match": {"listener": "inner"}, "respond": "inner"},
        {"name": "old", "match": {"exact": "/old"}, "redirect": "{scheme}://{host}/new"},
    ]
    return found


def answered(gateway, asked, bind, tls=None):
    with gateway.client(bind, tls=tls, server_name="shop.example" if tls else None) as client:
        client.send(asked)
        return client.answer()


def test_http_is_redirected_to_https_and_the_inside_is_not(start, certificate, trusting):
    gateway = start(said(certificate))
    for _ in range(3):  # from the second time on out of memory
        head, _ = answered(gateway, get("/a?b=c", host="shop.example"), PLAIN)
        assert head.status == 308
        assert head.get("location") == "https://shop.example/a?b=c"
        head, body = answered(gateway, get("/a?b=c", host="shop.example"), SECURE, trusting)
        assert (head.status, body) == (200, b"secure")
        head, body = answered(gateway, get("/a?b=c", host="shop.example"), INNER)
        assert (head.status, body) == (200, b"inner")


def test_http2_by_alpn_and_by_prior_knowledge(start, certificate, trusting):
    gateway = start(said(certificate))
    trusting.set_alpn_protocols(["h2"])
    for _ in range(2):
        with Client(gateway.port(PLAIN)) as client:
            assert [client.get("/a").status for _ in range(3)] == [308] * 3
        with Client(gateway.port(SECURE), tls=trusting) as client:
            assert [bytes(client.get("/a").body) for _ in range(3)] == [b"secure"] * 3
        with Client(gateway.port(INNER)) as client:
            assert [bytes(client.get("/a").body) for _ in range(3)] == [b"inner"] * 3


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", 308),
        ("x-forwarded-proto: https\r\n", 200),
        ("x-forwarded-proto: http\r\n", 308),
        ("x-forwarded-proto: gopher\r\n", 308),
        ("x-forwarded-for: 192.0.2.1, 127.0.0.1\r\nx-forwarded-proto: https, http\r\n", 200),
        ("x-forwarded-for: 192.0.2.1, 127.0.0.1\r\nx-forwarded-proto: http, https\r\n", 308),
    ],
)
def test_a_trusted_proxy_tells_the_clients_scheme(start, certificate, fields, status):
    gateway = start(said(certificate, trusted_proxies=["127.0.0.0/8"]))
    asked = f"GET /a HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n".encode()
    other = b"GET /a HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-proto: https\r\n\r\n"
    for _ in range(2):
        assert answered(gateway, asked, PLAIN)[0].status == status
        assert answered(gateway, other, PLAIN)[0].status == 200


def test_a_trusted_proxy_tells_by_forwarded(start, certificate):
    gateway = start(
        said(certificate, trusted_proxies=["127.0.0.0/8"], forwarded={"forwarded": True})
    )
    asked = "GET /a HTTP/1.1\r\nhost: h\r\nforwarded: for=192.0.2.1;proto={}\r\n\r\n"
    assert answered(gateway, asked.format("https").encode(), PLAIN)[0].status == 200
    assert answered(gateway, asked.format("http").encode(), PLAIN)[0].status == 308


def test_nobody_elses_word_on_the_scheme_counts(start, certificate):
    gateway = start(said(certificate))
    asked = (
        b"GET /a HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: https\r\n"
        b"forwarded: for=192.0.2.1;proto=https\r\n\r\n"
    )
    assert answered(gateway, asked, PLAIN)[0].status == 308
    # Nor does a target in absolute form: it is the client's to write.
    asked = b"GET https://h/a HTTP/1.1\r\nhost: h\r\n\r\n"
    assert answered(gateway, asked, PLAIN)[0].status == 308


def test_a_redirects_scheme_is_the_clients(start, certificate):
    gateway = start(said(certificate, trusted_proxies=["127.0.0.0/8"]))
    asked = "GET /old HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: {}\r\n\r\n"
    head, _ = answered(gateway, asked.format("https").encode(), INNER)
    assert head.get("location") == "https://h/new"
    head, _ = answered(gateway, asked.format("http").encode(), INNER)
    assert head.get("location") == "http://h/new"


def test_a_reload_that_renames_a_listener_routes_by_the_new_name(start, certificate):
    found = said(certificate)
    gateway = start(found)
    with gateway.client(INNER) as client:
        client.send(get("/a"))
        assert client.answer()[1] == b"inner"
        found["listeners"][2]["name"] = "outer"
        found["routes"][2]["match"] = {"listener": "outer"}
        found["routes"][2]["respond"] = "outer"
        gateway.apply(found)
        client.send(get("/a"))
        assert client.answer()[1] == b"outer"
