"""Where keys come from: files that change, issuers that rotate, are away, slow or hostile."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import os
import random
import ssl
import time

import pytest

from headgate.security.method import Refused, Verified
from headgate.security.method_jwt import JwtMethod
from headgate.security.tokens.fetch import (
    Fetched,
    FetchFailed,
    discovery_urls,
    max_age_of,
    read_discovery,
    shown_url,
    url_fault,
)
from headgate.security.tokens.remote import MAX_UNKNOWN, RemoteKeys
from headgate.security.tokens.rules import RemoteRules
from headgate.security.tokens.source import FileKeys
from tests.security.jwt_tokens import (
    NOW,
    bearer,
    claims,
    http_answer,
    issuer,
    jwk,
    jwks,
    jwt_rules,
    private_pem,
    process,
    public_pem,
    token,
    token_rules,
)

pytestmark = pytest.mark.integration


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def remote(url: str, clock=None, **more) -> JwtMethod:
    rules = RemoteRules(**{"url": url, "timeout_s": 5.0, "wait_s": 5.0, **more})
    return JwtMethod(jwt_rules(remote=rules), clock=clock or (lambda: NOW))


async def ask(method: JwtMethod, text: bytes, wall: float = NOW) -> str:
    found = method.verify(bearer(text), wall)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, Refused):
        return f"{found.status} {found.error}"
    return "good" if isinstance(found, Verified) else "not ours"


async def until(condition) -> None:
    """Bounded; what it waits for comes by itself."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def run(work) -> None:
    async def bounded():
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def always(answer: bytes):
    async def say(_issuer, _path) -> bytes:
        return answer

    return say


K1 = jwk("ES256", "k1")
K2 = jwk("ES256", "k2", index=1)
T1 = token(kid="k1")
T2 = token(kid="k2", index=1)


# -- a file ----------------------------------------------------------------------------------


def test_a_file_is_read_when_the_method_is_built(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [K1]}))
    method = JwtMethod(jwt_rules(keys_file=str(path)))
    assert isinstance(method.verify(bearer(T1), NOW), Verified)


@pytest.mark.parametrize(
    "content, said",
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param(b"", "neither PEM nor", id="empty"),
        pytest.param(b"x" * 2_000_000, "more than", id="huge"),
        pytest.param(private_pem("ES256"), "-pubout", id="private"),
        pytest.param(json.dumps(jwk("HS256")).encode(), "write algorithms: [HS256]", id="not-allowed"),
    ],
)  # fmt: skip
def test_a_file_that_must_not_be_used_is_a_fault_of_the_configuration(tmp_path, content, said):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    rules = jwt_rules(token_rules(algorithms=frozenset({"ES256"})), keys_file=str(path))
    with pytest.raises(ValueError, match="keys_file: ") as error:
        JwtMethod(rules)
    assert said in str(error.value)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="keys_file"):
        JwtMethod(jwt_rules(keys_file=str(tmp_path / "pipe")))


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "keys.pem"
    path.write_bytes(public_pem("ES256"))

    async def work():
        async with process() as parts:
            method = JwtMethod(jwt_rules(keys_file=str(path), poll_s=0.01), clock=lambda: NOW)
            method.start(parts)
            assert await ask(method, T1) == "good"
            replacement = tmp_path / "next"
            replacement.write_bytes(public_pem("ES256", 1))
            replacement.rename(path)
            await until(lambda: method.generation == 1)
            assert await ask(method, T1) == "401 bad_signature"
            assert await ask(method, T2) == "good"
            for broken in (b"garbage", private_pem("ES256"), None):
                if broken is None:
                    path.unlink()
                else:
                    path.write_bytes(broken)
                source = method._source
                source.last_error = ""
                await until(lambda source=source: source.last_error)
                assert await ask(method, T2) == "good"
            path.write_bytes(public_pem("ES256"))
            await until(lambda: method.generation == 2)
            assert await ask(method, T1) == "good"
            assert method.snapshot(NOW)["keys"]["last_error"] == ""
            method.close()
            await asyncio.gather(*parts.tasks, return_exceptions=True)

    run(work)


