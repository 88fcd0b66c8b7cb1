"""TLS of a service that has an identity: contexts that follow its files, and who the peer is.

Theory of operation
-------------------
    identity.pem    certificate, intermediate and key: one file, moved into place
    bundle.pem      the roots that are trusted

A context is made once and given to servers and clients for good; each handshake goes by the files
of that moment (two `stat`, about 4 us), so a renewal drops no connection and needs no telling, also
not to other processes that serve from the same files. When the files are gone or spoilt, the last
good ones are used.

A client is told whom it wants to talk to by the host name of its identity (`SpiffeId.host_name`),
which OpenSSL compares in the handshake. A server accepts every service of its trust domain and
then asks `peer_id` who came; what that one may do is not decided here.

Sessions are not resumed: a ticket would let a client in after its certificate has ended.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId

if TYPE_CHECKING:
    from headgate.wire.following import FollowedTls

__all__ = [
    "Contexts",
    "IdentityFiles",
    "client_context",
    "contexts",
    "id_of_names",
    "own_files",
    "peer_id",
    "server_context",
]

HTTP1: Final = ("http/1.1",)


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    folder: Path

    @property
    def identity(self) -> Path:
        return self.folder / "identity.pem"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle.pem"

    def towards(self, peer: SpiffeId | None) -> FollowedTls:
        """How to connect to this service; None where each connection says it itself."""
        from headgate.wire.following import FollowedTls

        name = peer.host_name if peer is not None else None
        return FollowedTls(str(self.bundle), str(self.identity), name)


def own_files(state_dir: str | Path | None) -> IdentityFiles:
    """Those of the gateway or sidecar that has this state directory."""
    return IdentityFiles(Path(state_dir or ".headgate") / "mesh" / "own")


@dataclass(frozen=True, slots=True)
class Contexts:
    """Both sides, for as long as the process lives."""

    client: ssl.SSLContext
    """Give it `server_hostname=SpiffeId(...).host_name` of the service that is meant."""
    server: ssl.SSLContext


def contexts(files: IdentityFiles, *, alpn: tuple[str, ...] = HTTP1) -> Contexts:
    return Contexts(client_context(files, alpn), server_context(files, alpn))


def client_context(
    files: IdentityFiles, alpn: tuple[str, ...] = HTTP1, *, peer: SpiffeId | None = None
) -> ssl.SSLContext:
    """With `peer`, connections go to this service and no other, whatever name they are given."""
    from headgate.wire.following import NamedContext
    from headgate.wire.tls import upstream_context

    any_peer = upstream_context(files.towards(None), alpn)
    if peer is None:
        return any_peer
    named = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    named.base = lambda: any_peer
    named.name = peer.host_name
    return named


def server_context(
    files: IdentityFiles,
    alpn: tuple[str, ...] = HTTP1,
    clients: Literal["require", "ask"] = "require",
) -> ssl.SSLContext:
    """`ask`: a client without a certificate gets in, and `peer_id` is None for it."""
    from headgate.wire.following import following
    from headgate.wire.tls import TlsProfile, client_authorities, load_store

    pair = (str(files.identity), str(files.identity))

    def make() -> ssl.SSLContext:
        bundle = client_authorities(str(files.bundle))
        profile = TlsProfile(alpn, "1.2", None, bundle, clients == "require", resumes=False)
        # Dates are the clients' to judge: an old one is better than none while clocks are wrong.
        store, _ = load_store([pair], profile, wall=0.0, own=True)
        return store.context

    return following(ssl.PROTOCOL_TLS_SERVER, (pair[0], str(files.bundle)), make)


def peer_id(connection: object, trust_domain: str) -> SpiffeId | None:
    """Who is at the other end, if the handshake has proved it and it is of our trust domain.

    `connection` is an `ssl.SSLObject`, an `ssl.SSLSocket` or a transport's
    `get_extra_info("ssl_object")`.
    """
    asked = getattr(connection, "getpeercert", None)
    if asked is None:
        return None
    try:
        said = asked()
    except (ValueError, OSError):
        return None  # the handshake is not over
    # Empty where the certificate was not verified.
    names = said.get("subjectAltName", ()) if isinstance(said, dict) else ()
    return id_of_names((value for kind, value in names if kind == "URI"), trust_domain)


def id_of_names(uris: Iterable[str], trust_domain: str) -> SpiffeId | None:
    """The identity among the URIs of a verified certificate. SPIFFE wants exactly one URI."""
    found = list(uris)
    if len(found) != 1:
        return None
    try:
        one = SpiffeId.parse(found[0])
    except NotAnIdentity:
        return None
    return one if one.trust_domain == trust_domain else None
