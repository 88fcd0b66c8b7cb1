"""What a service's response is to say to caches, and when 304 is the answer; pure.

Theory of operation. What the service says itself stands. Where it says nothing (neither
`Cache-Control` nor `Expires`), the first `CacheRule` that fits speaks, then the defaults:

    personal, by Set-Cookie or Authorization        private, no-cache
    a name with a hash of the content in it         public, max-age=31536000, immutable
    an event stream, or 5xx                         no-store
    all else                                        no-cache

`no-cache` means: keep it, but ask each time; with an ETag that costs a 304. A rule that would let
others see what is personal is narrowed to `private, no-cache`: that a route is public is easily
said, and that it sets a cookie easily overlooked. With a request's `Cookie`, only the defaults are
narrowed, as most cookies are not about the content.

A hash is only taken for one where a person would hardly have written it: hexadecimal with digits
and letters, or, in names of scripts and styles, eight or more characters of all three kinds. HTML
under such a name is the page that some servers send for what they do not have.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from headgate.cache.barriers import compiled
from headgate.cache.http.cache_control import members
from headgate.cache.http.etags import lists
from headgate.wire.http_dates import parse_date

__all__ = [
    "CacheRule",
    "Headers",
    "etag_of",
    "field",
    "is_hashed",
    "is_unmodified",
    "merged_vary",
    "not_modified",
    "spoken",
]

Headers = list[tuple[bytes, bytes]]

IMMUTABLE: Final = "public, max-age=31536000, immutable"
PERSONAL: Final = "private, no-cache"

_HEX_NAME: Final = re.compile(
    rb"[^/]*[.\-_](?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,64}\.(?:min\.|module\.)?"
    rb"(?:m?js|css|map|wasm|woff2?|ttf|otf|eot|png|jpe?g|gif|svg|webp|avif|ico|mp4|webm)"
)
_MIXED_NAME: Final = re.compile(
    rb"[^/]*[.\-](?=[^.]*[0-9])(?=[^.]*[a-z])(?=[^.]*[A-Z])[0-9A-Za-z_]{8,32}\."
    rb"(?:m?js|css|map|woff2?)"
)
# Of the representation that is not sent; RFC 9110 15.4.5 wants these away.
_NOT_IN_304: Final = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"content-language",
        b"content-range",
        b"content-disposition",
        b"content-digest",
        b"repr-digest",
        b"transfer-encoding",
        b"trailer",
        b"accept-ranges",
    }
)


@dataclass(frozen=True, slots=True)
class CacheRule:
    """`cache_control` for responses without one of their own: `CacheRule("public, max-age=60",
    path="/catalogue/*", content_type="application/json")`. `*` stands for any characters.
    """

    cache_control: str
    path: str = "*"
    content_type: str = "*"
    status: tuple[int, ...] = (200,)
    _path: re.Pattern[str] | None = dataclasses.field(init=False, repr=False, compare=False)
    _kind: re.Pattern[str] | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = self.cache_control
        if not text or not text.isascii() or not text.isprintable():
            raise ValueError(
                f"cache_control {text!r}: write directives, as in 'public, max-age=60'"
            )
        status: object = self.status
        if isinstance(status, int):
            raise ValueError(f"status is {self.status}; write a tuple: ({self.status},)")
        for name, glob in (("_path", self.path), ("_kind", self.content_type.lower())):
            object.__setattr__(self, name, None if glob == "*" else compiled(glob))

    def fits(self, path: str, content_type: str, status: int) -> bool:
        return (
            status in self.status
            and (self._path is None or self._path.fullmatch(path) is not None)
            and (self._kind is None or self._kind.fullmatch(content_type) is not None)
        )


def field(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """All lines of a field as one; None if there is none. Names are in lower case, as ASGI has
    them; those of a response are made so.
    """
    found = None
    for known, value in headers:
        if known == name:
            found = value if found is None else found + b", " + value
    return found


def is_hashed(path: bytes) -> bool:
    """Whether the name says that what is under it never changes."""
    name = path[path.rfind(b"/") + 1 :]
    return len(name) <= 255 and bool(_HEX_NAME.fullmatch(name) or _MIXED_NAME.fullmatch(name))


def spoken(
    rules: Sequence[CacheRule],
    path: bytes,
    status: int,
    content_type: bytes,
    *,
    default: str | None,
    immutable: bool,
    is_personal: bool,
    has_cookie: bool,
) -> str | None:
    """The Cache-Control of a response that has none. None: it is left without."""
    # A part, or that nothing has changed, is said of the same thing as 200.
    status = 200 if status in (206, 304) else status
    kind = content_type.partition(b";")[0].strip().lower()
    text = path.decode("latin-1")
    for rule in rules:
        if rule.fits(text, kind.decode("latin-1"), status):
            is_shared = is_personal and _may_be_shared(rule.cache_control)
            return PERSONAL if is_shared else rule.cache_control
    if default is None:
        return None
    if status >= 500 or kind == b"text/event-stream":
        return "no-store"
    if immutable and status == 200 and kind != b"text/html" and is_hashed(path):
        return IMMUTABLE.replace("public", "private") if is_personal else IMMUTABLE
    if is_personal or has_cookie:
        return PERSONAL if _may_be_shared(default) else default
    return default


def _may_be_shared(cache_control: str) -> bool:
    said = dict(members(cache_control.encode()))
    return b"no-store" not in said and said.get(b"private", b"") is not None


def merged_vary(present: bytes | None, added: Iterable[str]) -> bytes | None:
    """One field of both; None if there is nothing to be said."""
    names: dict[bytes, bytes] = {}
    for part in (present or b"").split(b","):
        if part.strip():
            names.setdefault(part.strip().lower(), part.strip())
    for name in added:
        names.setdefault(name.lower().encode(), name.encode())
    if b"*" in names:
        return b"*"
    return b", ".join(names.values()) or None


def etag_of(parts: Iterable[bytes], headers: Headers, *, is_weak: bool) -> bytes:
    """From all bytes of the body, and from what tells them apart from the same bytes otherwise."""
    digest = hashlib.blake2b(digest_size=15)
    for part in parts:
        digest.update(part)
    kind, coding = field(headers, b"content-type"), field(headers, b"content-encoding")
    digest.update(b"\0%b\0%b" % (kind or b"", coding or b""))
    text = b'"' + base64.urlsafe_b64encode(digest.digest()) + b'"'
    return b"W/" + text if is_weak else text


def is_unmodified(
    none_match: bytes | None, since: bytes | None, headers: Headers, wall: float
) -> bool:
    """RFC 9110 13.2.2 for GET and HEAD, where the answer would be 200."""
    if none_match is not None:
        return lists(none_match, field(headers, b"etag"))
    if since is None:
        return False
    modified = field(headers, b"last-modified")
    if modified is None:
        return False
    asked, known = parse_date(since, wall), parse_date(modified, wall)
    return asked is not None and known is not None and known <= asked


def not_modified(headers: Headers) -> Headers:
    """The fields of a 304: those of the 200 without what is said of the content."""
    has_etag = field(headers, b"etag") is not None
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_IN_304 and not (has_etag and name == b"last-modified")
    ]
