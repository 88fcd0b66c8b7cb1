"""Entries of `auth` that are shared beforehand: what the file may say, and what is made of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from argon2 import PasswordHasher
from pydantic import ValidationError

from headgate.config.auth_keys import (
    ApiKeySpec,
    BasicSpec,
    CertificateAuthSpec,
    ContentDigestSpec,
    IntrospectionSpec,
    SignatureSpec,
    problems,
)
from headgate.gateway.methods import keys
from headgate.security.api_keys import hash_text, make_key
from headgate.security.method import Verified
from tests.security.credentials_rig import Look

WALL = 1_800_000_000.0
KEY = make_key("alpha1234567", bytes(32))
URL = "https://issuer.example/introspect"


def test_keys_of_the_configuration_are_taken():
    spec = ApiKeySpec(
        keys=[
            {
                "id": "alpha1234567",
                "hash": hash_text(KEY),
                "consumer": "acme",
                "roles": "admin",
                "networks": ["192.0.2.0/24"],
                "expires": "2030-01-01T00:00:00Z",
            }
        ]
    )
    found = keys.build_api_key(spec).verify(Look(headers=[(b"x-api-key", KEY.encode())]), WALL)
    assert isinstance(found, Verified)
    assert found.identity.roles == {"admin"}


def test_a_plain_key_is_refused_and_not_repeated():
    spec = ApiKeySpec(keys=[{"id": "alpha1234567", "hash": KEY, "consumer": "acme"}])
    with pytest.raises(ValueError, match=r"keys\[0\]\.hash: holds a key in plain") as raised:
        keys.build_api_key(spec)
    assert KEY not in str(raised.value)
    with pytest.raises(ValidationError):
        ApiKeySpec(keys=[{"key": KEY, "consumer": "acme"}])


@pytest.mark.parametrize(
    "content, said", [(b"short\n", "32 bytes or more"), (None, "cannot be read")],
    ids=["short", "none"],
)  # fmt: skip
def test_a_pepper_must_be_one(tmp_path, content, said):
    path = tmp_path / "pepper"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        keys.build_api_key(ApiKeySpec(pepper_file=str(path)))


def test_a_line_break_at_the_end_is_not_part_of_a_pepper(tmp_path):
    path = tmp_path / "pepper"
    path.write_bytes(b"p" * 32 + b"\n")
    spec = ApiKeySpec(
        pepper_file=str(path),
        keys=[{"id": "alpha1234567", "hash": hash_text(KEY, b"p" * 32), "consumer": "acme"}],
    )
    found = keys.build_api_key(spec).verify(Look(headers=[(b"x-api-key", KEY.encode())]), WALL)
    assert isinstance(found, Verified)


def test_users_are_hashes_or_hashes_and_more():
    hashed = PasswordHasher(1, 16, 1).hash("x")
    spec = BasicSpec(users={"ann": hashed, "bob": {"hash": hashed, "roles": ["admin"]}})
    assert keys.build_basic(spec).snapshot(WALL)["users"] == 2
    with pytest.raises(ValueError, match=r"users\.ann: its hash is no hash") as raised:
        keys.build_basic(BasicSpec(users={"ann": "hunter2"}))
    assert "hunter2" not in str(raised.value)


def test_signing_keys_are_taken_and_short_ones_refused():
    secret = "base64:" + base64.b64encode(bytes(32)).decode()
    spec = SignatureSpec(keys={"a": {"secrets": secret}, "b": {"secrets": [secret, secret]}})
    assert keys.build_signature(spec).snapshot(WALL)["keys"] == 2
    with pytest.raises(ValueError, match=r"keys\.a\.secrets: is shorter than 32") as raised:
        keys.build_signature(SignatureSpec(keys={"a": {"secrets": "hunter2"}}))
    assert "hunter2" not in str(raised.value)


def test_the_filter_of_a_signed_route_asks_for_a_digest():
    assert SignatureSpec(max_body="1MB").digest() == ContentDigestSpec(
        required=True, max_body=1024 * 1024, only_for="signature"
    )


def test_certificates_are_told_apart_by_the_file():
    spec = CertificateAuthSpec(
        subject=["{uri}", "{cn}"],
        match=[{"uri": "spiffe://prod/*", "roles": "prod"}],
        fingerprints="AB:" * 31 + "AB",
    )
    rules = spec.rules()
    assert rules.fingerprints == {"ab" * 32}
    assert rules.matches[0].fields == {"uri": ("spiffe://prod/*",)}
    assert keys.build_certificate(spec).name == "certificate"


@pytest.mark.parametrize(
    "make",
    [
        lambda: CertificateAuthSpec(subject="fixed"),
        lambda: CertificateAuthSpec(subject=[]),
        lambda: CertificateAuthSpec(fingerprints="abc"),
        lambda: ApiKeySpec(prefix="HG"),
        lambda: ApiKeySpec(schemes="basic"),
        lambda: ApiKeySpec(realm='a"b'),
        lambda: BasicSpec(realm="a\nb"),
        lambda: BasicSpec(checks=0),
        lambda: SignatureSpec(max_age=0),
        lambda: IntrospectionSpec(url=[]),
        lambda: IntrospectionSpec(url=URL, client_auth="digest"),
    ],
    ids=range(11),
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValidationError):
        make()


@pytest.mark.parametrize(
    "spec, places",
    [
        (ApiKeySpec(), [()]),
        (ApiKeySpec(file="f", header="Authorization"), [("header",)]),
        (BasicSpec(), [()]),
        (SignatureSpec(), [()]),
        (SignatureSpec(keys={"a": {}}), [("keys", "a")]),
        (SignatureSpec(file="f", covered=["@method", "@body"]), [("covered", 1), ("covered",)]),
        (SignatureSpec(file="f", nonce="optional"), [("nonce",)]),
        (SignatureSpec(file="f"), []),
        (CertificateAuthSpec(only_matched=True), [("only_matched",)]),
        (CertificateAuthSpec(match=[{"roles": "a"}]), [("match", 0)]),
        (IntrospectionSpec(url="ftp://x/", client_auth="none"), [("url",)]),
        (IntrospectionSpec(url="https://[", client_auth="none"), [("url",)]),
        (IntrospectionSpec(url="https://u:p@x/", client_auth="none"), [("url",)]),
        (IntrospectionSpec(url="http://x/", client_auth="none"), [("url",)]),
        (IntrospectionSpec(url="http://127.0.0.1/", client_auth="none"), []),
        (IntrospectionSpec(url=URL), [("client_auth",)]),
        (IntrospectionSpec(url=URL, client_auth="bearer"), [("client_auth",)]),
        (IntrospectionSpec(url=URL, client_id="a", client_secret="b"), []),
    ],
    ids=range(18),
)
def test_what_does_not_go_together_is_told(spec, places):
    assert [loc for loc, *_ in problems(spec)] == places


def test_reading_a_configuration_loads_none_of_the_heavy_libraries():
    code = (
        "import sys, json, headgate.config.auth_keys\n"
        "print(json.dumps([m for m in ('argon2', 'bcrypt', 'httpx', 'cryptography') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []
