"""Who asks, by the gateway's token; and the other dependencies for FastAPI."""

import asyncio
import json
import time
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket

from headgate.cache import Cache
from headgate.kit import harden
from headgate.kit.fastapi import cache, current_user, flag, forwarded, limited
from headgate.kit.flags import Flags
from headgate.kit.problems import Problem
from headgate.kit.serving import NotHardened
from headgate.kit.who_asks import WhoAsks
from headgate.observe import Registry
from headgate.security.identity import Identity
from tests.kit.rig import ask, living
from tests.ports import free_port
from tests.shop.signing import HEADER, Signer

USER = Annotated[Identity, Depends(current_user())]
ADMIN = Annotated[Identity, Depends(current_user(roles=("admin", "boss")))]
ANYBODY = Annotated[Identity | None, Depends(current_user(optional=True))]


async def subject_of(who_asks: WhoAsks, headers: Any) -> str:
    found = await who_asks.find(headers)
    assert found is not None
    return found.subject


async def look_again(who_asks: WhoAsks) -> None:
    """As it does now and then."""
    source: Any = who_asks._method._source
    await source.look_again()


def app_of(**wishes):
    app = FastAPI()

    @app.get("/me")
    async def me(user: USER):
        return {
            "subject": user.subject,
            "roles": sorted(user.roles),
            "tier": user.tier,
            "method": user.method,
        }

    @app.get("/admin")
    async def admin(user: ADMIN):
        return user.subject

    @app.get("/anybody")
    async def anybody(user: ANYBODY):
        return None if user is None else user.subject

    @app.get("/forward")
    async def forward(request: Request):
        return forwarded(request)

    wishes.setdefault("registry", Registry())
    wishes.setdefault("off", {"logs"})
    return harden(app, service="shop", **wishes)


def get(app, path, headers=(), **more):
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    return asyncio.run(ask(app, path=path, headers=pairs, **more))


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path)


@pytest.fixture
def app(signer):
    return app_of(identity_keys=signer.keys, audience="shop")


def test_the_gateways_token_says_who_asks(app, signer):
    headers = signer.headers("ada", "user", tier="gold", method="jwt")
    got = get(app, "/me", headers)
    assert got.status == 200
    assert got.json() == {"subject": "ada", "roles": ["user"], "tier": "gold", "method": "jwt"}
    assert got.json() == get(app, "/me", headers).json()  # from the cache


def test_without_a_token_nobody_asks(app):
    got = get(app, "/me")
    assert got.status == 401
    assert got["www-authenticate"] == "Bearer"
    assert got.json()["code"] == "sign_in"
    assert get(app, "/anybody").json() is None


def test_one_of_the_roles_is_needed(app, signer):
    assert get(app, "/admin", signer.headers("ada", "user")).status == 403
    assert get(app, "/admin", signer.headers("ada")).json()["code"] == "role_missing"
    assert get(app, "/admin", signer.headers("eva", "user", "boss")).status == 200


def wrong(signer, tmp_path):
    other = Signer(tmp_path / "other")
    good = signer.headers("ada")[HEADER]
    head, claims, signature = good.split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    return {
        "of another key": other.headers("ada")[HEADER],
        "for another service": signer.headers("ada", audience="vault")[HEADER],
        "over": signer.headers("ada", wall=time.time() - 4000)[HEADER],
        "of tomorrow": signer.headers("ada", wall=time.time() + 86_400)[HEADER],
        "unsigned": f"{none}.{claims}.",
        "with another signature": f"{head}.{claims}.{signature[::-1]}",
        "cut": good[:-10],
        "no token": "ada",
        "long": "e" * 100_000,
        "three dots": "ey...",
    }


def test_tokens_that_do_not_hold_are_refused(app, signer, tmp_path):
    for what, token in wrong(signer, tmp_path).items():
        for path in ("/me", "/anybody"):
            got = get(app, path, [(HEADER, token)])
            assert got.status == 401, what
            assert token[:50] not in got.body.decode() or len(token) < 6, what


def test_two_tokens_are_one_too_many(app, signer):
    pair = [*signer.headers("ada").items(), *signer.headers("eva").items()]
    assert get(app, "/me", pair).status in {400, 401}


