"""The app of docs/howto/accounts.md, as it stands there, used over HTTP."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from headgate.security.accounts import HashRules
from tests.accounts.desk import EMAIL, PASSWORD, SECRET

pytestmark = pytest.mark.integration
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "accounts.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def page(tmp_path: Path):
    names: dict = {
        "DATABASE": f"sqlite+aiosqlite:///{tmp_path}/users.db",
        "SECRET": SECRET,
        "__name__": "page",
    }
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    return names


def test_the_app_of_the_page_works(page, capsys):
    app, accounts = page["app"], page["accounts"]

    async def main():
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, client=("198.51.100.7", 1))
            async with httpx.AsyncClient(
                transport=transport, base_url="https://shop.example"
            ) as web:
                got = await web.post(
                    "/accounts/register", json={"email": EMAIL, "password": PASSWORD}
                )
                assert (got.status_code, got.json()) == (202, {"status": "check_your_mail"})
                await accounts.settled()
                token = capsys.readouterr().out.rpartition("#")[2].strip()
                got = await web.post("/accounts/verify-email", json={"token": token})
                assert got.status_code == 200
                got = await web.post("/accounts/login", json={"email": EMAIL, "password": PASSWORD})
                bearer = {"authorization": "Bearer " + got.json()["access_token"]}
                me = (await web.get("/accounts/me", headers=bearer)).json()
                got = await web.get("/orders", headers=bearer)
                assert got.json() == {"of": me["id"]}
                assert (await web.get("/orders")).status_code == 401
                assert (await web.delete(f"/users/{me['id']}", headers=bearer)).status_code == 403
                keys = (await web.get("/.well-known/jwks.json")).json()["keys"]
                assert [key["alg"] for key in keys] == ["EdDSA"]
                assert (
                    await page["enter"](EMAIL, PASSWORD, "198.51.100.8") == f"{me['id']} was here"
                )
        assert {"logged_in", "session_ended"} <= {event.kind for event in page["audit"]}

    asyncio.run(main())


def test_the_page_names_the_defaults_as_they_are():
    text = " ".join(PAGE.read_text().split())
    rules = HashRules()
    assert (rules.memory_kib, rules.passes, rules.waiting) == (19456, 2, 64)
    for said in ("19 MiB and 2 passes", "beyond 64 in line", "`reset_life_s` (1800)"):
        assert said in text
