from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.auth_login import LoginSpec, problems, problems_between
from headgate.gateway.methods.login import build
from headgate.security.login.assertion import ClientKey
from headgate.security.login.method import LoginMethod
from headgate.security.login.provider import Metadata
from headgate.security.login.rules import Endpoints, LoginRules
from headgate.security.method import Instead
from tests.security.provider import Seen

BASE = {"issuer": "https://id.example/realms/shop", "client_id": "shop"}
SECRET = "s" * 32


def spec(**more: object) -> LoginSpec:
    return LoginSpec.model_validate({**BASE, **more})


def test_the_shortest_entry_has_nothing_wrong_and_gets_the_defaults():
    assert list(problems(spec())) == []
    assert spec().rules() == LoginRules(BASE["issuer"], BASE["client_id"])


def test_every_key_reaches_the_gateway():
    said = spec(
        name="staff",
        client_secret="x",
        client_auth="post",
        scopes="openid",
        parameters={"prompt": "login"},
        secret=SECRET,
        userinfo=True,
        public_url="https://shop.example/",
        back_channel_path="/.headgate/ended",
        idle="10min",
        max_age="1h",
        refresh=False,
        claims_from={"roles": "realm_access.roles"},
        claims="email",
        pass_token=True,
        endpoints={"authorize": "https://a", "token": "https://b", "keys": "https://c"},
    ).rules()
    assert said.client_secret == "x" and said.client_auth == "post"
    assert said.scopes == ("openid",) and said.secrets == (SECRET,)
    assert said.public_url == "https://shop.example"
    assert (said.idle_s, said.max_age_s) == (600.0, 3600.0)
    assert said.claim_names.roles == "realm_access.roles" and said.claims == ("email",)
    assert said.pass_token and not said.refresh and said.userinfo
    assert said.endpoints is not None and said.endpoints.keys == "https://c"
    assert said.cookie_name == "hg_staff" and said.own_paths[-1] == "/.headgate/ended"
    assert "x" not in repr(said).replace("example", "") or SECRET not in repr(said)


def test_a_name_that_cannot_stand_in_a_cookie_is_made_to():
    assert LoginRules("i", "c", name="staff & co").cookie_name == "hg_staff---co"


@pytest.mark.parametrize(
    ("more", "place", "says"),
    [
        ({"issuer": "http://id.example"}, "issuer", "not https"),
        ({"issuer": "id.example"}, "issuer", "no http or https address"),
        ({"issuer": "https://a:b@id.example"}, "issuer", "user"),
        ({"issuer": "https://id.example?x"}, "issuer", "query"),
        ({"issuer": "https://[x"}, "issuer", "no address"),
        ({"client_id": ""}, "client_id", "empty"),
        ({"client_auth": "basic"}, "client_auth", "client_secret"),
        ({"client_auth": "private_key_jwt"}, "client_auth", "client_key_file"),
        ({"client_auth": "none", "client_secret": "x"}, "client_auth", "neither"),
        ({"client_secret": " "}, "client_secret", "empty"),
        ({"client_secret": "x", "client_key_file": "k.pem"}, "client_key_file", "too"),
        ({"scopes": ["email"]}, "scopes", "openid"),
        ({"openid": False, "back_channel_path": "/x"}, "back_channel_path", "openid"),
        ({"parameters": {"state": "x"}}, "parameters.state", "set by"),
        ({"endpoints": {"authorize": "https://a", "token": "https://b"}}, "endpoints", "keys"),
        (
            {"endpoints": {"authorize": "http://a", "token": "https://b", "keys": "https://c"}},
            "endpoints.authorize",
            "not https",
        ),
        ({"login_path": "https://x"}, "login_path", "no path"),
        ({"login_path": "x"}, "login_path", "no path"),
        ({"login_path": ""}, "login_path", "no path"),
        ({"logout_path": "/.headgate/login"}, "logout_path", "same"),
        ({"after_login": "//evil.example"}, "after_login", "no local path"),
        ({"after_logout": "javascript:x"}, "after_logout", "neither"),
        ({"public_url": "https://shop.example/x"}, "public_url", "more than"),
        ({"public_url": "shop.example"}, "public_url", "address"),
        ({"cookie": "a=b"}, "cookie", "letters"),
        ({"secret": "short"}, "secret.0", "32"),
        ({"secret": [SECRET, SECRET]}, "secret", "twice"),
        ({"idle": "2d", "max_age": "1d"}, "idle", "never matters"),
        ({"leeway": "10min"}, "leeway", "five minutes"),
    ],
    ids=range(29),
)
def test_what_cannot_work_is_said_with_its_place(more, place, says):
    found = list(problems(spec(**more)))
    assert len(found) == 1, found
    loc, message, hint, is_warning = found[0]
    assert ".".join(map(str, loc)) == place and says in f"{message} {hint}"
    assert is_warning is (place in {"idle", "leeway"})
    assert SECRET not in message


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:8080", "http://localhost/x", "http://[::1]:1"]
)
def test_a_provider_on_this_machine_needs_no_https(issuer):
    assert list(problems(spec(issuer=issuer))) == []
    assert spec(issuer=issuer).rules().insecure_http
    assert not spec().rules().insecure_http


