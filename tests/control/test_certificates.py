"""The renewer on its own: whose turn it is, what is remembered, and what is taken back."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headgate.config import Config, from_document
from headgate.control import certificates as renewer
from headgate.control.certificates import Certificates
from headgate.security.certificates.acme import ari_id, make_key
from headgate.security.certificates.store import AcmeStore
from tests.security.acme_authority import RATE_LIMITED, Answer, Authority, problem
from tests.security.test_certificates_store import chain

WALL = 1_800_000_000.0


class Board:
    """Tells everybody but the publisher, as boards do."""

    def __init__(self) -> None:
        self.listeners: list[tuple[Seat, str, Callable[[Mapping[str, Any]], None]]] = []
        self.said: list[tuple[str, Mapping[str, Any]]] = []
        self.kept: dict[tuple[str, str], Mapping[str, Any]] = {}


class Seat:
    def __init__(self, board: Board) -> None:
        self.board = board

    def publish(self, topic: str, message: Mapping[str, Any], *, retain: str | None = None) -> None:
        json.dumps(message)
        self.board.said.append((topic, message))
        if retain is not None:
            self.board.kept[topic, retain] = message
        for seat, wanted, listener in self.board.listeners:
            if seat is not self and wanted == topic:
                listener(message)

    def forget(self, topic: str, retain: str) -> None:
        self.board.kept.pop((topic, retain), None)

    def subscribe(self, topic: str, listener: Callable[[Mapping[str, Any]], None]) -> object:
        self.board.listeners.append((self, topic, listener))
        return None


class Clock:
    def __init__(self) -> None:
        self.wall = WALL

    def __call__(self) -> float:
        return self.wall


def config_of(authority: Authority, *domains: str, state: str = "memory", **more: Any) -> Config:
    return from_document(
        {
            "listeners": ["127.0.0.1:80", {"bind": "127.0.0.1:443", "tls": "acme"}],
            "routes": [{"match": {"path": "/"}, "respond": {"body": "x"}}],
            "state": state,
            "acme": {
                "agree_terms": True,
                "directory": authority.url("/dir"),
                "ca_file": authority.ca_file,
                "domains": list(domains or ("a.test",)),
                **more,
            },
        }
    )


def made(folder: Path, board: Board, clock: Clock, *, ready: bool = True) -> Certificates:
    return Certificates(
        folder, Seat(board), lambda: ready, wall=clock, rng=random.Random(str(folder)), settle_s=0.0
    )


async def wait_for(what: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (found := what()):
            await asyncio.sleep(0.005)
    return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failing(it: Certificates) -> list[dict[str, Any]]:
    return [row for row in it.snapshot() if row["failures"]]


def orders(authority: Authority) -> int:
    return sum(path == "/order" for path, _ in authority.asked)


def test_a_limit_is_waited_for_also_over_a_restart(tmp_path, authority, clock):
    authority.answers["/order"] = problem(RATE_LIMITED, 429, retry_after="7200")

    async def main() -> None:
        async with authority.serving():
            for _ in range(2):
                it = made(tmp_path / "state", Board(), clock)
                it.take(config_of(authority))
                it.start()
                (row,) = await wait_for(partial(failing, it))
                assert row["next_try"] == clock.wall + 7200.0
                assert "too many (rateLimited)" in row["why"]
                assert it.renew(["a.test", "b.test"]) == {
                    "a.test": "is ordered in 7200 s, as the authority limits failures",
                    "b.test": "is not among the names of acme",
                }
                await it.close()
            assert orders(authority) == 1

    asyncio.run(main())


def test_a_name_that_fails_holds_up_no_other(tmp_path, authority, clock):
    def answer(payload: Any) -> Answer:
        name = payload["identifiers"][0]["value"]
        return problem({"type": "x", "detail": f"never {name}"})(payload)

    authority.answers["/order"] = answer

    async def main() -> None:
        async with authority.serving():
            it = made(tmp_path / "state", Board(), clock)
            it.take(config_of(authority, "a.test", "b.test"))
            it.start()
            await wait_for(lambda: all(row["failures"] for row in it.snapshot()))
            rows = it.snapshot()
            assert ["never a.test" in rows[0]["why"], "never b.test" in rows[1]["why"]] == [
                True
            ] * 2
            assert len(it.worries()) == 2
            await it.close()

    asyncio.run(main())


def test_nothing_is_ordered_while_no_worker_serves(tmp_path, authority, clock):
    async def main() -> None:
        async with authority.serving():
            it = made(tmp_path / "state", Board(), clock, ready=False)
            it.take(config_of(authority))
            it.start()
            await asyncio.sleep(0)
            assert await it._turn() == renewer.NOT_READY_S
            await it.close()
            assert not authority.asked

    asyncio.run(main())


def pending(authority: Authority) -> None:
    """An order that stays where it is."""
    body = {
        "status": "pending",
        "authorizations": [authority.url("/authz")],
        "finalize": authority.url("/fin"),
    }
    authorization = {
        "status": "pending",
        "identifier": {"type": "dns", "value": "a.test"},
        "challenges": [
            {
                "type": "http-01",
                "token": "t0k",
                "status": "pending",
                "url": authority.url("/challenge"),
            }
        ],
    }
    place = {"location": authority.url("/order/1")}
    authority.answers["/order"] = lambda _: (201, place, json.dumps(body).encode())
    authority.answers["/order/1"] = lambda _: (200, {}, json.dumps(body).encode())
    authority.answers["/authz"] = lambda _: (200, {}, json.dumps(authorization).encode())
    authority.answers["/challenge"] = lambda _: (200, {}, b"{}")


def test_a_challenge_is_taken_back_when_the_process_ends_within_an_order(
    tmp_path, authority, clock
):
    async def main() -> None:
        async with authority.serving():
            pending(authority)
            board = Board()
            it = made(tmp_path / "state", board, clock)
            it.take(config_of(authority))
            it.start()
            await wait_for(lambda: ("acme", "t0k") in board.kept)
            told = board.kept["acme", "t0k"]
            assert told["token"] == "t0k"
            assert told["answer"].startswith("t0k.")
            # The authority is asked to look after everybody has been told.
            await wait_for(lambda: ("/challenge", {}) in authority.asked)
            await it.close()
            assert ("acme", "t0k") not in board.kept
            assert board.said[-1] == ("acme", {**told, "gone": True})
            # And the order is there for the next one.
            store = AcmeStore(tmp_path / "state", authority.url("/dir"))
            assert store.order("a.test") == authority.url("/order/1")

    asyncio.run(main())


def test_of_two_machines_one_orders_and_then_the_other(tmp_path, authority, clock, monkeypatch):
    monkeypatch.setattr(renewer, "CLAIM_S", 0.05)
    monkeypatch.setattr(renewer, "BUSY_S", 0.05)

    async def main() -> None:
        async with authority.serving():
            pending(authority)
            board = Board()
            them = [made(tmp_path / name, board, clock) for name in ("one", "two")]
            for it in them:
                it.take(config_of(authority, state="redis://127.0.0.1:1"))
                it.start()
            await wait_for(lambda: ("/challenge", {}) in authority.asked)
            await asyncio.sleep(0.3)
            assert orders(authority) == 1
            claims = [key for key in board.kept if key[0] == "acme-claims"]
            assert len(claims) == 2
            first = next(it for it in them if it._ordering._shown)
            await first.close()
            await wait_for(lambda: orders(authority) == 2)
            for it in them:
                await it.close()

    asyncio.run(main())


def test_a_certificate_that_another_process_brought_is_taken_up(tmp_path, authority, clock):
    authority.answers["/order"] = problem({"type": "x", "detail": "no"})

    async def main() -> None:
        async with authority.serving():
            board = Board()
            it = made(tmp_path / "state", board, clock)
            it.take(config_of(authority))
            it.start()
            await wait_for(lambda: it.snapshot()[0]["failures"])
            assert any("local one" in worry for worry in it.worries())
            key = make_key("ecdsa")
            store = AcmeStore(tmp_path / "state", authority.url("/dir"))
            clock.wall = time.time()
            store.keep_certificate("a.test", chain(key), key)
            await it._turn()
            assert ("certificates", {"at": clock.wall}) in board.said
            assert it.worries() == []
            await it.close()

    asyncio.run(main())


def test_the_authoritys_window_is_asked_for_and_followed(tmp_path, authority, clock):
    window = b'{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-03T00:00:00Z"}}'
    authority.answers["/order"] = problem({"type": "x", "detail": "no"})

    async def main() -> None:
        async with authority.serving():
            clock.wall = time.time()
            store = AcmeStore(tmp_path / "state", authority.url("/dir"))
            store.prepare()
            key = make_key("ecdsa")
            store.keep_certificate("a.test", chain(key, authority=True), key)
            kept = store.certificate("a.test")
            assert kept is not None
            authority.answers[f"/ari/{ari_id(kept.leaf)}"] = lambda _: (200, {}, window)
            it = made(tmp_path / "state", Board(), clock)
            it.take(config_of(authority))
            it._windows_at = 0.0
            await it._turn()
            assert store.standing("a.test").window == (1767312000.0, 1767398400.0)
            assert not orders(authority), "it was not due before"
            # By the window it is.
            await it._turn()
            assert orders(authority) == 1

    asyncio.run(main())


def test_failures_that_cannot_be_written_are_remembered(tmp_path, authority, clock, monkeypatch):
    authority.answers["/order"] = problem({"type": "x", "detail": "no"})

    def full(*_what: object) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        async with authority.serving():
            it = made(tmp_path / "state", Board(), clock)
            it.take(config_of(authority))
            AcmeStore(tmp_path / "state", authority.url("/dir")).prepare()
            monkeypatch.setattr(AcmeStore, "keep_order_key", full)
            monkeypatch.setattr(AcmeStore, "keep_standing", full)
            await it._turn()
            (row,) = it.snapshot()
            assert row["failures"] == 1
            assert "No space left" in row["why"]
            assert orders(authority) == 0, "no order without a place for its key"
            await it._turn()
            assert it.snapshot()[0]["failures"] == 1

    asyncio.run(main())


def test_a_reload_without_acme_ends_the_worries(tmp_path, authority, clock):
    authority.answers["/order"] = problem({"type": "x", "detail": "no"})

    async def main() -> None:
        async with authority.serving():
            it = made(tmp_path / "state", Board(), clock)
            it.take(config_of(authority))
            await it._turn()
            assert it.worries()
            it.take(
                from_document(
                    {
                        "listeners": ["127.0.0.1:80"],
                        "routes": [{"match": {"path": "/"}, "respond": {"body": "x"}}],
                    }
                )
            )
            assert (it.worries(), it.snapshot(), it.renew([])) == ([], [], {})

    asyncio.run(main())


def test_workers_are_told_twice_a_day_for_what_they_make_themselves(tmp_path, clock):
    async def main() -> None:
        board = Board()
        it = made(tmp_path / "state", board, clock)
        await it._turn()
        assert not board.said
        it._refresh_at = 0.0
        await it._turn()
        assert board.said == [("certificates", {"at": WALL})]

    asyncio.run(main())
