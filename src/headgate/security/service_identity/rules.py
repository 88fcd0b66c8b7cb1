"""What the authority of the mesh goes by. Values; the configuration has no defaults of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headgate.security.secrets.vault_rules import VaultRules

__all__ = ["IdentityRules", "RootInFile", "RootInVault"]

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class RootInFile:
    """The root's key is in the state directory, sealed by a passphrase or by a key file."""

    passphrase: str = field(default="", repr=False)
    key_file: Path | None = None
    """With neither, a key file is made beside the sealed one."""


@dataclass(frozen=True, slots=True)
class RootInVault:
    """The root's key never leaves Vault, whose PKI engine signs our intermediates."""

    vault: VaultRules
    mount: str = "pki"
    issuer: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    trust_domain: str = "mesh.internal"
    ttl_s: float = 4 * 3600.0
    """Life of a service's certificate. Renewed at half of it, so that control may be away for the
    other half."""
    backdate_s: float = 300.0
    """Certificates begin this long ago: clocks of other machines may be behind."""
    root_life_s: float = 3650 * DAY_S
    root_lead_s: float = 365 * DAY_S
    """How long before its end a root is followed by another."""
    issuer_life_s: float = 30 * DAY_S
    announce_s: float = 2 * DAY_S
    """How long a new root is in the bundle before anything is signed below it."""
    signs_per_minute: int = 120
    """Certificates for one service."""
    tokens: int = 10_000
    """Join tokens that are good at one time."""
    denials: int = 10_000
    root: RootInFile | RootInVault = RootInFile()
    own_service: str = "gateway"
    """Who the gateway itself is."""
