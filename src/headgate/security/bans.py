"""Addresses that are shut out for a while because of what they did, or by an operator's word.

Theory of operation
-------------------
    counted --more than a rule allows--> banned --its time is over, or lifted--> remembered

`saw` counts (see `ban_rules`), `check` refuses (see `ban_list`). The key is the address for IPv4
and its network of `ipv6_prefix` bits for IPv6, whose owner has them all. A ban by hand may be of
any network.

Who is exempt is never shut out, whatever was counted, heard or ordered: it is asked when a ban is
made and again when one would refuse. What happens while an address is banned does not count, or
requests that are under way would lengthen its ban. After a ban it counts from nothing, but the next
ban is longer.

Several processes. Who bans or lifts says so on the board (see `ban_news`). The time is told as
seconds that are left, with the wall time at which that was so, because clocks of processes have
nothing else in common: news that was kept and has run out does nothing. A ban that is heard never
shortens a longer one, and is not believed if it began before the last lift. A lift that is heard
again does nothing, or it would undo what came after it. Counts that are heard add up with our own,
so that a client whose connections are spread over workers is one; only what is seen here bans.

Bounds: `rules.keys` addresses are counted, as many banned and remembered. Of what is counted or
remembered the oldest makes room.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Final, Literal

from headgate.policy.limiter.keys import client_ip_key
from headgate.security.addresses import Network, address_of, network_of, network_text
from headgate.security.ban_list import BY_HAND, Ban, BanList
from headgate.security.ban_news import LIFTED_S, TOPIC, WARM_MAX, BanNews, BoardParts
from headgate.security.ban_rules import PARTS, BanRule, BanRules, Count, exempt_networks
from headgate.security.denied import Denied

__all__ = ["BY_HAND", "LONGEST_S", "TOPIC", "Ban", "BanRefused", "Bans", "Change"]

LONGEST_S: Final = 366 * 86_400.0
HAND_MAX: Final = 10_000
SWEEP_EVERY_S: Final = 1.0

_LIFTED_MAX: Final = 10_000
_SWEPT_AT_ONCE: Final = 2000
_TEXT_MAX: Final = 200
# A shorter prefix is a slip of the hand more often than a wish.
_WIDEST: Final = {4: 8, 6: 16}


class BanRefused(ValueError):
    """That address is not to be banned, or is none; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    what: Literal["banned", "detected", "lifted"]
    """`detected`: it would be banned, if rules did more than tell."""
    key: str
    for_s: float
    why: str
    by: str
    times: int
    is_heard: bool
    """Another process decided it."""


@dataclass(slots=True)
class _Seen:
    at: float
    counts: dict[str, Count] = field(default_factory=dict)
    """By the rule's name."""


