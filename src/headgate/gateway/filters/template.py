"""Header values with places for what a request brings: `{client_ip}`, `{param.id}`, ...

Theory of operation. A text is compiled once, when the plan is built. Without a place in it, it
becomes bytes and costs nothing later; otherwise it becomes a function of the request (and of the
response, where there is one). What an editor must not break: what a place yields comes from the
client, so the finished value is cleared of control characters before it is used; percent-decoding
`{query.z}` is the classic way to smuggle CR LF into a header. A place whose value is missing
yields nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_plus

from headgate.gateway.filters.base import Request, Response, encode_value

Render = Callable[[Request, Response | None], bytes]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|([{}])|[^{}]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_has_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class TemplateInvalid(ValueError):
    """The text names a value that does not exist, or its braces do not match."""


def _status(_request: Request, response: Response | None) -> bytes:
    return b"%d" % response.status if response else b""


_PLAIN: dict[str, Render] = {
    "client_ip": lambda request, _: request.client_ip.encode(),
    "host": lambda request, _: request.host.encode("utf-8", "replace"),
    "method": lambda request, _: request.method.encode("latin-1", "replace"),
    "path": lambda request, _: request.path.encode("utf-8", "replace"),
    "query": lambda request, _: request.query.encode("utf-8", "replace"),
    "request_id": lambda request, _: request.request_id.encode("latin-1", "replace"),
    "route": lambda request, _: request.route.encode(),
    "scheme": lambda request, _: b"https" if request.is_tls else b"http",
    "service": lambda request, _: (request.service or "").encode(),
}
_RESPONSE_PLAIN: dict[str, Render] = {"status": _status}
_FAMILIES = ("header", "param", "query")
_RESPONSE_FAMILIES = ("response_header",)


def compile_template(text: str, *, in_response: bool = False) -> bytes | Render:
    """Return `text` as bytes, or as a function when it has places to fill.

    `in_response` allows `{status}` and `{response_header.x}` as well. Doubled braces stand for
    themselves. Raises TemplateInvalid, or ValueError for text no header may hold.
    """
    pieces: list[bytes | Render] = []
    literal = ""
    for match in _PIECE.finditer(text):
        whole, name, stray = match.group(0), match.group(1), match.group(2)
        if stray:
            raise TemplateInvalid(
                f"unmatched {stray!r} in {text!r}; write {stray * 2!r} for itself"
            )
        if name is None:
            literal += whole[0] if whole in {"{{", "}}"} else whole
            continue
        if literal:
            pieces.append(_encode_literal(literal))
            literal = ""
        pieces.append(_place(name, in_response=in_response))
    if not pieces:
        return encode_value(literal)
    if literal:
        pieces.append(_encode_literal(literal))
    return _renderer(pieces)


def _encode_literal(text: str) -> bytes:
    # encode_value strips the ends, which are inner spaces here.
    encode_value(text)
    return text.encode("latin-1")


def _place(name: str, *, in_response: bool) -> Render:
    plain = {**_PLAIN, **_RESPONSE_PLAIN} if in_response else _PLAIN
    if name in plain:
        return plain[name]
    families = (*_FAMILIES, *_RESPONSE_FAMILIES) if in_response else _FAMILIES
    family, dot, key = name.partition(".")
    if dot and family in families:
        if family != "query" and not _NAME(key):
            raise TemplateInvalid(f"{{{name}}} does not name a {family.replace('_', ' ')}")
        return _FAMILY_RENDER[family](key)
    known = [*plain, *(f"{f}.NAME" for f in families)]
    near = difflib.get_close_matches(name, [*plain, *families], 1)
    hint = f"did you mean {{{near[0]}}}?" if near else f"known are {_listed(known)}"
    raise TemplateInvalid(f"unknown value {{{name}}}; {hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


def _header(name: str) -> Render:
    key = name.lower().encode("latin-1")

    def render(request: Request, _response: Response | None) -> bytes:
        for k, v in request.headers.raw:
            if k == key:
                return v
        return b""

    return render


def _response_header(name: str) -> Render:
    key = name.lower().encode("latin-1")

    def render(_request: Request, response: Response | None) -> bytes:
        if response is not None:
            for k, v in response.headers.raw:
                if k == key:
                    return v
        return b""

    return render


def _param(name: str) -> Render:
    def render(request: Request, _response: Response | None) -> bytes:
        return request.params.get(name, "").encode("utf-8", "replace")

    return render


def _query(name: str) -> Render:
    def render(request: Request, _response: Response | None) -> bytes:
        for pair in request.query.split("&"):
            key, _, value = pair.partition("=")
            if key == name or (("%" in key or "+" in key) and unquote_plus(key) == name):
                return unquote_plus(value).encode("utf-8", "replace")
        return b""

    return render


_FAMILY_RENDER: dict[str, Callable[[str], Render]] = {
    "header": _header,
    "param": _param,
    "query": _query,
    "response_header": _response_header,
}


def _renderer(pieces: list[bytes | Render]) -> Render:
    if len(pieces) == 1 and callable(pieces[0]):
        only = pieces[0]

        def render_one(request: Request, response: Response | None) -> bytes:
            value = only(request, response)
            return _cleared(value) if _has_control(value) else value.strip(b" \t")

        return render_one

    def render(request: Request, response: Response | None) -> bytes:
        value = b"".join([p if isinstance(p, bytes) else p(request, response) for p in pieces])
        return _cleared(value) if _has_control(value) else value.strip(b" \t")

    return render


def _cleared(value: bytes) -> bytes:
    return value.translate(None, _CONTROLS).strip(b" \t")
