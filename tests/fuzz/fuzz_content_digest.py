"""Fuzz Content-Digest beside a body: only a body of which all known digests are right goes on."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256, sha512

from headgate.config.auth_keys import ContentDigestSpec
from headgate.gateway.filters import FilterContext, Headers, Reply, Request
from headgate.gateway.filters.content_digest import ContentDigest
from headgate.wire.structured_fields import Item, parse_dictionary

CONTEXT = FilterContext(route="api", service="api")
NEEDED = ContentDigest(ContentDigestSpec(required=True), CONTEXT)
LEFT = ContentDigest(ContentDigestSpec(required=False), CONTEXT)
HASHES = {"sha-256": sha256, "sha-512": sha512}


def _seed(body: bytes) -> bytes:
    return b"sha-256=:%b:, sha-512=:%b:\n%b" % (
        b64encode(sha256(body).digest()),
        b64encode(sha512(body).digest()),
        body,
    )


SEEDS = (_seed(b"hello"), _seed(b""), b"md5=:AA==:\nx", b"sha-256=1\nx", b"\nbody")


def one(data: bytes) -> None:
    field, _, body = data.partition(b"\n")
    if set(field) & {0, 13}:
        return  # no such field leaves the parser of heads
    for checks in (NEEDED, LEFT):
        for length in (len(body), -1):
            if not _goes_on(checks, field, body, length):
                continue
            said = parse_dictionary(field.strip().decode("latin-1"))
            known = [(made, said[name]) for name, made in HASHES.items() if name in said]
            for made, digest in known:
                assert isinstance(digest, Item), data
                assert digest.value == made(body).digest(), data
            assert known or not field.strip(), data
            assert known or not body or checks is LEFT, data


def _goes_on(checks: ContentDigest, field: bytes, body: bytes, length: int) -> bool:
    """Whether a service would have got the body."""
    given = [(b"content-digest", field.strip())] if field.strip() else []
    request = Request(
        "POST", "/", "", Headers(given), "192.0.2.1", False, "1", "api", "api", {}, length=length
    )
    reply = checks.on_request(request)
    if reply is None and (body or length):
        out = checks.on_request_body(request, body, True)
        if out == body:
            return True
        assert isinstance(out, Reply)
        reply = out
    assert reply is None or reply.status == 400
    return reply is None
