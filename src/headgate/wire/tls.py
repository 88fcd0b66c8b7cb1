"""TLS settings: certificates that are chosen by name and swapped while connections go on.

Theory of operation
-------------------
A listener has one base context without a certificate. Its SNI callback, which OpenSSL calls in
every handshake (also when the client names no host), asks the `CertificateStore` and puts the
chosen certificate's own context in place of the base. So `replace` changes what new handshakes
get and nothing else: connections keep the context they were given, and need not be closed.

What OpenSSL takes from where decides what a swap can change. Certificate, key, ciphers and ALPN
come from the chosen context, so all contexts of a store are made by one profile; the protocol
versions are copied from the base when the connection is made; session tickets belong to the
base, and so does the key they are sealed with.

Whoever has that key can open every session that was resumed by its tickets, so a base lives half
a day: the first connection after that gets a new one, and with it a new key. Tickets of the old
base are then not accepted, which costs their holders one whole handshake. Servers are started
with a context in front (`CertificateStore.context`) that stays the same for as long as the store
lives and hands each connection to the base of the time. Each process has keys of its own: Python
cannot set them, so with several workers a ticket is good at the one that gave it.

The name chooses: exact before wildcard, a wildcard stands for one label (RFC 9525 6.3), the first
certificate in the file serves everyone else. Two certificates for the same names with different
kinds of key (ECDSA and RSA) share a context, and OpenSSL picks the one the client can read.

A client may ask a connection for another host than it opened it for, which HTTP/2 encourages. If
that host has a certificate of its own here and the connection's does not cover it, the request is
answered 421 (RFC 9110 15.5.20): `misdirected` tells. A host that no certificate covers is served
by the first one whoever asks, and is therefore not misdirected.

While an authority is to see a challenge (RFC 8737, see `acme_alpn`), the base shows us the first
message of each new connection, and a client that offers `acme-tls/1` and nothing else gets the
challenge's certificate for the name it asks. Everybody else is served as ever; and when nothing is
pending the message is not looked at, so that this costs nothing.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from headgate.errors import ConfigInvalid, Fault
from headgate.wire.acme_alpn import ACME_TLS, is_acme_hello
from headgate.wire.certificate_files import (
    CertificatePair,
    file_fault,
    no_password,
    read_file,
    read_judged,
    read_own,
)
from headgate.wire.error_words import say
from headgate.wire.following import FollowedTls, FrontContext, following, stamp_of
from headgate.wire.handshakes import OnFault, WatchedObject

# Mozilla's "intermediate" list, version 5.7, without its finite-field DHE suites: every client of
# the last ten years has ECDHE, and DHE is slow for the server.
CIPHERS_TLS12: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
HTTP1: Final = ("http/1.1",)
HTTP2_AND_1: Final = ("h2", "http/1.1")

TICKET_KEY_S: Final = 12 * 3600.0
"""How long one key seals session tickets."""

_CLIENT_HELLO: Final = 1  # RFC 8446 4
_CACHED_CONTEXTS: Final = 256

_C = TypeVar("_C", bound=ssl.SSLContext)


def alpn_of(protocols: Collection[str]) -> tuple[str, ...]:
    """What a listener offers by ALPN, from its `protocols`; a client with none of it is refused."""
    names = {"http2": "h2", "http1": "http/1.1"}
    return tuple(name for protocol, name in names.items() if protocol in protocols)


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """What all certificates of one listener have in common."""

    alpn: tuple[str, ...] = HTTP2_AND_1
    min_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str | None = None
    """An OpenSSL cipher list for TLS 1.2 in place of ours."""
    client_ca: str | None = None
    """Authorities of client certificates, as PEM text; None asks clients for none."""
    is_client_certificate_needed: bool = True
    """Whether a client that shows none is turned away in the handshake."""
    resumes: bool = True
    """Whether sessions are taken up again, without a look at the client's certificate."""


