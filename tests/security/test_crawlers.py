"""Whether crawlers are who they claim to be: the rules, and look-ups against a server of names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest

from headgate.security import crawlers as crawlers_module
from headgate.security.crawlers import (
    BURST,
    FAKE_S,
    KNOWN_MAX,
    OWNERS,
    RETRY_S,
    VERIFIED_S,
    WAITING_MAX,
    Crawlers,
    DnsNames,
    NamesAway,
    is_below,
    is_proven,
)

DOMAINS = ("googlebot.com", "google.com")
IP = "192.0.2.66"
NAME = "crawl-192-0-2-66.googlebot.com."


class Parts:
    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task


class Names:
    """Names as a table; `None` for what nobody knows."""

    def __init__(
        self,
        names: dict[str, Sequence[str] | None],
        addresses: dict[str, Sequence[str] | None] | None = None,
    ) -> None:
        self.names, self.addresses = names, addresses or {}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def names_of(self, address: str) -> Sequence[str]:
        self.asked.append(address)
        await self.gate.wait()
        return self._found(self.names.get(address, ()))

    async def addresses_of(self, name: str, version: int) -> Sequence[str]:
        self.asked.append(name)
        return self._found(self.addresses.get(name, ()))

    @staticmethod
    def _found(said: Sequence[str] | None) -> Sequence[str]:
        if said is None:
            raise NamesAway("no answer")
        return said


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("crawl-66.googlebot.com.", True),
        ("CRAWL-66.GoogleBot.com", True),
        ("rate-limited-proxy-1.google.com.", True),
        ("googlebot.com.", False),
        ("evilgooglebot.com.", False),
        ("googlebot.com.evil.example.", False),
        ("crawl.googlebot.com.evil.example", False),
        ("vm.bc.googleusercontent.com.", False),
        ("", False),
        (".", False),
    ],
)
def test_only_names_below_the_owners_domains_count(name: str, is_one: bool):
    assert is_below(name, DOMAINS) is is_one


@pytest.mark.parametrize(
    ("names", "addresses", "proven"),
    [
        ([NAME], {NAME: [IP]}, True),
        ([NAME], {NAME: ["192.0.2.1", IP]}, True),
        (["evil.example.", NAME], {NAME: [IP]}, True),
        # Whoever has the address writes its reverse zone; the way back is the owner's to write.
        ([NAME], {NAME: ["192.0.2.1"]}, False),
        ([NAME], {}, False),
        (["evil.example."], {"evil.example.": [IP]}, False),
        ([], {}, False),
        ([f"n{number}.google.com." for number in range(500)], {}, False),
    ],
)
def test_the_way_back_must_lead_to_the_address(
    names: list[str], addresses: dict[str, Sequence[str] | None], proven: bool
):
    known = Names({IP: names}, addresses)
    assert asyncio.run(is_proven(IP, DOMAINS, known)) is proven
    assert len(known.asked) <= 1 + 4
    assert "evil.example." not in known.asked


async def settled(crawlers: Crawlers) -> None:
    async with asyncio.timeout(20):
        while crawlers.snapshot()["waiting"]:
            await asyncio.sleep(0)


def run(
    crawlers: Crawlers,
    script: Callable[[Crawlers], Coroutine[Any, Any, None]],
    parts: Parts | None = None,
) -> None:
    async def whole() -> None:
        lent = parts or Parts()
        crawlers.start(lent)
        crawlers.start(lent)
        assert len(lent.tasks) == 1
        try:
            async with asyncio.timeout(30):
                await script(crawlers)
        finally:
            crawlers.close()
            await asyncio.gather(*lent.tasks)

    asyncio.run(whole())


def test_nobody_waits_and_what_was_found_holds_for_its_time():
    now = [100.0]
    known = Names({IP: [NAME], "192.0.2.1": []}, {NAME: [IP]})

    async def script(crawlers: Crawlers) -> None:
        assert crawlers.verdict("googlebot", IP, now[0]) is None
        assert crawlers.verdict("googlebot", "192.0.2.1", now[0]) is None
        await settled(crawlers)
        assert crawlers.verdict("googlebot", IP, now[0]) is True
        assert crawlers.verdict("googlebot-image", IP, now[0]) is True  # the same owner
        assert crawlers.verdict("googlebot", "192.0.2.1", now[0]) is False
        assert len(known.asked) == 3
        now[0] += FAKE_S
        assert crawlers.verdict("googlebot", "192.0.2.1", now[0]) is False  # asked again meanwhile
        assert crawlers.verdict("googlebot", IP, now[0]) is True
        await settled(crawlers)
        assert len(known.asked) == 4
        now[0] += VERIFIED_S
        assert crawlers.verdict("googlebot", IP, now[0]) is True
        await settled(crawlers)
        assert len(known.asked) == 6

    run(Crawlers(names=lambda: known, clock=lambda: now[0]), script)


def test_names_that_are_away_make_nobody_a_fake():
    now = [100.0]
    known = Names({IP: None}, {NAME: [IP]})

    async def script(crawlers: Crawlers) -> None:
        crawlers.verdict("bingbot", IP, now[0])
        await settled(crawlers)
        assert crawlers.verdict("bingbot", IP, now[0]) is None
        assert len(known.asked) == 1  # not again for a while
        now[0] += RETRY_S
        crawlers.verdict("googlebot", IP, now[0])
        known.names[IP] = [NAME]
        await settled(crawlers)
        assert crawlers.verdict("googlebot", IP, now[0]) is True
        known.names[IP] = None
        now[0] += VERIFIED_S
        crawlers.verdict("googlebot", IP, now[0])
        await settled(crawlers)
        assert crawlers.verdict("googlebot", IP, now[0]) is True  # as it was

    run(Crawlers(names=lambda: known, clock=lambda: now[0]), script)


def test_a_look_up_that_hangs_ends_by_its_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crawlers_module, "DEADLINE_S", 0.01)
    known = Names({IP: [NAME]}, {NAME: [IP]})

    async def script(crawlers: Crawlers) -> None:
        known.gate.clear()
        crawlers.verdict("googlebot", IP, 1.0)
        await settled(crawlers)
        assert crawlers.verdict("googlebot", IP, 1.0) is None

    run(Crawlers(names=lambda: known, clock=lambda: 1.0), script)


def test_a_look_up_that_breaks_does_not_end_the_others(caplog: pytest.LogCaptureFixture):
    known = Names({"192.0.2.1": [NAME]}, {NAME: ["192.0.2.1"]})
    known.names[IP] = [7]  # type: ignore[list-item]

    async def script(crawlers: Crawlers) -> None:
        crawlers.verdict("googlebot", IP, 1.0)
        crawlers.verdict("googlebot", "192.0.2.1", 1.0)
        await settled(crawlers)
        assert crawlers.verdict("googlebot", IP, 1.0) is None
        assert crawlers.verdict("googlebot", "192.0.2.1", 1.0) is True

    run(Crawlers(names=lambda: known, clock=lambda: 1.0), script)
    assert "failed" in caplog.text


def test_a_flood_of_claims_asks_a_bounded_number_of_names():
    known = Names({})

    async def script(crawlers: Crawlers) -> None:
        known.gate.clear()
        for number in range(2000):
            crawlers.verdict("googlebot", f"192.0.{number >> 8}.{number & 255}", 1.0)
            crawlers.verdict("googlebot", f"192.0.{number >> 8}.{number & 255}", 1.0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(known.asked) == crawlers_module.AT_ONCE
        assert crawlers.snapshot()["waiting"] <= min(BURST, WAITING_MAX)
        assert crawlers.refused > 1800
        known.gate.set()
        await settled(crawlers)
        assert len(known.asked) == BURST

    run(Crawlers(names=lambda: known, clock=lambda: 1.0), script)


def test_what_is_known_is_bounded():
    crawlers = Crawlers()
    for number in range(KNOWN_MAX + 500):
        crawlers.learn((DOMAINS, f"k{number}"), proven=True, now=0.0)
    assert crawlers.snapshot()["known"] == KNOWN_MAX


def test_who_is_cancelled_in_the_middle_ends_all_look_ups():
    known = Names({IP: [NAME]})

    async def whole() -> None:
        known.gate.clear()
        crawlers = Crawlers(names=lambda: known, clock=lambda: 1.0)
        parts = Parts()
        crawlers.start(parts)
        crawlers.verdict("googlebot", IP, 1.0)
        while not known.asked:
            await asyncio.sleep(0)
        parts.tasks[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await parts.tasks[0]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(whole())


def test_nothing_is_asked_before_the_start_and_after_the_end():
    known = Names({})
    crawlers = Crawlers(names=lambda: known)
    assert crawlers.verdict("googlebot", IP, 1.0) is None
    assert crawlers.snapshot()["waiting"] == 0

    async def script(crawlers: Crawlers) -> None:
        crawlers.close()
        assert crawlers.verdict("googlebot", IP, 1.0) is None
        assert crawlers.snapshot()["waiting"] == 0

    run(crawlers, script)
    assert known.asked == []


@pytest.mark.parametrize(
    ("client_ip", "verdict"),
    [("192.0.2.5", True), ("::ffff:192.0.2.5", True), ("192.0.3.5", False), ("unix", False)],
)
def test_networks_that_an_owner_publishes_prove_it_at_once(client_ip: str, verdict: bool):
    crawlers = Crawlers((("GPTBot", ("192.0.2.0/24",)), ("googlebot", ("2001:db8::/32",))))
    assert crawlers.can_prove("gptbot")
    assert crawlers.verdict("gptbot", client_ip, 0.0) is verdict
    assert crawlers.verdict("googlebot", "192.0.2.5", 0.0) is False
    assert crawlers.verdict("perplexitybot", client_ip, 0.0) is None
    assert not crawlers.can_prove("perplexitybot")


def test_a_network_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a network of gptbot is not an address"):
        Crawlers((("gptbot", ("nonsense",)),))


def test_every_domain_is_one_of_more_than_one_label():
    for domains in OWNERS.values():
        assert all("." in domain.strip(".") for domain in domains)


# -- real questions


class Server(asyncio.DatagramProtocol):
    """Answers what it is asked over UDP, from a zone; `silent` names get no answer."""

    def __init__(self, zone: dict[tuple[str, str], list[str]]) -> None:
        self.zone = zone
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        records = self.zone.get((name, kind))
        if records == ["broken"]:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif records is not None:
            answer.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, records))
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        assert self.transport is not None
        self.transport.sendto(answer.to_wire(), addr)


def reverse(address: str) -> str:
    return dns.reversename.from_address(address).to_text()


@pytest.fixture
def zone() -> dict[tuple[str, str], list[str]]:
    v6 = "crawl-v6.googlebot.com."
    return {
        (reverse(IP), "PTR"): [NAME],
        (NAME, "A"): [IP],
        (reverse("2001:db8::66"), "PTR"): [v6],
        (v6, "AAAA"): ["2001:0db8::0066"],
        (reverse("192.0.2.1"), "PTR"): [NAME],
        (reverse("192.0.2.2"), "PTR"): ["host.evil.example."],
        (reverse("192.0.2.3"), "PTR"): ["gone.googlebot.com."],
        (reverse("192.0.2.4"), "PTR"): ["broken"],
        (reverse("192.0.2.5"), "PTR"): ["only-v6.googlebot.com."],
        ("only-v6.googlebot.com.", "AAAA"): ["2001:db8::5"],
    }


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        (IP, True),
        (f"::ffff:{IP}", True),
        ("2001:db8::66", True),
        ("192.0.2.1", False),  # the name is Google's, and leads elsewhere
        ("192.0.2.2", False),
        ("192.0.2.3", False),  # the name leads nowhere
        ("192.0.2.4", None),  # the server cannot say
        ("192.0.2.5", False),
        ("192.0.2.99", False),  # the address has no name
    ],
)
def test_a_server_of_names_is_asked_both_ways(
    zone: dict[tuple[str, str], list[str]], address: str, verdict: bool | None
):
    async def whole() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Server(zone), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        crawlers = Crawlers(names=lambda: DnsNames(["127.0.0.1"], port))
        parts = Parts()
        crawlers.start(parts)
        try:
            assert crawlers.verdict("googlebot", address, 1.0) is None
            await settled(crawlers)
            assert crawlers.verdict("googlebot", address, 1.0) is verdict
        finally:
            crawlers.close()
            await asyncio.gather(*parts.tasks)
            transport.close()

    asyncio.run(whole())
