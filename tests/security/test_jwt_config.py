"""JWT as it is written in the file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from headgate.config.auth_jwt import JwtSpec, problems
from headgate.config.authenticating import AuthSpec, auth_methods
from headgate.gateway.methods.jwt import build
from headgate.security.method import Refused, Verified
from headgate.security.method_jwt import JwtMethod
from headgate.security.tokens.rules import HMAC_ALGORITHMS, PUBLIC_ALGORITHMS
from tests.security.jwt_tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    bearer,
    claims,
    jwk,
    public_pem,
    token,
)

ISSUED = {"issuer": ISSUER, "audience": AUDIENCE}


def spec(**said) -> JwtSpec:
    return JwtSpec.model_validate(said)


def faults(**said) -> list[tuple[object, bool]]:
    return [(loc, is_warning) for loc, _, _, is_warning in problems(spec(**said))]


def test_the_short_forms_are_the_long_ones():
    short = spec(
        issuer="a", audience="b", keys="discover", algorithms="RS256", require="jti", typ="at+jwt",
        claims={"roles": "r"},
    )  # fmt: skip
    long = spec(
        issuer=["a"], audience=["b"], keys="discover", algorithms=["RS256"], require={"jti": []},
        typ=["at+jwt"], claims={"roles": ["r"]},
    )  # fmt: skip
    assert short == long
    assert spec(require=["a", "b"]).require == {"a": (), "b": ()}
    assert spec(require={"a": True, "b": [1, "x"]}).require == {"a": ("true",), "b": ("1", "x")}


def test_defaults_are_safe():
    rules = spec(keys="https://a.example/jwks").rules()
    assert rules.token.require_exp and rules.token.algorithms == frozenset(PUBLIC_ALGORITHMS)
    assert rules.token.max_bytes == 8192 and rules.token.leeway_s == 30.0
    assert rules.header == "authorization" and not rules.cookies and not rules.query
    assert spec(secret="x" * 64).rules().token.algorithms == frozenset(HMAC_ALGORITHMS)
    assert rules.remote is not None and rules.remote.cooldown_s == 30.0


@pytest.mark.parametrize(
    "said, expected",
    [
        pytest.param({"keys": "https://a.example/jwks", "audience": "a"}, [], id="good-url"),
        pytest.param({**ISSUED, "keys": "discover"}, [], id="good-discover"),
        pytest.param({"secret": "x" * 32}, [], id="good-secret"),
        pytest.param({"keys_file": "a.pem"}, [], id="good-file"),
        pytest.param({"keys": "http://localhost:1/", "audience": "*"}, [], id="good-near"),
        pytest.param({"keys": "http://127.0.0.9:1/", "audience": "*"}, [], id="good-loopback"),
        pytest.param({"keys": "http://users:3001/jwks", "audience": "*"}, [], id="good-container"),
        pytest.param({}, [((), False)], id="no-keys"),
        pytest.param({"issuer": "https://a.example"}, [((), False)], id="issuer-alone"),
        pytest.param({"keys_file": "a", "secret": "x"}, [(("secret",), False)], id="two-sources"),
        pytest.param({"keys": "discover", "audience": "a"}, [(("keys",), False)], id="no-issuer"),
        pytest.param(
            {"keys": "discover", "issuer": ["https://a.example", "https://b.example"], "audience": "a"},
            [(("keys",), False)],
            id="two-issuers",
        ),
        pytest.param({"keys": "discover", "issuer": "a", "audience": "a"}, [(("issuer",), False)], id="issuer-no-url"),
        pytest.param(
            {"keys": "discover", "issuer": "https://a.example?x", "audience": "a"},
            [(("issuer",), False)],
            id="issuer-query",
        ),
        pytest.param({"keys": "keys.pem", "audience": "a"}, [(("keys",), False)], id="file-as-url"),
        pytest.param({"keys": "https://a:99999/", "audience": "a"}, [(("keys",), False)], id="port"),
        pytest.param({"keys": "http://a.example/", "audience": "a"}, [(("keys",), True)], id="no-tls"),
        pytest.param({"keys": "https://a.example/"}, [((), True)], id="no-audience"),
        pytest.param(
            {"keys": "https://a.example/", "audience": "a", "algorithms": ["RS256", "HS256"]},
            [(("algorithms", 1), False)],
            id="hmac-of-url",
        ),
        pytest.param(
            {"secret": "x" * 32, "algorithms": "RS256"}, [(("algorithms", 0), False)], id="rsa-of-secret"
        ),
        pytest.param({"secret": "x" * 32, "leeway": "1h"}, [(("leeway",), True)], id="leeway"),
        pytest.param({"secret": "x" * 32, "ca_file": "a"}, [(("ca_file",), True)], id="ca-file"),
        pytest.param({"secret": "x" * 32, "max_size": 0}, [(("max_size",), False)], id="no-size"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_said(said, expected):
    assert faults(**said) == expected


def test_no_fault_repeats_a_secret():
    secret = "c4n4ry" * 6
    made = spec(secret=secret, algorithms="RS256", leeway="1h")
    for _, message, hint, _ in problems(made):
        assert secret not in message + hint
    assert secret not in repr(made.rules())


@pytest.mark.parametrize(
    "said",
    [
        {"algorithms": "none"}, {"algorithms": []}, {"algorithms": "ES256K"}, {"header": "host"},
        {"require": {"a": {"b": 1}}}, {"claims": {"subject": ""}}, {"key": "x"}, {"max_age": 0},
        {"refresh": 0}, {"secret_encoding": "rot13"},
    ],
    ids=lambda said: next(iter(said)),
)  # fmt: skip
def test_what_makes_no_sense_is_refused(said):
    with pytest.raises(ValidationError):
        spec(**said)


@pytest.mark.parametrize(
    "said, reason",
    [
        pytest.param({"secret": "short"}, "5 bytes and needs 32", id="short"),
        pytest.param({"secret": "x" * 32, "algorithms": "HS512"}, "needs 64", id="short-for-it"),
        pytest.param({"secret": "-----BEGIN PUBLIC KEY-----"}, "keys_file", id="pem"),
        pytest.param({"secret": ["x" * 32, "x" * 32]}, "twice", id="twice"),
        pytest.param({"secret": "xyz!", "secret_encoding": "base64"}, "not base64", id="base64"),
        pytest.param({"keys_file": "/nowhere/keys"}, "cannot be read", id="no-file"),
        pytest.param({}, "write keys", id="nothing"),
    ],
)
def test_keys_that_must_not_be_used_do_not_build(said, reason):
    with pytest.raises(ValueError) as error:
        build(spec(**said))
    assert reason in str(error.value)


def test_a_secret_verifies_what_it_signed():
    text = token(alg="HS256", key=SECRET)
    for said in (
        {"secret": SECRET.decode()},
        {"secret": SECRET.hex(), "secret_encoding": "hex"},
        {"secret": jwk("HS512")["k"], "secret_encoding": "base64"},
        {"secret": ["y" * 40, SECRET.decode()]},
    ):
        method = build(spec(**ISSUED, **said))
        assert isinstance(method.verify(bearer(text), NOW), Verified), said
    found = build(spec(**ISSUED, secret="y" * 40)).verify(bearer(text), NOW)
    assert isinstance(found, Refused) and found.error == "bad_signature"


def test_all_that_the_file_says_reaches_the_method(tmp_path):
    (tmp_path / "keys").write_bytes(public_pem("ES256"))
    method = build(
        spec(
            **ISSUED,
            name="ours",
            keys_file=str(tmp_path / "keys"),
            algorithms="ES256",
            require={"org": ["a", "b"]},
            typ="application/at+jwt",
            max_age="10s",
            leeway=0,
            header="x-token",
            cookies="t",
            query="q",
            realm="shop",
            claims={"subject": "uid", "tier": "plan"},
        )
    )
    assert isinstance(method, JwtMethod)
    text = token(claims(org="b", uid="u", plan="gold"), typ="at+jwt")
    request = bearer(b"")
    request.headers = [(b"x-token", text)]
    found = method.verify(request, NOW)
    assert isinstance(found, Verified) and found.until == NOW + 10
    identity = found.identity
    assert (identity.subject, identity.tier, identity.method) == ("u", "gold", "ours")
    assert method.challenge == 'Bearer realm="shop"'


def test_every_configuration_of_the_page_is_a_good_one(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/howto/jwt.md").read_text()
    (tmp_path / "partner.pem").write_bytes(public_pem("ES256"))
    monkeypatch.chdir(tmp_path)
    names = []
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        document = yaml.safe_load(block.replace("${env:JWT_SECRET}", "x" * 32))
        for name, (_, made) in auth_methods(AuthSpec(**document["auth"])).items():
            assert list(problems(made)) == []
            assert isinstance(build(made), JwtMethod)
            names.append(name)
    assert names == ["jwt", "own", "partner", "jwt"]


@pytest.mark.integration
def test_building_starts_nothing_and_reading_a_file_of_configuration_loads_nothing_heavy():
    method = build(spec(**ISSUED, keys="discover"))
    assert method.generation == 0
    code = (
        "import sys, json; import headgate.config.auth_jwt, headgate.security.method;"
        "print(json.dumps([m for m in ('httpx', 'joserfc', 'cryptography') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []
