"""Where a `$ref` leads: pointers, anchors and identifiers, in this file and in others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urljoin, urlsplit

from headgate.security.validation.rules import DocumentInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.security.validation.files import Files

__all__ = ["At", "References", "at_key", "pointer_of"]

_MISSING: Final = object()
_MAX_HOPS: Final = 50
_OLD_DIALECTS: Final = ("draft-03", "draft-04", "draft-05", "draft-06", "draft-07")

Token = str | int


@dataclass(frozen=True, slots=True)
class At:
    """A place in a file, and what governs it there."""

    file: str
    tokens: tuple[Token, ...] = ()
    is_old: bool = False
    """Whether schemas here are written as before 2019-09, as those of OpenAPI 3.0 are."""
    resource: tuple[Token, ...] = ()
    """Where the schema resource begins that this place is in: the nearest `$id`, or the file."""
    uri: str = ""
    """That `$id`, made absolute as far as it goes."""

    def __truediv__(self, token: Token) -> At:
        return At(self.file, (*self.tokens, token), self.is_old, self.resource, self.uri)

    def __str__(self) -> str:
        """As "users.yaml: paths./users/{id}.get.parameters[0]"."""
        text = ""
        for token in self.tokens:
            if isinstance(token, int):
                text += f"[{token}]"
            else:
                text += f".{token}" if text else token
        return f"{self.file}: {text}" if text else self.file

    def fault(self, what: str) -> DocumentInvalid:
        return DocumentInvalid(f"{self}: {what}" if self.tokens else f"{self.file}: {what}")


def at_key(at: At, node: dict[str, Any]) -> At:
    """The place as it is for what stands in `node`, which may begin a schema resource."""
    said = node.get("$id")
    if isinstance(said, str) and not at.is_old and not said.startswith("#"):
        return replace(at, resource=at.tokens, uri=urljoin(at.uri, said))
    return at


def pointer_of(tokens: tuple[Token, ...] | list[Token]) -> str:
    """The tokens as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(t).replace('~', '~0').replace('/', '~1')}" for t in tokens)


class References:
    """Follows references. What was found once is kept."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._named: dict[str, dict[str, At]] = {}
        self._found: dict[tuple[str, tuple[Token, ...], bool, str], tuple[At, Any]] = {}

    def node(self, at: At) -> Any:
        """What stands at a place."""
        return self._get(at.file, (), at.tokens, at, "")

    def follow(self, reference: object, at: At) -> tuple[At, Any]:
        """Where `reference`, which stands at `at`, leads; raises DocumentInvalid."""
        if not isinstance(reference, str):
            raise at.fault("a $ref must be text")
        key = (at.file, at.resource, at.is_old, reference)
        known = self._found.get(key)
        if known is None:
            known = self._found[key] = self._follow(reference, at)
        return known

    def deref(self, node: Any, at: At) -> tuple[At, Any]:
        """The object itself where `node` is one, else the one that its `$ref` leads to."""
        seen = 0
        while isinstance(node, dict) and "$ref" in node:
            seen += 1
            if seen > _MAX_HOPS:
                raise at.fault(f"$ref {node['$ref']!r} leads in a circle")
            at, node = self.follow(node["$ref"], at)
        return at, node

    def _follow(self, reference: str, at: At) -> tuple[At, Any]:
        path, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        target = replace(at, tokens=at.resource)
        if path:
            target = self._named_or_file(path, reference, at)
        if not fragment:
            return target, self.node(target)
        if fragment.startswith("/"):
            tokens = tuple(t.replace("~1", "/").replace("~0", "~") for t in fragment[1:].split("/"))
            node = self._get(target.file, target.resource, tokens, at, reference)
            whole = (*target.resource, *self._as_walked(target, tokens))
            return replace(target, tokens=whole), node
        anchor = self._names(target).get(f"{target.uri}#{fragment}")
        if anchor is None:
            raise at.fault(f'$ref "{reference[:200]}" leads nowhere: no $anchor {fragment[:80]!r}')
        return anchor, self.node(anchor)

    def _named_or_file(self, path: str, reference: str, at: At) -> At:
        wanted = urljoin(at.uri, path)
        if at.uri or urlsplit(wanted).scheme:
            known = self._names(at).get(f"{wanted}#")
            if known is not None:
                return known
        try:
            file = self._files.beside(at.file, path)
            document = self._files.document(file)
        except DocumentInvalid as error:
            msg = f'{at}: $ref "{reference[:200]}": {error}'
            raise DocumentInvalid(msg) from None
        return At(file, (), is_old_dialect(document, default=at.is_old))

    def _names(self, at: At) -> dict[str, At]:
        """Every `$id` and `$anchor` of a file."""
        known = self._named.get(at.file)
        if known is None:
            start = At(at.file, (), at.is_old)
            known = self._named[at.file] = dict(_names_in(self._files.document(at.file), start))
        return known

    def _as_walked(self, target: At, tokens: tuple[str, ...]) -> Iterator[Token]:
        node = self._get(target.file, (), target.resource, target, "")
        for token in tokens:
            step: Token = int(token) if isinstance(node, list) else token
            yield step
            node = node[step]

    def _get(
        self, file: str, start: tuple[Token, ...], tokens: tuple[Token, ...], at: At, reference: str
    ) -> Any:
        node = self._files.document(file)
        for token in (*start, *tokens):
            got: Any = _MISSING
            if isinstance(node, dict):
                got = node.get(str(token), _MISSING)
            elif isinstance(node, list) and str(token).isdecimal() and int(token) < len(node):
                got = node[int(token)]
            if got is _MISSING:
                where = "" if file == at.file else f" in {file}"
                said = f'$ref "{reference[:200]}" leads nowhere: '
                raise at.fault(f"{said}there is no {str(token)[:80]!r}{where}")
            node = got
        return node


def is_old_dialect(document: Any, *, default: bool) -> bool:
    """Whether schemas in a file are of the old kind, by what it says of itself."""
    if not isinstance(document, dict):
        return default
    if "openapi" in document:
        return str(document["openapi"]).startswith("3.0")
    said = document.get("$schema")
    if isinstance(said, str):
        return any(name in said for name in _OLD_DIALECTS)
    return default


def _names_in(document: Any, start: At) -> Iterator[tuple[str, At]]:
    stack: list[tuple[Any, At]] = [(document, start)]
    while stack:
        node, at = stack.pop()
        if isinstance(node, dict):
            at = at_key(at, node)
            if at.resource == at.tokens and at.uri:
                yield f"{at.uri}#", at
            for word in ("$anchor", "$dynamicAnchor"):
                if isinstance(name := node.get(word), str):
                    yield f"{at.uri}#{name}", at
            stack.extend((value, at / key) for key, value in node.items())
        elif isinstance(node, list):
            stack.extend((value, at / index) for index, value in enumerate(node))
