"""Names to addresses: `/etc/hosts`, then DNS, with answers kept as long as they say.

Theory of operation
-------------------
The system's resolver blocks and hides the time an answer is good for, so names are asked for
here. `NameCache` holds the rules and no clock; `Resolver` is the rim with the sockets.

An entry of the cache holds the last addresses and three times:

- until `fresh_until` they are given out at once; from `refresh_at` on (four fifths of the TTL)
  giving them out also starts a look-up in the background, so that a name in use is not waited
  for again;
- after `fresh_until` whoever asks waits for a look-up;
- `retry_at` is set when the servers could not be asked. Until then nobody tries again: the old
  addresses are served although they are stale (RFC 8767), for at most a day, or the failure is
  told again when there are none. Afterwards the stale ones are still given at once while a
  look-up runs, since the server is likely to be still away.

That there is no such name is an answer: it takes the addresses away, and is kept for the negative
TTL. Look-ups are single-flight: one a name, which belongs to the resolver and not to the first
who asked, so it survives when that one is cancelled. They never raise.

The library that asks is loaded when the first name is looked up: most instances are addresses.

Names come from the configuration, which bounds them; the cache is bounded all the same, and
forgets the name that was not asked for the longest.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from headgate.errors import UpstreamFailed
from headgate.wire.host import parse_authority

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.nameserver
    import dns.resolver

_MAX_NAMES: Final = 1024
_REFRESH_AT: Final = 0.8
# So that those who waited for a look-up get what it brought, even with a TTL of zero.
_SHORTEST_S: Final = 0.1
_STALE_S: Final = 86400.0
# The file is looked at again after this long; it costs one stat.
_HOSTS_TTL_S: Final = 5.0
# How long the second address family may take after the first has answered. RFC 8305 gives a
# browser 50 ms; our answers are kept, so a whole one is worth more.
_SECOND_FAMILY_S: Final = 0.3


class DnsOptions(Protocol):
    """What this file reads of the configuration's `DnsSpec`."""

    @property
    def servers(self) -> Sequence[str] | None: ...
    @property
    def min_ttl(self) -> float: ...
    @property
    def max_ttl(self) -> float: ...
    @property
    def negative_ttl(self) -> float: ...
    @property
    def timeout(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A name has these addresses, IPv6 and IPv4 apart, for so long."""

    v6: tuple[str, ...]
    v4: tuple[str, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """A server says that the name does not exist or has no address."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No server could be asked."""

    reason: str


Outcome = Found | NoSuchName | Unanswered


@dataclass(frozen=True, slots=True)
class SrvTarget:
    """One answer of SRV (RFC 2782), in its own numbers: the lowest priority is asked first."""

    host: str
    port: int
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class Records:
    """What a server says now of one kind of record; none, if the name has others only."""

    ttl_s: float
    addresses: tuple[str, ...] = ()
    targets: tuple[SrvTarget, ...] = ()
    is_none_decided: bool = False
    """It names the root alone: the service is decidedly not there (RFC 2782)."""

    @property
    def rows(self) -> int:
        return len(self.addresses) + len(self.targets)


@dataclass(frozen=True, slots=True)
class Use:
    """What to do for someone who asks for a name."""

    addresses: tuple[str, ...] | None
    """Give these out; None: wait for a look-up, unless `failure` says why it is of no use."""
    look_up: bool
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class NameState:
    """What an operator may ask about a name."""

    name: str
    addresses: tuple[str, ...]
    fresh_for_s: float
    """Negative for how long the addresses have been stale."""
    failure: str | None


class _Entry:
    __slots__ = ("failure", "fresh_until", "refresh_at", "retry_at", "turn", "v4", "v6")

    def __init__(self) -> None:
        self.v6: tuple[str, ...] = ()
        self.v4: tuple[str, ...] = ()
        self.fresh_until = 0.0
        self.refresh_at = 0.0
        self.retry_at: float | None = None
        self.failure: str | None = None
        self.turn = -1

    def next_addresses(self) -> tuple[str, ...]:
        """Give the addresses of each family in turn, so that no instance gets all connections."""
        self.turn += 1
        return _rotated(self.v6, self.turn) + _rotated(self.v4, self.turn)


def _rotated(addresses: tuple[str, ...], by: int) -> tuple[str, ...]:
    if len(addresses) < 2:
        return addresses
    at = by % len(addresses)
    return addresses[at:] + addresses[:at]


class NameCache:
    """What is known about names, and what it is still good for. Pure: time is an argument."""

    def __init__(
        self, min_ttl_s: float, max_ttl_s: float, negative_ttl_s: float, max_names: int = _MAX_NAMES
    ) -> None:
        self._min_ttl_s = min_ttl_s
        self._max_ttl_s = max_ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._max_names = max_names
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def use(self, name: str, now: float) -> Use:
        """Say what to do for someone who asks for `name`."""
        entry = self._entries.get(name)
        if entry is None:
            return Use(None, look_up=True)
        self._entries.move_to_end(name)
        if entry.v6 or entry.v4:
            if now < entry.fresh_until:
                return Use(entry.next_addresses(), look_up=now >= entry.refresh_at)
            if entry.retry_at is not None and now < entry.fresh_until + _STALE_S:
                return Use(entry.next_addresses(), look_up=now >= entry.retry_at)
        elif entry.retry_at is not None and now < entry.retry_at:
            return Use(None, look_up=False, failure=entry.failure)
        return Use(None, look_up=True)

    def learn(self, name: str, outcome: Outcome, now: float) -> None:
        """Take in how a look-up ended."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            if len(self._entries) > self._max_names:
                self._entries.popitem(last=False)
        if isinstance(outcome, Found):
            ttl_s = max(min(max(outcome.ttl_s, self._min_ttl_s), self._max_ttl_s), _SHORTEST_S)
            entry.v6, entry.v4 = outcome.v6, outcome.v4
            entry.fresh_until = now + ttl_s
            entry.refresh_at = now + ttl_s * _REFRESH_AT
            entry.retry_at = entry.failure = None
            return
        entry.retry_at = now + max(self._negative_ttl_s, _SHORTEST_S)
        # A refresh ahead that failed is not tried again with every use.
        entry.refresh_at = entry.retry_at
        if isinstance(outcome, NoSuchName):
            entry.v6 = entry.v4 = ()
            entry.failure = "there is no such name, or it has no address"
        else:
            entry.failure = outcome.reason

    def snapshot(self, now: float) -> tuple[NameState, ...]:
        """Return every name with what is known about it."""
        return tuple(
            NameState(name, entry.v6 + entry.v4, entry.fresh_until - now, entry.failure)
            for name, entry in self._entries.items()
        )


class Resolver:
    """Names to addresses for one worker. End it with `aclose`."""

    def __init__(
        self,
        options: DnsOptions,
        *,
        hosts_file: Path = Path("/etc/hosts"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = NameCache(options.min_ttl, options.max_ttl, options.negative_ttl)
        self._hosts = HostsFile(hosts_file)
        self._timeout_s = options.timeout
        self._servers = tuple(options.servers) if options.servers is not None else None
        self._dns: dns.asyncresolver.Resolver | None = None
        self._clock = clock
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def resolve(self, name: str) -> tuple[str, ...]:
        """Return the addresses of `name`, IPv6 before IPv4; raise UpstreamFailed("dns")."""
        if is_address(name):
            return (name,)
        key = name.lower()
        use = self._cache.use(key, self._clock())
        if use.look_up:
            flight = self._look_up_once(key)
            if use.addresses is None:
                # `wait` leaves the flight alone when the one who waits is cancelled.
                await asyncio.wait((flight,))
                use = self._cache.use(key, self._clock())
        if use.addresses is None:
            raise UpstreamFailed("dns", f"{name}: {use.failure or 'the resolver is closed'}")
        return use.addresses

    async def ask(
        self, name: str, kind: Literal["A", "AAAA", "SRV"]
    ) -> Records | NoSuchName | Unanswered:
        """Ask the servers, past what is kept and past `/etc/hosts`. It never raises."""
        import dns.exception
        import dns.name

        try:
            resolver = self._dns or self._configure()
        except (dns.exception.DNSException, ValueError, OSError) as error:
            return Unanswered(f"no name server is configured: {error}")
        answer = await self._answer(resolver, name, kind)
        if answer is None:
            return NoSuchName()
        if isinstance(answer, Unanswered):
            return answer
        ttl_s = float(answer.chaining_result.minimum_ttl)
        if answer.rrset is None:
            return Records(ttl_s)
        if kind != "SRV":
            return Records(ttl_s, tuple(sorted({record.address for record in answer.rrset})))
        found = {
            SrvTarget(
                record.target.to_text(omit_final_dot=True),
                record.port,
                record.priority,
                record.weight,
            )
            for record in answer.rrset
            if record.target != dns.name.root
        }
        order = sorted(found, key=lambda one: (one.priority, one.host, one.port, one.weight))
        return Records(ttl_s, targets=tuple(order), is_none_decided=not order)

    async def aclose(self) -> None:
        """End every look-up; those who wait for one are told that it failed."""
        self._closed = True
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def snapshot(self) -> tuple[NameState, ...]:
        """Return every name with what is known about it."""
        return self._cache.snapshot(self._clock())

    def _look_up_once(self, name: str) -> asyncio.Task[None]:
        flight = self._flights.get(name)
        if flight is None:
            loop = asyncio.get_running_loop()
            flight = self._flights[name] = loop.create_task(self._look_up(name), name=f"dns {name}")
        return flight

    async def _look_up(self, name: str) -> None:
        try:
            if not self._closed:
                outcome = self._hosts.find(name) or await self._ask(name)
                self._cache.learn(name, outcome, self._clock())
        finally:
            del self._flights[name]

    async def _ask(self, name: str) -> Outcome:
        import dns.exception

        try:
            resolver = self._dns or self._configure()
        except (dns.exception.DNSException, ValueError, OSError) as error:
            return Unanswered(f"no name server is configured: {error}")
        loop = asyncio.get_running_loop()
        v6 = loop.create_task(self._query(resolver, name, "AAAA"), name=f"dns {name} AAAA")
        v4 = loop.create_task(self._query(resolver, name, "A"), name=f"dns {name} A")
        try:
            done, pending = await asyncio.wait((v6, v4), return_when=asyncio.FIRST_COMPLETED)
            if pending:
                first = done.pop().result()
                enough = isinstance(first, tuple) and bool(first[0])
                await asyncio.wait(pending, timeout=_SECOND_FAMILY_S if enough else None)
            answers = [task.result() for task in (v6, v4) if task.done()]
        finally:
            v6.cancel()
            v4.cancel()
            await asyncio.wait((v6, v4))  # their sockets are closed when they have ended
        found = [answer for answer in answers if isinstance(answer, tuple) and answer[0]]
        if found:
            addresses = [address for answer in found for address in answer[0]]
            return Found(
                tuple(address for address in addresses if ":" in address),
                tuple(address for address in addresses if ":" not in address),
                min(ttl_s for _, ttl_s in found),
            )
        for answer in answers:
            if isinstance(answer, Unanswered):
                return answer
        return NoSuchName()

    async def _query(
        self, resolver: dns.asyncresolver.Resolver, name: str, kind: str
    ) -> tuple[tuple[str, ...], float] | Unanswered:
        answer = await self._answer(resolver, name, kind)
        if isinstance(answer, Unanswered):
            return answer
        if answer is None or answer.rrset is None:
            return (), 0.0
        # Sorted, as servers shuffle: the turn is ours to give.
        addresses = tuple(sorted({record.address for record in answer.rrset}))
        return addresses, float(answer.chaining_result.minimum_ttl)

    async def _answer(
        self, resolver: dns.asyncresolver.Resolver, name: str, kind: str
    ) -> dns.resolver.Answer | Unanswered | None:
        """None: there is no such name."""
        import dns.exception
        import dns.resolver

        try:
            return await resolver.resolve(
                name, kind, raise_on_no_answer=False, search=True, lifetime=self._timeout_s
            )
        except dns.resolver.NXDOMAIN:
            return None
        except dns.resolver.LifetimeTimeout:
            return Unanswered(f"no name server answered within {self._timeout_s:g} s")
        except dns.resolver.NoNameservers:
            return Unanswered("every name server failed or refused")
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Unanswered(f"the look-up failed: {error}")

    def _configure(self) -> dns.asyncresolver.Resolver:
        import dns.asyncresolver
        import dns.name

        resolver = dns.asyncresolver.Resolver(configure=self._servers is None)
        if self._servers is not None:
            # Otherwise the domain of this machine would be tried as a suffix.
            resolver.domain = dns.name.root
            resolver.nameservers = [_name_server(each) for each in self._servers]
        resolver.cache = None
        # One server that is silent must leave time for another try or another server.
        resolver.timeout = self._timeout_s / 2
        self._dns = resolver
        return resolver


class HostsFile:
    """`/etc/hosts`, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._names: dict[str, list[str]] = {}

    def find(self, name: str) -> Found | None:
        """Return the addresses of `name`; `localhost` has some even if the file does not say."""
        self._refresh()
        name = name.removesuffix(".")
        addresses = self._names.get(name)
        if addresses is None:
            if name != "localhost" and not name.endswith(".localhost"):
                return None
            addresses = ["::1", "127.0.0.1"]  # RFC 6761 6.3: never asked of a server
        return Found(
            tuple(each for each in addresses if ":" in each),
            tuple(each for each in addresses if ":" not in each),
            _HOSTS_TTL_S,
        )

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            text = self._path.read_text("utf-8", "replace")
        except OSError:
            stamp, text = None, ""
        self._stamp = stamp
        names: dict[str, list[str]] = {}
        for line in text.splitlines():
            address, *rest = line.partition("#")[0].split() or [""]
            if not is_address(address):
                continue
            for name in rest:
                known = names.setdefault(name.lower().removesuffix("."), [])
                if address not in known:
                    known.append(address)
        self._names = names


def is_address(text: str) -> bool:
    """Tell whether `text` is an address, which needs no look-up."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _name_server(text: str) -> dns.nameserver.Nameserver:
    """Read `address`, `address:port` or `[address]:port`."""
    import dns.nameserver

    if is_address(text):
        return dns.nameserver.Do53Nameserver(text)
    authority = parse_authority(text.encode("ascii", "replace"), 53)
    if authority is None or not is_address(authority.host) or authority.port is None:
        raise ValueError(f"the name server {text!r} is no address")
    return dns.nameserver.Do53Nameserver(authority.host, authority.port)
