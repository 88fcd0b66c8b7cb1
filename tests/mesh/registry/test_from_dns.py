"""Instances that a name in DNS leads to: what is named, when to look again, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headgate.mesh.registry.from_dns import DnsSource, DnsState, DnsWanted, instances_of
from headgate.mesh.registry.ids import id_of
from headgate.mesh.registry.model import Instance
from headgate.wire.resolve import NoSuchName, Records, SrvTarget, Unanswered
from tests.wire.test_resolve import served

A = Records(30.0, ("192.0.2.1", "192.0.2.2"))
NONE = Records(30.0)
AWAY = Unanswered("no name server answered within 2 s")


def state(**more: Any) -> DnsState:
    return DnsState(DnsWanted(service="users", name="u.test", port=80, **more))


def urls(found: Sequence[Instance] | None) -> list[str] | None:
    return None if found is None else [each.url for each in found]


def test_every_address_is_an_instance() -> None:
    it = state(zone="z")
    v6 = Records(20.0, ("2001:db8::1",))
    look = it.learn({"A": A, "AAAA": v6}, 0.0)
    assert urls(look.instances) == [
        "http://192.0.2.1:80",
        "http://192.0.2.2:80",
        "http://[2001:db8::1]:80",
    ]
    assert look.again_s == 20.0
    assert look.worry == ""
    assert look.instances is not None
    assert look.instances[2].id == "ip6-2001:db8::1:80"
    assert {each.zone for each in look.instances} == {"z"}
    assert it.learn({"A": A, "AAAA": v6}, 20.0).instances is None  # nothing new


def test_targets_of_srv_keep_their_names_ports_weights_and_ranks() -> None:
    wanted = DnsWanted(service="s", name="_http._tcp.u.test", kind="SRV", scheme="https")
    targets = (
        SrvTarget("a.test", 1, 10, 60_000),
        SrvTarget("b.test", 2, 10, 600),
        SrvTarget("b.test", 2, 20, 7),
        SrvTarget("c.test", 3, 500, 0),
    )
    found = instances_of(wanted, {"SRV": Records(5.0, targets=targets)})
    assert [(each.url, each.priority, each.weight) for each in found] == [
        ("https://a.test:1", 0, 1000),
        ("https://b.test:2", 0, 10),
        ("https://c.test:3", 2, 1),
    ]


def test_targets_where_nothing_can_answer_are_passed_over() -> None:
    wanted = DnsWanted(service="s", name="n", kind="SRV")
    targets = (SrvTarget("a.test", 0, 0, 0), SrvTarget("bad name", 1, 0, 0))
    assert instances_of(wanted, {"SRV": Records(5.0, targets=targets)}) == []


@pytest.mark.parametrize(
    ("ttl_s", "more", "again_s"),
    [
        (30.0, {}, 30.0),
        (0.0, {}, 1.0),
        (1e9, {}, 300.0),
        (30.0, {"every_s": 2.0}, 2.0),
        (1.0, {"least_s": 10.0}, 10.0),
    ],
)
def test_the_next_look_is_by_the_ttl_or_as_the_file_says(
    ttl_s: float, more: dict[str, Any], again_s: float
) -> None:
    it = state(kind="A", **more)
    assert it.learn({"A": Records(ttl_s, ("192.0.2.1",))}, 0.0).again_s == again_s


def test_while_nobody_answers_what_was_known_is_kept_and_looks_become_rare() -> None:
    it = state()
    it.learn({"A": A, "AAAA": NONE}, 0.0)
    waits = []
    for n in range(8):
        look = it.learn({"A": AWAY, "AAAA": AWAY}, 30.0 + n)
        assert look.instances is None
        waits.append(look.again_s)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert look.worry == ("u.test: no name server answered within 2 s; the 2 known last are kept")
    again = it.learn({"A": A, "AAAA": NONE}, 500.0)
    assert (again.worry, again.instances, again.again_s) == ("", None, 30.0)


def test_before_the_first_answer_nothing_is_named() -> None:
    look = state().learn({"A": AWAY, "AAAA": AWAY}, 0.0)
    assert look.instances is None
    assert look.worry.endswith("what was known before is kept")


def test_one_family_that_fails_takes_nothing_away() -> None:
    it = state()
    it.learn({"A": A, "AAAA": Records(30.0, ("2001:db8::1",))}, 0.0)
    look = it.learn({"A": Records(30.0, ("192.0.2.9",)), "AAAA": AWAY}, 30.0)
    assert urls(look.instances) == ["http://192.0.2.9:80", "http://[2001:db8::1]:80"]
    assert look.worry
    look = it.learn({"A": NONE, "AAAA": AWAY}, 60.0)
    assert look.instances is None


@pytest.mark.parametrize("missing", [NoSuchName(), NONE], ids=["no-name", "no-record"])
def test_a_name_that_is_gone_is_kept_for_a_while_and_then_nobody_is_named(missing: Any) -> None:
    it = state(missing_keep_s=60.0)
    it.learn({"A": A, "AAAA": NONE}, 0.0)
    for now in (30.0, 60.0, 89.0):
        look = it.learn({"A": missing, "AAAA": missing}, now)
        assert look.instances is None
        assert look.worry.endswith("the 2 known last are kept for 60 s")
    assert look.again_s == 1.0  # what is left of the 60 s
    look = it.learn({"A": missing, "AAAA": missing}, 90.0)
    assert look.instances == ()
    assert "there is no such name" in look.worry
    assert it.learn({"A": missing, "AAAA": missing}, 95.0).instances is None
    assert it.learn({"A": A, "AAAA": missing}, 99.0).instances


def test_a_name_that_never_was_keeps_what_was_known_before_a_restart_as_long() -> None:
    it = state(missing_keep_s=60.0)
    assert it.learn({"A": NoSuchName(), "AAAA": NoSuchName()}, 0.0).instances is None
    assert it.learn({"A": NoSuchName(), "AAAA": NoSuchName()}, 61.0).instances == ()


def test_a_service_that_is_decidedly_not_there_is_empty_at_once() -> None:
    it = DnsState(DnsWanted(service="s", name="n", kind="SRV"))
    it.learn({"SRV": Records(9.0, targets=(SrvTarget("a.test", 1, 0, 0),))}, 0.0)
    look = it.learn({"SRV": Records(9.0, is_none_decided=True)}, 1.0)
    assert look.instances == ()
    assert look.again_s == 9.0


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a.test:80", "a.test:80"),
        ("https://A.test", "a.test:443"),
        ("http://[::1]:80", "ip6-::1:80"),
        ("unix:/run/u.sock", "unix-run-u.sock"),
        ("unix:/run/" + "x" * 300, "unix" + "x" * 120),
        ("http://_a.test:80", "a.test:80"),
        ("http://" + "a" * 200 + ":1", "a" * 126 + ":1"),
    ],
    ids=["host", "default-port", "ip6", "unix", "long-path", "underscore", "long-host"],
)
def test_an_instance_without_a_name_has_that_of_its_place(url: str, name: str) -> None:
    assert id_of(url) == name


@pytest.mark.integration
def test_a_real_name_server_is_followed(tmp_path: Path) -> None:
    named: list[list[str]] = []
    heard = asyncio.Event

    async def main() -> None:
        said = heard()

        def name(source: str, key: str, found: Sequence[Instance]) -> None:
            assert (source, key) == ("dns", "_http._tcp.u.test for users")
            named.append([f"{each.url} {each.priority} {each.weight}" for each in found])
            said.set()

        async with served(tmp_path) as (server, resolver):
            server.zone = {("_http._tcp.u.test", "SRV"): ["10 5 3001 a.test."]}
            wanted = DnsWanted(service="users", name="_http._tcp.u.test", kind="SRV", every_s=0.02)
            source = DnsSource(wanted, resolver, name)
            source.start()
            async with asyncio.timeout(10):
                await said.wait()
                said.clear()
                server.refuse = True
                while not source.worry:
                    await asyncio.sleep(0.01)
                server.refuse = False
                server.zone = {("_http._tcp.u.test", "SRV"): ["20 5 3001 b.test.", "0 1 1 c.test."]}
                await said.wait()
                said.clear()
                server.zone = {("_http._tcp.u.test", "SRV"): ["0 0 0 ."]}
                await said.wait()
            await source.close()

    asyncio.run(main())
    assert named == [
        ["http://a.test:3001 0 5"],
        ["http://c.test:1 0 1", "http://b.test:3001 1 5"],
        [],
    ]


@pytest.mark.integration
def test_the_hosts_file_is_heard_before_the_servers(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.5 u.test\n::5 u.test\n")
    named: list[list[str] | None] = []

    async def main() -> None:
        async with served(tmp_path) as (server, resolver):
            server.zone = {("u.test", "A"): ["192.0.2.9"]}
            wanted = DnsWanted(service="users", name="u.test", port=1, most_s=3.0)
            source = DnsSource(
                wanted, resolver, lambda *said: named.append(urls(said[2])), hosts_file=hosts
            )
            assert 2.0 < await source.look() <= 3.0
            assert not server.asked
            hosts.write_text("")
            await source.look()
            await source.close()

    asyncio.run(main())
    assert named == [["http://192.0.2.5:1", "http://[::5]:1"], ["http://192.0.2.9:1"]]
