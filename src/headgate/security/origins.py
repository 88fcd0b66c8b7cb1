r"""Origins: what a browser says of the page that makes it ask, and which of them are meant.

Theory of operation
-------------------
An origin is scheme, host and port (RFC 6454); browsers write it one way: lower case, no port where
it is the scheme's own, no path, or the word `null` where a page has none to show. What is compared
is that text, byte by byte, as the Fetch standard says. Nothing is normalised on the way in: a
spelling that no browser sends is not from a browser, and guessing what it means is how lists of
origins are passed.

A list holds

    https://shop.example.org            this one
    https://*.example.org               every host below it, at any depth, and not itself
    http://localhost:*                  on any port
    ~https://[a-z]+-shop\.example\.org  whatever matches as a whole
    null                                pages without an origin, which anybody can make
    *                                   every page

Text that is no origin matches nothing, patterns included, so that a pattern sees only schemes,
hosts and ports: no path, no user, no blank.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["ANY", "NULL", "Origins", "is_same", "origin_fault", "origin_of_url"]

ANY: Final = "*"
NULL: Final = "null"

_LONGEST: Final = 300
_REMEMBERED: Final = 1024
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_HOST = r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])"
_ORIGIN: Final = re.compile(rf"[a-z][a-z0-9+.-]*://{_HOST}(?::[0-9]{{1,5}})?", re.ASCII).fullmatch
_LISTED: Final = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<below>\*\.)?(?P<host>{_HOST})(?P<port>:(?:[0-9]{{1,5}}|\*))?",
    re.ASCII,
).fullmatch
_URL: Final = re.compile(r"(https?)://([^/?#\\@\s]+)(?:[/?#]|$)", re.ASCII | re.IGNORECASE).match
_LABELS = r"(?:[a-z0-9_-]+\.)+"

# sre's own parser, as for the other checks of patterns: private, but the only way to see the tree.
_parser: Final[Any] = getattr(re, "_parser")  # noqa: B009 - typeshed does not know it
_const: Final[Any] = getattr(re, "_constants")  # noqa: B009


class Origins:
    """A list of origins. Raises ValueError for what cannot stand in one."""

    __slots__ = ("_exact", "_patterns", "_seen", "has_null", "is_any")

    def __init__(self, listed: Iterable[str]) -> None:
        self.is_any = False
        self.has_null = False
        self._exact: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []
        self._seen: dict[bytes, bool] = {}
        for text in listed:
            fault = origin_fault(text)
            if fault is not None:
                msg = f"{text!r} {fault}"
                raise ValueError(msg)
            self._take(text)

    def _take(self, text: str) -> None:
        if text == ANY:
            self.is_any = True
        elif text == NULL:
            self.has_null = True
        elif text.startswith("~"):
            self._patterns.append(re.compile(text[1:], re.ASCII))
        elif "*" in text:
            found = _LISTED(text)
            if found is not None:
                below = _LABELS if found["below"] else ""
                port = found["port"] or ""
                ports = "(?::[0-9]{1,5})?" if port == ":*" else re.escape(port)
                pattern = f"{re.escape(found['scheme'])}://{below}{re.escape(found['host'])}{ports}"
                self._patterns.append(re.compile(pattern, re.ASCII))
        else:
            self._exact.add(text)

    def has(self, origin: bytes) -> bool:
        """Whether a page of this origin is meant; `origin` as the browser sent it."""
        known = self._seen.get(origin)
        if known is None:
            known = self._judged(origin)
            if len(origin) <= _LONGEST:
                if len(self._seen) >= _REMEMBERED:
                    self._seen.clear()
                self._seen[origin] = known
        return known

    def _judged(self, origin: bytes) -> bool:
        if len(origin) > _LONGEST:
            return False
        text = origin.decode("latin-1")
        if text == NULL:
            return self.has_null or self.is_any
        if _ORIGIN(text) is None:
            return False
        if self.is_any or text in self._exact:
            return True
        return any(pattern.fullmatch(text) for pattern in self._patterns)


def origin_fault(text: str) -> str | None:
    """What is wrong with an entry of a list, as a rule that reads on after it; or None."""
    if text in (ANY, NULL):
        return None
    if text.startswith("~"):
        return _pattern_fault(text[1:])
    found = _LISTED(text)
    if found is None:
        return _why_not(text)
    scheme, host, port = found["scheme"], found["host"], found["port"]
    if len(text) > _LONGEST:
        return "is too long for an origin"
    if host.endswith("."):
        return "ends in a dot, which is another origin than without; leave it out"
    if port is not None and port == _DEFAULT_PORTS.get(scheme):
        return (
            f"names the port that {scheme} has anyway, which browsers leave out; write it without"
        )
    if found["below"] and "." not in host and host != "localhost":
        return "would be every site below a top-level domain; write *.example.org"
    return None


def _why_not(text: str) -> str:
    if not text.isascii():
        return "has letters beyond ASCII; write the host as browsers send it, with xn--"
    if re.search("[A-Z]", text):
        return "has capitals, which browsers never send in an origin; write it in small letters"
    if "://" not in text:
        return "is not an origin; write https://example.org"
    if re.search(r"[/?#]", text.partition("://")[2]):
        return "goes on after the host; an origin is scheme, host and port: https://example.org"
    if "@" in text:
        return "names a user, which no origin has"
    if "*" in text:
        return "has a star where none can stand; write https://*.example.org or http://localhost:*"
    return "is not an origin; write https://example.org"


def _pattern_fault(pattern: str) -> str | None:
    """Ways in which patterns of origins take in more than was meant."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # what another Python reads differently
            compiled = re.compile(pattern, re.ASCII)
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning):
        return "is not a regular expression"
    if _has_lone_dot(tree):
        return (
            "has a plain dot, which takes any character: example.org would also be exampleXorg; "
            "write \\."
        )
    if _is_open_before(tree):
        return "has .* or .+ before a name, so that evil-example.org fits too; write [a-z0-9-]+\\."
    if _is_open_after(tree):
        return "does not end with a name, so that example.org.evil.net may fit too"
    if any(compiled.fullmatch(probe) for probe in _PROBES):
        return "fits hosts of strangers too; begin with https:// and end with the host's name"
    return None