class _ChosenContext(ssl.SSLContext):
    """A context that knows its certificate, to be found again from a connection."""

    certificate: Certificate


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A certificate with its key, ready to be served."""

    identity: str
    """SHA-256 of the certificate, in hex."""
    names: frozenset[str]
    parents: frozenset[str]
    """The parents of the wildcard names: `example.org` for `*.example.org`."""
    addresses: frozenset[str]
    not_after: datetime
    files: tuple[str, str]
    context: ssl.SSLContext = field(repr=False)

    def covers(self, host: str) -> bool:
        """Tell whether the certificate is good for `host`: lower-case, no brackets, no port."""
        if host in self.names or host in self.addresses:
            return True
        label, _, parent = host.partition(".")
        return bool(label) and parent in self.parents


@dataclass(frozen=True, slots=True)
class CertificateState:
    """What an operator may ask about a certificate."""

    identity: str
    names: tuple[str, ...]
    not_after: datetime
    cert_file: str


class CertificateStore:
    """The certificates of a listener. `context` is what the listener is started with, once."""

    def __init__(
        self,
        certificates: Sequence[Certificate],
        profile: TlsProfile,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`certificates` must not be empty, and all be loaded with `profile`."""
        self._profile = profile
        self._clock = clock
        self._challenges: dict[str, ssl.SSLContext] = {}
        self._hello = b""
        self._take(certificates)
        self._renew_base()
        self.context = FrontContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.base = self._base_now

    def replace(self, certificates: Sequence[Certificate], profile: TlsProfile) -> None:
        """Serve other certificates, by another profile, from the next handshake on."""
        self._take(certificates)
        if profile != self._profile:
            self._profile = profile
            self._renew_base()

    @property
    def clients_shown(self) -> tuple[str | None, bool]:
        """Whose certificates clients are asked for, and whether they must show one."""
        return self._profile.client_ca, self._profile.is_client_certificate_needed

    def show_challenges(self, files: Mapping[str, str]) -> None:
        """Show these to authorities from the next handshake on: for a name the PEM file with the
        certificate of RFC 8737 and its key. They take the place of those before.
        """
        challenges = {}
        for name, path in files.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(path, password=no_password)
            context.set_alpn_protocols([ACME_TLS])
            challenges[name] = context
        self._challenges = challenges
        self._hello = b""
        self._show_hellos()

    def watch(self, on_fault: OnFault, timeout_s: float) -> None:
        """Tell of each handshake that comes to nothing; `timeout_s` is the server's own limit."""
        self.context.watch = lambda made: made.watch(on_fault, timeout_s)

    def choose(self, name: str | None) -> Certificate:
        """Choose the certificate for a server name: lower-case, or None when none was sent."""
        if name is not None:
            found = self._exact.get(name)
            if found is None:
                found = self._wildcard.get(name.partition(".")[2])
            if found is not None:
                return found
        return self._default

    def covers(self, host: str) -> str | None:
        """Return the identity of the certificate that covers `host`, or None."""
        found = self.choose(host)
        return found.identity if found.covers(host) else None

    def misdirected(self, context: ssl.SSLContext, host: str) -> bool:
        """Tell whether a request for `host` came by a connection that is for other hosts.

        `context` is that of the connection: `get_extra_info("ssl_object").context`.
        """
        own = context.certificate if isinstance(context, _ChosenContext) else None
        if own is None or own.covers(host):
            return False
        other = self.choose(host)
        return other is not own and other.covers(host)

    def snapshot(self) -> tuple[CertificateState, ...]:
        """Return what is served, in the order of the file."""
        return tuple(
            CertificateState(
                each.identity,
                tuple(sorted({*each.names, *each.addresses, *(f"*.{p}" for p in each.parents)})),
                each.not_after,
                each.files[0],
            )
            for each in self._all
        )

    def _take(self, certificates: Sequence[Certificate]) -> None:
        exact: dict[str, Certificate] = {}
        wildcard: dict[str, Certificate] = {}
        for each in certificates:
            for name in (*each.names, *each.addresses):
                exact.setdefault(name, each)
            for parent in each.parents:
                wildcard.setdefault(parent, each)
        self._default = certificates[0]
        self._all = tuple(certificates)
        self._exact, self._wildcard = exact, wildcard

    def _base_now(self) -> ssl.SSLContext:
        if self._clock() >= self._renew_at:
            self._renew_base()
        return self._base

    def _renew_base(self) -> None:
        base = _server_context(ssl.SSLContext, self._profile)
        # The stub of the standard library has the callback return None alone; an alert's number
        # is legal too, but None (go on) is all we answer.
        base.sni_callback = self._on_server_name
        base.sslobject_class = WatchedObject
        self._base = base
        self._renew_at = self._clock() + TICKET_KEY_S
        self._show_hellos()

    def _show_hellos(self) -> None:
        # There is no public way to the protocols that a client offers before one is chosen. This
        # one is there in every Python from 3.8 on; where it is not, challenges are not shown.
        shown = self._on_message if self._challenges else None
        if hasattr(self._base, "_msg_callback"):
            self._base._msg_callback = shown  # noqa: SLF001

    def _on_message(
        self,
        _connection: object,
        direction: str,
        _version: object,
        _content: object,
        kind: object,
        data: bytes,
    ) -> None:
        if direction == "read" and kind == _CLIENT_HELLO:
            self._hello = data

    def _on_server_name(
        self, connection: ssl.SSLObject, name: str | None, _base: ssl.SSLContext
    ) -> None:
        normal = name.lower().removesuffix(".") if name is not None else None
        if self._challenges:
            # OpenSSL has just shown it, in this very call of the handshake.
            hello, self._hello = self._hello, b""
            challenge = self._challenges.get(normal or "")
            # A client that was asked for another key share comes here twice (RFC 8446 4.1.4), and
            # what it has been given shows no messages.
            if challenge is not None and (connection.context is challenge or is_acme_hello(hello)):
                connection.context = challenge
                return
        if isinstance(connection, WatchedObject):
            connection.asked_name = normal
        connection.context = self.choose(normal).context