class Bans:
    """One for each process, for all its life."""

    def __init__(
        self,
        rules: BanRules,
        now: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - what processes have in common
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.on_change: Callable[[Change], None] | None = None
        self._bans = BanList(rules.ipv6_prefix, rules.keys)
        self._news = BanNews(lambda: self._bans, wall, now)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._past: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """How often, and until when that is remembered."""
        self._lifted: OrderedDict[str, float] = OrderedDict()
        """Wall time of the last lift."""
        self._events: dict[str, int] = {}
        self._banned: dict[str, int] = {}
        self._refused = 0
        self._exempted = 0
        self._is_closed = False
        self._take(rules)

    # -- on the request path -------------------------------------------------------------------

    def check(self, client_ip: str, now: float) -> Denied | None:
        bans = self._bans
        if not bans:
            return None
        ban = bans.direct.get(
            client_ip_key(client_ip, self._v6_prefix) if ":" in client_ip else client_ip
        )
        if ban is not None:
            denied = self._deny(ban, client_ip, now)
            if denied is not None:
                return denied
        if not bans.has_wide:
            return None
        ban = bans.find_wide(client_ip)
        return None if ban is None else self._deny(ban, client_ip, now)

    def _deny(self, ban: Ban, client_ip: str, now: float) -> Denied | None:
        if now >= ban.until or not (self.rules.blocks or ban.by == BY_HAND):
            return None
        if self._is_exempt(client_ip, by_hand=ban.by == BY_HAND):
            return None
        ban.refused += 1
        self._refused += 1
        return Denied(
            "bans",
            "this address is shut out for a while",
            f"{ban.key} is banned by {ban.by}: {ban.why}",
            retry_after_s=float(ceil(ban.until - now)),
            is_cut=self.rules.is_cut,
        )

    def saw(self, client_ip: str, kind: str, weight: float = 1.0, now: float | None = None) -> None:
        """Something happened that rules may count. Of a status say it once: `status_404`, which
        rules for `status_4xx` count as well.
        """
        rules = self._by_kind.get(kind)
        if rules is None or not 0.0 < weight < inf:
            return
        if now is None:
            now = self._clock()
        key = client_ip_key(client_ip, self._v6_prefix)
        banned = self._bans.direct.get(key)
        if banned is None and self._bans.has_wide:
            banned = self._bans.find_wide(client_ip)
        if banned is not None and now < banned.until:
            return
        self._events[kind] = self._events.get(kind, 0) + 1
        counts = self._counts_of(key, now)
        for rule in rules:
            count = _add(counts, rule, weight, now)
            if count.total > rule.more_than:
                self._over(client_ip, key, rule, now)
                return
            self._news.counted(key, rule, count, weight)

    def _counts_of(self, key: str, now: float) -> dict[str, Count]:
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= self.rules.keys:
                self._seen.popitem(last=False)
            seen = self._seen[key] = _Seen(now)
        else:
            seen.at = now
            self._seen.move_to_end(key)
        return seen.counts

    def _over(self, client_ip: str, key: str, rule: BanRule, now: float) -> None:
        seen = self._seen.pop(key, None)
        if seen is not None:
            self._news.is_banned(key, seen.counts)
        if address_of(client_ip) is None or self._is_exempt(client_ip, by_hand=False):
            self._exempted += 1
            return
        times, until = self._past.get(key, (0, 0.0))
        times = times + 1 if now < until else 1
        # The exponent is bounded because a power of it need not fit into a float.
        grown_s = rule.ban_s * self.rules.grow ** min(times - 1, 64)
        for_s = max(rule.ban_s, min(grown_s, self.rules.longest_s))
        kinds = " or ".join(rule.kinds)
        why = f"more than {rule.more_than:g} of {kinds} within {rule.within_s:g} s"
        self._banned[rule.name] = self._banned.get(rule.name, 0) + 1
        ban = Ban(key, now + for_s, self._wall_after(key), why, rule.name, times)
        if self._put(ban, now):
            self._news.say_ban(key, now)
            self._changed("banned" if self.rules.blocks else "detected", ban, for_s)

    def _is_exempt(self, client_ip: str, *, by_hand: bool) -> bool:
        address = address_of(client_ip)
        if address is None:
            return False
        networks = self._exempt_by_hand if by_hand else self._exempt
        return networks.find(address) is not None

    def _is_all_exempt(self, network: Network, *, by_hand: bool) -> bool:
        version, first, prefix = network
        last = first | ((1 << ((32 if version == 4 else 128) - prefix)) - 1)
        networks = self._exempt_by_hand if by_hand else self._exempt
        found = networks.find((version, first))
        return found is not None and found == networks.find((version, last))

    # -- the list ------------------------------------------------------------------------------

    def ban(
        self, key: str, for_s: float, why: str, by: str = BY_HAND, now: float | None = None
    ) -> Ban:
        """Shut out an address or a network; BanRefused says why not.

        Of an IPv6 address it is its network of `ipv6_prefix` bits. A longer ban stays as it is.
        """
        if now is None:
            now = self._clock()
        if not 0.0 < for_s <= LONGEST_S:
            raise BanRefused(
                "a ban lasts for some time, and for no more than 366 days; "
                "whom to keep out for ever stands in the file, under `addresses.deny`"
            )
        network = self.network_of(key)
        text = network_text(network)
        version, _, prefix = network
        if prefix < _WIDEST[version]:
            raise BanRefused(
                f"{text} is too wide to be meant; the widest network to ban is a "
                f"/{_WIDEST[version]}"
            )
        if self._is_all_exempt(network, by_hand=by == BY_HAND):
            raise BanRefused(
                f"{text} is exempt, so it is never banned; see `trusted_proxies`, and `exempt` and "
                "`loopback` of `bans`"
            )
        if by == BY_HAND and self._bans.by_hand >= HAND_MAX:
            raise BanRefused(
                f"{HAND_MAX} are banned by hand already; put a list into `addresses.deny_file`"
            )
        said = "".join(char if char.isprintable() else " " for char in why[:_TEXT_MAX])
        ban = Ban(text, now + for_s, self._wall_after(text), said, by)
        if self._put(ban, now):
            self._news.say_ban(text, now)
            self._changed("banned", ban, for_s)
        return self._bans.get(text) or ban

    def lift(self, key: str, now: float | None = None) -> bool:
        """Let it in again and forget what it did; whether it was banned here. All are told, for
        another machine may know of a ban that we do not.
        """
        if now is None:
            now = self._clock()
        text = network_text(self.network_of(key))
        at = self._wall_after(text)
        was = self._lift(text, at, now, is_heard=False)
        self._news.say_lift(text, at, now)
        return was

    def _wall_after(self, key: str) -> float:
        """Now, and after the last lift of this key although the clock was set back since."""
        return max(self._wall(), self._lifted.get(key, -inf) + 0.001)

    def network_of(self, key: str) -> Network:
        """What an operator's word for an address or network means here."""
        said = key.strip()
        address = address_of(said) if "%" not in said else None
        try:
            if address is not None and ":" in said:
                return network_of(client_ip_key(said, self._v6_prefix))
            return network_of(said)
        except ValueError as error:
            raise BanRefused(f'"{said[:60]}" {error}') from None

    def find(self, client_ip: str, now: float) -> Ban | None:
        """The ban that holds this address, also where rules only tell."""
        return self._bans.find(client_ip, now)

    def _lift(self, key: str, at: float, now: float, *, is_heard: bool) -> bool:
        self._seen.pop(key, None)
        self._past.pop(key, None)
        self._lifted[key] = at
        self._lifted.move_to_end(key)
        if len(self._lifted) > _LIFTED_MAX:
            self._lifted.popitem(last=False)
        ban = self._bans.get(key)
        if ban is None:
            return False
        self._bans.drop(ban)
        if now >= ban.until:
            return False
        self._changed("lifted", ban, ban.until - now, is_heard=is_heard)
        return True

    def _put(self, ban: Ban, now: float) -> bool:
        if not self._bans.put(ban, now):
            return False
        self._past[ban.key] = (ban.times, ban.until + self.rules.remember_s)
        self._past.move_to_end(ban.key)
        if len(self._past) > self.rules.keys:
            self._past.popitem(last=False)
        return True

    # -- rules ---------------------------------------------------------------------------------

    def take_rules(self, rules: BanRules, now: float) -> None:
        """A reload. Counts go on where the rule has the same name and window; bans stay, but those
        of rules that are gone end, and so do those of addresses that are exempt now. ValueError,
        and nothing has changed, where `exempt` holds what is no network.
        """
        before = self.rules
        windows = {rule.name: rule.within_s for rule in before.rules}
        self._take(rules)
        names = {rule.name: rule.within_s for rule in rules.rules}
        stay = {name for name, within_s in names.items() if windows.get(name) == within_s}
        is_rekeyed = rules.ipv6_prefix != before.ipv6_prefix
        if stay != set(windows) or is_rekeyed:
            for key, seen in list(self._seen.items()):
                seen.counts = {name: seen.counts[name] for name in stay & seen.counts.keys()}
                if not seen.counts or (is_rekeyed and ":" in key):
                    del self._seen[key]
            self._news.cool()
        while len(self._seen) > rules.keys:
            self._seen.popitem(last=False)
        old = sorted(self._bans, key=lambda ban: (ban.by != BY_HAND, -ban.until))
        self._bans = BanList(rules.ipv6_prefix, rules.keys)
        for ban in old[: rules.keys]:
            is_by_hand = ban.by == BY_HAND
            if now >= ban.until or not (is_by_hand or ban.by in names):
                continue
            if not self._is_all_exempt(network_of(ban.key), by_hand=is_by_hand):
                self._bans.put(ban, now)

    def _take(self, rules: BanRules) -> None:
        exempt = exempt_networks(rules, by_hand=False)
        self._exempt_by_hand = exempt_networks(rules, by_hand=True)
        self._exempt = exempt
        self.rules = rules
        self._v6_prefix = rules.ipv6_prefix
        by_kind: dict[str, list[BanRule]] = {}
        for rule in rules.rules:
            for kind in rule.kinds:
                kinds = [kind]
                if kind.endswith("xx"):
                    kinds += [f"{kind[:-2]}{number:02}" for number in range(100)]
                for each in kinds:
                    named = by_kind.setdefault(each, [])
                    if rule not in named:
                        named.append(rule)
        self._by_kind = {kind: tuple(named) for kind, named in by_kind.items()}

    # -- the board -----------------------------------------------------------------------------

    def attach(self, parts: BoardParts, forget: Callable[[str, str], None] | None = None) -> None:
        """Hear and say news from now on, and let go of what has ended. On the running loop.

        `forget` is for one process of a machine, which takes off the board what is of no use there
        any more, whoever said it.
        """
        self._news.attach(parts, forget)
        parts.subscribe(TOPIC, self.on_news)
        parts.spawn(self._keep_sweeping())

    async def _keep_sweeping(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(SWEEP_EVERY_S)
            self.sweep(self._clock())

    def close(self) -> None:
        """Nobody is banned here any more: hear nothing, and end what was begun by `attach`."""
        self._is_closed = True

    def on_news(self, message: Mapping[str, Any]) -> None:
        if not self._is_closed:
            self.hear(message, self._clock())

    def hear(self, message: Mapping[str, Any], now: float) -> None:
        """What another process says. ValueError, KeyError or TypeError for what makes no sense."""
        what = message["what"]
        if what == "saw":
            self._hear_counts(message["counts"], now)
            return
        key = network_text(network_of(str(message["key"])))
        at = _number(message["at"])
        if what == "lift":
            left_s = LIFTED_S - max(self._wall() - at, 0.0)
            self._news.is_on_board(key, now + left_s)
            if left_s > 0.0 and at > self._lifted.get(key, -inf):
                self._lift(key, at, now, is_heard=True)
        elif what == "ban":
            self._hear_ban(key, at, message, now)

    def _hear_ban(self, key: str, at: float, message: Mapping[str, Any], now: float) -> None:
        wall = self._wall()
        since = _number(message.get("since", at))
        left_s = min(_number(message["for_s"]), LONGEST_S) - max(wall - at, 0.0)
        by = str(message["by"])[:_TEXT_MAX]
        self._news.is_on_board(key, now + left_s)
        # Of a clock that is ahead of ours no more is believed than ours.
        if left_s <= 0.0 or since <= min(self._lifted.get(key, -inf), wall):
            return
        if by != BY_HAND and not self.rules.rules:
            return  # nobody is banned by rules here, whatever others do who share the board
        if self._is_all_exempt(network_of(key), by_hand=by == BY_HAND):
            return
        times = max(1, min(int(message.get("times", 1)), 1000))
        ban = Ban(key, now + left_s, min(since, wall), str(message["why"])[:_TEXT_MAX], by, times)
        if self._put(ban, now):
            seen = self._seen.pop(key, None)
            if seen is not None:
                self._news.is_banned(key, seen.counts)
            blocks = self.rules.blocks or by == BY_HAND
            self._changed("banned" if blocks else "detected", ban, left_s, is_heard=True)

    def _hear_counts(self, said: Any, now: float) -> None:
        rules = {rule.name: rule for rule in self.rules.rules}
        for key, name, weight in said[:WARM_MAX]:
            rule = rules.get(name)
            weight = _number(weight)
            banned = self._bans.direct.get(key)
            if rule is None or weight <= 0.0 or (banned is not None and now < banned.until):
                continue
            _add(self._counts_of(str(key)[:64], now), rule, weight, now)

    # -- upkeep and figures --------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Let go of what has ended, and say what was held back. About once a second."""
        self._bans.sweep(now, _SWEPT_AT_ONCE)
        longest_s = max((rule.within_s for rule in self.rules.rules), default=0.0)
        for _ in range(_SWEPT_AT_ONCE):
            if not self._seen or next(iter(self._seen.values())).at + longest_s > now:
                break
            self._seen.popitem(last=False)
        for _ in range(_SWEPT_AT_ONCE):
            if not self._past or next(iter(self._past.values()))[1] > now:
                break
            self._past.popitem(last=False)
        self._news.sweep(now)

    def _changed(
        self,
        what: Literal["banned", "detected", "lifted"],
        ban: Ban,
        for_s: float,
        *,
        is_heard: bool = False,
    ) -> None:
        if self.on_change is not None:
            self.on_change(Change(what, ban.key, for_s, ban.why, ban.by, ban.times, is_heard))

    def snapshot(self, now: float, most: int = 1000) -> list[dict[str, Any]]:
        """Who is banned, the newest first, as plain data."""
        running = [ban for ban in self._bans if now < ban.until]
        running.sort(key=lambda ban: ban.since, reverse=True)
        return [
            {
                "key": ban.key,
                "since": ban.since,
                "remaining_s": round(ban.until - now, 1),
                "why": ban.why,
                "by": ban.by,
                "times": ban.times,
                "refused": ban.refused,
                "blocks": self.rules.blocks or ban.by == BY_HAND,
            }
            for ban in running[:most]
        ]

    def figures(self) -> dict[str, Any]:
        """Counts since the start of this process."""
        return {
            "banned": len(self._bans),
            "counted": len(self._seen),
            "remembered": len(self._past),
            "refused": self._refused,
            "events": dict(self._events),
            "bans": dict(self._banned),
            "exempted": self._exempted,
            "unsaid": self._news.unsaid,
        }


def _add(counts: dict[str, Count], rule: BanRule, weight: float, now: float) -> Count:
    tick = int(now * PARTS / rule.within_s)
    count = counts.get(rule.name)
    if count is None:
        count = counts[rule.name] = Count(tick)
    count.add(weight, tick)
    return count


def _number(value: Any) -> float:
    number = float(value)
    if not -inf < number < inf:
        raise ValueError(f"{number} is no number to work with")
    return number
