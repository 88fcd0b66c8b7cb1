"""Signed requests: HTTP Message Signatures (RFC 9421), with a shared secret or with Ed25519.

Theory of operation
-------------------
Both sides write down the same text about a request, the signature base: a line for each part that
is covered and a last line with the terms (when, until when, nonce, which key). The signature is
over that text. `base_of` writes it, `sign` makes the fields for a client, `check` judges a request.

    Signature-Input: sig1=("@method" "@authority" "@path" "@query" "content-digest")
                     ;created=1700000000;nonce="...";keyid="partner-a"
    Signature:       sig1=:...:

What we ask for beyond the RFC, which leaves it to each application (section 3.2.1):

- `covered` parts must be in it: by default what decides which resource does what;
- a request with a body must cover `content-digest` (RFC 9530); that the digest is the body's is
  checked where the body passes (`gateway/filters/content_digest.py`);
- `created` must be there and be recent, `nonce` must be there and be new;
- the algorithm is the key's. `alg` in a request may only agree with it, never choose.

Verified is what we have parsed and written again in canonical form, never the sender's own text.
Where fields stand twice or are not understood, the request is refused.

Left out on purpose: component parameters (`;sf`, `;key`, `;bs`, `;tr`, `;req`) and `@query-param`,
which no client needs who covers `@query`; a signature that uses them is refused with the reason.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256, sha512
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from headgate.security.identity import Identity
from headgate.wire.structured_fields import (
    Bare,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    write_bare,
    write_item,
    write_list,
)
from headgate.wire.target import BadTarget, parse_target

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = [
    "COVERED",
    "Accepted",
    "BadSignature",
    "SignatureRules",
    "SignedHead",
    "SigningKey",
    "base_of",
    "check",
    "content_digest",
    "sign",
]

COVERED: Final = ("@method", "@authority", "@path", "@query")
MIN_SECRET_BYTES: Final = 32
_DERIVED: Final = frozenset(
    {
        "@method",
        "@authority",
        "@scheme",
        "@target-uri",
        "@request-target",
        "@path",
        "@query",
    }
)
_FIELD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_MAX_LABELS: Final = 4
_MAX_NONCE: Final = 256
_HASHES: Final = {"sha-256": sha256, "sha-512": sha512}
_DUMMY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class SignatureRules:
    name: str = "signature"
    covered: tuple[str, ...] = COVERED
    skew_s: float = 30.0
    max_age_s: float = 60.0
    needs_nonce: bool = True
    tag: str = ""
    nonces_max: int = 200_000
    shares_nonces: bool = True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key by its id. While keys change there are several; each is tried."""

    id: str
    identity: Identity
    secrets: tuple[bytes, ...] = ()
    """For hmac-sha256."""
    publics: tuple[Ed25519PublicKey, ...] = ()
    """For ed25519."""

    @property
    def algorithm(self) -> str:
        return "hmac-sha256" if self.secrets else "ed25519"

    def __repr__(self) -> str:
        return f"SigningKey({self.id}, {self.algorithm})"


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What a signature may be over. Header names are in lower case."""

    method: str
    scheme: str
    authority: str
    path: str
    query: str | None
    """None when there is no question mark."""
    headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class BadSignature:
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    key: SigningKey
    nonce: str
    expires: float
    """Wall time from which the same request is too old anyway."""


def base_of(head: SignedHead, listed: InnerList) -> bytes:
    """The signature base (section 2.5). ValueError if a part is not there or not supported."""
    lines = []
    seen = set()
    for item in listed.items:
        name = item.value
        if not isinstance(name, str) or isinstance(name, Token):
            raise ValueError("a covered part is not named by a string")
        if item.params:
            raise ValueError("parameters of covered parts are not supported")
        if name in seen:
            raise ValueError("a part is covered twice")
        seen.add(name)
        lines.append(f"{write_item(item)}: {_part(head, name)}\n")
    lines.append(f'"@signature-params": {write_list(listed)}')
    return "".join(lines).encode("latin-1")


def check(
    head: SignedHead,
    keys: Mapping[str, SigningKey],
    rules: SignatureRules,
    wall: float,
) -> Accepted | BadSignature | None:
    """Judge the signature of a request. None: there is none.

    Whether the nonce is new is for the caller, who keeps them.
    """
    said, made = _joined(head.headers, b"signature-input"), _joined(head.headers, b"signature")
    if said is None and made is None:
        return None
    if said is None or made is None:
        return BadSignature("malformed", "Signature and Signature-Input belong together.")
    try:
        inputs, signatures = parse_dictionary(said), parse_dictionary(made)
    except ValueError:
        return BadSignature("malformed", "Signature or Signature-Input is no structured field.")
    if len(inputs) > _MAX_LABELS:
        return BadSignature("malformed", f"More than {_MAX_LABELS} signatures.")
    worst: BadSignature | None = None
    for label, listed in inputs.items():
        if not isinstance(listed, InnerList):
            return BadSignature("malformed", "Signature-Input has a member that is no list.")
        if rules.tag and listed.params.get("tag") != rules.tag:
            continue
        found = _check_one(head, listed, signatures.get(label), keys, rules, wall)
        if isinstance(found, Accepted):
            return found
        if worst is None or worst.error == "unknown_key":
            worst = found
    return worst or BadSignature("malformed", "No signature here is meant for this gateway.")


def sign(
    method: str,
    url: str,
    *,
    key_id: str,
    key: bytes | Ed25519PrivateKey,
    created: int,
    nonce: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    covered: Sequence[str] = COVERED,
    expires: int | None = None,
    tag: str = "",
    label: str = "sig1",
) -> dict[str, str]:
    """Return the header fields that sign a request; send them with it.

    `created` is the time now, as in `int(time.time())`, and `nonce` is to be new for every request,
    as in `secrets.token_urlsafe(16)`. A body brings `content-digest` along. The URL must be
    sent as it is given here; what is signed is its normal form.
    """
    parts = urlsplit(url)
    raw = parts.path or "/"
    if parts.query or "?" in url.partition("#")[0]:
        raw += f"?{parts.query}"
    target = parse_target(method, raw.encode("ascii"))
    if isinstance(target, BadTarget):
        raise ValueError(f"the URL cannot be signed: {target.reason}")
    fields = [(name.lower(), value.strip(" \t")) for name, value in headers]
    made: dict[str, str] = {}
    names = list(covered)
    if body and not any(name == "content-digest" for name, _ in fields):
        made["content-digest"] = content_digest(body)
        fields.append(("content-digest", made["content-digest"]))
    if body and "content-digest" not in names:
        names.append("content-digest")
    params: dict[str, Bare] = {"created": created}
    if expires is not None:
        params["expires"] = expires
    params["nonce"] = nonce
    params["keyid"] = key_id
    if tag:
        params["tag"] = tag
    listed = InnerList(tuple(Item(name) for name in names), params)
    head = SignedHead(
        method.upper(),
        parts.scheme.lower(),
        parts.netloc.rpartition("@")[2],
        target.path,
        target.query if target.has_query else None,
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields],
    )
    base = base_of(head, listed)
    proof = hmac.digest(key, base, "sha256") if isinstance(key, bytes) else key.sign(base)
    made["signature-input"] = f"{label}={write_list(listed)}"
    made["signature"] = f"{label}={write_bare(proof)}"
    return made


def content_digest(body: bytes, algorithm: str = "sha-256") -> str:
    """The value of Content-Digest for a body (RFC 9530)."""
    return f"{algorithm}={write_bare(_HASHES[algorithm](body).digest())}"


def read_content_digest(value: str) -> list[tuple[Callable[[bytes], bytes], bytes]]:
    """The digests of a Content-Digest that we can check: hash and what it must be. ValueError if
    the field is none, or a digest has not its length.
    """
    found = []
    for name, member in parse_dictionary(value).items():
        made = _HASHES.get(name)
        if made is None:
            continue
        if not isinstance(member, Item) or not isinstance(member.value, bytes):
            raise ValueError("holds a digest that is no byte sequence")
        if len(member.value) != made().digest_size:
            raise ValueError(f"holds a {name} of another length")
        found.append((_hasher(name), member.value))
    return found


def _hasher(name: str) -> Callable[[bytes], bytes]:
    made = _HASHES[name]
    return lambda body: made(body).digest()


def read_secret(text: str) -> bytes:
    """A shared secret as it stands in a file: text, or `base64:` and its bytes in base64."""
    if text.startswith("base64:"):
        try:
            secret = base64.b64decode(text[7:].strip(), validate=True)
        except ValueError:
            raise ValueError("is not base64 after base64:") from None
    else:
        secret = text.encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"is shorter than {MIN_SECRET_BYTES} bytes; make one with: openssl rand -base64 32, "
            "and put base64: before it"
        )
    return secret


def read_public(text: str) -> Ed25519PublicKey:
    """An Ed25519 public key: PEM, or its 32 bytes in base64."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise ValueError("is a private key: keep it with the client, and put the public one here")
    try:
        if "-----BEGIN" in text:
            key = load_pem_public_key(text.encode())
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise ValueError("is a public key of another kind than Ed25519")
            return key
        raw = base64.b64decode(text.removeprefix("base64:").strip(), validate=True)
    except (ValueError, UnsupportedAlgorithm) as error:
        if "another kind" in str(error):
            raise
        raise ValueError("is no Ed25519 public key (PEM, or 32 bytes in base64)") from None
    if len(raw) != 32:
        raise ValueError("is no Ed25519 public key (PEM, or 32 bytes in base64)")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def _check_one(
    head: SignedHead,
    listed: InnerList,
    proof: object,
    keys: Mapping[str, SigningKey],
    rules: SignatureRules,
    wall: float,
) -> Accepted | BadSignature:
    if not isinstance(proof, Item) or not isinstance(proof.value, bytes):
        return BadSignature("malformed", "Signature has no bytes under the label that is said.")
    params = listed.params
    key_id, alg, nonce = params.get("keyid"), params.get("alg"), params.get("nonce", "")
    # A token is another thing than a string (RFC 9421 section 2.3), though Python takes it for one.
    if not isinstance(key_id, str) or isinstance(key_id, Token):
        return BadSignature("malformed", "The signature names no key (keyid).")
    if not isinstance(nonce, str) or isinstance(nonce, Token) or len(nonce) > _MAX_NONCE:
        return BadSignature("malformed", "The nonce is no string, or too long.")
    try:
        base = base_of(head, listed)
    except ValueError as error:
        return BadSignature("malformed", f"The signature cannot be checked: {error}.")
    key = keys.get(key_id)
    if key is None:
        _is_mac(_DUMMY, base, proof.value)  # the same work as for a shared secret
        return BadSignature("unknown_key", "The signature does not hold.")
    if alg is not None and alg != key.algorithm:
        return BadSignature("bad_algorithm", "The signature does not hold.")
    if not _holds(key, base, proof.value):
        return BadSignature("bad_signature", "The signature does not hold.")
    # From here on somebody is known, and may be told what is wrong.
    covered = {item.value for item in listed.items}
    for part in rules.covered:
        if part not in covered:
            return BadSignature("not_covered", f"The signature does not cover {part}.")
    if "content-digest" not in covered and may_have_body(head):
        return BadSignature(
            "not_covered",
            "The request has a body, and the signature does not cover content-digest.",
        )
    if rules.needs_nonce and not nonce:
        return BadSignature("no_nonce", "The signature has no nonce.")
    return _in_time(key, nonce, params, rules, wall)


def _in_time(
    key: SigningKey, nonce: str, params: Mapping[str, Bare], rules: SignatureRules, wall: float
) -> Accepted | BadSignature:
    created, expires = params.get("created"), params.get("expires")
    if not isinstance(created, int) or isinstance(created, bool):
        return BadSignature("malformed", "The signature does not say when it was created.")
    if expires is not None and (not isinstance(expires, int) or isinstance(expires, bool)):
        return BadSignature("malformed", "The time at which the signature expires is no number.")
    if created > wall + rules.skew_s:
        return BadSignature("early", "The signature is from the future; see the clock.")
    ends = created + rules.max_age_s
    if expires is not None:
        ends = min(ends, expires)
    ends += rules.skew_s
    if wall >= ends:
        return BadSignature("expired", "The signature is too old; see the clock.")
    return Accepted(key, nonce, ends)


def may_have_body(head: SignedHead) -> bool:
    """Whether a body may follow. A head of HTTP/2 need not announce its length; then the method
    tells, and the filter that checks digests refuses a body that has none.
    """
    length: bytes | None = None
    for name, value in head.headers:
        if name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            return True
    if length is not None:
        return length.strip() != b"0"
    return head.method in {"POST", "PUT", "PATCH"} and _has_content_type(head)


def _has_content_type(head: SignedHead) -> bool:
    return any(name == b"content-type" for name, _ in head.headers)


def _holds(key: SigningKey, base: bytes, proof: bytes) -> bool:
    if key.secrets:
        # All of them, so that time does not tell which one held.
        held = [_is_mac(secret, base, proof) for secret in key.secrets]
        return any(held)
    from cryptography.exceptions import InvalidSignature

    for public in key.publics:
        try:
            public.verify(proof, base)
        except InvalidSignature:
            continue
        return True
    return False


def _is_mac(secret: bytes, base: bytes, proof: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret, base, "sha256"), proof)


def _joined(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    """All fields of a name as one (section 2.1)."""
    found = [value.strip(b" \t").decode("latin-1") for key, value in fields if key == name]
    return ", ".join(found) if found else None


def _part(head: SignedHead, name: str) -> str:
    if name not in _DERIVED:
        if not _FIELD.fullmatch(name):
            raise ValueError(
                "a covered part is neither a field in lower case nor one that is known"
            )
        value = _joined(head.headers, name.encode())
        if value is None:
            raise ValueError(f"the field {name} is covered and not there")
        return value
    query = "" if head.query is None else f"?{head.query}"
    if name == "@method":
        return head.method
    if name == "@authority":
        return _authority(head)
    if name == "@scheme":
        return head.scheme
    if name == "@path":
        return head.path
    if name == "@query":
        return query or "?"
    if name == "@request-target":
        return head.path + query
    return f"{head.scheme}://{_authority(head)}{head.path}{query}"


def _authority(head: SignedHead) -> str:
    """In lower case and without the scheme's own port (section 2.2.3)."""
    port = ":443" if head.scheme == "https" else ":80"
    return head.authority.lower().removesuffix(port)
