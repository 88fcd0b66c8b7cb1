"""Bodies, queries and headers that are held against JSON Schemas without an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.checker import Checker
from headgate.security.validation.files import Files
from headgate.security.validation.json_text import JsonReader
from headgate.security.validation.operation import Body, Content, Operation
from headgate.security.validation.parameters import Parameter, Parameters
from headgate.security.validation.references import At, References
from headgate.security.validation.rules import DocumentInvalid
from headgate.security.validation.shapes import shape_of

if TYPE_CHECKING:
    from headgate.security.validation.compiling import Compiler
    from headgate.security.validation.rules import Place, ValidationRules

__all__ = ["plain_operations"]

_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_JSON: Final = ("application/json", "application/*+json", "text/json")


class _Inline(Files):
    """A schema that stands in the configuration: it has no folder, and refers to no file."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        super().__init__(name)
        self._known[name] = _plain(schema)

    def beside(self, name: str, reference: str) -> str:
        msg = f"{reference[:200]}: a schema in the configuration cannot refer to files"
        raise DocumentInvalid(msg)


def plain_operations(
    rules: ValidationRules, compiler: Compiler
) -> tuple[dict[str, Operation], Operation, list[Files]]:
    """The operations of methods that need a body, that of all others, and the files they are in.

    Validators are compiled here: there are three at most.
    """
    reader = JsonReader(rules.max_depth, rules.max_values, unique_keys=rules.unique_keys)
    used: list[Files] = []

    def parameters(
        said: str | Mapping[str, Any] | None, name: str, place: Place
    ) -> Parameters | None:
        if said is None:
            return None
        schema, at, files = _schema(said, name, used)
        return _parameters(schema, at, files, place, rules, compiler, reader)

    query = parameters(rules.query, "query", "query")
    if query is None and rules.strict_query:
        query = parameters({"type": "object", "properties": {}}, "query", "query")
    header = parameters(rules.headers, "headers", "header")
    content = None
    if rules.body is not None:
        schema, at, files = _schema(rules.body, "body", used)
        compiled = compiler.compile_file(schema, at, files)
        checker = Checker(lambda: compiled, "body")
        content = {kind: Content(kind, checker) for kind in _JSON}

    def operation(*, needs_body: bool) -> Operation:
        return Operation(
            name="",
            query=query,
            header=header,
            body=Body(content, needs_body) if content is not None else None,
            reader=reader,
            status=rules.status,
        )

    asking = operation(needs_body=True)
    return dict.fromkeys(_WITH_BODY, asking), operation(needs_body=False), used


def _schema(said: str | Mapping[str, Any], name: str, used: list[Files]) -> tuple[Any, At, Files]:
    files = Files(said) if isinstance(said, str) else _Inline(name, said)
    used.append(files)
    return files.document(files.main), At(files.main), files


def _parameters(
    schema: Any,
    at: At,
    files: Files,
    place: Place,
    rules: ValidationRules,
    compiler: Compiler,
    reader: JsonReader,
) -> Parameters:
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        raise at.fault(f"the schema of the {place} must have `properties`, one for each parameter")
    references = References(files)

    def resolved(node: Any) -> Any:
        return references.deref(node, at)[1]

    shapes = {name: shape_of(each, resolved) for name, each in schema["properties"].items()}
    is_closed = schema.get("additionalProperties") is False or rules.strict_query
    compiled = compiler.compile_file(schema, at, files)
    return Parameters(
        place,
        tuple(
            Parameter(name, "form" if place == "query" else "simple", place == "query", shape)
            for name, shape in shapes.items()
        ),
        Checker(lambda: compiled, place),
        frozenset() if place == "query" and is_closed else None,
        reader,
    )


def _plain(value: Any) -> Any:
    """Mappings and tuples of a frozen configuration as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
