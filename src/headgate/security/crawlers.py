"""Whether a crawler is the one it claims to be: its address against its owner's names.

Theory of operation
-------------------
Owners of crawlers publish how to tell theirs: the address has a name (reverse DNS) below a domain
of the owner's, and that name has the address (forward DNS). The reverse zone belongs to whoever
has the address, who may write any name there; so only the way back proves anything, and only names
below the owner's domains are asked for. Owners without such names publish networks, which the file
may give.

    not asked --> asked --+--> verified   for `VERIFIED_S`
                          +--> fake       for `FAKE_S`
                          +--> nobody knows (DNS does not answer), asked again after `RETRY_S`

Nobody waits: while it is not known, `verdict` says None. What is known and has run out holds until
it has been looked up again.

Bounds: `KNOWN_MAX` verdicts, the oldest makes room; `WAITING_MAX` look-ups wait, `AT_ONCE` run, and
no more than `PER_S` a second begin after a burst, because whoever sends requests chooses what is
looked up. Beyond that it is not known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final, Protocol

from headgate.security.addresses import NAMED, Networks, address_of, network_of

__all__ = ["OWNERS", "Crawlers", "DnsNames", "Names", "NamesAway", "is_below", "is_proven"]

VERIFIED_S: Final = 86_400.0
FAKE_S: Final = 3600.0
RETRY_S: Final = 60.0
KNOWN_MAX: Final = 20_000
WAITING_MAX: Final = 256
AT_ONCE: Final = 8
PER_S: Final = 20.0
BURST: Final = 100.0
DEADLINE_S: Final = 5.0
_NAMES_MAX: Final = 4

log = logging.getLogger("headgate.security")

_GOOGLE: Final = ("googlebot.com", "google.com")
_BING: Final = ("search.msn.com",)
_YANDEX: Final = ("yandex.ru", "yandex.net", "yandex.com")
_BAIDU: Final = ("baidu.com", "baidu.jp")

OWNERS: Final[dict[str, tuple[str, ...]]] = {
    "adidxbot": _BING,
    "adsbot-google": _GOOGLE,
    "adsbot-google-mobile": _GOOGLE,
    "ahrefsbot": ("ahrefs.com", "ahrefs.net"),
    "ahrefssiteaudit": ("ahrefs.com", "ahrefs.net"),
    "amazonbot": ("amazonbot.amazon",),
    "apis-google": _GOOGLE,
    "applebot": ("applebot.apple.com",),
    "archive.org_bot": ("archive.org",),
    "baiduspider": _BAIDU,
    "baiduspider-image": _BAIDU,
    "baiduspider-render": _BAIDU,
    "bingbot": _BING,
    "ccbot": ("crawl.commoncrawl.org",),
    "coccocbot-image": ("coccoc.com",),
    "coccocbot-web": ("coccoc.com",),
    "google-inspectiontool": _GOOGLE,
    "googlebot": _GOOGLE,
    "googlebot-image": _GOOGLE,
    "googlebot-mobile": _GOOGLE,
    "googlebot-news": _GOOGLE,
    "googlebot-video": _GOOGLE,
    "googleother": _GOOGLE,
    "googleother-image": _GOOGLE,
    "googleother-video": _GOOGLE,
    "linkedinbot": ("linkedin.com",),
    "mediapartners-google": _GOOGLE,
    "mojeekbot": ("mojeek.com",),
    "msnbot": _BING,
    "msnbot-media": _BING,
    "petalbot": ("petalsearch.com", "aspiegel.com"),
    "pinterestbot": ("pinterest.com",),
    "qwantbot": ("qwant.com",),
    "qwantify": ("qwant.com",),
    "semrushbot": ("semrush.com",),
    "seznambot": ("seznam.cz",),
    "slurp": ("crawl.yahoo.net",),
    "sogou": ("crawl.sogou.com",),
    "storebot-google": _GOOGLE,
    "yandexaccessibilitybot": _YANDEX,
    "yandexbot": _YANDEX,
    "yandeximages": _YANDEX,
    "yandexmobilebot": _YANDEX,
    "yandexrenderresourcesbot": _YANDEX,
    "yandexvideo": _YANDEX,
    "yandexwebmaster": _YANDEX,
    "yeti": ("naver.com",),
}
"""By crawler, the domains that the names of its addresses are below."""


class Spawning(Protocol):
    """Of `security.method.Parts`, what look-ups need."""

    def spawn(self, work: Coroutine[object, object, None]) -> object: ...


class NamesAway(Exception):
    """DNS gave no answer that could be believed."""


class Names(Protocol):
    async def names_of(self, address: str) -> Sequence[str]:
        """The names of an address; none if it has none. NamesAway if nobody knows."""
        ...

    async def addresses_of(self, name: str, version: int) -> Sequence[str]:
        """The addresses of a name; none if there are none. NamesAway if nobody knows."""
        ...


def is_below(name: str, domains: Iterable[str]) -> bool:
    said = name.rstrip(".").lower()
    return any(said.endswith("." + domain) for domain in domains)


async def is_proven(address: str, domains: Sequence[str], names: Names) -> bool:
    """Whether one of the address's names is below these domains and leads back to it."""
    wanted = address_of(address)
    if wanted is None:
        return False
    below = [name for name in await names.names_of(address) if is_below(name, domains)]
    for name in below[:_NAMES_MAX]:
        for found in await names.addresses_of(name, wanted[0]):
            if address_of(found) == wanted:
                return True
    return False


