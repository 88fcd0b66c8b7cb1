"""TLS over real sockets: choosing by name, swapping while connections go on, faults in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from headgate.errors import ConfigInvalid
from headgate.wire.local_ca import _general_name
from headgate.wire.tls import (
    HTTP1,
    CertificateStore,
    TlsProfile,
    load_certificates,
    load_store,
    upstream_context,
)

NOW = time.time()
DAY = dt.timedelta(days=1)


class Ca:
    """An authority that signs whatever a test needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self.sign(self.name, self.key.public_key(), [], ca=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def sign(self, subject, public, names, *, ca=False, begin=-1, end=60):
        now = dt.datetime.fromtimestamp(NOW, dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin * DAY)
            .not_valid_after(now + end * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names, cn="x", key=None, tag=None, chain=b"", **how) -> tuple[str, str]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
        certificate = self.sign(subject, key.public_key(), names, **how)
        stem = tag or f"{names[0] if names else cn}-{certificate.serial_number}".replace("*", "_")
        cert_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM) + chain)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(cert_file), str(key_file)


@pytest.fixture
def ca(tmp_path):
    return Ca(tmp_path)


def store(*files, **profile) -> CertificateStore:
    return load_store(files, TlsProfile(**profile), NOW)[0]


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.startswith(b"GET "):
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        else:
            self.transport.write(data)


@pytest.fixture
def run():
    def runner(main):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as it:
            return it.run(main)

    return runner


@contextlib.asynccontextmanager
async def serve(certificates: CertificateStore, protocol=Echo):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=certificates.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def command(*words: str | int | Path, stdin: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate(stdin)
    return out.decode()


async def handshake(port, name, ca, alpn=("http/1.1",), **limits):
    """Connect in a thread with the standard library; return serial, version, ALPN."""
    return await asyncio.to_thread(_handshake, port, name, ca, alpn, limits)


def _handshake(port, name, ca, alpn, limits):
    context = ssl.create_default_context(cafile=ca.path)
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    for attribute, value in limits.items():
        setattr(context, attribute, value)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname=name) as sock,
    ):
        sock.sendall(b"ping")
        assert sock.recv(10) == b"ping"
        der = sock.getpeercert(binary_form=True)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        return certificate.serial_number, sock.version(), sock.selected_alpn_protocol()


def serial(files: tuple[str, str]) -> int:
    return x509.load_pem_x509_certificate(Path(files[0]).read_bytes()).serial_number


# --------------------------------------------------------------------------------------- choosing


def test_the_name_chooses_exact_before_wildcard_before_the_first(ca):
    first = ca.issue("a.example")
    wild = ca.issue("*.shop.example")
    exact = ca.issue("www.shop.example", "10.0.0.1")
    chooser = store(first, wild, exact)
    chosen = {
        name: chooser.choose(name).files
        for name in (None, "a.example", "x.shop.example", "www.shop.example", "a.b.shop.example")
    }
    assert chosen == {
        None: first,
        "a.example": first,
        "x.shop.example": wild,
        "www.shop.example": exact,
        "a.b.shop.example": first,
    }
    assert chooser.choose("shop.example").files == first
    assert chooser.covers("x.shop.example") == chooser.choose("x.shop.example").identity
    assert chooser.covers("10.0.0.1") == chooser.choose("www.shop.example").identity
    assert chooser.covers("other.example") is None


def test_a_request_is_misdirected_when_its_host_has_another_certificate(ca):
    chooser = store(
        ca.issue("a.example", "shared.example"),
        ca.issue("b.example", "shared.example"),
        ca.issue("*.c.example"),
    )
    a, b = (chooser.choose(name).context for name in ("a.example", "b.example"))
    assert not chooser.misdirected(a, "a.example")
    assert chooser.misdirected(a, "b.example")
    assert chooser.misdirected(b, "a.example")
    assert chooser.misdirected(b, "x.c.example")
    # covered by the connection's own certificate, though another comes first
    assert not chooser.misdirected(b, "shared.example")
    # a host without any certificate is served by the first one, whoever asks
    assert not chooser.misdirected(a, "unknown.example")
    assert not chooser.misdirected(b, "unknown.example")
    assert not chooser.misdirected(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "a.example")


def test_a_renewal_does_not_misdirect_the_connections_there_are(ca):
    chooser = store(ca.issue("a.example"), ca.issue("b.example"))
    old = chooser.choose("a.example").context
    renewed, _ = load_certificates(
        [ca.issue("a.example"), ca.issue("b.example")], TlsProfile(), NOW
    )
    chooser.replace(renewed, TlsProfile())
    assert not chooser.misdirected(old, "a.example")
    assert chooser.misdirected(old, "b.example")


