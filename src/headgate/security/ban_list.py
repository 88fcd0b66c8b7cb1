"""Who is banned: the list, and how an address is found in it.

Theory of operation. Most bans are of a client's key (an IPv4 address, an IPv6 network of
`v6_prefix` bits) and found with one look into `direct`. Bans of other networks, which come by hand,
stand in `_wide` by the length of their prefix: one look for each length in use, remembered by
address. Where several hold an address the one that ends last counts.

`_ends` is a heap of when bans end; an entry whose ban was lifted or lengthened is found to be out
of date when it comes up. When the list is full the ban that ends first makes room, none by hand.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from headgate.policy.limiter.keys import client_ip_key
from headgate.security.addresses import Network, address_of, network_of

__all__ = ["BY_HAND", "Ban", "BanList"]

BY_HAND: Final = "hand"
_MEMO_MAX: Final = 8192


@dataclass(slots=True)
class Ban:
    key: str
    until: float
    """On this process's monotonic clock."""
    since: float
    """Wall time."""
    why: str
    by: str
    """`hand`, or the name of the rule."""
    times: int = 1
    """The how-manieth within memory."""
    refused: int = 0
    """Requests that this process turned away for it."""


class BanList:
    __slots__ = ("_bans", "_ends", "_memo", "_most", "_v6_prefix", "_wide", "by_hand", "direct")

    def __init__(self, v6_prefix: int, most: int) -> None:
        self._v6_prefix = v6_prefix
        self._most = most
        self._bans: dict[str, Ban] = {}
        self.direct: dict[str, Ban] = {}
        self._wide: dict[tuple[int, int], dict[int, Ban]] = {}
        self._memo: dict[str, Ban | None] = {}
        self._ends: list[tuple[float, str]] = []
        self.by_hand = 0

    def __len__(self) -> int:
        return len(self._bans)

    def __iter__(self) -> Iterator[Ban]:
        return iter(self._bans.values())

    def get(self, key: str) -> Ban | None:
        return self._bans.get(key)

    @property
    def has_wide(self) -> bool:
        return bool(self._wide)

    def find(self, client_ip: str, now: float) -> Ban | None:
        """The ban that runs and holds this address; of a client's own key before all others."""
        ban = self.direct.get(client_ip_key(client_ip, self._v6_prefix))
        if ban is None or now >= ban.until:
            ban = self.find_wide(client_ip) if self._wide else None
        return ban if ban is not None and now < ban.until else None

    def find_wide(self, client_ip: str) -> Ban | None:
        memo = self._memo
        try:
            return memo[client_ip]
        except KeyError:
            pass
        found: Ban | None = None
        address = address_of(client_ip)
        if address is not None:
            version, number = address
            bits = 32 if version == 4 else 128
            for (of, prefix), bans in self._wide.items():
                if of == version:
                    ban = bans.get(number >> (bits - prefix))
                    if ban is not None and (found is None or ban.until > found.until):
                        found = ban
        if len(memo) >= _MEMO_MAX:
            memo.clear()
        memo[client_ip] = found
        return found

    def put(self, ban: Ban, now: float) -> bool:
        """Whether that changes anything: of two bans of one key the longer stays."""
        known = self._bans.get(ban.key)
        if known is not None:
            if known.until >= ban.until:
                return False
            if now < known.until:
                ban.since, ban.refused = known.since, known.refused
            self.drop(known)
        elif len(self._bans) >= self._most:
            self._make_room()
        self._bans[ban.key] = ban
        self.by_hand += ban.by == BY_HAND
        network = network_of(ban.key)
        if self._is_direct(network):
            self.direct[ban.key] = ban
        else:
            self._wide.setdefault(network[::2], {})[_number(network)] = ban
            self._memo.clear()
        heapq.heappush(self._ends, (ban.until, ban.key))
        if len(self._ends) > 2 * len(self._bans) + 1000:
            self._ends = [(each.until, each.key) for each in self._bans.values()]
            heapq.heapify(self._ends)
        return True

    def drop(self, ban: Ban) -> None:
        del self._bans[ban.key]
        self.by_hand -= ban.by == BY_HAND
        if self.direct.pop(ban.key, None) is None:
            network = network_of(ban.key)
            bans = self._wide[network[::2]]
            del bans[_number(network)]
            if not bans:
                del self._wide[network[::2]]
            self._memo.clear()

    def sweep(self, now: float, most: int) -> None:
        """Let go of bans that have ended."""
        for _ in range(most):
            if not self._ends or self._ends[0][0] > now:
                return
            _, key = heapq.heappop(self._ends)
            ban = self._bans.get(key)
            if ban is not None and ban.until <= now:
                self.drop(ban)

    def _make_room(self) -> None:
        by_hand = []
        while self._ends:
            end = heapq.heappop(self._ends)
            ban = self._bans.get(end[1])
            if ban is None or ban.until != end[0]:
                continue
            if ban.by != BY_HAND:
                self.drop(ban)
                break
            by_hand.append(end)
        for end in by_hand:
            heapq.heappush(self._ends, end)

    def _is_direct(self, network: Network) -> bool:
        version, _, prefix = network
        return prefix == (32 if version == 4 else self._v6_prefix)


def _number(network: Network) -> int:
    version, first, prefix = network
    return first >> ((32 if version == 4 else 128) - prefix)
