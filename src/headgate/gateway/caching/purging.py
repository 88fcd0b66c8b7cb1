"""What an operator asks to be forgotten, made into an `Invalidation`; and what one fits.

URLs are compared as texts, so both sides write them the same way: the origin as `wire.host` has it,
then the path in its normal form (`wire.target`) and the query as it is. `key.url_of` is where the
gateway makes them; `normal_url` brings what an operator writes to the same form. A pattern is taken
as it is written but for its host: it has to fit the normal form.

    https://shop.example/a?b=1     that URL, every variant of it
    https://shop.example/a/*       everything below it
    /a/*                           the same at any host
    *.example/*.png                any pattern; each `*` stands for any characters
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

from headgate.cache.barriers import compiled, path_of
from headgate.cache.invalidation import ITEMS_MAX, TEXT_MAX, Invalidation
from headgate.errors import HeadgateError
from headgate.wire.host import DEFAULT_PORTS, origin_of_url
from headgate.wire.target import normalise_path

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BadPurge", "Fitting", "normal_url", "purge_of"]

_STARS_MAX: Final = 10
"""Of one pattern: every response that is held may be compared with it."""
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_UNPRINTED: Final = re.compile(r"[\x00-\x20\x7f]")


class BadPurge(HeadgateError):
    """What was asked to be purged cannot be understood; the message says the way out."""


def normal_url(said: str, name: str = "url") -> str:
    """`https://Shop.Example:443/%7Ea` as `https://shop.example/~a`; a path alone likewise."""
    said = quote(_text(name, said).partition("#")[0], safe=_ASCII)
    # By hand: a "?" with nothing behind it is not the same as none.
    before, mark, query = said.partition("?")
    if said.startswith("/") and not said.startswith("//"):
        return f"{_path(name, before)}{mark}{query}"
    parts = _split(name, said)
    origin = origin_of_url(said)
    if origin is None:
        raise BadPurge(
            f"{name}: no request has the host {parts.netloc!r}; other letters are written xn--"
        )
    return f"{origin}{_path(name, parts.path or '/')}{mark}{query}"


def _path(name: str, said: str) -> str:
    path = normalise_path(said.encode("ascii"))
    if path is None:
        raise BadPurge(
            f"{name}: no request has the path {said!r}; "
            "an escape in it is cut short, or it leaves the root"
        )
    return path


def _split(name: str, said: str) -> SplitResult:
    try:
        parts = urlsplit(said)
    except ValueError as wrong:
        raise BadPurge(f"{name}: {said!r} is not a URL: {wrong}") from None
    try:
        _ = parts.port
    except ValueError:
        raise BadPurge(f"{name}: the port of {said!r} is not a number up to 65535") from None
    if parts.username is not None or parts.password is not None:
        raise BadPurge(f"{name}: it holds a user name or a password; leave them out")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise BadPurge(
            f"{name}: {said!r} is not complete; write https://host/path, or /path for any host"
        )
    return parts


def _text(name: str, said: object) -> str:
    if not isinstance(said, str) or not said:
        raise BadPurge(f"{name}: expected a text that is not empty, not {said!r:.100}")
    if len(said) > TEXT_MAX:
        raise BadPurge(f"{name}: longer than {TEXT_MAX} characters; purge a prefix or a tag")
    if _UNPRINTED.search(said):
        raise BadPurge(f"{name}: {said!r} holds a space or a control character; encode it (%20)")
    return said


def _url(said: str) -> str:
    if "*" in _text("url", said):
        raise BadPurge(f"url: {said!r} holds a *; say it as a prefix or a pattern")
    return _short("url", normal_url(said))


def _prefix(said: str) -> str:
    """Everything that begins so; a `*` at the end may be said or not."""
    start = _text("prefix", said).removesuffix("*")
    if "*" in start:
        raise BadPurge(f"prefix: {said!r} holds a * inside; say it as a pattern")
    return _short("prefix", normal_url(start, "prefix") + "*")


def _pattern(said: str) -> str:
    said = quote(_text("pattern", said), safe=_ASCII)
    if said.count("*") > _STARS_MAX:
        raise BadPurge(f"pattern: {said!r} has more than {_STARS_MAX} *; purge by a tag")
    if "*" not in said:
        raise BadPurge(f"pattern: {said!r} has no *; say it as a url")
    scheme, mark, rest = said.partition("://")
    if not mark:
        return _short("pattern", said)
    host, slash, path = rest.partition("/")
    return _short("pattern", f"{scheme.lower()}{mark}{host.lower()}{slash}{path}")


def _short(name: str, url: str) -> str:
    if len(url) > TEXT_MAX:
        raise BadPurge(f"{name}: encoded, it is longer than {TEXT_MAX} characters")
    return url


def _tag(said: str) -> str:
    return _text("tags", said)


def purge_of(
    *,
    url: Iterable[str] = (),
    prefix: Iterable[str] = (),
    pattern: Iterable[str] = (),
    tags: Iterable[str] = (),
    everything: Literal["", "objects", "responses", "all"] = "",
    soft: bool = False,
    by: str = "",
) -> Invalidation:
    """The invalidation that an operator means, without a stamp yet. BadPurge: what is wrong."""
    urls = [*map(_url, url), *map(_prefix, prefix), *map(_pattern, pattern)]
    named = [_tag(tag) for tag in tags]
    if len(urls) + len(named) > ITEMS_MAX:
        raise BadPurge(f"more than {ITEMS_MAX} names in one purge; send several, or purge a tag")
    asked = Invalidation(
        tags=tuple(dict.fromkeys(named)),
        urls=tuple(dict.fromkeys(urls)),
        everything=everything,
        soft=soft,
        by=by,
    )
    if asked.is_empty:
        raise BadPurge("nothing to purge: say url, prefix, pattern, tags, or everything")
    return asked


class Fitting:
    """Which responses an invalidation names."""

    __slots__ = ("_globs", "_names", "_path_globs", "_tags", "is_everything")

    def __init__(self, asked: Invalidation) -> None:
        self.is_everything = asked.everything in ("responses", "all")
        self._tags = frozenset(asked.tags)
        self._names = frozenset(url for url in asked.urls if "*" not in url)
        globs = [url for url in asked.urls if "*" in url]
        self._globs = [compiled(glob).fullmatch for glob in globs if not glob.startswith("/")]
        self._path_globs = [compiled(glob).fullmatch for glob in globs if glob.startswith("/")]

    def fits(self, url: str, tags: Iterable[str]) -> bool:
        if self.is_everything or url in self._names or not self._tags.isdisjoint(tags):
            return True
        if any(fullmatch(url) for fullmatch in self._globs):
            return True
        path = path_of(url)
        return path in self._names or any(fullmatch(path) for fullmatch in self._path_globs)

    @staticmethod
    def needs_all(asked: Invalidation) -> bool:
        """Whether an index of URLs and tags does not lead to all that it names."""
        if asked.everything in ("responses", "all"):
            return True
        return any("*" in url or url.startswith("/") for url in asked.urls)
