"""From where instances may register, and to where: the networks that the file names. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import TypeAlias

from headgate.wire.instance_url import parse_instance_url

__all__ = ["why_outside"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def why_outside(networks: Collection[Network], client: str, url: str) -> str | None:
    """Why somebody at this address may not register this URL; None if they may."""
    if not networks:
        return None
    asked = _address(client)
    if asked is None or not _is_in(asked, networks):
        return f"registry.networks lets nobody register from {client or 'there'}"
    try:
        host = parse_instance_url(url).host
    except ValueError:
        return None  # it is refused for what it is, in better words
    reached = _address(host)
    if reached is not None and not _is_in(reached, networks):
        return f"registry.networks lets nobody register {host}"
    return None


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None  # a name, or a socket
    return getattr(found, "ipv4_mapped", None) or found


def _is_in(address: Address, networks: Collection[Network]) -> bool:
    return any(each.version == address.version and address in each for each in networks)
