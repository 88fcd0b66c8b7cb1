"""A line before something dear, of which no address has more than its share.

Theory of operation. Whoever sends wrong credentials all the time must not keep out who has the
right ones: so many places there are in all, and a quarter of them at most for one address. An IPv6
client counts by its network of 64 bits, since it has 2^64 addresses of its own. A place that was
taken is given back exactly once, by whoever took it.
"""

from __future__ import annotations

import ipaddress


class Line:
    def __init__(self, places: int) -> None:
        self._places = places
        self._share = max(1, places // 4)
        self._taken = 0
        self._of: dict[object, int] = {}

    def __len__(self) -> int:
        return self._taken

    def take(self, client_ip: str) -> object | None:
        """A place, to be given back; None when there is none for this address."""
        who = _network(client_ip)
        mine = self._of.get(who, 0)
        if self._taken >= self._places or mine >= self._share:
            return None
        self._taken += 1
        self._of[who] = mine + 1
        return who

    def give_back(self, place: object) -> None:
        left = self._of[place] - 1
        if left:
            self._of[place] = left
        else:
            del self._of[place]
        self._taken -= 1


def _network(client_ip: str) -> object:
    if ":" not in client_ip:
        return client_ip
    try:
        address = ipaddress.IPv6Address(client_ip.partition("%")[0])
    except ValueError:
        return client_ip
    return str(address.ipv4_mapped) if address.ipv4_mapped else int(address) >> 64
