"""Bytes as a client sends them in, the key out: real parsers, and as much of a site as a key sees."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

from headgate.cache.http.rules import KeyRules
from headgate.gateway.caching.key import compile_cache_key, url_of
from headgate.gateway.doors import Passport
from headgate.gateway.heads_h2 import head_of
from headgate.gateway.policed import PolicedExchange
from headgate.gateway.prepared import Prepared
from headgate.gateway.side import forward_as
from headgate.gateway.site import Site
from headgate.security.identity import Identity
from headgate.security.method import Strips
from headgate.wire.forwarded import FORWARDING_NAMES, REPLACED_NAMES, TrustedNetworks
from headgate.wire.h2 import Malformed, judge_request
from headgate.wire.http1.head import HeadLimits, parse_request_head
from headgate.wire.message import Forward, Refusal, RequestHead

LIMITS = HeadLimits()
SHOP = SimpleNamespace(name="shop", host="preserve")
NEXT = SimpleNamespace(name="shop-next", host="preserve")


def route(name: str = "/ -> shop", *removed: bytes) -> Any:
    """`removed`: fields that header edits of the route take out."""

    def edited(plain: Forward) -> Forward:
        return forward_as(plain, tuple(f for f in plain.headers if f[0] not in removed), 0)

    plan = SimpleNamespace(change_path=None, host=None, upgrades=frozenset({"websocket"}))
    return SimpleNamespace(name=name, plan=plan, edited=edited)


ROUTE = route()
DEFAULT = KeyRules()


class Refused(Exception):
    """The gateway answers by itself."""


def site(*trusted: str, x_forwarded: bool = True, forwarded: bool = False) -> Any:
    made: Any = SimpleNamespace(
        _dropped=FORWARDING_NAMES,
        _dropped_trusted=REPLACED_NAMES,
        unrouted=None,
        head_limits=LIMITS,
        trusted=TrustedNetworks([ip_network(each) for each in trusted]),
        tracing=None,
        options=SimpleNamespace(x_forwarded=x_forwarded, forwarded=forwarded, via=None),
    )
    made.kept = partial(Site.kept, made)
    made.forward = partial(Site.forward, made)
    return made


def read(raw: bytes, scheme: str = "http") -> RequestHead:
    """A head as it comes over HTTP/1.1, without its last empty line."""
    head = parse_request_head(raw + b"\r\n\r\n", LIMITS, scheme)
    if isinstance(head, Refusal):
        raise Refused(head.reason)
    return head


def get(target: str = "/", *lines: str, method: str = "GET", host: str = "shop.example") -> bytes:
    rows = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    return "\r\n".join(rows).encode("latin-1")


def read_h2(*fields: tuple[str, str], is_tls: bool = True, end: bool = True) -> RequestHead:
    """A head as it comes over HTTP/2."""
    said = judge_request(tuple((n.encode("latin-1"), v.encode("latin-1")) for n, v in fields))
    if isinstance(said, Malformed):
        raise Refused(said)
    head = head_of(said, site(), is_tls=is_tls, end=end)
    if isinstance(head, Refusal):
        raise Refused(head.reason)
    return head


def exchange(
    head: RequestHead,
    *,
    identity: Identity | None = None,
    service: Any = SHOP,
    route: Any = ROUTE,
    proxy: Any = None,
    hides: tuple[str, ...] = (),
) -> Any:
    """`proxy`: a site that trusts 10.0.0.1, from which the request then comes. `hides`: parameters
    in which a credential was found.
    """
    prep = Prepared(proxy or site(), head)
    prep.route, prep.service = route, SHOP  # type: ignore[assignment]
    if proxy is not None:
        prep.trusted_forwarding = True
    passport = None
    if identity is not None or hides:
        strips = Strips(query=frozenset(hides)) if hides else None
        passport = Passport(prep, identity, 0.0, 0, strips, Strips(), None)  # type: ignore[arg-type]
    ex = SimpleNamespace(
        prep=prep,
        service=service,
        route=route,
        identity=identity,
        passport=passport,
        site=proxy or site(),
        down=SimpleNamespace(peer_ip="10.0.0.1"),
    )
    if proxy is not None:
        prep.scheme = prep.client_of(ex).scheme  # type: ignore[arg-type]
    ex.query = PolicedExchange.query.fget(ex)  # type: ignore[attr-defined]
    return ex


def key_of(raw: bytes | RequestHead, rules: KeyRules = DEFAULT, **more: Any) -> str | None:
    """The key; "refused" where the gateway answers by itself."""
    try:
        head = read(raw, more.pop("scheme", "http")) if isinstance(raw, bytes) else raw
    except Refused:
        return "refused"
    return compile_cache_key(rules)(exchange(head, **more))


def url(raw: bytes, **more: Any) -> str:
    return url_of(exchange(read(raw, more.pop("scheme", "http")), **more))


__all__ = [
    "NEXT",
    "SHOP",
    "Refused",
    "exchange",
    "get",
    "key_of",
    "read",
    "read_h2",
    "route",
    "site",
    "url",
]
