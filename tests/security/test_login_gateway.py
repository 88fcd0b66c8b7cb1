"""Log-ins through the gateway itself, with services behind it."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.gateway_process import RunningGateway, proxy_document
from tests.security.provider import SECRET, Provider, Visitor, served

pytestmark = pytest.mark.integration

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def echo() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        fields = {name.lower(): value for name, value in request.headers.items()}
        return web.json_response({"fields": fields, "path": request.raw_path})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    return app


def document(port: int, provider: Provider, **more: Any) -> dict[str, Any]:
    login = {
        "issuer": provider.issuer,
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "secret": SECRET,
        "scopes": ["openid", "offline_access"],
        **more,
    }
    route = {"to": "upstream", "auth": "login", "allow": {"roles": ["customer"]}}
    return proxy_document(port, auth={"login": login}, routes=[{**route, "name": "all"}])


def test_a_service_behind_the_gateway_learns_who_it_is_and_sees_no_cookie_of_ours():
    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["customer"]}, "eve": {"roles": ["guest"]}})
        async with served(provider.app()) as issuer, served(echo()) as service:
            provider.issuer = issuer
            port = httpx.URL(service).port
            assert port is not None
            # On a thread of its own it must be started from another one.
            gateway = await asyncio.to_thread(RunningGateway, document(port, provider))
            try:
                at = f"http://127.0.0.1:{gateway.port()}"
                async with Visitor() as ada:
                    ada.cookies.set("theme", "dark")
                    page = (await ada.get(f"{at}/orders?x=1")).json()
                    assert page["path"] == "/orders?x=1"
                    assert page["fields"]["x-auth-subject"] == "ada"
                    assert page["fields"]["x-auth-roles"] == "customer"
                    assert page["fields"]["cookie"] == "theme=dark"
                    forged = {"x-auth-subject": "root", "x-auth-roles": "admin"}
                    page = (await ada.get(f"{at}/x", headers=forged)).json()
                    assert page["fields"]["x-auth-subject"] == "ada"
                    copy = dict(ada.cookies)
                    # A reload with the same entry changes nothing for anybody.
                    changed = document(port, provider, idle="2h")
                    await asyncio.to_thread(gateway.apply, changed)
                    assert (await ada.get(f"{at}/x")).status_code == 200
                    assert (await ada.get(f"{at}/.headgate/logout")).text == "bye"
                async with httpx.AsyncClient(cookies=copy) as thief:
                    assert (await thief.get(f"{at}/x")).status_code == 401
                provider.user = "eve"
                async with Visitor() as eve:
                    assert (await eve.get(f"{at}/x")).status_code == 403
                assert gateway.errors == []
            finally:
                await asyncio.to_thread(gateway.close)

    async def within() -> None:
        async with asyncio.timeout(40.0):
            await story()

    asyncio.run(within())


def test_the_paths_of_a_log_in_need_no_route_and_a_provider_can_end_sessions():
    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["customer"]}})
        async with served(provider.app()) as issuer, served(echo()) as service:
            provider.issuer = issuer
            port = httpx.URL(service).port
            assert port is not None
            made = document(port, provider, back_channel_path="/.headgate/ended", pass_token=True)
            made["routes"][0]["match"] = {"path": "/shop/"}
            gateway = await asyncio.to_thread(RunningGateway, made)
            try:
                at = f"http://127.0.0.1:{gateway.port()}"
                async with Visitor() as ada, httpx.AsyncClient() as back:
                    forged = {"x-forwarded-access-token": "forged"}
                    page = (await ada.get(f"{at}/shop/", headers=forged)).json()
                    assert page["fields"]["x-auth-subject"] == "ada"
                    told = page["fields"]["x-forwarded-access-token"]
                    assert told
                    assert "forged" not in told
                    form = {"logout_token": provider.logout_token(sub="ada")}
                    ended = await back.post(f"{at}/.headgate/ended", data=form)
                    assert ended.status_code == 200
                    assert (await ada.get(f"{at}/shop/", follow_redirects=False)).is_redirect
                    # What is no token, and what is far too long for one.
                    wrong = await back.post(f"{at}/.headgate/ended", data={"logout_token": "x"})
                    assert wrong.status_code == 400
                    long = await back.post(f"{at}/.headgate/ended", content=b"x" * 1_000_000)
                    assert long.status_code == 413
                    assert (await back.get(f"{at}/elsewhere")).status_code == 404
                assert gateway.errors == []
            finally:
                await asyncio.to_thread(gateway.close)

    async def within() -> None:
        async with asyncio.timeout(40.0):
            await story()

    asyncio.run(within())


def test_a_real_browser_logs_in_through_the_gateway(tmp_path):
    chromium = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert chromium is not None, "this needs a browser: apt-get install chromium"

    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["customer"]}})
        async with served(provider.app()) as issuer, served(echo()) as service:
            provider.issuer = issuer
            port = httpx.URL(service).port
            assert port is not None
            gateway = await asyncio.to_thread(RunningGateway, document(port, provider))
            try:
                browser = await asyncio.create_subprocess_exec(
                    chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                    "--disable-background-networking", f"--user-data-dir={tmp_path}",
                    "--dump-dom", f"http://127.0.0.1:{gateway.port()}/orders?x=1",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                try:
                    page, _ = await browser.communicate()
                finally:
                    if browser.returncode is None:
                        browser.kill()
                        await browser.wait()
                assert b'"x-auth-subject": "ada"' in page and b'"path": "/orders?x=1"' in page
                assert b'"cookie"' not in page
                assert provider.calls.count("token") == 1
                assert gateway.errors == []
            finally:
                await asyncio.to_thread(gateway.close)

    async def within() -> None:
        async with asyncio.timeout(60.0):
            await story()

    asyncio.run(within())
