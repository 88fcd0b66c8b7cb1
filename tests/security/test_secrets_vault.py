"""`Vault` against a real OpenBao: reading, logging in, tokens that end, outages, transit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.policy.breaker import BreakerRules
from headgate.security.secrets import (
    AppRole,
    Token,
    Vault,
    VaultAway,
    VaultDenied,
    VaultError,
    VaultMissing,
    VaultRefused,
    VaultRules,
    VaultSealed,
)
from headgate.wire import local_ca
from tests.security.openbao import OpenBao, Proxy, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bao(tmp_path_factory) -> Iterator[OpenBao]:
    with running(tmp_path_factory.mktemp("openbao") / "bao") as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OpenBao]:
    """One that a test may seal and kill."""
    with running(tmp_path / "bao") as server:
        yield server


@pytest.fixture
def proxy(bao: OpenBao) -> Iterator[Proxy]:
    found = Proxy(bao.port)
    yield found
    found.down()


def rules(url: str, login: Token | AppRole, **more: Any) -> VaultRules:
    fields: dict[str, Any] = {
        "timeout_s": 2.0,
        "budget_s": 5.0,
        "retries": 0,
        "breaker": BreakerRules(window_calls=10, minimum_calls=3, reset_s=0.2, reset_max_s=0.2),
    }
    return VaultRules(url=url, login=login, **{**fields, **more})


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(50.0):
            await story()

    asyncio.run(within())


async def until(what: Callable[[], Any], patience_s: float = 20.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)
    return found


# ---- reading and writing


def test_values_are_read_written_and_versioned(bao: OpenBao):
    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            assert await vault.write("shop/mail", {"password": "one", "port": 25}) == 1
            assert await vault.write("shop/mail", {"password": "two", "port": 25}) == 2
            secret = await vault.read("shop/mail")
            assert (secret.text("password"), secret["port"], secret.version) == ("two", 25, 2)
            assert await vault.get("shop/mail", "password") == "two"
            old = await vault.read("shop/mail", version=1)
            assert old.text("password") == "one"
            assert [one.number for one in await vault.versions("shop/mail")] == [1, 2]
            with pytest.raises(VaultMissing, match="shop/mail: port is not text"):
                secret.text("port")
            with pytest.raises(VaultMissing, match="shop/mail has no key nothing"):
                secret.text("nothing")
            assert "two" not in repr(secret)

    run(story)


def test_of_two_writers_the_second_is_refused(bao: OpenBao):
    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            await vault.write("shop/cas", {"a": "1"}, after=0)
            await vault.write("shop/cas", {"a": "2"}, after=1)
            with pytest.raises(VaultRefused, match="shop/cas"):
                await vault.write("shop/cas", {"a": "3"}, after=1)

    run(story)


def test_a_value_is_kept_for_a_while_and_read_once_by_many(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        bao.put("kept", {"a": "1"})
        async with Vault(rules(proxy.url, Token(bao.root), cache_s=60.0)) as vault:
            found = await asyncio.gather(*(vault.read("kept") for _ in range(50)))
            assert all(one is found[0] for one in found)
            bao.put("kept", {"a": "2"})
            assert (await vault.read("kept"))["a"] == "1"
            assert (await vault.read("kept", fresh=True))["a"] == "2"
            assert (await vault.read("kept"))["a"] == "2"

    run(story)


def test_a_path_in_another_mount_begins_with_a_slash(bao: OpenBao):
    async def story() -> None:
        bao.ask("POST", "sys/mounts/team", {"type": "kv", "options": {"version": "2"}})
        await asyncio.sleep(1.0)  # a new engine is being upgraded for a moment
        bao.put("app", {"k": "of the team"}, mount="team")
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            assert await vault.get("/team/app", "k") == "of the team"

    run(story)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("nowhere", VaultMissing, "nowhere: .* has no such path"),
        ("/nomount/x", VaultMissing, "no handler for route"),
        ("a/../../sys/seal", VaultRefused, "is no path"),
        ("a//b", VaultRefused, "is no path"),
        ("a?version=1", VaultRefused, "is no path"),
        ("a#b", VaultRefused, "is no path"),
        ("", VaultRefused, "a path has 1 to"),
        ("x" * 2000, VaultRefused, "a path has 1 to"),
        ("a\nb", VaultRefused, "is no path"),
        ("a%2f..", VaultRefused, "is no path"),
    ],
    ids=["none", "mount", "dots", "double", "query", "hash", "empty", "long", "line", "percent"],
)
def test_a_wrong_path_is_told_as_what_it_is(bao: OpenBao, path, error, words):
    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            with pytest.raises(error, match=words):
                await vault.read(path)

    run(story)


def test_a_deleted_version_is_missing_and_not_served_from_memory(bao: OpenBao):
    async def story() -> None:
        bao.put("gone", {"a": "1"})
        async with Vault(rules(bao.url, Token(bao.root), cache_s=0.0)) as vault:
            assert (await vault.read("gone"))["a"] == "1"
            bao.ask("DELETE", "secret/data/gone")
            with pytest.raises(VaultMissing):
                await vault.read("gone")

    run(story)


def test_an_engine_of_version_one_is_refused_in_words(bao: OpenBao):
    async def story() -> None:
        bao.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        bao.ask("POST", "old/data/x", {"a": "1"})
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            with pytest.raises(VaultRefused, match="version 2"):
                await vault.read("/old/x")

    run(story)


# ---- who may


def test_denied_is_told_apart_and_names_no_token(bao: OpenBao):
    async def story() -> None:
        policy = bao.policy("mine", {"secret/data/mine": ["read"]})
        bao.put("mine", {"a": "1"})
        bao.put("yours", {"a": "s3cret"})
        token = bao.token(policy)
        async with Vault(rules(bao.url, Token(token))) as vault:
            assert (await vault.read("mine"))["a"] == "1"
            with pytest.raises(VaultDenied) as caught:
                await vault.read("yours")
            assert token not in str(caught.value)
            assert "yours" in str(caught.value)

    run(story)


def test_what_was_taken_from_us_is_not_served_from_memory(bao: OpenBao):
    async def story() -> None:
        policy = bao.policy("brief", {"secret/data/brief": ["read"]})
        bao.put("brief", {"a": "1"})
        async with Vault(rules(bao.url, Token(bao.token(policy)), cache_s=0.0)) as vault:
            await vault.read("brief")
            bao.policy("brief", {"secret/data/other": ["read"]})
            with pytest.raises(VaultDenied):
                await vault.read("brief")

    run(story)


@pytest.mark.parametrize("login", ["token", "role"])
def test_a_wrong_log_in_is_told_without_what_it_tried(bao: OpenBao, login):
    async def story() -> None:
        role, _ = bao.approle("wrong", "default")
        tried: Token | AppRole = Token("s.canary") if login == "token" else AppRole(role, "canary")
        async with Vault(rules(bao.url, tried)) as vault:
            with pytest.raises(VaultDenied) as caught:
                await vault.read("ready")
            assert "canary" not in str(caught.value)
            assert "canary" not in repr(caught.value)

    run(story)


def test_a_role_logs_in_with_a_secret_from_a_file(bao: OpenBao, tmp_path: Path):
    async def story() -> None:
        role, secret = bao.approle("files", bao.policy("r", {"secret/data/*": ["read"]}))
        (tmp_path / "id").write_text(f"{secret}\n")
        login = AppRole(role, secret_id_file=tmp_path / "id")
        async with Vault(rules(bao.url, login)) as vault:
            assert (await vault.read("ready"))["is"] == "yes"
            assert vault.snapshot().log_ins == 1
            assert secret not in repr(vault.rules) + repr(vault)

    run(story)


# ---- tokens end


def test_a_token_is_renewed_before_it_ends(bao: OpenBao):
    async def story() -> None:
        policy = bao.policy("r", {"secret/data/*": ["read"]})
        token = bao.token(policy, ttl="2s", explicit_max_ttl="1h")
        async with Vault(rules(bao.url, Token(token), cache_s=0.0)) as vault:
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                assert (await vault.read("ready"))["is"] == "yes"
                await asyncio.sleep(0.2)
            assert vault.snapshot().log_ins == 1

    run(story)


def test_a_role_logs_in_again_before_its_token_can_live_no_longer(bao: OpenBao):
    async def story() -> None:
        role, secret = bao.approle(
            "short",
            bao.policy("r", {"secret/data/*": ["read"]}),
            token_ttl="2s",
            token_max_ttl="3s",
        )
        async with Vault(rules(bao.url, AppRole(role, secret), cache_s=0.0)) as vault:
            await vault.read("ready")
            await until(lambda: vault.snapshot().log_ins >= 3)
            assert (await vault.read("ready"))["is"] == "yes"

    run(story)


def test_a_revoked_token_of_a_role_is_replaced_within_the_request(bao: OpenBao):
    async def story() -> None:
        role, secret = bao.approle("revoked", bao.policy("r", {"secret/data/*": ["read"]}))
        async with Vault(rules(bao.url, AppRole(role, secret), cache_s=0.0)) as vault:
            await vault.read("ready")
            assert vault._session.logged_in is not None
            await asyncio.sleep(1.1)
            bao.revoke(vault._session.logged_in.token)
            found = await asyncio.gather(*(vault.read("ready", fresh=True) for _ in range(8)))
            assert {one["is"] for one in found} == {"yes"}
            assert vault.snapshot().log_ins == 2

    run(story)


def test_a_token_file_is_read_again_when_its_token_ends(bao: OpenBao, tmp_path: Path):
    async def story() -> None:
        policy = bao.policy("r", {"secret/data/*": ["read"]})
        file = tmp_path / "token"
        file.write_text(bao.token(policy))
        async with Vault(rules(bao.url, Token(file=file), cache_s=0.0)) as vault:
            await vault.read("ready")
            await asyncio.sleep(1.1)
            bao.revoke(file.read_text())
            file.write_text(bao.token(policy) + "\n")
            assert (await vault.read("ready"))["is"] == "yes"

    run(story)


def test_closing_gives_back_the_token_of_a_role_but_not_one_we_were_given(bao: OpenBao):
    async def story() -> None:
        policy = bao.policy("r", {"secret/data/*": ["read"]})
        given = bao.token(policy)
        role, secret = bao.approle("back", policy)
        tokens = []
        for login in (Token(given), AppRole(role, secret)):
            async with Vault(rules(bao.url, login)) as vault:
                await vault.read("ready")
                assert vault._session.logged_in is not None
                tokens.append(vault._session.logged_in.token)
        assert bao.ask("GET", "auth/token/lookup-self", token=tokens[0])
        with pytest.raises(RuntimeError, match="403"):
            bao.ask("GET", "auth/token/lookup-self", token=tokens[1])
        with pytest.raises(VaultRefused, match="closed"):
            await vault.read("ready")

    run(story)


# ---- outages


def test_sealed_killed_and_back(own: OpenBao):
    async def story() -> None:
        own.put("kept", {"a": "1"})
        own.put("other", {"a": "1"})
        async with Vault(rules(own.url, Token(own.root), cache_s=0.0)) as vault:
            assert not (await vault.read("kept")).is_stale
            own.seal()
            with pytest.raises(VaultSealed, match="is sealed"):
                await vault.read("other")
            for _ in range(5):  # also when the breaker has opened
                stale = await vault.read("kept")
                assert (stale["a"], stale.is_stale) == ("1", True)
                with pytest.raises(VaultSealed):
                    await vault.read("kept", stale_ok=False)
            own.unseal()

            async def is_back() -> bool:
                try:
                    return (await vault.read("other", stale_ok=False))["a"] == "1"
                except (VaultSealed, VaultAway):
                    return False

            while not await is_back():
                await asyncio.sleep(0.05)
            own.kill()
            with pytest.raises(VaultAway, match="cannot be reached"):
                await vault.read("nothing")
            assert (await vault.read("other")).is_stale
            await asyncio.to_thread(own.launch)
            with pytest.raises((VaultSealed, VaultAway)):
                await vault.read("nothing")
            await asyncio.to_thread(own.unseal)
            while not await is_back():
                await asyncio.sleep(0.05)
            assert not (await vault.read("kept")).is_stale

    run(story)


def test_an_old_value_is_not_used_beyond_its_bound(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        bao.put("aging", {"a": "1"})
        bounds = {"cache_s": 0.0, "stale_s": 0.5}
        async with Vault(rules(proxy.url, Token(bao.root), **bounds)) as vault:
            await vault.read("aging")
            proxy.down()
            assert (await vault.read("aging")).is_stale
            await asyncio.sleep(0.6)
            with pytest.raises(VaultAway):
                await vault.read("aging")

    run(story)


def test_the_breaker_spares_a_vault_that_is_away_and_finds_it_again(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        bao.put("back", {"a": "1"})
        async with Vault(rules(proxy.url, Token(bao.root))) as vault:
            proxy.down()
            for _ in range(4):
                with pytest.raises(VaultAway):
                    await vault.read("back")
            assert vault.snapshot().breaker == "open"
            began = time.monotonic()
            with pytest.raises(VaultAway, match="left alone"):
                await vault.read("back")
            assert time.monotonic() - began < 1.0
            proxy.up()
            while vault.snapshot().breaker != "closed":
                try:
                    await vault.read("back", fresh=True)
                except VaultAway:
                    await asyncio.sleep(0.05)
            assert (await vault.read("back"))["a"] == "1"

    run(story)


def test_a_silent_network_ends_at_the_time_out_and_blocks_no_loop(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        slow = {"timeout_s": 0.5, "budget_s": 0.8, "threads": 2}
        async with Vault(rules(proxy.url, Token(bao.root), **slow)) as vault:
            await vault.read("ready")
            proxy.is_silent = True
            turns = 0

            async def tick() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.create_task(tick())
            began = time.monotonic()
            found = await asyncio.gather(
                *(vault.read(f"nothing{i}") for i in range(8)), return_exceptions=True
            )
            took_s = time.monotonic() - began
            ticking.cancel()
            assert all(isinstance(one, VaultAway) for one in found), found
            assert took_s < 2.0
            assert turns > 20

    run(story)


def test_a_slow_network_is_waited_for(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        proxy.delay_s = 0.3
        async with Vault(rules(proxy.url, Token(bao.root))) as vault:
            assert (await vault.read("ready"))["is"] == "yes"

    run(story)


def test_one_broken_connection_is_tried_again(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        async with Vault(rules(proxy.url, Token(bao.root), retries=2, cache_s=0.0)) as vault:
            await vault.read("ready")
            proxy.break_off()
            proxy.refuse_next = 1
            assert (await vault.read("ready", stale_ok=False))["is"] == "yes"
            assert proxy.refuse_next == 0

    run(story)


def test_a_cancelled_caller_leaves_the_others_their_answer(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        proxy.delay_s = 0.2
        async with Vault(rules(proxy.url, Token(bao.root))) as vault:
            first = asyncio.create_task(vault.read("ready"))
            second = asyncio.create_task(vault.read("ready"))
            await asyncio.sleep(0.05)
            first.cancel()
            assert (await second)["is"] == "yes"
            with pytest.raises(asyncio.CancelledError):
                await first

    run(story)


def test_what_is_no_vault_is_away_and_quoted_only_briefly(tmp_path: Path):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kind = kinds[b"lookup" not in head]
        writer.write(kind)
        writer.close()

    page = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\nx"
    kinds = [page, page]

    async def story() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            for kind in (page, moved, endless):
                kinds[:] = [kind, kind]
                async with Vault(rules(url, Token("s.canary"))) as vault:
                    with pytest.raises(VaultAway) as caught:
                        await vault.read("x")
                    assert "canary" not in str(caught.value)

    run(story)


def test_a_certificate_is_checked_against_the_authority_that_is_named(tmp_path: Path):
    (tmp_path / "state").mkdir(mode=0o700)
    made = local_ca.ensure(tmp_path / "state", ["127.0.0.1"], time.time())

    async def story(url: str, token: str) -> None:
        async with Vault(rules(url, Token(token))) as vault:
            with pytest.raises(VaultAway, match="certificate that is not trusted; ca_file"):
                await vault.read("ready")
        async with Vault(rules(url, Token(token), ca_file=made.ca_path)) as vault:
            assert (await vault.read("ready"))["is"] == "yes"

    with running(tmp_path / "bao", tls=(made.path, made.path)) as bao:
        run(lambda: story(f"https://127.0.0.1:{bao.tls_port}", bao.root))


def test_nothing_of_the_environment_or_the_home_is_used(bao: OpenBao, tmp_path: Path, monkeypatch):
    (tmp_path / ".vault-token").write_text("s.canary")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    for name, value in {
        "HOME": str(tmp_path),
        "VAULT_ADDR": "http://127.0.0.1:1",
        "VAULT_TOKEN": "s.canary",
        "VAULT_NAMESPACE": "nowhere",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "REQUESTS_CA_BUNDLE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)

    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            assert (await vault.read("ready"))["is"] == "yes"

    run(story)


def test_who_waits_when_it_is_closed_is_told_and_not_cancelled(bao: OpenBao, proxy: Proxy):
    async def story() -> None:
        async with Vault(rules(proxy.url, Token(bao.root))) as vault:
            await vault.read("ready")
            proxy.is_silent = True
            waiting = asyncio.create_task(vault.read("other"))
            await asyncio.sleep(0.1)
        with pytest.raises(VaultAway, match="closed meanwhile"):
            await waiting

    run(story)


def test_a_redirect_does_not_take_the_token_along():
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        place = f"{urls[-1]}/elsewhere"
        line = f"HTTP/1.1 307 Moved\r\nlocation: {place}\r\ncontent-length: 0\r\n"
        writer.write(f"{line}connection: close\r\n\r\n".encode())
        writer.close()

    urls: list[str] = []

    async def story() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with Vault(rules(urls[0], Token("s.canary"))) as vault:
                with pytest.raises(VaultAway):
                    await vault.read("x")
        assert heads
        assert not any(b"elsewhere" in head for head in heads)

    run(story)


ODD: list[Any] = [
    None,
    [],
    {},
    "text",
    1,
    {"data": None},
    {"data": []},
    {"data": {"data": None, "metadata": None}},
    {"data": {"data": [], "metadata": {"version": {}}}},
    {"data": {"versions": {"x": None}}, "auth": {}, "wrap_info": []},
    {"data": {"versions": []}, "auth": {"client_token": 1}, "wrap_info": {}},
    {"data": {"batch_results": None}, "lease_duration": "x", "lease_id": None},
    {"data": {"batch_results": [None]}, "lease_duration": -1},
    {"data": {"batch_results": [{"ciphertext": []}] * 3}},
    {"data": {"batch_results": [{"plaintext": "%"}]}},
    {"data": {"username": None, "password": 1}, "lease_duration": 1e999, "renewable": 1},
]


def test_odd_answers_are_errors_of_ours_whatever_is_asked():
    answers: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        good = {"data": {"ttl": 0, "renewable": False}}
        text = json.dumps(good if b"lookup-self" in head else answers[0]).encode()
        line = f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        writer.write(line.encode() + text)
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            patient = BreakerRules(mode="disabled")
            async with Vault(rules(url, Token("s.canary"), breaker=patient)) as vault:
                transit = vault.transit("key")
                for odd in ODD:
                    answers[:] = [odd]
                    for ask in (
                        lambda: vault.read("x", fresh=True, stale_ok=False),
                        lambda: vault.write("x", {}),
                        lambda: vault.versions("x"),
                        lambda: vault.wrap({}),
                        lambda: vault.unwrap("t"),
                        lambda: transit.encrypt_many([b"a"]),
                        lambda: transit.decrypt_many(["b"]),
                        lambda: transit.rewrap_many(["c"]),
                        lambda: vault.database_role("r").take(),
                    ):
                        try:
                            await ask()
                        except VaultError as error:
                            assert "canary" not in str(error)
            async with Vault(rules(url, AppRole("r", "s"), breaker=patient)) as vault:
                for odd in ODD:
                    answers[:] = [odd]
                    with pytest.raises(VaultError):
                        await vault.read("x")

    run(story)


# ---- transit and wrapping


def test_fields_are_encrypted_bound_to_their_row_and_rewrapped(bao: OpenBao):
    async def story() -> None:
        bao.enable("transit")
        bao.ask("POST", "transit/keys/rows", {})
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            rows = vault.transit("rows")
            sealed = await rows.encrypt("4111", about="card:1")
            assert sealed.startswith("vault:v1:")
            assert await rows.decrypt(sealed, about="card:1") == b"4111"
            with pytest.raises(VaultRefused, match="number 0 of the batch"):
                await rows.decrypt(sealed, about="card:2")
            plains: list[bytes | str] = [b"%d" % i for i in range(600)]
            many = await rows.encrypt_many(plains)
            assert await rows.decrypt_many(many) == plains
            bao.ask("POST", "transit/keys/rows/rotate", {})
            newer = await rows.rewrap_many(many)
            assert all(one.startswith("vault:v2:") for one in newer)
            assert await rows.decrypt_many(newer) == plains
            assert await rows.encrypt_many([]) == []

    run(story)


def test_the_damaged_one_of_a_batch_is_named_by_its_number(bao: OpenBao):
    async def story() -> None:
        bao.enable("transit")
        bao.ask("POST", "transit/keys/some", {})
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            some = vault.transit("some")
            sealed = await some.encrypt_many([b"a", b"b", b"c"])
            sealed[1] = sealed[1][:-6] + "AAAAA="
            with pytest.raises(VaultRefused, match="number 1 of the batch"):
                await some.decrypt_many(sealed)
            with pytest.raises((VaultRefused, VaultMissing)):
                await vault.transit("nokey").decrypt(sealed[0])

    run(story)


def test_a_wrapped_value_is_had_once(bao: OpenBao):
    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            token = await vault.wrap({"password": "x"}, ttl_s=60)
            assert await vault.unwrap(token) == {"password": "x"}
            with pytest.raises(VaultRefused) as caught:
                await vault.unwrap(token)
            assert token not in str(caught.value)

    run(story)


def test_rules_that_cannot_be_followed_are_refused_at_once():
    with pytest.raises(VaultRefused, match="the URL must be https"):
        Vault(VaultRules(url="vault", login=Token("x")))
    with pytest.raises(VaultRefused, match="give a token or the file"):
        Vault(VaultRules(url="http://vault", login=Token()))
    assert "s3cret" not in repr(VaultRules(url="http://v", login=Token("s3cret")))
    assert "s3cret" not in repr(AppRole("r", "s3cret"))