def test_two_log_ins_do_not_share_paths_or_cookies():
    apart = {"login_path": "/a", "callback_path": "/b", "logout_path": "/c"}
    assert list(problems_between([spec(), spec(name="staff", **apart)])) == []
    same = list(problems_between([spec(cookie="x"), spec(name="staff", cookie="x")]))
    assert [loc for loc, *_ in same] == [
        (1, "login_path"),
        (1, "callback_path"),
        (1, "logout_path"),
        (1, "cookie"),
    ]


def test_the_examples_of_the_page_have_nothing_wrong(repository):
    text = (repository / "docs" / "howto" / "login.md").read_text()
    pieces = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [yaml.safe_load(re.sub(r"\$\{[^}]*\}", "x" * 40, each)) for each in pieces]
    entries = [each["auth"]["login"] for each in found if "auth" in each]
    assert len(entries) == 2 and found[1] == {"public_url": "https://shop.example"}
    for entry in [*entries, {**entries[0], **found[1]}]:
        said = LoginSpec.model_validate(entry)
        assert list(problems(said)) == []
        assert said.rules().client_secret == "x" * 40


# -- building ------------------------------------------------------------------------------------


def test_building_starts_nothing_and_leaves_nothing(tmp_path):
    method = build(spec(), tmp_path)
    assert isinstance(method, LoginMethod) and method.name == "login"
    assert list(tmp_path.iterdir()) == []
    assert method.snapshot(0.0)["issuer"] == BASE["issuer"]
    method.close()  # never started


def test_a_method_that_was_never_started_sends_people_to_log_in():
    fields = [(b"accept", b"text/html")]
    answer = build(spec()).ask(Seen(target="/a?b=c&d", headers=fields))
    assert isinstance(answer, Instead) and answer.status == 302
    assert dict(answer.headers)["location"] == "/.headgate/login?to=/a%3Fb%3Dc%26d"
    assert dict(answer.headers)["cache-control"] == "no-store"


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no unencrypted private key"),
        (b"-----BEGIN PRIVATE KEY-----\nxxxx\n-----END PRIVATE KEY-----\n", "no unencrypted"),
        (pem(rsa.generate_private_key(65537, 1024)), "2048"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "no RSA"),
    ],
    ids=["empty", "junk", "weak", "curve"],
)
def test_a_key_that_cannot_be_used_is_said_when_it_is_built(tmp_path, content, says):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        build(spec(client_key_file=str(path)))
    with pytest.raises(ValueError, match="cannot be read"):
        build(spec(client_key_file=str(tmp_path / "none.pem")))


def test_authorities_that_are_none_are_said_when_it_is_built(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="ca_file"):
        build(spec(ca_file=str(path)))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "p521", "ed25519"],
)
def test_assertions_verify_by_the_public_key(key):
    from headgate.security.tokens.jwk import read_pem
    from headgate.security.tokens.keys import KeySet
    from headgate.security.tokens.rules import PUBLIC_ALGORITHMS, TokenRules
    from headgate.security.tokens.verify import Token, verify

    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keys: KeySet = read_pem(public)
    text = ClientKey(pem(key), "k1").assertion("shop", "https://id.example/token", 1000.0)
    rules = TokenRules(
        algorithms=frozenset(PUBLIC_ALGORITHMS),
        issuers=frozenset({"shop"}),
        audiences=frozenset({"https://id.example/token"}),
    )
    found = verify(text.encode(), rules, keys, 1010.0)
    assert isinstance(found, Token) and found.claims["sub"] == "shop" and found.claims["jti"]
    assert found.claims["exp"] == 1060


# -- anything at all -----------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"cookie", b"accept", b"origin", b"referer", b"sec-fetch-site"]),
            st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"hg_login=1." + b),
        ),
        max_size=6,
    ),
    st.sampled_from(["/", "/.headgate/login/callback", "/.headgate/logout", "/x"]),
    st.text(max_size=40) | st.text(max_size=20).map(lambda t: f"state=s&code={t}"),
    st.sampled_from(["GET", "POST", "HEAD"]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_no_request_is_too_strange_to_be_answered(headers, path, query, method, wall):
    # The metadata is known, so that nobody is asked over the network.
    login = LoginMethod(spec(secret=SECRET).rules())
    login._provider._metadata = Metadata(Endpoints("https://a", "https://b"))
    login._provider._metadata_at = time.monotonic()
    seen = Seen(method, f"{path}?{query}", headers)
    found = login.verify(seen, wall)
    if found is not None and not isinstance(found, Instead):
        found = asyncio.run(_awaited(found))
    assert found is None or (isinstance(found, Instead) and found.status in {200, 400, 403, 405})
    asked = login.ask(seen)
    assert asked is None or asked.status == 302


async def _awaited(found: Any) -> Any:
    return await found