def test_a_token_that_was_verified_is_not_believed_beyond_its_end(signer):
    now = 1_000_000.0

    async def work():
        nonlocal now
        who_asks = WhoAsks(signer.keys, audience="shop", clock=lambda: now)
        token = signer.headers("ada", wall=now, ttl_s=60)[HEADER].encode()
        headers = [(HEADER.encode(), token)]
        assert await subject_of(who_asks, headers) == "ada"
        now += 59
        assert await subject_of(who_asks, headers) == "ada"
        now += 60
        with pytest.raises(Problem, match="expired"):
            await who_asks.find(headers)
        assert who_asks.snapshot()["verified"]["count"] <= 1
        await who_asks.close()

    asyncio.run(work())


def test_what_was_verified_is_kept_within_bounds(signer):
    async def work():
        who_asks = WhoAsks(signer.keys, audience="shop")
        for number in range(200):
            token = signer.headers(f"u{number}")[HEADER].encode()
            await who_asks.find([(HEADER.encode(), token)])
        assert who_asks.snapshot()["verified"]["count"] == 200
        await who_asks.close()

    asyncio.run(work())


def test_a_file_of_keys_that_cannot_be_read_any_more_leaves_the_last_good_ones(signer, tmp_path):
    async def work():
        who_asks = WhoAsks(signer.keys, audience="shop")
        headers = [(HEADER.encode(), signer.headers("ada")[HEADER].encode())]
        who_asks.start()
        (tmp_path / "identity.jwks").write_text("{")
        await look_again(who_asks)
        assert await subject_of(who_asks, headers) == "ada"
        other = Signer(tmp_path / "other")
        (tmp_path / "identity.jwks").write_text((tmp_path / "other/identity.jwks").read_text())
        await look_again(who_asks)
        with pytest.raises(Problem):
            await who_asks.find(headers)
        new = [(HEADER.encode(), other.headers("eva")[HEADER].encode())]
        assert await subject_of(who_asks, new) == "eva"
        await who_asks.close()

    asyncio.run(work())


@pytest.mark.integration
def test_keys_are_fetched_and_kept_when_their_source_goes_away(signer, tmp_path):
    keys = (tmp_path / "identity.jwks").read_bytes()
    port = free_port()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(keys), keys)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def work():
        url = f"http://127.0.0.1:{port}/api/identity/keys"
        app = app_of(identity_keys=url, audience="shop")
        headers = list(signer.headers("ada").items())
        server = await asyncio.start_server(answer, "127.0.0.1", port)
        async with living(app):
            got = await ask(app, path="/me", headers=headers)
            assert got.status == 200, got.body
            server.close()
            await server.wait_closed()
            assert (await ask(app, path="/me", headers=headers)).status == 200
            new = list(signer.headers("eva").items())
            assert (await ask(app, path="/me", headers=new)).status == 200

    asyncio.run(work())


@pytest.mark.integration
def test_while_no_key_is_known_nobody_is_let_in_and_told_to_come_back(signer):
    async def work():
        app = app_of(identity_keys=f"http://127.0.0.1:{free_port()}/keys", audience="shop")
        async with living(app):
            return await ask(app, path="/me", headers=list(signer.headers("ada").items()))

    got = asyncio.run(work())
    assert got.status == 503
    assert got["retry-after"]


def test_who_asks_is_passed_on(app, signer):
    headers = {**signer.headers("ada"), "x-request-id": "one"}
    assert get(app, "/forward", headers).json() == headers
    assert set(get(app, "/forward").json()) == {"x-request-id"}


def test_loops_may_follow_each_other(app, signer):
    for _ in range(3):
        assert get(app, "/me", signer.headers("ada")).status == 200


def test_a_websocket_knows_who_asks(signer):
    app = FastAPI()

    @app.websocket("/talk")
    async def talk(socket: WebSocket, user: USER):
        await socket.accept()
        await socket.send_text(user.subject)
        await socket.close()

    harden(app, identity_keys=signer.keys, audience="shop", registry=Registry())
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/talk",
        "root_path": "",
        "query_string": b"",
        "headers": [(HEADER.encode(), signer.headers("ada")[HEADER].encode())],
        "subprotocols": [],
    }
    asyncio.run(app(scope, receive, send))
    assert {"type": "websocket.send", "text": "ada"} in sent


def test_dependencies_say_what_is_missing():
    plain = FastAPI()

    @plain.get("/me")
    async def me(user: USER):
        return user.subject

    with pytest.raises(NotHardened, match="harden"):
        asyncio.run(ask(plain, path="/me"))
    assert get(app_of(), "/me").status == 500


