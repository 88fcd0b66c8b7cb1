"""Twenty at once: what may happen once happens once."""

from __future__ import annotations

import asyncio

import pytest

from headgate.security.accounts import (
    InvalidCredentials,
    InvalidToken,
    MfaInvalid,
    TokenReused,
    Tokens,
    TooManyAttempts,
    UserNotFound,
)
from tests.accounts.desk import EMAIL, OTHER, PASSWORD, outcomes

MANY = 20


def run(work, open_desk, **options):
    async def main():
        async with open_desk(**options) as desk:
            await work(desk)

    asyncio.run(main())


def test_one_of_many_follows_a_link(open_desk):
    async def work(desk):
        await desk.accounts.register(EMAIL, PASSWORD)
        token = await desk.last_token("confirm_registration")
        good, bad = await outcomes(*(desk.accounts.verify_email(token) for _ in range(MANY)))
        assert len(good) == 1
        assert {type(one) for one in bad} == {InvalidToken}

    run(work, open_desk)


def test_one_of_many_proves_an_address(open_desk):
    async def work(desk):
        user = await desk.accounts.create_user(EMAIL, PASSWORD, is_verified=False)
        await desk.accounts.request_verification(user.id)
        token = await desk.last_token("verify_email")
        good, bad = await outcomes(*(desk.accounts.verify_email(token) for _ in range(MANY)))
        assert len(good) == 1
        assert {type(one) for one in bad} == {InvalidToken}

    run(work, open_desk)


def test_one_of_two_registrations_becomes_the_user(open_desk):
    async def work(desk):
        tokens = []
        for _ in range(3):
            await desk.accounts.register(EMAIL, PASSWORD)
            tokens.append(await desk.last_token("confirm_registration"))
        good, bad = await outcomes(*(desk.accounts.verify_email(token) for token in tokens))
        assert len(good) == 1
        assert {type(one) for one in bad} == {InvalidToken}
        assert len((await desk.accounts.users()).users) == 1

    run(work, open_desk)


def test_one_of_many_resets_a_password(open_desk):
    async def work(desk):
        await desk.member()
        await desk.accounts.request_reset(EMAIL)
        token = await desk.last_token("reset_password")
        words = [f"a new password, number {number}" for number in range(MANY)]
        good, bad = await outcomes(*(desk.accounts.reset_password(token, word) for word in words))
        assert len(good) == 1
        assert {type(one) for one in bad} == {InvalidToken}
        assert desk.kinds.count("password_reset") == 1

    run(work, open_desk)


def test_one_of_many_changes_a_password(open_desk):
    async def work(desk):
        user_id = await desk.member()
        words = [f"a new password, number {number}" for number in range(5)]
        good, bad = await outcomes(
            *(desk.accounts.change_password(user_id, PASSWORD, word) for word in words)
        )
        assert len(good) == 1
        assert {type(one) for one in bad} == {InvalidCredentials}

    run(work, open_desk)


def test_many_refreshes_of_one_token_get_one_successor(open_desk):
    async def work(desk):
        await desk.member()
        first = await desk.login()
        good, bad = await outcomes(
            *(desk.accounts.refresh(first.refresh_token) for _ in range(MANY))
        )
        assert bad == []
        assert len({tokens.refresh_token for tokens in good}) == 1
        assert desk.kinds.count("token_refreshed") == 1
        await desk.accounts.refresh(good[0].refresh_token)

    run(work, open_desk)


