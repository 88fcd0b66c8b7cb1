"""The authorization code flow with PKCE, as values.

Theory of operation
-------------------
A log-in that was begun is a `Pending`: its `state` (which the provider sends back), the `nonce`
(which comes back in the ID token), the PKCE verifier (which only the token endpoint sees), and
where the browser wanted to go. It lives in a sealed cookie of the browser that began it and nowhere
else, so a callback that another browser began finds none (log-in CSRF), a code that was stolen on
its way is worth nothing without the verifier (RFC 7636), and the gateway keeps nothing.

Each has a cookie of its own: tabs that are restored all at once begin their log-ins before any of
them has seen the others' cookies, and one cookie for all would be overwritten by the last answer.
Its name ends in a slot, which follows from the state, so that a callback opens one cookie however
many are shown. Of more than MAX_PENDING the oldest are cleared by whichever log-in comes next.

A second cookie, `Tries`, remembers when log-ins succeeded of late. A browser that succeeds again
and again and still comes back without a session is in a loop, and is told so.

Where to go afterwards is text from the address bar, and must stay on this host: see `local_path`.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

MAX_PENDING: Final = 5
SLOTS: Final = 256
MAX_RETURN_BYTES: Final = 1500
LOOP_COUNT: Final = 3
LOOP_WINDOW_S: Final = 60.0
_CLOCK_S: Final = 300.0
"""How far in the future something may lie that was sealed by a machine whose clock is ahead."""

_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_OPAQUE: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_ERROR: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,64}")  # RFC 6749 section 4.1.2.1


@dataclass(frozen=True, slots=True, repr=False)
class Pending:
    state: str
    nonce: str
    verifier: str
    to: str
    started: float

    @property
    def slot(self) -> int:
        return slot_of(self.state)

    def is_alive(self, wall: float, keep_s: float) -> bool:
        return self.started - _CLOCK_S <= wall < self.started + keep_s

    def to_bytes(self) -> bytes:
        return json.dumps(
            [self.state, self.nonce, self.verifier, self.to, round(self.started, 3)]
        ).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Pending | None:
        """What `to_bytes` made; None for anything else, such as what another version wrote."""
        try:
            state, nonce, verifier, to, started = json.loads(text)
            if not all(isinstance(each, str) for each in (state, nonce, verifier, to)):
                return None
            began = float(started)
        except (TypeError, ValueError):
            return None
        return cls(state, nonce, verifier, to, began) if math.isfinite(began) else None


def slot_of(state: str) -> int:
    return hashlib.sha256(state.encode("utf-8", "replace")).digest()[0]


def slots_to_clear(
    shown: Mapping[int, Pending | None], wall: float, keep_s: float, new: int
) -> tuple[int, ...]:
    """Which of the pendings that a browser shows (None: unreadable) are in the way of a new one."""
    dead = [
        slot
        for slot, each in shown.items()
        if slot != new and (each is None or not each.is_alive(wall, keep_s))
    ]
    alive = sorted(
        (each.started, slot)
        for slot, each in shown.items()
        if each is not None and slot != new and slot not in dead
    )
    over = len(alive) + 1 - MAX_PENDING
    return tuple(sorted([*dead, *(slot for _, slot in alive[: max(over, 0)])]))


@dataclass(frozen=True, slots=True)
class Tries:
    """When log-ins of this browser succeeded of late."""

    at: tuple[float, ...] = ()

    def is_loop(self, wall: float) -> bool:
        return len(self._late(wall)) >= LOOP_COUNT

    def succeeded(self, wall: float) -> Tries:
        return Tries((*self._late(wall), round(wall, 3))[-LOOP_COUNT:])

    def _late(self, wall: float) -> tuple[float, ...]:
        return tuple(at for at in self.at if abs(wall - at) <= LOOP_WINDOW_S)

    def to_bytes(self) -> bytes:
        return json.dumps(self.at).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Tries:
        try:
            return cls(tuple(float(at) for at in json.loads(text))[-LOOP_COUNT:])
        except (TypeError, ValueError):
            return cls()


def new_pending(random: bytes, to: str, wall: float) -> Pending:
    """`random` is 96 bytes: 32 each for state, nonce and verifier."""
    if len(random) != 96:
        raise ValueError("a log-in needs 96 random bytes")
    state, nonce, verifier = (b64url(random[i : i + 32]) for i in (0, 32, 64))
    return Pending(state, nonce, verifier, to, wall)


def b64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def challenge_of(verifier: str) -> str:
    """RFC 7636 section 4.2, method S256."""
    return b64url(hashlib.sha256(verifier.encode()).digest())


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    scopes: Sequence[str],
    pending: Pending,
    parameters: Mapping[str, str],
    with_nonce: bool,
) -> str:
    """RFC 6749 section 4.1.1. What the endpoint has of a query of its own is kept (3.1)."""
    query = {
        **parameters,
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": pending.state,
        "code_challenge": challenge_of(pending.verifier),
        "code_challenge_method": "S256",
    }
    if with_nonce:
        query["nonce"] = pending.nonce
    return with_query(endpoint, query)


def with_query(address: str, query: Mapping[str, str]) -> str:
    bare, _, _fragment = address.partition("#")
    joint = "" if bare.endswith(("?", "&")) else "&" if "?" in bare else "?"
    return f"{bare}{joint}{urlencode(query, quote_via=quote)}"


# -- the callback -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Returned:
    """What the provider sent the browser back with."""

    state: str
    code: str = ""
    issuer: str | None = None
    error: str = ""
    description: str = ""


def read_callback(query: str) -> Returned | str:
    """The callback's parameters, or in plain words why they are none."""
    if len(query) > 8192:
        return "The answer of the identity provider is too long."
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        return "The answer of the identity provider cannot be read."
    said: dict[str, str] = {}
    for name, value in pairs:
        if name in said and name in {"state", "code", "iss", "error"}:
            return f"The answer of the identity provider says {name} twice."
        said[name] = value
    state = said.get("state", "")
    if not _OPAQUE.fullmatch(state):
        return "The answer of the identity provider does not belong to a log-in."
    error = said.get("error", "")
    if error:
        error = error if _ERROR.fullmatch(error) else "unreadable"
        return Returned(state, issuer=said.get("iss"), error=error, description=_plain(said, 200))
    code = said.get("code", "")
    if not _OPAQUE.fullmatch(code):
        return "The answer of the identity provider has no code."
    return Returned(state, code, said.get("iss"))


