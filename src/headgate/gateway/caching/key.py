"""`KeyRules` -> a function of the exchange: under which name a response is kept.

Theory of operation
-------------------
Two requests share a response when their keys are equal, so a key must differ wherever a service
might understand two requests differently, unless the operator has said that this difference does
not count. Whoever gets a response of their own under somebody else's key has poisoned the cache, or
reads what was meant for another. It is therefore made of

    scheme://host/path?query route service, what the rules name, what overrules the request line

- *What was matched is what counts:* the path in its normal form, which is also what is forwarded;
  the host in its one spelling, without the port that is the scheme's own. Nothing is made of an
  extension, of `;` or of anything else in a path.
- *The route and the service*, as routes of one URL may differ by a header, a cookie or an address,
  and a split sends equal requests to different services. A fallback is another service, too.
- *Fields that frameworks take for the method, the URL, the host or the scheme* (`DECIDING`), where
  the client's own reach the service. They need not be in `Vary`, and those who published cache
  poisoning lived on it. Of a trusted proxy it counts what services are told of its client.
- *What is left out is matched narrowly, what is chosen widely.* A service may know a parameter by
  more spellings than we do (`%69d`, `ID`, `id[]`), so those are the chosen one as well, and
  only the plain spelling is one to be left out. A query that services are known to cut in different
  ways (`;`, names with escapes) is taken whole, as it came.
- Parameters are sorted by name, and those of one name, in any spelling, keep their order. Escapes
  are brought into one form as RFC 3986 6.2.2 has it, and no further: whoever decodes more than
  that lets a client put characters into a page that no browser would have sent.

There is no key, so that nothing is shared, for methods other than GET and HEAD, for requests with a
body (many services read that of a GET), for upgrades, and where the rules want to know who asks and
that is not known.

Parts are joined by their lengths, so that none can run into the next. A long key is replaced by a
digest: a key is state, and a client must not choose how much of it. All that follows from the head
is kept with it (`Prepared.memo`), so that a hit pays for a look-up in a dictionary.
"""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from headgate.policy.limiter.keys import measured_key, short_key
from headgate.wire import forwarded
from headgate.wire.host import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headgate.cache.http.rules import KeyRules
    from headgate.gateway.policed import PolicedExchange
    from headgate.gateway.service import ServiceRuntime
    from headgate.security.identity import Identity
    from headgate.wire.message import Header, RequestHead

__all__ = ["DECIDING", "KEY_MAX", "compile_cache_key", "query_of_key", "url_of"]

KEY_MAX: Final = 512
"""Characters of what follows from the head; more is replaced by a digest."""

_KEPT_METHODS: Final = frozenset({"GET", "HEAD"})
_NONE: Final = ""
"""In the memo, for a head that has no key."""

DECIDING: Final = frozenset(
    {
        # the method
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        # the URL
        b"x-original-uri",
        b"x-original-url",
        b"x-override-url",
        b"x-request-uri",
        b"x-rewrite-url",
        b"x-envoy-original-path",
        b"x-replaced-path",
        b"x-script-name",
        # the host
        b"x-host",
        b"x-http-host-override",
        b"x-original-host",
        # the scheme
        b"cloudfront-forwarded-proto",
        b"front-end-https",
        b"x-proto",
        b"x-scheme",
        b"x-url-scheme",
        # which page or part of it, for frameworks that render on a server
        b"x-invoke-path",
        b"x-invoke-query",
        b"x-invoke-status",
        b"x-matched-path",
        b"x-middleware-prefetch",
        b"x-middleware-subrequest",
        b"x-nextjs-data",
        b"x-now-route-matches",
    }
)
"""Fields that overrule the request line for some services. So does every `x-forwarded-*`, and
`x-forwarded-client-cert` says who asks."""

_DECIDING_BEGIN: Final = (b"x", *{name.partition(b"-")[0] for name in DECIDING} - {b"x"})
"""How their names begin, in any spelling: most fields of a request are told apart by that."""


