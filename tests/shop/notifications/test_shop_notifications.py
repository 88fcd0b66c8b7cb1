"""The service, with a real mail server and a real queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from headgate_shop.base import events
from headgate_shop.base.settings import Settings
from headgate_shop.notifications import app as service
from headgate_shop.notifications import post as posting
from headgate_shop.notifications import sending
from headgate_shop.notifications.app import app
from headgate_shop.queue import Backoff, Queue, open_queue
from tests.accounts.postgres_server import PostgresServer
from tests.shop.notifications.post_office import PostOffice
from tests.shop.queue.hearing import in_loop, until
from tests.shop.signing import Signer

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0
ORDER = {
    "order_id": "o-17",
    "user_id": "u-1",
    "email": "ada@shop.test",
    "at": 1.0,
    "total": 2500,
    "currency": "EUR",
    "lines": [{"product_id": "p-1", "name": "Lamp", "quantity": 2, "price": 1250}],
}


@pytest.fixture
def office():
    office = PostOffice()
    office.start()
    yield office
    office.stop()


@pytest.fixture(scope="module")
def mail_postgres():
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class World:
    """The service under way, somebody who asks it, and somebody who publishes."""

    def __init__(
        self, office: PostOffice, settings: Settings, queue: Queue, signer: Signer
    ) -> None:
        self.office, self.settings, self.queue = office, settings, queue
        self.admin = signer.headers("boss", "admin")
        self.user = signer.headers("u-1", "user")

    async def mailed(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.office.mails) < count:
                await asyncio.sleep(0.01)
        await self.settled()

    async def settled(self, **figures: int) -> None:
        await until(self.queue, "notifications", ready=0, in_flight=0, delayed=0, **figures)

    async def listed(self, **query) -> list[dict]:
        answer = await self.http.get("/api/admin/notifications", params=query, headers=self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    http: httpx.AsyncClient


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    api = app(world.settings)
    async with api.router.lifespan_context(api):
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://notifications") as http:
            world.http = http
            yield world


@pytest.fixture
def world(office: PostOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # A retry after a second is right for a mail server, and long for a test.
    monkeypatch.setattr(
        service,
        "open_queue",
        lambda url, **more: open_queue(url, backoff=Backoff(0.01, 0.05), **more),
    )
    signer = Signer(tmp_path / "keys")
    settings = Settings(
        "notifications",
        tmp_path,
        smtp=f"127.0.0.1:{office.port}",
        public_url="https://shop.example",
        identity_keys=signer.keys,
    )
    return World(office, settings, open_queue(settings.queue_url(), service="tests"), signer)


@in_loop
async def test_each_kind_of_message_becomes_one_mail_that_is_listed(world):
    async with world.queue, running(world):
        await world.queue.publish(
            events.MAIL_WANTED,
            {
                "to": "ada@shop.test",
                "template": "confirm_registration",
                "user_id": "u-1",
                "values": {
                    "name": "Ada",
                    "link": "https://shop.example/confirm#t0ken",
                    "token": "t0ken",
                },
            },
            priority=9,
        )
        await world.mailed(1)
        for topic in (
            events.ORDER_PLACED,
            events.ORDER_PAID,
            events.ORDER_SHIPPED,
            events.ORDER_CANCELLED,
        ):
            await world.queue.publish(topic, ORDER)
        await world.queue.publish(
            events.STOCK_LOW, {"product_id": "p-1", "name": "Lamp", "available": 2}
        )
        await world.queue.publish(
            events.USER_REGISTERED, {"user_id": "u-1", "email": "ada@shop.test", "name": "Ada"}
        )
        await world.mailed(7)
        listed = await world.listed()
        first = await world.listed(limit=3)
        assert [one["id"] for one in listed] == [
            one["id"] for one in first + await world.listed(limit=9, cursor=first[-1]["id"])
        ]
        assert await world.listed(status="bounced") == []
    mail = world.office.mails[0]
    assert (str(mail["To"]), str(mail["From"])) == ("ada@shop.test", "no-reply@shop.example")
    assert "https://shop.example/confirm#t0ken" in mail.get_body(("plain",)).get_content()
    assert {one["template"] for one in listed} == {
        "confirm_registration",
        "order_placed",
        "order_paid",
        "order_shipped",
        "order_cancelled",
        "stock_low",
        "welcome",
    }
    assert {(one["status"], one["attempts"], one["error"]) for one in listed} == {("sent", 1, None)}
    assert all(one["sent_at"] >= one["created_at"] for one in listed)
    assert "t0ken" not in str(listed)


@in_loop
async def test_a_message_that_comes_twice_is_mailed_once(world):
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER, id="one")
        await world.mailed(1)
    # The queue forgot; the message comes again, under its id.
    for file in world.settings.folder.glob("queue.db*"):
        if file.is_file():
            file.unlink()
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER, id="one")
        await world.queue.publish(events.ORDER_SHIPPED, ORDER, id="two")
        await world.mailed(2)
    assert world.office.subjects() == ["Your order o-17 is paid", "Your order o-17 is on its way"]


@in_loop
async def test_what_fails_for_the_moment_is_tried_again_under_the_same_message_id(world):
    world.office.answers = ["451 try again later", "421 busy"]
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER)
        await world.mailed(1)
        (mail,) = await world.listed()
    assert world.office.tried == 3
    assert (mail["status"], mail["attempts"], mail["error"]) == ("sent", 3, None)


@in_loop
async def test_a_server_whose_word_is_lost_gets_the_mail_again_with_the_id_it_knows(world):
    world.office.is_forgetful = True
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER)
        async with asyncio.timeout(PATIENCE_S):
            while not world.office.mails:
                await asyncio.sleep(0.01)
        world.office.is_forgetful = False
        await world.mailed(2)
    assert len({mail["Message-ID"] for mail in world.office.mails}) == 1


@in_loop
async def test_a_mail_that_is_refused_for_good_bounces_to_the_dead_letters(world):
    world.office.refused["ada@shop.test"] = "550 no such mailbox"
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER, id="bad")
        await world.settled(dead=1)
        (mail,) = await world.listed(status="bounced")
        assert mail["error"] == "550 no such mailbox"
        answer = await world.http.get(
            "/api/queue/dead", params={"group": "notifications"}, headers=world.admin
        )
        (letter,) = answer.json()["items"]
        assert (letter["id"], letter["topic"], letter["error"]) == (
            "bad",
            "order.paid",
            "bounced: 550 no such mailbox",
        )
        assert "ada@shop.test" not in answer.text  # what stands in a message is not shown
        world.office.refused.clear()
        body = {"group": "notifications", "id": "bad"}
        done = await world.http.post("/api/queue/dead/redrive", json=body, headers=world.admin)
        assert done.json() == {"redriven": 1}
        await world.mailed(1)
        (mail,) = await world.listed()
        assert (mail["status"], mail["attempts"]) == ("sent", 2)


@in_loop
async def test_what_no_mail_can_be_made_of_is_a_dead_letter_that_can_be_dropped(world):
    async with world.queue, running(world):
        await world.queue.publish(
            events.ORDER_PAID, ORDER | {"email": "a@b\r\nBcc: x@y.z"}, id="a/b c"
        )
        await world.queue.publish(events.MAIL_WANTED, {"to": "x"}, id="second")
        await world.settled(dead=2)
        gone = await world.http.delete("/api/queue/dead/notifications/a/b%20c", headers=world.admin)
        assert gone.json() == {"dropped": 1}
        again = await world.http.delete(
            "/api/queue/dead/notifications/a/b%20c", headers=world.admin
        )
        assert (again.status_code, again.json()["code"]) == (404, "not_dead")
        await world.settled(dead=1)
    assert world.office.tried == 0


@in_loop
async def test_a_server_that_is_down_costs_no_attempts_and_all_mails_arrive_when_it_is_back(
    world, monkeypatch
):
    monkeypatch.setattr(posting, "PATIENCE_S", 0.2)
    monkeypatch.setattr(sending, "RESET_AFTER", "200ms")
    world.office.stop()
    async with world.queue, running(world):
        for n in range(15):
            await world.queue.publish(events.ORDER_PAID, ORDER, id=str(n))
        async with asyncio.timeout(PATIENCE_S):
            while not any("is down" in (one["error"] or "") for one in await world.listed()):
                await asyncio.sleep(0.02)
        state = (await world.http.get("/health")).json()
        world.office.start()
        await world.mailed(15)
        assert {one["status"] for one in await world.listed()} == {"sent"}
    assert "mail" in str(state)


@in_loop
async def test_what_a_person_was_sent_is_exported_and_forgotten(world):
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER)
        await world.queue.publish(
            events.ORDER_PAID, ORDER | {"user_id": "u-2", "email": "eve@shop.test"}
        )
        await world.mailed(2)
        export = (await world.http.get("/internal/users/u-1/export")).json()
        assert [one["to"] for one in export["mails"]] == ["ada@shop.test"]
        assert (await world.http.delete("/internal/users/u-1")).json() == {"erased": 1}
        assert (await world.http.delete("/internal/users/u-1")).json() == {"erased": 0}
        assert (await world.http.get("/internal/users/u-1/export")).json() == {"mails": []}
        # What was still on its way is not sent, but for the last mail, of which nothing is kept.
        await world.queue.publish(events.ORDER_SHIPPED, ORDER)
        await world.queue.publish(
            events.MAIL_WANTED,
            {"to": "ada@shop.test", "template": "erasure_done", "values": {}, "user_id": "u-1"},
        )
        await world.queue.publish(events.USER_ERASED, {"user_id": "u-2", "at": 1.0})
        await world.mailed(3)
        (kept,) = await world.listed()
    assert world.office.subjects()[2:] == ["Your data is erased"]
    assert (kept["to"], kept["user_id"]) == ("(erased)", None)


@in_loop
async def test_the_queue_can_be_looked_at_by_admins_alone(world):
    async with world.queue, running(world):
        for path in (
            "/api/admin/notifications",
            "/api/queue/stats",
            "/api/queue/dead?group=orders",
        ):
            assert (await world.http.get(path)).status_code == 401
            assert (await world.http.get(path, headers=world.user)).status_code == 403
        body = {"group": "orders"}
        assert (
            await world.http.post("/api/queue/dead/redrive", json=body, headers=world.user)
        ).status_code == 403
        assert (
            await world.http.delete("/api/queue/dead/orders/x", headers=world.user)
        ).status_code == 403
        await world.queue.publish(events.USER_ERASED, {"user_id": "u-9", "at": 1.0})
        await world.settled()
        stats = (await world.http.get("/api/queue/stats", headers=world.admin)).json()
        assert stats["kind"] == "sqlite"
        assert {one["group"] for one in stats["groups"]} >= {"orders", "notifications", "analytics"}
        orders = next(one for one in stats["groups"] if one["group"] == "orders")
        assert orders["ready"] == 1


@in_loop
async def test_questions_that_make_no_sense_are_answered_precisely(world):
    async with world.queue, running(world):

        async def ask(method: str, path: str, **more) -> tuple[int, str]:
            answer = await world.http.request(method, path, headers=world.admin, **more)
            assert answer.headers["content-type"].startswith("application/problem+json")
            return answer.status_code, answer.text

        assert await _has(
            ask("GET", "/api/queue/dead?group=nobody"),
            404,
            "no group 'nobody'; there are analytics",
        )
        assert await _has(ask("GET", "/api/queue/dead"), 422, "group")
        assert await _has(ask("GET", "/api/admin/notifications?cursor=x"), 422, "cursor_unknown")
        assert await _has(ask("GET", "/api/admin/notifications?limit=0"), 422, "limit")
        assert await _has(ask("GET", "/api/admin/notifications?status=lost"), 422, "status")
        redrive = "/api/queue/dead/redrive"
        assert await _has(ask("POST", redrive, json={"group": "nobody"}), 404, "no_group")
        assert await _has(
            ask("POST", redrive, json={"group": "orders", "id": "x"}), 404, "not_dead"
        )
        assert await _has(ask("POST", redrive, json={"group": "orders", "all": True}), 422, "all")
        assert await _has(ask("POST", redrive, content=b"{"), 422, "")


async def _has(asked, status: int, text: str) -> bool:
    got = await asked
    assert got[0] == status and text in got[1], got
    return True


@in_loop
async def test_it_works_on_postgresql_alike(world, mail_postgres):
    import dataclasses

    world.settings = dataclasses.replace(
        world.settings, database=f"postgresql://headgate@127.0.0.1:{mail_postgres.port}"
    )
    world.office.answers = ["451 later"]
    async with world.queue, running(world):
        await world.queue.publish(events.ORDER_PAID, ORDER)
        await world.queue.publish(events.ORDER_PAID, ORDER | {"user_id": "u-2"})
        await world.mailed(2)
        first = await world.listed(limit=1)
        second = await world.listed(cursor=first[0]["id"])
        assert {one["user_id"] for one in first + second} == {"u-1", "u-2"}
        assert (await world.http.delete("/internal/users/u-1")).json() == {"erased": 1}


def test_staff_and_sender_are_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_SMTP", "ftp://x")
    with pytest.raises(ValueError, match="SHOP_SMTP is 'ftp://x'"):
        app(Settings("notifications", tmp_path, smtp="ftp://x"))
    assert service._sender("http://127.0.0.1:8080") == "no-reply@shop.test"
    assert service._sender("https://shop.example/x") == "no-reply@shop.example"


@in_loop
async def test_old_mails_are_forgotten_some_at_a_time(world, monkeypatch):
    monkeypatch.setattr(posting, "FORGET_EVERY", 2)
    monkeypatch.setattr(posting, "KEEP_S", 0.0)
    async with world.queue, running(world):
        for n in range(3):
            await world.queue.publish(events.ORDER_PAID, ORDER, id=str(n))
            await world.mailed(n + 1)
        assert [one["id"] for one in await world.listed()] == ["2", "1"]