class Crawlers:
    """What is known, and the look-ups that make it so."""

    def __init__(
        self,
        networks: tuple[tuple[str, tuple[str, ...]], ...] = (),
        names: Callable[[], Names] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks = {}
        for crawler, texts in networks:
            try:
                self._networks[crawler.lower()] = Networks(
                    network_of(each) for text in texts for each in NAMED.get(text, (text,))
                )
            except ValueError as error:
                raise ValueError(f"a network of {crawler} {error}") from None
        self._names = names or DnsNames
        self._clock = clock
        self._known: OrderedDict[tuple[tuple[str, ...], str], tuple[bool | None, float]] = (
            OrderedDict()
        )
        self._waiting: dict[tuple[tuple[str, ...], str], None] = {}
        """In turn, without those that run."""
        self._running: set[tuple[tuple[str, ...], str]] = set()
        self._bell: asyncio.Event | None = None
        self._is_closed = False
        self._allowance = BURST
        self._allowed_at = 0.0
        self.looked_up = 0
        self.refused = 0

    def can_prove(self, crawler: str) -> bool:
        return crawler in self._networks or crawler in OWNERS

    def verdict(self, crawler: str, client_ip: str, now: float) -> bool | None:
        """Whether it is the crawler it claims to be; None: nobody knows, yet or at all."""
        networks = self._networks.get(crawler)
        if networks is not None:
            address = address_of(client_ip)
            return address is not None and networks.find(address) is not None
        domains = OWNERS.get(crawler)
        if domains is None:
            return None
        place = (domains, client_ip)
        known = self._known.get(place)
        if known is None:
            self._ask(place, now)
            return None
        if now >= known[1]:
            self._ask(place, now)
        return known[0]

    def _ask(self, place: tuple[tuple[str, ...], str], now: float) -> None:
        if self._bell is None or self._is_closed:
            return
        if place in self._waiting or place in self._running:
            return
        if address_of(place[1]) is None:
            return
        self._allowance = min(BURST, self._allowance + max(now - self._allowed_at, 0.0) * PER_S)
        self._allowed_at = now
        if self._allowance < 1.0 or len(self._waiting) >= WAITING_MAX:
            self.refused += 1
            return
        self._allowance -= 1.0
        self._waiting[place] = None
        self._bell.set()

    def learn(self, place: tuple[tuple[str, ...], str], proven: bool | None, now: float) -> None:
        """Keep what a look-up brought; None if nobody knows."""
        before = self._known.pop(place, None)
        if proven is None and before is not None:
            proven = before[0]  # an owner's DNS that is away makes nobody a fake
            kept_s = RETRY_S
        else:
            kept_s = RETRY_S if proven is None else VERIFIED_S if proven else FAKE_S
        self._known[place] = (proven, now + kept_s)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    # -- the rim -------------------------------------------------------------------------------

    def start(self, parts: Spawning) -> None:
        """Look up from now on; the second call does nothing."""
        if self._bell is None and not self._is_closed:
            self._bell = asyncio.Event()
            parts.spawn(self._work(self._bell))

    def close(self) -> None:
        self._is_closed = True
        self._waiting.clear()
        if self._bell is not None:
            self._bell.set()

    async def _work(self, bell: asyncio.Event) -> None:
        names = self._names()
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while not self._is_closed:
                if not self._waiting:
                    bell.clear()
                    await bell.wait()
                    continue
                await free.acquire()
                if not self._waiting:  # closed meanwhile
                    free.release()
                    continue
                place = next(iter(self._waiting))
                del self._waiting[place]
                self._running.add(place)
                look_up = self._look_up(place, names, free)
                group.create_task(look_up, name=f"crawler {place[1]}")

    async def _look_up(
        self, place: tuple[tuple[str, ...], str], names: Names, free: asyncio.Semaphore
    ) -> None:
        domains, address = place
        proven: bool | None = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                proven = await is_proven(address, domains, names)
        except (NamesAway, TimeoutError):
            pass
        except Exception:
            log.exception("looking up the names of %s failed", address)  # a fault of ours
        finally:
            self._running.discard(place)
            free.release()
        self.looked_up += 1
        self.learn(place, proven, self._clock())

    def snapshot(self) -> dict[str, int]:
        return {
            "known": len(self._known),
            "waiting": len(self._waiting) + len(self._running),
            "looked_up": self.looked_up,
            "refused": self.refused,
        }


class DnsNames:
    """`Names` by the servers that this machine asks, or by these."""

    def __init__(self, servers: Sequence[str] = (), port: int = 53) -> None:
        import dns.asyncresolver
        import dns.resolver

        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._resolver.nameservers = ["127.0.0.1"]
        if servers:
            self._resolver.nameservers = list(servers)
            self._resolver.port = port
        self._resolver.lifetime = DEADLINE_S / 2
        self._resolver.timeout = DEADLINE_S / 4

    async def names_of(self, address: str) -> Sequence[str]:
        import dns.reversename

        found = address_of(address)
        if found is None:
            return ()
        version, number = found
        # From the number, so that an IPv4 address in IPv6 form is asked for as what it is.
        if version == 4:
            name = dns.reversename.from_address(".".join(map(str, number.to_bytes(4))))
        else:
            name = dns.reversename.from_address(address.partition("%")[0])
        return await self._ask(name.to_text(), "PTR")

    async def addresses_of(self, name: str, version: int) -> Sequence[str]:
        return await self._ask(name, "A" if version == 4 else "AAAA")

    async def _ask(self, name: str, kind: str) -> Sequence[str]:
        import dns.exception
        import dns.resolver

        absolute = name if name.endswith(".") else name + "."
        try:
            answer = await self._resolver.resolve(absolute, kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            raise NamesAway(str(error)) from error
        return [record.to_text() for record in answer]
