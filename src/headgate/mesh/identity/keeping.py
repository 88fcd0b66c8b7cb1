"""Where roots and intermediates are kept: sealed, in one file of the state directory.

Theory of operation
-------------------
    mesh/DOMAIN.secrets   roots and intermediates with their keys, as `headgate secrets` seals
    mesh/authority.key    what opens it, if nothing else was said

One file, because its parts belong together: it is written whole or not at all, so that after a
crash there is all of it or what was before. A root that does not reach the disk has signed nothing.

A file that cannot be opened is left where it is and nothing is made in its place: a new root would
part everybody who trusts the old one from everybody who joins later. That is for people to decide,
by moving the file away.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from headgate.mesh.identity.bundle import Ring
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.secrets.envelope import FileKey, Key, Passphrase, key_text
from headgate.security.secrets.errors import SecretFileError, SecretFileMissing
from headgate.security.secrets.secret_file import SecretFile, read_key_file
from headgate.security.service_identity.rules import IdentityRules, RootInFile
from headgate.security.whole_file import write_whole

__all__ = ["RingFile"]

KEY_FILE: Final = "authority.key"
_NAME: Final = "authority"


class RingFile:
    """Blocking; for a thread. Opening by a passphrase takes half a second each time."""

    def __init__(self, folder: Path, rules: IdentityRules) -> None:
        self.folder = folder
        self._root = rules.root
        # Roots are for names of one trust domain; another one has others.
        self._file = SecretFile(folder / f"{rules.trust_domain}.secrets")

    @property
    def path(self) -> Path:
        return self._file.path

    def load(self) -> Ring:
        """What was kept; an empty ring if nothing ever was. Raises IdentityRefused."""
        if not os.path.lexists(self._file.path):
            return Ring()
        try:
            values = self._file.read(self._key(may_make=False)).values
        except SecretFileError as error:
            raise IdentityRefused(
                "unavailable",
                f"{error}; bring back the file or its key, or move {self._file.path.name} away: "
                "then a new root is made, and every service has to join again",
            ) from None
        if _NAME not in values:
            return Ring()
        try:
            return Ring.of_json(json.loads(values[_NAME]))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise IdentityRefused(
                "unavailable", f"{self._file.path}: was written by another version of Headgate"
            ) from None

    def save(self, ring: Ring) -> None:
        """Raises IdentityRefused."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = self._key(may_make=True)
            if not os.path.lexists(self._file.path):
                self._file.create(key)
            with self._file.change(key) as draft:
                draft.set(_NAME, json.dumps(ring.to_json(), separators=(",", ":")))
        except SecretFileError as error:
            raise IdentityRefused("unavailable", str(error)) from None
        except OSError as error:
            why = (error.strerror or "unknown").lower()
            raise IdentityRefused(
                "unavailable", f"{self.folder}: cannot be written: {why}"
            ) from error

    def _key(self, *, may_make: bool) -> Key:
        """Raises SecretFileError."""
        root = self._root
        if isinstance(root, RootInFile):
            if root.passphrase:
                words = Passphrase(root.passphrase)
                if may_make:
                    words.check()
                return words
            if root.key_file is not None:
                return read_key_file(root.key_file)
        path = self.folder / KEY_FILE
        try:
            return read_key_file(path)
        except SecretFileMissing:
            # A key that is gone must not be replaced while there is something that it opened.
            if not may_make or os.path.lexists(path) or os.path.lexists(self._file.path):
                raise
        key = FileKey.generate()
        write_whole(path, f"{key_text(key)}\n".encode())
        return key
