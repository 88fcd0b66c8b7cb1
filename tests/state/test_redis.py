"""Shared state in a real Redis that is killed, frozen, flushed, slow, or not what it should be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from headgate.errors import ExtraMissing
from headgate.policy.limiter.lease import Ask, Back
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import HomeAway, LimitAsk, StateUnusable
from headgate.state.redis import RedisShared
from headgate.state.redis_place import place_of
from tests.ports import free_port
from tests.state.redis_server import RedisServer, program

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
SHORT_S = 0.2
LARGE = LimitRules(limit=1000, period_s=3600.0)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def patient() -> None:
        async with asyncio.timeout(60):
            await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(patient())


@contextlib.asynccontextmanager
async def shared(where: RedisServer | str, **options: Any) -> AsyncIterator[RedisShared]:
    url = where if isinstance(where, str) else where.url
    # Patient, because this machine may be busy; who tests a time-out says how long.
    home = RedisShared(url, **{"deadline_s": 2.0, **options})
    await home.start()
    try:
        yield home
    finally:
        await home.close()


async def until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
    return found


async def take(home: RedisShared, n: int = 1, *, rules: LimitRules = LARGE, key: str = "k"):
    (grant,) = await home.take([LimitAsk("r", rules, Ask(key, n, n))])
    return grant


async def used(home: RedisShared, *, key: str = "k") -> int:
    """How many of LARGE are taken; asked again if there is no answer in time."""
    while True:
        try:
            (grant,) = await home.take([LimitAsk("r", LARGE, Ask(key, 0, 0))])
            return LARGE.limit - grant.remaining
        except HomeAway:
            await asyncio.sleep(0.01)


async def first_ten(home: RedisShared) -> None:
    """Take ten, and be sure of it."""
    while await used(home) < 9:
        with contextlib.suppress(HomeAway):
            await take(home, 10)


def calls(server: RedisServer, command: str) -> int:
    for line in server.say("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.partition("=")[2].partition(",")[0])
    return 0


# ---- limits


def test_two_clients_share_a_limit(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            assert (await take(one, 600)).granted == 600
            assert (await take(two, 600)).granted == 0
            grant = await take(two, 400)
            assert (grant.granted, grant.remaining) == (400, 0)
            two.give_back([("r", Back("k", 400, grant.at))])
            assert (await take(one, 300)).granted == 300

    run(main)


def test_what_is_asked_in_one_turn_is_one_call_and_each_asker_gets_its_own(
    redis_server: RedisServer,
):
    async def main() -> None:
        async with shared(redis_server) as home:
            await take(home)
            before = calls(redis_server, "evalsha")
            got = await asyncio.gather(
                *(take(home, n, key=f"k{n}") for n in range(1, 31)),
                home.take([LimitAsk("r", LARGE, Ask(key, 7, 7)) for key in "abc"]),
            )
            assert calls(redis_server, "evalsha") == before + 1
            assert [grant.granted for grant in got[:-1]] == list(range(1, 31))
            assert [grant.granted for grant in got[-1]] == [7, 7, 7]
            assert await home.take([]) == []

    run(main)


def test_a_large_batch_is_parted_between_takes_and_answered_in_order(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as home:
            await take(home)
            before = calls(redis_server, "evalsha")
            got = await asyncio.gather(
                *(
                    home.take([LimitAsk("r", LARGE, Ask(f"{n}-{i}", n, n)) for i in range(30)])
                    for n in range(1, 8)
                )
            )
            assert calls(redis_server, "evalsha") == before + 4  # two takes in each
            assert [{grant.granted for grant in grants} for grants in got] == [
                {n} for n in range(1, 8)
            ]

    run(main)


def test_what_was_asked_first_is_decided_first(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as home:
            first = asyncio.ensure_future(take(home, 1000))
            await asyncio.sleep(0)
            home.give_back([("r", Back("k", 10, 0.0))])
            second = asyncio.ensure_future(take(home, 5))
            assert ((await first).granted, (await second).granted) == (1000, 5)

    run(main)


# ---- Redis is away


def test_a_redis_that_is_not_there_is_found_when_it_comes(tmp_path: Path):
    server = RedisServer(tmp_path)

    async def main() -> None:
        async with shared(server) as home:
            assert home.is_away
            with pytest.raises(HomeAway):
                home.take([LimitAsk("r", LARGE, Ask("k", 1, 1))]).send(None)
            await asyncio.to_thread(server.start)
            await until(lambda: not home.is_away)
            assert (await take(home)).granted == 1

    try:
        run(main)
    finally:
        server.stop()


def test_killed_in_the_middle_of_everything_and_started_again(redis_server: RedisServer):
    async def main() -> None:
        outcomes: list[str] = []
        async with shared(redis_server) as home:
            is_over = False

            async def ask_on() -> None:
                while not is_over:
                    try:
                        grant = await take(home, 1, rules=LimitRules(limit=10**6))
                        outcomes.append("granted" if grant.granted else "refused")
                    except HomeAway:
                        outcomes.append("away")
                    await asyncio.sleep(0.001)

            askers = [asyncio.ensure_future(ask_on()) for _ in range(20)]
            await until(lambda: outcomes.count("granted") > 200)
            await asyncio.to_thread(redis_server.kill)
            await until(lambda: outcomes.count("away") > 200)
            assert home.is_away
            await asyncio.to_thread(redis_server.start)
            del outcomes[:]
            await until(lambda: outcomes.count("granted") > 200)
            is_over = True
            await asyncio.gather(*askers)
            assert set(outcomes) <= {"granted", "away"}

    run(main)


def test_frozen_it_costs_one_deadline_once_and_what_it_granted_too_late_is_given_back(
    redis_server: RedisServer,
):
    async def main() -> None:
        async with shared(redis_server, deadline_s=SHORT_S) as home:
            await first_ten(home)
            redis_server.freeze()
            waiting = [asyncio.ensure_future(take(home, 20)) for _ in range(5)]
            done, _ = await asyncio.wait(waiting)
            assert all(isinstance(task.exception(), HomeAway) for task in done)
            assert "within 200 ms" in str(done.pop().exception())
            for task in done:
                task.exception()
            with pytest.raises(HomeAway):
                home.take([LimitAsk("r", LARGE, Ask("k", 1, 1))]).send(None)  # nobody waits now
            redis_server.thaw()
            await until(lambda: not home.is_away)
            assert home.snapshot(time.monotonic()).late == 5
            assert await used(home) in (9, 10)  # one refills in 3.6 s

    run(main)


def test_who_asks_while_a_batch_is_on_its_way_is_told_with_it_and_asks_nobody(
    redis_server: RedisServer,
):
    async def main() -> None:
        async with shared(redis_server, deadline_s=SHORT_S) as home:
            await first_ten(home)
            redis_server.freeze()
            first = asyncio.ensure_future(take(home, 20))
            await asyncio.sleep(0.01)
            later = asyncio.ensure_future(take(home, 30))
            home.give_back([("r", Back("k", 5, 0.0))])
            done, _ = await asyncio.wait([first, later])
            assert all(isinstance(task.exception(), HomeAway) for task in done)
            redis_server.thaw()
            await until(lambda: not home.is_away)
            said = home.snapshot(time.monotonic())
            assert (said.timed_out, said.late) == (1, 1)
            assert await used(home) in (4, 5)  # of the first ten; one refills in 3.6 s

    run(main)


def test_frozen_for_long_the_connection_is_given_up_and_a_new_one_found(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server, deadline_s=SHORT_S) as home:
            await first_ten(home)
            redis_server.freeze()
            with pytest.raises(HomeAway):
                await take(home)
            await until(lambda: "Timeout" in home.snapshot(0.0).why)
            redis_server.thaw()
            await until(lambda: not home.is_away)
            assert await used(home)

    run(main)


def test_a_redis_that_is_always_too_slow_stays_away(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server, deadline_s=1e-6) as home:
            assert home.is_away
            assert home.snapshot(0.0).why.startswith("a beat took")

    run(main)


def test_a_flush_loses_scripts_and_counts_and_nothing_else(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as home:
            await take(home, 900)
            redis_server.say("FLUSHALL")
            redis_server.say("SCRIPT", "FLUSH")
            got = await asyncio.gather(*(take(home, 300, key="k") for _ in range(4)))
            assert [grant.granted for grant in got] == [300, 300, 300, 0]
            assert home.snapshot(0.0).times_away == 0

    run(main)


def test_a_replica_that_may_not_write_is_away_with_that_reason(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    async def main() -> None:
        async with shared(redis_server) as home:
            await take(home)
            redis_server.say("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(HomeAway, match="read only replica"):
                await take(home)
            await asyncio.sleep(0.5)
            assert home.is_away
            redis_server.say("REPLICAOF", "NO", "ONE")
            await until(lambda: not home.is_away)

    with caplog.at_level(logging.INFO, "headgate.state"):
        run(main)
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "is away" in text]) == 1
    assert len([text for text in said if "is back" in text]) == 1


def test_a_state_of_another_kind_fails_its_ask_and_is_no_end(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as home:
            await take(home)
            (key,) = [key for key in redis_server.key_names() if ":b:" in key]
            redis_server.say("DEL", key)
            redis_server.say("LPUSH", key, "what is this")
            with pytest.raises(HomeAway):
                await take(home)
            await until(lambda: not home.is_away)
            assert (await take(home, key="another")).granted == 1

    run(main)


# ---- holders


def test_holders_are_counted_and_those_who_leave_are_not(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one:
            async with shared(redis_server), shared(redis_server, holder=False) as reader:
                assert reader.holders == 2
                await until(lambda: one.holders == 2)
            await until(lambda: one.holders == 1)

    run(main)


def test_a_holder_that_died_counts_until_its_time_is_over(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as home:
            redis_server.say("ZADD", "headgate:{board}:holders", "99999999999999", "another")
            await home._beat()
            assert home.holders == 2
            redis_server.say("ZADD", "headgate:{board}:holders", "1", "another")
            await home._beat()
            assert home.holders == 1

    run(main)


# ---- where it is, and who may come in


def test_a_password_is_seen_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    secret = "p%40ss-word/secret"  # as it stands in the URL, and as it is
    server = RedisServer(tmp_path, "--requirepass", "p@ss-word/secret")
    server.start()

    async def main() -> None:
        good = f"redis://:{secret.replace('/', '%2F')}@127.0.0.1:{server.port}/0"
        async with shared(good) as home:
            assert (await take(home)).granted == 1
            for text in (home.place, repr(home._place), repr(home.snapshot(0.0))):
                assert "word" not in text
        async with shared(f"redis://:wrong-word@127.0.0.1:{server.port}/0") as home:
            assert home.is_away
            with pytest.raises(HomeAway, match="invalid username-password") as caught:
                await take(home)
            assert "wrong-word" not in str(caught.value)
        async with shared(f"redis://127.0.0.1:{server.port}/0") as home:
            with pytest.raises(HomeAway, match=r"(?i)authentication required"):
                await take(home)

    try:
        with caplog.at_level(logging.DEBUG):
            run(main)
    finally:
        server.stop()
    assert "word/secret" not in caplog.text
    assert "wrong-word" not in caplog.text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://u:p@localhost:7000/3?socket_timeout=2", "redis://localhost:7000/3"),
        ("rediss://:p@[::1]:7000/", "rediss://[::1]:7000"),
        ("unix://:p@/run/redis.sock?db=2", "unix:///run/redis.sock"),
        ("redis+sentinel://:p@a,b:7/main/2", "redis+sentinel://a,b:7/main"),
    ],
)
def test_a_place_is_called_without_its_password(url: str, text: str):
    place = place_of(url, 1.0)
    assert place.text == text
    assert ":p@" not in repr(place)


def test_foreign_words_that_quote_a_password_are_cleaned():
    place = place_of("redis://u:p%40ss@localhost?sentinel_password=other", 1.0)
    error = OSError("no luck with p%40ss,\n p@ss or other  script: 5f, on @user_script:1")
    assert place.words(error) == "no luck with ***, *** or ***"
    assert place.words(OSError()) == "OSError"


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:pass/word@host:6379",  # an unescaped slash: what is left of it is no port
        "redis://host:port",
        "redis://host:99999",
        "redis://host?socket_timeout=soon-secret",
        "http://host",
        "redis+sentinel://host",
        "nonsense",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_quoting_it(url: str):
    with pytest.raises(StateUnusable) as caught:
        place_of(url, 1.0)
    assert "pass" not in str(caught.value).replace("user:password@", "")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(ExtraMissing, match=r"headgate\[redis\]"):
        RedisShared("redis://localhost")


def test_over_a_unix_socket(tmp_path: Path):
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(path))
    server.start()

    async def main() -> None:
        async with shared(f"unix://{path}?db=1") as home:
            assert (await take(home)).granted == 1

    try:
        run(main)
    finally:
        server.stop()


def test_over_tls_the_certificate_is_verified(tmp_path: Path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = authority.issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls_port = free_port()
    options = ["--tls-port", str(tls_port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(tmp_path / "cert.pem")]
    options += ["--tls-key-file", str(tmp_path / "key.pem")]
    server = RedisServer(tmp_path, *options)
    server.start()

    async def main() -> None:
        url = f"rediss://localhost:{tls_port}/0"
        async with shared(f"{url}?ssl_ca_certs={tmp_path}/ca.pem") as home:
            assert (await take(home)).granted == 1
        async with shared(url) as home:
            with pytest.raises(HomeAway, match="certificate"):
                await take(home)

    try:
        run(main)
    finally:
        server.stop()


def test_sentinels_say_where_the_master_is(tmp_path: Path):
    server = RedisServer(tmp_path)
    server.start()
    folder = tmp_path / "sentinel"
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {server.port} 1\n")
    sentinel = Sentinel(folder, config)
    sentinel.start()

    async def main() -> None:
        dead = free_port()
        url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel.port}/main/0"
        async with shared(url) as home, shared(server) as direct:
            assert (await take(home, 7)).granted == 7
            assert await used(direct) == 7
        async with shared(url.replace("/main/", "/other/")) as home:
            assert home.is_away

    try:
        run(main)
    finally:
        sentinel.stop()
        server.stop()


class Sentinel(RedisServer):
    def __init__(self, folder: Path, config: Path) -> None:
        super().__init__(folder)
        self.config = config

    def start(self) -> None:
        import subprocess

        command = [program(), str(self.config), "--sentinel"]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while b"PONG" not in self._try_ping():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)


def test_on_a_cluster_each_key_finds_its_node(tmp_path: Path):
    nodes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        nodes.append(RedisServer(folder, "--cluster-enabled", "yes", port=cluster_port()))
    one, two = nodes
    for node in nodes:
        node.start()
    one.say("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
    two.say("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
    two.say("CLUSTER", "SET-CONFIG-EPOCH", "2")
    one.say("CLUSTER", "MEET", "127.0.0.1", str(two.port))

    async def main() -> None:
        def is_whole() -> bool:
            return all(b"cluster_state:ok" in node.say("CLUSTER", "INFO") for node in nodes)

        await until(is_whole)
        async with shared(one) as home, shared(two) as other:
            names = [f"key-{n}" for n in range(40)]
            asks = [
                LimitAsk(rule, LARGE, Ask(name, n, n))
                for rule in ("r", "s")  # keys of one node are apart
                for n, name in enumerate(names, 1)
            ]
            grants = await home.take(asks)
            assert [grant.granted for grant in grants] == [ask.ask.want for ask in asks]
            assert [await used(other, key=name) for name in names] == list(range(1, 41))
            counts = [len([key for key in node.key_names() if ":b:" in key]) for node in nodes]
            assert sum(counts) == 80
            assert all(counts)
            assert other.holders == 2

            heard: list[object] = []
            other.subscribe("t", heard.append)
            home.publish("t", {"n": 1}, retain="a")
            await until(lambda: heard == [{"n": 1}])

    try:
        run(main)
    finally:
        for node in nodes:
            node.stop()


def cluster_port() -> int:
    """A node also listens 10,000 ports above."""
    while True:
        port = free_port()
        if port < 55_000:
            return port
        if port > 55_000:
            return port - 20_000