def _server_context(kind: type[_C], profile: TlsProfile) -> _C:
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if profile.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if not profile.resumes:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    context.set_ciphers(profile.ciphers or CIPHERS_TLS12)
    context.set_alpn_protocols(list(profile.alpn))
    if profile.client_ca is not None:
        # On the base and on every chosen context: the mode is taken from the one, the
        # authorities from the other.
        context.load_verify_locations(cadata=profile.client_ca)
        context.verify_mode = (
            ssl.CERT_REQUIRED if profile.is_client_certificate_needed else ssl.CERT_OPTIONAL
        )
    return context


def client_authorities(path: str) -> str:
    """The PEM text of the authorities in this file. Raises ConfigInvalid."""
    faults: list[Fault] = []
    pem = read_file(path, faults)
    text = pem.decode("ascii", "replace") if pem is not None else ""
    if pem is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError):
            faults.append(file_fault(path, "has no PEM certificates of authorities"))
    if faults:
        raise ConfigInvalid(tuple(faults))
    return text


def load_certificates(
    files: Iterable[tuple[str, str]], profile: TlsProfile, wall: float, *, own: bool = False
) -> tuple[tuple[Certificate, ...], tuple[Fault, ...]]:
    """Read pairs of certificate file and key file (which may be one file). `own`: an identity of
    the mesh, which our agent keeps and has judged.

    The faults tell everything that is wrong. With one of level "error" the certificates are not
    complete and must not be served; "warning" is for what works but should be looked at.
    """
    loaded: dict[tuple[frozenset[str], ...], list[CertificatePair]] = {}
    faults: list[Fault] = []
    for cert_file, key_file in files:
        read = (
            read_own(cert_file, faults) if own else read_judged(cert_file, key_file, wall, faults)
        )
        if read is not None:
            loaded.setdefault((read.names, read.parents, read.addresses), []).append(read)
    certificates: list[Certificate] = []
    for group in loaded.values():
        first = group[0]
        try:
            context = _server_context(_ChosenContext, profile)
        except ssl.SSLError:
            message = f"no cipher of the list {profile.ciphers!r} is known to OpenSSL"
            faults.append(file_fault("", message))
            break
        kinds: set[str] = set()
        for read in group:
            if read.kind in kinds:
                faults.append(
                    file_fault(
                        read.files[0],
                        "is never served: another certificate for the same names comes before it",
                        level="warning",
                    )
                )
                continue
            kinds.add(read.kind)
            try:
                context.load_cert_chain(*read.files, password=no_password)
            except (ssl.SSLError, OSError) as error:
                faults.append(file_fault(read.files[0], f"is refused by OpenSSL: {say(error)}"))
        certificate = Certificate(
            first.identity,
            first.names,
            first.parents,
            first.addresses,
            first.not_after,
            first.files,
            context,
        )
        context.certificate = certificate
        certificates.append(certificate)
    return tuple(certificates), tuple(faults)


