r"""What a request asks for: the request-target, judged, and its path in one normal form.

Theory of operation
-------------------
Routes and policies are matched against a path, and an instance then resolves the path that it is
sent. Where the two can be made to differ, a policy can be walked around (`/public/../admin`,
`/%61dmin`). So there is one normal form, and the form that is matched is the form that is
forwarded (RFC 3986 6.2.2):

- escapes of unreserved characters are decoded (`%7Euser` is `~user`), the hexadecimal digits of
  all other escapes are upper-case; nothing else is decoded, above all not `%2F` and `%25`;
- dot segments are resolved (RFC 3986 5.2.4), however they were written (`%2e%2E`). Where the RFC
  lets `..` stop at the root, we answer 400: no honest client needs it;
- slashes are not merged and empty segments stay: `/a//b` is another resource than `/a/b`.

What instances are known to resolve *after* us is refused, as we cannot forward it in a form that
they read as we do: a dot segment next to an escaped slash or backslash (`..%2F`, `%5C..`), or
with path parameters (`/..;x/`, which servlet containers take for `/../`).

Parsing is idempotent: what was parsed once parses to itself. The tests hold this over random
targets; an editor who adds a step must keep it.

Characters. RFC 3986 leaves ``" < > [ ] ^ ` { | }`` out of paths and queries, but browsers and
many libraries send them unescaped; they can break no framing, so they pass as they are. Refused
are controls, space, bytes over 0x7f, `#` (a fragment never travels), and in the path a backslash
(some servers take it for a slash) and escapes that are cut short or mean NUL. The query belongs
to the application and is passed on byte for byte, with a broken escape or a `%00` if it has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from headgate.wire.host import Authority, parse_authority

Form = Literal["origin", "absolute", "asterisk"]


class Target(NamedTuple):  # a frozen dataclass takes five times as long to make
    """A request-target (RFC 9112 3.2)."""

    form: Form
    scheme: str | None
    """`http` or `https`, said by the absolute form alone."""
    authority: Authority | None
    """Said by the absolute form alone; it then overrules `Host` (RFC 9112 3.2.2)."""
    path: str
    """Normalised, begins with a slash; or `*`."""
    query: str
    has_query: bool
    """`/a?` and `/a` are different targets."""

    def __str__(self) -> str:
        """Return the form that is sent upstream: path and query."""
        return f"{self.path}?{self.query}" if self.has_query else self.path


@dataclass(frozen=True, slots=True)
class BadTarget:
    """Why a request-target is refused, and with which status."""

    status: int
    reason: str


# The common case costs one match: no escape, no backslash and no segment that begins with a dot.
PLAIN: Final = (
    rb"((?:/(?!\.)[\x21\x22\x24\x26-\x2e\x30-\x3e\x40-\x5b\x5d-\x7e]*+)++)"
    rb"(?:(\?)([\x21\x22\x24-\x7e]*+))?"
)
"""A pattern of the targets that are in normal form as they are: path, question mark, query."""

_PLAIN = re.compile(PLAIN).fullmatch
_SPLIT = re.compile(rb"([^?#]*+)(?:(\?)([\x21\x22\x24-\x7e]*+))?").fullmatch
_PATH = re.compile(
    rb"/(?:[\x21\x22\x24\x26-\x3e\x40-\x5b\x5d-\x7e]|%(?!00)[0-9A-Fa-f]{2})*+",
).fullmatch
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*+)(.*+)", re.IGNORECASE | re.DOTALL).fullmatch
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NORMAL: Final = {
    f"%{high}{low}": char
    if (char := chr(int(high + low, 16))) in _UNRESERVED
    else (f"%{high}{low}".upper())
    for high in "0123456789abcdefABCDEF"
    for low in "0123456789abcdefABCDEF"
}
# Run after the dot segments proper are gone: what is left stands beside an escaped slash.
_HIDDEN_DOTS = re.compile(r"(?:/|%2F|%5C)\.\.?(?:/|%2F|%5C|;|%3B|$)").search


def parse_target(method: str, raw: bytes) -> Target | BadTarget:
    """Judge the request-target of a request line, or the `:path` of HTTP/2.

    Its length is not judged here: the limit is the listener's and the answer is 414.
    """
    # CONNECT is refused before its target is read. 501 and not 405, because no resource of ours
    # has it: a gateway is no tunnel to anywhere. The extended CONNECT of RFC 8441 has a path like
    # any request, and its rim hands it in as a GET.
    if method == "CONNECT":
        return BadTarget(501, "CONNECT is not supported")
    match = _PLAIN(raw)
    if match is not None:
        path, mark, query = match.groups(b"")
        return Target("origin", None, None, path.decode(), query.decode(), bool(mark))
    if raw == b"*":
        if method == "OPTIONS":
            return Target("asterisk", None, None, "*", "", has_query=False)
        return BadTarget(400, "the target * is for OPTIONS only")
    if raw.startswith(b"/"):
        return _parse_rest("origin", None, None, raw)
    return _parse_absolute(method, raw)


def normalise_path(raw: bytes) -> str | None:
    """Bring a path into the normal form of this file; None if it has none."""
    if _PATH(raw) is None:
        return None
    path = raw.decode("ascii")
    if "%" in path:
        path = _ESCAPE.sub(lambda match: _NORMAL[match[0]], path)
    if "/." in path:
        resolved = _resolve_dots(path)
        if resolved is None:
            return None
        path = resolved
    if "." in path and _HIDDEN_DOTS(path):
        return None
    return path


def _parse_absolute(method: str, raw: bytes) -> Target | BadTarget:
    match = _ABSOLUTE(raw)
    if match is None:
        return BadTarget(400, "the target is no path and no http or https URI")
    scheme, where, rest = match.groups()
    authority = parse_authority(where)
    if authority is None:
        return BadTarget(400, "the target names no valid host")
    if method == "OPTIONS" and not rest:
        # RFC 9112 3.2.4: an empty path means the server as a whole.
        return Target("absolute", scheme.decode().lower(), authority, "*", "", has_query=False)
    if not rest.startswith(b"/"):
        rest = b"/" + rest
    return _parse_rest("absolute", scheme.decode().lower(), authority, rest)


def _parse_rest(
    form: Form, scheme: str | None, authority: Authority | None, raw: bytes
) -> Target | BadTarget:
    match = _SPLIT(raw)
    if match is None:
        return BadTarget(400, "the target has a character that no URI may have")
    path, mark, query = match.groups(b"")
    normal = normalise_path(path)
    if normal is None:
        return BadTarget(400, "the path is malformed or leaves the root")
    return Target(form, scheme, authority, normal, query.decode(), bool(mark))


def _resolve_dots(path: str) -> str | None:
    """Resolve `.` and `..` (RFC 3986 5.2.4); None when the root is left."""
    kept: list[str] = []
    segments = path.split("/")
    last = len(segments) - 1
    for i, segment in enumerate(segments[1:], 1):
        if segment == ".":
            pass
        elif segment == "..":
            if not kept:
                return None
            kept.pop()
        else:
            kept.append(segment)
            continue
        if i == last:
            kept.append("")
    return "/" + "/".join(kept)