def test_a_touched_file_changes_nothing(tmp_path):
    path = tmp_path / "keys.pem"
    path.write_bytes(public_pem("ES256"))

    async def work():
        source = FileKeys(str(path), 1.0)
        heard = []
        async with process() as parts:
            source.use(parts, lambda: heard.append(1))
            keys = source.keys
            await source.look_again()
            assert source.keys is keys
            os.utime(path, (1, 1))
            await source.look_again()
            assert heard == []

    run(work)


# -- an issuer -------------------------------------------------------------------------------


def test_the_first_requests_wait_for_the_first_keys():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            got = await asyncio.gather(*(ask(method, T1) for _ in range(20)))
            assert got == ["good"] * 20
            assert len(served.asked) == 1
            assert method.generation == 1
            told = method.snapshot(NOW + 7)["keys"]
            assert told["age_s"] == 7.0 and told["is_known"]

    run(work)


def test_before_it_is_started_nothing_is_known():
    async def work():
        assert await ask(remote("http://127.0.0.1:1"), T1) == "503 keys_unknown"

    run(work)


def test_an_issuer_that_is_down_is_asked_again_until_it_is_there():
    async def work():
        away = always(http_answer(b"", "503 Service Unavailable"))
        async with issuer(away) as served, process() as parts:
            method = remote(served.url, refresh_s=0.02)
            method.start(parts)
            assert await ask(method, T1) == "503 keys_unknown"
            told = method.snapshot(NOW)["keys"]
            assert "answers 503" in told["last_error"] and not told["is_known"]
            served.answer = always(jwks(K1))
            await until(lambda: method._source.keys)
            assert await ask(method, T1) == "good"

    run(work)


def test_while_nothing_is_known_and_nothing_under_way_requests_are_told_at_once():
    async def work():
        async with process() as parts:
            method = remote("http://127.0.0.1:1")
            method.start(parts)
            assert await ask(method, T1) == "503 keys_unknown"  # waited for the first attempt
            found = method.verify(bearer(T1), NOW)
            assert isinstance(found, Refused) and found.status == 503

    run(work)


async def never(_issuer, _path) -> bytes:
    await asyncio.Event().wait()
    return b""


def test_an_issuer_that_does_not_answer_holds_nobody_longer_than_said():
    async def work():
        async with issuer(never) as served, process() as parts:
            method = remote(served.url, timeout_s=30.0, wait_s=0.05)
            method.start(parts)
            assert await ask(method, T1) == "503 keys_unknown"
            slow = remote(served.url, timeout_s=0.05, wait_s=30.0)
            slow.start(parts)
            assert await ask(slow, T1) == "503 keys_unknown"
            assert "did not answer within 0.05 s" in slow.snapshot(NOW)["keys"]["last_error"]

    run(work)