def load_store(
    files: Iterable[tuple[str, str]], profile: TlsProfile, wall: float, *, own: bool = False
) -> tuple[CertificateStore, tuple[Fault, ...]]:
    """Load a store, or raise ConfigInvalid with every fault; return it with the warnings."""
    certificates, faults = load_certificates(files, profile, wall, own=own)
    if any(fault.level == "error" for fault in faults):
        raise ConfigInvalid(faults)
    if not certificates:
        raise ConfigInvalid((file_fault("", "TLS needs at least one certificate"),))
    return CertificateStore(certificates, profile), faults


# ----------------------------------------------------------------------------------- to upstream


class UpstreamTlsOptions(Protocol):
    """What this file reads of the configuration's `UpstreamTlsSpec`."""

    @property
    def verify(self) -> bool: ...
    @property
    def ca_file(self) -> str | Path | None: ...
    @property
    def cert_file(self) -> str | Path | None: ...
    @property
    def key_file(self) -> str | Path | None: ...


_upstream_contexts: OrderedDict[object, ssl.SSLContext] = OrderedDict()


def upstream_context(
    options: UpstreamTlsOptions | FollowedTls, alpn: tuple[str, ...]
) -> ssl.SSLContext:
    """Return the context for connections to instances; raise ConfigInvalid on bad files.

    Contexts are shared between services that say the same, as loading the system's authorities
    takes tens of milliseconds. A file that has changed gives a new one. The server name is not
    part of it: it is given with each connection.
    """
    files = tuple(
        str(path) if path is not None else None
        for path in (options.ca_file, options.cert_file, options.key_file)
    )
    is_followed = isinstance(options, FollowedTls)
    key = (
        options.verify,
        alpn,
        is_followed,
        *((path, None if is_followed else stamp_of(path)) for path in files),
    )
    known = _upstream_contexts.get(key)
    if known is not None:
        _upstream_contexts.move_to_end(key)
        return known
    context = (
        _follow(options, alpn)
        if isinstance(options, FollowedTls)
        else _make_upstream_context(options.verify, alpn, *files)
    )
    _upstream_contexts[key] = context
    if len(_upstream_contexts) > _CACHED_CONTEXTS:
        _upstream_contexts.popitem(last=False)
    return context


def _follow(options: FollowedTls, alpn: tuple[str, ...]) -> ssl.SSLContext:
    files = (options.ca_file, options.cert_file, options.key_file)

    def make() -> ssl.SSLContext:
        return _make_upstream_context(options.verify, alpn, *files, own=True)

    return following(ssl.PROTOCOL_TLS_CLIENT, files[:2], make)


def _make_upstream_context(
    verify: bool,
    alpn: tuple[str, ...],
    ca_file: str | None,
    cert_file: str | None,
    key_file: str | None,
    *,
    own: bool = False,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    faults: list[Fault] = []
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        pem = read_file(ca_file, faults)
        if pem is not None:
            try:
                context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
            except (ssl.SSLError, ValueError):
                faults.append(file_fault(ca_file, "has no PEM certificates of authorities"))
    if cert_file is not None:
        key = key_file if key_file is not None else cert_file
        if own or read_judged(cert_file, key, None, faults) is not None:
            try:
                context.load_cert_chain(cert_file, key, password=no_password)
            except (ssl.SSLError, OSError) as error:
                faults.append(file_fault(cert_file, f"is refused by OpenSSL: {say(error)}"))
    if faults:
        raise ConfigInvalid(tuple(faults))
    return context
