"""Fuzz log-ins: cookies that nobody sealed open nothing, and no path leads to another host.

The first byte chooses: a Cookie field; a path to go back to; the query of a callback; what was
sealed by somebody else's version; header fields that tell where a request comes from.
"""

from __future__ import annotations

import random
from urllib.parse import urljoin, urlsplit

from headgate.security.login.flow import (
    Pending,
    Returned,
    Tries,
    is_navigation,
    is_own_site,
    local_path,
    read_callback,
)
from headgate.security.login.sealing import Sealer
from headgate.security.login.sessions import (
    CookieNames,
    Lifetimes,
    Session,
    clear_all,
    cookie_of,
    cookie_text,
    cut,
    joined,
)

NOW = 1_700_000_000.0
RNG = random.Random(7)
SEALER = Sealer([bytes(32), bytes(range(32))], b"shop", RNG.randbytes)
NAMES = CookieNames("shop", is_secure=True)
LIFETIMES = Lifetimes(3600.0, 43_200.0, 60.0)
KIND = b"session"
SHORT = Session("s1", "ada", NOW, NOW, roles=("admin",), claims={"plan": "gold"}, access_until=NOW)
LONG = Session("s2", "ada", NOW, NOW, access_token=RNG.randbytes(4000).hex())
OWN = ("/.headgate/login/back", "/logout")


def _cookies(session: Session) -> bytes:
    pieces = cut(SEALER.seal(session.to_bytes(), KIND), NAMES, b"")
    if pieces is None:
        raise ValueError("a seed is too long")
    return b"; ".join(piece.partition(b";")[0] for piece in pieces)


SEALED = {session.to_bytes() for session in (SHORT, LONG)}
SEEDS = (
    b"\0" + _cookies(SHORT) + b"; other=1",
    b"\0a=b; " + _cookies(LONG),
    b"\0__Host-shop=2.abc; __Host-shop.1=def; __Host-shop=1.x",
    *(
        b"\1" + path
        for path in (
            b"/orders?id=1", b"//evil.example", b"/\\evil.example", b"/%2f%2fevil", b"/a/../..//x",
            b"/.headgate/login/./back", b"/%252e/logout", b"/;@evil/", b"/\t/evil.example",
        )
    ),
    b"\2state=abc&code=def&iss=https%3A%2F%2Fid.example",
    b"\2state=abc&error=access_denied&error_description=%0d%0aSet-Cookie",
    b"\3" + SHORT.to_bytes(),
    b"\3" + Pending("s", "n", "v", "/x", NOW).to_bytes(),
    b"\3" + Tries((NOW, NOW)).to_bytes(),
    b"\4sec-fetch-site: same-origin\nsec-fetch-mode: navigate\naccept: text/html,*/*;q=0.1",
    b"\4origin: https://shop.example\nreferer: https://[::1",
)  # fmt: skip


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    match kind[0] % 5 if kind else 0:
        case 0:
            _as_cookies(rest)
        case 1:
            _as_path(rest.decode("latin-1"))
        case 2:
            _as_callback(rest.decode("latin-1"))
        case 3:
            _as_sealed(rest)
        case _:
            _as_fields(rest)


def _as_cookies(field: bytes) -> None:
    text = cookie_text([(b"cookie", field), (b"cookie", b"x=y")])
    sealed = joined(text, NAMES.session)
    if sealed is not None:
        plain = SEALER.open(sealed, KIND)
        assert plain is None or plain in SEALED, field
        assert SEALER.open(sealed, b"pending") is None, field
        SEALER.is_current(sealed)
        assert len(clear_all(NAMES, text)) >= 1
    for name in (*NAMES.session, NAMES.tries):
        value = cookie_of(text, name)
        assert value is None or b";" not in value, field
    for value in clear_all(NAMES, text):
        assert b"Max-Age=0" in value
        assert not set(value) & {0, 10, 13}


def _as_path(text: str) -> None:
    to = local_path(text, OWN)
    if to is None:
        return
    # As a browser does: blanks around go, tabs and line ends go, a backslash is a slash.
    for said in (to, to.strip().replace("\t", "").replace("\n", "").replace("\\", "/")):
        parts = urlsplit(urljoin("https://shop.example/a/b", said))
        assert (parts.scheme, parts.netloc) == ("https", "shop.example"), text
        assert not said.startswith("//"), text
        # `urljoin` drops a semicolon with nothing behind it, browsers and the gateway do not.
        assert parts.path not in OWN or ";" in to, text
    assert to.isascii(), text
    assert to.isprintable(), text
    assert local_path(to, OWN) == to, text


def _as_callback(query: str) -> None:
    found = read_callback(query)
    if isinstance(found, str):
        assert found.isascii()
        return
    assert isinstance(found, Returned)
    assert found.state
    assert bool(found.code) != bool(found.error), query
    for said in (found.state, found.code, found.error, found.description):
        assert said.isprintable(), query


def _as_sealed(text: bytes) -> None:
    """Sealed by us, but not as this version would: believed as what it is, or not at all."""
    session = Session.from_bytes(text)
    if session is not None:
        assert Session.from_bytes(session.to_bytes()) is not None, text
        LIFETIMES.is_over(session, NOW)
        LIFETIMES.settled_until(session)
    pending = Pending.from_bytes(text)
    if pending is not None:
        assert Pending.from_bytes(pending.to_bytes()) is not None, text
        pending.is_alive(NOW, 600.0)
    Tries.from_bytes(text).succeeded(NOW).is_loop(NOW)


def _as_fields(data: bytes) -> None:
    lines = (line.partition(b":") for line in data.replace(b"\r", b"").split(b"\n")[:16])
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    said = is_own_site("https://shop.example", fields)
    assert said in (True, False, None)
    if said and b"sec-fetch-site" not in fields:
        # As URLs are read, tabs in them go; no browser sends any.
        named = fields.get(b"origin", fields.get(b"referer", b"")).replace(b"\t", b"").lower()
        assert named.strip(bytes(range(33))).startswith(b"https://shop.example"), data
    assert is_navigation("POST", fields) is False
    is_navigation("GET", fields)
