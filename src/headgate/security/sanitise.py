"""Making values safe at the place where a service uses them.

Theory of operation. A gateway can only guess what a value will be used for; the service knows. So
this is the protection that holds, and the scorer is the fence in front of it:

    into a page              escape_html, or clean_html where people may format their text
    into a file name         safe_file_name, path_inside
    into a Location header   safe_redirect
    into a request of ours   check_url, then allowed_addresses for what its name resolves to

Values for SQL need none of these: they go in as parameters, never as text.

What an editor must not break: `clean_html` writes every tag, attribute and text anew from what it
understood, so that it does not matter whether a browser would have understood something else.
"""

from __future__ import annotations

import html
import ipaddress
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from headgate.security.injection.urls import lax_address

__all__ = [
    "Target",
    "UnsafeUrl",
    "allowed_addresses",
    "check_url",
    "clean_html",
    "escape_html",
    "path_inside",
    "plain_text",
    "safe_file_name",
    "safe_redirect",
]
_TAGS_WORDS: Final = (
    "a abbr b blockquote br code dd del dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li ol p "
    "pre q s small strong sub sup table tbody td th thead tr u ul"
)

TAGS: Final = frozenset(_TAGS_WORDS.split())
"""What `clean_html` keeps by default: text, lists, tables, links and pictures."""

_ATTRIBUTES: Final = {
    "a": frozenset({"href", "title"}),
    "img": frozenset({"src", "alt", "title", "width", "height"}),
    "abbr": frozenset({"title"}),
    "td": frozenset({"colspan", "rowspan"}),
    "th": frozenset({"colspan", "rowspan", "scope"}),
    "ol": frozenset({"start"}),
}
_URLS: Final = frozenset({"href", "src"})
_EMPTY: Final = frozenset({"br", "hr", "img"})
_DROPPED_WORDS: Final = (
    "script style template iframe object noscript noembed noframes xmp plaintext textarea "
    "title svg math head select"
)
# What stands in these is no text for people.
_DROPPED: Final = frozenset(_DROPPED_WORDS.split())
_SCHEMES: Final = frozenset({"http", "https", "mailto", "tel"})
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):").match
_CONTROLS: Final = dict.fromkeys((*range(33), *range(127, 161), 173, 8203, 65279))


def escape_html(text: str) -> str:
    """Text for a page, between tags or within a quoted attribute."""
    return html.escape(text, quote=True)


class _Cleaner(HTMLParser):
    def __init__(self, tags: Collection[str], schemes: Collection[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._tags = frozenset(tags) - _DROPPED
        self._schemes = schemes
        self._open: list[str] = []
        self._dropped: list[str] = []
        self.out: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropped.append(tag)
        if self._dropped or tag not in self._tags:
            return
        allowed = _ATTRIBUTES.get(tag, frozenset())
        written = [f"<{tag}"]
        for name, value in dict(reversed(attrs)).items():
            if name not in allowed or value is None:
                continue
            if name in _URLS and not _is_safe_url(value, self._schemes):
                continue
            written.append(f' {name}="{html.escape(value)}"')
        if tag == "a":
            written.append(' rel="nofollow noopener ugc"')
        self.out.append("".join(written) + ">")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            if tag in self._dropped:
                del self._dropped[self._dropped.index(tag) :]
            return
        if tag in self._open:
            while True:
                last = self._open.pop()
                self.out.append(f"</{last}>")
                if last == tag:
                    break

    def handle_data(self, data: str) -> None:
        if not self._dropped:
            self.out.append(html.escape(data, quote=False))

    def finish(self) -> str:
        self.close()
        self.out += [f"</{tag}>" for tag in reversed(self._open)]
        self._open.clear()
        return "".join(self.out)


def clean_html(text: str, tags: Collection[str] = TAGS, schemes: Collection[str] = _SCHEMES) -> str:
    """Keep harmless formatting and drop the rest; what comes out closes what it opens.

    `tags` may be fewer or more than the default, but those that hold no text are never kept.
    """
    cleaner = _Cleaner(tags, frozenset(schemes))
    cleaner.feed(text.replace("\0", ""))
    return cleaner.finish()


def plain_text(text: str) -> str:
    """The text of HTML without any tag. It is text: escape it before it goes into a page."""
    return html.unescape(clean_html(text, tags=()))


def _is_safe_url(value: str, schemes: Collection[str]) -> bool:
    plain = value.translate(_CONTROLS)
    found = _SCHEME(plain)
    if found is not None:
        return found[1].lower() in schemes
    # `//host` and paths stay; a colon before any slash would be a scheme in disguise.
    return ":" not in plain.partition("/")[0].partition("?")[0].partition("#")[0]


# -- files ------------------------------------------------------------------------------------

_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
).fullmatch
_UNSAFE: Final = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]'
)
_NAME_BYTES: Final = 255