def chunked(piece: bytes, count: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + (b"%x\r\n%s\r\n" % (len(piece), piece)) * count + b"0\r\n\r\n"


HOSTILE = [
    pytest.param(http_answer(b"x" * 300_000), "more than", id="huge"),
    pytest.param(chunked(b"x" * 60_000, 10), "more than", id="huge-chunked"),
    pytest.param(
        http_answer(gzip.compress(b"x" * 10_000_000), "200 OK", "content-encoding: gzip"),
        "encoding nobody asked for",
        id="bomb",
    ),
    pytest.param(http_answer(b"<html>"), "no key set", id="html"),
    pytest.param(http_answer(b"\xff\xfe\0"), "no key set", id="binary"),
    pytest.param(http_answer(b"[" * 100_000), "no key set", id="deep"),
    pytest.param(http_answer({"keys": []}), "no key in it", id="empty-set"),
    pytest.param(http_answer({"keys": [jwk("HS256")]}), "no usable key", id="secret"),
    pytest.param(http_answer({"keys": [K1, K1]}), "same kid", id="double"),
    pytest.param(http_answer({"keys": [{**K1, "d": "AA"}]}), "PRIVATE", id="private"),
    pytest.param(http_answer(b"", "404 Not Found"), "answers 404", id="404"),
    pytest.param(http_answer(b"", "204 No Content"), "answers 204", id="204"),
    pytest.param(
        http_answer(b"", "302 Found", "location: http://localhost:1/"), "another host", id="elsewhere"
    ),
    pytest.param(
        http_answer(b"", "302 Found", "location: //169.254.169.254/"), "another host", id="metadata"
    ),
    pytest.param(
        http_answer(b"", "302 Found", "location: file:///etc/passwd"), "another host", id="file"
    ),
    pytest.param(http_answer(b"", "307 Temporary", "location: /again"), "too often", id="circle"),
    pytest.param(http_answer(b"", "302 Found", "location: http://[/"), "another host", id="bad"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}", "cannot be asked", id="cut"),
    pytest.param(b"SSH-2.0-x\r\n", "cannot be asked", id="not-http"),
    pytest.param(b"", "cannot be asked", id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize("answer, said", HOSTILE)
def test_an_answer_that_is_no_key_set_is_not_used(answer, said):
    async def work():
        async with issuer(always(answer)) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "503 keys_unknown"
            assert said in method.snapshot(NOW)["keys"]["last_error"]

    run(work)


@pytest.mark.parametrize("answer, said", HOSTILE)
def test_the_last_good_keys_stay_when_the_issuer_goes_wrong(answer, said):
    async def work():
        clock = Clock()
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, clock)
            method.start(parts)
            assert await ask(method, T1) == "good"
            served.answer = always(answer)
            assert await ask(method, T2) == "401 unknown_key"
            told = method.snapshot(NOW + 100)["keys"]
            assert said in told["last_error"] and told["is_known"] and told["age_s"] == 100
            assert await ask(method, T1) == "good" and method.generation == 1

    run(work)


def test_redirects_within_the_origin_are_followed():
    async def answer(_served, path):
        if path == "/new":
            return jwks(K1)
        return http_answer(b"", "301 Moved", "location: /new")

    async def work():
        async with issuer(answer) as served, process() as parts:
            method = remote(served.url + "/old")
            method.start(parts)
            assert await ask(method, T1) == "good"
            assert served.asked == ["/old", "/new"]

    run(work)


# -- rotation and unknown keys ---------------------------------------------------------------


def test_a_new_key_is_fetched_when_the_first_token_of_it_comes():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            served.answer = always(jwks(K1, K2))
            assert await ask(method, T2) == "good"
            assert await ask(method, T1) == "good"
            assert len(served.asked) == 2 and method.generation == 2

    run(work)


@pytest.mark.parametrize("kid", [None, "from-the-token"], ids=["no-kid", "kid"])
def test_a_new_key_of_an_issuer_that_names_none_is_fetched_too(kid):
    async def work():
        async with issuer(always(jwks(jwk("ES256")))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, token(kid=kid)) == "good"
            served.answer = always(jwks(jwk("ES256", index=1)))
            assert await ask(method, token(kid=kid, index=1)) == "good"
            assert await ask(method, token(kid=kid)) == "401 bad_signature"
            assert len(served.asked) == 2

    run(work)


def test_forged_tokens_without_names_are_one_fetch_in_a_cooldown():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            forged = [token(claims(jti=str(n)), index=1) for n in range(50)]
            got = await asyncio.gather(*(ask(method, text) for text in forged))
            assert set(got) == {"401 bad_signature"} and len(served.asked) == 2
            assert isinstance(method.verify(bearer(forged[0]), NOW + 29), Refused)
            assert isinstance(method.verify(bearer(token(kid="k1", index=1)), NOW + 31), Refused)
            assert len(served.asked) == 2

    run(work)


def test_a_key_that_is_taken_back_ends_its_tokens():
    async def work():
        async with issuer(always(jwks(K1, K2))) as served, process() as parts:
            method = remote(served.url, refresh_s=0.02)
            method.start(parts)
            assert await ask(method, T1) == "good"
            served.answer = always(jwks(K2))
            await until(lambda: method.generation == 2)
            assert await ask(method, T1) == "401 unknown_key"

    run(work)


def test_a_thundering_herd_of_unknown_keys_is_one_fetch():
    async def work():
        clock = Clock()
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, clock)
            method.start(parts)
            assert await ask(method, T1) == "good"
            herd = [token(kid=f"nobody-{index % 50}") for index in range(300)]
            got = await asyncio.gather(*(ask(method, text) for text in herd))
            assert set(got) == {"401 unknown_key"}
            assert len(served.asked) == 2
            # In the cooldown others are refused at once, and so are the known unknowns after it.
            for kid in ("nobody-1", "somebody"):
                assert isinstance(method.verify(bearer(token(kid=kid)), NOW + 29), Refused)
            assert isinstance(method.verify(bearer(token(kid="nobody-1")), NOW + 31), Refused)
            assert len(served.asked) == 2
            # Whoever came during the cooldown may be the issuer's newest key.
            served.answer = always(jwks(K1, jwk("ES256", "somebody")))
            assert await ask(method, token(kid="somebody"), NOW + 31) == "good"
            assert len(served.asked) == 3

    run(work)


def test_the_memory_of_unknown_keys_is_bounded():
    async def work():
        clock = Clock()
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, clock, cooldown_s=0.0)
            method.start(parts)
            assert await ask(method, T1) == "good"
            source = method._source
            for start in range(0, MAX_UNKNOWN + 200, 400):
                texts = (token(claims(), alg="EdDSA", kid=f"n{start + i}") for i in range(400))
                await asyncio.gather(*(ask(method, text) for text in texts))
            assert source.snapshot(NOW)["unknown_kids"] == MAX_UNKNOWN
            assert source.snapshot(NOW)["waiting"] == 0

    run(work)


