"""Hosts: one spelling for each, and nothing that two parsers could read differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.host import Authority, origin_of, origin_of_url, parse_authority


@pytest.mark.parametrize(
    ("value", "host", "port", "text"),
    [
        (b"example.org", "example.org", None, "example.org"),
        (b"EXAMPLE.org:8080", "example.org", 8080, "example.org:8080"),
        (b"example.org:80", "example.org", 80, "example.org:80"),
        (b"example.org:0080", "example.org", 80, "example.org:80"),
        (b"example.org:", "example.org", None, "example.org"),
        (b"example.org.", "example.org", None, "example.org"),
        (b"example.org.:443", "example.org", 443, "example.org:443"),
        (b"localhost", "localhost", None, "localhost"),
        (b"my_service-1.ns", "my_service-1.ns", None, "my_service-1.ns"),
        (b"3com.com", "3com.com", None, "3com.com"),
        (b"1e3", "1e3", None, "1e3"),
        (b"127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        (b"[::1]", "::1", None, "[::1]"),
        (b"[2001:DB8:0:0::1]:443", "2001:db8::1", 443, "[2001:db8::1]:443"),
        (b"a:0", "a", 0, "a:0"),
        (b"a:65535", "a", 65535, "a:65535"),
        (b"a." * 127 + b"a", "a." * 127 + "a", None, "a." * 127 + "a"),
    ],
)
def test_accepts_and_normalises(value, host, port, text):
    assert parse_authority(value) == Authority(host, port, text)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b".",
        b"a..b",
        b".a",
        b"a b",
        b" a",
        b"a ",
        b"a\t",
        b"a,b",
        b"a, a",
        b"user@a",
        b"user:pw@a",
        b"a/b",
        b"a/",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"http://a",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:+1",
        b"a:1 ",
        b"a:65536",
        b"a:000080",
        b"a:8\xc2\xb2",
        b":80",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[::1]]",
        b"[::1]80",
        b"[::1%25eth0]",
        b"[fe80::1%eth0]",
        b"[v1.x]",
        b"[1.2.3.4]",
        b"[::1.2.3.256]",
        b"[12345::]",
        b"1.2.3",
        b"1.2.3.256",
        b"1.2.3.4.5",
        b"01.2.3.4",
        b"0x7f.1",
        b"example.0x1",
        b"2130706433",
        b"a%41",
        b"%61",
        b"a!b",
        b"a*b",
        b"*.example.org",
        b"a;b",
        b"a=b",
        b"a~b",
        b"a\x00b",
        b"a\nb",
        b"a\rb",
        b"a\n",
        b"\x7f",
        b"\xc3\xa9.example",
        b"a" * 256,
        b"a." * 128 + b"a",
        b"a" * 255 + b":65535" + b"0",
    ],
)
def test_refuses(value):
    assert parse_authority(value) is None


def test_the_default_port_fills_in_for_a_missing_one_and_stays_out_of_the_text():
    assert parse_authority(b"a", 80) == Authority("a", 80, "a")
    assert parse_authority(b"a:81", 80) == Authority("a", 81, "a:81")


@given(st.binary(max_size=300) | st.text(alphabet="aA0.:[]-_x%@", max_size=20).map(str.encode))
def test_what_is_accepted_parses_to_itself(value):
    got = parse_authority(value)
    if got is not None:
        assert parse_authority(got.text.encode()) == got
        assert got.host == got.host.lower()
        assert not set(got.host) & set("[]@/, ")


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_every_ipv6_address_is_a_host(address, port):
    got = parse_authority(f"[{address.exploded.upper()}]:{port}".encode())
    assert got == Authority(address.compressed, port, f"[{address.compressed}]:{port}")


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_is_a_host(address):
    assert parse_authority(str(address).encode()) == Authority(str(address), None, str(address))


@pytest.mark.parametrize(
    ("scheme", "authority", "origin"),
    [
        ("http", "shop.example", "http://shop.example"),
        ("http", "shop.example:80", "http://shop.example"),
        ("http", "shop.example:443", "http://shop.example:443"),
        ("https", "shop.example:443", "https://shop.example"),
        ("https", "shop.example:8443", "https://shop.example:8443"),
        ("https", "[::1]:443", "https://[::1]"),
        ("http", "[2001:db8::80]", "http://[2001:db8::80]"),
        ("http", "[2001:db8::80]:80", "http://[2001:db8::80]"),
        ("http", "", "http://"),
    ],
)
def test_an_origin_has_no_port_that_goes_without_saying(scheme, authority, origin):
    assert origin_of(scheme, authority) == origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Shop.Example./a", "https://shop.example"),
        ("HTTP://shop.example:080?a", "http://shop.example"),
        ("https://shop.example:", "https://shop.example"),
        ("https://shop.example:80/", "https://shop.example:80"),
        ("https://[2001:DB8:0::1]:443/", "https://[2001:db8::1]"),
        ("https://shop.example:0/", "https://shop.example:0"),
        ("//shop.example/", None),
        ("/a", None),
        ("ftp://shop.example/", None),
        ("https://", None),
        ("https://me@shop.example/", None),
        ("https://shop.example:99999/", None),
        ("https://[::1/", None),
        ("https://stra\xdfe.example/", None),
        ("https://\ud800/", None),
    ],
    ids=range(15),
)
def test_the_origin_of_a_url_is_written_one_way(url, origin):
    assert origin_of_url(url) == origin
