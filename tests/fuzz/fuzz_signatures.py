"""Fuzz signed requests: nothing is accepted whose signature does not cover what it must.

The first byte chooses: header fields as they come; or a signature with our key over parts that the
bytes name, which holds and must still be judged.
"""

from __future__ import annotations

import hmac

from headgate.security.identity import Identity
from headgate.security.signatures import (
    Accepted,
    BadSignature,
    SignatureRules,
    SignedHead,
    SigningKey,
    base_of,
    check,
    sign,
)
from headgate.wire.structured_fields import InnerList, parse_dictionary, write_bare, write_list

NOW = 1_700_000_000.0
SECRET = bytes(range(32))
KEYS = {"k": SigningKey("k", Identity(subject="partner"), secrets=(SECRET,))}
RULES = SignatureRules()
SIGNED = sign(
    "POST", "https://a.example/x?y=1", key_id="k", key=SECRET, created=int(NOW), nonce="n", body=b"z"
)  # fmt: skip
COVERED = b'("@method" "@authority" "@path" "@query" "content-digest")'
SEEDS = (
    b"\0" + b"\n".join(f"{name}: {value}".encode() for name, value in SIGNED.items()),
    b"\0content-length: 0\nsignature-input: a=()\nsignature: a=:AA==:",
    b"\1" + COVERED + b';created=1700000000;nonce="n";keyid="k"',
    b"\1"
    + COVERED
    + b';created=1700000000;expires=1700000001;nonce="n";keyid="k";alg="hmac-sha256"',
    b'\1("@method";req "@query-param";name="a" "cookie");created=1;keyid=k',
    b'\1("@target-uri" "@request-target" "@scheme" "content-digest");created=?1;keyid="k"',
)


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    if kind and kind[0] & 1:
        _signed_well(rest)
        return
    fields = [
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(b":") for line in rest.split(b"\n")[:32])
    ]
    found = _judged(fields)
    if isinstance(found, Accepted):
        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
        assert said["content-digest"] == SIGNED["content-digest"], data
        assert found.nonce == "n", data


def _signed_well(listed: bytes) -> None:
    fields = [(b"content-digest", SIGNED["content-digest"].encode()), (b"content-length", b"1")]
    try:
        member = parse_dictionary(f"a={listed.decode('latin-1')}")["a"]
    except ValueError:
        return
    if not isinstance(member, InnerList):
        return
    try:
        base = base_of(_head(fields), member)
    except ValueError:
        base = b""
    proof = hmac.digest(SECRET, base, "sha256")
    fields.append((b"signature-input", f"a={write_list(member)}".encode()))
    fields.append((b"signature", f"a={write_bare(proof)}".encode()))
    found = _judged(fields)
    if isinstance(found, Accepted):
        covered = {item.value for item in member.items}
        assert covered >= {*RULES.covered, "content-digest"}, listed
        assert found.nonce, listed
        assert NOW - RULES.max_age_s - RULES.skew_s < found.expires, listed
        # The same signature on another request holds nothing.
        other = SignedHead("DELETE", "https", "a.example", "/x", "y=1", fields)
        assert isinstance(check(other, KEYS, RULES, NOW), BadSignature), listed


def _head(fields: list[tuple[bytes, bytes]]) -> SignedHead:
    return SignedHead("POST", "https", "a.example", "/x", "y=1", fields)


def _judged(fields: list[tuple[bytes, bytes]]) -> Accepted | BadSignature | None:
    found = check(_head(fields), KEYS, RULES, NOW)
    if isinstance(found, BadSignature):
        assert SECRET.hex() not in found.reason
        assert found.reason.isprintable()
    return found
