"""Keys: clients that are one are counted as one."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.limiter.keys import _KEPT, client_ip_key, joined_key


@pytest.mark.parametrize(
    "ip, key",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:0db8:0001:0002:0000::1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        # No address at all: it counts as it stands.
        ("unknown", "unknown"),
        ("", ""),
        ("1.2.3.4:80", "1.2.3.4:80"),
        ("2001:db8::zz", "2001:db8::zz"),
        (":" * 500, ":" * 64),
        ("x" * 500, "x" * 64),
        ("2001:db8::1\0", "2001:db8::1\0"),
    ],
)
def test_keys_of_addresses(ip, key):
    assert client_ip_key(ip) == key


@given(st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_an_ipv6_client_is_its_network(number, prefix):
    address = IPv6Address(number)
    if address.ipv4_mapped is not None:
        return
    network = IPv6Network((number, prefix), strict=False)
    key = client_ip_key(str(address), prefix)
    if prefix == 128:
        assert IPv6Address(key) == address
    else:
        assert IPv6Network(key) == network


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_client_is_one_in_either_form(number):
    dotted = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
    assert client_ip_key(f"::ffff:{dotted}") == client_ip_key(dotted) == dotted


def test_the_cache_of_addresses_is_bounded():
    assert client_ip_key.cache_info().maxsize == _KEPT


@given(st.lists(st.text("a|\\b", max_size=5)), st.lists(st.text("a|\\b", max_size=5)))
def test_different_parts_never_give_the_same_key(one, other):
    if one != other and one and other:
        assert joined_key(*one) != joined_key(*other)


def test_a_joined_key_can_be_read():
    assert joined_key("users", "192.0.2.1") == "users|192.0.2.1"
