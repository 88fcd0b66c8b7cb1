"""Who the client is, and what the next hop is told: walked from the right, never believed blindly."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.forwarded import (
    FORWARDING_NAMES,
    MAX_HOPS,
    UNIX_PEER,
    TrustedNetworks,
    client,
    connection_block,
    host_block,
    keep,
    outgoing,
    parse_forwarded,
    read_node,
)


@dataclass(frozen=True)
class Options:
    x_forwarded: bool = True
    forwarded: bool = False
    via: str | None = None


X = Options()
RFC7239 = Options(x_forwarded=False, forwarded=True)
BOTH = Options(forwarded=True, via="headgate")
TRUSTED = TrustedNetworks(
    [ip_network("10.0.0.0/8"), ip_network("192.168.1.1/32"), ip_network("fd00::/8")]
)
PEER = "10.0.0.1"


def xff(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", line.encode()) for line in lines]


def fwd(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", line.encode()) for line in lines]


# ------------------------------------------------------------------------------ trusted networks


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("192.168.1.1", True),
        ("192.168.1.2", False),
        ("fd12::1", True),
        ("fe80::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fd00::1%eth0", True),
        ("", False),
        (UNIX_PEER, False),
        ("rubbish", False),
    ],
)
def test_networks(ip, expected):
    assert (ip in TRUSTED) is expected
    assert (ip in TRUSTED) is expected  # the remembered answer


def test_unix_peers_are_trusted_where_the_operator_says_so():
    assert UNIX_PEER in TrustedNetworks(unix=True)
    assert bool(TrustedNetworks(unix=True))
    assert not TrustedNetworks()


def test_the_memory_of_answers_is_bounded():
    networks = TrustedNetworks([ip_network("10.0.0.0/8")])
    for i in range(10_000):
        assert f"10.0.{i >> 8}.{i & 255}" in networks
    assert len(networks._known) <= 4096


@given(
    st.lists(
        st.ip_addresses().map(lambda a: ip_network(f"{a}/{a.max_prefixlen // 2}", strict=False)),
        max_size=5,
    ),
    st.ip_addresses(),
)
def test_networks_agree_with_the_standard_library(networks, ip):
    if getattr(ip, "ipv4_mapped", None) is None:
        assert (str(ip) in TrustedNetworks(networks)) == any(ip in n for n in networks)


# ------------------------------------------------------------------------------------- the walk


@pytest.mark.parametrize(
    ("lines", "ip"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7"], "203.0.113.7"),  # the left part is the client's own word
        (["203.0.113.7, 10.2.2.2"], "203.0.113.7"),
        (["203.0.113.7", "10.2.2.2"], "203.0.113.7"),  # several lines are one list
        (["203.0.113.7,10.2.2.2,192.168.1.1"], "203.0.113.7"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),  # all trusted: the outermost
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:DB8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["unknown"], "10.0.0.1"),
        (["203.0.113.7, unknown, 10.2.2.2"], "10.2.2.2"),
        (["203.0.113.7, , 10.2.2.2"], "10.2.2.2"),
        (["203.0.113.7, 10.2.2.2, "], "10.0.0.1"),
        (["203.0.113.7:port"], "10.0.0.1"),
        (["203.0.113.7:123456"], "10.0.0.1"),
        (["fe80::1%eth0"], "10.0.0.1"),
        (["[2001:db8::1"], "10.0.0.1"),
        (["[203.0.113.7]"], "10.0.0.1"),
        (["203.0.113.07"], "10.0.0.1"),
        (["203.0.113.7 10.0.0.2"], "10.0.0.1"),
        (["\xe9"], "10.0.0.1"),
    ],
)
def test_the_first_untrusted_address_from_the_right_is_the_client(lines, ip):
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]
    assert client(PEER, "http", headers, TRUSTED, X).ip == ip


def test_an_untrusted_peer_is_the_client_whatever_it_says():
    headers = [*xff("1.1.1.1"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"x")]
    got = client("203.0.113.9", "http", headers, TRUSTED, BOTH)
    assert (got.ip, got.scheme, got.host, got.peer_trusted) == ("203.0.113.9", "http", None, False)


def test_the_walk_is_bounded():
    chain = "203.0.113.7, " + ", ".join(["10.2.2.2"] * MAX_HOPS * 2)
    assert client(PEER, "http", xff(chain), TRUSTED, X).ip == "10.2.2.2"


@pytest.mark.parametrize(
    ("lines", "ip", "scheme", "host"),
    [
        (["for=203.0.113.7;proto=https;host=shop.example"], "203.0.113.7", "https", "shop.example"),
        (['For="[2001:db8::1]:4711"'], "2001:db8::1", "http", None),
        (["for=203.0.113.7; proto=https, for=10.2.2.2; proto=http"], "203.0.113.7", "https", None),
        (["for=203.0.113.7;proto=https", "for=10.2.2.2"], "203.0.113.7", "https", None),
        (["for=_hidden, for=10.2.2.2;proto=https"], "10.2.2.2", "https", None),
        (["for=unknown"], "10.0.0.1", "http", None),
        (["for=203.0.113.7:_port"], "203.0.113.7", "http", None),
        (["proto=https"], "10.0.0.1", "https", None),
        (['for="203.0.113.7'], "10.0.0.1", "http", None),
        (["for=203.0.113.7;for=10.2.2.2"], "10.0.0.1", "http", None),
        (["for=[2001:db8::1]:1;host=a:80"], "2001:db8::1", "http", "a:80"),  # quotes left out
        (["for=203.0.113.7;host=a@b"], "10.0.0.1", "http", None),
        ([", ,"], "10.0.0.1", "http", None),
        (['for=203.0.113.7;proto=gopher;host="a@b"'], "203.0.113.7", "http", None),
    ],
)
def test_forwarded(lines, ip, scheme, host):
    got = client(PEER, "http", fwd(*lines), TRUSTED, RFC7239)
    assert (got.ip, got.scheme, got.host) == (ip, scheme, host)


def test_a_family_that_is_off_is_not_believed():
    assert client(PEER, "http", fwd("for=203.0.113.7"), TRUSTED, X).ip == PEER
    assert client(PEER, "http", xff("203.0.113.7"), TRUSTED, RFC7239).ip == PEER


def test_with_both_families_on_x_forwarded_for_wins():
    headers = [*fwd("for=1.1.1.1"), *xff("203.0.113.7")]
    assert client(PEER, "http", headers, TRUSTED, BOTH).ip == "203.0.113.7"
    assert client(PEER, "http", fwd("for=1.1.1.1"), TRUSTED, BOTH).ip == "1.1.1.1"


@pytest.mark.parametrize(
    ("chain", "proto", "expected"),
    [
        ("203.0.113.7", "https", "https"),
        ("203.0.113.7", "wss", "https"),
        ("203.0.113.7", "HTTPS", "https"),
        ("203.0.113.7, 10.2.2.2", "https", "https"),
        ("203.0.113.7, 10.2.2.2", "https, http", "https"),  # places correspond
        ("1.1.1.1, 203.0.113.7, 10.2.2.2", "http, https, http", "https"),
        ("203.0.113.7, 10.2.2.2", "http, http, https", "https"),  # they do not: our peer's word
        ("203.0.113.7", "ftp", "http"),
        ("203.0.113.7", "", "http"),
        ("unknown", "https", "https"),
        (None, "https", "https"),
    ],
)
def test_the_scheme_is_the_one_said_along_with_the_client(chain, proto, expected):
    headers = [(b"x-forwarded-proto", proto.encode())]
    if chain:
        headers += xff(chain)
    assert client(PEER, "http", headers, TRUSTED, X).scheme == expected


# --------------------------------------------------------------------------------- what is sent


def test_an_untrusted_peer_has_its_words_replaced():
    headers = [
        (b"accept", b"*/*"),
        *xff("1.1.1.1"),
        *fwd("for=1.1.1.1"),
        (b"x_forwarded_for", b"1.1.1.1"),
        (b"x-forwarded-port", b"1"),
        (b"x-real-ip", b"1.1.1.1"),
    ]
    assert keep(headers, peer_trusted=False) == ((b"accept", b"*/*"),)
    assert outgoing("203.0.113.9", "https", "shop.example:8443", headers, TRUSTED, BOTH) == [
        (b"via", b"1.1 headgate"),
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"https"),
        (b"forwarded", b'for=203.0.113.9;proto=https;host="shop.example:8443"'),
        (b"x-forwarded-host", b"shop.example:8443"),
    ]


def test_a_trusted_peer_is_appended_to():
    headers = [
        *xff("203.0.113.7"),
        *fwd("for=203.0.113.7;proto=https"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"Shop.Example"),
        (b"x-forwarded-port", b"443"),
    ]
    assert keep(headers, peer_trusted=True) == ((b"x-forwarded-port", b"443"),)
    assert outgoing("fd00::1", "http", "inner", headers, TRUSTED, BOTH, b"2") == [
        (b"via", b"2 headgate"),
        (b"x-forwarded-for", b"203.0.113.7, fd00::1"),
        (b"x-forwarded-proto", b"https"),
        (b"forwarded", b'for=203.0.113.7;proto=https, for="[fd00::1]";proto=http;host="inner"'),
        (b"x-forwarded-host", b"shop.example"),
    ]


def test_a_malformed_forwarded_cannot_swallow_our_element():
    got = outgoing(PEER, "http", "a", fwd('for="1.1.1.1'), TRUSTED, RFC7239)
    assert got == [(b"forwarded", b'for=10.0.0.1;proto=http;host="a"')]


def test_a_unix_peer_is_unknown_to_the_next_hop():
    assert outgoing(UNIX_PEER, "http", "a", [], TRUSTED, X)[0] == (b"x-forwarded-for", b"unknown")


@pytest.mark.parametrize("options", [X, RFC7239, BOTH, Options(False, False), Options(via="gw")])
@pytest.mark.parametrize("ip", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"])
def test_the_prepared_blocks_are_what_outgoing_says(options, ip):
    fields = outgoing(ip, "https", "[::1]:80", [], TRUSTED, options)
    rendered = b"".join(b"%b: %b\r\n" % field for field in fields)
    block = connection_block(ip, "https", options) + host_block("[::1]:80", options)
    assert block == rendered


def test_underscore_spellings_are_known():
    assert b"x-forwarded_for" in FORWARDING_NAMES
    assert b"X-Forwarded-For".lower().replace(b"-", b"_") in FORWARDING_NAMES


# ---------------------------------------------------------------------------------- properties


@given(st.text(alphabet='for=;,"\\[]:_ab1. \t', max_size=60) | st.text(max_size=40))
def test_parsing_never_raises_and_elements_are_never_empty(text):
    elements = parse_forwarded(text)
    assert elements is None or all(elements)
    read_node(text)


_HOP = st.sampled_from(["10.1.1.1", "203.0.113.7", "unknown", "", "x", "[::1]:2", "fd00::2", '"'])


@given(st.lists(_HOP, max_size=6), st.lists(_HOP, max_size=6), _HOP)
def test_what_the_client_wrote_never_decides(forged, other, proto):
    """Whatever stands left of an untrusted hop, the answer is the same."""
    honest = ["203.0.113.9", "10.5.5.5"]
    said = [(b"x-forwarded-proto", proto.encode())]
    one = client(PEER, "http", [*xff(", ".join(forged + honest)), *said], TRUSTED, X)
    two = client(PEER, "http", [*xff(", ".join(other + honest)), *said], TRUSTED, X)
    assert one.ip == two.ip == "203.0.113.9"


@given(st.text(alphabet='for=;,"\\[]:_ab1. ', max_size=60), st.ip_addresses().map(str))
def test_what_we_append_is_always_readable_to_the_next_hop(received, peer):
    everyone = TrustedNetworks([ip_network("0.0.0.0/0"), ip_network("::/0")])
    ((_, value),) = outgoing(peer, "https", "h:1", fwd(received), everyone, RFC7239)
    elements = parse_forwarded(value.decode())
    assert elements
    assert elements[-1]["host"] == "h:1"
    assert read_node(elements[-1]["for"]) is not None
