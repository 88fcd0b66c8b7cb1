"""Keys as they are written down: JWK and JWKS (RFC 7517), PEM.

Theory of operation. Two faults differ in what they do. What makes the whole set doubtful refuses
the set: a private key in it (whoever could read the set can now sign, and its issuer must hear of
it), one `kid` for two keys, no JSON, no list. What is wrong with one key leaves that key out and
is said in `warnings`: a weak or malformed key, a kind that we do not know, a secret in a public
set. So an issuer that adds a key of a new kind does not lock its users out.

`is_strict` is for files that belong to whoever runs the gateway: there every fault of a key
refuses the set, since somebody is there to mend it. Only unknown kinds and keys for other purposes
are passed over.

Not looked at: `x5c`, `x5u`, `x5t`. A key is what its own members say; nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from headgate.security.tokens.algorithms import (
    CURVES,
    ED25519_ALGORITHMS,
    RSA_ALGORITHMS,
    EcKey,
    Ed25519Key,
    HmacKey,
    RsaKey,
    VerifyKey,
)
from headgate.security.tokens.keys import (
    MAX_KEYS,
    KeySet,
    KeysUnusable,
    PrivateKeyShown,
    hmac_algorithms,
)
from headgate.security.tokens.rules import HMAC_ALGORITHMS
from headgate.security.tokens.strict import Malformed, b64url, read_json

RSA_MIN_BITS: Final = 2048
RSA_MAX_BITS: Final = 8192  # verifying costs the square of it, and nobody needs more
MAX_KID: Final = 256

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_CURVE_NAMES: Final = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}
_EC_CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
}
_ED25519_BYTES: Final = 32
# Points of small order, without their sign: under such a "key" one signature fits many messages.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(each)
    for each in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)


class _LeftOut(Exception):
    """One key that is not used, and why."""

    def __init__(self, reason: str, *, is_fault: bool = True) -> None:
        super().__init__(reason)
        self.is_fault = is_fault


def read_jwks(octets: bytes, *, is_public: bool, is_strict: bool) -> KeySet:
    """A JWKS, or a single JWK. ``is_public``: whoever asks gets it, so secrets in it are none."""
    try:
        document = read_json(octets)
    except Malformed as error:
        raise KeysUnusable(f"it is no key set: {error}") from None
    if not isinstance(document, dict):
        raise KeysUnusable("it is no key set: not a JSON object")
    listed = document.get("keys") if "keys" in document else [document]
    if not isinstance(listed, list):
        raise KeysUnusable('it is no key set: "keys" is not a list')
    if "keys" not in document and "kty" not in document:
        raise KeysUnusable('it is no key set: it has neither "keys" nor "kty"')
    if len(listed) > MAX_KEYS:
        raise KeysUnusable(f"there are more than {MAX_KEYS} keys in it")
    _no_private_keys(listed)
    _no_double_names(listed)
    keys: list[VerifyKey] = []
    warnings: list[str] = []
    for index, each in enumerate(listed):
        try:
            keys.append(_key(each, is_public=is_public))
        except _LeftOut as error:
            said = f"{_name(each, index)}: {error}"
            if is_strict and error.is_fault:
                raise KeysUnusable(said) from None
            warnings.append(said)
    return KeySet(keys, warnings)


def read_pem(octets: bytes) -> KeySet:
    """Public keys and certificates, one after the other. They have no names."""
    keys: list[VerifyKey] = []
    for found in _PEM.finditer(octets):
        label = found[1]
        if label.endswith(b"PRIVATE KEY"):
            raise KeysUnusable(
                "it is a private key, which nobody needs to verify tokens; "
                "make the public half with: openssl pkey -in KEY -pubout"
            )
        try:
            if label == b"CERTIFICATE":
                key: Any = x509.load_pem_x509_certificate(found[0]).public_key()
            else:
                key = load_pem_public_key(found[0])
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            raise KeysUnusable("it has a PEM block that is no public key or certificate") from None
        try:
            keys.append(_of_object(key))
        except _LeftOut as error:
            raise KeysUnusable(str(error)) from None
        if len(keys) > MAX_KEYS:
            raise KeysUnusable(f"there are more than {MAX_KEYS} keys in it")
    return KeySet(keys)


def read_keys(octets: bytes) -> KeySet:
    """A file of the operator's own: PEM, JWK or JWKS."""
    if octets.lstrip()[:1] == b"{":
        return read_jwks(octets, is_public=False, is_strict=True)
    if b"-----BEGIN" in octets:
        return read_pem(octets)
    raise KeysUnusable("it is neither PEM nor a JSON key set")


