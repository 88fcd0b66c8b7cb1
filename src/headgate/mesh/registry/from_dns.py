"""Instances that a name in DNS leads to, named anew whenever the answer is another.

Theory of operation. `DnsState` holds the rules and no clock; `DnsSource` asks, waits and names.

    answered   what was found is named; the next look is when its TTL is over, within the bounds of
               `dns`, or as often as the file says
    no name    also when it has no such record: what was known is kept for `missing_keep_s`, since
               names are taken away and given anew in a roll-out, then nobody is named. Looks follow
               each other by the negative TTL
    unanswered what was known is kept for as long as it takes; looks follow each other more and more
               slowly. Before the first answer nothing is named, so that what was known before a
               restart stays

`A` and `AAAA` are asked for both unless one is said, and each keeps its own last answer: that one
server fails for one of them takes nothing away. `/etc/hosts` is heard before the servers, as for
every other name. Of `SRV` the target is kept as a name, which certificates are about.

Priorities of `SRV` are ranked (0 is the lowest one there is). Weights above 1000 are made smaller
in proportion, and a weight of 0 is 1: RFC 2782 gives it a small chance, and 0 here means none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from headgate.mesh.registry.asked import PRIORITY_MAX, WEIGHT_MAX
from headgate.mesh.registry.ids import id_of
from headgate.mesh.registry.model import Instance, Source
from headgate.wire.resolve import (
    HostsFile,
    NoSuchName,
    Records,
    Resolver,
    SrvTarget,
    Unanswered,
)

__all__ = ["DnsSource", "DnsState", "DnsWanted", "Look"]

Kind = Literal["A", "AAAA", "SRV"]
Outcome = Records | NoSuchName | Unanswered
Name = Callable[[Source, str, Sequence[Instance]], object]

MISSING_KEEP_S: Final = 60.0
LEAST_S: Final = 1.0
MOST_S: Final = 300.0
_AGAIN_MIN_S: Final = 1.0
_AGAIN_MAX_S: Final = 30.0
_HOSTS_S: Final = 5.0

log = logging.getLogger("headgate.mesh")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsWanted:
    service: str
    name: str
    kind: Kind | None = None
    """None: `A` and `AAAA`."""
    port: int | None = None
    """Not of `SRV`, which has its own."""
    scheme: Literal["http", "https"] = "http"
    zone: str = ""
    every_s: float | None = None
    """None: by the TTL, between `least_s` and `most_s`."""
    least_s: float = LEAST_S
    most_s: float = MOST_S
    negative_s: float = 5.0
    missing_keep_s: float = MISSING_KEEP_S

    @property
    def key(self) -> str:
        """What the source is called: services may share a name."""
        return f"{self.name} for {self.service}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return ("A", "AAAA") if self.kind is None else (self.kind,)


@dataclass(frozen=True, slots=True)
class Look:
    """What to do now."""

    instances: tuple[Instance, ...] | None
    """Name these; None: leave it as it is."""
    again_s: float
    worry: str = ""


class DnsState:
    """What is known of one name. Pure: time is an argument."""

    def __init__(self, wanted: DnsWanted) -> None:
        self.wanted = wanted
        self._last: dict[Kind, Records] = {}
        self._missing_since: float | None = None
        self._failures = 0
        self._named: tuple[Instance, ...] | None = None

    def learn(self, outcomes: dict[Kind, Outcome], now: float) -> Look:
        """Take in how the look-ups ended, one of each kind."""
        wanted = self.wanted
        failed = [each.reason for each in outcomes.values() if isinstance(each, Unanswered)]
        answers = {k: one for k, one in outcomes.items() if isinstance(one, Records)}
        has_any = any(one.addresses or one.targets for one in answers.values())
        is_decided = "SRV" in answers and not has_any and answers["SRV"].is_none_decided
        if has_any or is_decided:
            self._missing_since = None
            for kind, one in outcomes.items():
                if isinstance(one, Records):
                    self._last[kind] = one
                elif isinstance(one, NoSuchName):
                    self._last.pop(kind, None)
        if len(failed) == len(outcomes):
            self._failures += 1
            again_s = min(_AGAIN_MAX_S, _AGAIN_MIN_S * 2.0 ** min(self._failures - 1, 10))
            return Look(None, again_s, f"{wanted.name}: {failed[0]}; {self._what_is_kept()}")
        self._failures = 0
        worry = f"{wanted.name}: {failed[0]}; {self._what_is_kept()}" if failed else ""
        if has_any or is_decided:
            ttl_s = min(one.ttl_s for one in answers.values() if one.rows or is_decided)
            again_s = min(max(ttl_s, wanted.least_s), wanted.most_s)
            if failed:
                again_s = min(again_s, _AGAIN_MAX_S)
            return Look(self._changed(), self._every(again_s), worry)
        if failed:
            # One family has nothing, of the other nobody knows.
            return Look(None, self._every(wanted.negative_s), worry)
        if self._missing_since is None:
            self._missing_since = now
        missing_s = now - self._missing_since
        again_s = self._every(max(wanted.negative_s, LEAST_S))
        worry = f"{wanted.name}: there is no such name, or it has no {' or '.join(wanted.kinds)}"
        if (self._last or self._named is None) and missing_s < wanted.missing_keep_s:
            worry = f"{worry}; {self._what_is_kept()} for {wanted.missing_keep_s:g} s"
            return Look(None, min(again_s, wanted.missing_keep_s - missing_s), worry)
        self._last = {}
        return Look(self._changed(), again_s, worry)

    def _every(self, else_s: float) -> float:
        return else_s if self.wanted.every_s is None else self.wanted.every_s

    def _what_is_kept(self) -> str:
        if not self._last:
            return "what was known before is kept"
        count = sum(one.rows for one in self._last.values())
        return f"the {count} known last are kept" if count > 1 else "the one known last is kept"

    def _changed(self) -> tuple[Instance, ...] | None:
        found = tuple(instances_of(self.wanted, self._last))
        if found == self._named:
            return None
        self._named = found
        return found


def instances_of(wanted: DnsWanted, answers: dict[Kind, Records]) -> list[Instance]:
    """What the answers name; the first counts where two name one place."""
    found: dict[str, Instance] = {}
    for kind in wanted.kinds:
        one = answers.get(kind)
        if one is None:
            continue
        for address in one.addresses:
            host = f"[{address}]" if ":" in address else address
            _add(found, wanted, f"{wanted.scheme}://{host}:{wanted.port}", 1, 0)
        ranks = {p: n for n, p in enumerate(sorted({each.priority for each in one.targets}))}
        for target in one.targets:
            priority = min(ranks[target.priority], PRIORITY_MAX)
            weight = _weight(target, one.targets)
            _add(found, wanted, f"{wanted.scheme}://{target.host}:{target.port}", weight, priority)
    return list(found.values())


def _weight(target: SrvTarget, targets: Sequence[SrvTarget]) -> int:
    most = max(each.weight for each in targets)
    weight = target.weight if most <= WEIGHT_MAX else round(target.weight * WEIGHT_MAX / most)
    return max(1, weight)


def _add(
    found: dict[str, Instance], wanted: DnsWanted, url: str, weight: int, priority: int
) -> None:
    try:
        name = id_of(url)
    except ValueError:
        log.warning("%s names %.200r, where nothing can answer", wanted.name, url)
        return
    if name not in found:
        found[name] = Instance(
            service=wanted.service,
            id=name,
            url=url,
            zone=wanted.zone,
            weight=weight,
            priority=priority,
            source="dns",
        )


class DnsSource:
    """One name, looked up again and again. `start`, and `close` at the end."""

    source: Final = "dns"

    def __init__(
        self,
        wanted: DnsWanted,
        resolver: Resolver,
        name: Name,
        *,
        hosts_file: Path = Path("/etc/hosts"),
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wanted = wanted
        self.worry = ""
        """Why what is named may be old; empty while it is not."""
        self.looks = 0
        self._state = DnsState(wanted)
        self._resolver = resolver
        self._hosts = HostsFile(hosts_file)
        self._name = name
        self._rng = rng or random.Random()
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    @property
    def key(self) -> str:
        return self.wanted.key

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"discover {self.wanted.name}")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> float:
        """Look once, name what is new, and say after how long to look again."""
        kinds = self.wanted.kinds
        outcomes: dict[Kind, Outcome] = dict(self._by_hosts())
        if not outcomes:
            answers = await asyncio.gather(
                *(self._resolver.ask(self.wanted.name, kind) for kind in kinds)
            )
            outcomes = dict(zip(kinds, answers, strict=True))
        look = self._state.learn(outcomes, self._clock())
        self.looks += 1
        if look.worry != self.worry and look.worry:
            log.warning("discovering %s: %s", self.wanted.service, look.worry)
        self.worry = look.worry
        if look.instances is not None:
            self._name("dns", self.key, look.instances)
        # Early rather than late, and many gateways not all at once.
        return look.again_s * self._rng.uniform(0.9, 1.0)

    def _by_hosts(self) -> dict[Kind, Outcome]:
        if self.wanted.kind == "SRV":
            return {}
        found = self._hosts.find(self.wanted.name)
        if found is None:
            return {}
        by_kind: dict[Kind, Outcome] = {
            "A": Records(_HOSTS_S, found.v4),
            "AAAA": Records(_HOSTS_S, found.v6),
        }
        return {kind: by_kind[kind] for kind in self.wanted.kinds}

    async def _run(self) -> None:
        while True:
            again_s = _AGAIN_MAX_S
            try:
                again_s = await self.look()
            except Exception:
                log.exception("discovering %s failed", self.wanted.service)  # a fault of ours
            await asyncio.sleep(again_s)
