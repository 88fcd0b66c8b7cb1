"""One OpenAPI document for all services behind the gateway, with the paths that clients use.

Theory of operation. A service describes itself under its own paths; a client sees those of the
routes. So each operation is told under the path that leads to it: the route's literal start comes
back where `strip` takes it off, and a `rewrite` by template is read backwards. What no route leads
to is not told, because nobody can reach it. What cannot be read backwards (a path by regular
expression) is named among what was left out, with the reason.

Names under `components` get the service's name before them, so that the `User` of one service and
that of another stay apart. Documents of 3.0 are brought to 3.1, the few words that differ.

Pure: documents in, a document out; none of those given is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from headgate.config import RouteSpec

__all__ = ["Described", "LeftOut", "Way", "merged"]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PARAM: Final = re.compile(r"\{([^{}]*)\}")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")
_LOCAL: Final = "#/components/"
_LONGEST_CHAIN: Final = 20


@dataclass(frozen=True, slots=True)
class Way:
    """A route that leads to the service."""

    name: str
    spec: RouteSpec
    auth: tuple[str, ...] = ()
    """The methods of authentication that it asks for."""


@dataclass(frozen=True, slots=True)
class Described:
    """A service, what it says of itself, and the routes to it, the first to be asked first."""

    service: str
    document: Mapping[str, Any]
    ways: Sequence[Way]


@dataclass(frozen=True, slots=True)
class LeftOut:
    service: str
    why: str


def merged(
    described: Sequence[Described], left_out: Sequence[LeftOut], version: str
) -> dict[str, Any]:
    """The whole; what is left out stands in `x-left-out`."""
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, dict[str, Any]] = {}
    missing = list(left_out)
    tags: dict[str, str] = {}
    for each in described:
        why = _fault(each.document)
        if why is not None:
            missing.append(LeftOut(each.service, why))
            continue
        mark = _UNFIT.sub("-", each.service) + "."
        document = _renamed(_modern(each.document), mark)
        for section, named in (document.get("components") or {}).items():
            if isinstance(named, Mapping):
                into = components.setdefault(section, {})
                into.update({mark + name: value for name, value in named.items()})
        told, untold = _operations(each, document, mark)
        for path, method, operation in told:
            paths.setdefault(path, {}).setdefault(method, operation)
        missing.extend(LeftOut(each.service, why) for why in untold)
        tags[each.service] = str((document.get("info") or {}).get("title") or "")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Services behind the gateway",
            "version": version,
            "description": "What clients of the gateway can ask for, from what its services say"
            " of themselves.",
        },
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": dict(sorted(paths.items())),
        "components": components,
        "x-left-out": [{"service": each.service, "why": each.why} for each in missing],
    }


def _fault(document: Mapping[str, Any]) -> str | None:
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        return "is no OpenAPI document of 3.0 or 3.1"
    if not isinstance(document.get("paths", {}), Mapping):
        return "its `paths` are no mapping"
    for reference in _references(document):
        if not reference.startswith("#/"):
            return f"refers to another document: {reference[:200]}"
    return None


def _references(node: object) -> Iterator[str]:
    waiting = [node]
    while waiting:
        at = waiting.pop()
        if isinstance(at, Mapping):
            if isinstance(at.get("$ref"), str):
                yield at["$ref"]
            waiting.extend(at.values())
        elif isinstance(at, list):
            waiting.extend(at)


# -- paths -----------------------------------------------------------------------------------


def _operations(
    each: Described, document: Mapping[str, Any], mark: str
) -> tuple[list[tuple[str, str, dict[str, Any]]], list[str]]:
    """(path, method, operation) as clients see them; and why some routes tell nothing."""
    told: list[tuple[str, str, dict[str, Any]]] = []
    untold: list[str] = []
    base = _base(document)

    def resolve(node: object) -> object:
        return _resolved(node, document, mark)

    for way in each.ways:
        if (why := _unreadable(way.spec)) is not None:
            untold.append(f"route {way.name}: {why}")
            continue
        for template, item in (document.get("paths") or {}).items():
            path = _public(way.spec, base + template) if template.startswith("/") else None
            if path is None or not isinstance(item, Mapping):
                continue
            told.extend(
                (path, method, _operation(each.service, way, item, operation, resolve, mark))
                for method, operation in item.items()
                if method in _METHODS
                and isinstance(operation, Mapping)
                and _takes(way.spec, method.upper())
            )
    return told, untold


def _operation(
    service: str,
    way: Way,
    item: Mapping[str, Any],
    own: Mapping[str, Any],
    resolve: Callable[[object], object],
    mark: str,
) -> dict[str, Any]:
    operation = {**own, "x-headgate-route": way.name}
    shared, said = item.get("parameters"), own.get("parameters")
    both = [
        *(shared if isinstance(shared, list) else ()),
        *(said if isinstance(said, list) else ()),
    ]
    if both:
        operation["parameters"] = [resolve(each) for each in both]
    if "requestBody" in own:
        operation["requestBody"] = resolve(own["requestBody"])
    if isinstance(own.get("responses"), Mapping):
        operation["responses"] = {str(k): resolve(v) for k, v in own["responses"].items()}
    tags = own.get("tags")
    operation["tags"] = [service, *(tags if isinstance(tags, list) else ())]
    if isinstance(own.get("operationId"), str):
        operation["operationId"] = mark + own["operationId"]
    if way.auth:
        operation["x-headgate-auth"] = list(way.auth)
    return operation


def _resolved(node: object, document: Mapping[str, Any], mark: str) -> object:
    """What a reference to a parameter, body or response stands for, so that it can be read here."""
    for _ in range(_LONGEST_CHAIN):
        if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
            return node
        section, _, name = node["$ref"].removeprefix(_LOCAL).partition("/")
        named = (document.get("components") or {}).get(section)
        found = named.get(name.removeprefix(mark)) if isinstance(named, Mapping) else None
        if found is None:
            return node
        node = found
    return node


def _base(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = str(first.get("url", "")) if isinstance(first, Mapping) else ""
    path = urlsplit(url).path.rstrip("/")
    return path if path.startswith("/") and "{" not in path else ""


def _unreadable(route: RouteSpec) -> str | None:
    if route.match.regex is not None:
        return "its path is a regular expression"
    if route.rewrite is not None and route.rewrite.template is None:
        return "its path is rewritten by a regular expression"
    return None


def _public(route: RouteSpec, path: str) -> str | None:
    """The path that clients use for what the service calls `path`; None: no client gets there."""
    match = route.match
    if route.rewrite is not None:
        is_it = _shape(route.rewrite.template or "") == _shape(path)
        return _plain(match.exact or match.path or "/") if is_it else None
    if route.strip:
        path = (match.exact or match.path or "").partition("{")[0].rstrip("/") + path
    if match.exact is not None:
        return path if path == match.exact else None
    if match.path is None:
        return path
    if "{" in match.path:
        return path if _is_under(path, match.path) else None
    start = match.path.rstrip("/")
    return path if path == start or path.startswith(start + "/") else None


def _is_under(path: str, template: str) -> bool:
    """Whether the template takes the path: in whole, or up to a parameter that takes the rest."""
    if template.endswith(":path}"):
        head, rest = template.rpartition("{")[0], path.split("/")
        taken = head.count("/")
        return len(rest) > taken and _shape("/".join(rest[:taken]) + "/") == _shape(head)
    return _shape(path).rstrip("/") == _shape(template).rstrip("/")


def _shape(template: str) -> str:
    return _PARAM.sub("{}", template)


def _plain(template: str) -> str:
    """Without the types of its parameters."""
    return _PARAM.sub(lambda found: "{" + found[1].partition(":")[0] + "}", template)


def _takes(route: RouteSpec, method: str) -> bool:
    wanted = route.match.methods
    return not wanted or method in wanted or (method == "HEAD" and "GET" in wanted)


# -- names and words -------------------------------------------------------------------------


def _renamed(document: Any, mark: str) -> Any:
    """Every reference to a component by its new name; also those by name alone."""
    if isinstance(document, list):
        return [_renamed(each, mark) for each in document]
    if not isinstance(document, Mapping):
        return document
    new = {key: _renamed(value, mark) for key, value in document.items()}
    reference = new.get("$ref")
    if isinstance(reference, str):
        new["$ref"] = _marked(reference, mark)
    mapping = new.get("mapping")
    if "propertyName" in new and isinstance(mapping, Mapping):
        new["mapping"] = {
            value: _marked(name, mark) if isinstance(name, str) else name
            for value, name in mapping.items()
        }
    security = new.get("security")
    if isinstance(security, list):
        new["security"] = [
            {mark + name: scopes for name, scopes in each.items()}
            for each in security
            if isinstance(each, Mapping)
        ]
    return new


def _marked(reference: str, mark: str) -> str:
    if not reference.startswith(_LOCAL):
        return reference
    section, slash, name = reference.removeprefix(_LOCAL).partition("/")
    return f"{_LOCAL}{section}{slash}{mark}{name}"


def _modern(document: Any) -> Any:
    """What 3.0 says otherwise than 3.1: `nullable`, and bounds that are switches."""
    if not str(document.get("openapi", "")).startswith("3.0"):
        return document
    return _modern_node(document)


def _modern_node(node: Any) -> Any:
    if isinstance(node, list):
        return [_modern_node(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    new = {key: _modern_node(value) for key, value in node.items()}
    if isinstance(new.get("nullable"), bool):
        is_nullable = new.pop("nullable")
        if is_nullable and isinstance(new.get("type"), str):
            new["type"] = [new["type"], "null"]
        elif is_nullable:
            new = {"anyOf": [new, {"type": "null"}]}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        switch = new.get(exclusive)
        if isinstance(switch, bool):
            del new[exclusive]
            if switch and bound in new:
                new[exclusive] = new.pop(bound)
    return new
