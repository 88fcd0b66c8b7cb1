"""The Redis layer while Redis is killed, frozen, slow, flushed, cut off, failed over or refusing."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway
from headgate.cache.redis import RedisLayer
from tests.cache.redis_rig import (
    Proxy,
    cluster_in,
    made,
    nodes_of,
    of_keys,
    of_tags,
    opened,
    proxy_to,
    run,
    server_in,
    settled,
    until,
    value_of,
)
from tests.listening import stop_listening
from tests.ports import free_port
from tests.state.redis_server import PATIENCE_S, RedisServer, program

pytestmark = pytest.mark.integration

BOUND_S = 0.05
SLACK_S = 0.15  # for a machine that is busy with other things


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, which it may kill, freeze and flush."""
    with server_in(tmp_path / "redis") as server:
        yield server


def coherent(layer: RedisLayer) -> bool:
    return not layer.is_away and layer.is_coherent(time.monotonic())


async def longest(layer: RedisLayer, for_s: float) -> float:
    """The longest of many calls."""
    worst, end = 0.0, time.monotonic() + for_s
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            await asyncio.gather(*(layer.get([str(n)]) for n in range(5)))
        except LayerAway:
            await asyncio.sleep(0.002)
        worst = max(worst, time.monotonic() - began)
    return worst


def test_a_frozen_redis_costs_one_deadline_and_then_nothing(redis_server: RedisServer):
    async def main() -> None:
        async with opened(redis_server) as layer:
            gaps: list[None] = []
            layer.on_gap(lambda: gaps.append(None))
            await layer.put({"k": made(layer, 1)})
            redis_server.freeze()
            try:
                assert await longest(layer, 2.5) < BOUND_S + SLACK_S
                assert layer.is_away
                assert not layer.is_coherent(time.monotonic())
                began = time.monotonic()
                for _ in range(1000):
                    with pytest.raises(LayerAway):
                        await layer.get(["k"])
                assert time.monotonic() - began < 1.0
                queued = await layer.invalidate(of_keys("gone"))
                assert queued.is_queued
                await layer.put({"later": made(layer, 2)})
            finally:
                redis_server.thaw()
            await until(lambda: coherent(layer) and not layer.snapshot().queued)
            assert await value_of(layer, "k") == 1
            assert gaps == []  # nothing was missed

    run(main)


def test_a_slow_redis_is_left_alone_and_found_well_again(redis_server: RedisServer):
    async def main(proxy: Proxy) -> None:
        async with opened(proxy.url) as layer:
            proxy.delay_s = 0.08
            assert await longest(layer, 2.0) < BOUND_S + SLACK_S
            await until(lambda: layer.snapshot().breaker != "closed")
            assert layer.is_away
            proxy.delay_s = 0.0
            await until(lambda: coherent(layer))
            assert layer.snapshot().breaker == "closed"

    with proxy_to(redis_server) as proxy:
        run(lambda: main(proxy))


@pytest.mark.parametrize("how", ["kill", "flush", "flush-and-write"])
def test_a_redis_that_forgets_is_a_gap_for_all_and_then_works(redis_server: RedisServer, how: str):
    async def main() -> None:
        async with opened(redis_server) as one, opened(redis_server) as other:
            gaps: list[str] = []
            one.on_gap(lambda: gaps.append("one"))
            other.on_gap(lambda: gaps.append("other"))
            slow = made(one, "old")
            stamp = (await other.invalidate(of_keys("k"))).stamp
            if how == "kill":
                redis_server.kill()
                await until(lambda: one.is_away and other.is_away)
                redis_server.start()
            else:
                redis_server.say("FLUSHALL")
                if how == "flush-and-write":
                    redis_server.say("SET", one._names.clock.decode(), "5 5 another")
            await until(lambda: set(gaps) == {"one", "other"} and coherent(one) and coherent(other))
            await one.put({"k": slow})
            assert await value_of(other, "k") is None
            await one.put({"k": made(one, "new")})
            assert await value_of(other, "k") == "new"
            assert (await one.invalidate(of_keys("k"))).stamp > stamp

    run(main)


