"""An OpenAPI document, made into operations.

Theory of operation. The whole document is read once: every reference is followed and every schema
of a request converted and held against the metaschema, so that whatever is wrong with it is said
at load, with its place. Only compiling waits until an operation is first asked for. Callbacks,
webhooks, security requirements, response headers and XML are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from headgate.security.validation.checker import Checker, Shelf
from headgate.security.validation.dialect import Definitions, Direction, ref_to
from headgate.security.validation.forms import Encoding, Forms
from headgate.security.validation.json_text import JsonReader
from headgate.security.validation.media import kind_of, parse_media_type
from headgate.security.validation.operation import Body, Content, Operation
from headgate.security.validation.parameters import Parameter, Parameters
from headgate.security.validation.paths import PathTree, template_names
from headgate.security.validation.references import At, References, is_old_dialect
from headgate.security.validation.rules import DocumentInvalid
from headgate.security.validation.shapes import shape_of

if TYPE_CHECKING:
    from headgate.security.validation.compiling import Compiler
    from headgate.security.validation.files import Files
    from headgate.security.validation.rules import Place, ValidationRules

__all__ = ["OpenApi", "base_of"]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PLACES: Final[tuple[Place, ...]] = ("path", "query", "header", "cookie")
_STYLES: Final[dict[str, tuple[str, ...]]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
# OAS 3.1, 4.8.12.1: parameters of these names are described elsewhere and are to be ignored.
_NO_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
_BASE_DIALECTS: Final = ("spec.openapis.org/oas/3.1/dialect", "json-schema.org/draft/2020-12")

Warn = Callable[[At, str], None]


@dataclass(frozen=True, slots=True)
class _Described:
    """A parameter with the definition of its schema; None where it has none to be held to."""

    parameter: Parameter
    definition: str | None
    is_required: bool


class OpenApi:
    """Reads one document; raises DocumentInvalid for the first thing that is wrong."""

    def __init__(
        self, files: Files, rules: ValidationRules, compiler: Compiler, warn: Warn
    ) -> None:
        self._rules = rules
        self._compiler = compiler
        self._warn = warn
        self._references = References(files)
        document = files.document(files.main)
        self._at = At(files.main, (), is_old=self._is_old(document, At(files.main)))
        self._document: dict[str, Any] = document
        self._definitions: dict[Direction, Definitions] = {
            "request": self._definitions_of("request"),
            "response": self._definitions_of("response"),
        }
        self._reader = JsonReader(rules.max_depth, rules.max_values, unique_keys=rules.unique_keys)
        self._keys = frozenset(self._query_keys())
        self.base: Final = base_of(document, self._at, warn) if rules.base is None else rules.base
        self._made: list[Operation] = []
        self._checkers: dict[tuple[Direction, str], Checker] = {}
        self._shelf = Shelf()

    def tree(self) -> PathTree[dict[str, Operation]]:
        """Every path with its operations by method, in capitals."""
        tree: PathTree[dict[str, Operation]] = PathTree()
        paths = self._document.get("paths") or {}
        at = self._at / "paths"
        if not isinstance(paths, dict):
            raise at.fault("must be a mapping")
        for template, item in paths.items():
            if template.startswith("x-"):
                continue
            here = at / template
            try:
                names = template_names(template)
                where, node = self._references.deref(item, here)
                tree.add(template, self._path_item(node, where, names, here))
            except DocumentInvalid:
                raise
            except ValueError as error:
                raise here.fault(str(error)) from None
        if any(definitions.is_dynamic for definitions in self._definitions.values()):
            for each in self._made:
                each.compile()
        return tree

    # -- the document --------------------------------------------------------------------------

    @staticmethod
    def _is_old(document: Any, at: At) -> bool:
        if not isinstance(document, dict):
            raise at.fault("is no OpenAPI document: it must be a mapping")
        if "swagger" in document:
            raise at.fault("is Swagger 2.0; convert it to OpenAPI 3 first")
        version = document.get("openapi")
        if not isinstance(version, str):
            hint = ' in quotes, such as "3.1.0"' if version is not None else ""
            raise at.fault(f"is no OpenAPI document: it must say `openapi`{hint}")
        if not version.startswith(("3.0", "3.1")):
            raise at.fault(f"openapi {version[:20]} is not known; 3.0 and 3.1 are")
        dialect = document.get("jsonSchemaDialect")
        if dialect is None or any(name in str(dialect) for name in _BASE_DIALECTS):
            return is_old_dialect(document, default=False)
        if is_old_dialect({"$schema": dialect}, default=False):
            return True
        raise (at / "jsonSchemaDialect").fault(f"{str(dialect)[:200]} is not known")

    def _definitions_of(self, direction: Direction) -> Definitions:
        return Definitions(
            self._references,
            direction,
            self._compiler.check,
            self._compiler.patterns.check,
            self._warn,
            refuses_hidden=direction == "response" or self._rules.read_only == "refuse",
            formats=self._rules.formats,
        )

    def _query_keys(self) -> list[str]:
        """Names of API keys in the query, which are parameters without being described as such."""
        components = self._document.get("components")
        schemes = components.get("securitySchemes") if isinstance(components, dict) else None
        names = []
        for scheme in (schemes or {}).values():
            _, node = self._references.deref(scheme, self._at)
            if isinstance(node, dict) and node.get("in") == "query":
                names.append(str(node.get("name")))
        return names

    # -- operations ----------------------------------------------------------------------------

    def _path_item(self, item: Any, at: At, names: list[str], path_at: At) -> dict[str, Operation]:
        if not isinstance(item, dict):
            raise at.fault("must be a mapping")
        if "servers" in item:
            self._warn(at, "servers of a path are not looked at; `base` holds for all of them")
        shared = self._parameters(item.get("parameters"), at / "parameters")
        made: dict[str, Operation] = {}
        for method in METHODS:
            if method not in item:
                continue
            here = at / method
            where, node = self._references.deref(item[method], here)
            if not isinstance(node, dict):
                raise here.fault("must be a mapping")
            operation = self._operation(node, where, method, shared, names, path_at)
            made[method.upper()] = operation
            self._made.append(operation)
        return made

    def _operation(
        self,
        node: dict[str, Any],
        at: At,
        method: str,
        shared: dict[tuple[str, str], _Described],
        names: list[str],
        path_at: At,
    ) -> Operation:
        if "servers" in node:
            self._warn(at, "servers of an operation are not looked at; `base` holds for all")
        described = {**shared, **self._parameters(node.get("parameters"), at / "parameters")}
        for name in names:
            if ("path", name) not in described:
                raise at.fault(f"parameter {name} is not described")
        for place, name in described:
            if place == "path" and name not in names:
                raise at.fault(f"parameter {name} is described, but not in the path")
        by_place: dict[Place, Parameters | None] = {
            place: self._of_place(
                place, [each for (where, _), each in described.items() if where == place]
            )
            for place in _PLACES
        }
        operation = Operation(
            name=str(node.get("operationId") or f"{method.upper()} {path_at.tokens[-1]}"),
            path=by_place["path"],
            query=by_place["query"],
            header=by_place["header"],
            cookie=by_place["cookie"],
            body=self._body(node.get("requestBody"), at / "requestBody"),
            takes_any_body=self._rules.unknown == "pass",
            reader=self._reader,
            status=self._rules.status,
        )
        if self._rules.responses == "report":
            operation.responses = self._responses(node.get("responses"), at / "responses")
        return operation

    def _responses(self, node: Any, at: At) -> dict[str, Body]:
        if not isinstance(node, dict):
            return {}
        made = {}
        for status, response in node.items():
            if status.startswith("x-"):
                continue
            where, each = self._references.deref(response, at / status)
            if not isinstance(each, dict):
                raise (at / status).fault("must be a mapping")
            content = self._contents(each.get("content") or {}, where / "content", "response")
            made[status.upper() if status != "default" else status] = Body(content)
        return made

    # -- parameters ----------------------------------------------------------------------------

    def _parameters(self, nodes: Any, at: At) -> dict[tuple[str, str], _Described]:
        if nodes is None:
            return {}
        if not isinstance(nodes, list):
            raise at.fault("must be a list")
        made: dict[tuple[str, str], _Described] = {}
        for index, each in enumerate(nodes):
            where, node = self._references.deref(each, at / index)
            if not isinstance(node, dict):
                raise (at / index).fault("must be a mapping")
            place, name = node.get("in"), node.get("name")
            if place not in _PLACES or not isinstance(name, str):
                raise where.fault("a parameter must have a `name`, and `in` one of "
                                  "path, query, header, cookie")  # fmt: skip
            if place == "header" and name.lower() in _NO_PARAMETERS:
                continue
            if (place, name) in made:
                raise where.fault(f"parameter {name} is described twice")
            made[place, name] = self._parameter(node, where, place, name)
        return made

    def _parameter(self, node: dict[str, Any], at: At, place: Place, name: str) -> _Described:
        style = node.get("style", _STYLES[place][0])
        if style not in _STYLES[place]:
            known = ", ".join(_STYLES[place])
            raise at.fault(f"style {str(style)[:40]} is not one of {place}: {known}")
        definitions = self._definitions["request"]
        is_json = is_opaque = False
        schema: Any = node.get("schema")
        where = at / "schema"
        if "content" in node:
            content = node["content"]
            if "schema" in node or not isinstance(content, dict) or len(content) != 1:
                raise at.fault("`content` must have one media type, and no `schema` beside it")
            kind, entry = next(iter(content.items()))
            media = parse_media_type(kind)
            is_json = media is not None and kind_of(media.essence) == "json"
            is_opaque = not is_json
            where = at / "content" / kind / "schema"
            schema = (entry or {}).get("schema")
        elif "schema" not in node:
            raise at.fault(f"parameter {name} has neither `schema` nor `content`")
        definition = definitions.add(schema, where) if schema is not None else None
        shape = shape_of(
            definitions.schema(definition) if definition is not None else True,
            definitions.resolved,
        )
        if style == "deepObject" and not shape.is_object:
            self._warn(at, f"parameter {name}: deepObject is for objects; it is read as form")
            style = "form"
        is_required = node.get("required") is True
        if place == "path" and not is_required:
            self._warn(at, f"parameter {name} of the path must say required: true")
            is_required = True
        explode = node.get("explode", style in ("form", "deepObject"))
        parameter = Parameter(
            name,
            style,
            explode is True,
            shape,
            is_json,
            is_opaque,
            node.get("allowEmptyValue") is True and place == "query",
        )
        return _Described(parameter, None if is_opaque else definition, is_required)

    def _of_place(self, place: Place, described: list[_Described]) -> Parameters | None:
        others = self._keys if place == "query" and self._rules.strict_query else None
        if not described and others is None:
            return None
        definitions = self._definitions["request"]
        names = [each.definition for each in described if each.definition is not None]
        root = {
            "type": "object",
            "properties": {
                each.parameter.name: {"$ref": ref_to(each.definition)}
                for each in described
                if each.definition is not None
            },
            "required": [each.parameter.name for each in described if each.is_required],
        }
        checker = Checker(lambda: self._compiler.compile(definitions, root, names), place)
        parameters = tuple(each.parameter for each in described)
        return Parameters(place, parameters, checker, others, self._reader)

    # -- bodies --------------------------------------------------------------------------------

    def _body(self, node: Any, at: At) -> Body | None:
        if node is None:
            return None
        where, node = self._references.deref(node, at)
        if not isinstance(node, dict) or not isinstance(node.get("content"), dict):
            raise where.fault("a body must be a mapping with `content`")
        content = self._contents(node["content"], where / "content", "request")
        return Body(content, node.get("required") is True)

    def _contents(self, nodes: dict[str, Any], at: At, direction: Direction) -> dict[str, Content]:
        if not isinstance(nodes, dict):
            raise at.fault("must be a mapping of media types")
        return {kind: self._content(kind, node, at / kind, direction)
                for kind, node in nodes.items()}  # fmt: skip

    def _content(self, kind: str, node: Any, at: At, direction: Direction) -> Content:
        media = parse_media_type(kind)
        if media is None:
            raise at.fault("is not a media type")
        at, node = self._references.deref(node, at)
        schema = node.get("schema") if isinstance(node, dict) else None
        if schema is None:
            return Content(kind, None)
        is_range = "*" in media.essence
        if kind_of(media.essence) == "opaque" and not is_range:
            return Content(kind, None)
        definitions = self._definitions[direction]
        name = definitions.add(schema, at / "schema")
        checker = self._checkers.get((direction, name))
        if checker is None:
            checker = self._checkers[direction, name] = Checker(
                lambda: self._compiler.compile(definitions, {"$ref": ref_to(name)}, [name]),
                "body",
                self._shelf,
            )
        if kind_of(media.essence) == "json":
            return Content(kind, checker)
        shape = shape_of(definitions.schema(name), definitions.resolved)
        forms = Forms(
            shape,
            self._reader,
            self._encodings(node.get("encoding"), at / "encoding"),
            frozenset(self._binaries(schema, at / "schema", 0)),
        )
        return Content(kind, checker, forms)

    def _encodings(self, nodes: Any, at: At) -> dict[str, Encoding]:
        made: dict[str, Encoding] = {}
        for name, node in (nodes or {}).items():
            if not isinstance(node, dict):
                raise (at / name).fault("must be a mapping")
            style = node.get("style", "form")
            if style not in _STYLES["query"]:
                raise (at / name).fault(f"style {str(style)[:40]} is not one of a form")
            explode = node.get("explode", style == "form") is True
            made[name] = Encoding(str(node.get("contentType", "")), style, explode)
        return made

    def _binaries(self, schema: Any, at: At, depth: int) -> set[str]:
        """The properties whose values are bytes."""
        at, schema = self._references.deref(schema, at)
        found: set[str] = set()
        if not isinstance(schema, dict) or depth > 8:
            return found
        for name, node in (schema.get("properties") or {}).items():
            where, each = self._references.deref(node, at / "properties" / name)
            if isinstance(each, dict) and each.get("type") == "array" and "items" in each:
                _, each = self._references.deref(each["items"], where / "items")
            if isinstance(each, dict) and _is_binary(each):
                found.add(name)
        for index, branch in enumerate(schema.get("allOf") or ()):
            found |= self._binaries(branch, at / "allOf" / index, depth + 1)
        return found


def _is_binary(schema: dict[str, Any]) -> bool:
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return True
    # In 3.1 bytes have no type, since no type of JSON is theirs.
    return not schema.keys() - {"description", "title", "example", "examples"}


def base_of(document: dict[str, Any], at: At, warn: Warn) -> str:
    """The path part of the first server's URL."""
    servers = document.get("servers")
    if not isinstance(servers, list) or not servers or not isinstance(servers[0], dict):
        return ""
    url = str(servers[0].get("url", ""))
    for name, variable in (servers[0].get("variables") or {}).items():
        if isinstance(variable, dict):
            url = url.replace("{" + name + "}", str(variable.get("default", "")))
    path = urlsplit(url).path
    if "{" in path:
        warn(at / "servers" / 0, "its URL has a variable without a default; say `base`")
        return ""
    if path and not path.startswith("/"):
        warn(at / "servers" / 0, "its URL is relative; say `base` if paths begin with more than /")
        return ""
    others = {urlsplit(str(each.get("url", ""))).path.rstrip("/")
              for each in servers[1:] if isinstance(each, dict)}  # fmt: skip
    if others - {path.rstrip("/")}:
        warn(at / "servers", f"only the first is looked at: paths begin with {path or '/'}")
    return path
