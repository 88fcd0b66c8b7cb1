"""The client of ACME before an authority that misbehaves in ways that a real one will not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.security.certificates import client as client_module
from headgate.security.certificates.acme import AcmeFailed, ari_id, make_key
from headgate.security.certificates.client import NONCE_TRIES, AcmeClient, open_acme
from headgate.security.certificates.jose import AccountKey
from headgate.security.certificates.rules import AcmeRules
from tests.security.acme_authority import RATE_LIMITED, Answer, Authority, problem


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


async def opened(authority: Authority, account: str | None = "/me", **more: Any) -> AcmeClient:
    url = authority.url(account) if account is not None else None
    return await open_acme(authority.rules(**more), AccountKey.make(), url)


async def order(client: AcmeClient, url: str | None = None, key: bytes | None = None) -> bytes:
    async def ignore(_what: object) -> None: ...

    return await client.order("a.test", key or make_key("ecdsa"), url, on_order=ignore, show=ignore)


def refused(authority: Authority, **more: Any) -> AcmeFailed:
    async def main() -> AcmeFailed:
        async with authority.serving():
            client = await opened(authority, **more)
            try:
                with pytest.raises(AcmeFailed) as failure:
                    await order(client)
            finally:
                await client.close()
            return failure.value

    return asyncio.run(main())


def test_a_limit_is_told_with_the_wait_that_comes_with_it(authority):
    authority.answers["/order"] = problem(RATE_LIMITED, 429, retry_after="3600")
    error = refused(authority)
    assert error.kind == "rateLimited"
    assert error.retry_after_s == 3600.0
    assert len(authority.asked) == 1, "a limit is not asked again"


def test_a_nonce_that_is_refused_is_replaced_so_many_times(authority):
    said = {"type": "urn:ietf:params:acme:error:badNonce", "detail": "old"}
    authority.answers["/order"] = problem(said, 400)
    assert refused(authority).kind == "badNonce"
    assert len(authority.asked) == NONCE_TRIES


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        ("/order", (201, {}, b"{}"), "no authorizations"),
        ("/order", (302, {"location": "https://other.test/"}, b""), "answers 302"),
        ("/order", (500, {}, b"<html>"), "answers 500"),
        ("/order", (201, {}, b"x" * ((1 << 20) + 1)), "more than"),
        ("/order", (201, {"content-length": "0"}, b""), "cannot be asked|not JSON"),
    ],
    ids=["empty", "redirect", "html", "huge", "two lengths"],
)
def test_answers_that_are_none_are_told_in_words(authority, path, answer, why):
    authority.answers[path] = lambda _: answer
    import re

    assert re.search(why, str(refused(authority)))


def test_an_order_without_a_place_is_refused(authority):
    def made(_payload: Any) -> Answer:
        body = {
            "status": "pending",
            "authorizations": [authority.url("/authz")],
            "finalize": authority.url("/fin"),
        }
        return 201, {"location": "http://127.0.0.1/order/1"}, json.dumps(body).encode()

    authority.answers["/order"] = made
    assert "no https URL of our order" in str(refused(authority))


def test_a_name_that_cannot_be_shown_this_way_is_told(authority):
    place = {"location": "https://127.0.0.1/order/1"}
    authority.answers["/order"] = lambda _: (
        201,
        place,
        json.dumps(
            {
                "status": "pending",
                "authorizations": [authority.url("/authz")],
                "finalize": authority.url("/fin"),
            }
        ).encode(),
    )
    authority.answers["/authz"] = lambda _: (
        200,
        {},
        json.dumps(
            {
                "status": "pending",
                "identifier": {"type": "dns", "value": "a.test"},
                "challenges": [{"type": "dns-01", "token": "t", "url": "https://x.test/c"}],
            }
        ).encode(),
    )
    assert "offers no http-01 for a.test" in str(refused(authority))


def test_an_order_that_is_never_done_ends(authority, monkeypatch):
    monkeypatch.setattr(client_module, "ORDER_S", 0.5)
    body = {
        "status": "processing",
        "authorizations": ["https://127.0.0.1/authz"],
        "finalize": "https://127.0.0.1/fin",
    }

    def made(_payload: Any) -> Answer:
        return 201, {"location": authority.url("/order/1")}, json.dumps(body).encode()

    authority.answers["/order"] = made
    authority.answers["/order/1"] = lambda _: (200, {"retry-after": "0"}, json.dumps(body).encode())
    assert "was not done in 0.5 s" in str(refused(authority))


def test_an_order_is_given_up_at_once_when_it_is_cancelled(authority):
    body = {
        "status": "processing",
        "authorizations": ["https://127.0.0.1/authz"],
        "finalize": "https://127.0.0.1/fin",
    }

    def made(_payload: Any) -> Answer:
        return 201, {"location": authority.url("/order/1")}, json.dumps(body).encode()

    authority.answers["/order"] = made
    authority.answers["/order/1"] = lambda _: (
        200,
        {"retry-after": "60"},
        json.dumps(body).encode(),
    )

    async def main() -> None:
        async with authority.serving():
            client = await opened(authority)
            task = asyncio.create_task(order(client))
            while not any(path == "/order/1" for path, _ in authority.asked):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [403, 404], ids=["not ours", "forgotten"])
def test_an_order_that_is_gone_is_made_again(authority, status):
    authority.answers["/old"] = lambda _: (status, {}, b"")
    authority.answers["/order"] = problem({"type": "x", "detail": "made again"})

    async def main() -> None:
        async with authority.serving():
            client = await opened(authority)
            with pytest.raises(AcmeFailed, match="made again"):
                await order(client, authority.url("/old"))
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_authority_that_does_not_say_how_it_stands_gets_no_other_order(authority, status):
    authority.answers["/old"] = problem(RATE_LIMITED, status)

    async def main() -> None:
        async with authority.serving():
            client = await opened(authority)
            with pytest.raises(AcmeFailed, match="too many"):
                await order(client, authority.url("/old"))
            await client.close()

    asyncio.run(main())
    assert [path for path, _ in authority.asked] == ["/old"]


def test_an_account_agrees_to_the_terms_and_says_where_to_write(authority):
    async def main() -> None:
        async with authority.serving():
            client = await opened(authority, None, email=("ops@a.test",))
            assert await client.register() == authority.url("/me")
            await client.close()

    asyncio.run(main())
    said = {"termsOfServiceAgreed": True, "contact": ["mailto:ops@a.test"]}
    assert authority.asked == [("/account", said)]


def test_a_directory_that_others_answer_for_is_not_believed(authority):
    async def main() -> None:
        async with authority.serving():
            rules = AcmeRules(directory=authority.url("/dir"))
            with pytest.raises(AcmeFailed, match="cannot be asked: .*CERTIFICATE_VERIFY_FAILED"):
                await open_acme(rules, AccountKey.make(), None)

    asyncio.run(main())


def test_a_certificate_that_is_void_already_is_no_failure(authority):
    authority.answers["/revoke"] = problem(
        {"type": "urn:ietf:params:acme:error:alreadyRevoked", "detail": "void"}, 400
    )

    async def main() -> None:
        async with authority.serving():
            client = await opened(authority)
            await client.revoke(b"der", 4)
            await client.close()

    asyncio.run(main())
    ((_, payload),) = authority.asked
    assert payload["reason"] == 4


def leaf() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x87654321)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=2027))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("body", "window"),
    [
        (
            b'{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-03T00:00:00Z"}}',
            (1767312000.0, 1767398400.0),
        ),
        (
            b'{"suggestedWindow":{"start":"2026-01-03T00:00:00Z","end":"2026-01-02T00:00:00Z"}}',
            None,
        ),
        (b'{"suggestedWindow":{"start":5,"end":6}}', None),
        (b'{"suggestedWindow":null}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
    ids=["window", "backwards", "numbers", "null", "list", "html"],
)
def test_the_authoritys_window_for_renewal_is_read(authority, body, window):
    certificate = leaf()
    name = ari_id(certificate)
    authority.answers[f"/ari/{name}"] = lambda _: (200, {}, body)

    async def main() -> object:
        async with authority.serving():
            client = await opened(authority)
            try:
                return await client.renewal_window(certificate)
            finally:
                await client.close()

    assert asyncio.run(main()) == window