def compile_cache_key(rules: KeyRules) -> Callable[[PolicedExchange], str | None]:
    """The key of an exchange's response; None: it is neither kept nor answered from here.

    To be asked when it is known who asks and which service will answer.
    """
    mark = object()
    digest = blake2b(repr(rules).encode(), digest_size=4).hexdigest()
    read_rest = _compile_rest(rules)

    def of_head(ex: PolicedExchange) -> str | None:
        prep = ex.prep
        known = prep.memo.get(mark)
        if (
            known is None
            or ex.service is not prep.service
            or (ex.passport is not None and ex.passport.query != prep.head.query)
        ):
            return of_variant(ex)
        return known or None

    def of_variant(ex: PolicedExchange) -> str | None:
        """Of a head not seen before, or one that goes elsewhere or shows less than it says."""
        prep, service, query = ex.prep, ex.service, ex.query
        if prep.route is None or service is None:
            return None
        is_plain = service is prep.service and query == prep.head.query
        place: object = mark if is_plain else (mark, service.name, query)
        known = prep.memo.get(place)
        if known is None:
            known = prep.memo[place] = made(ex, prep.route.name, service, query)
        return known or None

    def made(ex: PolicedExchange, route: str, service: ServiceRuntime, query: str) -> str:
        head = ex.prep.head
        if head.method not in _KEPT_METHODS or head.length != 0 or head.upgrade is not None:
            return _NONE
        where = origin_of(ex.prep.scheme, head.authority) if rules.host else f"{ex.prep.scheme}:"
        counted = query_of_key(query, rules) if _has_query(head, query) else None
        asked = head.path if counted is None else f"{head.path}?{counted}"
        rest = [digest, route, service.name, *read_rest(head), *_deciding(ex, service)]
        # Neither paths nor queries have blanks in them.
        text = f"{where}{asked} {measured_key(rest)}"
        if len(text) <= KEY_MAX:
            return text
        return f"#{blake2b(text.encode(), digest_size=32).hexdigest()}"

    if not rules.user and not rules.claims:
        return of_head

    def of_somebody(ex: PolicedExchange) -> str | None:
        text = of_head(ex)
        if text is None:
            return None
        whose = _whose(ex.identity, rules)
        return None if whose is None else f"{text} {whose}"

    return of_somebody


def url_of(ex: PolicedExchange) -> str:
    """What was asked for, whatever the key says of it: this is what purges name. A credential that
    services do not see in the query is not in it either.
    """
    head, query = ex.prep.head, ex.query
    where = f"{origin_of(ex.prep.scheme, head.authority)}{head.path}"
    return f"{where}?{query}" if _has_query(head, query) else where


def _has_query(head: RequestHead, query: str) -> bool:
    return head.has_query and (query != "" or head.query == "")


# -- the query -------------------------------------------------------------------------------------

_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.~:$@!*()|\[\]-]*").fullmatch
_AS_PHP: Final = str.maketrans(".-", "__")


def query_of_key(query: str, rules: KeyRules) -> str | None:
    """What of a query counts; None: it is as if there were none."""
    if rules.query == "none":
        return None
    only, without = rules.query_only, rules.query_without
    is_sorted = rules.query == "sorted"
    if not (is_sorted or only or without) or ";" in query:
        return query
    pieces: list[tuple[str, str]] = []
    wanted = [_group(name[:-1]) + "*" if name.endswith("*") else _group(name) for name in only]
    for piece in query.split("&"):
        name = piece.partition("=")[0]
        known = _one_form(name).replace("%5B", "[").replace("%5D", "]")
        if not _PLAIN_NAME(known):
            return query
        group = _group(known)
        # A second question mark is where some cut a query once more.
        if "?" not in piece and ((only and not _is_one(group, wanted)) or _is_one(name, without)):
            continue
        pieces.append((group, _one_form(piece) if is_sorted else piece))
    if not pieces:
        return None
    if is_sorted:
        pieces.sort(key=_name_of)
    return "&".join([piece for _, piece in pieces])


def _name_of(piece: tuple[str, str]) -> str:
    return piece[0]


def _group(name: str) -> str:
    """The same for all spellings of a name that some service takes for one: letters of any case,
    `a[]` and `a[x]`, `a.b` and `a_b`.
    """
    return name.partition("[")[0].lower().translate(_AS_PHP)


def _is_one(name: str, wanted: Iterable[str]) -> bool:
    return any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in wanted
    )


def _one_form(text: str) -> str:
    """Escapes of unreserved characters decoded, all others in upper case (RFC 3986 6.2.2)."""
    return _ESCAPE.sub(_escape, text) if "%" in text else text


