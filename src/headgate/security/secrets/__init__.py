"""Secrets: an encrypted file, and HashiCorp Vault or OpenBao.

    from headgate.security.secrets import AppRole, Vault, VaultRules

    rules = VaultRules(url="https://vault:8200", login=AppRole(role_id, secret_id))
    async with Vault(rules) as vault:
        password = await vault.get("shop/smtp", "password")
        async with vault.database("readonly") as creds:
            ...

`SecretFile` is the file behind `headgate secrets`. Vault needs the extra `vault`, which is loaded
on use.
"""

from __future__ import annotations

from headgate.security.secrets.database import Credentials, DatabaseRole, Ticket
from headgate.security.secrets.envelope import FileKey, Passphrase
from headgate.security.secrets.errors import (
    NotASecretFile,
    SecretError,
    SecretFileBusy,
    SecretFileCorrupt,
    SecretFileError,
    SecretFileForged,
    SecretFileMissing,
    VaultAway,
    VaultDenied,
    VaultError,
    VaultMissing,
    VaultRefused,
    VaultSealed,
    VaultUnavailable,
    WrongKey,
)
from headgate.security.secrets.pools import rotating_engine, rotating_pool
from headgate.security.secrets.secret_file import SecretFile, read_key_file, write_key_file
from headgate.security.secrets.transit import Transit
from headgate.security.secrets.vault import Secret, Vault, VaultSnapshot, Version
from headgate.security.secrets.vault_rules import AppRole, Token, VaultRules

__all__ = [
    "AppRole",
    "Credentials",
    "DatabaseRole",
    "FileKey",
    "NotASecretFile",
    "Passphrase",
    "Secret",
    "SecretError",
    "SecretFile",
    "SecretFileBusy",
    "SecretFileCorrupt",
    "SecretFileError",
    "SecretFileForged",
    "SecretFileMissing",
    "Ticket",
    "Token",
    "Transit",
    "Vault",
    "VaultAway",
    "VaultDenied",
    "VaultError",
    "VaultMissing",
    "VaultRefused",
    "VaultRules",
    "VaultSealed",
    "VaultSnapshot",
    "VaultUnavailable",
    "Version",
    "WrongKey",
    "read_key_file",
    "rotating_engine",
    "rotating_pool",
    "write_key_file",
]
