"""A server's TLS from outside: our own listener has nothing bad, a weak server much."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.certificates.check import CheckFailed, Target, check
from headgate.security.certificates.hello import (
    CIPHERS,
    CIPHERS_TLS13,
    PROTOCOLS,
    Alerted,
    Answered,
    client_hello,
    needed_bytes,
    read_answer,
    weakness,
)
from headgate.security.certificates.judging import covers, judge_certificate, judge_hsts
from headgate.wire import local_ca
from headgate.wire.tls import TlsProfile, load_store

NOW = time.time()
DAY = dt.timedelta(days=1)


def signed(*names, key=None, begin=-1, end=90, algorithm=hashes.SHA256()) -> x509.Certificate:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = dt.datetime.fromtimestamp(NOW, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + begin * DAY)
        .not_valid_after(now + end * DAY)
    )
    if names:
        general = [local_ca._general_name(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm)


def levels(findings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in findings:
        found.setdefault(each.check, set()).add(each.level)
    return found


# -- what certificates are worth ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "check_name", "level"),
    [
        (signed("a.test"), "expiry", "ok"),
        (signed("a.test", end=5), "expiry", "ok"),
        (signed("a.test", begin=-85, end=5), "expiry", "warning"),
        (signed("a.test", begin=-10, end=-1), "expiry", "bad"),
        (signed("a.test", begin=1, end=5), "expiry", "bad"),
        (signed("a.test", end=800), "lifetime", "warning"),
        (signed("a.test"), "hostname", "ok"),
        (signed("*.test"), "hostname", "bad"),
        (signed("b.test"), "hostname", "bad"),
        (signed(), "hostname", "bad"),
        (signed("a.test"), "key", "ok"),
        (signed("a.test", key=rsa.generate_private_key(65537, 1024)), "key", "bad"),
        (signed("a.test", key=rsa.generate_private_key(65537, 2048)), "key", "ok"),
        (signed("a.test", key=ec.generate_private_key(ec.SECP192R1())), "key", "bad"),
        (signed("a.test", key=ed25519.Ed25519PrivateKey.generate()), "key", "ok"),
        (signed("a.test", key=ed25519.Ed25519PrivateKey.generate()), "signature", "ok"),
        (signed("a.test"), "signature", "ok"),
    ],
    ids=lambda value: value if isinstance(value, str) else "leaf",
)
def test_certificates_are_judged(leaf, check_name, level):
    assert levels(judge_certificate(leaf, "a.test", NOW))[check_name] == {level}


@pytest.mark.parametrize(
    ("names", "host", "answer"),
    [
        (("a.test",), "A.test.", True),
        (("*.a.test",), "b.a.test", True),
        (("*.a.test",), "c.b.a.test", False),
        (("*.a.test",), "a.test", False),
        (("*.test",), "a.test", False),
        (("::1",), "0:0::1", True),
        (("127.0.0.1",), "127.0.0.1", True),
        (("*.0.0.1",), "127.0.0.1", False),
        ((), "a.test", False),
    ],
)
def test_a_name_is_covered_letter_for_letter_or_by_one_label(names, host, answer):
    assert covers(names, host) is answer


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (None, "warning"),
        ("max-age=31536000; includeSubDomains", "ok"),
        ('MAX-AGE="31536000"', "ok"),
        ("max-age=60", "warning"),
        ("max-age=0", "warning"),
        ("includeSubDomains", "bad"),
        ("max-age=x", "bad"),
        ("max-age=1; max-age=2", "bad"),
    ],
)
def test_hsts_is_judged(value, level):
    assert judge_hsts(value).level == level


@pytest.mark.parametrize(
    ("cipher", "level"),
    [
        ("ECDHE_RSA_AES_128_GCM_SHA256", "ok"),
        ("ECDHE_ECDSA_CHACHA20_POLY1305_SHA256", "ok"),
        ("ECDHE_RSA_AES_128_CBC_SHA", "warning"),
        ("RSA_AES_128_GCM_SHA256", "warning"),
        ("RSA_3DES_EDE_CBC_SHA", "bad"),
        ("DHE_RSA_DES_CBC_SHA", "bad"),
        ("RSA_RC4_128_SHA", "bad"),
        ("ECDHE_RSA_NULL_SHA", "bad"),
        ("DH_anon_AES_128_GCM_SHA256", "bad"),
        ("RSA_EXPORT_RC2_CBC_40_MD5", "bad"),
    ],
)
def test_ciphers_are_judged(cipher, level):
    (number,) = [number for number, name in CIPHERS.items() if name == cipher]
    assert weakness(number)[0] == level


def test_the_ciphers_of_tls_13_are_good():
    assert {weakness(number)[0] for number in CIPHERS_TLS13} == {"ok"}


# -- messages by hand -----------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_not(data):
    assert needed_bytes(data) >= 0
    found = read_answer(data)
    assert found is None or isinstance(found, (Alerted, Answered))


@given(st.sampled_from(list(PROTOCOLS.values())), st.binary(min_size=64, max_size=64))
def test_a_hello_is_a_record_that_says_its_length(version, random):
    hello = client_hello(version, list(CIPHERS), "a.test", random)
    assert needed_bytes(hello) == len(hello)


def test_a_torn_answer_is_none():
    whole = bytes.fromhex("160303002c020000280303") + bytes(32) + b"\0\xc0\x2f\0\0\0"
    whole = whole[:3] + (len(whole) - 5).to_bytes(2) + whole[5:]
    whole = whole[:6] + (len(whole) - 9).to_bytes(3) + whole[9:]
    assert read_answer(whole) == Answered(0x0303, 0xC02F, False, False)
    for length in range(len(whole)):
        assert read_answer(whole[:length]) is None


# -- real servers ---------------------------------------------------------------------------------

ANSWER = (
    b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=31536000\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, _data):
        self.transport.write(ANSWER)
        self.transport.close()


@contextmanager
def listener(folder: Path, **profile):
    """Our own TLS, as a listener has it, on a thread of its own."""
    made = local_ca.ensure(folder, ["a.test"], NOW)
    path = str(made.path)
    store, _ = load_store([(path, path)], TlsProfile(**profile), NOW)
    ready, ports, loops = threading.Event(), [], []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, "127.0.0.1", 0, ssl=store.context)
        end = asyncio.Event()
        ports.append(server.sockets[0].getsockname()[1])
        loops.append((loop, end))
        ready.set()
        await end.wait()
        server.close()

    thread = threading.Thread(
        target=lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
    )
    thread.start()
    ready.wait(10)
    try:
        yield ports[0], str(made.ca_path)
    finally:
        loop, end = loops[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


def test_our_own_listener_has_nothing_bad(tmp_path):
    with listener(tmp_path) as (port, ca_file):
        findings = check(Target("127.0.0.1", port, "a.test", ca_file), NOW)
    found = levels(findings)
    assert not [each for each in findings if each.level in ("bad", "warning")]
    for name in ("protocols", "ciphers", "compression", "chain", "expiry", "hostname", "key"):
        assert "ok" in found[name]
    assert {"ok"} == found["hsts"] == found["signature"] == found["renegotiation"]
    texts = {each.text for each in findings}
    assert {"SSL 3.0 is refused", "TLS 1.2 is offered", "TLS 1.3 is offered"} <= texts
    assert "chooses h2 of h2 and http/1.1" in texts
    assert "a session was resumed" in texts


def test_a_listener_of_tls_13_alone_is_seen_as_one(tmp_path):
    with listener(tmp_path, min_version="1.3") as (port, ca_file):
        findings = check(Target("127.0.0.1", port, "a.test", ca_file), NOW)
    assert not [each for each in findings if each.level in ("bad", "warning")]
    assert "TLS 1.2 is not offered" in {each.text for each in findings}


@contextmanager
def s_server(folder: Path, *options: str):
    program = shutil.which("openssl")
    if program is None:
        pytest.fail("openssl is missing; install it with: apt-get install openssl")
    key = rsa.generate_private_key(65537, 1024)
    (folder / "weak.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    leaf = signed("b.test", key=key, begin=-900, end=-1)
    (folder / "weak.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"]
    command += ["-cert", str(folder / "weak.pem"), "-key", str(folder / "weak.key"), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_weak_server_is_told_of_everything(tmp_path):
    weak = ("-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0", "-client_renegotiation")
    old = ("-min_protocol", "TLSv1", "-max_protocol", "TLSv1.2")
    with s_server(tmp_path, *weak, *old) as port:
        findings = check(Target("127.0.0.1", port, "a.test"), NOW)
    bad = {each.text for each in findings if each.level == "bad"}
    assert "TLS 1.0 is offered, and broken (RFC 7568, RFC 8996)" in bad
    assert "TLS 1.1 is offered, and broken (RFC 7568, RFC 8996)" in bad
    assert "ECDHE_RSA_NULL_SHA does not encrypt" in bad
    assert "DH_anon_AES_256_GCM_SHA384 does not say who the server is" in bad
    assert "RSA, 1024 bits" in bad
    assert "it does not cover a.test, but b.test" in bad
    assert "a client may ask for handshakes without end on one connection" in bad
    found = levels(findings)
    assert found["chain"] == {"bad"}
    assert found["expiry"] == {"bad"}
    assert found["lifetime"] == {"warning"}
    assert found["hsts"] == {"warning"}
    assert "warning" in found["ciphers"]
    assert "TLS 1.3 is not offered" in {each.text for each in findings}


def test_a_server_that_hangs_up_is_not_one_of_tls():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(6):
                server.accept()[0].close()

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(CheckFailed, match="does not speak TLS"):
            check(Target("127.0.0.1", port, "a.test", timeout_s=2), NOW)
        thread.join(10)


def test_nobody_there_is_said_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CheckFailed, match="cannot be reached"):
        check(Target("127.0.0.1", port, "a.test"), NOW)


def test_an_address_is_no_server_name():
    assert Target("127.0.0.1", 1, "127.0.0.1").server_name is None
    assert Target("127.0.0.1", 1, "a.test").server_name == "a.test"
    assert ssl.HAS_SNI
