"""What workers show to authorities: bodies, and certificates within TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.certificates.challenges import LIFE_S, MAX, ChallengeBook
from headgate.wire import local_ca
from headgate.wire.acme_alpn import challenge_pem, is_acme_hello, offered_protocols
from headgate.wire.tls import TICKET_KEY_S, CertificateStore, TlsProfile, load_certificates

PREFIX = "/.well-known/acme-challenge/"
THUMB = "a" * 43
SAID = {"token": "t0k-en", "answer": f"t0k-en.{THUMB}"}
DIGEST = "ab" * 32
NOW = time.time()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- http-01 --------------------------------------------------------------------------------------


def test_a_challenge_is_answered_until_it_is_taken_back():
    book = ChallengeBook()
    assert book.answer(PREFIX + "t0k-en") is None
    book.hear(SAID)
    book.hear(SAID)
    assert book.answer(PREFIX + "t0k-en") == f"t0k-en.{THUMB}".encode()
    for path in ("/", PREFIX, PREFIX + "t0k-en/", PREFIX + "other", "/x" + PREFIX + "t0k-en"):
        assert book.answer(path) is None
    book.hear({**SAID, "gone": True})
    assert book.answer(PREFIX + "t0k-en") is None


def test_a_challenge_that_nobody_takes_back_ends_by_itself():
    clock = Clock()
    book = ChallengeBook(clock=clock)
    book.hear(SAID)
    clock.now += LIFE_S
    assert book.answer(PREFIX + "t0k-en") is not None
    clock.now += 1
    assert book.answer(PREFIX + "t0k-en") is None


def test_challenges_are_bounded_and_the_oldest_goes_first():
    book = ChallengeBook()
    for number in range(MAX + 1):
        book.hear({"token": f"t{number}", "answer": f"t{number}.{THUMB}"})
    assert book.answer(PREFIX + "t0") is None
    assert book.answer(PREFIX + f"t{MAX}") is not None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"token": 7, "answer": "x"},
        {"token": "t", "answer": f"u.{THUMB}"},
        {"token": "t", "answer": "t.short"},
        {"token": "t", "answer": f"t.{THUMB}\r\nset-cookie: x"},
        {"token": "../t", "answer": f"../t.{THUMB}"},
        {"token": "t", "answer": None},
        {"name": "a.test", "digest": "xyz"},
        {"name": "*.test", "digest": DIGEST},
        {"name": "../a", "digest": DIGEST},
        {"name": "a.test", "digest": 5},
    ],
    ids=lambda message: "-".join(map(str, message)) or "empty",
)
def test_news_that_is_no_challenge_changes_nothing(message):
    told: list[ChallengeBook] = []
    book = ChallengeBook(told.append)
    book.hear(message)
    assert book.pems == {}
    assert book.answer(PREFIX + "t") is None
    assert not told


# -- tls-alpn-01: the first message ---------------------------------------------------------------


def hello(*protocols: str) -> bytes:
    """The handshake message of a real client."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()[5:]


ACME_HELLO = hello("acme-tls/1")


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (ACME_HELLO, True),
        (hello("h2", "http/1.1"), False),
        (hello("acme-tls/1", "h2"), False),
        (hello(), False),
        (b"", False),
    ],
    ids=["acme", "browser", "both", "none", "empty"],
)
def test_an_authority_offers_one_protocol_alone(message, answer):
    assert is_acme_hello(message) is answer


def test_the_protocols_of_a_client_are_read():
    assert offered_protocols(hello("h2", "http/1.1")) == (b"h2", b"http/1.1")


def test_no_part_of_a_hello_is_taken_for_a_whole_one():
    for length in range(len(ACME_HELLO)):
        assert not is_acme_hello(ACME_HELLO[:length])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_not(data):
    assert isinstance(offered_protocols(data), tuple)


@given(st.integers(0, len(ACME_HELLO) - 1), st.integers(0, 255))
def test_a_changed_byte_breaks_nothing(at, byte):
    changed = bytearray(ACME_HELLO)
    changed[at] = byte
    assert isinstance(offered_protocols(bytes(changed)), tuple)


# -- tls-alpn-01: over sockets --------------------------------------------------------------------


def made(folder: Path, *names: str):
    path = str(local_ca.ensure(folder, names, NOW).path)
    return load_certificates([(path, path)], TlsProfile(), NOW)[0]