# ---- limits, cache, flags


def test_a_limit_counts_for_each_user_and_for_each_address(signer):
    app = FastAPI()

    @app.get("/search", dependencies=[Depends(limited("2/min"))])
    async def search():
        return []

    harden(app, identity_keys=signer.keys, audience="shop", registry=Registry())
    ada, eva = signer.headers("ada"), signer.headers("eva")
    first = get(app, "/search", ada)
    assert first.status == 200
    assert first["ratelimit"] == '"limited";r=1;t=30'
    assert get(app, "/search", ada).status == 200
    refused = get(app, "/search", ada)
    assert refused.status == 429
    assert refused["retry-after"]
    assert refused.json()["code"] == "rate_limited"
    assert get(app, "/search", eva).status == 200
    assert get(app, "/search").status == 200
    forged = [(HEADER, "forged")]
    assert get(app, "/search", forged).status == 200
    assert get(app, "/search", forged).status == 429  # it counts for the address
    assert get(app, "/search", client=("10.0.0.1", 1)).status == 200


def test_what_a_limit_counts_for_can_be_said():
    app = FastAPI()
    guard = limited("1/min", key=lambda request: request.headers.get("x-tenant", ""), name="t")

    @app.get("/a", dependencies=[Depends(guard)])
    @app.get("/b", dependencies=[Depends(guard)])
    async def both():
        return []

    harden(app, registry=Registry())
    assert get(app, "/a", [("x-tenant", "one")]).status == 200
    assert get(app, "/b", [("x-tenant", "one")]).status == 429
    assert get(app, "/b", [("x-tenant", "two")]).status == 200


def test_the_cache_is_handed_over_and_lives_with_the_app():
    kept = Cache()
    app = FastAPI()

    @app.get("/sum")
    async def total(cache: Annotated[Cache, Depends(cache())]):
        return await cache.get_or_set("sum", lambda: 42)

    harden(app, cache=kept, off={"logs"}, registry=Registry())

    async def work():
        async with living(app):
            first = await ask(app, path="/sum")
            metrics = await ask(app, path="/metrics")
            return first, metrics

    first, metrics = asyncio.run(work())
    assert first.json() == 42
    assert b"cache" in metrics.body
    assert kept.core.is_closed


def test_a_flag_is_on_off_or_for_a_share_of_users(signer):
    app = FastAPI()

    @app.get("/flags")
    async def flags(
        new: Annotated[bool, Depends(flag("new"))],
        old: Annotated[bool, Depends(flag("old"))],
        some: Annotated[bool, Depends(flag("some"))],
        unknown: Annotated[bool, Depends(flag("unknown", default=True))],
    ):
        return [new, old, some, unknown]

    @app.get("/missing")
    async def missing(it: Annotated[bool, Depends(flag("missing"))]):
        return it

    harden(
        app,
        flags={"new": True, "old": False, "some": "50%"},
        identity_keys=signer.keys,
        audience="shop",
        registry=Registry(),
    )
    seen = []
    for number in range(40):
        headers = signer.headers(f"u{number}")
        new, old, some, unknown = get(app, "/flags", headers).json()
        assert (new, old, unknown) == (True, False, True)
        assert get(app, "/flags", headers).json()[2] == some  # the same answer for the same user
        seen.append(some)
    assert 5 < sum(seen) < 35
    assert get(app, "/missing").status == 500


def test_flags_are_switched_by_hand():
    now = 0.0
    flags = Flags({"beta": False}, clock=lambda: now)
    flags.set("beta", True, for_s=10, why="a try")
    assert flags.is_on("beta")
    assert flags.snapshot()[0].why == "a try"
    now = 11.0
    assert not flags.is_on("beta")
    flags.set("beta", "100%")
    assert flags.is_on("beta", "ada")
    flags.clear("beta")
    assert not flags.is_on("beta", "ada")
    with pytest.raises(ValueError, match="gamma"):
        flags.set("gamma", True)


def test_the_app_can_be_called_by_httpx(app, signer):
    async def work():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            got = await client.get("/me", headers=signer.headers("ada", "user"))
            return got.json()

    assert asyncio.run(work())["subject"] == "ada"
    assert json.dumps(asyncio.run(work()))
