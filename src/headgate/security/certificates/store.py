"""ACME's files: the account, the certificates and how it stands with each name.

Theory of operation
-------------------
    acme/lock                  held by whoever orders
    acme/<authority>/account.key, account.json
    acme/<authority>/<name>.pem      certificate, intermediates and key: what is served
    acme/<authority>/<name>.json     failures and waits, and the order that is under way
    acme/<authority>/<name>.next.key the key of that order

`<authority>` is a digest of the directory's URL, so that what the staging directory issued is
never served as the real one's. Folders are 0700 and files 0600. A file is written under another
name, synced, and moved into place, so readers see the old one or the new one; certificate and key
are one file and cannot be mismatched.

An order's key is on disk before its order is made, and its URL before anything else happens: after
a crash the same order goes on. With the URL stands which certificate it is to replace, so that a
crash after the last step does not fetch that certificate again at its renewal. Files of that kind
that cannot be read are as if they were not there.
"""

from __future__ import annotations

import contextlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from headgate.errors import Fault
from headgate.security.certificates.jose import AccountKey
from headgate.security.certificates.renewal import Standing
from headgate.security.file_lock import try_lock
from headgate.security.whole_file import write_whole as _write
from headgate.wire.certificates import read_pair

__all__ = ["AcmeStore", "Kept", "serving_files"]

_MAX_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate that can be served."""

    path: Path
    leaf: x509.Certificate

    @property
    def identity(self) -> str:
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def share(self) -> float:
        """From 0 up to 1, and the same for this certificate for ever."""
        return int.from_bytes(self.leaf.fingerprint(hashes.SHA256())[:4]) / 2**32


class AcmeStore:
    """The files of one authority. `domain`s are host names that have been checked."""

    def __init__(self, state_dir: Path, directory: str) -> None:
        self._home = state_dir / "acme"
        self._folder = self._home / sha256(directory.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return self._folder

    def prepare(self) -> None:
        """Make the folders. Raises OSError."""
        self._home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._home, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)

    def try_lock(self) -> AbstractContextManager[bool]:
        """Hold the right to order, if nobody else does: also processes that share the directory."""
        return try_lock(self._home / "lock")

    # -- the account --------------------------------------------------------------------------

    def account(self) -> tuple[AccountKey, str | None]:
        """Our key, made at the first call, and the URL of our account if there is one."""
        path = self._folder / "account.key"
        with contextlib.suppress(FileNotFoundError):
            try:
                key = AccountKey.from_pem(_read(path))
            except ValueError as error:
                # Not made anew: it may be all that proves whose certificates these are.
                raise OSError(f"{path} {error}; put it right or move it away") from None
            url = self._read_json("account.json").get("url")
            return key, url if isinstance(url, str) else None
        key = AccountKey.make()
        _write(path, key.pem())
        return key, None

    def keep_account(self, url: str) -> None:
        _write(self._folder / "account.json", json.dumps({"url": url}).encode())

    # -- certificates -------------------------------------------------------------------------

    def path(self, domain: str) -> Path:
        return self._folder / f"{domain}.pem"

    def certificate(self, domain: str) -> Kept | None:
        """What is served for a name; None when there is none, or it cannot be served."""
        path = self.path(domain)
        faults: list[Fault] = []
        if not path.exists() or read_pair(str(path), str(path), None, faults) is None:
            return None
        try:
            leaf = x509.load_pem_x509_certificates(_read(path))[0]
        except (OSError, ValueError):
            return None
        return Kept(path, leaf)

    def keep_certificate(self, domain: str, chain: bytes, key_pem: bytes) -> None:
        """Put it in place of the one before, and end the order."""
        _write(self.path(domain), chain + key_pem)
        self.end_order(domain)

    # -- orders -------------------------------------------------------------------------------

    def order_key(self, domain: str) -> bytes | None:
        try:
            return _read(self._folder / f"{domain}.next.key")
        except OSError:
            return None

    def keep_order_key(self, domain: str, pem: bytes) -> None:
        _write(self._folder / f"{domain}.next.key", pem)

    def order(self, domain: str) -> str | None:
        """The URL of an order under way whose key is kept."""
        said = self._read_json(f"{domain}.json")
        url, replaces = said.get("order"), said.get("replaces")
        kept = self.certificate(domain)
        if replaces != (kept.identity if kept is not None else None):
            return None
        return url if isinstance(url, str) and self.order_key(domain) is not None else None

    def keep_order(self, domain: str, url: str | None) -> None:
        kept = self.certificate(domain)
        said = self._read_json(f"{domain}.json")
        said["order"] = url
        said["replaces"] = kept.identity if kept is not None else None
        _write(self._folder / f"{domain}.json", json.dumps(said).encode())

    def end_order(self, domain: str) -> None:
        if self._read_json(f"{domain}.json").get("order") is not None:
            self.keep_order(domain, None)
        (self._folder / f"{domain}.next.key").unlink(missing_ok=True)

    # -- how it stands ------------------------------------------------------------------------

    def standing(self, domain: str) -> Standing:
        said = self._read_json(f"{domain}.json")
        kept = self.certificate(domain)
        times = _numbers(said.get("failed_at"))
        window = _numbers(said.get("window"))
        waits = _numbers([said.get("not_before")])
        failures = said.get("failures")
        return Standing(
            begins=kept.leaf.not_valid_before_utc.timestamp() if kept else None,
            ends=kept.leaf.not_valid_after_utc.timestamp() if kept else 0.0,
            failures=failures if isinstance(failures, int) and failures >= 0 else 0,
            failed_at=times,
            not_before=waits[0] if waits else 0.0,
            window=(window[0], window[1]) if len(window) == 2 else None,
            why=str(said.get("why", ""))[:500],
        )

    def keep_standing(self, domain: str, standing: Standing) -> None:
        """Dates are not kept: those of the certificate hold."""
        said = self._read_json(f"{domain}.json")
        said.update(
            failures=standing.failures,
            failed_at=list(standing.failed_at),
            not_before=standing.not_before,
            window=list(standing.window) if standing.window is not None else None,
            why=standing.why,
        )
        _write(self._folder / f"{domain}.json", json.dumps(said).encode())

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            said = json.loads(_read(self._folder / name))
        except (OSError, ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}


def serving_files(
    state_dir: Path, directory: str, domains: tuple[str, ...]
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The pairs of files that a listener with `certificate: acme` serves, and the names that have
    none yet.
    """
    store = AcmeStore(state_dir, directory)
    files: list[tuple[str, str]] = []
    lacking: list[str] = []
    for domain in domains:
        kept = store.certificate(domain)
        if kept is None:
            lacking.append(domain)
        else:
            files.append((str(kept.path), str(kept.path)))
    return files, tuple(lacking)


def _numbers(value: object) -> tuple[float, ...]:
    """A list of times; none of them if it is anything else."""
    if not isinstance(value, list) or not all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < 1e12
        for each in value
    ):
        return ()
    return tuple(map(float, value))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)
