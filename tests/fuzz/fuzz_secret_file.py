"""Fuzz files of secrets: only what the key has sealed opens, and all else is refused in words."""

from __future__ import annotations

import hashlib

from headgate.security.secrets.envelope import (
    Content,
    FileKey,
    open_content,
    parse_key,
    read_head,
    seal_content,
)
from headgate.security.secrets.errors import SecretFileError

KEY = FileKey(bytes(range(32)))
VALUES = {"db": "s3cret-value", "api.token": "x" * 40}
SEALED = seal_content(Content(VALUES, 3), KEY)
SEEDS = (
    SEALED,
    seal_content(Content({}, 0), KEY),
    b"headgate-secrets 2\n{}\n",
    b"headgate-key-1 AAAA",
)


def one(data: bytes) -> None:
    # With a right sum below it, so that more than the sum is tried.
    cut = data.rfind(b"\n", 0, -1) + 1
    summed = data[:cut] + f"sha256 {hashlib.sha256(data[:cut]).hexdigest()}\n".encode()
    for file in (data, summed):
        try:
            head = read_head(file)
        except SecretFileError as error:
            assert "s3cret" not in str(error)
        else:
            assert list(head.names) == sorted(set(head.names)), data
        try:
            content = open_content(file, KEY)
        except SecretFileError as error:
            assert "s3cret" not in str(error)
        else:
            assert dict(content.values) in (VALUES, {}), data
            assert "s3cret" not in repr(content)
    try:
        parse_key(data.decode("latin-1"))
    except SecretFileError as error:
        assert error.args