def safe_file_name(name: str, fallback: str = "file") -> str:
    """A name for a file out of what a client sent: no folder, no device, no hidden file.

    The same name comes out on every system. It says nothing about what is in the file.
    """
    name = unicodedata.normalize("NFKC", name)
    name = re.split(r"[/\\]", name)[-1]
    name = _UNSAFE.sub("_", name).strip(" .\t")
    while name[:1] in {"-", "."}:  # an option, a hidden file
        name = name[1:].lstrip(" ")
    if not name.strip("_ ."):
        name = fallback
    if _RESERVED(name):
        name = f"_{name}"
    raw = name.encode("utf-8", "ignore")
    if len(raw) > _NAME_BYTES:
        stem, dot, end = name.rpartition(".")
        tail = (dot + end).encode("utf-8", "ignore") if stem and len(end) <= 16 else b""
        keep = raw[: _NAME_BYTES - len(tail)].decode("utf-8", "ignore")
        name = keep.rstrip(" .") + tail.decode()
    else:
        name = raw.decode()
    return name.rstrip(" .") or fallback


def path_inside(folder: str | Path, name: str) -> Path:
    """The path of `name` within `folder`; ValueError when it leads out, also through links."""
    if "\0" in name:
        raise ValueError("a file name holds no zero bytes")
    root = Path(folder).resolve()
    path = (root / name).resolve()
    if path == root or not path.is_relative_to(root):
        raise ValueError("the path leads out of the folder; send a name within it")
    return path


# -- addresses --------------------------------------------------------------------------------


def safe_redirect(target: str, hosts: Collection[str] = (), default: str = "/") -> str:
    r"""Where a client may be sent: a path of this site, or an https or http URL of one of `hosts`.

    Anything else becomes `default`: other sites, `//host`, `/\host`, `javascript:`, and what
    browsers would read as one of those after dropping tabs and line breaks.
    """
    if not target or len(target) > 2048:
        return default
    if (
        target != target.strip()
        or any(ord(c) < 33 or ord(c) == 0x7F for c in target)
        or "\\" in target
    ):
        return default
    if target[0] == "/":
        return default if target[1:2] == "/" else target
    try:
        parts = urlsplit(target)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return default
    if parts.scheme not in {"https", "http"} or not host or parts.username is not None:
        return default
    named = {each.lower() for each in hosts}
    return target if host in named or f"{host}:{port}" in named else default


class UnsafeUrl(ValueError):
    """A URL that a service must not fetch for a client."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    url: str
    scheme: str
    host: str
    port: int
    address: str = ""
    """The address, where the URL has one in place of a name."""


def check_url(
    url: str,
    schemes: Collection[str] = ("https", "http"),
    ports: Collection[int] = (80, 443),
    hosts: Collection[str] | None = None,
) -> Target:
    """Check a URL that a client wants a service to fetch; UnsafeUrl says what is wrong with it.

    A name is only as safe as what it resolves to, and may resolve to something else a moment
    later. So: resolve it once, pass the addresses through `allowed_addresses`, connect to one of
    what comes back and to no other (with `host` as Host header and for TLS), do not follow
    redirects by yourself, and check each one's URL like the first.
    """
    if len(url) > 4096 or any(ord(c) < 33 or ord(c) == 0x7F for c in url) or "\\" in url:
        raise UnsafeUrl("the URL has characters that programs read differently")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UnsafeUrl("the URL is malformed") from None
    if parts.scheme not in schemes:
        raise UnsafeUrl(f"only {' and '.join(sorted(schemes))} URLs may be fetched")
    if not host:
        raise UnsafeUrl("the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise UnsafeUrl("the URL holds credentials")
    number = port if port is not None else (443 if parts.scheme == "https" else 80)
    if number not in ports:
        raise UnsafeUrl(f"port {number} may not be asked")
    host = host.rstrip(".")
    if hosts is not None and host not in {each.lower() for each in hosts}:
        raise UnsafeUrl("the host is not one of those allowed")
    address = lax_address(host)
    if address is not None:
        if not _is_public(address):
            raise UnsafeUrl("the URL leads into an inner network")
        return Target(url, parts.scheme, host, number, str(address))
    if "." not in host or host.rpartition(".")[2] in {
        "localhost",
        "local",
        "internal",
        "localdomain",
    }:
        raise UnsafeUrl("the host is a name of an inner network")
    return Target(url, parts.scheme, host, number)


def allowed_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """What a name resolved to, if all of it is public; UnsafeUrl if any of it is not.

    One inner address among public ones is an attack on whoever tries them in turn.
    """
    found = tuple(addresses)
    if not found:
        raise UnsafeUrl("the host has no address")
    for each in found:
        try:
            address = ipaddress.ip_address(each.partition("%")[0])
        except ValueError:
            raise UnsafeUrl("the host resolves to something that is no address") from None
        inner = lax_address(str(address))
        if not _is_public(inner if inner is not None else address):
            raise UnsafeUrl("the host resolves into an inner network")
    return found


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved
