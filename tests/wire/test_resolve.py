"""Names to addresses: the rules of the cache without a clock, the rest against a real tiny server."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import UpstreamFailed
from headgate.wire.resolve import (
    Found,
    HostsFile,
    NameCache,
    NoSuchName,
    Resolver,
    Unanswered,
    Use,
    is_address,
)

# -------------------------------------------------------------------------------------- the rules

ADDRESSES = ("192.0.2.1",)
FOUND = Found((), ADDRESSES, 10.0)
AWAY = Unanswered("the server is away")


def cache(**how) -> NameCache:
    return NameCache(**{"min_ttl_s": 1.0, "max_ttl_s": 300.0, "negative_ttl_s": 2.0, **how})


def test_an_unknown_name_is_looked_up():
    assert cache().use("a", 0.0) == Use(None, look_up=True)


def test_an_answer_is_given_out_while_fresh_and_refreshed_ahead():
    names = cache()
    names.learn("a", FOUND, 100.0)
    assert names.use("a", 107.9) == Use(ADDRESSES, look_up=False)
    assert names.use("a", 108.0) == Use(ADDRESSES, look_up=True)
    assert names.use("a", 109.9) == Use(ADDRESSES, look_up=True)
    assert names.use("a", 110.0) == Use(None, look_up=True)


@pytest.mark.parametrize(("ttl", "kept"), [(0, 1), (1, 1), (60, 60), (300, 300), (9999, 300)])
def test_the_ttl_is_clamped(ttl, kept):
    names = cache()
    names.learn("a", Found((), ADDRESSES, ttl), 0.0)
    assert names.use("a", kept - 0.01).addresses
    assert not names.use("a", kept + 0.01).addresses


def test_a_failed_refresh_keeps_the_answer_and_is_not_repeated_at_once():
    names = cache()
    names.learn("a", FOUND, 0.0)
    names.learn("a", AWAY, 8.0)
    assert names.use("a", 8.5) == Use(ADDRESSES, look_up=False)
    assert names.use("a", 10.1) == Use(ADDRESSES, look_up=True)


def test_a_stale_answer_is_kept_while_the_server_is_away():
    names = cache()
    names.learn("a", FOUND, 0.0)
    assert names.use("a", 50.0) == Use(None, look_up=True)
    names.learn("a", AWAY, 50.0)
    assert names.use("a", 51.9) == Use(ADDRESSES, look_up=False)
    assert names.use("a", 52.0) == Use(ADDRESSES, look_up=True)  # still not waited for
    (state,) = names.snapshot(52.0)
    assert (state.addresses, state.fresh_for_s, state.failure) == (ADDRESSES, -42.0, AWAY.reason)
    assert names.use("a", 10.0 + 86400.0) == Use(None, look_up=True)


def test_that_a_name_is_gone_takes_its_addresses_away():
    names = cache()
    names.learn("a", FOUND, 0.0)
    names.learn("a", NoSuchName(), 8.0)
    use = names.use("a", 9.0)
    assert (use.addresses, use.look_up) == (None, False)
    assert use.failure is not None
    assert names.use("a", 10.0) == Use(None, look_up=True)
    names.learn("a", FOUND, 10.0)
    assert names.use("a", 11.0) == Use(ADDRESSES, look_up=False)


def test_a_failure_without_an_answer_is_told_for_the_negative_ttl():
    names = cache()
    names.learn("a", AWAY, 0.0)
    assert names.use("a", 1.9) == Use(None, look_up=False, failure=AWAY.reason)
    assert names.use("a", 2.0) == Use(None, look_up=True)


def test_addresses_take_turns_within_their_family():
    names = cache()
    names.learn("a", Found(("::1", "::2"), ("1.1.1.1", "1.1.1.2", "1.1.1.3"), 10.0), 0.0)
    seen = [names.use("a", 1.0).addresses for _ in range(6)]
    assert seen[0] == ("::1", "::2", "1.1.1.1", "1.1.1.2", "1.1.1.3")
    assert seen[1] == ("::2", "::1", "1.1.1.2", "1.1.1.3", "1.1.1.1")
    assert Counter(each[2] for each in seen if each) == {f"1.1.1.{i}": 2 for i in (1, 2, 3)}


def test_the_name_not_used_the_longest_is_forgotten():
    names = cache(max_names=2)
    names.learn("a", FOUND, 0.0)
    names.learn("b", FOUND, 0.0)
    names.use("a", 1.0)
    names.learn("c", FOUND, 1.0)
    assert {state.name for state in names.snapshot(1.0)} == {"a", "c"}


@given(
    st.lists(
        st.tuples(st.sampled_from([FOUND, AWAY, NoSuchName(), None]), st.floats(0, 30)), max_size=20
    )
)
def test_whoever_asks_is_given_addresses_a_failure_or_a_look_up(steps):
    names, now = cache(), 0.0
    found_last = False
    for outcome, pause in steps:
        now += pause
        if outcome is not None:
            names.learn("a", outcome, now)
            found_last = isinstance(outcome, Found) or (
                found_last and not isinstance(outcome, NoSuchName)
            )
        use = names.use("a", now)
        assert bool(use.addresses) or use.look_up or use.failure is not None
        if outcome is not None:  # whoever waited for it gets what it brought
            assert bool(use.addresses) == found_last
            assert found_last or use.failure is not None


# -------------------------------------------------------------------------------------- the hosts


def test_the_hosts_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.find("a") is None
    path.write_text(
        "# comment\n192.0.2.1 A a.example # more\n2001:db8::1\ta\n\nrubbish b\n192.0.2.1 a\n"
    )
    assert hosts.find("a") == Found(("2001:db8::1",), ("192.0.2.1",), 5.0)
    assert hosts.find("a.example.") == Found((), ("192.0.2.1",), 5.0)
    assert hosts.find("b") is None
    path.write_text("192.0.2.9 b\n")
    assert hosts.find("a") is None
    assert hosts.find("b") is not None


def test_localhost_is_known_without_a_file(tmp_path):
    hosts = HostsFile(tmp_path / "none")
    for name in ("localhost", "api.localhost", "localhost."):
        assert hosts.find(name) == Found(("::1",), ("127.0.0.1",), 5.0)


def test_literals():
    assert is_address("127.0.0.1")
    assert is_address("::1")
    assert not is_address("localhost")
    assert not is_address("")


# ------------------------------------------------------------------------------------ a real server


@dataclass
class Options:
    servers: tuple[str, ...] | None = None
    min_ttl: float = 0.0
    max_ttl: float = 300.0
    negative_ttl: float = 0.2
    timeout: float = 0.6


class Server(asyncio.DatagramProtocol):
    """A name server with a zone of (name, type) -> texts, and a way to be ill."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl = 60
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent: set[str] = set()
        self.refuse = False
        self.truncate = False
        self.delay_s = 0.0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        answer = self.answer(data)
        if answer is not None:
            if self.truncate:
                answer.flags |= dns.flags.TC
                answer.answer = []
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay_s, self.transport.sendto, answer.to_wire(), addr)

    def answer(self, data: bytes) -> dns.message.Message | None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name = question.name.to_text().removesuffix(".")
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if kind in self.silent:
            return None
        answer = dns.message.make_response(query)
        if self.refuse:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        alias = self.zone.get((name, "CNAME"))
        if alias:
            answer.answer.append(dns.rrset.from_text(question.name, 3, "IN", "CNAME", *alias))
            name = alias[0].removesuffix(".")
        texts = self.zone.get((name, kind))
        if texts:
            answer.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *texts))
        elif not any(each == name for each, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    async def on_stream(self, reader, writer):
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(size))
        if answer is not None:
            wire = answer.to_wire()
            writer.write(struct.pack(">H", len(wire)) + wire)
        writer.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main):
        with asyncio.Runner(loop_factory=factory) as it:
            return it.run(main)

    return runner


@asynccontextmanager
async def served(tmp_path: Path, clock=None, **options):
    loop = asyncio.get_running_loop()
    server = Server()
    # A free TCP port is likely to be free for UDP too, but not the other way round.
    stream = await asyncio.start_server(server.on_stream, "127.0.0.1", 0)
    port = stream.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", port))
    more = {"clock": clock} if clock else {}
    resolver = Resolver(
        Options(servers=(f"127.0.0.1:{port}",), **options), hosts_file=tmp_path / "hosts", **more
    )
    try:
        yield server, resolver
    finally:
        await resolver.aclose()
        transport.close()
        stream.close()


def test_both_families_are_asked_and_the_answer_is_kept(run, tmp_path):
    async def main():
        async with served(tmp_path) as (server, resolver):
            server.zone = {("a.test", "A"): ["192.0.2.1"], ("a.test", "AAAA"): ["2001:db8::1"]}
            assert await resolver.resolve("A.test") == ("2001:db8::1", "192.0.2.1")
            assert await resolver.resolve("a.test") == ("2001:db8::1", "192.0.2.1")
            assert server.asked == {("a.test", "A"): 1, ("a.test", "AAAA"): 1}
            assert await resolver.resolve("192.0.2.7") == ("192.0.2.7",)
            assert await resolver.resolve("::7") == ("::7",)
            (state,) = resolver.snapshot()
            assert 59 < state.fresh_for_s <= 60

    run(main())


def test_the_hosts_file_comes_first(run, tmp_path):
    async def main():
        (tmp_path / "hosts").write_text("192.0.2.5 a.test\n")
        async with served(tmp_path) as (server, resolver):
            assert await resolver.resolve("a.test") == ("192.0.2.5",)
            assert not server.asked

    run(main())


def test_aliases_are_followed_and_the_shortest_ttl_counts(run, tmp_path):
    async def main():
        async with served(tmp_path) as (server, resolver):
            server.zone = {("www.test", "CNAME"): ["a.test."], ("a.test", "A"): ["192.0.2.1"]}
            assert await resolver.resolve("www.test") == ("192.0.2.1",)
            (state,) = resolver.snapshot()
            assert 2 < state.fresh_for_s <= 3

    run(main())


def test_with_servers_of_ones_own_no_suffix_is_tried(run, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host.corp.test")

    async def main():
        async with served(tmp_path) as (server, resolver):
            with pytest.raises(UpstreamFailed):
                await resolver.resolve("a.test")
            assert {name for name, _ in server.asked} == {"a.test"}

    run(main())


def test_an_answer_too_long_for_a_datagram_comes_by_tcp(run, tmp_path):
    async def main():
        async with served(tmp_path) as (server, resolver):
            many = [f"192.0.2.{i}" for i in range(1, 200)]
            server.zone, server.truncate = {("a.test", "A"): many}, True
            assert len(await resolver.resolve("a.test")) == len(many)

    run(main())


@pytest.mark.parametrize(
    ("illness", "message"),
    [
        ({"silent": {"A", "AAAA"}}, "no name server answered within 0.6 s"),
        ({"refuse": True}, "no name server answered|every name server failed"),
        ({}, "there is no such name"),
        ({"zone": {("a.test", "TXT"): ["x"]}}, "there is no such name, or it has no address"),
    ],
)
def test_failures_are_of_the_kind_dns_and_remembered_for_a_while(run, tmp_path, illness, message):
    async def main():
        async with served(tmp_path, negative_ttl=60) as (server, resolver):
            vars(server).update(illness)
            for _ in range(3):
                with pytest.raises(UpstreamFailed, match=message) as caught:
                    await resolver.resolve("a.test")
                assert caught.value.kind == "dns"
            asked = server.asked.total()
            with pytest.raises(UpstreamFailed):
                await resolver.resolve("a.test")
            assert server.asked.total() == asked

    run(main())


def test_one_silent_family_does_not_hold_up_the_other(run, tmp_path):
    async def main():
        async with served(tmp_path, timeout=30) as (server, resolver):
            server.zone, server.silent = {("a.test", "A"): ["192.0.2.1"]}, {"AAAA"}
            async with asyncio.timeout(5):
                assert await resolver.resolve("a.test") == ("192.0.2.1",)

    run(main())


def test_one_look_up_serves_all_and_survives_the_first_who_asked(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        async with served(tmp_path) as (server, resolver):
            server.zone, server.delay_s = {("a.test", "A"): ["192.0.2.1"]}, 0.1
            tasks = [loop.create_task(resolver.resolve("a.test")) for _ in range(5)]
            await asyncio.sleep(0.02)
            tasks[0].cancel()
            got = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(got[0], asyncio.CancelledError)
            assert got[1:] == [("192.0.2.1",)] * 4
            assert server.asked["a.test", "A"] == 1

    run(main())


def test_a_name_in_use_is_refreshed_ahead_and_stale_answers_are_kept(run, tmp_path):
    now = [100.0]

    async def settled(resolver):
        async with asyncio.timeout(5):
            while resolver._flights:
                await asyncio.sleep(0.01)

    async def main():
        async with served(tmp_path, clock=lambda: now[0]) as (server, resolver):
            server.zone, server.ttl = {("a.test", "A"): ["192.0.2.1"]}, 10
            assert await resolver.resolve("a.test") == ("192.0.2.1",)
            server.zone = {("a.test", "A"): ["192.0.2.2"]}
            now[0] += 9
            assert await resolver.resolve("a.test") == ("192.0.2.1",)  # at once, as it is fresh
            await settled(resolver)
            assert await resolver.resolve("a.test") == ("192.0.2.2",)
            server.refuse = True
            now[0] += 100
            assert await resolver.resolve("a.test") == ("192.0.2.2",)  # stale: the server is away
            server.refuse, server.zone = False, {("a.test", "A"): ["192.0.2.3"]}
            now[0] += 1
            assert await resolver.resolve("a.test") == ("192.0.2.2",)
            await settled(resolver)
            assert await resolver.resolve("a.test") == ("192.0.2.3",)

    run(main())


def test_closing_ends_those_who_wait(run, tmp_path):
    async def main():
        async with served(tmp_path, timeout=30) as (server, resolver):
            server.silent = {"A", "AAAA"}
            task = asyncio.get_running_loop().create_task(resolver.resolve("a.test"))
            await asyncio.sleep(0.02)
            await resolver.aclose()
            with pytest.raises(UpstreamFailed, match="closed"):
                await task
            with pytest.raises(UpstreamFailed, match="closed"):
                await resolver.resolve("b.test")

    run(main())


@pytest.mark.parametrize("server", ["", "example.org", "1.2.3.4:x", "[::1", "::1:53:53:"])
def test_a_name_server_must_be_an_address(run, tmp_path, server):
    async def main():
        resolver = Resolver(Options(servers=(server,)), hosts_file=tmp_path / "hosts")
        with pytest.raises(UpstreamFailed, match="is no address"):
            await resolver.resolve("a.test")

    run(main())


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test", "é" * 300, "", ".", "a b.test"])
def test_odd_names_fail_like_unknown_ones(run, tmp_path, name):
    async def main():
        async with served(tmp_path) as (_, resolver):
            with pytest.raises(UpstreamFailed) as caught:
                await resolver.resolve(name)
            assert caught.value.kind == "dns"

    run(main())