def test_a_redis_back_from_an_old_copy_serves_nothing_of_it(tmp_path: Path):
    with server_in(tmp_path) as server:

        async def main() -> None:
            async with opened(server) as layer:
                await layer.put({"k": made(layer, "old", ("t",)), "j": made(layer, "old")})
                server.say("SAVE")
                await layer.invalidate(of_tags("t"))
                server.kill()
                await until(lambda: layer.is_away)
            # The one who knew is gone.
            server.start()
            async with opened(server) as other:
                assert await other.get(["k", "j"]) == [None, None]

        run(main)


def test_a_durable_redis_keeps_its_entries_over_a_restart(tmp_path: Path):
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with server_in(tmp_path, *options) as server:

        async def main() -> None:
            async with opened(server, durable=True) as layer:
                await layer.put({"k": made(layer, 1), "j": made(layer, 2, ("t",))})
                await layer.invalidate(of_tags("t"))
                server.kill()
                await until(lambda: layer.is_away)
                server.start()
                await until(lambda: coherent(layer))
                assert await value_of(layer, "k") == 1
                assert await value_of(layer, "j") is None

        run(main)


def test_what_was_said_in_an_outage_is_told_before_anything_is_read(redis_server: RedisServer):
    async def main(proxy: Proxy) -> None:
        async with opened(proxy.url) as one, opened(redis_server) as other:
            await other.put({"k": made(other, "old", ("t",)), "j": made(other, "kept")})
            early = made(one, "early", ("u",))
            proxy.is_still = True
            proxy.cut()
            await until(lambda: one.is_away)
            assert (await one.invalidate(of_tags("t"))).is_queued
            await one.put({"w": early, "x": made(one, "mine")})
            assert await value_of(other, "k") == "old"
            await other.invalidate(of_tags("u"))
            proxy.is_still = False
            await until(lambda: not one.is_away)
            assert await one.get(["k"]) == [None]
            assert await other.get(["k"]) == [None]
            assert await value_of(one, "j") == "kept"
            await until(lambda: not one.snapshot().queued)
            assert await value_of(other, "w") is None  # struck by `u`, before it could be written

    with proxy_to(redis_server) as proxy:
        run(lambda: main(proxy))


def test_writes_of_a_short_outage_arrive(redis_server: RedisServer):
    async def main() -> None:
        async with opened(redis_server) as layer:
            redis_server.freeze()
            try:
                with pytest.raises(LayerAway):
                    await layer.get(["k"])
                for n in range(50):
                    await layer.put({f"k{n % 10}": made(layer, n)})
                assert layer.snapshot().queued >= 10
            finally:
                redis_server.thaw()
            await until(lambda: coherent(layer) and not layer.snapshot().queued)
            assert [await value_of(layer, f"k{n}") for n in range(10)] == list(range(40, 50))

    run(main)


def test_news_missed_while_cut_off_are_read_after(redis_server: RedisServer):
    async def main(proxy: Proxy) -> None:
        async with opened(proxy.url) as one, opened(redis_server) as other:
            heard: list[Invalidation] = []
            gaps: list[None] = []
            one.listen(heard.append)
            one.on_gap(lambda: gaps.append(None))
            proxy.is_still = True
            await until(lambda: not one.is_coherent(time.monotonic()))
            for n in range(20):
                await other.invalidate(of_tags(f"t{n}"))
            proxy.cut()
            proxy.is_still = False
            await until(lambda: coherent(one))
            assert [said.tags for said in heard] == [(f"t{n}",) for n in range(20)]
            assert gaps == []

    with proxy_to(redis_server) as proxy:
        run(lambda: main(proxy))


