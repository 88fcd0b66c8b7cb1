"""Lists of addresses: who comes in, what files may hold, and the search against a plain one."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.addresses import (
    Addresses,
    AddressRules,
    Networks,
    address_of,
    network_of,
    network_text,
    read_networks,
)


def is_let_in(client_ip: str, **lists: Any) -> bool:
    return Addresses(AddressRules(**lists)).check(client_ip) is None


@pytest.mark.parametrize(
    ("client_ip", "allow", "deny", "comes_in"),
    [
        ("192.0.2.7", (), (), True),
        ("192.0.2.7", (), ("192.0.2.0/24",), False),
        ("192.0.3.7", (), ("192.0.2.0/24",), True),
        ("192.0.2.7", ("192.0.2.0/24",), (), True),
        ("192.0.3.7", ("192.0.2.0/24",), (), False),
        ("192.0.2.7", ("192.0.2.7",), ("192.0.2.0/24",), False),
        ("192.0.2.7", ("192.0.2.0/24",), ("192.0.2.7",), False),
        ("2001:db8::1", ("192.0.2.0/24",), (), False),
        ("2001:db8::1", (), ("2001:db8::/32",), False),
        ("2001:DB8:0::1", (), ("2001:db8::1",), False),
        ("::ffff:192.0.2.7", (), ("192.0.2.0/24",), False),
        ("192.0.2.7", (), ("::ffff:192.0.2.0/120",), False),
        ("::ffff:c000:207", (), ("192.0.2.0/24",), False),
        ("fe80::1%eth0", (), ("link-local",), False),
        ("10.1.2.3", ("private",), (), True),
        ("127.0.0.1", ("private",), (), False),
        ("::1", ("loopback",), (), True),
        ("100.64.0.1", (), ("private",), False),
        ("255.255.255.255", (), ("255.255.255.255",), False),
        ("0.0.0.0", (), ("0.0.0.0/0",), False),
        ("ffff::1", (), ("::/0",), False),
    ],
)
def test_deny_wins_and_an_allow_list_lets_in_nobody_else(
    client_ip: str, allow: tuple[str, ...], deny: tuple[str, ...], comes_in: bool
):
    guard = Addresses(AddressRules(allow=allow, deny=deny))
    for _ in range(2):  # asked, and remembered
        assert (guard.check(client_ip) is None) is comes_in


@pytest.mark.parametrize("text", ["", "unix", "1.2.3", "1.2.3.4.5", "::1::", "x" * 10_000, "\0"])
def test_what_is_no_address_is_in_no_list(text: str):
    assert is_let_in(text)
    assert is_let_in(text, deny=("0.0.0.0/0", "::/0"))
    assert not is_let_in(text, allow=("0.0.0.0/0", "::/0"))


def test_a_refusal_says_to_the_log_which_network_it_was_and_to_the_client_nothing():
    denied = Addresses(AddressRules(deny=("192.0.2.0/24",), status=404)).check("192.0.2.9")
    assert denied is not None
    assert (denied.policy, denied.status, denied.is_cut) == ("addresses", 404, False)
    assert "192.0.2.0/24" in denied.detail
    assert "192.0.2" not in denied.reason


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.0.0.1/8", "has bits set beyond its prefix; write 10.0.0.0/8"),
        ("10.0.0.0/33", "has no prefix of 0 to 32 bits"),
        ("2001:db8::/129", "has no prefix of 0 to 128 bits"),
        ("10.0.0.0/", "does not end in the length of a prefix"),
        ("10.0.0.0/255.0.0.0", "does not end in the length of a prefix"),
        ("10.0.0.0/\u0663", "does not end in the length of a prefix"),
        ("10.0.0", "is not an address or network"),
        ("010.0.0.1", "is not an address or network"),
        ("fe80::1%eth0", "is not an address or network"),
        ("::ffff:10.0.0.0/95", "has no prefix of 0 to 32 bits"),
        ("example.com", "is not an address or network"),
        ("", "is not an address or network"),
    ],
)
def test_what_is_no_network_is_refused_with_the_way_out(text: str, rule: str):
    with pytest.raises(ValueError, match="is|has|does") as refused:
        network_of(text)
    assert str(refused.value).startswith(rule)


def test_a_file_has_a_network_a_line_and_comments(tmp_path: Path):
    file = tmp_path / "deny.txt"
    file.write_bytes(
        b"\xef\xbb\xbf# spam\r\n192.0.2.0/24 ; SBL1\n\n  2001:db8::/32# all\n198.51.100.7"
    )
    found = [network_text(network) for network in read_networks(str(file))]
    assert found == ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]
    assert not is_let_in("198.51.100.7", deny_files=(str(file),))


def test_every_wrong_line_of_a_file_is_named_up_to_a_few(tmp_path: Path):
    file = tmp_path / "deny.txt"
    file.write_text("192.0.2.0/24\nexample.com\n10.0.0.1/8\n" + "junk\n" * 1000)
    with pytest.raises(ValueError, match="example") as refused:
        Addresses(AddressRules(deny_files=(str(file),)))
    said = str(refused.value)
    assert f'{file}:2: "example.com" is not an address' in said
    assert f'{file}:3: "10.0.0.1/8" has bits set' in said
    assert said.endswith("and more")
    assert len(said) < 2000


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be read: no such file"):
        Addresses(AddressRules(deny_files=(str(tmp_path / "none"),)))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        Addresses(AddressRules(deny_files=(str(binary),)))


def test_an_empty_file_of_whom_to_allow_allows_nobody(tmp_path: Path):
    file = tmp_path / "allow.txt"
    file.write_text("# none yet\n")
    assert not is_let_in("192.0.2.7", allow_files=(str(file),))


def test_a_million_addresses_are_not_all_remembered():
    guard = Addresses(AddressRules(deny=("10.0.0.0/8",)))
    for number in range(30_000):
        client_ip = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert guard.check(client_ip) is not None
    assert len(guard._memo) <= 8192


@st.composite
def networks(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        prefix = draw(st.integers(0, 32))
        number = draw(st.integers(0, 2**32 - 1)) >> (32 - prefix) << (32 - prefix)
        return f"{ipaddress.IPv4Address(number)}/{prefix}"
    prefix = draw(st.integers(0, 128))
    number = draw(st.integers(0, 2**128 - 1)) >> (128 - prefix) << (128 - prefix)
    return f"{ipaddress.IPv6Address(number)}/{prefix}"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), texts=st.lists(networks(), max_size=12))
def test_the_search_agrees_with_asking_every_network(data: st.DataObject, texts: list[str]):
    plain = [ipaddress.ip_network(text) for text in texts]
    # `ipaddress` knows no IPv4 networks in IPv6 form, which count as IPv4 here.
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    plain = [each for each in plain if not (each.version == 6 and each.overlaps(mapped))]
    found = Networks(network_of(str(each)) for each in plain)
    edges = [each[at] for each in plain for at in (0, -1)]
    numbers = [
        (address.version, int(address) + step) for address in edges for step in (-1, 0, 1)
    ] + [(4, data.draw(st.integers(0, 2**32 - 1)))]
    for version, number in numbers:
        bits = 32 if version == 4 else 128
        if not 0 <= number < 2**bits:
            continue
        address = ipaddress.ip_address(number.to_bytes(bits // 8))
        if version == 6 and address in mapped:
            continue
        asked = address_of(str(address))
        assert asked is not None
        holding = found.find(asked)
        assert (holding is not None) == any(address in each for each in plain)
        if holding is not None:
            assert address in ipaddress.ip_network(network_text(holding))
