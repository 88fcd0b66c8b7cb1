"""Fuzz addresses and lists of networks: what the standard library says, and never a raise."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

from headgate.security.addresses import (
    Addresses,
    AddressRules,
    Networks,
    address_of,
    network_of,
    network_text,
    read_networks,
)

FOLDER = Path(tempfile.mkdtemp(prefix="headgate-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
FILE = FOLDER / "networks.txt"
LISTS = Addresses(AddressRules(allow=("10.0.0.0/8", "2001:db8::/32"), deny=("10.1.0.0/16",)))
SEEDS = (
    b"10.0.0.7",
    b"10.1.2.3",
    b"::ffff:10.1.2.3",
    b"2001:db8::1",
    b"fe80::1%eth0",
    b"192.0.2.0/24\n# office\n2001:db8::/32 ; v6\n::ffff:192.0.2.0/120\n",
    b"192.0.2.1/24\n010.0.0.1\n1.2.3\n",
)
PROBES = [(4, 0), (4, 0xC0000207), (4, 2**32 - 1), (6, 0), (6, 2**128 - 1), (6, 0x20010DB8 << 96)]


def one(data: bytes) -> None:
    first = data.partition(b"\n")[0].decode("latin-1")
    refused = LISTS.check(first)
    try:
        known = ip_address(first)
    except ValueError:
        known = None
    found = address_of(first)
    if known is not None and found is not None:
        mapped = known.ipv4_mapped if isinstance(known, IPv6Address) else None
        plain = mapped or known
        assert found == (plain.version, int(plain)), first
        inside = plain in ip_network("10.0.0.0/8") and plain not in ip_network("10.1.0.0/16")
        if plain.version == 4:
            assert (refused is None) is inside, first
    if found is None:
        assert refused is not None, first
    _as_list(data)


def _as_list(data: bytes) -> None:
    networks = []
    for line in data.split(b"\n")[:64]:
        try:
            network = network_of(line.decode("latin-1").strip())
        except ValueError as error:
            assert "\n" not in str(error).replace(line.decode("latin-1"), "")
            continue
        assert network_of(network_text(network)) == network, line
        networks.append(network)
    held = Networks(networks)
    for version, number in PROBES:
        within = any(
            each == version and number >> (width - prefix) == first >> (width - prefix)
            for each, first, prefix in networks
            for width in (32 if each == 4 else 128,)
        )
        assert (held.find((version, number)) is not None) is within, data
    FILE.write_bytes(data)
    try:
        read = list(read_networks(str(FILE)))
    except ValueError:
        return
    assert all(network_of(network_text(each)) == each for each in read), data
