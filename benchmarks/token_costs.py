"""What a token costs: its first verification by algorithm, beside two libraries, and a known one.

    python -m benchmarks.token_costs

Needs PyJWT and joserfc (in the `dev` extra; the product does not). All three get the same token of
about 600 bytes and the same key, already loaded, and check `iss`, `aud`, `exp` and `nbf`.
"""

from __future__ import annotations

import time
import timeit
import warnings
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from headgate.security.method import Verified
from headgate.security.method_jwt import JwtMethod
from headgate.security.tokens.jwk import read_keys
from headgate.security.tokens.keys import KeySet, secret_keys
from headgate.security.tokens.rules import JwtRules, TokenRules
from headgate.security.tokens.source import FixedKeys

ISSUER = "https://bench.example"
SECRET = "0123456789abcdef" * 4
MAKE: dict[str, Callable[[], Any]] = {
    "HS256": lambda: SECRET,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Request:
    """As a browser's: the token is the ninth of twelve fields."""

    query = ""

    def __init__(self, token: str) -> None:
        others = [(b"x-field-%d" % n, b"value") for n in range(8)]
        rest = [(b"x-other-%d" % n, b"value") for n in range(3)]
        self.headers = [*others, (b"authorization", b"Bearer " + token.encode()), *rest]


def us(work: Callable[[], object], least_s: float = 0.15) -> float:
    """The best of five, in microseconds."""
    timer = timeit.Timer(work, timer=time.thread_time)
    count, took = timer.autorange()
    count = max(1, int(count * least_s / max(took, 1e-9)))
    return min(timer.repeat(5, count)) / count * 1e6


def pem_of(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def main() -> None:
    warnings.simplefilter("ignore")  # joserfc calls EdDSA an old name
    print("microseconds        headgate  PyJWT  joserfc   known to headgate  bad, shown again")
    for algorithm, make in MAKE.items():
        private = make()
        wall = time.time()
        claims = {
            "iss": ISSUER, "aud": "bench", "sub": "user-0001", "azp": "web",
            "iat": int(wall), "exp": int(wall) + 3600, "jti": "0123456789abcdef",
            "scope": "orders:read orders:write", "realm_access": {"roles": ["user", "staff"]},
            "name": "Ada Lovelace", "email": "ada@bench.example",
        }  # fmt: skip
        token = pyjwt.encode(claims, private, algorithm, headers={"kid": "k1"})
        is_secret = isinstance(private, str)
        keys: KeySet
        if is_secret:
            keys = secret_keys([private], "text", frozenset({algorithm}), named=True)
            public: Any = private
            theirs: Any = OctKey.import_key(private)
        else:
            keys = read_keys(pem_of(private))
            public = private.public_key()
            kind = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}[algorithm[:2]]
            theirs = kind.import_key(pem_of(private).decode())
        rules = TokenRules(
            algorithms=frozenset({algorithm}),
            issuers=frozenset({ISSUER}),
            audiences=frozenset({"bench"}),
        )
        method = JwtMethod(JwtRules(token=rules), source=FixedKeys(keys))
        request = Request(token)
        changed = "A" if token[-10] != "A" else "B"
        bad = Request(token[:-10] + changed + token[-9:])
        registry = joserfc_jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": "bench"}
        )
        if not isinstance(method.verify(request, wall), Verified):  # type: ignore[arg-type]
            raise SystemExit(f"{algorithm}: the token is refused")

        def first(method=method, request=request, wall=wall) -> None:
            method._verified.clear()
            method.verify(request, wall)

        def known(method=method, request=request, wall=wall) -> None:
            method.verify(request, wall)

        def shown_again(method=method, request=bad, wall=wall) -> None:
            method.verify(request, wall)

        def by_pyjwt(token=token, public=public, algorithm=algorithm) -> None:
            pyjwt.decode(token, public, algorithms=[algorithm], issuer=ISSUER, audience="bench")

        def by_joserfc(token=token, key=theirs, algorithm=algorithm, registry=registry) -> None:
            registry.validate(joserfc_jwt.decode(token, key, algorithms=[algorithm]).claims)

        print(
            f"{algorithm:<6} {len(token):>4} bytes {us(first):>10.1f} {us(by_pyjwt):>6.1f} "
            f"{us(by_joserfc):>8.1f} {us(known):>19.2f} {us(shown_again):>17.2f}"
        )


if __name__ == "__main__":
    main()
