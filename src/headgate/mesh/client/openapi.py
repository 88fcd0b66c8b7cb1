"""Functions of a service as its OpenAPI document has them. Pure: a document in, requests out.

Theory of operation
-------------------
OpenAPI 3.0 and 3.1. A function is an operation, found by its `operationId`, or by the name of the
Python function behind it, where the id is what FastAPI makes of one (`get_user_users__id__get`) and
only one has that name. Its arguments are the operation's parameters, by name, with `_` for what
Python does not allow in one; and the properties of its JSON body, if that is an object, or `body`.

Arguments are judged before anything is sent: unknown names, missing ones, values of a type that
cannot be meant. The types are looked at as far as they help whoever made a slip (text for a number,
a word that is not in the enumeration); what a schema says beyond that is the service's to judge.

A document is somebody else's text: references are followed within it alone, and not for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

from headgate.mesh.client.answering import has_words
from headgate.mesh.client.failures import WrongArguments, hint_of

__all__ = ["Asked", "Document", "Operation", "Parameter", "request_of"]

Place = Literal["path", "query", "header", "cookie"]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_REFS_MAX: Final = 50
_JSON: Final = re.compile(r"application/(json|[\w.+-]+\+json)\b", re.IGNORECASE)
_FORM: Final = "application/x-www-form-urlencoded"
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
    "array": (list, tuple),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    place: Place
    required: bool
    schema: Mapping[str, Any]
    explode: bool = True

    @property
    def argument(self) -> str:
        """What it is called in Python."""
        return re.sub(r"\W", "_", self.name)


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] | None = None
    """The schema of the body; None where there is none."""
    body_required: bool = False
    is_form: bool = False
    responses: Mapping[str, str] = field(default_factory=dict)
    """What each status means, in words."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Of a body that is an object."""
        found = (self.body or {}).get("properties")
        return found if isinstance(found, Mapping) else {}

    def says(self, status: int) -> str:
        """What the document says of this status."""
        return (
            self.responses.get(str(status))
            or self.responses.get(f"{status // 100}XX")
            or self.responses.get("default", "")
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, ready to be sent."""

    method: str
    path: str
    params: Sequence[tuple[str, Any]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    data: Mapping[str, Any] | None = None


class Document:
    def __init__(self, content: object) -> None:
        """Raises ValueError for what is no OpenAPI document of version 3."""
        if not isinstance(content, Mapping):
            raise ValueError("is no OpenAPI document: it is no object")
        version = str(content.get("openapi", ""))
        if not version.startswith("3."):
            said = f"OpenAPI {version}" if version else "no OpenAPI document"
            raise ValueError(f"is {said}; versions 3.0 and 3.1 are understood")
        self._content = content
        self.prefix = _prefix(content.get("servers"))
        self.operations: dict[str, Operation] = {}
        self._by_function: dict[str, list[str]] = {}
        paths = content.get("paths")
        for path, item in paths.items() if isinstance(paths, Mapping) else ():
            self._take(str(path), self._followed(item))

    def find(self, function: str) -> Operation | None:
        found = self.operations.get(function)
        if found is None:
            ids = self._by_function.get(function, ())
            if len(ids) == 1:
                found = self.operations[ids[0]]
        return found

    def unknown(self, function: str, service: str) -> WrongArguments:
        """What to say of a function that is not there."""
        ids = self._by_function.get(function, ())
        if len(ids) > 1:
            return WrongArguments(
                f"{service}.{function} may be {' or '.join(ids)}; call it by its operationId"
            )
        names = sorted({*self.operations, *self._by_function})
        hint = hint_of(function, names) or f"it has {', '.join(names[:12]) or 'none'}"
        return WrongArguments(f"{service} has no function {function}; {hint}")

    def _take(self, path: str, item: Any) -> None:
        if not isinstance(item, Mapping):
            return
        shared = self._parameters(item.get("parameters"))
        for method in _METHODS:
            operation = self._followed(item.get(method))
            if not isinstance(operation, Mapping):
                continue
            generated = _generated(path, method)
            id_ = str(operation.get("operationId") or f"{method}{generated}")
            own = self._parameters(operation.get("parameters"))
            named = {(each.place, each.name): each for each in (*shared, *own)}
            body, required, is_form = self._body(operation.get("requestBody"))
            responses = operation.get("responses")
            self.operations[id_] = Operation(
                id_,
                method.upper(),
                path,
                tuple(named.values()),
                body,
                required,
                is_form,
                {
                    str(status): str(self._followed(each).get("description", ""))
                    for status, each in (
                        responses.items() if isinstance(responses, Mapping) else ()
                    )
                    if isinstance(self._followed(each), Mapping)
                },
            )
            if id_.endswith(generated) and len(id_) > len(generated):
                self._by_function.setdefault(id_.removesuffix(generated), []).append(id_)

    def _parameters(self, rows: object) -> tuple[Parameter, ...]:
        found: list[Parameter] = []
        for row in rows if isinstance(rows, list) else ():
            each = self._followed(row)
            if not isinstance(each, Mapping):
                continue
            place = each.get("in")
            if place not in ("path", "query", "header", "cookie") or not each.get("name"):
                continue
            schema = self._followed(each.get("schema"))
            found.append(
                Parameter(
                    str(each["name"]),
                    place,
                    bool(each.get("required")) or place == "path",
                    schema if isinstance(schema, Mapping) else {},
                    each.get("explode", place in ("query", "cookie")) is not False,
                )
            )
        return tuple(found)

    def _body(self, said: object) -> tuple[Mapping[str, Any] | None, bool, bool]:
        body = self._followed(said)
        content = body.get("content") if isinstance(body, Mapping) else None
        if not isinstance(content, Mapping) or not isinstance(body, Mapping):
            return None, False, False
        required = bool(body.get("required"))
        for kind, media in content.items():
            if _JSON.match(str(kind)) or str(kind) == _FORM:
                schema = self._followed(media.get("schema") if isinstance(media, Mapping) else None)
                found = dict(schema) if isinstance(schema, Mapping) else {}
                properties = found.get("properties")
                if isinstance(properties, Mapping):
                    found["properties"] = {
                        name: self._followed(each) for name, each in properties.items()
                    }
                return found, required, str(kind) == _FORM
        return {}, required, False

    def _followed(self, node: Any) -> Any:
        """What a reference leads to, if it is one."""
        for _ in range(_REFS_MAX):
            if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
                return node
            ref = node["$ref"]
            if not ref.startswith("#/"):
                return {}
            found: Any = self._content
            for part in ref[2:].split("/"):
                key = part.replace("~1", "/").replace("~0", "~")
                found = found.get(key) if isinstance(found, Mapping) else None
            node = found
        return {}


def _generated(path: str, method: str) -> str:
    """What FastAPI puts behind the name of a function."""
    return f"{re.sub(r'[^a-zA-Z0-9_]', '_', path)}_{method}"


def _prefix(servers: object) -> str:
    first = servers[0] if isinstance(servers, list) and servers else None
    url = first.get("url") if isinstance(first, Mapping) else None
    if not isinstance(url, str) or "{" in url:
        return ""
    return urlsplit(url).path.rstrip("/")


# -- from arguments to a request -------------------------------------------------------------


def request_of(
    operation: Operation, arguments: Mapping[str, Any], what: str, prefix: str = ""
) -> Asked:
    """Raises WrongArguments, with all that is wrong at once."""
    left = dict(arguments)
    wrong: list[str] = []
    path = operation.path
    params: list[tuple[str, Any]] = []
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for each in operation.parameters:
        name = each.argument if each.argument in left else each.name
        if name not in left:
            if each.required:
                wrong.append(f"{each.argument} is missing")
            continue
        value = left.pop(name)
        if value is None and not each.required:
            continue
        if fault := _fault(each.argument, value, each.schema):
            wrong.append(fault)
            continue
        if each.place == "path":
            path = path.replace("{" + each.name + "}", quote(_text(value), safe=""))
        elif each.place == "query":
            params += _pairs(each, value)
        elif each.place == "header":
            headers[each.name] = _text(value)
        else:
            cookies.append(f"{each.name}={quote(_text(value), safe='')}")
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    body = _body_of(operation, left, wrong)
    if left:
        known = [each.argument for each in operation.parameters] + list(operation.properties)
        if operation.body is not None:
            known.append("body")
        wrong += [_unknown(name, known) for name in left]
    if wrong:
        raise WrongArguments(f"{what}: {'; '.join(wrong)}")
    return Asked(
        operation.method,
        prefix + path,
        params,
        headers,
        None if operation.is_form else body,
        body if operation.is_form and isinstance(body, Mapping) else None,
    )


def _body_of(operation: Operation, left: dict[str, Any], wrong: list[str]) -> Any:
    """The body, from `body` or from the arguments that are properties of it."""
    if operation.body is None:
        return None
    if "body" in left and "body" not in operation.properties:
        return left.pop("body")
    needs = operation.body.get("required")
    given = {name: left.pop(name) for name in list(left) if name in operation.properties}
    if not given and not operation.body_required:
        return None
    if not operation.properties:
        if operation.body_required:
            wrong.append("body is missing")
        return None
    for name in needs if isinstance(needs, list) else ():
        if name not in given:
            wrong.append(f"{name} is missing")
    for name, value in given.items():
        if fault := _fault(name, value, operation.properties[name]):
            wrong.append(fault)
    return given


def _unknown(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    hint = hint_of(name, names) or (f"it takes {', '.join(names)}" if names else "it takes none")
    return f"{name} is no argument; {hint}"


def _fault(name: str, value: Any, schema: Any) -> str:
    """What is wrong with a value, as far as its type goes."""
    if not isinstance(schema, Mapping):
        return ""
    kinds = schema.get("type")
    wanted = [kinds] if isinstance(kinds, str) else list(kinds) if isinstance(kinds, list) else []
    if value is None or not wanted:
        # `anyOf` and references within are the service's to judge.
        choices = schema.get("enum")
    else:
        fits = False
        for kind in wanted:
            types = _TYPES.get(kind)
            if types is None:
                fits = True
            elif isinstance(value, bool):
                fits = fits or kind == "boolean"
            elif isinstance(value, types) or (kind == "string" and _is_written(value)):
                fits = True
        if not fits:
            return f"{name} is {_shown(value)}, and must be of type {' or '.join(wanted)}"
        choices = schema.get("enum")
    if isinstance(choices, list) and value is not None and value not in choices:
        shown = ", ".join(str(each) for each in choices[:12])
        return f"{name} is {_shown(value)}, and must be one of {shown}"
    return ""


def _is_written(value: object) -> bool:
    """Whether it is written as text: dates, ids, enumerations."""
    plain = (int, float, bool, list, tuple, dict, set, bytes)
    return not isinstance(value, plain) and has_words(value)


def _shown(value: object) -> str:
    """The kind of a value: the value itself may be a secret."""
    return f"a {type(value).__name__}" if not isinstance(value, (int, float, bool)) else str(value)


def _pairs(parameter: Parameter, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, (list, tuple, set, frozenset)):
        if parameter.explode:
            return [(parameter.name, _text(each)) for each in value]
        return [(parameter.name, ",".join(_text(each) for each in value))]
    return [(parameter.name, _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(each) for each in value)
    value = getattr(value, "value", value)  # of an enumeration
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
