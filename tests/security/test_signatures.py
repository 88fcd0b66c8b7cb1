"""Signed requests: the vectors of RFC 9421, and every way to bend one."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.identity import Identity
from headgate.security.method import Refused, Verified
from headgate.security.method_signature import NonceNews, SignatureMethod
from headgate.security.nonces import Nonces, tag_of
from headgate.security.signatures import (
    COVERED,
    Accepted,
    BadSignature,
    SignatureRules,
    SignedHead,
    SigningKey,
    base_of,
    check,
    content_digest,
    may_have_body,
    read_public,
    read_secret,
    sign,
)
from headgate.security.signing_keys import read_signing_file
from headgate.wire.structured_fields import parse_dictionary
from tests.security.credentials_rig import Lent, Look, on_a_loop

# RFC 9421, appendix B.1.4, B.1.5 and B.2.
RFC_SECRET = base64.b64decode(
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)
RFC_PUBLIC = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n"
RFC_PRIVATE = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n"
RFC_CREATED = 1618884473
RFC_REQUEST = SignedHead(
    "POST",
    "https",
    "example.com",
    "/foo",
    "param=Value&Pet=dog",
    (
        (b"host", b"example.com"),
        (b"date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
        (b"content-type", b"application/json"),
        (
            b"content-digest",
            b"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
        ),
        (b"content-length", b"18"),
    ),
)
B25 = '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
B25_SIGNATURE = "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="
B26 = '("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"'
B26_SIGNATURE = (
    "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
)

WALL = 1_800_000_000.0
SECRET = b"s" * 32
KEYS = {
    "a": SigningKey("a", Identity("acme", "acme"), secrets=(SECRET,)),
    "two": SigningKey("two", Identity("two", "two"), secrets=(b"o" * 32, SECRET)),
    "ed": SigningKey("ed", Identity("ed", "ed"), publics=(read_public(RFC_PUBLIC),)),
}


def with_signature(head, listed, proof, label="sig-b2"):
    more = (
        (b"signature-input", f"{label}={listed}".encode()),
        (b"signature", f"{label}=:{proof}:".encode()),
    )
    return SignedHead(
        head.method, head.scheme, head.authority, head.path, head.query, (*head.headers, *more)
    )


def test_the_base_of_b_2_5_is_that_of_the_rfc():
    listed: Any = parse_dictionary(f"sig={B25}")["sig"]
    assert base_of(RFC_REQUEST, listed) == (
        b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        b'"@authority": example.com\n'
        b'"content-type": application/json\n'
        b'"@signature-params": ' + B25.encode()
    )


@pytest.mark.parametrize(
    "listed, proof, key",
    [
        (B25, B25_SIGNATURE, SigningKey("test-shared-secret", Identity("x"), (RFC_SECRET,))),
        (
            B26,
            B26_SIGNATURE,
            SigningKey("test-key-ed25519", Identity("x"), (), (read_public(RFC_PUBLIC),)),
        ),
    ],
    ids=["b25-hmac", "b26-ed25519"],
)
def test_the_vectors_of_the_rfc_hold(listed, proof, key):
    rules = SignatureRules(covered=("@authority",), needs_nonce=False)
    # Without the length, or our own rule asks for the digest of the body as well.
    head = with_signature(RFC_REQUEST, listed, proof)
    found: Any = check(head, {key.id: key}, rules, RFC_CREATED)
    assert found.error == "not_covered"  # the signature held: that is judged before
    wrong = "A" + proof[1:] if proof[0] != "A" else "B" + proof[1:]
    head = with_signature(RFC_REQUEST, listed, wrong)
    found = check(head, {key.id: key}, rules, RFC_CREATED)
    assert found.error == "bad_signature"
    bodiless = SignedHead(
        "GET", "https", "example.com", "/foo", None,
        tuple(pair for pair in RFC_REQUEST.headers if pair[0] != b"content-length"),
    )  # fmt: skip
    if key.secrets:
        assert isinstance(
            check(with_signature(bodiless, listed, proof), {key.id: key}, rules, RFC_CREATED),
            Accepted,
        )


@pytest.mark.parametrize(
    "authority, scheme, said",
    [
        ("EXAMPLE.com", "https", "example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:80", "https", "example.com:80"),
        ("example.com:80", "http", "example.com"),
        ("[::1]:8443", "https", "[::1]:8443"),
    ],
    ids=range(5),
)
def test_an_authority_is_signed_in_its_normal_form(authority, scheme, said):
    head = SignedHead("GET", scheme, authority, "/", None)
    listed: Any = parse_dictionary('s=("@authority" "@target-uri" "@query")')["s"]
    lines = base_of(head, listed).decode().split("\n")
    assert lines[0] == f'"@authority": {said}'
    assert lines[1] == f'"@target-uri": {scheme}://{said}/'
    assert lines[2] == '"@query": ?'


# -- what our own client signs --------------------------------------------------------------


def signed(method="GET", url="https://api.example/a/b?x=1", key_id="a", key=SECRET, **more):
    more.setdefault("created", int(WALL))
    more.setdefault("nonce", "n1")
    return sign(method, url, key_id=key_id, key=key, **more)


def look(fields, method="GET", target="/a/b?x=1", extra=(), **more):
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    return Look(method=method, target=target, headers=[*headers, *extra], **more)


def method(**rules):
    return SignatureMethod(SignatureRules(**rules), KEYS)


def test_what_is_signed_is_accepted_once():
    made = method()
    shown = look(signed())
    found = made.verify(shown, WALL)
    assert isinstance(found, Verified)
    assert found.until == 0.0
    assert found.identity.subject == "acme"
    assert made.verify(shown, WALL).error == "replayed"


def test_an_ed25519_key_signs_as_well():
    private = load_pem_private_key(RFC_PRIVATE, None)
    assert isinstance(method().verify(look(signed(key_id="ed", key=private)), WALL), Verified)


def test_either_of_two_secrets_holds_while_they_change():
    assert isinstance(method().verify(look(signed(key_id="two")), WALL), Verified)
    assert isinstance(method().verify(look(signed(key_id="two", key=b"o" * 32)), WALL), Verified)
    assert method().verify(look(signed(key_id="two", key=b"x" * 32)), WALL).error == "bad_signature"


@pytest.mark.parametrize(
    "bent",
    [
        {"method": "DELETE"},
        {"target": "/a/c?x=1"},
        {"target": "/a/b?x=2"},
        {"target": "/a/b"},
        {"target": "/a/b?x=1&y=2"},
        {"authority": "other.example"},
        {"authority": "api.example:8443"},
    ],
    ids=["method", "path", "query", "noquery", "more", "host", "port"],
)
def test_a_request_that_was_changed_is_refused(bent):
    assert method().verify(look(signed(), **bent), WALL).error == "bad_signature"


@pytest.mark.parametrize(
    "more, wall, error",
    [
        ({}, WALL + 89, None),
        ({}, WALL + 90, "expired"),
        ({}, WALL - 30, None),
        ({}, WALL - 31, "early"),
        ({"expires": int(WALL) + 5}, WALL + 34, None),
        ({"expires": int(WALL) + 5}, WALL + 35, "expired"),
        ({"expires": int(WALL) - 100}, WALL, "expired"),
        ({"covered": ("@method", "@path", "@query")}, WALL, "not_covered"),
        ({"covered": (*COVERED, "x-missing")}, WALL, "unsigned"),
        ({"nonce": ""}, WALL, "no_nonce"),
        ({"nonce": "n" * 257}, WALL, "malformed"),
        ({"created": -1}, WALL, "expired"),
        ({"key_id": "nobody"}, WALL, "unknown_key"),
        ({"key": b"t" * 32}, WALL, "bad_signature"),
        ({"key_id": "ed"}, WALL, "bad_signature"),
    ],
    ids=[
        "old", "toold", "ahead", "early", "ends", "ended", "past", "less", "gone", "nononce",
        "long", "zero", "unknown", "wrong", "confused",
    ],
)  # fmt: skip
def test_terms_of_a_signature_are_held_to(more, wall, error):
    if error == "unsigned":
        with pytest.raises(ValueError, match="x-missing"):
            signed(**more)
        return
    found = method().verify(look(signed(**more)), wall)
    assert (found.error if isinstance(found, Refused) else None) == error


def test_a_body_must_be_covered_by_its_digest():
    fields = signed("POST", body=b"{}")
    assert fields["content-digest"] == content_digest(b"{}")
    length = [(b"content-length", b"2")]
    assert isinstance(method().verify(look(fields, "POST", extra=length), WALL), Verified)
    bare = signed("POST")
    assert method().verify(look(bare, "POST", extra=length), WALL).error == "not_covered"
    chunked = [(b"transfer-encoding", b"chunked")]
    assert method().verify(look(bare, "POST", extra=chunked), WALL).error == "not_covered"
    assert isinstance(
        method().verify(look(bare, "POST", extra=[(b"content-length", b"0")]), WALL), Verified
    )


def test_a_digest_that_was_exchanged_is_refused():
    fields = signed("POST", body=b"{}") | {"content-digest": content_digest(b"[]")}
    extra = [(b"content-length", b"2")]
    assert method().verify(look(fields, "POST", extra=extra), WALL).error == "bad_signature"


def test_heads_that_may_have_a_body():
    assert may_have_body(SignedHead("PUT", "https", "a", "/", None, [(b"content-type", b"x/y")]))
    assert not may_have_body(SignedHead("GET", "https", "a", "/", None, ()))


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": "sig1=:AA==:"},
        {"signature-input": 'sig1=("@method");created=1'},
        {"signature": "sig1=:AA==:", "signature-input": "sig1=1"},
        {"signature": "sig1=:AA==:", "signature-input": "("},
        {"signature": "sig1=:AA==:", "signature-input": 'sig1=("@method");keyid=a'},
        {"signature": "sig1=:AA==:", "signature-input": 'sig1=("@method");created=1'},
        {"signature": "sig1=1", "signature-input": 'sig1=("@method");keyid="a"'},
        {"signature": "sig2=:AA==:", "signature-input": 'sig1=("@method");keyid="a"'},
        {"signature": "s=:AA==:", "signature-input": 's=("@method";req);keyid="a"'},
        {"signature": "s=:AA==:", "signature-input": 's=("@method" "@method");keyid="a"'},
        {"signature": "s=:AA==:", "signature-input": 's=("X-Big");keyid="a"'},
        {"signature": "s=:AA==:", "signature-input": 's=("@signature-params");keyid="a"'},
        {"signature": "s=:AA==:", "signature-input": 's=("@query-param";name="x");keyid="a"'},
        {"signature": "s=::", "signature-input": 's=(1);keyid="a"'},
        {
            "signature": "a=::, b=::, c=::, d=::, e=::",
            "signature-input": "a=(), b=(), c=(), d=(), e=()",
        },
        {"signature": "s=::", "signature-input": f's=({chr(34)}x{chr(34)});nonce=1;keyid="a"'},
    ],
    ids=range(16),
)
def test_what_is_malformed_is_refused_and_never_an_error(fields):
    assert method().verify(look(fields), WALL).error == "malformed"


def test_a_request_without_a_signature_is_for_another_method():
    assert method().verify(Look(), WALL) is None


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_fields_are_answered(said, made):
    fields = {"signature-input": said, "signature": made}
    shown = Look(
        headers=[
            (name.encode(), value.encode("utf-8", "replace")) for name, value in fields.items()
        ]
    )
    assert isinstance(method().verify(shown, WALL), Refused)


def test_the_algorithm_is_that_of_the_key_and_not_of_the_request():
    """The public half of an Ed25519 key is no secret, so it must not pass for one."""
    raw = read_public(RFC_PUBLIC).public_bytes_raw()
    assert method().verify(look(signed(key_id="ed", key=raw)), WALL).error == "bad_signature"
    fields = signed()
    fields["signature-input"] += ';alg="ed25519"'
    assert method().verify(look(fields), WALL).error == "bad_algorithm"


def test_only_the_signature_with_our_tag_counts():
    made = method(tag="headgate")
    assert isinstance(made.verify(look(signed(tag="headgate")), WALL), Verified)
    assert made.verify(look(signed(tag="other", nonce="2")), WALL).error == "malformed"
    assert made.verify(look(signed(nonce="3")), WALL).error == "malformed"


def test_one_of_several_signatures_is_enough():
    ours = signed()
    fields = {
        name: f"{ours[name]}, other={'(' + chr(34) + '@method' + chr(34) + ');keyid=' + chr(34) + 'z' + chr(34) if name.endswith('input') else ':AAAA:'}"
        for name in ours
    }
    assert isinstance(method().verify(look(fields), WALL), Verified)


def test_a_path_is_signed_in_its_normal_form():
    fields = signed(url="https://api.example/a/../%7euser?x")
    shown = look(fields, target="/~user?x")
    assert isinstance(method().verify(shown, WALL), Verified)


def test_a_secret_is_not_shorter_than_the_digest():
    with pytest.raises(ValueError, match="shorter than 32 bytes"):
        read_secret("short")
    assert read_secret("base64:" + base64.b64encode(SECRET).decode()) == SECRET
    with pytest.raises(ValueError, match="not base64"):
        read_secret("base64:%%%")


@pytest.mark.parametrize(
    "text",
    [
        RFC_PRIVATE.decode(),
        "AAAA",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\nw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n-----END PUBLIC KEY-----\n",
    ],
    ids=["private", "short", "broken", "ecdsa"],
)
def test_what_is_no_ed25519_public_key_is_refused(text):
    with pytest.raises(ValueError) as raised:
        read_public(text)
    assert "MC4CAQ" not in str(raised.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("keys:\n  a:\n    secret: short\n", "line 3: keys.a.secret: is shorter"),
        ("keys:\n  a: {}\n", "line 2: keys.a: needs either"),
        ("keys:\n  a:\n    sekret: x\n", 'did you mean "secret"'),
        ("keys: []\n", "must be a mapping"),
        ("- 1\n", "expected `keys`"),
    ],
    ids=["short", "none", "typo", "list", "top"],
)
def test_a_key_file_with_a_fault_says_where(text, said):
    with pytest.raises(ValueError) as raised:
        read_signing_file(text.encode(), "signature")
    assert said in str(raised.value)


def test_secrets_are_in_no_representation():
    assert "sss" not in repr(KEYS["a"])


# -- nonces ---------------------------------------------------------------------------------


def test_nonces_are_remembered_until_they_end_and_no_longer():
    nonces = Nonces(100)
    assert nonces.use("a", "1", 10.0, 0.0) == "new"
    assert nonces.use("a", "1", 10.0, 9.9) == "used"
    assert nonces.use("b", "1", 10.0, 9.9) == "new"
    assert nonces.use("c", "x", 30.0, 11.0) == "new"
    assert len(nonces) == 1


def test_when_full_nothing_is_forgotten_and_others_keep_their_half():
    nonces = Nonces(4)
    assert [nonces.use("a", str(n), 10.0, 0.0) for n in range(3)] == ["new", "new", "full"]
    assert [nonces.use("b", str(n), 10.0, 0.0) for n in range(3)] == ["new", "new", "full"]
    assert nonces.use("a", "0", 10.0, 0.0) == "used"
    assert nonces.use("a", "9", 30.0, 10.0) == "new"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 20))))
def test_a_nonce_that_has_not_ended_is_never_new_twice(uses):
    nonces = Nonces(8)
    ends_of: dict[tuple[str, int], int] = {}
    for wall, (key, nonce, life) in enumerate(uses):
        said = nonces.use(key, str(nonce), wall + life, float(wall))
        assert len(nonces) <= 8
        if ends_of.get((key, nonce), 0) > wall:
            assert said == "used"
        if said == "new":
            ends_of[key, nonce] = wall + life


@on_a_loop
async def test_another_worker_hears_of_a_nonce_and_refuses_the_copy():
    one, other, lent, there = method(), method(), Lent(), Lent()
    one.start(lent)
    other.start(there)
    next(iter(there.kept.values()))
    there.kept["nonces", "news"]._clock = lambda: WALL
    shown = look(signed())
    assert isinstance(one.verify(shown, WALL), Verified)
    for topic, message in lent.published:
        assert "n1" not in json.dumps(message)
        there.tell(topic, json.loads(json.dumps(message)))
    assert other.verify(shown, WALL).error == "replayed"


@on_a_loop
async def test_a_reload_lets_no_replay_in():
    lent, shown = Lent(), look(signed())
    before = method()
    before.start(lent)
    assert isinstance(before.verify(shown, WALL), Verified)
    after = method(max_age_s=120.0)
    after.start(lent)
    before.close()
    assert after.verify(shown, WALL).error == "replayed"


def test_news_that_is_no_news_is_dropped():
    news, nonces = NonceNews(lambda: WALL), Nonces(10)
    news.hear_for("signature", nonces)
    for message in (
        {},
        {"method": "signature", "tag": "zz", "key": "a", "ends": WALL + 1},
        {"method": "signature", "tag": "00", "key": 1, "ends": WALL + 1},
        {"method": "signature", "tag": "00", "key": "a", "ends": "x"},
        {"method": "other", "tag": "00", "key": "a", "ends": WALL + 1},
        {"method": "signature", "tag": tag_of("a", "1").hex(), "key": "a", "ends": WALL - 1},
    ):
        news.hear(message)
    assert len(nonces) == 0


# -- a real client --------------------------------------------------------------------------


class Signing(httpx.Auth):
    requires_request_body = True

    def __init__(self, key_id, secret):
        self._key_id, self._secret = key_id, secret
        self._count = 0

    def auth_flow(self, request):
        self._count += 1
        request.headers.update(
            sign(
                request.method,
                str(request.url),
                key_id=self._key_id,
                key=self._secret,
                created=int(WALL),
                nonce=f"nonce-{self._count}",
                body=request.content,
            )
        )
        yield request


@on_a_loop
async def test_requests_of_httpx_are_signed_as_a_server_sees_them():
    made, findings = method(), []

    async def answer(request):
        shown = Look(
            method=request.method,
            target=request.raw_path,
            authority=request.host,
            headers=[(name.lower(), value) for name, value in request.raw_headers],
            is_tls=False,
        )
        findings.append(made.verify(shown, WALL))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site: Any = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", auth=Signing("a", SECRET)
        ) as client:
            await client.get("/")
            await client.get("/a b/ü", params={"q": "1 2&3", "r": ""})
            await client.post("/x?y=1", json={"a": 1})
            await client.put("/x", content=b"")
    finally:
        await runner.cleanup()
    assert [type(found) for found in findings] == [Verified] * 4
    await asyncio.sleep(0)


def test_bad_signature_has_no_secret_in_it():
    found = check(
        SignedHead(
            "GET", "https", "a", "/", None, [(b"signature", b"x"), (b"signature-input", b"y")]
        ),
        KEYS,
        SignatureRules(),
        WALL,
    )
    assert isinstance(found, BadSignature)
