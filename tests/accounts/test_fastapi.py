"""The routes, over HTTP without a socket."""

import asyncio
import base64
import re
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI

from headgate.security.accounts.fastapi import current_user, routes, well_known
from headgate.security.identity import Identity
from tests.accounts.desk import EMAIL, HOME, OTHER, PASSWORD


def app_of(accounts, **options):
    app = FastAPI()
    app.include_router(routes(accounts, **options), prefix="/accounts")
    app.include_router(well_known(accounts))

    @app.get("/orders")
    async def orders(user: Annotated[Identity, Depends(current_user(accounts, scope="orders"))]):
        return {"of": user.subject}

    @app.get("/vault")
    async def vault(
        user: Annotated[Identity, Depends(current_user(accounts, mfa=True, max_age_s=300))],
    ):
        return {"of": user.subject}

    @app.get("/checked")
    async def checked(user: Annotated[Identity, Depends(current_user(accounts, is_checked=True))]):
        return {"of": user.subject}

    return app


def run(work, sqlite_desk, **options):
    async def main():
        async with sqlite_desk() as desk:
            transport = httpx.ASGITransport(app_of(desk.accounts, **options), client=(HOME, 1))
            async with httpx.AsyncClient(
                transport=transport, base_url="https://shop.example"
            ) as web:
                await work(desk, web)

    asyncio.run(main())


async def post(web, path, bearer=None, **body):
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    return await web.post(f"/accounts{path}", json=body, headers=headers)


def test_a_whole_life_over_http(sqlite_desk):
    async def work(desk, web):
        got = await post(web, "/register", email=EMAIL, password=PASSWORD)
        assert got.status_code == 202
        token = await desk.last_token("confirm_registration")
        assert (await post(web, "/verify-email", token=token)).status_code == 200
        got = await post(web, "/login", email=EMAIL, password=PASSWORD)
        assert got.headers["cache-control"] == "no-store"
        tokens = got.json()
        assert tokens["token_type"] == "Bearer"
        bearer = tokens["access_token"]
        made = (await post(web, "/mfa/enrol", bearer, password=PASSWORD)).json()
        secret = base64.b32decode(made["secret"])
        got = await post(web, "/mfa/confirm", bearer, totp=desk.code(secret))
        codes = got.json()["recovery_codes"]
        got = await web.get("/vault", headers={"authorization": f"Bearer {bearer}"})
        assert got.status_code == 401
        assert "insufficient_user_authentication" in got.headers["www-authenticate"]
        desk.now += 30
        stepped = (await post(web, "/step-up", bearer, totp=desk.code(secret))).json()
        assert stepped["refresh_token"] is None
        bearer = stepped["access_token"]
        got = await web.get("/vault", headers={"authorization": f"Bearer {bearer}"})
        assert got.status_code == 200
        got = await post(web, "/login", email=EMAIL, password=PASSWORD)
        assert (got.status_code, got.json()["code"]) == (401, "mfa_required")
        got = await post(web, "/login", email=EMAIL, password=PASSWORD, totp=codes[0])
        assert got.json()["amr"] == ["pwd", "kba"]
        got = await post(web, "/mfa/disable", bearer, password=PASSWORD, totp=codes[1])
        assert got.status_code == 200
        got = await post(
            web, "/password/change", bearer, current_password=PASSWORD, new_password=OTHER
        )
        assert got.status_code == 200
        auth = {"authorization": f"Bearer {bearer}"}
        (session,) = (await web.get("/accounts/sessions", headers=auth)).json()
        assert session["is_current"]
        assert (await web.get("/accounts/me/export", headers=auth)).json()["email"] == EMAIL
        assert (await post(web, "/password/forgot", email=EMAIL)).status_code == 202
        await desk.accounts.settled()
        token = desk.mails[-1][2]
        assert (
            await post(web, "/password/reset", token=token, new_password=PASSWORD)
        ).status_code == 200
        assert (await web.get("/checked", headers=auth)).status_code == 401
        assert (
            await post(web, "/refresh", refresh_token=tokens["refresh_token"])
        ).status_code == 401
        desk.now += 3600
        bearer = (await post(web, "/login", email=EMAIL, password=PASSWORD)).json()["access_token"]
        got = await post(
            web, "/email/change", bearer, new_email="new@shop.example", password=PASSWORD
        )
        assert got.status_code == 202
        await desk.accounts.settled()
        token = next(token for kind, _, token in desk.mails if kind == "confirm_email_change")
        assert (await post(web, "/email/confirm", token=token)).status_code == 200
        auth = {"authorization": f"Bearer {bearer}"}
        assert (await web.get("/accounts/me", headers=auth)).json()["email"] == "new@shop.example"
        assert (await post(web, "/logout-all", bearer)).status_code == 200
        assert (await web.get("/accounts/me", headers=auth)).status_code == 401

    run(work, sqlite_desk)


