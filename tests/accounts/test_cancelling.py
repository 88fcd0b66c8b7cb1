"""A caller may go away at any await: nothing stays taken, and nothing is half done."""

from __future__ import annotations

import asyncio
import threading

import pytest
import sqlalchemy as sa

from headgate.security.accounts import AccountsError
from headgate.security.accounts.engine import close_engine, open_engine
from tests.accounts.desk import EMAIL, OTHER, PASSWORD

pytestmark = pytest.mark.integration


async def cancelled_after(work, turns):
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except (asyncio.CancelledError, AccountsError):
        pass


async def at_rest(desk):
    async with asyncio.timeout(10):
        while desk.accounts._hasher.snapshot().taken or desk.accounts.engine.pool.checkedout():
            await asyncio.sleep(0.002)


CALLS = {
    "login": lambda desk, user_id, tokens: desk.login(device=tokens.device),
    "wrong": lambda desk, user_id, tokens: desk.login(password=OTHER, device=tokens.device),
    "refresh": lambda desk, user_id, tokens: desk.accounts.refresh(tokens.refresh_token),
    "register": lambda desk, user_id, tokens: desk.accounts.register("eve@shop.example", OTHER),
    "logout": lambda desk, user_id, tokens: desk.accounts.logout(tokens.refresh_token),
    "change": lambda desk, user_id, tokens: desk.accounts.change_password(user_id, PASSWORD, OTHER),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_may_be_cancelled_anywhere(open_desk, name):
    async def main():
        async with open_desk() as desk:
            user_id = await desk.member()
            for turns in [*range(1, 26), 30, 40, 60, 100, 200]:
                desk.now += 7 * 86400
                try:
                    tokens = await desk.login()
                    password = PASSWORD
                except AccountsError:  # a change of the password got through
                    tokens = await desk.login(password=OTHER)
                    password = OTHER
                await cancelled_after(CALLS[name](desk, user_id, tokens), turns)
                await at_rest(desk)
                if name == "change":
                    sessions = await desk.accounts.sessions(user_id)
                    is_changed = True
                    try:
                        await desk.login(password=password)
                        is_changed = False
                    except AccountsError:
                        await desk.login(password=OTHER)
                    # the password and the end of the sessions come together or not at all
                    assert is_changed != bool(sessions)
                    if is_changed:
                        await desk.accounts.change_password(user_id, OTHER, PASSWORD)
            await desk.accounts.settled()
            await at_rest(desk)

    asyncio.run(main())


def test_a_refresh_that_was_cancelled_can_be_tried_again(open_desk):
    async def main():
        async with open_desk() as desk:
            await desk.member()
            tokens = await desk.login()
            for turns in range(1, 40):
                await cancelled_after(desk.accounts.refresh(tokens.refresh_token), turns)
                await at_rest(desk)
                tokens = await desk.accounts.refresh(tokens.refresh_token)
                desk.now += 1000

    asyncio.run(main())


def test_closing_sends_what_is_under_way(open_desk):
    async def main():
        async with open_desk() as desk:
            await desk.member()
            await desk.accounts.request_reset(EMAIL)
        assert [kind for kind, _, _ in desk.mails] == ["reset_password"]

    asyncio.run(main())


def test_mail_that_fails_or_hangs_is_told_and_holds_nothing_up(open_desk):
    async def send(kind, user, token):
        if user.email == EMAIL:
            raise OSError("550 no such mailbox: " + token)
        await asyncio.sleep(3600)

    async def main():
        async with open_desk(send=send, rules={"send_timeout_s": 2.0}) as desk:
            await desk.member()
            await desk.member("bob@shop.example")
            await desk.accounts.request_reset(EMAIL)
            await desk.accounts.request_reset("bob@shop.example")
            await desk.accounts.settled()
            failed = [event.detail for event in desk.events if event.kind == "mail_failed"]
            assert sorted(detail["reason"] for detail in failed) == ["OSError", "TimeoutError"]

    asyncio.run(main())


def test_a_listener_that_fails_stops_nothing(open_desk, caplog):
    async def main():
        async with open_desk() as desk:

            def listen(event):
                raise ValueError("full")

            desk.accounts.listen(listen)
            await desk.member()
            await desk.login()

    asyncio.run(main())
    assert "on_event of accounts failed" in caplog.text


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_who_is_cancelled_twice_within_a_statement_ends(tmp_path, turns):
    async def main():
        engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
        is_under_way = asyncio.Event()
        go = threading.Event()

        def held():
            loop.call_soon_threadsafe(is_under_way.set)
            go.wait(20)

        async def ask():
            async with engine.connect() as db:
                raw = await db.get_raw_connection()
                driver = raw.driver_connection
                assert driver is not None
                await driver.create_function("held", 0, held)
                await db.execute(sa.text("SELECT held()"))

        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(ask())
        async with asyncio.timeout(20):
            await is_under_way.wait()
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        go.set()
        done, _ = await asyncio.wait({task}, timeout=20)
        assert done == {task}
        await close_engine(engine)

    asyncio.run(main())
