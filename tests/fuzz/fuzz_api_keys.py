"""Fuzz API keys: only the key is the key, and a file of keys is read or refused with a reason.

The first byte chooses: what a client shows; what stands in a file.
"""

from __future__ import annotations

from headgate.security.api_keys import (
    ApiKey,
    KeyRing,
    Wrong,
    digest_of,
    hash_text,
    make_key,
    read_key,
    read_key_file,
)
from headgate.security.identity import Identity

NOW = 1_700_000_000.0
KEY = make_key("0fuzz1234567", bytes(range(32)))
GONE = make_key("0gone1234567", bytes(range(1, 33)))
RING = KeyRing(
    [
        ApiKey("0fuzz1234567", digest_of(KEY), False, Identity(subject="partner")),
        ApiKey("0gone1234567", digest_of(GONE), False, Identity(subject="old"), is_revoked=True),
    ]
)
FILE = f"""keys:
  - id: 0fuzz1234567
    hash: "{hash_text(KEY)}"
    consumer: partner
    tier: gold
    roles: [buyer]
    expires: 2030-01-01T00:00:00Z
    networks: [192.0.2.0/24, "2001:db8::/32"]
    note: the first
  - {{id: abcd, hash: "{hash_text(GONE)}", consumer: old, revoked: true, not_before: 2026-01-01}}
"""
SEEDS = (
    b"\0" + KEY.encode(),
    b"\0" + GONE.encode(),
    b"\0hg_0fuzz1234567_",
    b"\1" + FILE.encode(),
    b"\1- {id: abcd, hash: hg_x, consumer: a}",
    b"\1keys: []",
)


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    if kind and kind[0] & 1:
        _as_file(rest)
        return
    text = rest.decode("latin-1")
    found = RING.find(text, "192.0.2.1", NOW)
    assert isinstance(found, Wrong) or text == KEY, rest
    if isinstance(found, Wrong):
        assert found.error != "revoked" or text == GONE, rest
        assert KEY not in found.reason
    id_ = read_key(text)
    assert isinstance(id_, Wrong) or text.split("_")[1] == id_, rest


def _as_file(content: bytes) -> None:
    try:
        keys = read_key_file(content, "api_key", has_pepper=False)
    except ValueError as error:
        # Names of fields are told, as somebody has mistyped them; values are not.
        assert KEY not in str(error) or "is not a field" in str(error)
        return
    assert len({key.id for key in keys}) == len(keys)
    for key in keys:
        assert len(key.digest) == 32
        assert not key.is_peppered
        key.state(NOW)
        assert key.digest.hex() not in repr(key)
    KeyRing(keys).find(KEY, "192.0.2.1", NOW)
