"""The mesh: who services are, and how they prove it to each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import (
    FilePath,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.mesh_access import MeshAccessSpec, access_problems
from headgate.config.vaulting import VaultSpec
from headgate.config.vaulting import problems as vault_problems
from headgate.security.secrets.envelope import Passphrase
from headgate.security.secrets.errors import SecretFileError
from headgate.security.service_identity.contexts import own_files
from headgate.security.service_identity.rules import IdentityRules, RootInFile, RootInVault
from headgate.security.service_identity.spiffe import SpiffeId, service_fault, trust_domain_fault

if TYPE_CHECKING:
    from headgate.config.model import Config
    from headgate.config.services import UpstreamTlsSpec
    from headgate.wire.following import FollowedTls

__all__ = [
    "IdentitySpec",
    "MeshSpec",
    "RootSpec",
    "VaultRootSpec",
    "expected_service",
    "mesh_problems",
    "upstream_tls",
]

_D: Final = IdentityRules()
_SHORTEST_TTL_S: Final = 10.0
_LONGEST_TTL_S: Final = 7 * 86_400.0
_SHORT_TTL_S: Final = 600.0

Found = tuple[tuple[str | int, ...], str, str, bool]


def _domain(value: object) -> str:
    text = text_of(value).strip()
    if fault := trust_domain_fault(text):
        raise refuse(fault)
    return text


def _service(value: object) -> str:
    text = text_of(value).strip()
    if fault := service_fault(text):
        raise refuse(fault)
    return text


IdentityName = Annotated[
    str,
    PlainValidator(_service),
    Words("name"),
    WithJsonSchema({"type": "string", "pattern": r"^[a-z0-9_][a-z0-9_.\-]{0,99}$"}),
]


class VaultRootSpec(VaultSpec):
    """A PKI engine of Vault or OpenBao that holds the root.

    Its policy must allow `update` on `MOUNT/issuer/ISSUER/sign-intermediate`.
    """

    mount: Text = "pki"
    """Where the PKI engine is enabled."""

    issuer: Text = "default"
    """Which of its issuers signs."""


class RootSpec(Spec):
    """Where the key of the root is. Whoever has it can speak as any service.

    With nothing said, a key file is made beside what it opens: good for one machine that nobody
    copies. Say `passphrase`, a `key_file` that is kept elsewhere, or `vault`.
    """

    passphrase: Text = ""
    """Seals the key in the state directory, as `${env:NAME}` or `${vault:PATH#KEY}`. 12 characters
    or more."""

    key_file: FilePath | None = None
    """Seals it likewise: a key made by `headgate secrets init`, on another disk."""

    vault: VaultRootSpec | None = None
    """The key stays in Vault, which signs intermediates for us. What several machines with one
    trust domain need."""

    def rules(self) -> RootInFile | RootInVault:
        if self.vault is not None:
            return RootInVault(self.vault.rules(), self.vault.mount, self.vault.issuer)
        return RootInFile(self.passphrase, Path(self.key_file) if self.key_file else None)


class IdentitySpec(Spec):
    """Certificates of services: short lives, renewed by themselves."""

    service: IdentityName = _D.own_service
    """Who this gateway is towards services."""

    ttl: Wait = _D.ttl_s
    """How long a certificate lives. It is renewed at half of that, so control may be away for the
    other half; and this is how long a stolen one is good at most."""

    intermediate: Wait = _D.issuer_life_s
    """How long the authority lives that signs them. It is renewed when a third is left."""

    announce: Wait = _D.announce_s
    """How long a new root is made known before anything is signed below it. At least `ttl`."""

    signs_per_minute: Positive = _D.signs_per_minute
    """How many certificates one service may have in a minute."""

    root: RootSpec = RootSpec()
    """Where the key of the root is."""


class MeshSpec(Spec):
    """Services that know each other by certificates of their own (mutual TLS).

    Control is their authority. A service gets an identity with a token from
    `headgate mesh token SERVICE`, and renews it by itself.
    """

    trust_domain: Annotated[
        str,
        PlainValidator(_domain),
        Words("DNS name"),
        WithJsonSchema({"type": "string", "examples": ["mesh.internal", "prod.example.org"]}),
    ] = _D.trust_domain
    """What identities begin with: `spiffe://TRUST_DOMAIN/service/NAME`. It need not be in DNS.
    Changing it gives every service a new identity, for which it has to join again."""

    identity: IdentitySpec = IdentitySpec()
    """The certificates."""

    access: MeshAccessSpec | None = None
    """Which service may call which. Without it every service of the mesh may call every other."""

    def rules(self) -> IdentityRules:
        """What the authority goes by."""
        own = self.identity
        return IdentityRules(
            trust_domain=self.trust_domain,
            ttl_s=own.ttl,
            issuer_life_s=own.intermediate,
            announce_s=own.announce,
            signs_per_minute=own.signs_per_minute,
            root=own.root.rules(),
            own_service=own.service,
        )


def upstream_tls(config: Config | Any, name: str) -> UpstreamTlsSpec | FollowedTls:
    """How connections to a service speak TLS: as it says, or as the mesh does."""
    spec: UpstreamTlsSpec = config.services[name].tls
    if spec.identity is None:
        return spec
    domain = config.mesh.trust_domain if config.mesh is not None else _D.trust_domain
    peer = SpiffeId.of(domain, expected_service(name, spec.peer))
    return own_files(config.state_dir).towards(peer)


def expected_service(name: str, peer: str | None) -> str:
    """Whose identity the instances of a service must show."""
    return peer or name


def mesh_problems(config: Config | Any) -> Iterator[Found]:
    """What is wrong with `mesh`, and between it and those who rely on it."""
    spec: MeshSpec | None = config.mesh
    yield from _users(config)
    if spec is None:
        return
    own = spec.identity
    at: tuple[str | int, ...] = ("mesh", "identity")
    if not _SHORTEST_TTL_S <= own.ttl <= _LONGEST_TTL_S:
        yield (*at, "ttl"), "{value} is not between 10s and 7d", "hours are usual", False
    elif own.ttl < _SHORT_TTL_S:
        said = "{value} leaves little time to renew when control is away"
        yield (*at, "ttl"), said, "10min or more", True
    if own.intermediate < 4 * own.ttl:
        said = "{value} is too short for certificates that live as long as ttl says"
        yield (*at, "intermediate"), said, "write four times ttl or more", False
    if own.announce < own.ttl:
        said = "{value} is shorter than ttl: services would not know a new root in time"
        yield (*at, "announce"), said, "write ttl or more", False
    yield from _of_root(own.root, (*at, "root"))
    if spec.access is not None:
        yield from access_problems(spec.access, config.services, spec.trust_domain)


def _of_root(root: RootSpec, at: tuple[str | int, ...]) -> Iterator[Found]:
    ways = [bool(root.passphrase), root.key_file is not None, root.vault is not None]
    if sum(ways) > 1:
        yield at, "says more than one place", "give one of passphrase, key_file and vault", False
    if root.passphrase and not root.passphrase.startswith(("${", "***")):
        try:
            Passphrase(root.passphrase).check()
        except SecretFileError as error:
            yield (*at, "passphrase"), str(error), "", False
    if root.vault is not None:
        for path, what, hint, is_warning in vault_problems(root.vault):
            yield (*at, "vault", *path), what, hint, is_warning


def _users(config: Any) -> Iterator[Found]:
    """Listeners and services that speak as the mesh does."""
    has_mesh = config.mesh is not None
    missing = "add at the top of the file mesh: {}"
    for index, listener in enumerate(config.listeners):
        tls = listener.tls
        if tls is None or tls.certificate != "mesh":
            continue
        loc: tuple[str | int, ...] = ("listeners", index, "tls")
        if not has_mesh:
            yield loc, "`certificate: mesh` needs mesh", missing, False
        if tls.client_ca_file is not None:
            said = "stands beside `certificate: mesh`, where clients are of the mesh"
            yield (*loc, "client_ca_file"), said, "leave it out", False
    for name, service in config.services.items():
        tls = service.tls
        loc = ("services", name, "tls")
        if tls.identity is None:
            if tls.peer is not None:
                yield (*loc, "peer"), "has no effect without `identity: mesh`", "", False
            continue
        if not has_mesh:
            yield loc, "`identity: mesh` needs mesh", missing, False
        for field in ("ca_file", "cert_file", "key_file", "server_name"):
            if getattr(tls, field) is not None:
                said = "stands beside `identity: mesh`, which says it itself"
                yield (*loc, field), said, "leave one of them out", False
        if not tls.verify:
            said = "`identity: mesh` is nothing if who answers is not looked at"
            yield (*loc, "verify"), said, "leave it out", False
        if fault := service_fault(expected_service(name, tls.peer)):
            said = f"the service {name!a} {fault}"
            yield (*loc, "identity"), said, "or say by tls.peer which identity it has", False
