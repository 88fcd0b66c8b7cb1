"""Log-ins over real HTTP: a provider that signs, a site, and a client with a cookie jar."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from headgate.security.login.assertion import ClientKey
from headgate.security.login.flow import LOOP_COUNT, MAX_PENDING, slot_of
from headgate.security.login.rules import ClaimNames, Endpoints
from headgate.security.method import Instead, Verified
from tests.security.provider import (
    SECRET,
    Provider,
    Scene,
    Seen,
    Visitor,
    key_number,
    query_of,
    scene,
)

pytestmark = pytest.mark.integration


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(40.0):
            await work

    asyncio.run(within())


def locations(answer: httpx.Response) -> list[str]:
    return [each.headers["location"] for each in answer.history]


async def returned(visitor: Visitor, url: str) -> str:
    """The callback that the provider sends the browser to, before the browser goes there."""
    answer = await visitor.get(url)
    while answer.is_redirect and "/callback?" not in answer.headers["location"]:
        answer = await visitor.get(answer.next_request.url)  # type: ignore[union-attr]
    return str(answer.headers["location"])


def slow_visitor() -> Visitor:
    visitor = Visitor()
    visitor.follow_redirects = False
    return visitor


# -- the whole of it -----------------------------------------------------------------------------


def test_a_visitor_logs_in_comes_back_to_the_page_and_logs_out():
    async def story() -> None:
        provider = Provider(users={"ada": {"roles": ["admin"], "email": "ada@example.org"}})
        async with scene(provider) as at, Visitor() as ada:
            page = await ada.get(f"{at.url}/orders?x=1&y=%2F")
            assert page.json()["subject"] == "ada"
            assert page.json()["roles"] == ["admin"]
            assert page.json()["claims"]["email"] == "ada@example.org"
            assert page.json()["path"] == "/orders?x=1&y=%2F"
            assert provider.calls == ["discovery", "authorize", "token", "keys"]
            form = provider.forms[0]
            assert form["grant_type"] == "authorization_code" and "code_verifier" in form
            again = await ada.get(f"{at.url}/orders")
            assert not again.history and len(provider.calls) == 4
            # Nothing of the log-in is left over.
            assert ada.named(".s") == []
            out = await ada.get(f"{at.url}/.headgate/logout")
            assert out.text == "bye"
            assert provider.forms[-1]["client_id"] == "shop"
            assert provider.forms[-1]["id_token_hint"].count(".") == 2
            assert ada.named("hg_login") == []
            assert (await ada.get(at.url, headers={"accept": "*/*"})).status_code == 401
            assert [(kind, said["subject"]) for kind, said in at.worker.notes] == [
                ("logged_in", "ada"),
                ("logged_out", "ada"),
            ]

    run(story())


def test_programs_get_401_and_nobody_is_sent_to_log_in_by_a_script():
    async def story() -> None:
        async with scene() as at, httpx.AsyncClient() as program:
            assert (await program.get(at.url)).status_code == 401
            assert (await program.post(at.url, headers={"accept": "text/html"})).status_code == 401
            fields = {"accept": "text/html", "sec-fetch-mode": "cors"}
            assert (await program.get(at.url, headers=fields)).status_code == 401
            assert at.provider.calls == []

    run(story())


def test_secrets_stay_out_of_addresses_pages_and_what_can_be_asked():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            page = await ada.get(f"{at.url}/a")
            seen = " ".join([*locations(page), page.text, json.dumps(at.method.snapshot(0.0))])
            seen += repr(at.method.rules) + str(at.worker.notes)
            tokens = [*at.provider.access_tokens, *at.provider.refresh_tokens]
            verifier = at.provider.forms[0]["code_verifier"]
            assert tokens and len(tokens) == 2
            for secret in (*tokens, verifier, at.provider.client_secret, SECRET):
                assert secret not in seen
            assert not any(secret in str(list(ada.cookies.jar)) for secret in tokens)

    run(story())


def test_tabs_that_are_restored_at_once_all_log_in():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            pages = await asyncio.gather(*(ada.get(f"{at.url}/tab/{n}") for n in range(5)))
            assert [page.status_code for page in pages] == [200] * 5
            assert {page.json()["subject"] for page in pages} == {"ada"}

    run(story())


def test_tabs_that_are_begun_one_by_one_finish_in_any_order():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            start = f"{at.url}/.headgate/login?to=/"
            back = [await returned(ada, f"{start}tab{n}") for n in range(MAX_PENDING)]
            assert len(ada.named(".s")) == MAX_PENDING
            for n in (2, 0, 4, 3, 1):
                answer = await ada.get(back[n])
                assert answer.headers["location"] == f"/tab{n}"
            assert ada.named(".s") == []

    run(story())


def test_of_many_log_ins_that_are_never_finished_few_are_kept():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            start = f"{at.url}/.headgate/login?to=/"
            back = [await returned(ada, f"{start}tab{n}") for n in range(12)]
            assert len(ada.named(".s")) <= MAX_PENDING
            assert (await ada.get(back[-1])).headers["location"] == "/tab11"

    run(story())


# -- what an attacker tries ----------------------------------------------------------------------


def test_a_callback_that_another_browser_began_logs_nobody_in():
    async def story() -> None:
        async with scene() as at, slow_visitor() as mallory, Visitor() as ada:
            link = await returned(mallory, f"{at.url}/.headgate/login")
            page = await ada.get(link)
            assert page.status_code == 400 and "not begun in this browser" in page.text
            assert ada.named("hg_login") == [] and "token" not in at.provider.calls
            # Nor does a state of Ada's own with Mallory's code: PKCE binds the code.
            ada.follow_redirects = False
            own = await returned(ada, f"{at.url}/.headgate/login")
            mixed = own.replace(query_of(own)["code"], query_of(link)["code"])
            assert (await ada.get(mixed)).status_code == 403
            assert not any(name == "hg_login" for name in ada.named("hg_login"))

    run(story())


def test_another_state_that_falls_into_the_same_slot_is_another_state():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login")
            state = query_of(link)["state"]
            other = next(s for s in map(str, range(10_000)) if slot_of(s) == slot_of(state))
            assert (await ada.get(link.replace(state, other))).status_code == 400
            assert "token" not in at.provider.calls
            assert (await ada.get(link)).status_code == 302

    run(story())


def test_a_callback_twice_is_harmless():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login?to=/x")
            before = httpx.Cookies(ada.cookies)
            assert (await ada.get(link)).headers["location"] == "/x"
            # By the same browser, and with cookies from before: the provider hears of it once.
            again = await ada.get(link)
            assert again.status_code == 302 and again.headers["location"] == "/"
            async with slow_visitor() as copy:
                copy.cookies = before
                assert (await copy.get(link)).status_code == 400
            assert at.provider.calls.count("token") == 1

    run(story())


def test_a_callback_twice_at_once_asks_the_provider_once():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login?to=/x")
            at.provider.gate = asyncio.Event()
            both = asyncio.gather(ada.get(link), ada.get(link), ada.get(link))
            while not at.provider.forms:
                await asyncio.sleep(0)
            at.provider.gate.set()
            answers = await both
            assert [each.headers["location"] for each in answers] == ["/x"] * 3
            assert at.provider.calls.count("token") == 1

    run(story())


@pytest.mark.parametrize(
    ("twist", "detail"),
    [
        (lambda c: {**c, "nonce": "another"}, "nonce"),
        (lambda c: {k: v for k, v in c.items() if k != "nonce"}, "nonce"),
        (lambda c: {**c, "iss": "https://evil.example"}, "another issuer"),
        (lambda c: {**c, "aud": "another"}, "somebody else"),
        (lambda c: {**c, "aud": ["shop", "another"]}, "azp"),
        (lambda c: {**c, "azp": "another"}, "azp"),
        (lambda c: {**c, "exp": 1000}, "expired"),
        (lambda c: {**c, "iat": c["iat"] + 4000}, "future"),
        (lambda c: {k: v for k, v in c.items() if k != "exp"}, "never expires"),
        (lambda c: {k: v for k, v in c.items() if k != "iat"}, "issued"),
        (lambda c: {k: v for k, v in c.items() if k != "sub"}, "subject"),
        (lambda c: {**c, "sub": ""}, "subject"),
        (lambda c: {**c, "at_hash": "x"}, "at_hash"),
        (lambda c: {**c, "events": {}}, "another kind"),
        (lambda c: {**c, "roles": 7}, "roles"),
    ],
    ids=range(15),
)
def test_an_id_token_that_does_not_fit_logs_nobody_in(twist, detail):
    async def story() -> None:
        async with scene(Provider(twist=twist)) as at, Visitor() as ada:
            page = await ada.get(at.url)
            assert page.status_code == 502 and "request-7" in page.text
            assert "Try again" in page.text
            assert detail in at.worker.notes[-1][1]["detail"]
            assert not any(name == "hg_login" for name in ada.named("hg_login"))

    run(story())


def test_an_id_token_for_several_clients_that_names_us_is_taken():
    def several(claims: dict[str, Any]) -> dict[str, Any]:
        return {**claims, "aud": ["shop", "other"], "azp": "shop"}

    async def story() -> None:
        async with scene(Provider(twist=several)) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 200

    run(story())


@pytest.mark.parametrize(
    "issuer", ["https://evil.example", "", None], ids=["other", "empty", "none"]
)
def test_an_answer_of_another_provider_is_not_taken(issuer):
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login")
            assert query_of(link)["iss"] == at.provider.issuer
            bare = re.sub(r"&iss=[^&]*", "" if issuer is None else f"&iss={issuer}", link)
            assert (await ada.get(bare)).status_code == 400
            assert "token" not in at.provider.calls

    run(story())


def test_what_a_provider_says_is_escaped_and_only_said_to_who_began():
    async def story() -> None:
        async with scene(Provider(user="")) as at, Visitor() as ada:
            page = await ada.get(f"{at.url}/x")
            assert page.status_code == 403 and "access_denied" in page.text
            assert "&lt;b&gt;no&lt;/b&gt;" in page.text and "<b>" not in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-store" and "<script" not in page.text
            assert 'href="/.headgate/login?again=1&amp;to=/x"' in page.text
            forged = "/.headgate/login/callback?state=s&error=e&error_description=call+0900"
            page = await ada.get(f"{at.url}{forged}")
            assert page.status_code == 400 and "0900" not in page.text
            at.provider.user = "ada"
            page = await ada.get(f"{at.url}/.headgate/login?again=1&to=/x")
            assert page.json()["path"] == "/x"

    run(story())


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example",
        "https://evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "%0d%0ax",
        "/.headgate/logout",
        "",
    ],
    ids=range(7),
)
def test_a_log_in_never_ends_on_another_host(to):
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login?to={to}")
            assert (await ada.get(link)).headers["location"] == "/"

    run(story())


def test_every_byte_of_every_cookie_counts():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            (value,) = (c.value or "" for c in ada.cookies.jar if c.name == "hg_login")
            wall = at.site.wall()

            def verdict(text: str) -> Any:
                seen = Seen(headers=[(b"cookie", f"hg_login={text}".encode("latin-1"))])
                return at.method.verify(seen, wall)

            assert isinstance(verdict(value), Verified)
            for place in range(len(value)):
                for other in ("A", "_", "=", "%", "\xff"):
                    if value[place] != other:
                        assert verdict(value[:place] + other + value[place + 1 :]) is None
            # The original is still believed afterwards.
            assert isinstance(verdict(value), Verified)

    run(story())


def test_a_log_in_that_took_too_long_is_begun_anew():
    async def story() -> None:
        async with scene(pending_s=600.0) as at, slow_visitor() as ada:
            link = await returned(ada, f"{at.url}/.headgate/login?to=/x")
            at.site.offset_s = 601.0
            page = await ada.get(link)
            assert page.status_code == 400 and "longer" in page.text
            assert "to=/x" in page.text and "token" not in at.provider.calls

    run(story())


def test_a_hundred_cookies_are_no_trouble():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            (value,) = (c.value or "" for c in ada.cookies.jar if c.name == "hg_login")
            junk = [f"hg_login.s{n:02x}=junk{n}" for n in range(100)]
            pieces = [f"hg_login.{n}=junk" for n in range(1, 100)]
            text = "; ".join([*junk, *pieces, f"hg_login={value}"])
            seen = Seen(headers=[(b"cookie", text.encode())])
            assert isinstance(at.method.verify(seen, at.site.wall()), Verified)
            # A new log-in sweeps them out.
            seen = Seen(target="/.headgate/login", headers=[(b"cookie", text.encode())])
            answer = await at.method.verify(seen, at.site.wall())  # type: ignore[misc]
            assert isinstance(answer, Instead) and answer.status == 302
            swept = [v for k, v in answer.headers if k == "set-cookie" and "Max-Age=0" in v]
            assert len(swept) >= 99
            # Twice the same is no session: who plants a second one decides nothing.
            twice = f"hg_login={value}; hg_login={value}"
            assert at.method.verify(Seen(headers=[(b"cookie", twice.encode())]), 0.0) is None

    run(story())


def test_who_leaves_at_any_moment_leaves_nothing_behind():
    async def story() -> None:
        async with scene() as at, slow_visitor() as ada:
            for steps in range(0, 60, 3):
                ada.cookies.clear()
                link = await returned(ada, f"{at.url}/.headgate/login?to=/x")
                text = "; ".join(f"{each.name}={each.value}" for each in ada.cookies.jar)
                seen = Seen(
                    target=link.removeprefix(at.url),
                    headers=[(b"cookie", text.encode())],
                    authority=at.url.removeprefix("http://"),
                )
                at.method._provider._keys = None
                work = at.method.verify(seen, at.site.wall())
                task = asyncio.ensure_future(work)  # type: ignore[arg-type]
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert not at.method._steps._exchanges
                # Whatever was done by then, the same callback does no harm and is answered.
                answer = await ada.get(link)
                assert answer.status_code in {302, 400, 403}
            ada.cookies.clear()
            link = await returned(ada, f"{at.url}/.headgate/login?to=/x")
            assert (await ada.get(link)).headers["location"] == "/x"

    run(story())


# -- a provider that is not well -----------------------------------------------------------------


def garbage(text: str, status: int = 200) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(text=text, status=status, content_type="application/json")


async def never(_: web.Request) -> web.Response:
    await asyncio.sleep(30.0)
    return web.Response()


async def cut_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def moved(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"location": "https://evil.example/"})


def squeezed(_: web.Request) -> web.Response:
    return web.Response(body=b"x", headers={"content-encoding": "gzip"})


TOKENS = '{"access_token":"a","token_type":"Bearer","id_token":"%s"}'


@pytest.mark.parametrize(
    ("endpoint", "answer", "status"),
    [
        ("discovery", garbage("no", 500), 503),
        ("discovery", cut_off, 503),
        ("discovery", never, 503),
        ("discovery", garbage("[]"), 502),
        ("discovery", garbage("{"), 502),
        ("discovery", garbage("x" * 700_000), 502),
        ("discovery", garbage('{"issuer":"https://evil.example"}'), 502),
        ("discovery", moved, 502),
        ("discovery", squeezed, 502),
        ("discovery", garbage("no", 404), 502),
        ("token", garbage("no", 503), 503),
        ("token", garbage("no", 429), 503),
        ("token", never, 503),
        ("token", cut_off, 503),
        ("token", garbage("<html>"), 502),
        ("token", garbage("{}"), 502),
        ("token", garbage("[" * 100_000), 502),
        ("token", garbage('{"access_token":"a","token_type":"mac","id_token":"x"}'), 502),
        ("token", garbage('{"access_token":"a","token_type":"Bearer"}'), 502),
        ("token", garbage(TOKENS % "x"), 502),
        ("token", garbage(TOKENS % "eyJhbGciOiJub25lIn0.e30."), 502),
        ("token", garbage('{"error":"invalid_client"}', 401), 502),
        ("token", garbage('{"error":"invalid_grant"}', 400), 403),
        ("token", garbage('{"error":7}', 400), 502),
        ("token", garbage('{"error":"invalid_grant"}'), 403),
        ("token", moved, 502),
        ("keys", garbage("no", 500), 503),
        ("keys", garbage('{"keys":[]}'), 502),
        ("keys", garbage('{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k0"}]}'), 502),
        ("keys", never, 503),
    ],
    ids=range(30),
)
def test_a_provider_that_is_not_well_is_a_page_and_no_session(endpoint, answer, status):
    async def story() -> None:
        provider = Provider(answers={endpoint: answer})
        timeout_s = 0.3 if answer is never else 20.0
        async with scene(provider, timeout_s=timeout_s) as at, Visitor() as ada:
            page = await ada.get(f"{at.url}/x")
            assert page.status_code == status, page.text
            assert "Try again" in page.text and "request-7" in page.text
            assert not any(name == "hg_login" for name in ada.named("hg_login"))
            assert at.worker.notes

    run(story())


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"padding": "x" * 700_000}, "too large"),
        ({"token_endpoint": "ftp://x"}, "no https address"),
        ({"authorization_endpoint": "javascript:alert(1)//x"}, "no https address"),
        ({"authorization_endpoint": "https://x/a b"}, "no https address"),
        ({"end_session_endpoint": "https://u:p@x/"}, "no https address"),
        ({"jwks_uri": None}, "keys endpoint"),
        ({"token_endpoint": 7}, "token endpoint"),
    ],
    ids=range(8),
)
def test_what_a_provider_says_of_itself_must_make_sense(more, detail):
    async def story() -> None:
        async with scene(Provider(metadata_more=more)) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 502
            assert detail in at.worker.notes[-1][1]["detail"]

    run(story())


def test_a_provider_that_is_down_is_not_asked_by_everybody_and_comes_back():
    async def story() -> None:
        provider = Provider(answers={"discovery": garbage("no", 500)})
        async with scene(provider) as at, Visitor() as ada:
            pages = await asyncio.gather(*(ada.get(f"{at.url}/{n}") for n in range(20)))
            assert {page.status_code for page in pages} == {503}
            assert provider.calls.count("discovery") == 1
            del provider.answers["discovery"]
            at.method._provider._failed.clear()  # the pause is over
            assert (await ada.get(at.url)).status_code == 200

    run(story())


def test_discovery_outlives_an_outage_once_it_is_known():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            provider = at.method._provider
            now = [provider._clock()]
            provider._clock = lambda: now[0]
            now[0] += 7200.0
            at.provider.answers["discovery"] = garbage("no", 500)
            at.provider.answers["keys"] = garbage("no", 500)
            async with Visitor() as other:
                assert (await other.get(at.url)).status_code == 200

    run(story())


def test_new_keys_of_the_provider_are_found_and_strange_ones_ask_once():
    async def story() -> None:
        async with scene() as at:
            provider = at.method._provider
            now = [provider._clock()]
            provider._clock = lambda: now[0]
            async with Visitor() as ada:
                assert (await ada.get(at.url)).status_code == 200
            at.provider.key = 1
            at.provider.listed = (0, 1)
            now[0] += 60.0
            async with Visitor() as ada:
                assert (await ada.get(at.url)).status_code == 200
            assert at.provider.calls.count("keys") == 2
            at.provider.key = 2  # nobody lists it
            for _ in range(3):
                async with Visitor() as ada:
                    assert (await ada.get(at.url)).status_code == 502
            assert at.provider.calls.count("keys") == 2

    run(story())


def test_endpoints_without_https_are_not_used_unless_told():
    async def story() -> None:
        async with scene(insecure_http=False) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 502
            assert "no https address" in at.worker.notes[-1][1]["detail"]

    run(story())


# -- loops ---------------------------------------------------------------------------------------


def test_a_browser_that_comes_back_without_its_session_is_told_and_not_sent_round():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            answer = None
            for _ in range(LOOP_COUNT):
                answer = await ada.get(at.url)
                assert answer.status_code == 200
                ada.cookies.delete("hg_login")
            page = await ada.get(f"{at.url}/x")
            assert page.status_code == 403 and "Cookies may be blocked" in page.text
            assert at.provider.calls.count("authorize") == LOOP_COUNT
            again = re.search(r'href="([^"]+)"', page.text)
            assert again is not None
            link = again[1].replace("&amp;", "&")
            assert (await ada.get(f"{at.url}{link}")).json()["path"] == "/x"

    run(story())


# -- ways to be a client -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "basic", "post"])
def test_a_client_with_a_secret_proves_itself(how):
    async def story() -> None:
        async with scene(client_auth=how) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 200
            form = at.provider.forms[0]
            assert ("client_secret" in form) is (how == "post")

    run(story())


def test_a_client_goes_by_what_the_provider_supports():
    async def story() -> None:
        more = {"token_endpoint_auth_methods_supported": ["client_secret_post", "none"]}
        async with scene(Provider(metadata_more=more)) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 200
            assert "client_secret" in at.provider.forms[0]

    run(story())


def test_a_public_client_has_pkce_alone():
    async def story() -> None:
        async with scene(Provider(client_secret=""), client_secret="") as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 200
            assert at.provider.forms[0]["client_id"] == "shop"

    run(story())


def test_a_client_may_prove_itself_by_a_key():
    pem = key_number(3).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    async def story() -> None:
        async with scene(client_secret="") as at, Visitor() as ada:
            at.method._provider._client_key = ClientKey(pem, "k3")
            assert (await ada.get(at.url)).status_code == 200
            form = at.provider.forms[0]
            assert form["client_assertion_type"].endswith("jwt-bearer")
            head, body, _ = form["client_assertion"].split(".")
            assert head and body and "client_secret" not in form

    run(story())


def test_a_provider_that_does_not_know_pkce_is_not_used():
    async def story() -> None:
        more = {"code_challenge_methods_supported": ["plain"]}
        async with scene(Provider(metadata_more=more)) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 502

    run(story())


def test_userinfo_adds_claims_of_the_same_user_only():
    async def story() -> None:
        async with scene(userinfo=True) as at, Visitor() as ada:
            page = await ada.get(at.url)
            assert page.json()["claims"]["email"] == "ada@example.org"
        provider = Provider(answers={"userinfo": garbage('{"sub":"mallory"}')})
        async with scene(provider, userinfo=True) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 502

    run(story())


def test_plain_oauth_takes_the_user_from_userinfo_and_needs_no_discovery():
    async def story() -> None:
        provider = Provider(answers={"userinfo": garbage('{"id":7,"login":"ada","teams":["a"]}')})
        async with scene(provider) as first:
            at = first.provider.issuer
            endpoints = Endpoints(
                f"{at}/authorize?tenant=1", f"{at}/token", userinfo=f"{at}/userinfo"
            )
            async with (
                scene(
                    provider,
                    openid=False,
                    endpoints=endpoints,
                    scopes=("read",),
                    claim_names=ClaimNames(subject="id", groups="teams"),
                    claims=("login",),
                ) as plain,
                Visitor() as ada,
            ):
                said = (await ada.get(plain.url)).json()
                assert (said["subject"], said["groups"], said["scopes"]) == ("7", ["a"], ["read"])
                assert said["claims"]["login"] == "ada"
                assert "discovery" not in provider.calls and "keys" not in provider.calls

    run(story())


def test_roles_are_found_by_path():
    async def story() -> None:
        users = {"ada": {"realm_access": {"roles": ["a", "b"]}, "scope": "x y"}}
        names = ClaimNames(roles="realm_access.roles")
        async with scene(Provider(users=users), claim_names=names) as at, Visitor() as ada:
            said = (await ada.get(at.url)).json()
            assert said["roles"] == ["a", "b"] and said["scopes"] == ["x", "y"]

    run(story())


def test_access_tokens_are_kept_only_when_asked_for():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            assert (await ada.get(at.url)).json()["token"] == ""
        async with scene(pass_token=True) as at, Visitor() as ada:
            page = await ada.get(at.url)
            assert page.json()["token"] in at.provider.access_tokens
            assert page.json()["token"] not in json.dumps(page.json()["claims"])

    run(story())


# -- sizes ---------------------------------------------------------------------------------------


def test_a_large_session_takes_several_cookies_and_a_too_large_one_says_the_way_out():
    async def story() -> None:
        provider = Provider(users={"ada": {"email": "x" * 5000}})
        async with scene(provider, keep_id_token=False) as at, Visitor() as ada:
            assert (await ada.get(at.url)).json()["claims"]["email"] == "x" * 5000
            assert len([n for n in ada.named("hg_login") if n[-1].isdigit()]) >= 1
            provider.users["ada"]["email"] = "x" * 15_000
            ada.cookies.clear()
            page = await ada.get(at.url)
            assert page.status_code == 502 and "fewer claims" in page.text
            assert "scopes" in at.worker.notes[-1][1]["detail"]

    run(story())


def test_the_id_token_goes_first_when_there_is_no_room():
    async def story() -> None:
        provider = Provider(users={"ada": {"email": "x" * 6000}})
        async with scene(provider) as at, Visitor() as ada:
            assert (await ada.get(at.url)).status_code == 200
            await ada.get(f"{at.url}/.headgate/logout")
            assert "id_token_hint" not in provider.forms[-1]

    run(story())


# -- https ---------------------------------------------------------------------------------------


def test_behind_tls_cookies_are_of_this_host_only():
    async def story() -> None:
        async with scene() as at:
            seen = Seen(target="/.headgate/login?to=/x", is_tls=True)
            answer = await at.method.verify(seen, at.site.wall())  # type: ignore[misc]
            assert isinstance(answer, Instead)
            (cookie,) = (v for k, v in answer.headers if k == "set-cookie")
            assert cookie.startswith("__Host-hg_login.s")
            assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
            there = dict(answer.headers)["location"]
            assert (
                query_of(there)["redirect_uri"] == "https://shop.example/.headgate/login/callback"
            )

    run(story())


def test_a_cookie_of_the_plain_site_is_no_cookie_of_the_secure_one():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await ada.get(at.url)
            (value,) = (c.value or "" for c in ada.cookies.jar if c.name == "hg_login")
            headers = [(b"cookie", f"hg_login={value}".encode())]
            assert at.method.verify(Seen(headers=headers, is_tls=True), at.site.wall()) is None

    run(story())


def test_a_public_address_is_where_the_provider_sends_browsers_back_to():
    async def story() -> None:
        async with scene(public_url="https://shop.example") as at:
            fields = [(b"accept", b"text/html")]
            other = at.method.ask(Seen(target="/x", headers=fields, authority="www.shop.example"))
            own = at.method.ask(Seen(target="/x", headers=fields, authority="shop.example"))
            assert other is not None and own is not None
            path = "/.headgate/login?to=/x"
            assert dict(other.headers)["location"] == f"https://shop.example{path}"
            assert dict(own.headers)["location"] == path
            seen = Seen(target=path, authority="10.0.0.7:8080")
            answer = await at.method.verify(seen, at.site.wall())  # type: ignore[misc]
            assert isinstance(answer, Instead)
            back = query_of(dict(answer.headers)["location"])["redirect_uri"]
            assert back == "https://shop.example/.headgate/login/callback"

    run(story())


@pytest.mark.parametrize("authority", ["evil.example/x", "a b", "", "x@y", "a\r\nb"], ids=range(5))
def test_a_host_that_is_none_begins_no_log_in(authority):
    async def story() -> None:
        async with scene() as at:
            seen = Seen(target="/.headgate/login", authority=authority)
            answer = await at.method.verify(seen, at.site.wall())  # type: ignore[misc]
            assert isinstance(answer, Instead) and answer.status == 400

    run(story())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/.headgate/login/callback"),
        ("POST", "/.headgate/login/callback"),
        ("POST", "/.headgate/login"),
        ("DELETE", "/.headgate/logout"),
        ("GET", "/.headgate/ended"),
    ],
)
def test_other_methods_are_refused(method, path):
    async def story() -> None:
        async with scene() as at:
            found = at.method.verify(Seen(method=method, target=path), 0.0)
            assert isinstance(found, Instead) and found.status == 405

    run(story())


# -- names of what others rely on ----------------------------------------------------------------


def test_its_cookies_never_reach_a_service():
    async def story() -> None:
        async with scene() as at, Visitor() as ada:
            await returned_quietly(ada, at)
            names = {name.encode() for name in ada.named("hg_login")}
            assert len(names) >= 2 and names <= at.method.strips.cookies
            secure = {b"__Host-" + name for name in names}
            assert secure <= at.method.strips.cookies

    run(story())


async def returned_quietly(visitor: Visitor, at: Scene) -> None:
    await visitor.get(at.url)
    visitor.follow_redirects = False
    await visitor.get(f"{at.url}/.headgate/login")
    visitor.follow_redirects = True


def test_own_paths_are_named():
    async def story() -> None:
        async with scene() as at:
            assert at.method.own_paths == (
                "/.headgate/login",
                "/.headgate/login/callback",
                "/.headgate/logout",
                "/.headgate/ended",
            )
            assert dict(at.method.bodies) == {"/.headgate/ended": 65536}

    run(story())


# -- a real browser ------------------------------------------------------------------------------

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.slow
def test_a_real_browser_logs_in(tmp_path):
    chromium = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    assert chromium is not None, "this needs a browser: apt-get install chromium"

    async def story() -> None:
        async with scene(Provider(users={"ada": {"roles": ["x"]}})) as at:
            browser = await asyncio.create_subprocess_exec(
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
                f"--user-data-dir={tmp_path}",
                "--dump-dom",
                f"{at.url}/orders?x=1",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                page, _ = await browser.communicate()
            finally:
                if browser.returncode is None:
                    browser.kill()
                    await browser.wait()
            assert b'"subject": "ada"' in page and b'"path": "/orders?x=1"' in page
            # Its request for an icon began no second log-in.
            assert at.provider.calls.count("authorize") == 1

    run(story())
