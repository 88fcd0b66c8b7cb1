"""Fuzz lines of the audit log: what was not sealed is no line, and no byte of one may change."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headgate.security.audit.chain import (
    GENESIS,
    Checkpoint,
    NotALine,
    canonical,
    read_checkpoint,
    read_line,
    seal,
    sign_checkpoint,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
FIRST, FIRST_HASH = seal({"action": "config.reloaded", "actor": "uid:1"}, 1, GENESIS)
SECOND, SECOND_HASH = seal({"action": "ban.added", "detail": {"a": [1, 2.5, None, "\u00e9"]}}, 2, FIRST_HASH)  # fmt: skip
SIGNED = sign_checkpoint(
    Checkpoint(1, 2, SECOND_HASH, 1_700_000_000.5, 100, "", "k"), KEY
).to_line()
SEEDS = (b"\0" + FIRST, b"\0" + SECOND, b"\1" + SIGNED, b"\2" + FIRST[1:-80])


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    match kind[0] % 3 if kind else 0:
        case 0:
            _as_line(rest)
        case 1:
            _as_checkpoint(rest)
        case _:
            _as_content(rest)


def _as_line(line: bytes) -> None:
    try:
        found = read_line(line)
    except NotALine as error:
        assert "\n" not in str(error)
        return
    assert line in (FIRST, SECOND), line
    assert found.hash in (FIRST_HASH, SECOND_HASH)


def _as_checkpoint(line: bytes) -> None:
    try:
        found = read_checkpoint(line)
    except NotALine:
        return
    if found.is_signed_by(PUBLIC):
        # However it and its signature are spelt, it says what was signed.
        assert found.signed_bytes() == read_checkpoint(SIGNED).signed_bytes(), line


def _as_content(text: bytes) -> None:
    """Whatever an entry holds, its line is read back as it was."""
    try:
        content = json.loads(text)
        line, digest = seal(content, 7, GENESIS)
    except (ValueError, TypeError, RecursionError):
        return
    found = read_line(line)
    assert (found.seq, found.prev, found.hash) == (7, GENESIS, digest), text
    assert canonical(found.content) == line[: -len(',"hash":""}\n') - 64] + b"}", text