def test_a_clock_that_is_set_back_does_not_stop_fetching():
    async def work():
        clock = Clock()
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, clock)
            method.start(parts)
            assert await ask(method, T1) == "good"
            assert await ask(method, T2) == "401 unknown_key"
            served.answer = always(jwks(K1, K2))
            clock.now = NOW - 5
            assert await ask(method, T2, NOW - 5) == "good"

    run(work)


def test_a_bad_token_of_an_unknown_key_fetches_nothing():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            for text in (
                token(claims(exp=NOW - 1), kid="x"),
                token(claims(aud="other"), kid="x"),
                token(claims(iss="other"), kid="x"),
                token(kid="x", crit=["a"]),
                token(header={"alg": "none", "kid": "x"}),
            ):
                assert not inspect.isawaitable(method.verify(bearer(text), NOW))
            assert len(served.asked) == 1

    run(work)


def test_one_that_gives_up_waiting_takes_nothing_from_the_others():
    async def work():
        gate = asyncio.Event()

        async def answer(_served, _path):
            await gate.wait()
            return jwks(K1, K2)

        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            served.answer = answer
            loop = asyncio.get_running_loop()
            waiting = [loop.create_task(ask(method, T2)) for _ in range(5)]
            await until(lambda: len(served.asked) == 2)
            for task in waiting[:3]:
                task.cancel()
            await asyncio.gather(*waiting[:3], return_exceptions=True)
            assert method.snapshot(NOW)["keys"]["waiting"] == 2
            gate.set()
            assert await asyncio.gather(*waiting[3:]) == ["good", "good"]
            assert method.snapshot(NOW)["keys"]["waiting"] == 0
            assert len(served.asked) == 2

    run(work)