def test_errors_are_problems_that_say_the_way_out(sqlite_desk):
    async def work(desk, web):
        await desk.member()
        got = await post(web, "/register", email=EMAIL, password="password1234")
        assert got.status_code == 422
        assert got.headers["content-type"] == "application/problem+json"
        assert got.json()["reasons"] == ["common"]
        got = await post(web, "/login", email=EMAIL, password=OTHER)
        assert (got.status_code, got.json()["code"]) == (401, "invalid_credentials")
        for _ in range(6):
            got = await post(web, "/login", email=EMAIL, password=OTHER)
        assert (got.status_code, got.headers["retry-after"]) == (429, "1")
        assert (await post(web, "/login", email=EMAIL)).status_code == 422
        assert (await post(web, "/login", email=EMAIL, password="x" * 5000)).status_code == 422

    run(work, sqlite_desk)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x.y.z", "Bearer " + "a" * 100_000]
)
def test_without_a_good_token_the_answer_is_401(sqlite_desk, header):
    async def work(desk, web):
        for path in ("/orders", "/vault", "/checked", "/accounts/me"):
            got = await web.get(path, headers={"authorization": header} if header else {})
            assert got.status_code == 401
            assert got.headers["www-authenticate"].startswith("Bearer")

    run(work, sqlite_desk)


def test_a_right_that_is_missing_is_403_until_it_is_granted(sqlite_desk):
    async def work(desk, web):
        user_id = await desk.member()
        tokens = await desk.login()
        auth = {"authorization": f"bearer {tokens.access_token}"}
        got = await web.get("/orders", headers=auth)
        assert (got.status_code, "insufficient_scope" in got.headers["www-authenticate"]) == (
            403,
            True,
        )
        await desk.accounts.grant_scope(user_id, "orders")
        fresh = await desk.accounts.refresh(tokens.refresh_token)
        auth = {"authorization": f"bearer {fresh.access_token}"}
        assert (await web.get("/orders", headers=auth)).json() == {"of": user_id}

    run(work, sqlite_desk)


def test_a_browser_keeps_the_refresh_token_where_scripts_cannot_read(sqlite_desk):
    async def work(desk, web):
        await desk.member()
        got = await post(web, "/login", email=EMAIL, password=PASSWORD)
        assert got.json()["refresh_token"] is None
        assert got.json()["device"] is None
        set_ = got.headers.get_list("set-cookie")
        assert [re.split("=", one)[0] for one in set_] == [
            "__Secure-hg_refresh",
            "__Secure-hg_device",
        ]
        for one in set_:
            assert {"HttpOnly", "Path=/accounts", "SameSite=strict", "Secure"} <= set(
                one.split("; ")
            )
        got = await web.post("/accounts/refresh")
        assert got.status_code == 200
        for number in range(80):
            with pytest.raises(Exception):
                await desk.login(password=OTHER, ip=f"203.0.113.{number}")
        assert (await post(web, "/login", email=EMAIL, password=PASSWORD)).status_code == 200
        got = await post(web, "/logout")
        assert 'hg_refresh=""' in got.headers["set-cookie"]
        assert (await post(web, "/refresh")).status_code == 401

    run(work, sqlite_desk, cookies=True)


def test_a_session_of_somebody_else_is_not_there(sqlite_desk):
    async def work(desk, web):
        await desk.member()
        await desk.member("bob@shop.example")
        mine, other = await desk.login(), await desk.login("bob@shop.example")
        auth = {"authorization": f"Bearer {mine.access_token}"}
        got = await web.delete(f"/accounts/sessions/{other.session_id}", headers=auth)
        assert got.status_code == 404
        desk.accounts.verify(other.access_token)
        got = await web.delete(f"/accounts/sessions/{mine.session_id}", headers=auth)
        assert got.status_code == 200
        assert (await web.get("/orders", headers=auth)).status_code == 401

    run(work, sqlite_desk)


def test_the_key_set_is_public_and_may_be_kept(sqlite_desk):
    async def work(desk, web):
        got = await web.get("/.well-known/jwks.json")
        assert got.headers["cache-control"] == "public, max-age=3600"
        (key,) = got.json()["keys"]
        assert key.keys() == {"crv", "kty", "x", "kid", "use", "alg"}

    run(work, sqlite_desk)
