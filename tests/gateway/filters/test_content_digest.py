"""Bodies against their Content-Digest."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.auth_keys import ContentDigestSpec, SignatureSpec
from headgate.gateway.filters import FilterContext
from headgate.gateway.filters.base import Headers, Reply, Request
from headgate.gateway.filters.content_digest import ContentDigest
from headgate.security.identity import Identity
from headgate.security.signatures import content_digest

BODY = b'{"hello": "world"}'
# RFC 9530, appendix A and RFC 9421, appendix B.2: the digests of this body.
RFC_512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
RFC_256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"


def asked(length, *digests):
    fields = [(b"content-digest", digest.encode()) for digest in digests]
    return Request(
        "POST", "/", "", Headers(fields), "192.0.2.1", True, "id", "r", "s", {}, length=length
    )


def outcome(body, *digests, length=None, who=None, **spec):
    made = ContentDigest(ContentDigestSpec(**spec), FilterContext("r", "s"))
    request = asked(len(body) if length is None else length, *digests)
    request.identity = who
    reply = made.on_request(request)
    if reply is not None:
        return reply
    if not body:
        return made.on_request_body(request, b"", last=True)
    found = made.on_request_body(request, body, last=True)
    if isinstance(found, (bytes, Reply)):
        return found

    async def later():
        return await found

    return asyncio.run(later())


@pytest.mark.parametrize(
    "digests",
    [(RFC_256,), (RFC_512,), (f"{RFC_256}, {RFC_512}",), (RFC_256, RFC_512), (f"md5=:AA==:, {RFC_256}",), ()],
    ids=["256", "512", "both", "two", "more", "none"],
)  # fmt: skip
def test_a_body_that_is_the_one_goes_on(digests):
    assert outcome(BODY, *digests) == BODY


@pytest.mark.parametrize(
    "digests",
    [
        (content_digest(b"other"),),
        (RFC_256, content_digest(b"other", "sha-512")),
        ("md5=:AA==:",),
        ("sha-256=:AA==:",),
        ("sha-256=abc",),
        ("sha-256",),
        ("sha-256=()",),
        ("=",),
        (RFC_256, RFC_256),
    ],
    ids=["other", "one", "md5", "short", "token", "flag", "list", "noise", "twice"],
)
def test_a_body_that_is_not_the_one_is_refused(digests):
    reply = outcome(BODY, *digests)
    assert reply.status == 400
    assert ("want-content-digest", "sha-256=10, sha-512=5") in reply.headers


@pytest.mark.parametrize("length", [None, -1], ids=["known", "unknown"])
def test_where_it_is_required_a_body_without_one_is_refused(length):
    assert outcome(BODY, required=True, length=length).status == 400
    assert outcome(b"", required=True, length=0 if length is None else length) == b""
    assert outcome(BODY, RFC_256, required=True, length=length) == BODY


def test_what_another_method_let_in_is_left_alone():
    spec = SignatureSpec(name="partners").digest().model_dump()
    assert outcome(BODY, who=None, **spec) == BODY
    assert outcome(BODY, content_digest(b"x"), who=Identity("a", method="basic"), **spec) == BODY
    assert outcome(BODY, who=Identity("a", method="partners"), **spec).status == 400
    assert outcome(BODY, RFC_256, who=Identity("a", method="partners"), **spec) == BODY


def test_a_digest_of_something_does_not_go_with_nothing():
    assert outcome(b"", RFC_256).status == 400
    assert outcome(b"", RFC_256, length=-1).status == 400
    assert outcome(b"", content_digest(b"")) == b""
    # Where no body comes, the hook for bodies may not be called at all.
    made = ContentDigest(ContentDigestSpec(), FilterContext("r", "s"))
    reply = made.on_request(asked(0, RFC_256))
    assert reply is not None
    assert reply.status == 400


def test_a_long_body_is_checked_off_the_loop():
    body = bytes(1024 * 1024)
    assert outcome(body, content_digest(body)) == body
    assert outcome(body + b"x", content_digest(body)).status == 400


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_only_the_same_bytes_have_the_digest(one, other):
    said = base64.b64encode(hashlib.sha256(one).digest()).decode()
    found = outcome(other, f"sha-256=:{said}:")
    assert (found == other) if one == other else (found.status == 400)


def test_the_bound_of_bodies_is_that_of_the_file():
    made = ContentDigest(ContentDigestSpec(max_body="1KB"), FilterContext("r", "s"))
    assert made.request_body_max == 1024
    assert made.request_body_over == "refuse"