# -- the set ---------------------------------------------------------------------------------


def _no_private_keys(listed: list[Any]) -> None:
    for index, each in enumerate(listed):
        if isinstance(each, dict) and each.get("kty") != "oct" and not _PRIVATE.isdisjoint(each):
            raise PrivateKeyShown(
                f"{_name(each, index)} is a PRIVATE key: whoever has read this set can sign; "
                "its issuer must publish public members only, and replace the key"
            )


def _no_double_names(listed: list[Any]) -> None:
    """Also not where one of the two is left out: which of them is used must not hang on that."""
    seen: set[str] = set()
    for each in listed:
        kid = each.get("kid") if isinstance(each, dict) else None
        if isinstance(kid, str):
            if kid in seen:
                raise KeysUnusable(
                    "two keys have the same kid, so that nobody knows which one is meant"
                )
            seen.add(kid)


def _name(each: Any, index: int) -> str:
    kid = each.get("kid") if isinstance(each, dict) else None
    if isinstance(kid, str) and kid and len(kid) <= MAX_KID and kid.isprintable():
        return f"key {kid!r}"
    return f"key {index + 1}"


# -- one key ---------------------------------------------------------------------------------


def _key(jwk: Any, *, is_public: bool) -> VerifyKey:
    if not isinstance(jwk, dict):
        raise _LeftOut("not a JSON object")
    kty = jwk.get("kty")
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        raise _LeftOut(f"its kid is not text of at most {MAX_KID} characters")
    _check_purpose(jwk)
    if kty == "oct":
        if is_public:
            raise _LeftOut("it is a shared secret, which is none any more once it is published")
        return _hmac(jwk, kid)
    if kty == "RSA":
        return _rsa(jwk, kid)
    if kty == "EC":
        return _ec(jwk, kid)
    if kty == "OKP":
        return _okp(jwk, kid)
    raise _LeftOut("its kind (kty) is not known here", is_fault=not isinstance(kty, str))


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.3."""
    use = jwk.get("use", "sig")
    if use != "sig":
        raise _LeftOut("it is not for signatures (use)", is_fault=not isinstance(use, str))
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or len(operations) > 16:
        raise _LeftOut("its key_ops is not a list")
    if "verify" not in operations:
        raise _LeftOut("it is not for verifying (key_ops)", is_fault=False)


def _narrowed(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> frozenset[str]:
    """To the key's own `alg`, where it has one."""
    said = jwk.get("alg")
    if said is None:
        return algorithms
    if said in ("EdDSA", "Ed25519"):
        said_all = ED25519_ALGORITHMS  # two names of one thing (RFC 9864)
    else:
        said_all = frozenset({said}) if isinstance(said, str) else frozenset()
    narrowed = algorithms & said_all
    if not narrowed:
        raise _LeftOut("its alg does not fit its kind, its curve or its size")
    return narrowed


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not text or not text.isascii():
        raise _LeftOut(f'"{name}" is missing or no text')
    try:
        return b64url(text.encode())
    except Malformed as error:
        raise _LeftOut(f'"{name}" is {error}') from None