def _plain(said: Mapping[str, str], most: int) -> str:
    text = said.get("error_description", "")
    return "".join(c for c in text[:most] if c.isprintable())


def issuer_fault(said: str | None, issuer: str, is_promised: bool) -> str:
    """RFC 9207: whose answer this is. A provider that promises to say it must say it."""
    if said is None:
        return "The identity provider did not say who it is." if is_promised else ""
    if said != issuer:
        return "The answer came from another identity provider than the one that was asked."
    return ""


# -- addresses ----------------------------------------------------------------------------------


def local_path(text: str, own: Iterable[str]) -> str | None:
    """The path and query to go back to, or None for what could lead anywhere else.

    Browsers take a doubled slash, slash and backslash, and controls in between for other hosts, so
    there is one spelling that is let through: one slash, then anything but a slash, without
    backslashes, controls or characters beyond ASCII. The paths of the log-in itself are refused
    in any spelling: to come back to them would log in, or out, once more.
    """
    if not text.startswith("/") or len(text) > MAX_RETURN_BYTES:
        return None
    if text.startswith("//") or "\\" in text:
        return None
    if not (text.isascii() and text.isprintable()) or " " in text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        return None
    plain = unquote(unquote(parts.path))
    if plain.startswith("//") or "\\" in plain or not plain.isprintable():
        return None
    resting = posixpath.normpath(plain)
    if resting.startswith("//") or any(resting == path for path in own):
        return None
    return parts.path + (f"?{parts.query}" if parts.query else "")


def is_local(text: str) -> bool:
    return local_path(text, ()) is not None


def origin_of(public_url: str, is_tls: bool, authority: str) -> str | None:
    """Scheme and authority that the browser speaks to; None when there is no usable host."""
    if public_url:
        parts = urlsplit(public_url)
        return f"{parts.scheme}://{parts.netloc.lower()}"
    if not _AUTHORITY.fullmatch(authority):
        return None
    return f"{'https' if is_tls else 'http'}://{authority.lower()}"


def is_own_site(origin: str, fields: Mapping[bytes, bytes]) -> bool | None:
    """Whether a page of this origin sent the request; None when the browser does not say.

    `fields` holds the header's fields by name. Sec-Fetch-Site cannot be set by scripts; browsers
    send it to https and to this machine only, hence the older two.
    """
    if b"prefetch" in fields.get(b"sec-purpose", b""):
        return False  # nobody has asked for it yet
    site = fields.get(b"sec-fetch-site")
    if site is not None:
        return site in {b"same-origin", b"none"}
    for name in (b"origin", b"referer"):
        said = fields.get(name)
        if said is not None:
            try:
                parts = urlsplit(said.decode("ascii"))
            except ValueError:
                return False
            return f"{parts.scheme}://{parts.netloc}".lower() == origin
    return None


def is_navigation(method: str, fields: Mapping[bytes, bytes]) -> bool:
    """Whether a person looks at what comes back, so that a log-in page is of use."""
    if method not in {"GET", "HEAD"}:
        return False
    if b"prefetch" in fields.get(b"sec-purpose", b""):
        return False
    if fields.get(b"x-requested-with", b"").lower() == b"xmlhttprequest":
        return False
    if fields.get(b"sec-fetch-mode", b"navigate") != b"navigate":
        return False
    if fields.get(b"sec-fetch-dest", b"document") not in {b"document", b"iframe", b"frame"}:
        return False
    accept = fields.get(b"accept", b"").lower()
    return any(
        each.partition(b";")[0].strip() in {b"text/html", b"application/xhtml+xml"}
        for each in accept.split(b",")
    )
