"""Where secrets come from: a Vault server (``vault:``) and an encrypted file (``secrets:``).

Both sections are read before the rest of the file, since ``${vault:}`` and ``${secret:}`` may stand
anywhere else in it. Their own values come from the environment or a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from headgate.config.fields import FilePath, Spec, Text, Wait
from headgate.security.secrets.envelope import Key, Passphrase, parse_key
from headgate.security.secrets.errors import SecretFileError
from headgate.security.secrets.secret_file import read_key_file
from headgate.security.secrets.vault_rules import AppRole, Token, VaultRules

__all__ = ["AppRoleSpec", "SecretsSpec", "VaultSpec", "problems"]

Found = tuple[tuple[str | int, ...], str, str, bool]


class AppRoleSpec(Spec):
    """A role that a program logs in as."""

    role_id: Text
    """The role. It is no secret."""

    secret_id: Text = ""
    """Its secret, as `${env:NAME}`. Roles that are bound to addresses may have none."""

    secret_id_file: FilePath | None = None
    """The secret in a file, which is read at every log-in."""

    mount: Text = "approle"
    """Where the log-in by AppRole is enabled."""


class VaultSpec(Spec):
    """A HashiCorp Vault or OpenBao server, for `${vault:PATH#KEY}` anywhere else in the file.

    Values are read when the file is loaded, from a key-value engine of version 2. When Vault is
    away, a reload is refused and what was read before serves on. Needs the extra `vault`.
    """

    url: Text
    """`https://host:port`."""

    token: Text = ""
    """A token, as `${env:VAULT_TOKEN}`. One of `token`, `token_file` and `approle` is needed."""

    token_file: FilePath | None = None
    """A token in a file that an agent keeps fresh."""

    approle: AppRoleSpec | None = None
    """Log in as a role."""

    namespace: Text = ""
    """The namespace to work in."""

    ca_file: FilePath | None = None
    """The authority that signed Vault's certificate. By default those that Python's `requests`
    trusts."""

    mount: Text = "secret"
    """The engine that paths belong to. A path that begins with a slash names another one:
    `${vault:/team/app/db#password}`."""

    timeout: Wait = 5.0
    """How long one request may take."""

    def rules(self) -> VaultRules:
        login: Token | AppRole
        if self.approle is not None:
            role = self.approle
            login = AppRole(role.role_id, role.secret_id, _path(role.secret_id_file), role.mount)
        else:
            login = Token(self.token, _path(self.token_file))
        return VaultRules(
            url=self.url,
            login=login,
            namespace=self.namespace,
            ca_file=_path(self.ca_file),
            mount=self.mount,
            timeout_s=self.timeout,
            budget_s=2.0 * self.timeout,
        )


class SecretsSpec(Spec):
    """The encrypted file that `headgate secrets` keeps, for `${secret:NAME}` anywhere else."""

    file: FilePath
    """The file, which `headgate secrets init` made."""

    key_file: FilePath | None = None
    """The key that `headgate secrets init` made. One of `key_file`, `key` and `passphrase` is
    needed."""

    key: Text = ""
    """The same key as text: `${env:HEADGATE_SECRETS_KEY}`."""

    passphrase: Text = ""
    """The passphrase of a file that has one. Opening takes half a second."""

    def file_key(self) -> Key:
        """Raises SecretFileError."""
        if self.key_file is not None:
            return read_key_file(Path(self.key_file))
        return parse_key(self.key) if self.key else Passphrase(self.passphrase)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def problems(spec: VaultSpec | SecretsSpec) -> Iterator[Found]:
    """What contradicts itself: where, what, the way out, and whether it is only a warning."""
    if isinstance(spec, SecretsSpec):
        yield from _of_secrets(spec)
        return
    ways = [bool(spec.token), spec.token_file is not None, spec.approle is not None]
    if sum(ways) != 1:
        yield (
            (),
            "says more than one way to log in" if any(ways) else "says no way to log in",
            "give one of token, token_file and approle",
            False,
        )
    role = spec.approle
    if role is not None:
        if not role.role_id:
            yield ("approle", "role_id"), "is empty", "it is that of the role in Vault", False
        if role.secret_id and role.secret_id_file is not None:
            yield (
                ("approle", "secret_id"),
                "stands beside a secret_id_file",
                "give one of the two",
                False,
            )
    yield from _of_url(spec.url)


def _of_url(url: str) -> Iterator[Found]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        yield ("url",), "{value} is no address of a Vault", "write https://host:8200", False
    elif parts.username or parts.password or parts.query or parts.fragment:
        yield (
            ("url",),
            "{value} says more than where Vault is",
            "write scheme, host and port only",
            False,
        )
    elif parts.scheme == "http" and host not in {"localhost", "127.0.0.1", "::1"}:
        yield (
            ("url",),
            "{value} is not encrypted: whoever is on the way reads token and secrets",
            "use https",
            True,
        )


def _of_secrets(spec: SecretsSpec) -> Iterator[Found]:
    ways = [spec.key_file is not None, bool(spec.key), bool(spec.passphrase)]
    if sum(ways) != 1:
        yield (
            (),
            "says more than one key" if any(ways) else "says no key",
            "give one of key_file, key and passphrase",
            False,
        )
    # In a document that was loaded, the reference stands in the key's place.
    if spec.key and not spec.key.startswith(("${", "***")):
        try:
            parse_key(spec.key)
        except SecretFileError:
            yield (
                ("key",),
                "is no key made by `headgate secrets init`",
                "it begins with headgate-key-1:",
                False,
            )
