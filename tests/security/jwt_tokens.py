"""Keys, tokens and requests for the tests of JWT; and an issuer that answers over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.keys import KeySet
from headgate.security.tokens.rules import (
    HMAC_ALGORITHMS,
    PUBLIC_ALGORITHMS,
    JwtRules,
    TokenRules,
)

T = TypeVar("T")

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
AUDIENCE = "shop"
SECRET = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
ALL = frozenset(HMAC_ALGORITHMS + PUBLIC_ALGORITHMS)
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def b64_int(number: int, width: int | None = None) -> str:
    return b64(number.to_bytes(width or (number.bit_length() + 7) // 8, "big"))


@functools.cache
def private_key(algorithm: str, index: int = 0) -> Any:
    """A key of the algorithm's kind; another one for each index."""
    if algorithm == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if algorithm[:2] in ("RS", "PS"):
        return private_key("RSA", index)
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm][1])
    if algorithm[:2] == "HS":
        return SECRET[: int(algorithm[2:]) // 8] if not index else bytes([index]) * 64
    if algorithm == "Ed25519":
        return private_key("EdDSA", index)
    return ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, kid: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """The public half; of HMAC the secret."""
    key = private_key(algorithm, index)
    if isinstance(key, bytes):
        made = {"kty": "oct", "k": b64(key)}
    elif isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        made = {"kty": "RSA", "n": b64_int(numbers.n), "e": b64_int(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        width = (key.key_size + 7) // 8
        made = {
            "kty": "EC",
            "crv": CURVES[algorithm][0],
            "x": b64_int(point.x, width),
            "y": b64_int(point.y, width),
        }
    else:
        made = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    if kid is not None:
        made["kid"] = kid
    return {**made, **more}


def public_pem(algorithm: str, index: int = 0) -> bytes:
    key = private_key(algorithm, index).public_key()
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(algorithm: str, index: int = 0) -> bytes:
    pem: bytes = private_key(algorithm, index).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return pem


def signature(algorithm: str, signed: bytes, key: Any) -> bytes:
    if algorithm[:2] == "HS":
        return hmac.digest(key, signed, f"sha{algorithm[2:]}")
    if algorithm[:2] == "RS":
        return key.sign(signed, padding.PKCS1v15(), HASHES[algorithm[2:]])
    if algorithm[:2] == "PS":
        digest = HASHES[algorithm[2:]]
        return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    if algorithm[:2] == "ES":
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(HASHES[algorithm[2:]])))
        width = (key.key_size + 7) // 8
        return r.to_bytes(width, "big") + s.to_bytes(width, "big")
    return key.sign(signed)


def claims(**more: Any) -> dict[str, Any]:
    """Good ones; with None a claim is left out."""
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": int(NOW) - 10,
        "exp": int(NOW) + 600,
        **more,
    }
    return {name: value for name, value in made.items() if value is not None}


def written(part: object) -> bytes:
    if isinstance(part, bytes):
        return part
    return json.dumps(part, separators=(",", ":")).encode()


def token(
    payload: object = None,
    *,
    alg: str = "ES256",
    kid: str | None = None,
    index: int = 0,
    header: object = None,
    key: Any = None,
    **head: Any,
) -> bytes:
    """Signed. `header` and `payload` may be raw bytes."""
    if header is None:
        header = {"alg": alg, **({} if kid is None else {"kid": kid}), **head}
    payload = claims() if payload is None else payload
    signed = f"{b64(written(header))}.{b64(written(payload))}".encode()
    made = signature(alg, signed, private_key(alg, index) if key is None else key)
    return signed + b"." + b64(made).encode()


def key_set(*keys: dict[str, Any], is_public: bool = False, is_strict: bool = True) -> KeySet:
    return read_jwks(
        json.dumps({"keys": list(keys)}).encode(), is_public=is_public, is_strict=is_strict
    )


def token_rules(**more: Any) -> TokenRules:
    made = {
        "algorithms": ALL,
        "issuers": frozenset({ISSUER}),
        "audiences": frozenset({AUDIENCE}),
        "leeway_s": 0.0,
        **more,
    }
    return TokenRules(**made)


def jwt_rules(token: TokenRules | None = None, **more: Any) -> JwtRules:
    return JwtRules(token=token or token_rules(), **more)


@dataclass
class Request:
    """What a request shows."""

    headers: Sequence[tuple[bytes, bytes]] = ()
    query: str = ""
    method: str = "GET"
    path: str = "/"
    target: str = "/"
    host: str = "gateway.example"
    authority: str = "gateway.example"
    client_ip: str = "192.0.2.1"
    is_tls: bool = True
    certificate: bytes | None = None


def bearer(text: bytes) -> Request:
    return Request([(b"host", b"gateway.example"), (b"authorization", b"Bearer " + text)])


@dataclass
class TestParts:
    """Lent by a process of this test alone."""

    __test__ = False

    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    kept: dict[tuple[object, ...], Any] = field(default_factory=dict)
    heard: dict[str, list[Callable[[Mapping[str, Any]], None]]] = field(default_factory=dict)

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        for hear in self.heard.get(topic, []):
            hear(json.loads(json.dumps(message)))

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self.heard.setdefault(topic, []).append(hear)

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None: ...

    def count(self, policy: str, outcome: str) -> None: ...

    def note(self, kind: str, fields: Mapping[str, Any]) -> None: ...

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def process() -> AsyncIterator[TestParts]:
    parts = TestParts()
    try:
        yield parts
    finally:
        await parts.end()


Answer = Callable[["Issuer", str], Awaitable[bytes]]


def http_answer(body: object, status: str = "200 OK", *fields: str) -> bytes:
    octets = written(body)
    head = "".join(f"{each}\r\n" for each in fields)
    return (
        f"HTTP/1.1 {status}\r\ncontent-length: {len(octets)}\r\nconnection: close\r\n{head}\r\n"
    ).encode() + octets


class Issuer:
    """Answers what `answer` says, as raw bytes; counts what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.url = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            writer.write(await self.answer(self, path))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def issuer(answer: Answer, tls: Any = None) -> AsyncIterator[Issuer]:
    made = Issuer(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield made
    finally:
        server.close()
        await made.end()
        await server.wait_closed()


def jwks(*keys: dict[str, Any]) -> bytes:
    return http_answer({"keys": list(keys)})
