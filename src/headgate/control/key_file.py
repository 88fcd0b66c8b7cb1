"""A file of API keys while it is changed, by the command or by the admin API.

It is changed under a lock, written under another name and moved into place, with mode 0600, so that
no reader ever finds half of it and two changes at once do not lose a key. What the file held beside
the keys (comments) is lost when it is written. The key itself is given back once, and is nowhere
else afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from headgate.errors import HeadgateError
from headgate.security.api_keys import ApiKey, hash_text, make_id, make_key, read_key_file
from headgate.security.entries import parse_document, wall_of

__all__ = ["KeyBook", "NoSuchKey", "as_plain", "open_keys", "read_keys", "written"]

_HEAD: Final = "# API keys, by their hashes. Written by `headgate keys`; comments do not last.\n"


class NoSuchKey(HeadgateError):
    """No key in the file has this id."""


class KeyBook:
    """The entries of a file while it is changed."""

    def __init__(self, path: Path, entries: list[dict[str, Any]]) -> None:
        self._path = path
        self.entries = entries

    def find(self, id_: str) -> dict[str, Any]:
        for entry in self.entries:
            if str(entry.get("id")) == id_:
                return entry
        raise NoSuchKey(f"{self._path}: there is no key {id_}")

    def add(self, entry: dict[str, Any], pepper: bytes, prefix: str, wall: float) -> str:
        known = {str(each.get("id")) for each in self.entries}
        id_ = make_id(secrets.token_bytes(12))
        while id_ in known:
            id_ = make_id(secrets.token_bytes(12))
        try:
            key = make_key(id_, secrets.token_bytes(32), prefix)
        except ValueError as error:
            raise HeadgateError(str(error)) from None
        self.entries.append(
            {"id": id_, "hash": hash_text(key, pepper), "created": written(wall), **entry}
        )
        return key

    def rotate(
        self, id_: str, grace_s: float, pepper: bytes, prefix: str, wall: float
    ) -> tuple[str, str]:
        """A second key for the same consumer, with the same rights; and when the old one ends."""
        old = self.find(id_)
        if old.get("revoked"):
            raise HeadgateError(f"{self._path}: {id_} is revoked; make a new key instead")
        ends = wall_of(old["expires"]) if old.get("expires") is not None else None
        if ends is not None and ends <= wall:
            raise HeadgateError(f"{self._path}: {id_} has expired; make a new key instead")
        entry = {
            name: value
            for name, value in old.items()
            if name not in {"id", "hash", "created", "not_before", "revoked"}
        }
        until = wall + grace_s
        old["expires"] = written(until if ends is None else min(until, ends))
        return self.add(entry, pepper, prefix, wall), old["expires"]


@contextlib.contextmanager
def open_keys(path: Path, *, may_be_new: bool = False) -> Iterator[KeyBook]:
    """The file's entries, written back at the end if nothing went wrong."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HeadgateError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        entries: list[dict[str, Any]] = []
        if path.exists() or not may_be_new:
            read_keys(path)  # a file with faults is not written over
            document = parse_document(path.read_bytes())
            listed = document.get("keys") if isinstance(document, dict) else document
            entries = [dict(entry) for entry in listed or []]
        book = KeyBook(path, entries)
        yield book
        _write(path, book.entries)
    finally:
        os.close(descriptor)


def read_keys(path: Path) -> list[ApiKey]:
    try:
        # Whether hashes have a pepper does not matter here; nothing is compared.
        return read_key_file(path.read_bytes(), "api_key", has_pepper=True)
    except OSError as error:
        raise HeadgateError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HeadgateError(f"{path}: {error}") from None


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    plain = {"keys": [{name: _plain(value) for name, value in each.items()} for each in entries]}
    if path.suffix == ".json":
        text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    else:
        text = _HEAD + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    try:
        # What would be refused when it is read must not be written.
        read_key_file(text.encode(), "api_key", has_pepper=True)
    except ValueError as error:
        raise HeadgateError(str(error)) from None
    target = path.resolve()  # a link stays a link
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            with contextlib.suppress(OSError):  # the gateway may run as its owner
                found = target.stat()
                os.fchown(descriptor, found.st_uid, found.st_gid)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise HeadgateError(f"{path}: cannot be written: {error.strerror}") from error


def _plain(value: object) -> object:
    """Times of YAML as text again."""
    if isinstance(value, datetime):
        return written(value.timestamp())
    return value if isinstance(value, (str, int, float, bool, list)) else str(value)


def as_plain(key: ApiKey, wall: float) -> dict[str, Any]:
    identity = key.identity
    return {
        "id": key.id,
        "state": key.state(wall),
        "consumer": identity.consumer,
        "tier": identity.tier,
        "roles": sorted(identity.roles),
        "scopes": sorted(identity.scopes),
        "networks": [str(network) for network in key.networks],
        "created": written(key.created) if key.created is not None else None,
        "not_before": written(key.not_before) if key.not_before is not None else None,
        "expires": written(key.expires) if key.expires is not None else None,
        "note": key.note,
    }


def written(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
