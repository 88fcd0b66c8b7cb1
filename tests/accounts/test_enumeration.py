"""Whether an account exists shows neither in the answer nor in the work before it.

Times are noisy; what takes the time is counted: hashes, and statements with their texts.
"""

from __future__ import annotations

import asyncio

import pytest

from headgate.security.accounts import AccountsError
from tests.accounts.desk import AWAY, EMAIL, OTHER, PASSWORD

NOBODY = "eve@shop.example"


async def seen(desk, call):
    """What is answered, and the work until then. What comes after the answer waits."""
    await desk.accounts.settled()
    hashed = desk.hashed
    desk.statements.clear()
    try:
        answer = repr(await call)
    except AccountsError as error:
        answer = repr((type(error), str(error)))
    return answer, desk.hashed - hashed, list(desk.statements)


async def hold(desk):
    """Nothing leaves the outbox until the event is set."""
    go = asyncio.Event()
    for _ in range(4):
        desk.accounts._outbox.put(go.wait)
        await asyncio.sleep(0)
    return go


def run(work, open_desk, **options):
    async def main():
        async with open_desk(**options) as desk:
            await work(desk)

    asyncio.run(main())


def test_a_login_of_nobody_costs_what_a_wrong_password_costs(open_desk):
    async def work(desk):
        await desk.member()
        unknown = await seen(desk, desk.login(NOBODY, OTHER, ip=AWAY))
        known = await seen(desk, desk.login(EMAIL, OTHER, ip="203.0.113.10"))
        assert known == unknown
        assert known[1] == 1
        assert "not right" in known[0]

    run(work, open_desk)


@pytest.mark.parametrize("wrong", ["", "x" * 10_000, "\ud800"], ids=["empty", "long", "no text"])
def test_also_with_what_is_no_password(open_desk, wrong):
    async def work(desk):
        await desk.member()
        unknown = await seen(desk, desk.login(NOBODY, wrong, ip=AWAY))
        known = await seen(desk, desk.login(EMAIL, wrong, ip="203.0.113.10"))
        assert known == unknown
        assert known[1] == 1

    run(work, open_desk)


def test_also_when_it_is_slowed_down(open_desk):
    async def work(desk):
        await desk.member()
        for email, ip in ((NOBODY, AWAY), (EMAIL, "203.0.113.10")):
            for _ in range(7):
                await seen(desk, desk.login(email, OTHER, ip=ip))
        unknown = await seen(desk, desk.login(NOBODY, OTHER, ip=AWAY))
        known = await seen(desk, desk.login(EMAIL, OTHER, ip="203.0.113.10"))
        assert known == unknown
        assert known[1] == 0

    run(work, open_desk)


@pytest.mark.parametrize("state", ["closed", "second factor"])
def test_also_for_an_account_that_is_special(open_desk, state):
    async def work(desk):
        user_id = await desk.member()
        if state == "closed":
            await desk.accounts.disable_user(user_id)
        else:
            await desk.with_app(user_id)
        unknown = await seen(desk, desk.login(NOBODY, OTHER, ip=AWAY, totp="000000"))
        known = await seen(desk, desk.login(EMAIL, OTHER, ip="203.0.113.10", totp="000000"))
        assert known == unknown

    run(work, open_desk)


def test_a_registration_of_a_taken_address_costs_what_another_costs(open_desk):
    async def work(desk):
        await desk.member()
        await desk.accounts.settled()
        go = await hold(desk)

        async def held(call):
            hashed = desk.hashed
            desk.statements.clear()
            return await call, desk.hashed - hashed, list(desk.statements)

        free = await held(desk.accounts.register(NOBODY, OTHER, ip=AWAY))
        taken = await held(desk.accounts.register(EMAIL, OTHER, ip="203.0.113.10"))
        assert taken == free
        assert taken[:2] == (None, 1)
        desk.statements.clear()
        go.set()
        await desk.accounts.settled()
        assert sorted(kind for kind, _, _ in desk.mails) == [
            "already_registered",
            "confirm_registration",
        ]

    run(work, open_desk)


def test_a_reset_does_its_work_after_the_answer(open_desk):
    async def work(desk):
        await desk.member()
        go = await hold(desk)
        found = []
        for email, ip in ((NOBODY, AWAY), (EMAIL, "203.0.113.10"), ("no address", "203.0.113.11")):
            desk.statements.clear()
            answer = await desk.accounts.request_reset(email, ip=ip)
            found.append((answer, list(desk.statements)))
        assert found[0] == found[1] == found[2]
        go.set()
        await desk.accounts.settled()
        assert [kind for kind, _, _ in desk.mails] == ["reset_password"]

    run(work, open_desk)


def test_a_full_outbox_is_told_to_everybody_alike(open_desk):
    async def work(desk):
        await desk.member()
        go = await hold(desk)
        await desk.accounts.request_reset(EMAIL, ip=AWAY)
        answers = []
        for number, email in enumerate((EMAIL, NOBODY)):
            ip = f"203.0.113.{20 + number}"
            for call in (
                desk.accounts.request_reset(email, ip=ip),
                desk.accounts.register(email, PASSWORD, ip=ip),
            ):
                with pytest.raises(AccountsError) as caught:
                    await call
                answers.append(str(caught.value))
        assert len(set(answers)) == 1
        go.set()

    run(work, open_desk, rules={"outbox_max": 1})