def test_news_that_are_not_there_any_more_are_a_gap(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headgate.cache.redis.coherence.RECORDS", 5)

    async def main(proxy: Proxy) -> None:
        async with opened(proxy.url) as one, opened(redis_server) as other:
            gaps: list[None] = []
            one.on_gap(lambda: gaps.append(None))
            proxy.is_still = True
            await until(lambda: not one.is_coherent(time.monotonic()))
            held = made(one, "old", ("t0",))
            for n in range(20):
                await other.invalidate(of_tags(f"t{n}"))
            redis_server.say("XTRIM", one._names.stream.decode(), "MAXLEN", "5")
            proxy.cut()
            proxy.is_still = False
            await until(lambda: coherent(one))
            assert gaps == [None]
            assert one.barriers.judge("k", held.tags, held.stamp).name == "DEAD"

    with proxy_to(redis_server) as proxy:
        run(lambda: main(proxy))


@pytest.mark.parametrize("how", ["half-open", "cut", "freeze", "kill"])
def test_coherence_ends_with_the_lease(redis_server: RedisServer, how: str):
    async def main(proxy: Proxy) -> None:
        async with opened(proxy.url) as layer:
            await until(lambda: coherent(layer))
            for _ in range(30):  # while all is well it does not lapse, but for a hold-up
                await asyncio.sleep(0.01)
            if how == "half-open":
                proxy.is_still = True
            elif how == "cut":
                proxy.is_still = True
                proxy.cut()
            elif how == "freeze":
                redis_server.freeze()
            else:
                redis_server.kill()
            at = time.monotonic()
            assert not layer.is_coherent(at + layer.lease_s + 0.001)
            await until(lambda: layer.is_away)
            proxy.is_still = False
            if how == "freeze":
                redis_server.thaw()
            elif how == "kill":
                redis_server.start()
            await until(lambda: coherent(layer))

    with proxy_to(redis_server) as proxy:
        run(lambda: main(proxy))


def test_a_wrong_password_is_away_and_is_not_shown(tmp_path: Path):
    with server_in(tmp_path, "--requirepass", "right") as server:

        async def main() -> None:
            url = f"redis://:wrong-secret@127.0.0.1:{server.port}"
            async with opened(url) as layer:
                assert layer.is_away
                with pytest.raises(LayerAway) as caught:
                    await layer.get(["k"])
                shown = str(caught.value) + repr(layer.snapshot())
                assert "password" in shown or "AUTH" in shown
                assert "wrong-secret" not in shown
            async with opened(url.replace("wrong-secret", "right")) as layer:
                assert not layer.is_away

        run(main)


def test_a_full_redis_refuses_writes_and_nothing_breaks(tmp_path: Path):
    with server_in(tmp_path) as server:

        async def main() -> None:
            async with opened(server) as layer:
                await layer.put({"k": made(layer, 1)})
                server.say("CONFIG", "SET", "maxmemory", "1")
                await layer.put({"j": made(layer, 2)})
                assert layer.counts["refused"] == 1
                assert await value_of(layer, "k") == 1
                with pytest.raises(LayerAway):
                    await layer.add("n", 1, None)
                said = Invalidation(keys=("k",), tags=("t",), patterns=("p*",))
                assert not (await layer.invalidate(said)).is_queued  # it may always forget
                assert await value_of(layer, "k") is None

        run(main)


def test_a_master_that_becomes_a_replica_is_left(tmp_path: Path):
    with server_in(tmp_path / "a") as one, server_in(tmp_path / "b") as two:

        async def main() -> None:
            async with opened(one) as layer:
                await layer.put({"k": made(layer, 1)})
                one.say("REPLICAOF", "127.0.0.1", str(two.port))
                assert (await layer.invalidate(of_keys("k"))).is_queued
                await until(lambda: layer.is_away)
                one.say("REPLICAOF", "NO", "ONE")
                await until(lambda: coherent(layer) and not layer.snapshot().queued)
                assert await value_of(layer, "k") is None

        run(main)


def test_scripts_that_redis_forgot_are_sent_again(redis_server: RedisServer):
    async def main() -> None:
        async with opened(redis_server) as layer:
            redis_server.say("SCRIPT", "FLUSH")
            await layer.put({"k": made(layer, 1)})
            assert await value_of(layer, "k") == 1
            assert not (await layer.invalidate(of_keys("k"))).is_queued

    run(main)


def test_a_peer_that_does_not_speak_redis_is_away():
    async def main() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.append(writer)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
            with contextlib.suppress(OSError):
                await reader.read()

        serving: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}") as layer:
            with pytest.raises(LayerAway):
                await layer.get(["k"])
            await layer.put({"k": made(layer, 1)})
            assert layer.snapshot().queued == 1
        await stop_listening(server)
        for writer in serving:
            writer.transport.abort()
        await server.wait_closed()

    run(main)