def test_known_keys_serve_while_an_unknown_one_is_asked_for():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, wait_s=0.05)
            method.start(parts)
            await until(lambda: method._source.keys)
            served.answer = never
            late = asyncio.get_running_loop().create_task(ask(method, T2))
            await until(lambda: len(served.asked) == 2)
            assert isinstance(method.verify(bearer(T1), NOW), Verified)
            assert await late == "401 unknown_key"

    run(work)


def test_a_key_that_came_while_an_older_fetch_was_under_way_is_found():
    """What was asked before the token came may be the old set: another fetch follows it."""

    async def work():
        gate = asyncio.Event()

        async def old_set(_served, _path):
            await gate.wait()
            return jwks(K1)

        async with issuer(old_set) as served, process() as parts:
            method = remote(served.url, cooldown_s=0.0)
            method.start(parts)
            first = asyncio.get_running_loop().create_task(ask(method, T1))
            await until(lambda: len(served.asked) == 1)
            gate.set()
            assert await first == "good"
            gate.clear()
            assert method.verify(bearer(T1), NOW)
            source = method._source
            assert isinstance(source, RemoteKeys)
            source._wake.set()  # as a refresh does
            await until(lambda: len(served.asked) == 2)
            served.answer = always(jwks(K1, K2))
            late = asyncio.get_running_loop().create_task(ask(method, T2))
            await asyncio.sleep(0)
            gate.set()
            assert await late == "good" and len(served.asked) == 3

    run(work)


def test_an_expired_token_is_not_saved_by_waiting():
    async def work():
        clock = Clock()

        async def answer(_served, _path):
            clock.now = NOW + 1000
            return jwks(K1)

        async with issuer(answer) as served, process() as parts:
            method = remote(served.url, clock)
            method.start(parts)
            assert await ask(method, T1) == "401 expired"

    run(work)


# -- discovery -------------------------------------------------------------------------------


def discovering(document, *keys, path="/.well-known/openid-configuration"):
    async def answer(served, asked):
        if asked == path:
            made = {
                name: value.replace("{url}", served.url) if isinstance(value, str) else value
                for name, value in document.items()
            }
            return http_answer(made)
        return jwks(*keys) if asked == "/jwks" else http_answer(b"", "404 Not Found")

    return answer


def discoverer(url: str) -> JwtMethod:
    rules = RemoteRules(issuer=url, timeout_s=5.0, wait_s=5.0)
    return JwtMethod(
        jwt_rules(token_rules(issuers=frozenset({url})), remote=rules), clock=lambda: NOW
    )


@pytest.mark.parametrize(
    "path, realm",
    [
        ("/.well-known/openid-configuration", ""),
        ("/realms/a/.well-known/openid-configuration", "/realms/a"),
        ("/.well-known/oauth-authorization-server/realms/a", "/realms/a"),
    ],
    ids=["root", "realm", "rfc8414"],
)
def test_keys_are_discovered(path, realm):
    document = {"issuer": "{url}" + realm, "jwks_uri": "{url}/jwks"}

    async def work():
        async with issuer(discovering(document, K1, path=path)) as served, process() as parts:
            method = discoverer(served.url + realm)
            method.start(parts)
            text = token(claims(iss=served.url + realm), kid="k1")
            assert await ask(method, text) == "good"
            assert served.asked[-1] == "/jwks"

    run(work)