def _hmac(jwk: Mapping[str, Any], kid: str) -> HmacKey:
    secret = _member(jwk, "k")
    algorithms = hmac_algorithms(len(secret), HMAC_ALGORITHMS)
    if not algorithms:
        raise _LeftOut("it is shorter than the shortest digest, 32 bytes")
    return HmacKey(kid, _narrowed(jwk, algorithms), secret)


def _rsa(jwk: Mapping[str, Any], kid: str) -> RsaKey:
    n = int.from_bytes(_member(jwk, "n"), "big")
    e = int.from_bytes(_member(jwk, "e"), "big")
    return _rsa_of(n, e, kid, _narrowed(jwk, RSA_ALGORITHMS))


def _rsa_of(n: int, e: int, kid: str, algorithms: frozenset[str]) -> RsaKey:
    bits = n.bit_length()
    if bits < RSA_MIN_BITS:
        raise _LeftOut(f"RSA with {bits} bits; it needs {RSA_MIN_BITS}")
    if bits > RSA_MAX_BITS:
        raise _LeftOut(f"RSA with {bits} bits; at most {RSA_MAX_BITS} are taken")
    if n % 2 == 0:
        raise _LeftOut("its RSA modulus is even")
    if e < 3 or e % 2 == 0 or e.bit_length() > 64:
        raise _LeftOut("its RSA exponent is even, too small or too large; 65537 is usual")
    try:
        return RsaKey(kid, algorithms, rsa.RSAPublicNumbers(e, n).public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise _LeftOut("its RSA numbers make no key") from None


def _ec(jwk: Mapping[str, Any], kid: str) -> EcKey:
    curve = jwk.get("crv")
    name = _CURVE_NAMES.get(curve) if isinstance(curve, str) else None
    if name is None:
        raise _LeftOut(
            "its curve is not known here; P-256, P-384 and P-521 are",
            is_fault=not isinstance(curve, str),
        )
    algorithm, width, _ = CURVES[name]
    algorithms = _narrowed(jwk, frozenset({algorithm}))
    x, y = _member(jwk, "x"), _member(jwk, "y")
    if len(x) != width or len(y) != width:  # RFC 7518 section 6.2.1.2
        raise _LeftOut(f"x and y of its curve have {width} bytes each")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), _EC_CURVES[name]()
    )
    try:
        return EcKey(kid, algorithms, numbers.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise _LeftOut("its point is not on its curve") from None


def _okp(jwk: Mapping[str, Any], kid: str) -> Ed25519Key:
    curve = jwk.get("crv")
    if curve != "Ed25519":
        raise _LeftOut(
            "its curve is not known here; Ed25519 is", is_fault=not isinstance(curve, str)
        )
    algorithms = _narrowed(jwk, ED25519_ALGORITHMS)
    return _ed25519(_member(jwk, "x"), kid, algorithms)


def _ed25519(x: bytes, kid: str, algorithms: frozenset[str]) -> Ed25519Key:
    if len(x) != _ED25519_BYTES:
        raise _LeftOut(f"x of its curve has {_ED25519_BYTES} bytes")
    if x[:-1] + bytes([x[-1] & 0x7F]) in _SMALL_ORDER:
        raise _LeftOut("its point is of small order, under which anybody can sign")
    try:
        return Ed25519Key(kid, algorithms, Ed25519PublicKey.from_public_bytes(x))
    except (ValueError, UnsupportedAlgorithm):
        raise _LeftOut("its point is not on its curve") from None


def _of_object(key: Any) -> VerifyKey:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return _rsa_of(numbers.n, numbers.e, "", RSA_ALGORITHMS)
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise _LeftOut("its curve is not known here; P-256, P-384 and P-521 are")
        return EcKey("", frozenset({CURVES[key.curve.name][0]}), key)
    if isinstance(key, Ed25519PublicKey):
        return _ed25519(key.public_bytes_raw(), "", ED25519_ALGORITHMS)
    raise _LeftOut("its kind is not known here; RSA, EC and Ed25519 are")
