"""What ``${vault:PATH#KEY}`` and ``${secret:NAME}`` stand for, while one file is loaded.

Theory of operation
-------------------
Everything is asked for when it is first needed, and once: a path of Vault, the encrypted file. A
server that cannot be had is not asked again for the next reference, which would only wait as
long; each reference still gets its own fault, with its own line.

Offline, nothing is asked and no key is needed. That a name is in the encrypted file is still
checked, since names can be read without the key.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from headgate.config.faults import Loc
from headgate.config.nodes import Node, Scalar, find
from headgate.config.vaulting import SecretsSpec, VaultSpec
from headgate.errors import ExtraMissing
from headgate.security.secrets.errors import (
    NotASecretFile,
    SecretError,
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
from headgate.security.secrets.secret_file import SecretFile
from headgate.security.secrets.vault_rules import split_path
from headgate.security.secrets.vault_session import VaultSession

__all__ = ["OPENERS", "NoValue", "Sources", "without_openers"]

OPENERS: Final[tuple[Loc, ...]] = (
    ("vault", "token"),
    ("vault", "approle", "secret_id"),
    ("secrets", "key"),
    ("secrets", "passphrase"),
)
"""What opens Vault or the encrypted file. Only loading needs it."""
LOAD_S: Final = 30.0
"""All of Vault's answers for one file together."""

_REFERENCE_ONLY: Final = re.compile(r"\$\{[^{}]*\}")
_HINTS: Final[tuple[tuple[type[SecretError], str], ...]] = (
    (VaultSealed, "somebody has to unseal it"),
    (VaultAway, "`headgate check --offline` checks the file without it"),
    (VaultDenied, "the policy of its token must allow `read` on it"),
    (VaultMissing, "a path is written without the mount and without data/"),
    (WrongKey, "is it the key of another file, or one from before rotate-key?"),
    (SecretFileCorrupt, "take the file from a backup"),
    (SecretFileForged, "take the file from a backup, and find out who did it"),
    (NotASecretFile, "`headgate secrets init` makes one"),
    (SecretFileMissing, "`headgate secrets init` makes one"),
)


class NoValue(Exception):
    """A reference that stands for nothing: why, and the way out. Empty: it was said elsewhere."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


class Sources:
    """Vault and the encrypted file, as one configuration names them."""

    def __init__(
        self,
        vault: VaultSpec | None,
        secrets: SecretsSpec | None,
        *,
        broken: frozenset[str] = frozenset(),
        offline: bool = False,
    ) -> None:
        self._vault = vault
        self._secrets = secrets
        self._broken = broken  # sections that are there and hold faults of their own
        self._offline = offline
        self._session: VaultSession | None = None
        self._until = 0.0
        self._paths: dict[tuple[str, str], dict[str, Any] | VaultError] = {}
        self._away: VaultUnavailable | None = None
        self._values: dict[str, str] | SecretFileError | None = None
        self._names: frozenset[str] | SecretFileError | None = None

    def value(self, scheme: str, body: str) -> str | None:
        """The text that a reference stands for; None when it is not known offline. Raises
        NoValue.
        """
        try:
            return self._of_vault(body) if scheme == "vault" else self._of_file(body)
        except SecretError as error:
            hint = next((text for kind, text in _HINTS if isinstance(error, kind)), "")
            raise NoValue(str(error), hint) from None
        except ExtraMissing as error:
            raise NoValue(str(error)) from None

    def close(self) -> None:
        if self._session is not None:
            if self._away is None:
                self._session.log_out()
            self._session.close()

    # ---- Vault

    def _of_vault(self, body: str) -> str | None:
        path, mark, key = body.partition("#")
        if not mark or not key:
            raise NoValue(
                "${vault:} names a path and a key in it", "write ${vault:shop/db#password}"
            )
        if self._vault is None:
            if "vault" in self._broken:
                raise NoValue
            raise NoValue(
                'there is no section "vault" that says where Vault is',
                "add vault: {url: https://..., token: ${env:VAULT_TOKEN}}",
            )
        place = split_path(path, self._vault.mount)
        if self._offline:
            return None
        values = self._at(self._vault, path, place)
        if key not in values:
            raise NoValue(f'{path}: has no key "{key[:60]}"', _has(values))
        value = values[key]
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        raise NoValue(f'{path}: the value of "{key[:60]}" is not text')

    def _at(self, spec: VaultSpec, path: str, place: tuple[str, str]) -> dict[str, Any]:
        found = self._paths.get(place)
        if found is None:
            if self._away is not None:
                raise type(self._away)(f"{path}: {str(self._away).partition(': ')[2]}")
            try:
                found = self._read(spec, path, place)
            except VaultUnavailable as error:
                self._away = error
                raise
            except VaultError as error:
                found = error
            self._paths[place] = found
        if isinstance(found, VaultError):
            raise found
        return found

    def _read(self, spec: VaultSpec, path: str, place: tuple[str, str]) -> dict[str, Any]:
        if self._session is None:
            self._session = VaultSession(spec.rules())
            self._until = time.monotonic() + LOAD_S
        if time.monotonic() > self._until:
            raise VaultAway(f"{path}: {spec.url} took more than {LOAD_S:g} s for this file")
        mount, inner = place
        answer = self._session.ask(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=inner, mount_point=mount, raise_on_deleted_version=True
            ),
            path,
        )
        try:
            values = answer["data"]["data"]
            _ = answer["data"]["metadata"]
        except (KeyError, TypeError):
            raise VaultRefused(
                f"{path}: the engine at {mount}/ is no key-value engine of version 2"
            ) from None
        if not isinstance(values, dict):
            raise VaultMissing(f"{path}: its newest version is deleted")
        return values

    # ---- the encrypted file

    def _of_file(self, name: str) -> str | None:
        spec = self._secrets
        if spec is None:
            if "secrets" in self._broken:
                raise NoValue
            raise NoValue(
                'there is no section "secrets" that says where the encrypted file is',
                "add secrets: {file: secrets.enc, key_file: secrets.key}",
            )
        if self._names is None:
            try:
                self._names = frozenset(SecretFile(spec.file).head().names)
            except SecretFileError as error:
                self._names = error
        if isinstance(self._names, SecretFileError):
            raise self._names
        if name not in self._names:
            raise NoValue(
                f'{spec.file}: has no secret "{name[:60]}"',
                f"`headgate secrets set {spec.file} NAME` adds one",
            )
        if self._offline:
            return None
        if self._values is None:
            try:
                self._values = dict(SecretFile(spec.file).read(spec.file_key()).values)
            except SecretFileError as error:
                self._values = error
        if isinstance(self._values, SecretFileError):
            raise self._values
        return self._values[name]


def without_openers(document: dict[str, Any], root: Node) -> None:
    """Take out of a loaded document what nobody needs any more, short of the reference to it."""
    for loc in OPENERS:
        inner: Any = document
        for part in loc[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and inner.get(loc[-1]):
            node, _, depth = find(root, loc)
            text = node.text if depth == len(loc) and isinstance(node, Scalar) else ""
            inner[loc[-1]] = text if _REFERENCE_ONLY.fullmatch(text) else "***"


def _has(values: dict[str, Any]) -> str:
    """Names of keys are no secrets."""
    names = sorted(map(str, values))
    return f"it has {', '.join(name[:40] for name in names[:8])}" if names else "it has none"
