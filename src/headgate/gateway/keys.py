"""`KeySpec` -> a function of the exchange: what limits count by and balancers hash.

Theory of operation. What follows from the head alone is worked out once per distinct head and
kept with it (`Prepared.memo`); so is what follows from who asks (`Passport.memo`). A request that
lacks what a key asks for (no such header, nobody logged in) is known by its address instead, so
that leaving a header out is no way around a limit; the two kinds of value cannot meet, because each
carries its kind. Parts of a template are joined by their lengths, so that no value can run into the
next. Long values are replaced by a digest: a key is state, and a client must not choose how much of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from headgate.policy.limiter.keys import client_ip_key, measured_key, short_key
from headgate.wire.message import find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.config.keys import KeySpec
    from headgate.gateway.attempts import AttemptedExchange

_IPV6_PREFIX: Final = 64


def compile_key(
    spec: KeySpec, ipv6_prefix: int = _IPV6_PREFIX
) -> Callable[[AttemptedExchange], str]:
    """The function for one key."""
    if spec.kind == "ip":

        def by_ip(ex: AttemptedExchange) -> str:
            return client_ip_key(ex.client_ip, ipv6_prefix)

        return by_ip
    if spec.kind == "template":
        literal = [part if isinstance(part, str) else None for part in spec.parts]
        parts = [
            compile_key(part, ipv6_prefix) if not isinstance(part, str) else None
            for part in spec.parts
        ]

        def by_template(ex: AttemptedExchange) -> str:
            values = [
                text if text is not None else part(ex) if part is not None else ""
                for text, part in zip(literal, parts, strict=True)
            ]
            return measured_key(values)

        return by_template
    find_value = _FINDERS[spec.kind](spec.name)
    mark = f"{spec.kind}:{spec.name}=" if spec.name else f"{spec.kind}="

    def by_value(ex: AttemptedExchange) -> str:
        value = find_value(ex)
        if value is None:
            return client_ip_key(ex.client_ip, ipv6_prefix)
        return mark + short_key(value)

    def by_head(ex: AttemptedExchange) -> str:
        memo = ex.prep.memo
        known = memo.get(mark)
        if known is None:
            value = find_value(ex)
            if value is None:
                return client_ip_key(ex.client_ip, ipv6_prefix)
            known = memo[mark] = mark + short_key(value)
        return known

    def by_identity(ex: AttemptedExchange) -> str:
        passport = ex.passport
        if passport is None or passport.identity is not ex.identity:
            return by_value(ex)  # a filter has said who it is
        known = passport.memo.get(mark)
        if known is None:
            value = find_value(ex)
            if value is None:
                return client_ip_key(ex.client_ip, ipv6_prefix)
            known = passport.memo[mark] = mark + short_key(value)
        return known

    if spec.kind in _OF_THE_HEAD:
        return by_head
    return by_identity if spec.kind in _OF_THE_IDENTITY else by_value


def compile_keys(
    specs: Sequence[KeySpec], ipv6_prefix: int = _IPV6_PREFIX
) -> Callable[[AttemptedExchange], str]:
    """The function for several keys together; none is one count for everybody."""
    made = [compile_key(spec, ipv6_prefix) for spec in specs]
    if not made:
        return lambda _ex: ""
    if len(made) == 1:
        return made[0]
    return lambda ex: measured_key([key(ex) for key in made])


# -- one finder a kind ---------------------------------------------------------------------------


def _user(_name: str) -> Callable[[AttemptedExchange], str | None]:
    return lambda ex: ex.identity.subject if ex.identity is not None else None


def _api_key(_name: str) -> Callable[[AttemptedExchange], str | None]:
    return lambda ex: (ex.identity.api_key or None) if ex.identity is not None else None


def _consumer(_name: str) -> Callable[[AttemptedExchange], str | None]:
    return lambda ex: (
        (ex.identity.consumer or ex.identity.subject) if ex.identity is not None else None
    )


def _claim(name: str) -> Callable[[AttemptedExchange], str | None]:
    def find_claim(ex: AttemptedExchange) -> str | None:
        value = ex.identity.claims.get(name) if ex.identity is not None else None
        return None if value is None else str(value)

    return find_claim


def _route(_name: str) -> Callable[[AttemptedExchange], str | None]:
    return lambda ex: ex.route.name if ex.route is not None else ""


def _header(name: str) -> Callable[[AttemptedExchange], str | None]:
    key = name.encode("latin-1")

    def find_header(ex: AttemptedExchange) -> str | None:
        value = find(ex.prep.head.headers, key)
        return None if value is None else value.decode("latin-1")

    return find_header


def cookie_of(ex: AttemptedExchange, name: bytes) -> str | None:
    """The first cookie of this name."""
    for key, value in ex.prep.head.headers:
        if key == b"cookie":
            for pair in value.split(b";"):
                found, _, said = pair.strip().partition(b"=")
                if found == name:
                    return said.decode("latin-1")
    return None


def _cookie(name: str) -> Callable[[AttemptedExchange], str | None]:
    key = name.encode("latin-1")
    return lambda ex: cookie_of(ex, key)


def _query(name: str) -> Callable[[AttemptedExchange], str | None]:
    def find_query(ex: AttemptedExchange) -> str | None:
        for key, value in parse_qsl(ex.prep.head.query, keep_blank_values=True):
            if key == name:
                return value
        return None

    return find_query


def _param(name: str) -> Callable[[AttemptedExchange], str | None]:
    return lambda ex: ex.prep.params.get(name)


_OF_THE_HEAD: Final = frozenset({"header", "cookie", "query", "param"})
_OF_THE_IDENTITY: Final = frozenset({"user", "api_key", "consumer", "claim"})
_FINDERS: Final = {
    "user": _user,
    "api_key": _api_key,
    "consumer": _consumer,
    "claim": _claim,
    "route": _route,
    "header": _header,
    "cookie": _cookie,
    "query": _query,
    "param": _param,
}