@pytest.mark.parametrize(
    "document, said",
    [
        ({"issuer": "{url}/", "jwks_uri": "{url}/jwks"}, "another issuer"),
        ({"issuer": "https://attacker.example", "jwks_uri": "{url}/jwks"}, "another issuer"),
        ({"jwks_uri": "{url}/jwks"}, "another issuer"),
        ({"issuer": "{url}"}, "names no key set"),
        ({"issuer": "{url}", "jwks_uri": 5}, "names no key set"),
        ({"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}, "names no key set"),
        ({"issuer": "{url}", "jwks_uri": "//x/jwks"}, "names no key set"),
    ],
    ids=["slash", "other", "none", "no-keys", "number", "file", "no-scheme"],
)
def test_a_discovery_document_that_does_not_fit_is_not_believed(document, said):
    async def work():
        async with issuer(discovering(document, K1)) as served, process() as parts:
            method = discoverer(served.url)
            method.start(parts)
            text = token(claims(iss=served.url), kid="k1")
            assert await ask(method, text) == "503 keys_unknown"
            assert said in method.snapshot(NOW)["keys"]["last_error"]
            assert "/jwks" not in served.asked

    run(work)


def test_a_document_that_came_over_tls_names_no_keys_without_it():
    document = {"issuer": "https://a.example", "jwks_uri": "http://a.example/jwks"}
    with pytest.raises(FetchFailed, match="without TLS"):
        read_discovery(json.dumps(document).encode(), "https://a.example")
    document["jwks_uri"] = "https://keys.example/jwks"
    assert read_discovery(json.dumps(document).encode(), "https://a.example") == document


def test_discovery_urls_are_those_of_the_standards():
    assert discovery_urls("https://a.example/t/x/") == (
        "https://a.example/t/x/.well-known/openid-configuration",
        "https://a.example/.well-known/oauth-authorization-server/t/x",
    )


# -- TLS -------------------------------------------------------------------------------------


def test_tls_is_verified_against_the_authorities_that_are_named(tmp_path):
    import trustme

    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, each in (("ca", authority), ("other", other)):
        each.cert_pem.write_to_path(tmp_path / name)

    async def work():
        async with issuer(always(jwks(K1)), context) as served, process() as parts:
            trusted = remote(served.url, ca_file=str(tmp_path / "ca"))
            trusted.start(parts)
            assert await ask(trusted, T1) == "good"
            for ca_file in (None, str(tmp_path / "other")):
                strange = remote(served.url, ca_file=ca_file)
                strange.start(parts)
                assert await ask(strange, T1) == "503 keys_unknown"
                assert "CERTIFICATE_VERIFY_FAILED" in strange.snapshot(NOW)["keys"]["last_error"]

    run(work)


def test_a_file_of_authorities_that_has_none_is_a_fault_of_the_configuration(tmp_path):
    (tmp_path / "ca").write_text("garbage")
    for name in ("ca", "missing"):
        with pytest.raises(ValueError, match="ca_file"):
            remote("https://a.example", ca_file=str(tmp_path / name))


# -- life ------------------------------------------------------------------------------------


def test_after_a_reload_keys_are_known_at_once():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            old = remote(served.url)
            old.start(parts)
            assert await ask(old, T1) == "good"
            new = remote(served.url, wait_s=4.0)
            new.start(parts)
            old.close()
            assert isinstance(new.verify(bearer(T1), NOW), Verified)
            assert len(served.asked) == 1
            served.answer = always(jwks(K1, K2))
            assert await ask(new, T2) == "good"
            assert (old.generation, new.generation) == (1, 1)

    run(work)


@pytest.mark.parametrize("order", ["close-first", "let-go-first"])
def test_fetching_ends_with_its_last_user(order):
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            source = method._source
            steps = [method.close, source.close]
            for step in steps if order == "close-first" else steps[::-1]:
                assert not parts.tasks[0].done()
                step()
            await asyncio.gather(*parts.tasks, return_exceptions=True)

    run(work)


def test_a_method_that_is_not_started_again_keeps_its_keys_when_they_are_let_go():
    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url)
            method.start(parts)
            assert await ask(method, T1) == "good"
            method._source.close()  # as parts does with what a new plan did not ask for
            served.answer = always(jwks(K1, K2))
            assert await ask(method, T1) == "good"
            assert not parts.tasks[0].done()

    run(work)


def test_who_waits_is_told_when_the_process_ends():
    async def work():
        async with issuer(never) as served:
            async with process() as parts:
                method = remote(served.url, timeout_s=30.0, wait_s=30.0)
                method.start(parts)
                waiting = asyncio.get_running_loop().create_task(ask(method, T1))
                await until(lambda: served.asked)
            assert await waiting == "503 keys_unknown"

    run(work)


def test_a_private_key_in_a_public_set_is_said_loudly_and_once(caplog):
    async def work():
        leaking = always(jwks({**K1, "d": "c2VjcmV0"}))
        async with issuer(leaking) as served, process() as parts:
            method = remote(served.url, refresh_s=0.01)
            method.start(parts)
            await until(lambda: len(served.asked) > 4)

    run(work)
    (said,) = [record for record in caplog.records if "PRIVATE" in record.getMessage()]
    assert said.levelname == "ERROR" and "c2VjcmV0" not in caplog.text


def test_a_fault_of_our_own_does_not_end_refreshing(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a fault of ours")

    async def work():
        async with issuer(always(jwks(K1))) as served, process() as parts:
            method = remote(served.url, refresh_s=0.02)
            with monkeypatch.context() as patched:
                patched.setattr("headgate.security.tokens.remote.read_jwks", broken)
                method.start(parts)
                assert await ask(method, T1) == "503 keys_unknown"
                assert "RuntimeError" in method.snapshot(NOW)["keys"]["last_error"]
            await until(lambda: method._source.keys)
            assert await ask(method, T1) == "good"

    run(work)


# -- how often -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said, seconds",
    [
        ("max-age=600", 600.0), ("public, max-age=600, must-revalidate", 600.0),
        ('MAX-AGE="60"', 60.0), ("no-store, max-age=600", None), ("no-cache", None),
        ("s-maxage=600", None), ("x-max-age=600", None), ("max-age=-1", None), ("max-age=x", None),
        ("", None), ("max-age=99999999999999", None),
    ],
    ids=range(11),
)  # fmt: skip
def test_cache_control_is_read(said, seconds):
    assert max_age_of(said) == seconds


class _Middle(random.Random):
    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    "max_age_s, seconds", [(None, 300.0), (0.0, 60.0), (120.0, 120.0), (1e9, 3600.0)], ids=str
)
def test_cache_control_is_honoured_within_bounds(max_age_s, seconds):
    source = RemoteKeys(RemoteRules(url="https://a.example"), rng=_Middle())
    assert source._fresh_s(Fetched(b"", max_age_s)) == pytest.approx(seconds)