class Quiet(asyncio.Protocol):
    pass


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@contextlib.asynccontextmanager
async def serving(store: CertificateStore):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Quiet, "127.0.0.1", 0, ssl=store.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def look(port: int, name: str, *protocols: str, session=None, context=None, version=None):
    """What a client sees: protocol, certificate, and the socket's state."""
    if context is None:
        context = client(*protocols, version=version)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as sock,
        context.wrap_socket(sock, server_hostname=name, session=session) as tls,
    ):
        return (
            tls.selected_alpn_protocol(),
            tls.getpeercert(binary_form=True),
            tls.session,
            tls.session_reused,
        )


def client(*protocols: str, version=None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols or ("http/1.1",)))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_an_authority_sees_the_challenge_and_everybody_else_what_they_always_saw(tmp_path, version):
    store = CertificateStore(made(tmp_path, "a.test"), TlsProfile())
    book = ChallengeBook(lambda it: it.show_on([store]))

    async def main():
        async with serving(store) as port:

            def see(name, *protocols):
                return asyncio.to_thread(look, port, name, *protocols, version=version)

            _, usual, *_ = await see("a.test", "h2")
            book.hear({"name": "a.test", "digest": DIGEST})
            chosen, shown, *_ = await see("a.test", "acme-tls/1")
            assert chosen == "acme-tls/1"
            certificate = x509.load_der_x509_certificate(shown)
            said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert said.value.get_values_for_type(x509.DNSName) == ["a.test"]
            (identifier,) = (e for e in certificate.extensions if e.critical)
            assert identifier.oid.dotted_string == "1.3.6.1.5.5.7.1.31"
            assert identifier.value.value == b"\x04\x20" + bytes.fromhex(DIGEST)
            # Everybody else: browsers, authorities that ask for another name.
            assert (await see("a.test", "h2", "http/1.1"))[:2] == ("h2", usual)
            assert (await see("b.test", "acme-tls/1"))[1] == usual
            assert (await see("a.test", "acme-tls/1", "h2"))[1] == usual
            book.hear({"name": "a.test", "digest": DIGEST, "gone": True})
            assert (await see("a.test", "acme-tls/1"))[1] == usual

    run(main())


def test_an_authority_whose_key_share_is_refused_sees_the_challenge_at_its_second_try(tmp_path):
    store = CertificateStore(made(tmp_path, "a.test"), TlsProfile())
    book = ChallengeBook(lambda it: it.show_on([store]))
    book.hear({"name": "a.test", "digest": DIGEST})
    # Clients send a share of X25519 at first.
    store._base.set_ecdh_curve("secp384r1")

    async def main():
        async with serving(store) as port:
            assert (await asyncio.to_thread(look, port, "a.test", "acme-tls/1"))[0] == "acme-tls/1"
            assert (await asyncio.to_thread(look, port, "a.test", "h2"))[0] == "h2"

    run(main())


def test_a_challenge_is_made_for_this_name_and_digest_alone():
    with pytest.raises(ValueError, match="SHA-256"):
        challenge_pem("a.test", b"short", NOW)


def test_the_files_that_python_needs_are_gone_afterwards(tmp_path):
    opened = len(list(Path("/proc/self/fd").iterdir()))
    store = CertificateStore(made(tmp_path, "a.test"), TlsProfile())
    book = ChallengeBook(lambda it: it.show_on([store]))
    book.hear({"name": "a.test", "digest": DIGEST})
    assert list(store._challenges) == ["a.test"]
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


# -- tickets --------------------------------------------------------------------------------------


def test_a_ticket_is_good_until_its_key_is_replaced(tmp_path):
    clock = Clock()
    store = CertificateStore(made(tmp_path, "a.test"), TlsProfile(), clock)
    front = store.context

    async def main():
        async with serving(store) as port:
            context = client(version=ssl.TLSVersion.TLSv1_2)

            def see(session=None):
                return asyncio.to_thread(look, port, "a.test", session=session, context=context)

            _, _, session, _ = await see()
            assert (await see(session))[3] is True
            store.replace(made(tmp_path, "a.test"), TlsProfile())
            assert (await see(session))[3] is True
            clock.now += TICKET_KEY_S
            assert (await see(session))[3] is False
            _, _, session, _ = await see()
            assert (await see(session))[3] is True
            assert store.context is front

    run(main())


def test_a_changed_profile_counts_from_the_next_connection_on(tmp_path):
    store = CertificateStore(made(tmp_path, "a.test"), TlsProfile())

    async def main():
        async with serving(store) as port:
            old = ssl.TLSVersion.TLSv1_2
            await asyncio.to_thread(look, port, "a.test", version=old)
            strict = TlsProfile(min_version="1.3")
            path = str(local_ca.ensure(tmp_path, ["a.test"], NOW).path)
            store.replace(load_certificates([(path, path)], strict, NOW)[0], strict)
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(look, port, "a.test", version=old)

    run(main())
