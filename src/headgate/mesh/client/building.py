"""A request from what a caller says of it: the target, the fields and the body in bytes.

Theory of operation
-------------------
What is wrong in a call is said before anything is sent, in words that name the argument and never
its value, which may be a secret. The wire judges once more what it is given (`mesh.http.request`):
here the aim is to help, there to be safe.

A path is quoted where it must be and otherwise left alone, so that `/users/a b` and `/users/a%20b`
are the same request. It is a path and no URL: which instance is asked is not the caller's affair.

A body is bytes by the time that it leaves here, or an async iterable, which can be sent only once.
"""

from __future__ import annotations

import json as jsonlib
import re
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, urlencode

from headgate.mesh.client.answering import has_words

if TYPE_CHECKING:
    from headgate.wire.message import Header

__all__ = ["Body", "Content", "HeaderArgs", "Params", "body_of", "headers_of", "target_of"]

Plain: TypeAlias = str | int | float | bool | None
Params: TypeAlias = Mapping[str, Plain | Sequence[Plain]] | Sequence[tuple[str, Plain]] | str
HeaderArgs: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
Content: TypeAlias = str | bytes | bytearray | memoryview | AsyncIterable[bytes]
Body: TypeAlias = bytes | AsyncIterable[bytes]

_FINE: Final = re.compile(
    r"/(?!/)[A-Za-z0-9\-._~/%:@!$&'()*+,;=]*(\?[A-Za-z0-9\-._~/%:@!$&'()*+,;=?]*)?"
)
_SAFE: Final = "/%:@!$&'()*+,;=-._~"
_SAFE_QUERY: Final = _SAFE + "?"
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_JSON: Final = (b"content-type", b"application/json")
_FORM: Final = (b"content-type", b"application/x-www-form-urlencoded")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")


def target_of(path: str, params: Params | None = None) -> bytes:
    """The target of a request: a path with its query."""
    if _FINE.fullmatch(path) is not None and "%" not in path:
        target = path
    else:
        target = _quoted(path)
    if params:
        query = params.removeprefix("?") if isinstance(params, str) else _query(params)
        if query:
            if isinstance(params, str):
                query = quote(_BARE_PERCENT.sub("%25", query), safe=_SAFE_QUERY)
            target = f"{target}{'&' if '?' in target else '?'}{query}"
    return target.encode("ascii")


def _quoted(path: str) -> str:
    if not path.startswith("/"):
        if "://" in path[:12]:
            raise ValueError(
                "the path is a whole URL; a service is asked by its path alone, as in /users/42"
            )
        path = f"/{path}"
    if path.startswith("//"):
        raise ValueError("the path begins with //, which would be another host")
    if "#" in path:
        raise ValueError("the path has a #; fragments are not sent: quote it as %23")
    path = _BARE_PERCENT.sub("%25", path)
    before, mark, query = path.partition("?")
    return quote(before, safe=_SAFE) + mark + quote(query, safe=_SAFE_QUERY)


def _query(params: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> str:
    pairs: list[tuple[str, str]] = []
    items: Iterable[tuple[str, Any]]
    items = params.items() if isinstance(params, Mapping) else params
    for name, value in items:
        if isinstance(value, (list, tuple, set, frozenset)):
            pairs += [(name, _plain(name, each)) for each in value]
        else:
            pairs.append((name, _plain(name, value)))
    return urlencode(pairs, quote_via=quote)


def _plain(name: str, value: object) -> str:
    """As JSON would have it: `true`, not `True`. None is the name with nothing behind it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if not has_words(value):
        raise TypeError(f"params[{name!r}] is a {type(value).__name__}, which has no text form")
    return str(value)


def headers_of(headers: HeaderArgs | None) -> list[Header]:
    if not headers:
        return []
    items = headers.items() if isinstance(headers, Mapping) else headers
    found: list[Header] = []
    for name, value in items:
        try:
            found.append((name.lower().encode("ascii"), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise ValueError(
                f"the header {name!r} holds letters that HTTP cannot carry; quote or encode it"
            ) from None
        except AttributeError:
            raise TypeError(f"the header {name!r} must be text, name and value") from None
    return found


def body_of(
    fields: list[Header],
    *,
    json: object = None,
    data: Mapping[str, Any] | Content | None = None,
    content: Content | None = None,
) -> Body:
    """The body; its type is added to the fields if they do not say one."""
    given = [name for name, value in (("json", json), ("data", data), ("content", content))
             if value is not None]  # fmt: skip
    if not given:
        return b""
    if len(given) > 1:
        raise TypeError(f"a request has one body: give {' or '.join(given)}, not both")
    if json is not None:
        _type(fields, _JSON)
        return encoded_json(json)
    if isinstance(data, Mapping):
        _type(fields, _FORM)
        return _query(data).encode("ascii")
    raw = data if data is not None else content
    if isinstance(raw, str):
        _type(fields, _TEXT)
        return raw.encode()
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, (bytearray, memoryview)):
        return bytes(raw)
    if isinstance(raw, AsyncIterable):
        return raw
    raise TypeError(
        f"{given[0]} is a {type(raw).__name__}; give bytes, text or an async iterable of bytes"
    )


def encoded_json(value: object) -> bytes:
    return jsonlib.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8"
    )


def _type(fields: list[Header], field: Header) -> None:
    if not any(name == b"content-type" for name, _ in fields):
        fields.append(field)
