"""What a user does, from registration to erasure, on both databases."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from headgate.security.accounts import (
    AccountDisabled,
    EmailInvalid,
    EmailTaken,
    HashRules,
    InvalidCredentials,
    InvalidToken,
    MfaInvalid,
    MfaRequired,
    PasswordTooWeak,
    TokenReused,
    TooManyAttempts,
    UserNotFound,
)
from tests.accounts.desk import AWAY, EMAIL, HOME, ISSUER, OTHER, PASSWORD, SECRET


def run(work, open_desk, **options):
    async def main():
        async with open_desk(**options) as desk:
            await work(desk)

    asyncio.run(main())


def test_a_registration_becomes_a_user_by_its_link_once(open_desk):
    async def work(desk):
        accounts = desk.accounts
        assert await accounts.register("Ada@Shop.example", PASSWORD, ip=HOME) is None
        token = await desk.last_token("confirm_registration")
        with pytest.raises(InvalidCredentials):
            await desk.login()
        user = await accounts.verify_email(token)
        assert (user.email, user.email_verified_at) == ("Ada@shop.example", desk.now)
        with pytest.raises(InvalidToken):
            await accounts.verify_email(token)
        tokens = await desk.login()
        identity = accounts.verify(tokens.access_token)
        assert (identity.subject, identity.method) == (user.id, "accounts")
        assert identity.claims["iss"] == identity.claims["aud"] == ISSUER
        assert identity.expires == desk.now + 600
        assert desk.kinds == [
            "keys_rotated",
            "registration_asked",
            "login_failed",
            "registered",
            "email_verified",
            "logged_in",
        ]

    run(work, open_desk)


def test_a_taken_address_is_answered_by_mail_only(open_desk):
    async def work(desk):
        await desk.member()
        assert await desk.accounts.register(EMAIL, OTHER, ip=AWAY) is None
        token = await desk.last_token("already_registered")
        with pytest.raises(InvalidToken):
            await desk.accounts.verify_email(token)
        await desk.login()  # the password is as it was
        await desk.accounts.reset_password(token, "a forgotten one, replaced")
        await desk.login(password="a forgotten one, replaced")

    run(work, open_desk)


def test_nobody_sets_the_password_of_another_registration(open_desk):
    async def work(desk):
        accounts = desk.accounts
        await accounts.register(EMAIL, "what a stranger has chosen", ip=AWAY)
        strangers = await desk.last_token("confirm_registration")
        await accounts.register(EMAIL, PASSWORD, ip=HOME)
        mine = await desk.last_token("confirm_registration")
        await accounts.verify_email(mine)
        await desk.login()
        with pytest.raises(InvalidToken):
            await accounts.verify_email(strangers)
        with pytest.raises(InvalidCredentials):
            await desk.login(password="what a stranger has chosen")

    run(work, open_desk)


def test_a_link_is_over_in_time(open_desk):
    async def work(desk):
        await desk.accounts.register(EMAIL, PASSWORD)
        token = await desk.last_token("confirm_registration")
        desk.now += desk.accounts.rules.verify_life_s
        with pytest.raises(InvalidToken):
            await desk.accounts.verify_email(token)

    run(work, open_desk)


def test_without_verification_a_user_exists_at_once(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user = await accounts.register(EMAIL, PASSWORD)
        assert user is not None
        with pytest.raises(EmailTaken):
            await accounts.register(EMAIL.upper(), OTHER)
        await accounts.request_verification(user.id)
        await accounts.verify_email(await desk.last_token("verify_email"))
        assert (await accounts.user(user.id)).email_verified_at == desk.now

    run(work, open_desk, rules={"verify_email": False})


def test_what_cannot_be_registered(open_desk):
    async def work(desk):
        with pytest.raises(EmailInvalid):
            await desk.accounts.register("ada@", PASSWORD)
        with pytest.raises(PasswordTooWeak) as caught:
            await desk.accounts.register(EMAIL, "ada@shop.example")
        assert caught.value.reasons == ("about_you",)
        await desk.accounts.settled()
        assert desk.mails == []

    run(work, open_desk)


def test_passwords_are_one_in_every_spelling(open_desk):
    async def work(desk):
        await desk.member(password="un e\u0301te\u0301 au soleil")
        await desk.login(password="un \u00e9t\u00e9 au soleil")
        for wrong in ("", "\ud800" * 12, "x" * 100_000, "\x00" * 12):
            with pytest.raises(InvalidCredentials):
                await desk.login(password=wrong, ip=AWAY)

    run(work, open_desk)


# ---- tokens


def test_a_refresh_token_is_used_once_and_its_successor_given_again_for_a_moment(open_desk):
    async def work(desk):
        accounts = desk.accounts
        await desk.member()
        first = await desk.login()
        second = await accounts.refresh(first.refresh_token)
        assert second.refresh_token != first.refresh_token
        assert second.session_id == first.session_id
        desk.now += accounts.rules.refresh_grace_s
        again = await accounts.refresh(first.refresh_token)
        assert again.refresh_token == second.refresh_token
        accounts.verify(again.access_token)
        desk.now += 0.5
        with pytest.raises(TokenReused):
            await accounts.refresh(first.refresh_token)
        for token in (first, second):
            with pytest.raises(InvalidToken):
                await accounts.refresh(token.refresh_token)
            with pytest.raises(InvalidToken):
                accounts.verify(token.access_token)
        (reused,) = [event for event in desk.events if event.kind == "token_reused"]
        assert reused.session_id == first.session_id
        await desk.login()

    run(work, open_desk)


def test_a_thief_that_refreshes_first_is_put_out_when_the_owner_comes(open_desk):
    async def work(desk):
        await desk.member()
        stolen = (await desk.login()).refresh_token
        thief = await desk.accounts.refresh(stolen)
        desk.now += 86400
        thief = await desk.accounts.refresh(thief.refresh_token)
        with pytest.raises(TokenReused):
            await desk.accounts.refresh(stolen)
        with pytest.raises(InvalidToken):
            await desk.accounts.refresh(thief.refresh_token)

    run(work, open_desk)


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(open_desk):
    async def work(desk):
        rules = desk.accounts.rules
        await desk.member()
        idle = await desk.login()
        busy = await desk.login()
        start = desk.now
        while desk.now + rules.refresh_life_s / 2 < start + rules.session_life_s:
            desk.now += rules.refresh_life_s / 2
            busy = await desk.accounts.refresh(busy.refresh_token)
        with pytest.raises(InvalidToken):
            await desk.accounts.refresh(idle.refresh_token)
        desk.now = start + rules.session_life_s
        with pytest.raises(InvalidToken):
            await desk.accounts.refresh(busy.refresh_token)

    run(work, open_desk)


def test_what_is_no_refresh_token_is_refused_without_asking_the_store(open_desk):
    async def work(desk):
        await desk.member()
        good = (await desk.login()).refresh_token
        desk.statements.clear()
        forged = good[:-20] + "A" * 20
        for token in (
            "",
            "x",
            "hgr_" + "A" * 112,
            forged,
            good.upper(),
            "\ud800",
            "x" * 10_000_000,
        ):
            with pytest.raises(InvalidToken):
                await desk.accounts.refresh(token)
            await desk.accounts.logout(token)
        assert desk.statements == []
        await desk.accounts.refresh(good)

    run(work, open_desk)


def test_access_tokens_end_in_time_and_are_for_us(open_desk):
    async def work(desk):
        await desk.member()
        token = (await desk.login()).access_token
        desk.accounts.verify(token)  # and kept
        desk.now += 599
        desk.accounts.verify(token)
        desk.now += 1
        with pytest.raises(InvalidToken, match="expired"):
            desk.accounts.verify(token)
        desk.now -= 700
        with pytest.raises(InvalidToken, match="not valid yet"):
            desk.accounts.verify(token)
        async with open_desk(audience="https://other.example") as other:
            with pytest.raises(InvalidToken, match="for somebody else"):
                other.accounts.verify(token)

    run(work, open_desk)


def test_logging_out_ends_one_session_or_all(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        one, two, three = [await desk.login() for _ in range(3)]
        assert {session.id for session in await accounts.sessions(user_id)} == {
            one.session_id, two.session_id, three.session_id,
        }  # fmt: skip
        await accounts.logout(one.refresh_token)
        with pytest.raises(InvalidToken):
            accounts.verify(one.access_token)
        accounts.verify(two.access_token)
        assert not await accounts.end_session(two.session_id, user_id="somebody else")
        assert await accounts.end_session(two.session_id, user_id=user_id)
        assert await accounts.logout_all(user_id) == 1
        assert await accounts.sessions(user_id) == []
        for tokens in (one, two, three):
            with pytest.raises(InvalidToken):
                accounts.verify(tokens.access_token)
            with pytest.raises(InvalidToken):
                await accounts.refresh(tokens.refresh_token)

    run(work, open_desk)


def test_sessions_have_a_bound_and_the_least_used_one_ends(open_desk):
    async def work(desk):
        user_id = await desk.member()
        tokens = []
        for _ in range(4):
            desk.now += 1
            tokens.append(await desk.login())
        open_ = [session.id for session in await desk.accounts.sessions(user_id)]
        assert open_ == [one.session_id for one in tokens[:0:-1]]

    run(work, open_desk, rules={"sessions_max": 3})


def test_another_process_hears_of_ended_sessions_and_rights(open_desk):
    async def work(desk):
        here = desk.accounts
        user_id = await desk.member()
        await here.grant_role(user_id, "clerk")
        first = await desk.login()
        async with open_desk() as other_desk:
            there = other_desk.accounts
            assert there.verify(first.access_token).roles == {"clerk"}
            await here.logout(first.refresh_token)
            there.verify(first.access_token)
            with pytest.raises(InvalidToken):
                await there.verify_now(first.access_token)
            await there.tend()
            with pytest.raises(InvalidToken):
                there.verify(first.access_token)

            second = await desk.login()
            await here.revoke_role(user_id, "clerk")
            for accounts in (here, there):
                await accounts.tend()
                with pytest.raises(InvalidToken, match="rights"):
                    accounts.verify(second.access_token)
            third = await there.refresh(second.refresh_token)
            assert here.verify(third.access_token).roles == set()

            await here.erase_user(user_id)
            await there.tend()
            with pytest.raises(InvalidToken):
                there.verify(third.access_token)

    run(work, open_desk)


def test_what_is_remembered_of_ended_sessions_has_a_bound(open_desk):
    async def work(desk):
        await desk.member()
        kept = await desk.login()
        desk.now += 5
        for _ in range(12):
            await desk.accounts.logout((await desk.login()).refresh_token)
        with pytest.raises(InvalidToken):
            desk.accounts.verify(kept.access_token)  # the safe side: refresh
        desk.now += 1
        fresh = await desk.accounts.refresh(kept.refresh_token)
        desk.accounts.verify(fresh.access_token)

    run(work, open_desk, rules={"ended_max": 10})


# ---- keys


def test_keys_are_published_before_they_sign_and_kept_until_their_tokens_are_over(open_desk):
    async def work(desk):
        accounts, rules = desk.accounts, desk.accounts.rules
        await desk.member()

        def published():
            return [key["kid"] for key in accounts.jwks()["keys"]]

        (first,) = published()
        desk.now += rules.key_life_s - rules.key_ahead_s
        await accounts.tend()
        assert published()[0] == first
        second = published()[1]
        old = await desk.login()
        desk.now += rules.key_ahead_s
        new = await desk.login()
        await accounts.tend()
        assert published() == [first, second]
        desk.now -= rules.key_ahead_s
        accounts.verify(old.access_token)
        desk.now += rules.key_ahead_s
        accounts.verify(new.access_token)
        desk.now += rules.access_life_s + 3 * rules.leeway_s
        await accounts.tend()
        assert published() == [second]

    run(work, open_desk)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_tokens_are_signed_as_told_and_a_change_takes_the_usual_way(open_desk, algorithm):
    async def work(desk):
        await desk.member()
        token = (await desk.login()).access_token
        (key,) = desk.accounts.jwks()["keys"]
        assert key["alg"] == algorithm
        async with open_desk(algorithm="ES256") as other:
            other.accounts.verify(token)
            await other.accounts.rotate_keys()
            await other.accounts.rotate_keys()
            assert [key["alg"] for key in other.accounts.jwks()["keys"]] == [algorithm, "ES256"]

    run(work, open_desk, algorithm=algorithm)


def test_a_compromised_key_is_gone_at_once_and_sessions_go_on(open_desk):
    async def work(desk):
        await desk.member()
        tokens = await desk.login()
        desk.accounts.verify(tokens.access_token)
        await desk.accounts.rotate_keys(is_compromised=True)
        with pytest.raises(InvalidToken):
            desk.accounts.verify(tokens.access_token)
        fresh = await desk.accounts.refresh(tokens.refresh_token)
        desk.accounts.verify(fresh.access_token)
        async with open_desk() as other:
            other.accounts.verify(fresh.access_token)

    run(work, open_desk)


def test_a_secret_is_exchanged_while_everything_goes_on(open_desk):
    async def work(desk):
        user_id = await desk.member()
        secret, codes = await desk.with_app(user_id)
        tokens = await desk.login(totp=desk.code(secret))
        async with open_desk(secret=["n" * 32, SECRET]) as other:
            other.now = desk.now + 30
            fresh = await other.accounts.refresh(tokens.refresh_token)
            other.accounts.verify(fresh.access_token)
            await other.login(totp=other.code(secret))
            await other.login(totp=codes[0])

    run(work, open_desk)


def test_after_sealing_again_the_old_secret_is_needed_by_nothing_stored(open_desk):
    async def work(desk):
        secret, _ = await desk.with_app(await desk.member())
        async with open_desk(secret=["n" * 32, SECRET]) as other:
            assert await other.accounts.reseal() == 2
            assert await other.accounts.reseal() == 0
        async with open_desk(secret="n" * 32) as other:
            other.now = desk.now
            tokens = await other.login(totp=other.code(secret))
            other.accounts.verify(tokens.access_token)
        other = open_desk(secret="m" * 32)
        with pytest.raises(ValueError, match="another secret"):
            await other.accounts.start()
        await other.accounts.close()

    run(work, open_desk)


HOSTILE = ["", "\x00", "\ud800", "x" * 100_000, "a\x00@shop.example", "' OR 1=1 --", "%", "\u202e"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_gets_through_to_where_it_does_harm(open_desk, text):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        with pytest.raises(InvalidCredentials):
            await accounts.login(text, PASSWORD, ip=text, device=text, agent=text, totp=text)
        with pytest.raises(InvalidCredentials):
            await accounts.login(EMAIL, text, ip=text, device=text, agent=text, totp=text)
        await accounts.login(EMAIL, PASSWORD, ip=text, device=text, agent=text, totp=text)
        assert await accounts.user_by_email(text) is None
        assert len((await accounts.users(search=text, role="x", after=text)).users) == 0
        for call in (
            accounts.user,
            accounts.erase_user,
            accounts.export_user,
            accounts.disable_user,
        ):
            with pytest.raises(UserNotFound):
                await call(text)
        with pytest.raises(UserNotFound):
            await accounts.change_password(text, PASSWORD, OTHER)
        assert not await accounts.end_session(text)
        assert await accounts.logout_all(text) == 0
        assert await accounts.sessions(text) == []
        for call in (accounts.verify_email, accounts.confirm_email_change, accounts.refresh):
            with pytest.raises(InvalidToken):
                await call(text)
        with pytest.raises(EmailInvalid):
            await accounts.register(text, PASSWORD)
        with pytest.raises(InvalidToken):
            accounts.verify(text)
        await accounts.request_reset(text, ip=text)
        await accounts.unlock(text, ip=text)
        await desk.with_app(user_id)
        with pytest.raises(MfaInvalid):
            await desk.login(totp=text)
        await accounts.settled()

    run(work, open_desk)


# ---- passwords


def test_a_password_is_changed_by_who_knows_it_and_other_sessions_end(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        here, there = await desk.login(), await desk.login()
        with pytest.raises(InvalidCredentials):
            await accounts.change_password(user_id, OTHER, "yet another one here")
        with pytest.raises(PasswordTooWeak) as caught:
            await accounts.change_password(user_id, PASSWORD, PASSWORD)
        assert caught.value.reasons == ("unchanged",)
        await accounts.change_password(user_id, PASSWORD, OTHER, keep_session=here.session_id)
        accounts.verify(here.access_token)
        with pytest.raises(InvalidToken):
            accounts.verify(there.access_token)
        with pytest.raises(InvalidCredentials):
            await desk.login()
        await desk.login(password=OTHER)
        await accounts.settled()
        assert [kind for kind, _, _ in desk.mails] == ["password_changed"]

    run(work, open_desk)


def test_the_current_password_cannot_be_guessed_with_a_stolen_token(open_desk):
    async def work(desk):
        user_id = await desk.member()
        with pytest.raises(TooManyAttempts):
            for _ in range(20):
                with pytest.raises(InvalidCredentials):
                    await desk.accounts.change_password(user_id, "a guess at it", OTHER, ip=AWAY)
        await desk.accounts.change_password(user_id, PASSWORD, OTHER, ip=HOME)

    run(work, open_desk)


def test_a_reset_link_dies_with_its_use_its_time_and_any_other_change(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        await accounts.request_reset(EMAIL.upper(), ip=AWAY)
        first = await desk.last_token("reset_password")
        await accounts.request_reset(EMAIL, ip=AWAY)
        second = await desk.last_token("reset_password")
        session = await desk.login()
        with pytest.raises(PasswordTooWeak):
            await accounts.reset_password(first, "short")
        await accounts.reset_password(first, OTHER)
        for token in (first, second):
            with pytest.raises(InvalidToken):
                await accounts.reset_password(token, "something else entirely")
        with pytest.raises(InvalidToken):
            accounts.verify(session.access_token)
        desk.now += 3600
        await accounts.request_reset(EMAIL, ip=AWAY)
        third = await desk.last_token("reset_password")
        desk.now += 1800
        with pytest.raises(InvalidToken):
            await accounts.reset_password(third, PASSWORD)
        await accounts.request_reset(EMAIL, ip=AWAY)
        fourth = await desk.last_token("reset_password")
        await accounts.change_password(user_id, OTHER, PASSWORD)
        with pytest.raises(InvalidToken):
            await accounts.reset_password(fourth, "something else entirely")

    run(work, open_desk)


def test_a_link_dies_with_the_hash_it_was_made_under_however_that_changed(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        await accounts.request_reset(EMAIL)
        reset = await desk.last_token("reset_password")
        await accounts.request_email_change(user_id, "new@shop.example", PASSWORD)
        await accounts.settled()
        change = next(token for kind, _, token in desk.mails if kind == "confirm_email_change")
        async with open_desk(rules={"hash": HashRules(memory_kib=128, passes=2)}) as other:
            await other.login()  # hashes again
        with pytest.raises(InvalidToken, match="changed meanwhile"):
            await accounts.reset_password(reset, OTHER)
        with pytest.raises(InvalidToken, match="changed meanwhile"):
            await accounts.confirm_email_change(change)

    run(work, open_desk)


def test_a_reset_does_not_take_the_second_factor_off(open_desk):
    async def work(desk):
        await desk.with_app(await desk.member())
        await desk.accounts.request_reset(EMAIL)
        await desk.accounts.reset_password(await desk.last_token("reset_password"), OTHER)
        with pytest.raises(MfaRequired):
            await desk.login(password=OTHER)

    run(work, open_desk)


def test_a_token_of_one_kind_is_none_of_another(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        await accounts.request_reset(EMAIL)
        reset = await desk.last_token("reset_password")
        await accounts.request_email_change(user_id, "new@shop.example", PASSWORD)
        await accounts.settled()
        change = next(token for kind, _, token in desk.mails if kind == "confirm_email_change")
        for call in (accounts.verify_email, accounts.confirm_email_change):
            with pytest.raises(InvalidToken):
                await call(reset)
        for call in (accounts.verify_email, lambda token: accounts.reset_password(token, OTHER)):
            with pytest.raises(InvalidToken):
                await call(change)
        for junk in ("", "x", "\ud800", "\x00", "hgt_" + "x" * 100_000):
            with pytest.raises(InvalidToken):
                await accounts.verify_email(junk)

    run(work, open_desk)


def test_mail_to_one_address_has_a_bound(open_desk):
    async def work(desk):
        await desk.member()
        for number in range(10):
            await desk.accounts.request_reset(EMAIL, ip=f"198.51.100.{number}")
        await desk.accounts.settled()
        assert len(desk.mails) == 4
        assert desk.kinds.count("mail_suppressed") == 6

    run(work, open_desk)


def test_hashes_grow_with_the_parameters_at_the_next_login(open_desk):
    async def work(desk):
        await desk.member()
        larger = HashRules(memory_kib=128, passes=2, threads=1)
        async with open_desk(rules={"hash": larger}, peppers={"a": "p" * 16}) as other:
            await other.login()
            assert "password_rehashed" in other.kinds
            await other.login()
            assert other.kinds.count("password_rehashed") == 1
        with pytest.raises(InvalidCredentials):
            await desk.login()  # without the pepper nothing verifies

    run(work, open_desk)


# ---- address


def test_an_address_changes_when_its_link_is_followed(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        with pytest.raises(InvalidCredentials):
            await accounts.request_email_change(user_id, "new@shop.example", OTHER)
        await accounts.request_email_change(user_id, "new@shop.example", PASSWORD)
        await accounts.settled()
        (_, new, token), (kind, old, _) = desk.mails
        assert (new.email, kind, old.email) == ("new@shop.example", "email_change_asked", EMAIL)
        await desk.login()
        user = await accounts.confirm_email_change(token)
        assert user.email == "new@shop.example"
        with pytest.raises(InvalidCredentials):
            await desk.login()
        await desk.login("new@shop.example")
        with pytest.raises(InvalidToken):
            await accounts.confirm_email_change(token)
        await accounts.settled()
        assert (desk.mails[-1][0], desk.mails[-1][1].email) == ("email_changed", EMAIL)

    run(work, open_desk)


def test_an_address_of_somebody_else_is_not_told_and_not_taken(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        await accounts.request_email_change(user_id, "bob@shop.example", PASSWORD)
        await accounts.settled()
        token = desk.mails[0][2]
        await desk.member("bob@shop.example", OTHER)
        with pytest.raises(InvalidToken):
            await accounts.confirm_email_change(token)
        await accounts.request_email_change(user_id, "bob@shop.example", PASSWORD)
        await desk.last_token("already_registered")
        await desk.login()

    run(work, open_desk)


# ---- slowing down


def test_a_device_is_known_to_its_own_account_for_a_time(open_desk):
    async def work(desk):
        known = desk.accounts._known_device
        await desk.member()
        token = (await desk.login()).device
        assert len(known(EMAIL, token, desk.now)) == 32
        again = (await desk.login(device=token)).device
        assert known(EMAIL, again, desk.now) == known(EMAIL, token, desk.now)
        assert known("bob@shop.example", token, desk.now) == ""
        assert known(EMAIL, token, desk.now + desk.accounts.rules.throttle.device_s) == ""
        assert known(EMAIL, token, desk.now - 2 * 86400) == ""
        for junk in (
            None,
            "",
            "hgd_",
            token[:-2],
            token.swapcase(),
            token + "A",
            "é",
            "x" * 10_000,
        ):
            assert known(EMAIL, junk, desk.now) == ""

    run(work, open_desk)


def test_a_stranger_who_never_rests_keeps_nobody_out(open_desk):
    async def work(desk):
        accounts = desk.accounts
        await desk.member()
        mine = await desk.login(ip=HOME)
        for number in range(40):
            for _ in range(3):
                with pytest.raises((InvalidCredentials, TooManyAttempts)):
                    await desk.login(password=OTHER, ip=f"203.0.113.{number}")
        with pytest.raises(TooManyAttempts) as caught:
            await desk.login(ip="192.0.2.1")
        assert caught.value.retry_after_s <= 1
        await desk.login(ip="192.0.2.1", device=mine.device)  # a known device, elsewhere
        await desk.login(ip=HOME)  # a trusted network, another device
        desk.now += 1
        await desk.login(ip="192.0.2.2")  # somewhere new
        await accounts.unlock(EMAIL)
        for _ in range(10):
            with pytest.raises((InvalidCredentials, TooManyAttempts)):
                await desk.login(password=OTHER, ip=HOME)
        with pytest.raises(TooManyAttempts):
            await desk.login(ip=HOME)
        await desk.login(ip=HOME, device=mine.device)  # the stranger sits in the same network
        await accounts.unlock(EMAIL, ip=HOME)
        await desk.login(ip=HOME)

    run(work, open_desk)


# ---- second factor


def test_a_second_factor_counts_once_it_is_confirmed(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        with pytest.raises(InvalidCredentials):
            await accounts.enrol_totp(user_id, OTHER)
        await accounts.enrol_totp(user_id, PASSWORD)
        await desk.login()
        with pytest.raises(MfaInvalid):
            await accounts.confirm_totp(user_id, "000000")
        secret, codes = await desk.with_app(user_id)
        assert len(set(codes)) == 10
        with pytest.raises(MfaInvalid):
            await accounts.enrol_totp(user_id, PASSWORD)
        with pytest.raises(MfaRequired):
            await desk.login()
        with pytest.raises(InvalidCredentials):
            await desk.login(password=OTHER, totp=desk.code(secret))
        code = desk.code(secret)
        tokens = await desk.login(totp=code)
        assert tokens.amr == ("pwd", "otp")
        assert accounts.verify(tokens.access_token).claims["amr"] == ["pwd", "otp"]
        with pytest.raises(MfaInvalid):
            await desk.login(totp=code)
        with pytest.raises(MfaInvalid):
            await desk.login(totp=desk.code(secret, -1))
        await desk.login(totp=desk.code(secret, 1))

    run(work, open_desk)


def test_a_recovery_code_works_once(open_desk):
    async def work(desk):
        user_id = await desk.member()
        secret, codes = await desk.with_app(user_id)
        tokens = await desk.login(totp=codes[3].upper().replace("-", " "))
        assert tokens.amr == ("pwd", "kba")
        assert "recovery_code_used" in desk.kinds
        with pytest.raises(MfaInvalid):
            await desk.login(totp=codes[3])
        fresh = await desk.accounts.new_recovery_codes(user_id, PASSWORD, desk.code(secret))
        with pytest.raises(MfaInvalid):
            await desk.login(totp=codes[4])
        await desk.login(totp=fresh[0])
        await desk.accounts.disable_totp(user_id, PASSWORD, fresh[1])
        await desk.login()

    run(work, open_desk)


def test_codes_are_guessed_slowly_and_a_known_device_is_not_kept_out(open_desk):
    async def work(desk):
        secret, _ = await desk.with_app(await desk.member())
        mine = await desk.login(totp=desk.code(secret))
        desk.now += 30
        with pytest.raises(TooManyAttempts) as caught:
            for number in range(20):
                desk.now += 4
                try:
                    await desk.login(totp=f"{number:06}", ip=f"203.0.113.{number}")
                except MfaInvalid:
                    pass
        assert caught.value.retry_after_s > 3
        await desk.login(totp=desk.code(secret), device=mine.device)

    run(work, open_desk)


def test_a_step_up_is_said_in_the_token_and_stays_with_the_session(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        tokens = await desk.login()
        secret, _codes = await desk.with_app(user_id)
        with pytest.raises(MfaInvalid):
            await accounts.step_up(tokens.access_token, totp="000000")
        with pytest.raises(MfaRequired):
            await accounts.step_up(tokens.access_token, password=PASSWORD)
        desk.now += 400
        before = accounts.verify(tokens.access_token)
        assert not accounts.is_proven(before, max_age_s=300)
        assert not accounts.is_proven(before, mfa=True)
        stepped = await accounts.step_up(tokens.access_token, totp=desk.code(secret))
        after = accounts.verify(stepped.access_token)
        assert accounts.is_proven(after, mfa=True, max_age_s=300)
        assert stepped.refresh_token == ""
        fresh = await accounts.refresh(tokens.refresh_token)
        assert accounts.is_proven(accounts.verify(fresh.access_token), mfa=True)

    run(work, open_desk)


def test_without_an_app_the_password_steps_up(open_desk):
    async def work(desk):
        accounts = desk.accounts
        await desk.member()
        tokens = await desk.login()
        desk.now += 400
        with pytest.raises(InvalidCredentials):
            await accounts.step_up(tokens.access_token, password=OTHER)
        with pytest.raises(MfaInvalid):
            await accounts.step_up(tokens.access_token, totp="000000")
        stepped = await accounts.step_up(tokens.access_token, password=PASSWORD)
        identity = accounts.verify(stepped.access_token)
        assert accounts.is_proven(identity, max_age_s=300)
        assert not accounts.is_proven(identity, mfa=True)

    run(work, open_desk)


# ---- administration


def test_users_are_found_page_by_page(open_desk):
    async def work(desk):
        accounts = desk.accounts
        for number in range(7):
            user_id = await desk.member(f"user_{number}@shop.example")
        await accounts.grant_role(user_id, "admin")
        await accounts.grant_role(user_id, "admin")
        await accounts.grant_scope(user_id, "orders:read")
        seen, after = [], ""
        while True:
            page = await accounts.users(limit=3, after=after)
            seen += [user.email for user in page.users]
            after = page.next
            if not after:
                break
        assert seen == [f"user_{number}@shop.example" for number in range(7)]
        (found,) = (await accounts.users(role="admin")).users
        assert (found.id, found.roles, found.scopes) == (user_id, {"admin"}, {"orders:read"})
        assert [user.email for user in (await accounts.users(search="R_3@")).users] == [
            "user_3@shop.example"
        ]
        assert (await accounts.users(search="%")).users == ()
        assert (await accounts.users(search="' OR 1=1 --")).users == ()
        tokens = await desk.login("user_6@shop.example")
        identity = accounts.verify(tokens.access_token)
        assert (identity.roles, identity.scopes) == ({"admin"}, {"orders:read"})
        for wrong in ("", "two words", "x" * 101, "a\nb"):
            with pytest.raises(ValueError):
                await accounts.grant_role(user_id, wrong)
        with pytest.raises(UserNotFound):
            await accounts.grant_role("nobody", "admin")

    run(work, open_desk)


def test_a_closed_account_is_closed_everywhere_and_says_so_to_its_owner_only(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        tokens = await desk.login()
        await accounts.request_reset(EMAIL)
        token = await desk.last_token("reset_password")
        await accounts.disable_user(user_id, reason="asked to")
        with pytest.raises(InvalidToken):
            accounts.verify(tokens.access_token)
        with pytest.raises(InvalidToken):
            await accounts.refresh(tokens.refresh_token)
        with pytest.raises(AccountDisabled):
            await desk.login()
        with pytest.raises(InvalidCredentials):
            await desk.login(password=OTHER)
        with pytest.raises(InvalidToken):
            await accounts.reset_password(token, OTHER)
        await accounts.enable_user(user_id)
        with pytest.raises(InvalidToken):
            await accounts.refresh(tokens.refresh_token)
        accounts.verify((await desk.login()).access_token)

    run(work, open_desk)


def test_export_tells_everything_but_secrets_and_erasure_leaves_nothing(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        secret, codes = await desk.with_app(user_id)
        tokens = await desk.login(totp=desk.code(secret), agent="a browser\x00\n")
        await accounts.grant_role(user_id, "clerk")
        told = await accounts.export_user(user_id)
        assert (told["email"], told["roles"], told["recovery_codes_left"]) == (EMAIL, ["clerk"], 10)
        assert told["sessions"][-1]["agent"] == "a browser  "
        text = repr(told)
        for hidden in (tokens.refresh_token, codes[0], "argon2", "sealed"):
            assert hidden not in text
        await accounts.erase_user(user_id)
        with pytest.raises(UserNotFound):
            await accounts.user(user_id)
        with pytest.raises(InvalidToken):
            accounts.verify(tokens.access_token)
        with pytest.raises(InvalidCredentials):
            await desk.login()
        async with accounts.engine.connect() as db:
            for table in accounts.metadata.sorted_tables:
                rows = (await db.execute(table.select())).all()
                assert EMAIL not in repr(rows)
                if not table.name.endswith("tickets"):
                    assert user_id not in repr(rows)
        desk.now += 8000
        await accounts.tend()
        async with accounts.engine.connect() as db:
            assert (await db.execute(accounts.tables.tickets.select())).all() == []

    run(work, open_desk)


def test_what_is_over_is_deleted(open_desk):
    async def work(desk):
        accounts = desk.accounts
        await desk.member()
        await desk.login()
        with pytest.raises(InvalidCredentials):
            await desk.login("nobody@shop.example")
        await accounts.register("eve@shop.example", PASSWORD)
        await accounts.settled()
        desk.now += 120 * 86400
        await accounts.tend()
        async with accounts.engine.connect() as db:
            for table in (
                accounts.tables.sessions,
                accounts.tables.tickets,
                accounts.tables.counts,
            ):
                assert (await db.execute(table.select())).all() == []

    run(work, open_desk)


def test_an_error_of_the_database_shows_no_value(open_desk):
    async def work(desk):
        accounts = desk.accounts
        async with accounts._writer.begin() as db:
            await db.execute(sa.text(f"DROP TABLE {accounts.tables.tickets.name}"))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            await accounts.verify_email("hgt_" + "x" * 43)
        assert "parameters hidden" in str(caught.value)

    run(work, open_desk)


def test_nothing_that_is_stored_shows_a_secret(open_desk):
    async def work(desk):
        accounts = desk.accounts
        user_id = await desk.member()
        secret, codes = await desk.with_app(user_id)
        tokens = await desk.login(totp=desk.code(secret), ip=HOME)
        fresh = await accounts.refresh(tokens.refresh_token)
        await accounts.request_reset(EMAIL)
        reset = await desk.last_token("reset_password")
        plain = [PASSWORD, tokens.refresh_token, fresh.refresh_token, reset, *codes]
        plain += [code.replace("-", "") for code in codes] + [tokens.device, tokens.access_token]
        key = accounts._signing_key(desk.now)
        raw = [secret, key.private_bytes(), key.private_bytes()[-32:]]
        async with accounts.engine.connect() as db:
            for table in accounts.metadata.sorted_tables:
                for row in (await db.execute(table.select())).all():
                    for value in row:
                        assert not any(one in str(value) for one in plain)
                        assert not isinstance(value, bytes) or not any(one in value for one in raw)
        said = (
            repr(desk.events)
            + repr([mail[:2] for mail in desk.mails])
            + repr(tokens)
            + repr(accounts)
        )
        assert not any(one in said for one in plain)

    run(work, open_desk)
