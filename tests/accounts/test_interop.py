"""Others read our tokens by the keys we publish: another library, and the gateway."""

from __future__ import annotations

import asyncio
import json

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from headgate.security.accounts.signing import ALGORITHMS
from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.rules import TokenRules
from headgate.security.tokens.verify import Flaw, Token, verify
from tests.accounts.desk import ISSUER


@pytest.fixture(params=ALGORITHMS)
def issued(request, sqlite_desk):
    """A token with rights, the published keys, and the time."""

    async def main():
        async with sqlite_desk(algorithm=request.param) as desk:
            user_id = await desk.member()
            await desk.accounts.grant_role(user_id, "clerk")
            await desk.accounts.grant_scope(user_id, "orders:read")
            await desk.accounts.rotate_keys()
            tokens = await desk.login()
            return request.param, tokens.access_token, desk.accounts.jwks(), desk.now

    return asyncio.run(main())


@pytest.mark.filterwarnings(
    "ignore:EdDSA is deprecated"
)  # RFC 9864; its new name is not yet read by most
def test_another_library_reads_our_tokens(issued):
    algorithm, token, published, _ = issued
    assert len(published["keys"]) == 2
    got = jwt.decode(token, KeySet.import_key_set(published), algorithms=[algorithm])
    assert got.header["typ"] == "at+jwt"
    assert (got.claims["iss"], got.claims["roles"]) == (ISSUER, ["clerk"])


def test_the_gateway_reads_our_tokens(issued):
    algorithm, token, published, now = issued
    keys = read_jwks(json.dumps(published).encode(), is_public=True, is_strict=True)
    rules = TokenRules(
        algorithms=frozenset({algorithm}),
        issuers=frozenset({ISSUER}),
        audiences=frozenset({ISSUER}),
        types=frozenset({"at+jwt"}),
    )
    got = verify(token.encode(), rules, keys, now)
    assert isinstance(got, Token)
    assert got.claims["scope"] == "orders:read"
    late = verify(token.encode(), rules, keys, now + 700)
    assert isinstance(late, Flaw)
    assert late.error == "expired"