def test_times_between_fetches_vary_and_grow_after_failures():
    source = RemoteKeys(RemoteRules(url="https://a.example"), rng=random.Random(1))
    spread = [source._fresh_s(Fetched(b"", None)) for _ in range(200)]
    assert 270 <= min(spread) < 275 and 325 < max(spread) <= 330
    quiet = RemoteKeys(RemoteRules(url="https://a.example"), rng=_Middle())
    waits = []
    for failures in range(8):
        quiet._failures = failures
        waits.append(quiet._retry_s())
    assert waits == pytest.approx([1, 2, 4, 8, 10, 10, 10, 10])


@pytest.mark.parametrize(
    "url, is_good",
    [
        ("https://a.example/jwks", True), ("http://127.0.0.1:80/", True), ("https://[::1]/", True),
        ("ftp://a.example", False), ("https://", False), ("https:///x", False), ("/jwks", False),
        ("https://a b/", False), ("https://a.example/\n", False), ("https://a.example:99999/", False),
        ("https://a.example/#x", False), ("https://ä.example/", False), ("", False),
        ("https://[/", False),
    ],
    ids=range(14),
)  # fmt: skip
def test_urls_that_cannot_be_fetched_are_known(url, is_good):
    assert (url_fault(url) == "") is is_good


def test_shown_urls_have_no_password():
    assert shown_url("https://u:p@a.example:1/x?token=y#z") == "https://a.example:1/x"


def test_the_default_clock_is_the_wall_clock():
    assert abs(RemoteKeys(RemoteRules(url="https://a.example"))._clock() - time.time()) < 60