def _escape(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return char if char in _UNRESERVED else found[0].upper()


# -- what the rules name ---------------------------------------------------------------------------


def _compile_rest(rules: KeyRules) -> Callable[[RequestHead], list[str]]:
    headers = [_canonical(name.encode("latin-1")) for name in rules.headers]
    cookies = [(name.encode("latin-1"), _spelt(name)) for name in rules.cookies]

    def read_rest(head: RequestHead) -> list[str]:
        rest = [_lines_of(head.headers, name) for name in headers]
        if cookies:
            said = [value for name, value in head.headers if name == b"cookie"]
            rest += [_cookies_of(said, name, spelt) for name, spelt in cookies]
        return rest

    return read_rest


def _canonical(name: bytes) -> bytes:
    """Servers with a CGI-like environment read `x_lang` as `x-lang`."""
    return name.lower().replace(b"_", b"-")


def _lines_of(headers: Sequence[Header], wanted: bytes) -> str:
    """Every line of a field by itself: services differ in which one they take."""
    found = [
        f"{name.decode('latin-1')}:{value.decode('latin-1')}"
        for name, value in headers
        if name == wanted or (b"_" in name and _canonical(name) == wanted)
    ]
    return _short(measured_key(found)) if found else ""


def _spelt(name: str) -> re.Pattern[str]:
    """A cookie's name wherever some parser may find it, in any spelling."""
    spelling = re.escape(name.lower().replace(".", "_"))
    return re.compile(rf"(?<![a-z0-9_!#$&'*+^`|~-]){spelling}(?:\[[^=]*)?\s*=")


def _cookies_of(said: Sequence[bytes], wanted: bytes, spelt: re.Pattern[str]) -> str:
    """Every value of a cookie in order: services differ in which one they take. Where its name
    stands elsewhere too, as in another's value, some may cut there: then all cookies count.
    """
    found = []
    for line in said:
        for pair in line.split(b";"):
            name, mark, value = pair.partition(b"=")
            if name.strip(b" \t") == wanted:
                found.append((mark + value.strip(b" \t")).decode("latin-1"))
    whole = b"; ".join(said).decode("latin-1")
    if len(spelt.findall(_one_form(whole).lower().replace(".", "_"))) > len(found):
        found.append(whole)
    return _short(measured_key(found)) if found else ""


def _short(value: str) -> str:
    """The value or its digest, marked so that no value can be given that looks like a digest."""
    return short_key(f"={value}")


def _deciding(ex: PolicedExchange, service: ServiceRuntime) -> list[str]:
    """What of `DECIDING` reaches the service: an operator may take fields out, and nobody but a
    trusted proxy may say some.
    """
    prep = ex.prep
    found = _told_by_proxy(ex) if prep.trusted_forwarding else []
    forward = prep.forward_to(service)
    for name, value in forward.headers if forward is not None else ():
        if not name.startswith(_DECIDING_BEGIN):
            continue
        known = _canonical(name)
        if known in DECIDING or known.startswith(b"x-forwarded-"):
            found += (name.decode("latin-1"), _short(value.decode("latin-1")))
    return found


def _told_by_proxy(ex: PolicedExchange) -> list[str]:
    """The host that services are told, where it is another than that of the request. The scheme
    stands in the URL already.
    """
    head = ex.prep.head
    host = ex.prep.client_of(ex).host
    found = ["proxy", host] if host is not None and host != head.authority else []
    value = head.get(b"forwarded")
    if value is not None and ex.site.options.forwarded:
        for element in forwarded.parse_forwarded(value.decode("latin-1")) or ():
            rest = {name: said for name, said in element.items() if name not in ("for", "by")}
            if rest:
                found += ("forwarded", _short(json.dumps(rest, sort_keys=True)))
    return found


# -- who asks --------------------------------------------------------------------------------------


def _whose(identity: Identity | None, rules: KeyRules) -> str | None:
    if identity is None:
        return None
    parts: list[str] = []
    if rules.user:
        if not identity.subject:
            return None
        # Two methods may know two people by one name.
        parts += (identity.method, _short(identity.subject))
    for name in rules.claims:
        value = identity.claims.get(name)
        if value is None:
            return None  # whoever lacks it has nothing in common with others who do
        # As JSON, in which 1, true and "1" are three values.
        parts.append(_short(json.dumps(value, sort_keys=True, default=str)))
    return measured_key(parts)
