"""Sessions over real HTTP: renewed, ended, carried from one worker and one key to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest
from aiohttp import web

from headgate.security.login.failed import LoginFailed
from headgate.security.login.keeper import MOST_OPENED, MOST_OPENED_BYTES
from headgate.security.login.method import LoginMethod
from headgate.security.login.renewing import GRACE_S, Renewals, Renewed
from headgate.security.login.rules import ClaimNames, LoginRules
from headgate.security.login.sessions import Session
from headgate.security.method import Instead, Refused, Verified
from tests.security.provider import News, Provider, Scene, Seen, Visitor, Worker, scene

pytestmark = pytest.mark.integration


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(40.0):
            await work

    asyncio.run(within())


def cookie(visitor: httpx.AsyncClient) -> bytes:
    """The session as the browser holds it."""
    return b"; ".join(
        f"{each.name}={each.value}".encode()
        for each in visitor.cookies.jar
        if each.name.startswith("hg_login") and ".s" not in each.name
    )


async def asked(at: Scene, text: bytes, offset_s: float | None = None) -> Any:
    """What the method says of these cookies, now or later."""
    if offset_s is not None:
        at.site.offset_s = offset_s
        at.provider.clock = at.site.wall
    found = at.method.verify(Seen(headers=[(b"cookie", text)]), at.site.wall())
    if found is None or isinstance(found, (Verified, Refused, Instead)):
        return found
    return await found


async def logged_in(at: Scene) -> bytes:
    async with Visitor() as ada:
        assert (await ada.get(at.url)).status_code == 200
        return cookie(ada)


def kept_from(found: Any) -> bytes:
    """The cookies that a browser holds after such an answer."""
    assert isinstance(found, Verified) and found.set_cookies
    return b"; ".join(
        each.partition(b";")[0] for each in found.set_cookies if b"Max-Age=0" not in each
    )


# -- lifetimes -----------------------------------------------------------------------------------


def test_a_session_that_is_used_lives_until_its_age_and_an_idle_one_ends():
    async def story() -> None:
        async with scene(idle_s=600.0, max_age_s=3600.0, refresh=False) as at:
            text = await logged_in(at)
            assert (await asked(at, text, 30.0)).set_cookies == ()
            assert await asked(at, text, 601.0) is None
            for later in range(300, 3600, 300):
                text = kept_from(await asked(at, text, float(later)))
            assert await asked(at, text, 3590.0) is not None
            assert await asked(at, text, 3601.0) is None

    run(story())


def test_a_verdict_is_good_until_something_must_be_done():
    async def story() -> None:
        async with scene(idle_s=600.0, refresh=False) as at:
            text = await logged_in(at)
            found = await asked(at, text)
            assert isinstance(found, Verified)
            assert 50.0 < found.until - at.site.wall() <= 60.0  # a tenth of idle
            again = await asked(at, text, found.until - at.site.wall() + 1.0)
            assert again.until == 0.0 and again.set_cookies

    run(story())


def test_clocks_may_differ_a_little_and_not_a_lot():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            assert isinstance(await asked(at, text, -200.0), Verified)
            assert await asked(at, text, -4000.0) is None
            assert isinstance(await asked(at, text, 0.0), Verified)
            assert await asked(at, text, 10.0**9) is None

    run(story())


# -- renewal -------------------------------------------------------------------------------------


def test_a_session_is_renewed_before_its_access_ends_and_hears_of_new_roles():
    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["user"]}})
        async with scene(provider) as at:
            text = await logged_in(at)
            provider.users["ada"] = {"roles": ["admin"]}
            found = await asked(at, text, 250.0)
            assert found.identity.roles == {"admin"} and found.until == 0.0
            assert provider.calls.count("token") == 2
            new = kept_from(found)
            assert (await asked(at, new)).identity.roles == {"admin"}
            # Once more, when the new access is about to end.
            again = await asked(at, new, 500.0)
            assert kept_from(again) != new and provider.calls.count("token") == 3

    run(story())


def test_parallel_requests_of_a_session_renew_it_once():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.provider.gate = asyncio.Event()
            tasks = [asyncio.ensure_future(asked(at, text, 250.0)) for _ in range(30)]
            while len(at.provider.forms) < 2:
                await asyncio.sleep(0)
            at.provider.gate.set()
            found = await asyncio.gather(*tasks)
            assert at.provider.calls.count("token") == 2
            assert len({kept_from(each) for each in found}) == 1

    run(story())


def test_a_client_that_leaves_does_not_break_off_the_renewal():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.provider.gate = asyncio.Event()
            first = asyncio.ensure_future(asked(at, text, 250.0))
            second = asyncio.ensure_future(asked(at, text, 250.0))
            while len(at.provider.forms) < 2:
                await asyncio.sleep(0)
            first.cancel()
            at.provider.gate.set()
            assert kept_from(await second)
            assert at.provider.calls.count("token") == 2

    run(story())


def test_the_old_cookie_gets_the_renewed_session_for_a_while():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            new = kept_from(await asked(at, text, 250.0))
            assert kept_from(await asked(at, text, 400.0)) == new
            assert at.provider.calls.count("token") == 2

    run(story())


def test_a_provider_that_keeps_its_refresh_tokens_is_asked_each_time_all_the_same():
    async def story() -> None:
        async with scene(Provider(rotates=False, expires_in=100)) as at:
            text = await logged_in(at)
            for number in range(1, 5):
                text = kept_from(await asked(at, text, 80.0 * number))
            assert at.provider.calls.count("token") == 5

    run(story())


def test_while_the_provider_is_away_a_session_lasts_until_its_access_ends():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.provider.answers["token"] = lambda _: web.Response(status=503)
            found = await asked(at, text, 250.0)
            assert isinstance(found, Verified) and found.until == 0.0 and not found.set_cookies
            for _ in range(5):  # nor is it asked for every request
                await asked(at, text, 251.0)
            assert at.provider.calls.count("token") == 2
            away = await asked(at, text, 301.0)
            assert isinstance(away, Refused) and away.status == 503
            del at.provider.answers["token"]
            assert isinstance(await asked(at, text, 310.0), Verified)

    run(story())


def test_a_renewal_that_is_refused_ends_the_session_when_its_access_ends():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.provider.refresh_tokens.clear()
            assert isinstance(await asked(at, text, 250.0), Verified)
            assert await asked(at, text, 301.0) is None
            assert at.provider.calls.count("token") == 2

    run(story())


@pytest.mark.parametrize(
    "twist",
    [
        lambda c: {**c, "sub": "mallory"},
        lambda c: {**c, "nonce": "another"},
        lambda c: {**c, "iss": "https://evil.example"},
        lambda c: {**c, "aud": "other"},
    ],
    ids=["sub", "nonce", "iss", "aud"],
)
def test_a_renewed_token_of_somebody_else_is_not_taken(twist):
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.provider.twist = twist
            found = await asked(at, text, 301.0)
            assert found is None or isinstance(found, Refused)

    run(story())


def test_a_renewed_token_of_another_user_with_the_same_name_is_not_taken():
    async def story() -> None:
        provider = Provider(users={"ada": {"email": "a@b", "upn": "A"}})
        async with scene(provider, claim_names=ClaimNames(subject="upn")) as at:
            text = await logged_in(at)
            assert (await asked(at, text)).identity.subject == "A"
            provider.twist = lambda claims: {**claims, "sub": "somebody new"}
            assert await asked(at, text, 301.0) is None

    run(story())


def test_a_renewal_without_an_id_token_keeps_what_was_known():
    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["user"], "email": "a@b"}})
        async with scene(provider) as at:
            text = await logged_in(at)
            body = {"access_token": "a", "token_type": "bearer", "expires_in": "60"}
            provider.answers["token"] = lambda _: web.json_response(body)
            found = await asked(at, text, 250.0)
            assert found.identity.roles == {"user"} and found.identity.claims["email"] == "a@b"

    run(story())


def test_without_a_refresh_token_a_session_lasts_its_age():
    async def story() -> None:
        async with scene(scopes=("openid",)) as at:
            text = await logged_in(at)
            found = await asked(at, text, 3000.0)
            assert isinstance(found, Verified) and at.provider.calls.count("token") == 1

    run(story())


# -- several workers -----------------------------------------------------------------------------


def second_worker(at: Scene) -> tuple[LoginMethod, Worker]:
    worker = Worker(at.worker.news)
    method = LoginMethod(at.method.rules, clock=at.site.wall)
    method.start(worker)
    return method, worker


async def asked_of(method: LoginMethod, at: Scene, text: bytes) -> Any:
    found = method.verify(Seen(headers=[(b"cookie", text)]), at.site.wall())
    if found is None or isinstance(found, (Verified, Refused, Instead)):
        return found
    return await found


def test_another_worker_hears_of_a_renewal_and_asks_nobody():
    async def story() -> None:
        async with scene() as at:
            other, worker = second_worker(at)
            text = await logged_in(at)
            new = kept_from(await asked(at, text, 250.0))
            assert kept_from(await asked_of(other, at, text)) == new
            assert at.provider.calls.count("token") == 2
            await other._provider.close()
            await worker.end()

    run(story())


@pytest.mark.parametrize("later_s", [250.0, 310.0], ids=["due", "over"])
def test_two_workers_that_renew_at_once_log_nobody_out(later_s):
    async def story() -> None:
        async with scene() as at:
            other, worker = second_worker(at)
            text = await logged_in(at)
            at.site.offset_s = later_s
            at.provider.clock = at.site.wall
            # Neither has heard of the other: their claims cross.
            at.worker.news.publish = _without_claims(at.worker.news)  # type: ignore[method-assign]
            found = await asyncio.gather(asked(at, text), asked_of(other, at, text))
            assert all(isinstance(each, Verified) for each in found)
            assert at.provider.calls.count("token") <= 3
            assert any(each.set_cookies for each in found)
            await other._provider.close()
            await worker.end()

    run(story())


def test_a_worker_that_is_refused_waits_for_the_news_of_the_one_that_was_first():
    async def story() -> None:
        async with scene() as at:
            other, worker = second_worker(at)
            text = await logged_in(at)
            at.site.offset_s = 310.0
            at.provider.clock = at.site.wall
            at.worker.news.publish = _without_claims(at.worker.news)  # type: ignore[method-assign]
            late = asyncio.Event()

            async def slow_success(request: web.Request) -> web.Response:
                answer = await at.provider._token(request)
                if answer.status == 200:
                    await late.wait()
                return answer

            at.provider.answers["token"] = slow_success
            first = asyncio.ensure_future(asked(at, text))
            while len(at.provider.forms) < 2:
                await asyncio.sleep(0)
            second = asyncio.ensure_future(asked_of(other, at, text))
            while not other._keeper.shared.renewals.refused:
                await asyncio.sleep(0)
            late.set()
            assert kept_from(await second) == kept_from(await first)
            await other._provider.close()
            await worker.end()

    run(story())


def _without_claims(news: News) -> Any:
    publish = news.publish

    def only_news(topic: str, message: Any, retain: str | None) -> None:
        if message["kind"] != "renewing":
            publish(topic, message, retain)

    return only_news


def test_news_of_a_renewal_cannot_swap_people():
    async def story() -> None:
        async with scene() as at:
            ada = await logged_in(at)
            at.provider.user = "mallory"
            mallory = await logged_in(at)
            found = await asked(at, mallory)
            assert found.identity.subject == "mallory"
            for opened in at.method._keeper._opened.values():
                at.worker.publish(
                    "login",
                    {
                        "kind": "renewed",
                        "name": "login",
                        "by": "other",
                        "tag": opened.tag,
                        "sealed": mallory.decode().partition(".")[2],
                    },
                )
            for later_s in (0.0, 250.0):
                found = await asked(at, ada, later_s)
                assert found is None or found.identity.subject == "ada"

    run(story())


def test_while_another_worker_renews_the_old_access_serves():
    async def story() -> None:
        async with scene() as at:
            other, worker = second_worker(at)
            text = await logged_in(at)
            at.provider.gate = asyncio.Event()
            first = asyncio.ensure_future(asked(at, text, 250.0))
            while len(at.provider.forms) < 2:
                await asyncio.sleep(0)
            found = await asked_of(other, at, text)
            assert isinstance(found, Verified) and not found.set_cookies
            at.provider.gate.set()
            await first
            assert at.provider.calls.count("token") == 2
            await other._provider.close()
            await worker.end()

    run(story())


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "renewed"},
        {"kind": "renewed", "tag": "t", "sealed": "junk"},
        {"kind": "renewed", "tag": "t", "sealed": "ü"},
        {"kind": "renewed", "tag": ["t"], "sealed": 1},
        {"kind": "renewing", "tag": 7},
        {"kind": "renewing", "tag": "x" * 100},
        {"kind": "session", "value": 7},
        {"kind": ["session"]},
    ],
    ids=range(9),
)
def test_news_of_another_version_are_passed_over(message):
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            at.worker.publish("login", {**message, "name": "login", "by": "other"})
            at.worker.publish("revoked", message)
            assert isinstance(await asked(at, text), Verified)
            assert at.method.generation == 0

    run(story())


# -- the end -------------------------------------------------------------------------------------


def test_after_logging_out_a_copy_of_the_cookie_is_worth_nothing_anywhere():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            other, worker = second_worker(at)
            await ada.get(at.url)
            copy = cookie(ada)
            assert isinstance(await asked_of(other, at, copy), Verified)
            before = (at.method.generation, other.generation)
            await ada.get(f"{at.url}/.headgate/logout")
            assert await asked(at, copy) is None
            assert await asked_of(other, at, copy) is None
            assert (at.method.generation, other.generation) > before
            late, late_worker = second_worker(at)  # started afterwards
            assert await asked_of(late, at, copy) is None
            for method, each in ((other, worker), (late, late_worker)):
                await method._provider.close()
                await each.end()

    run(story())


@pytest.mark.parametrize(
    ("method", "fields", "is_out"),
    [
        ("GET", {"sec-fetch-site": "none"}, True),
        ("GET", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("GET", {"sec-fetch-site": "cross-site"}, False),
        ("GET", {"sec-fetch-site": "same-site"}, False),
        ("GET", {"sec-fetch-site": "same-origin", "sec-purpose": "prefetch"}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"origin": "https://evil.example"}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {}, False),
        ("GET", {}, False),
        ("GET", {"referer": "{site}/page"}, True),
        ("POST", {"origin": "{site}"}, True),
    ],
    ids=range(13),
)
def test_another_site_cannot_log_anybody_out(method, fields, is_out):
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            text = cookie(ada)
            said = {name: value.replace("{site}", at.url) for name, value in fields.items()}
            del ada.headers["sec-fetch-site"]
            page = await ada.request(method, f"{at.url}/.headgate/logout", headers=said)
            assert (await asked(at, text) is None) is is_out
            if not is_out:
                assert '<form method="post" action="/.headgate/logout">' in page.text
                assert "hg_login" in ada.cookies

    run(story())


def test_logging_out_goes_where_the_file_says_also_without_a_session():
    async def story() -> None:
        async with scene(end_provider_session=False) as at, Visitor() as ada:
            await ada.get(at.url)
            page = await ada.get(f"{at.url}/.headgate/logout")
            assert page.status_code == 200 and "You are logged out" in page.text
        async with scene(after_logout="/bye") as at, Visitor() as ada:
            await ada.get(at.url)
            ada.follow_redirects = False
            answer = await ada.get(f"{at.url}/.headgate/logout")
            back = httpx.URL(answer.headers["location"]).params["post_logout_redirect_uri"]
            assert back == f"{at.url}/bye"
            answer = await ada.get(f"{at.url}/.headgate/logout")
            assert answer.headers["location"] == "/bye"

    run(story())


def test_logging_out_gives_the_refresh_token_back():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            assert len(at.provider.refresh_tokens) == 1
            await ada.get(f"{at.url}/.headgate/logout")
            await asyncio.gather(*at.worker.tasks)
            assert at.provider.refresh_tokens == {} and at.provider.calls.count("revoke") == 1
            await ada.get(at.url)
            at.provider.answers["revoke"] = lambda _: web.Response(status=500)
            await ada.get(f"{at.url}/.headgate/logout")
            await asyncio.gather(*at.worker.tasks)
            assert at.worker.notes[-1][0] == "login_revocation_failed"

    run(story())


def test_logging_out_works_while_the_provider_is_down():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            text = cookie(ada)
            at.method._provider._metadata = None
            at.provider.answers["discovery"] = lambda _: web.Response(status=500)
            assert (await ada.get(f"{at.url}/.headgate/logout")).status_code == 200
            assert await asked(at, text) is None and "hg_login" not in ada.cookies

    run(story())


async def tell(at: Scene, token: str) -> int:
    async with httpx.AsyncClient() as provider:
        form = {"logout_token": token}
        return (await provider.post(f"{at.url}/.headgate/ended", data=form)).status_code


@pytest.mark.parametrize("kind", ["sid", "sub"])
def test_the_provider_ends_sessions_and_later_log_ins_stand(kind):
    async def story() -> None:
        async with scene() as at:
            other, worker = second_worker(at)
            text = await logged_in(at)
            found = await asked(at, text)
            named = {"sid": found.identity.claims["sid"]} if kind == "sid" else {"sub": "ada"}
            assert await tell(at, at.provider.logout_token(sid="another")) == 200
            assert isinstance(await asked(at, text), Verified)
            assert await tell(at, at.provider.logout_token(**named)) == 200
            assert await asked(at, text) is None and await asked_of(other, at, text) is None
            at.site.offset_s = 2.0
            at.provider.clock = at.site.wall
            text = await logged_in(at)
            assert isinstance(await asked(at, text), Verified)
            await other._provider.close()
            await worker.end()

    run(story())


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "another"}, "somebody else"),
        ({"events": None}, "another kind"),
        ({"events": {}}, "another kind"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": 1}}, "another kind"),
        ({"nonce": "n"}, "nonce"),
        ({"iat": 1000}, "too old"),
        ({"iat": None}, "too old"),
        ({"exp": 1000}, "expired"),
        ({"sub": None}, "neither"),
        ({"sub": 7}, "plain text"),
        ({"sub": "x" * 600}, "neither"),
        ({}, ""),
        ({"exp": None}, ""),
    ],
    ids=range(14),
)
def test_a_logout_token_must_be_one(claims, detail):
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            token = at.provider.logout_token(**{"sub": "ada", **claims})
            assert await tell(at, token) == (400 if detail else 200)
            if detail:
                assert detail in at.worker.notes[-1][1]["detail"]
            assert (await asked(at, text) is None) is (detail == "")

    run(story())


def test_an_id_token_is_no_logout_token_and_a_forged_one_is_nothing():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            now = int(at.site.wall())
            base = {
                "iss": at.provider.issuer,
                "aud": "shop",
                "sub": "ada",
                "iat": now,
                "exp": now + 60,
            }
            assert await tell(at, at.provider.sign({**base, "nonce": "x"})) == 400
            good = at.provider.logout_token(sub="ada")
            head, body, signature = good.split(".")
            assert await tell(at, f"{head}.{body}.{signature[:-4]}AAAA") == 400
            assert await tell(at, f"{head}.{body}.") == 400
            assert await tell(at, "") == 400 and await tell(at, "x" * 60_000) == 400
            async with httpx.AsyncClient() as client:
                url = f"{at.url}/.headgate/ended"
                assert (await client.post(url, json={"logout_token": good})).status_code == 400
                twice = f"logout_token={good}&logout_token={good}"
                fields = {"content-type": "application/x-www-form-urlencoded"}
                assert (await client.post(url, content=twice, headers=fields)).status_code == 400
                assert (await client.post(url, content=b"\xff", headers=fields)).status_code == 400
            assert isinstance(await asked(at, text), Verified)

    run(story())


# -- keys and plans that change ------------------------------------------------------------------

NEW = "a new secret of cookies that is long enough for anybody"


def successor(at: Scene, **changes: Any) -> LoginMethod:
    rules = at.method.rules
    said = {name: getattr(rules, name) for name in LoginRules.__slots__} | changes
    method = LoginMethod(LoginRules(**said), clock=at.site.wall)
    method.start(at.worker)
    return method


def test_a_new_secret_ends_no_session_and_takes_over():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            both = successor(at, secrets=(NEW, *at.method.rules.secrets))
            new = kept_from(await asked_of(both, at, text))
            assert new != text
            only = successor(at, secrets=(NEW,))
            assert isinstance(await asked_of(only, at, new), Verified)
            assert await asked_of(only, at, text) is None

    run(story())


def test_a_session_of_another_provider_or_client_is_none():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            for changes in ({"issuer": "https://other"}, {"client_id": "b"}, {"name": "login2"}):
                method = successor(at, **changes, cookie="hg_login")
                assert await asked_of(method, at, text) is None

    run(story())


def test_what_ended_stays_ended_after_a_reload():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            text = cookie(ada)
            await ada.get(f"{at.url}/.headgate/logout")
            assert await asked_of(successor(at), at, text) is None

    run(story())


def test_a_plan_that_is_going_hears_of_the_end_too():
    async def story() -> None:
        async with scene() as at:
            text = await logged_in(at)
            assert isinstance(await asked(at, text), Verified)
            after = successor(at)
            assert await tell(at, at.provider.logout_token(sub="ada")) == 200
            assert at.method.generation == after.generation == 1
            assert await asked(at, text) is None and await asked_of(after, at, text) is None

    run(story())


def test_a_kept_key_serves_where_there_is_no_secret():
    rules = LoginRules("https://id.example", "shop")
    asked_for: list[int] = []

    def kept() -> bytes:
        asked_for.append(1)
        return b"k" * 32

    one, two = LoginMethod(rules, kept_key=kept), LoginMethod(rules, kept_key=kept)
    assert not asked_for  # building must leave nothing behind
    sealed = one._seals().seal(b"x", b"session")
    assert two._seals().open(sealed, b"session") == b"x"
    alone = LoginMethod(rules)
    assert alone._seals().open(sealed, b"session") is None


# -- bounds --------------------------------------------------------------------------------------


def test_what_was_opened_is_kept_within_bounds():
    method = LoginMethod(LoginRules("https://id.example", "shop", secrets=("s" * 40,)))
    keeper = method._keeper
    for number in range(MOST_OPENED + 50):
        keeper._keep(b"%d" % number, Session("i", "u", 0.0, 0.0))
    assert len(keeper._opened) == MOST_OPENED
    for number in range(700):
        keeper._keep(b"x" * 15_000 + b"%d" % number, Session("i", "u", 0.0, 0.0))
    assert keeper._opened_bytes <= MOST_OPENED_BYTES
    assert keeper._opened_bytes == sum(len(each.sealed) for each in keeper._opened.values())


def test_renewals_are_kept_within_bounds_and_success_outdoes_failure():
    renewals = Renewals(most=3)
    session = Session("i", "u", 0.0, 0.0)
    for number in range(10):
        renewals.settle(f"t{number}", Renewed(session, b"x", 0.0), 0.0)
        renewals.claim(f"t{number}", 0.0)
    assert renewals.known("t0", 0.0) is None and renewals.known("t9", 0.0) is not None
    renewals.settle("t9", LoginFailed("refused", "no"), 1.0)
    assert isinstance(renewals.known("t9", 1.0), Renewed)
    renewals.settle("t1", LoginFailed("refused", "no"), 1.0)
    assert isinstance(renewals.known("t1", 1.0), LoginFailed)
    renewals.settle("t1", Renewed(session, b"x", 2.0), 2.0)
    assert isinstance(renewals.known("t1", 2.0), Renewed)
    assert renewals.known("t1", 3.0 + GRACE_S) is None
    assert not renewals.is_claimed("t0", 0.0) and renewals.is_claimed("t8", 1.0)
    assert not renewals.is_claimed("t8", 60.0) and not renewals.is_claimed("t8", -60.0)