def test_many_refreshes_in_two_processes_get_one_successor(open_desk):
    async def work(desk):
        await desk.member()
        first = await desk.login()
        async with open_desk() as other:
            calls = [
                one.accounts.refresh(first.refresh_token)
                for _ in range(MANY // 2)
                for one in (desk, other)
            ]
            good, bad = await outcomes(*calls)
            assert bad == []
            assert len({tokens.refresh_token for tokens in good}) == 1

    run(work, open_desk)


def test_a_reused_token_ends_its_session_once(open_desk):
    async def work(desk):
        await desk.member()
        first = await desk.login()
        await desk.accounts.refresh(first.refresh_token)
        desk.now += 60
        good, bad = await outcomes(
            *(desk.accounts.refresh(first.refresh_token) for _ in range(MANY))
        )
        assert good == []
        assert {type(one) for one in bad} <= {TokenReused, InvalidToken}
        assert desk.kinds.count("token_reused") == 1

    run(work, open_desk)


def test_one_of_many_uses_a_code_of_the_app(open_desk):
    async def work(desk):
        secret, _ = await desk.with_app(await desk.member())
        mine = await desk.login(totp=desk.code(secret))
        desk.now += 60
        code = desk.code(secret)
        good, bad = await outcomes(*(desk.login(totp=code, device=mine.device) for _ in range(5)))
        assert len(good) == 1
        assert {type(one) for one in bad} == {MfaInvalid}

    run(work, open_desk)


def test_one_of_many_uses_a_recovery_code(open_desk):
    async def work(desk):
        _secret, codes = await desk.with_app(await desk.member())
        good, bad = await outcomes(*(desk.login(totp=codes[0]) for _ in range(5)))
        assert len(good) == 1
        assert {type(one) for one in bad} == {MfaInvalid}

    run(work, open_desk)


def test_guesses_at_once_are_counted_one_by_one(open_desk):
    async def work(desk):
        await desk.member()
        good, bad = await outcomes(*(desk.login(password=OTHER) for _ in range(MANY)))
        assert good == []
        tried = [one for one in bad if isinstance(one, InvalidCredentials)]
        slowed = [one for one in bad if isinstance(one, TooManyAttempts)]
        assert len(tried) == desk.accounts.rules.throttle.pair.free + 1
        assert len(tried) + len(slowed) == MANY

    run(work, open_desk)


def test_many_logins_of_a_known_device_all_pass(open_desk):
    async def work(desk):
        await desk.member()
        mine = await desk.login()
        good, bad = await outcomes(*(desk.login(device=mine.device) for _ in range(5)))
        assert bad == []
        assert len({tokens.session_id for tokens in good}) == 5
        assert all(isinstance(one, Tokens) for one in good)

    run(work, open_desk)


@pytest.mark.parametrize("is_compromised", [False, True], ids=["usual", "compromised"])
def test_processes_that_start_and_rotate_at_once_agree_on_the_keys(open_desk, is_compromised):
    async def work(desk):
        others = [open_desk() for _ in range(4)]
        await asyncio.gather(*(one.accounts.start() for one in others))
        await outcomes(*(one.accounts.rotate_keys(is_compromised=is_compromised) for one in others))
        desks = [desk, *others]
        for one in desks:
            await one.accounts.tend()
        sets = {tuple(key["kid"] for key in one.accounts.jwks()["keys"]) for one in desks}
        assert len(sets) == 1
        await desk.member()
        token = (await desk.login()).access_token
        for one in desks:
            one.accounts.verify(token)
        for one in others:
            await one.accounts.close()

    run(work, open_desk)


def test_a_password_that_changes_during_a_login_wins(open_desk):
    async def work(desk):
        user_id = await desk.member()
        verify = desk.accounts._hasher.verify
        is_first = True

        async def slow(stored, password):
            nonlocal is_first
            verdict = await verify(stored, password)
            if is_first:
                is_first = False
                await desk.accounts.change_password(user_id, PASSWORD, OTHER)
            return verdict

        desk.accounts._hasher.verify = slow
        with pytest.raises(InvalidCredentials):
            await desk.login()
        assert await desk.accounts.sessions(user_id) == []

    run(work, open_desk)


def test_rights_given_and_users_erased_at_once_leave_no_trace(open_desk):
    async def work(desk):
        accounts = desk.accounts
        for _ in range(4):
            user_id = await desk.member()
            calls = [accounts.grant_role(user_id, f"role{number}") for number in range(6)]
            calls.insert(3, accounts.erase_user(user_id))
            calls += [accounts.revoke_role(user_id, "role0"), accounts.disable_user(user_id)]
            _, bad = await outcomes(*calls)
            assert {type(one) for one in bad} <= {UserNotFound}
            async with accounts.engine.connect() as db:
                assert (await db.execute(accounts.tables.grants.select())).all() == []

    run(work, open_desk)
