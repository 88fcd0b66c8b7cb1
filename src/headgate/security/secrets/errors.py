"""What goes wrong with secrets, told apart by what one can do about it.

    SecretError
      SecretFileError    of the encrypted file
        SecretFileMissing  there is none, or it may not be read
        NotASecretFile     something else, or of a later version
        SecretFileCorrupt  bytes were changed or lost: take it from the backup
        WrongKey           whole, but this key does not open it
        SecretFileForged   this key opens its lock and not its content: changed on purpose
        SecretFileBusy     another command is writing it
      VaultError         of a Vault (or OpenBao) server
        VaultUnavailable   no answer of use now; later perhaps
          VaultAway        not reached, too slow, failing, or the breaker is open
          VaultSealed      reached, and locked
        VaultDenied        the token, or the log-in, may not do this
        VaultMissing       no such path, key, version, role
        VaultRefused       the request itself is wrong

Messages name paths and keys, never values; a token or a key is in none of them.
"""

from __future__ import annotations

from headgate.errors import HeadgateError

__all__ = [
    "NotASecretFile",
    "SecretError",
    "SecretFileBusy",
    "SecretFileCorrupt",
    "SecretFileError",
    "SecretFileForged",
    "SecretFileMissing",
    "VaultAway",
    "VaultDenied",
    "VaultError",
    "VaultMissing",
    "VaultRefused",
    "VaultSealed",
    "VaultUnavailable",
    "WrongKey",
]


class SecretError(HeadgateError):
    """A secret could not be had."""


class SecretFileError(SecretError):
    """The encrypted file, or its key."""


class SecretFileMissing(SecretFileError):
    """There is no such file, or it may not be read."""


class NotASecretFile(SecretFileError):
    """It is something else, or written by a later version."""


class SecretFileCorrupt(SecretFileError):
    """Bytes were changed or lost on the way."""


class WrongKey(SecretFileError):
    """The file is whole, but this key does not open it."""


class SecretFileForged(SecretFileError):
    """The key opens the lock and not the content: somebody without the key changed it."""


class SecretFileBusy(SecretFileError):
    """Another command is writing it."""


class VaultError(SecretError):
    """A Vault or OpenBao server did not do what was asked."""


class VaultUnavailable(VaultError):
    """No answer of use now; what is kept may be used in its place."""


class VaultAway(VaultUnavailable):
    """Not reached, too slow, or failing."""


class VaultSealed(VaultUnavailable):
    """Reached, and sealed: somebody has to unseal it."""


class VaultDenied(VaultError):
    """The token, or the log-in, may not do this."""


class VaultMissing(VaultError):
    """No such path, key, version or role."""


class VaultRefused(VaultError):
    """The request itself is wrong; asking again is no use."""
