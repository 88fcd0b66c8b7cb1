"""What a session holds, how long it lasts, and how it is cut into cookies.

Theory of operation
-------------------
A session lives in the browser, sealed; the gateway keeps none, so that any worker on any machine
can serve it and a restart ends nobody's. Three ends bound it:

    idle      nothing was asked for `idle_s`; the cookie is sealed anew when a tenth of it is over
    age       `max_age_s` after the log-in, whatever happens
    access    the end of the access token, where there is a refresh token; it is renewed before

A cookie is `name=COUNT.TEXT`; what is longer than CHUNK_BYTES goes on in `name.1`, `name.2`, ...
The count says how many belong together, so that leftovers of a longer session are never read.

A clock that is set back makes sessions of the future: up to CLOCK_S of it they are believed (two
machines rarely agree), beyond it they are over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.security.login.flow import SLOTS
from headgate.security.method import Header

CHUNK_BYTES: Final = 3800
MAX_CHUNKS: Final = 4
CLOCK_S: Final = 300.0
_SHORTEST_TOUCH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    """Our own; logging out ends it everywhere, also in cookies that somebody copied."""
    subject: str
    started: float
    seen: float
    """When it was sealed."""
    sub: str = ""
    """What the provider calls the user, where that is not the subject."""
    issued: float = 0.0
    """`iat` of the ID token of the log-in: the provider's clock, to compare logouts with."""
    sid: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tier: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    access_until: float = 0.0
    """When what is known of the user must be renewed; 0.0 where it is not."""
    access_from: float = 0.0
    """When it was renewed last."""
    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    nonce: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)

    def to_bytes(self) -> bytes:
        data = {
            "i": self.id,
            "u": self.subject,
            "b": round(self.started, 3),
            "s": round(self.seen, 3),
            "t": self.issued,
            "p": self.sub,
            "d": self.sid,
            "r": self.roles,
            "g": self.groups,
            "o": self.scopes,
            "f": self.tier,
            "c": self.claims,
            "e": self.access_until,
            "x": self.access_from,
            "rt": self.refresh_token,
            "it": self.id_token,
            "n": self.nonce,
            "at": self.access_token,
        }
        told = {key: value for key, value in data.items() if value or key in "iubs"}
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )

    @classmethod
    def from_bytes(cls, text: bytes) -> Session | None:
        """What `to_bytes` made. It was sealed, so anything else is of another version."""
        try:
            data = json.loads(text.decode("utf-8", "surrogatepass"))
            return cls(
                id=_text(data["i"]),
                subject=_text(data["u"]),
                started=_time(data["b"]),
                seen=_time(data["s"]),
                issued=_time(data.get("t", 0.0)),
                sub=_text(data.get("p", "")),
                sid=_text(data.get("d", "")),
                roles=tuple(_text(each) for each in data.get("r", ())),
                groups=tuple(_text(each) for each in data.get("g", ())),
                scopes=tuple(_text(each) for each in data.get("o", ())),
                tier=_text(data.get("f", "")),
                claims=dict(data.get("c", {})),
                access_until=_time(data.get("e", 0.0)),
                access_from=_time(data.get("x", 0.0)),
                refresh_token=_text(data.get("rt", "")),
                id_token=_text(data.get("it", "")),
                nonce=_text(data.get("n", "")),
                access_token=_text(data.get("at", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a time")
    return float(value)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    idle_s: float
    max_age_s: float
    refresh_before_s: float

    def end(self, session: Session) -> float:
        return session.started + self.max_age_s

    def is_over(self, session: Session, wall: float) -> bool:
        return (
            wall >= self.end(session)
            or wall >= session.seen + self.idle_s
            or wall < session.seen - CLOCK_S
        )

    def touch_at(self, session: Session) -> float:
        """From when on the cookie is sealed anew, so that it does not look idle."""
        return session.seen + max(self.idle_s / 10.0, _SHORTEST_TOUCH_S)

    def refresh_at(self, session: Session) -> float:
        """From when on it is renewed; never, where there is nothing to renew it with. Tokens that
        live for less than twice the margin are renewed at their half.
        """
        if not session.access_until or not session.refresh_token:
            return math.inf
        lasts = max(session.access_until - session.access_from, 0.0)
        return session.access_until - min(self.refresh_before_s, lasts / 2.0)

    def settled_until(self, session: Session) -> float:
        """Until when nothing needs to be done about it."""
        return min(
            self.end(session),
            session.seen + self.idle_s,
            self.touch_at(session),
            self.refresh_at(session),
        )


# -- cookies ------------------------------------------------------------------------------------


class CookieNames:
    """What the cookies of one method are called, on https and without.

    `__Host-` makes the browser refuse a cookie of that name that another host, a subdomain or a
    plain connection tries to set (RFC 6265bis section 4.1.3.2); it needs https.
    """

    __slots__ = ("attributes", "pending", "session", "tries")

    def __init__(self, base: str, is_secure: bool) -> None:
        stem = (b"__Host-" if is_secure else b"") + base.encode()
        self.session = tuple(
            stem + (b".%d" % number if number else b"") for number in range(MAX_CHUNKS)
        )
        self.pending = tuple(stem + b".s%02x" % slot for slot in range(SLOTS))
        self.tries = stem + b".tries"
        self.attributes = b"; Path=/; HttpOnly; SameSite=Lax" + (b"; Secure" if is_secure else b"")

    @property
    def all(self) -> frozenset[bytes]:
        return frozenset((*self.session, *self.pending, self.tries))


def cookie_text(headers: Sequence[Header]) -> bytes:
    """The cookies as one text; over HTTP/2 they may come in several fields (RFC 9113 8.2.3)."""
    text = b""
    for name, value in headers:
        if name == b"cookie":
            text = text + b"; " + value if text else value
    return text


def cookie_of(text: bytes, name: bytes) -> bytes | None:
    """The value of the only cookie of this name. None also when there are two: whoever managed to
    plant a second one must not choose which of them counts.
    """
    found: bytes | None = None
    sought = name + b"="
    at = text.find(sought)
    while at >= 0:
        after = at + len(sought)
        if at == 0 or text[at - 1] in b"; \t":
            if found is not None:
                return None
            end = text.find(b";", after)
            if end < 0:
                return text[after:]
            found = text[after:end]
            after = end  # values are long, and another cookie cannot begin in one
        at = text.find(sought, after)
    return found


def joined(text: bytes, names: Sequence[bytes]) -> bytes | None:
    """The sealed session that these cookies carry, put together."""
    first = cookie_of(text, names[0])
    if first is None or len(first) < 3 or first[1] != 0x2E:
        return None
    count = first[0] - 0x30
    if count == 1:
        return first[2:].rstrip(b" \t")
    if not 1 < count <= MAX_CHUNKS:
        return None
    pieces = [first[2:].rstrip(b" \t")]
    for name in names[1:count]:
        piece = cookie_of(text, name)
        if piece is None:
            return None
        pieces.append(piece.rstrip(b" \t"))
    return b"".join(pieces)


def cut(sealed: bytes, names: CookieNames, shown: bytes) -> tuple[bytes, ...] | None:
    """Values of Set-Cookie that carry this session, and clear what is left of a longer one among
    the cookies that were shown. None when it is too large.
    """
    pieces = [sealed[at : at + CHUNK_BYTES] for at in range(0, len(sealed), CHUNK_BYTES)]
    if len(pieces) > MAX_CHUNKS:
        return None
    pieces[0] = b"%d.%b" % (len(pieces), pieces[0])
    made = [
        name + b"=" + piece + names.attributes
        for name, piece in zip(names.session, pieces, strict=False)
    ]
    made.extend(
        cleared(name, names) for name in names.session[len(pieces) :] if _is_shown(shown, name)
    )
    return tuple(made)


def clear_all(names: CookieNames, shown: bytes) -> tuple[bytes, ...]:
    """Set-Cookie values that end the session in this browser."""
    extra = [name for name in names.session[1:] if _is_shown(shown, name)]
    return tuple(cleared(name, names) for name in (names.session[0], *extra))


def cleared(name: bytes, names: CookieNames) -> bytes:
    return name + b"=; Max-Age=0" + names.attributes


def _is_shown(text: bytes, name: bytes) -> bool:
    return name + b"=" in text