# ---------------------------------------------------------------------------------------- serving


def test_serves_by_name_and_swaps_for_new_handshakes_only(run, ca):
    a, b = ca.issue("a.example"), ca.issue("b.example")
    chooser = store(a, b)

    async def main():
        async with serve(chooser) as port:
            client = ssl.create_default_context(cafile=ca.path)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname="b.example"
            )
            assert (await handshake(port, "a.example", ca))[0] == serial(a)
            assert (await handshake(port, "B.Example", ca))[0] == serial(b)
            assert (await handshake(port, None, ca))[0] == serial(a)
            assert (await handshake(port, "127.0.0.1", ca))[0] == serial(a)

            renewed = ca.issue("b.example")
            base = chooser.context
            chooser.replace(load_certificates([renewed], TlsProfile(), NOW)[0], TlsProfile())
            assert chooser.context is base
            assert (await handshake(port, "b.example", ca))[0] == serial(renewed)
            assert (await handshake(port, "a.example", ca))[0] == serial(renewed)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()

    run(main())


def test_the_chosen_context_is_found_from_the_connection(run, ca):
    chooser = store(ca.issue("a.example"), ca.issue("b.example"))
    found = []

    class Look(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            found.append(transport.get_extra_info("ssl_object").context)

    async def main():
        async with serve(chooser, Look) as port:
            await handshake(port, "b.example", ca)

    run(main())
    assert found == [chooser.choose("b.example").context]
    assert chooser.misdirected(found[0], "a.example")
    assert not chooser.misdirected(found[0], "b.example")


def test_versions_and_alpn(run, ca):
    files = ca.issue("a.example")

    async def main():
        async with serve(store(files)) as port:
            assert (await handshake(port, "a.example", ca, ("h2", "http/1.1")))[1:] == (
                "TLSv1.3",
                "h2",
            )
            assert (await handshake(port, "a.example", ca))[2] == "http/1.1"
            assert (await handshake(port, "a.example", ca, ("spdy/1",)))[2] is None
            old = {"maximum_version": ssl.TLSVersion.TLSv1_2}
            assert (await handshake(port, "a.example", ca, **old))[1] == "TLSv1.2"
            out = await command(
                "openssl",
                "s_client",
                "-tls1_1",
                "-cipher",
                "ALL:@SECLEVEL=0",
                "-connect",
                f"127.0.0.1:{port}",
            )
            assert "Cipher is (NONE)" in out
            out = await command(
                "openssl",
                "s_client",
                "-tls1_2",
                "-cipher",
                "AES128-SHA",
                "-connect",
                f"127.0.0.1:{port}",
            )
            assert "Cipher is (NONE)" in out

        async with serve(store(files, min_version="1.3", alpn=HTTP1)) as port:
            assert (await handshake(port, "a.example", ca, ("h2", "http/1.1")))[1:] == (
                "TLSv1.3",
                "http/1.1",
            )
            with pytest.raises(ssl.SSLError):
                await handshake(port, "a.example", ca, **old)

    run(main())


def test_ecdsa_and_rsa_for_the_same_names_are_both_served(run, ca):
    rsa_key = rsa.generate_private_key(65537, 2048)
    ecdsa_files, rsa_files = ca.issue("a.example"), ca.issue("a.example", key=rsa_key)

    async def main():
        chooser = store(ecdsa_files, rsa_files)
        async with serve(chooser) as port:
            assert len(chooser.snapshot()) == 1
            for algorithm, files in (("ECDSA", ecdsa_files), ("RSA", rsa_files)):
                out = await command(
                    "openssl", "s_client", "-tls1_2", "-cipher", f"ECDHE-{algorithm}-AES128-GCM-SHA256",
                    "-connect", f"127.0.0.1:{port}", "-servername", "a.example",
                )  # fmt: skip
                leaf = x509.load_pem_x509_certificate(out[out.index("-----BEGIN") :].encode())
                assert leaf.serial_number == serial(files)

    run(main())


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed_also_after_a_swap(run, ca, version, tmp_path):
    chooser = store(ca.issue("a.example"), ca.issue("b.example"))
    session = tmp_path / "session.pem"

    async def main():
        async with serve(chooser) as port:
            words = (
                "openssl",
                "s_client",
                version,
                "-connect",
                f"127.0.0.1:{port}",
                "-servername",
                "b.example",
            )
            # s_client has the tickets of TLS 1.3 only after it has read some data
            talk = ["sh", "-c", '(printf ping; sleep 0.3) | "$@"', "sh"]
            first = await command(*talk, *words, "-sess_out", session)
            assert "New, TLS" in first
            assert "Reused, TLS" in await command(*talk, *words, "-sess_in", session)
            chooser.replace(
                load_certificates([ca.issue("b.example")], TlsProfile(), NOW)[0], TlsProfile()
            )
            assert "Reused, TLS" in await command(*talk, *words, "-sess_in", session)

    run(main())


def test_curl_verifies_the_name(run, ca):
    files = ca.issue("shop.example", "*.api.example", "127.0.0.1")

    async def main():
        async with serve(store(files, alpn=HTTP1)) as port:
            for host in ("shop.example", "v1.api.example", "127.0.0.1"):
                out = await command(
                    "curl", "-s", "--cacert", ca.path, "--max-time", 5,
                    "--resolve", f"*:{port}:127.0.0.1", f"https://{host}:{port}/",
                )  # fmt: skip
                assert out == "ok", host
            out = await command(
                "curl", "-sS", "--cacert", ca.path, "--resolve", f"*:{port}:127.0.0.1", f"https://other.example:{port}/",
            )  # fmt: skip
            assert "no alternative certificate subject name matches" in out

    run(main())


# ----------------------------------------------------------------------------------------- faults


def messages(*files, wall=NOW, **profile) -> list[str]:
    _, faults = load_certificates(files, TlsProfile(**profile), wall)
    for fault in faults:
        assert "BEGIN" not in str(fault)
        assert "-----" not in str(fault)
    return [
        f"{Path(f.file).name}: {f.level}: {f.message}; {f.hint}".removesuffix("; ") for f in faults
    ]


def test_no_faults_for_good_files(ca):
    assert messages(ca.issue("a"), ca.issue("b")) == []


def test_missing_files_are_all_named(ca):
    good = ca.issue("a", tag="a")
    assert messages(("/no/such.pem", good[1]), (good[0], "/no/such.key")) == [
        "such.pem: error: cannot be read: No such file or directory",
        "such.key: error: cannot be read: No such file or directory",
    ]
    assert messages((str(ca.folder), good[1])) == [
        f"{ca.folder.name}: error: cannot be read: Is a directory"
    ]


def test_a_key_that_does_not_match(ca):
    one, two = ca.issue("a", tag="a"), ca.issue("b", tag="b")
    assert messages((one[0], two[1])) == [f"a.pem: error: does not belong to the key {two[1]}"]


def test_a_chain_that_begins_with_the_authority(ca):
    one = ca.issue("a", tag="a")
    leaf = Path(one[0]).read_bytes()
    Path(one[0]).write_bytes(ca.path.read_bytes() + leaf)
    assert messages(one) == [
        f"a.pem: error: does not belong to the key {one[1]}; put the server's own certificate first"
    ]
    Path(one[0]).write_bytes(leaf + leaf)
    assert messages(one) == [
        "a.pem: warning: has intermediates in the wrong order or that do not belong"
    ]
    Path(one[0]).write_bytes(leaf + ca.path.read_bytes())
    assert messages(one) == []


def test_files_that_are_mistaken_for_each_other_or_are_no_pem(ca, tmp_path):
    one = ca.issue("a", tag="a")
    assert messages((one[1], one[0])) == [
        "a.key: error: is not a PEM certificate; it holds a private key",
        "a.pem: error: is not a PEM private key; it holds a certificate",
    ]
    junk = tmp_path / "junk"
    for content in (b"", b"junk", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"):
        junk.write_bytes(content)
        assert messages((str(junk), one[1])) == ["junk: error: is not a PEM certificate"]
    junk.write_bytes(b"x" * (1 << 21))
    assert messages((one[0], str(junk))) == [
        "junk: error: is too long to be a certificate or a key"
    ]


def test_a_key_under_a_pass_phrase_is_refused_and_never_asked_for(ca):
    one = ca.issue("a", tag="a")
    key = ec.generate_private_key(ec.SECP256R1())
    Path(one[1]).write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    (message,) = messages(one)
    assert "a.key: error: is a private key under a pass phrase" in message


def test_dates_are_warnings(ca):
    expired, soon = (
        ca.issue("a", tag="a", begin=-60, end=-1),
        ca.issue("b", tag="b", begin=-60, end=3),
    )
    future, short = ca.issue("c", tag="c", begin=1), ca.issue("d", tag="d", begin=-1, end=2)
    got = messages(expired, soon, future, short)
    assert [message.split(" 20")[0] for message in got] == [
        "a.pem: warning: expired on",
        "b.pem: warning: expires on",
        "c.pem: warning: is not valid before",
    ]
    assert load_store([expired], TlsProfile(), NOW)[0].choose("a").files == expired


def test_what_openssl_refuses(ca):
    weak = ca.issue("a", tag="a", key=rsa.generate_private_key(65537, 1024))
    assert messages(weak) == ["a.pem: error: is refused by OpenSSL: ee key too small"]
    odd = ca.issue("b", tag="b", key=ed448.Ed448PrivateKey.generate())
    assert messages(odd) == []
    assert messages(odd, ciphers="NO-SUCH") == [
        ": error: no cipher of the list 'NO-SUCH' is known to OpenSSL"
    ]


def test_a_second_certificate_of_the_same_kind_for_the_same_names_is_pointed_out(ca):
    one, two = ca.issue("a", tag="one"), ca.issue("a", tag="two")
    assert messages(one, two) == [
        "two.pem: warning: is never served: another certificate for the same names comes before it"
    ]


def test_a_certificate_without_alternative_names_goes_by_its_common_name(ca):
    assert (
        store(ca.issue("x"), ca.issue(cn="old.example")).choose("old.example").covers("old.example")
    )


def test_load_store_raises_every_fault(ca):
    with pytest.raises(ConfigInvalid) as caught:
        load_store([("/no/a", "/no/b"), ca.issue("a")], TlsProfile(), NOW)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigInvalid):
        load_store([], TlsProfile(), NOW)


# --------------------------------------------------------------------------------------- upstream


@dataclass(frozen=True)
class Upstream:
    verify: bool = True
    ca_file: Path | None = None
    server_name: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def test_upstream_contexts_verify_and_are_shared(ca):
    options = Upstream(ca_file=ca.path)
    context = upstream_context(options, HTTP1)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert upstream_context(Upstream(ca_file=ca.path, server_name="x"), HTTP1) is context
    assert upstream_context(options, ("h2",)) is not context
    other = Ca(ca.folder)
    assert other.path == ca.path
    assert upstream_context(options, HTTP1) is not context


def test_upstream_contexts_trust_the_systems_authorities_by_default():
    context = upstream_context(Upstream(), HTTP1)
    assert context.verify_mode is ssl.CERT_REQUIRED
    unverified = upstream_context(Upstream(verify=False), HTTP1)
    assert unverified.verify_mode is ssl.CERT_NONE


def test_upstream_faults(ca, tmp_path):
    junk = tmp_path / "junk"
    junk.write_text("junk")
    for options, message in (
        (Upstream(ca_file=tmp_path / "none"), "cannot be read"),
        (Upstream(ca_file=junk), "has no PEM certificates"),
        (Upstream(ca_file=ca.path, cert_file=str(junk), key_file=str(junk)), "is not a PEM"),
        (
            Upstream(ca_file=ca.path, cert_file=ca.issue("a")[0], key_file=ca.issue("b")[1]),
            "belong",
        ),
    ):
        with pytest.raises(ConfigInvalid, match=message):
            upstream_context(options, HTTP1)


def test_upstream_verification_and_client_certificates_over_sockets(run, ca):
    server_files, client_files = ca.issue("a.example", "127.0.0.1"), ca.issue("client")
    asking = store(server_files, client_ca=Path(ca.path).read_text())

    async def once(port, options, name):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=upstream_context(options, HTTP1), server_hostname=name
        )
        try:
            writer.write(b"ping")
            return await reader.read(4)
        finally:
            writer.close()

    async def main():
        async with serve(store(server_files)) as port:
            assert await once(port, Upstream(ca_file=ca.path), "a.example") == b"ping"
            assert await once(port, Upstream(ca_file=ca.path), "127.0.0.1") == b"ping"
            assert await once(port, Upstream(verify=False), "anything") == b"ping"
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await once(port, Upstream(ca_file=ca.path), "b.example")
            with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
                await once(port, Upstream(), "a.example")

        async with serve(asking) as port:
            with_client = Upstream(
                ca_file=ca.path, cert_file=client_files[0], key_file=client_files[1]
            )
            assert await once(port, with_client, "a.example") == b"ping"
            try:
                assert await once(port, Upstream(ca_file=ca.path), "a.example") == b""
            except (ssl.SSLError, ConnectionError):
                pass

    run(main())