def test_over_tls(tmp_path: Path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = authority.issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls_port = free_port()
    options = ["--tls-port", str(tls_port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", f"{tmp_path}/cert.pem"]
    options += ["--tls-key-file", f"{tmp_path}/key.pem"]
    with server_in(tmp_path, *options):

        async def main() -> None:
            url = f"rediss://localhost:{tls_port}/0?ssl_ca_certs={tmp_path}/ca.pem"
            async with opened(url) as layer:
                text = "x" * 1_000_000
                await layer.put({str(n): made(layer, text) for n in range(3)})
                for n in range(3):
                    assert await value_of(layer, str(n)) == text
            async with opened(f"rediss://localhost:{tls_port}/0") as layer:
                assert "certificate" in layer.snapshot().why

        run(main)


def test_sentinel_leads_to_the_new_master(tmp_path: Path):
    folder = tmp_path / "sentinel"
    folder.mkdir()
    config, port = folder / "sentinel.conf", free_port()
    with server_in(tmp_path / "a") as one, server_in(tmp_path / "b") as two:
        two.say("REPLICAOF", "127.0.0.1", str(one.port))
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {one.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )
        command = [program(), str(config), "--sentinel", "--port", str(port)]
        with (folder / "log").open("wb") as log:
            sentinel = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=log, stderr=log)
        asked = RedisServer(folder, port=port)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while str(two.port).encode() not in asked._try_ping() + _replicas(asked):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)

            async def main() -> None:
                async with opened(f"redis+sentinel://127.0.0.1:{port}/main") as layer:
                    gaps: list[None] = []
                    layer.on_gap(lambda: gaps.append(None))
                    await layer.put({"k": made(layer, "old")})
                    one.freeze()
                    await until(lambda: coherent(layer) and gaps)
                    assert await value_of(layer, "k") is None  # it may have been struck there
                    assert not (await layer.invalidate(of_keys("j"))).is_queued
                    await layer.put({"k": made(layer, "new")})
                    assert await value_of(layer, "k") == "new"
                    one.thaw()

            run(main)
        finally:
            sentinel.kill()
            sentinel.wait()


def _replicas(asked: RedisServer) -> bytes:
    try:
        return asked.say("SENTINEL", "REPLICAS", "main")
    except OSError:
        return b""


def test_a_node_of_a_cluster_takes_only_its_own_slots_with_it(tmp_path: Path):
    with cluster_in(tmp_path) as nodes:

        async def main() -> None:
            async with opened(nodes[0]) as layer, opened(nodes[1]) as other:
                await settled(other)
                await settled(layer)
                assert layer._router is not None
                home = layer._router.home.name
                victim = next(node for node in nodes if str(node.port) not in home)
                keys = [f"k{n}" for n in range(60)]
                await layer.put({key: made(layer, key) for key in keys})
                victim.freeze()
                alive = 0
                began = time.monotonic()
                for key in keys:
                    try:
                        alive += await value_of(layer, key) == key
                    except LayerAway:
                        pass
                assert 20 <= alive < 60
                assert time.monotonic() - began < 3.0
                victim.thaw()
                await until(lambda: all(n.is_here for n in nodes_of(layer)))
                await until(lambda: coherent(layer))
                found = await layer.get(keys)
                assert [entry.value for entry in found if entry] == keys

        run(main)


def test_a_slot_that_moves_is_followed(tmp_path: Path):
    with cluster_in(tmp_path) as nodes:

        async def main() -> None:
            async with opened(nodes[0], deadline_s=5.0) as layer:  # not about time
                await settled(layer)
                # A key of ours begins its tag with `=`.
                slot = int(nodes[0].say("CLUSTER", "KEYSLOT", "=moves")[1:])
                await layer.put({"moves": made(layer, 1)})
                owner = nodes[slot * 3 // 16384]
                for node in nodes:
                    if slot < 16384 * (nodes.index(node) + 1) // 3:
                        owner = node
                        break
                to = next(node for node in nodes if node is not owner)
                ids = {
                    node: node.say("CLUSTER", "MYID").split(b"\r\n")[1].decode() for node in nodes
                }
                to.say("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[owner])
                owner.say("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[to])
                name = layer._names.entry("moves").decode()
                owner.say("MIGRATE", "127.0.0.1", str(to.port), name, "0", "5000")
                assert await value_of(layer, "moves") == 1  # ASK
                for node in (to, owner, *nodes):
                    node.say("CLUSTER", "SETSLOT", str(slot), "NODE", ids[to])
                assert await value_of(layer, "moves") == 1  # MOVED
                await layer.put({"moves": made(layer, 2)})
                assert await value_of(layer, "moves") == 2

        run(main)
