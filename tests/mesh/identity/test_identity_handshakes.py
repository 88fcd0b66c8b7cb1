"""Certificates that should get nowhere, over real TLS sockets; and those that should."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from headgate.mesh.identity.certificates import (
    make_leaf,
    new_key,
    read_key,
    read_request,
    request_for,
)
from headgate.security.service_identity.contexts import (
    IdentityFiles,
    client_context,
    contexts,
    peer_id,
    server_context,
)
from headgate.security.service_identity.spiffe import SpiffeId
from headgate.wire import local_ca
from tests.mesh.identity.mesh_rig import DOMAIN, RULES, Clock, Desk, written

pytestmark = pytest.mark.integration

USERS = f"users.{DOMAIN}"


@dataclass
class Met:
    """What became of one meeting."""

    client: str = "no answer"
    """`ok`, or why not."""
    server: str = "no client"
    who: SpiffeId | None = None
    """Who the server thinks came."""


def meet(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = USERS, domain: str = DOMAIN
) -> Met:
    """One connection, one byte there and one back."""
    met = Met()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            raw.settimeout(20)
            try:
                with raw, server.wrap_socket(raw, server_side=True) as tls:
                    met.who = peer_id(tls, domain)
                    tls.sendall(tls.recv(1))
                    met.server = "ok"
            except (OSError, ValueError) as error:
                met.server = str(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), 20) as raw,
                client.wrap_socket(raw, server_hostname=name) as tls,
            ):
                tls.sendall(b"x")
                met.client = "ok" if tls.recv(1) == b"x" else "cut off"
        except (OSError, ValueError) as error:
            met.client = str(error)
        finally:
            thread.join(20)
    return met


@pytest.fixture(scope="module")
def now() -> Clock:
    """The real time, as OpenSSL has no other."""
    return Clock(time.time())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, now: Clock) -> Desk:
    return Desk(tmp_path_factory.mktemp("authority"), now)


@pytest.fixture(scope="module")
def users(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> IdentityFiles:
    return desk.files(tmp_path_factory.mktemp("users"), "users")


@pytest.fixture(scope="module")
def orders(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> IdentityFiles:
    return desk.files(tmp_path_factory.mktemp("orders"), "orders")


def test_two_services_know_each_other(users: IdentityFiles, orders: IdentityFiles) -> None:
    met = meet(server_context(users), client_context(orders))
    assert (met.client, met.server) == ("ok", "ok")
    assert met.who == SpiffeId(DOMAIN, "orders")


def test_a_client_takes_no_other_service_for_the_one_it_wants(
    users: IdentityFiles, orders: IdentityFiles
) -> None:
    for name in (f"billing.{DOMAIN}", "users", "users.other.internal", "localhost", "127.0.0.1"):
        met = meet(server_context(users), client_context(orders), name)
        assert "mismatch" in met.client, name
        assert met.server != "ok"


def test_a_context_for_one_service_connects_to_no_other_whatever_the_address_is_called(
    desk: Desk, users: IdentityFiles, tmp_path: Path
) -> None:
    agent = desk.agent(tmp_path / "own", token=desk.token("orders"))
    agent.turn()
    agent.turn()
    assert agent.tls_for("users") is agent.tls_for("users", "10.0.0.9")
    # As asyncio asks.
    made = agent.tls_for("users").wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=False, server_hostname="10.0.0.9"
    )
    assert made.server_hostname == USERS
    # As anyio does.
    made = agent.tls_for("users").wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), False, "10.0.0.9")
    assert made.server_hostname == USERS
    for name in ("127.0.0.1", "10-0-0-9.pods.local", USERS, f"billing.{DOMAIN}"):
        assert meet(server_context(users), agent.tls_for("users"), name).client == "ok"
        met = meet(server_context(users), agent.tls_for("billing"), name)
        assert "mismatch" in met.client


def test_a_client_without_a_name_to_expect_does_not_connect(
    users: IdentityFiles, orders: IdentityFiles
) -> None:
    raw = socket.socket()
    with raw, pytest.raises(ValueError, match="server_hostname"):
        client_context(orders).wrap_socket(raw)
    assert users.identity.exists()


def test_a_client_without_a_certificate_gets_in_only_where_it_may(
    users: IdentityFiles,
) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(users.bundle)
    assert meet(server_context(users), bare).client != "ok"
    met = meet(server_context(users, clients="ask"), bare)
    assert (met.client, met.who) == ("ok", None)


Shown = Callable[[Desk, Clock, Path], tuple[str, str]]
"""Certificate with chain, and the key that goes with it."""


def self_made(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    """By a stranger, with all the right names."""
    key, pem = new_key()
    own = x509.Name([])
    good = x509.load_pem_x509_certificates(desk.issue("orders")[0].chain.encode())[0]
    builder = x509.CertificateBuilder(
        own, own, key.public_key(), 5, good.not_valid_before_utc, good.not_valid_after_utc
    )
    for each in good.extensions:
        if not isinstance(each.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(each.value, each.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode(), pem


def foreign_root(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    issued, _, pem = Desk(folder, now).issue("orders")
    return issued.chain, pem


def foreign_with_our_intermediate(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    """Its own certificate, above it ours."""
    issued, _, pem = Desk(folder, now).issue("orders")
    leaf = issued.chain.split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    return leaf + desk.authority.ring.issuers[0].pem, pem


def expired(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    now.now -= RULES.ttl_s + 60
    try:
        issued, _, pem = desk.issue("orders")
    finally:
        now.now += RULES.ttl_s + 60
    return issued.chain, pem


def not_begun(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    now.now += 3600
    try:
        issued, _, pem = desk.issue("orders")
    finally:
        now.now -= 3600
    return issued.chain, pem


def other_domain(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    """Signed by our own intermediate, which may not."""
    issuer = desk.authority.ring.issuers[0]
    key, pem = new_key()
    made, _ = make_leaf(
        x509.load_pem_x509_certificate(issuer.pem.encode()),
        read_key(issuer.key_pem),
        read_request(request_for(key)),
        SpiffeId.of("other.internal", "users"),
        "a1",
        now(),
        600.0,
        300.0,
    )
    return made.pem + issuer.pem, pem


def by_a_service(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    """A service that plays the authority."""
    issued, signing, _ = desk.issue("users")
    leaf = x509.load_pem_x509_certificates(issued.chain.encode())[0]
    key, pem = new_key()
    made, _ = make_leaf(
        leaf,
        signing,
        read_request(request_for(key)),
        SpiffeId.of(DOMAIN, "orders"),
        "a1",
        now(),
        600.0,
        300.0,
    )
    return made.pem + issued.chain, pem


def of_the_local_authority(desk: Desk, now: Clock, folder: Path) -> tuple[str, str]:
    made = local_ca.ensure(folder, [USERS], now())
    text = made.path.read_text()
    chain, mark, key = text.partition("-----BEGIN PRIVATE KEY")
    return chain, mark + key


BAD: list[Shown] = [
    self_made,
    foreign_root,
    foreign_with_our_intermediate,
    expired,
    not_begun,
    other_domain,
    by_a_service,
    of_the_local_authority,
]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("shown", BAD, ids=lambda each: each.__name__)
def test_a_bad_certificate_gets_nowhere(
    shown: Shown,
    side: Literal["client", "server"],
    desk: Desk,
    now: Clock,
    users: IdentityFiles,
    orders: IdentityFiles,
    tmp_path: Path,
) -> None:
    chain, key_pem = shown(desk, now, tmp_path / "other")
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "c.pem").write_text(chain + key_pem)
    own.load_cert_chain(tmp_path / "c.pem")
    if side == "client":
        own.load_verify_locations(users.bundle)
        met = meet(server_context(users), own)
        assert met.who is None
    else:
        met = meet(own, client_context(orders))
    assert met.client != "ok"
    assert met.server != "ok"


def test_a_stolen_certificate_is_nothing_without_its_key(
    users: IdentityFiles, tmp_path: Path
) -> None:
    """Certificates are no secret: whoever was called has seen one."""
    chain = users.identity.read_text().partition("-----BEGIN PRIVATE KEY")[0]
    mixed = written(tmp_path, chain + new_key()[1], users.bundle.read_text())
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(mixed.identity)
    assert "does not belong" in meet(server_context(mixed), client_context(users)).server


def test_contexts_follow_the_files_and_connections_go_on(
    desk: Desk, users: IdentityFiles, tmp_path: Path
) -> None:
    own = desk.files(tmp_path / "own", "orders")
    both = contexts(own)
    with _echoing(both.server) as (port, seen):
        client = client_context(users)
        with _connected(client, port, f"orders.{DOMAIN}") as first:
            before = _serial(first)
            desk.files(tmp_path / "own", "orders")
            with _connected(client, port, f"orders.{DOMAIN}") as second:
                assert _serial(second) != before
                for each in (first, second, first):
                    each.sendall(b"y")
                    assert each.recv(1) == b"y"
            # Gone or spoilt files: the last good ones serve on.
            own.identity.write_text("nothing")
            with _connected(client, port, f"orders.{DOMAIN}") as third:
                assert _serial(third) != before
            own.bundle.unlink()
            with _connected(client, port, f"orders.{DOMAIN}"):
                pass
        assert set(seen) == {SpiffeId(DOMAIN, "users")}


def test_without_files_handshakes_fail_and_say_why_until_there_are_some(
    desk: Desk, users: IdentityFiles, tmp_path: Path
) -> None:
    own = IdentityFiles(tmp_path / "own")
    both = contexts(own)
    met = meet(both.server, client_context(users), f"orders.{DOMAIN}")
    assert "cannot be read" in met.server
    assert "cannot be read" in meet(server_context(users), both.client).client
    desk.files(tmp_path / "own", "orders")
    assert meet(both.server, client_context(users), f"orders.{DOMAIN}").client == "ok"
    assert meet(server_context(users), both.client).client == "ok"


def test_a_new_root_is_trusted_beside_the_old_one(now: Clock, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "a", now, replace(RULES, announce_s=7200.0))
    old = desk.files(tmp_path / "old", "users")
    desk.authority.order_root()
    desk.authority.turn(now())
    told = desk.files(tmp_path / "told", "orders")
    assert told.bundle.read_text().count("BEGIN") == 2
    other = Desk(tmp_path / "a", now, replace(RULES, announce_s=0.0))
    new = other.files(tmp_path / "new", "users")
    assert len({each.root for each in other.authority.ring.issuers}) == 2
    for server in (old, new):
        assert meet(server_context(server), client_context(told)).client == "ok"
    # Who has not heard of the new root does not take it on faith.
    assert meet(server_context(new), client_context(old)).client != "ok"


def test_sessions_are_not_resumed(users: IdentityFiles, orders: IdentityFiles) -> None:
    with _echoing(server_context(users)) as (port, _):
        # The one context below: a session belongs to it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(users.bundle)
        context.load_cert_chain(orders.identity)
        with _connected(context, port, USERS) as first:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            session = first.session
        assert session is None or not session.has_ticket


# -- sockets ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _echoing(context: ssl.SSLContext) -> Iterator[tuple[int, list[SpiffeId | None]]]:
    """A server that echoes, and who came."""
    seen: list[SpiffeId | None] = []
    threads: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def one(raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw, context.wrap_socket(raw, server_side=True) as tls:
            seen.append(peer_id(tls, DOMAIN))
            while data := tls.recv(100):
                tls.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                raw.settimeout(20)
                threads.append(threading.Thread(target=one, args=(raw,)))
                threads[-1].start()

    main = threading.Thread(target=accept)
    main.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        main.join(20)
        for thread in threads:
            thread.join(20)


@contextlib.contextmanager
def _connected(context: ssl.SSLContext, port: int, name: str) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        yield tls


def _serial(tls: ssl.SSLSocket) -> str:
    said = tls.getpeercert()
    assert said is not None
    return str(said["serialNumber"])
