"""What addresses are banned for, and how what they did is counted.

Theory of operation
-------------------
A rule counts happenings of its kinds by address: more than `more_than` within `within_s`, and the
address is banned for `ban_s`. A ban that comes again while the last one is remembered is `grow`
times as long as the one before, up to `longest_s`.

A count is a ring of `PARTS` sums, each over a part of the window. It holds what happened in the
part that runs and the five before, so it spans between 5/6 of the window and all of it: nothing
older than the window ever counts, and whoever does too much within 5/6 of it is always found. It
takes the same memory however much happens. A clock that goes back counts into the part that runs.

`status_4xx` counts every such status: whoever tells says `status_404` and not both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headgate.security.addresses import NAMED, Network, Networks, network_of

__all__ = [
    "DEFAULT_RULES",
    "KINDS",
    "PARTS",
    "BanRule",
    "BanRules",
    "Count",
    "exempt_networks",
    "is_kind",
]

PARTS: Final = 6

KINDS: Final = (
    "malformed",  # a request that breaks the protocol
    "login_failed",  # a log-in page or service said so
    "bad_credentials",  # a token, key or password that does not hold
    "injection",
    "limited",  # refused by a rate limit
    "bot",  # refused as a bot, or a crawler that is not the one it claims to be
)
"""What may be counted besides statuses: `status_4xx`, `status_5xx` or one, as in `status_401`."""

_STATUS: Final = re.compile(r"status_[45](?:xx|[0-9]{2})")


def is_kind(kind: str) -> bool:
    return kind in KINDS or _STATUS.fullmatch(kind) is not None


@dataclass(frozen=True, slots=True)
class BanRule:
    name: str
    kinds: tuple[str, ...]
    more_than: float
    within_s: float
    ban_s: float


# Many people may share an address (an office, a school, a phone network), so each limit is far
# above what a room full of them does by mistake, and what only a program does is kept short.
DEFAULT_RULES: Final = (
    # A page with a dozen broken pictures is a dozen of these.
    BanRule("client_errors", ("status_4xx",), 200, 60.0, 300.0),
    # Guessing passwords. Twenty people may mistype theirs within five minutes.
    BanRule("logins", ("login_failed", "bad_credentials"), 20, 300.0, 900.0),
    BanRule("attacks", ("injection",), 10, 600.0, 1800.0),
    # Being limited is normal; hammering on for a minute is not.
    BanRule("limits", ("limited",), 300, 60.0, 120.0),
    BanRule("malformed", ("malformed",), 20, 60.0, 600.0),
    BanRule("bots", ("bot",), 5, 600.0, 1800.0),
)
"""What `bans: true` is."""


@dataclass(frozen=True, slots=True)
class BanRules:
    rules: tuple[BanRule, ...] = ()
    exempt: tuple[str, ...] = ()
    """Networks, as in `AddressRules`, that are never banned; trusted proxies are among them."""
    loopback: bool = False
    """Whether this machine's own addresses may be banned."""
    private: bool = False
    """Whether private and link-local addresses may be banned by rules."""
    ipv6_prefix: int = 64
    grow: float = 2.0
    remember_s: float = 86_400.0
    longest_s: float = 86_400.0
    blocks: bool = True
    """False: rules only tell whom they would ban. What is banned by hand is always shut out."""
    is_cut: bool = False
    """Close the connection in place of an answer."""
    keys: int = 100_000
    """Addresses that are counted, or banned, or remembered at most."""


def exempt_networks(rules: BanRules, *, by_hand: bool) -> Networks:
    """Who is never banned; ValueError for what is no network."""

    def each() -> list[Network]:
        texts = list(rules.exempt)
        if not rules.loopback:
            texts.append("loopback")
        if not rules.private and not by_hand:
            texts += ["private", "link-local"]
        return [network_of(one) for text in texts for one in NAMED.get(text, (text,))]

    return Networks(each())


class Count:
    """How much of something happened within a window."""

    __slots__ = ("_parts", "_tick", "told", "total")

    def __init__(self, tick: int) -> None:
        self._tick = tick
        self._parts: list[float] = [0] * PARTS
        self.total: float = 0
        self.told: float = 0
        """Of this, what other processes have not been told yet."""

    def add(self, weight: float, tick: int) -> float:
        """The sum with this; `tick` is the number of the part that runs."""
        passed = tick - self._tick
        if passed > 0:
            parts = self._parts
            if passed >= PARTS:
                self._parts = parts = [0] * PARTS
                self.told = 0
            else:
                for at in range(self._tick + 1, tick + 1):
                    parts[at % PARTS] = 0
            self._tick = tick
            self.total = sum(parts)  # anew, so that what was rounded does not add up
        self._parts[self._tick % PARTS] += weight
        self.total += weight
        return self.total