_PROBES: Final = tuple(
    f"{scheme}://{host}{port}"
    for scheme in ("http", "https")
    for host in (
        "q7zk.example",
        "a.q7zk.test",
        "q7zk-x.invalid",
        "qzkw.example",
        "a.qzkw.test",
        "203.0.113.77",
    )
    for port in ("", ":8443")
)
_REPEATS: Final = (_const.MAX_REPEAT, _const.MIN_REPEAT)


def _inside(operator: Any, argument: Any) -> list[Any]:
    if operator in _REPEATS or operator is getattr(_const, "POSSESSIVE_REPEAT", None):
        return [argument[2]]
    if operator is _const.SUBPATTERN:
        return [argument[3]]
    if operator is _const.BRANCH:
        return list(argument[1])
    if operator is getattr(_const, "ATOMIC_GROUP", None):
        return [argument]
    return []


def _has_lone_dot(tree: Any) -> bool:
    for operator, argument in tree:
        if operator is _const.ANY:
            return True
        if operator in _REPEATS and argument[1] > 1 and _is_dot(argument[2]):
            continue
        if any(_has_lone_dot(inner) for inner in _inside(operator, argument)):
            return True
    return False


def _is_dot(tree: Any) -> bool:
    return len(tree) == 1 and tree[0][0] is _const.ANY


def _is_open_before(tree: Any) -> bool:
    """Whether a repeated dot stands right before something else than a literal dot or colon."""
    items = list(tree)
    for (operator, argument), following in zip(items, [*items[1:], None], strict=False):
        if operator in _REPEATS and _is_dot(argument[2]):
            if following is None:
                continue  # the probes see whether this is an end
            if following[0] is not _const.LITERAL or chr(following[1]) not in ".:":
                return True
        if any(_is_open_before(inner) for inner in _inside(operator, argument)):
            return True
    return False


def _is_open_after(tree: Any) -> bool:
    """Whether the last thing is a run that takes letters: any name could stand there."""
    items = [item for item in tree if item[0] is not _const.AT]
    if not items:
        return False
    operator, argument = items[-1]
    if operator in _REPEATS and len(argument[2]) == 1 and _takes_letters(argument[2][0]):
        return True
    return any(_is_open_after(inner) for inner in _inside(operator, argument))


def _takes_letters(item: Any) -> bool:
    operator, argument = item
    if operator in (_const.ANY, _const.NOT_LITERAL):
        return True
    if operator is not _const.IN:
        return False
    return any(
        kind in (_const.NEGATE, _const.CATEGORY)  # in doubt
        or (kind is _const.LITERAL and chr(member).isalpha())
        or (kind is _const.RANGE and member[0] <= ord("z") and member[1] >= ord("a"))
        for kind, member in argument
        if (kind, str(member)) != (_const.CATEGORY, "CATEGORY_DIGIT")
    )


def origin_of_url(url: bytes) -> bytes | None:
    """The origin of an http(s) URL, as browsers write it; None for what is none."""
    text = url.decode("latin-1")
    found = _URL(text)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower().removesuffix(_DEFAULT_PORTS[found[1].lower()])
    origin = f"{scheme}://{host}"
    return origin.encode("latin-1") if _ORIGIN(origin) else None


def is_same(origin: bytes, authority: str, *, is_tls: bool) -> bool:
    """Whether an origin is that of the host a request is addressed to.

    Where the connection is not encrypted, encryption may have ended before: then either scheme is
    taken. Where it is, a page that came without it is another origin.
    """
    scheme, found, host = origin.decode("latin-1").partition("://")
    if not found or not host or scheme not in (("https",) if is_tls else ("https", "http")):
        return False
    return host == authority.lower().removesuffix(_DEFAULT_PORTS[scheme])
