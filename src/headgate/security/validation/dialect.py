"""Schemas as OpenAPI writes them, made into JSON Schema 2020-12, which is what gets compiled.

Theory of operation
-------------------
Each schema that a document refers to becomes one definition, named after the order in which it
was met; a `$ref` becomes a reference to a definition. So a definition is made once, cycles need no
care, and a compiled validator is given no more than it can reach. Requests and responses have
definitions of their own, because they differ:

    readOnly     in a request: no longer required; refused if sent, unless told to pass
    writeOnly    in a response: the same

What OpenAPI 3.0 and the drafts before 2019-09 write another way (`nullable`, boolean
`exclusiveMinimum`, lists of `items`, `dependencies`, nothing beside a `$ref`) is rewritten.

    nullable     with `type` it adds "null" to it (3.0.3). Without one it says nothing by the
                 letter, but `allOf: [$ref]` with `nullable: true` is how generators write "or
                 null", so null is taken.
    discriminator  chooses the alternative of `oneOf` or `anyOf` whose name it holds, so that the
                 faults are told of that one alone.
    int32, int64 become a minimum and a maximum.

What an editor must not break: every pattern passes `patterns.check_pattern`; every definition is
held against the metaschema at load, so that compiling it later cannot fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from headgate.security.validation.references import At, References, at_key
from headgate.security.validation.rules import DocumentInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["BUNDLE", "Definitions", "Direction", "ref_to"]

Direction = Literal["request", "response"]

BUNDLE: Final = "headgate:///bundle"
_HIDDEN: Final[dict[Direction, str]] = {"request": "readOnly", "response": "writeOnly"}
_ONE: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LIST: Final = frozenset({"allOf", "prefixItems"})
_CHOICES: Final = frozenset({"anyOf", "oneOf"})
_MAP: Final = frozenset({"dependentSchemas", "properties", "patternProperties"})
_KEPT: Final = frozenset(
    {
        "$dynamicAnchor",
        "const",
        "dependentRequired",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "type",
        "uniqueItems",
    }
)
_DONE_APART: Final = frozenset(
    {"$defs", "$dynamicRef", "$id", "$ref", "format", "pattern", "required", "discriminator"}
)
_SILENT: Final = frozenset(
    {
        "$anchor",
        "$comment",
        "$schema",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "default",
        "definitions",
        "deprecated",
        "description",
        "example",
        "examples",
        "externalDocs",
        "id",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    }
)
_OLD_ONLY: Final = frozenset({"additionalItems", "dependencies", "nullable"})
_RANGES: Final = {"int32": 2**31, "int64": 2**63}
_DEPTH_MAX: Final = 200
_BUNDLE_MAX: Final = 8000
"""Compiling recurses along references; some 20,000 in a row would exhaust the stack."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+").fullmatch
_NO_FORMAT: Final = frozenset({"binary", "password", "float", "double", "int32", "int64"})


def ref_to(name: str) -> str:
    """A reference to a definition."""
    return f"{BUNDLE}#/$defs/{name}"


def _turned(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {name: set() for name in edges}
    for name, others in edges.items():
        for other in others:
            if other in turned:
                turned[other].add(name)
    return turned


@dataclass(slots=True, eq=False)
class _Definition:
    at: At
    schema: Any = None
    refs: set[str] = field(default_factory=set)
    choices: set[str] = field(default_factory=set)
    """Those of them that stand in alternatives."""
    has_alternatives: bool = False


class Definitions:
    """The schemas of one direction, converted."""

    def __init__(
        self,
        references: References,
        direction: Direction,
        check: Callable[[Any, At], None],
        check_pattern: Callable[[str, At], None],
        warn: Callable[[At, str], None],
        *,
        refuses_hidden: bool = True,
        formats: bool = True,
    ) -> None:
        self._references = references
        self._hidden_word = _HIDDEN[direction]
        self._refuses_hidden = refuses_hidden
        self._formats = formats
        self._check = check
        self._check_pattern = check_pattern
        self._warn = warn
        self._names: dict[tuple[str, tuple[str | int, ...]], str] = {}
        self._made: dict[str, _Definition] = {}
        self._todo: list[tuple[str, Any]] = []
        self._current = _Definition(At(""))
        self._alternatives = 0
        self.is_dynamic = False
        """Whether something is left to be resolved when it is compiled, which may then fail."""

    def add(self, node: Any, at: At) -> str:
        """The name of the definition for the schema at `at`, which is made with all it needs."""
        name = self._name(node, at)
        while self._todo:
            made, schema = self._todo.pop()
            definition = self._made[made]
            self._current = definition
            try:
                definition.schema = self._convert(schema, definition.at, frozenset())
            except RecursionError:
                raise definition.at.fault("the schema is nested too deeply") from None
            self._check(definition.schema, definition.at)
        return name

    def bundle_of(self, root: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """A schema of `root`, which refers to these definitions, with all they can reach."""
        reached = self._reached(names)
        if len(reached) > _BUNDLE_MAX:
            msg = f"a schema that refers to more than {_BUNDLE_MAX} others is not compiled"
            raise DocumentInvalid(msg)
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": BUNDLE,
            "allOf": [root],
            "$defs": {each: self._made[each].schema for each in reached},
        }

    def _reached(self, names: Iterable[str]) -> set[str]:
        reached = set(names)
        todo = list(reached)
        while todo:
            new = self._made[todo.pop()].refs - reached
            reached |= new
            todo.extend(new)
        return reached

    def has_alternatives(self, names: Iterable[str]) -> bool:
        """Whether one of all these definitions has `oneOf` or `anyOf`."""
        return any(self._made[name].has_alternatives for name in self._reached(names))

    def repeats_in_alternatives(self, names: Iterable[str]) -> bool:
        """Whether alternatives may be nested in each other without end; see `telling`."""
        left = self._reached(names)
        if not any(self._made[name].choices for name in left):
            return False
        # What no cycle leads to or from is peeled off, from both sides.
        for edges in (self._edges(left), _turned(self._edges(left))):
            open_ends = [name for name in left if not edges[name] & left]
            back = _turned(edges)
            while open_ends:
                gone = open_ends.pop()
                if gone in left:
                    left.discard(gone)
                    open_ends.extend(n for n in back[gone] if n in left and not edges[n] & left)
        return any(self._made[name].choices & left for name in left)

    def _edges(self, names: set[str]) -> dict[str, set[str]]:
        return {name: self._made[name].refs for name in names}

    def schema(self, name: str) -> Any:
        """One converted definition."""
        return self._made[name].schema

    def resolved(self, schema: Any) -> Any:
        """The converted schema itself, or the one its `$ref` leads to where it is nothing else."""
        for _ in range(20):
            if not (isinstance(schema, dict) and "$ref" in schema):
                break
            schema = self._made[schema["$ref"].rpartition("/")[2]].schema
        return schema

    def _name(self, node: Any, at: At) -> str:
        key = (at.file, at.tokens)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"d{len(self._names)}"
            self._made[name] = _Definition(at)
            self._todo.append((name, node))
        return name

    def _ref(self, reference: Any, at: At) -> str:
        target, node = self._references.follow(reference, at)
        name = self._name(node, target)
        self._current.refs.add(name)
        if self._alternatives:
            self._current.choices.add(name)
        return ref_to(name)

    # -- one schema ----------------------------------------------------------------------------

    def _convert(self, node: Any, at: At, hidden: frozenset[str]) -> Any:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise at.fault("must be a schema, which is a mapping")
        if len(at.tokens) > _DEPTH_MAX:
            raise at.fault("the schema is nested too deeply")
        at = at_key(at, node)
        if at.is_old and "$ref" in node:
            return {"$ref": self._ref(node["$ref"], at)}
        hidden |= frozenset(self._hidden_names(node, at, 0))
        out: dict[str, Any] = {}
        for key, value in node.items():
            if key in _KEPT:
                out[key] = value
            elif key in _MAP:
                out[key] = self._map(key, value, at / key)
            elif key in _ONE and not (key == "items" and isinstance(value, list)):
                out[key] = self._convert(value, at / key, frozenset())
            elif key in _CHOICES:
                self._current.has_alternatives = True
                self._alternatives += 1
                out[key] = self._list(value, at / key, frozenset())
                self._alternatives -= 1
            elif key in _LIST:
                out[key] = self._list(value, at / key, hidden if key == "allOf" else frozenset())
            elif key not in _SILENT and key not in _DONE_APART and not key.startswith("x-"):
                self._odd(key, at)
        self._names_apart(node, out, at, hidden)
        if at.is_old:
            self._old(node, out, at)
        self._choose(node, out, at)
        self._format(node, out)
        if at.is_old and node.get("nullable") is True:
            return self._nullable(node, out, at)
        return out

    def _odd(self, key: str, at: At) -> None:
        if key == "items" and not at.is_old:
            raise (at / key).fault("must be one schema; a list of them is called prefixItems")
        if key == "nullable" and not at.is_old:
            self._warn(at, 'nullable means nothing in OpenAPI 3.1; write type: [..., "null"]')
        elif not (at.is_old and (key in _OLD_ONLY or key == "items")):
            self._warn(at, f"{key[:80]!r} is no keyword of JSON Schema and is not looked at")

    def _map(self, key: str, value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise at.fault("must be a mapping of schemas")
        out = {}
        for name, schema in value.items():
            here = at / name
            if key == "patternProperties":
                self._check_pattern(name, here)
            if key == "properties" and self._is_hidden(schema, here, 0) and self._refuses_hidden:
                out[name] = {"not": {"$comment": self._hidden_word}}
            else:
                out[name] = self._convert(schema, here, frozenset())
        return out

    def _list(self, value: Any, at: At, hidden: frozenset[str]) -> list[Any]:
        if not isinstance(value, list):
            raise at.fault("must be a list of schemas")
        return [self._convert(each, at / index, hidden) for index, each in enumerate(value)]

    def _names_apart(
        self, node: dict[str, Any], out: dict[str, Any], at: At, hidden: frozenset[str]
    ) -> None:
        if "$ref" in node:
            out["$ref"] = self._ref(node["$ref"], at)
        if "$dynamicRef" in node:
            out["$dynamicRef"] = node["$dynamicRef"]
            self.is_dynamic = True
        if isinstance(node.get("$id"), str) and not at.is_old:
            self.is_dynamic = True
            out["$id"] = f"headgate:///{at.uri}" if "://" not in at.uri else at.uri
        if isinstance(defs := node.get("$defs"), dict):
            # Others are reached by reference alone; these by what happens while validating.
            dynamic = {k: v for k, v in defs.items() if _is_dynamic(v)}
            if dynamic:
                out["$defs"] = {
                    k: self._convert(v, at / "$defs" / k, frozenset()) for k, v in dynamic.items()
                }
        if "pattern" in node:
            if not isinstance(node["pattern"], str):
                raise (at / "pattern").fault("must be text")
            self._check_pattern(node["pattern"], at / "pattern")
            out["pattern"] = node["pattern"]
        if "required" in node:
            required = node["required"]
            if not isinstance(required, list):
                raise (at / "required").fault("must be a list of names, beside `properties`")
            if left := [name for name in required if name not in hidden]:
                out["required"] = left

    def _old(self, node: dict[str, Any], out: dict[str, Any], at: At) -> None:
        for word in ("Minimum", "Maximum"):
            exclusive, plain = f"exclusive{word}", word.lower()
            said = node.get(exclusive)
            if isinstance(said, bool):
                del out[exclusive]
                if said and plain in out:
                    out[exclusive] = out.pop(plain)
        items = node.get("items")
        if isinstance(items, list):
            out["prefixItems"] = self._list(items, at / "items", frozenset())
            if "additionalItems" in node:
                more = node["additionalItems"]
                out["items"] = self._convert(more, at / "additionalItems", frozenset())
        for name, needs in (node.get("dependencies") or {}).items():
            if isinstance(needs, list):
                out.setdefault("dependentRequired", {})[name] = needs
            else:
                schema = self._convert(needs, at / "dependencies" / name, frozenset())
                out.setdefault("dependentSchemas", {})[name] = schema

    def _nullable(self, node: dict[str, Any], out: dict[str, Any], at: At) -> Any:
        said = out.get("type")
        if isinstance(said, str):
            out["type"] = [said, "null"]
            if None not in (node.get("enum") or [None]):
                self._warn(at, "nullable, but null is not among the enum: null is refused")
            if not any(word in out for word in ("allOf", "anyOf", "oneOf")):
                return out
            # `type` and alternatives: null must get past those too.
        elif not out:
            return out
        # No anyOf: of that, faults are told as those of alternatives.
        return {"if": {"not": {"type": "null"}}, "then": out}

    def _format(self, node: dict[str, Any], out: dict[str, Any]) -> None:
        said = node.get("format")
        if not isinstance(said, str) or not self._formats:
            return
        if said in _RANGES:
            edge = _RANGES[said]
            out.setdefault("allOf", []).append({"minimum": -edge, "maximum": edge - 1})
        if said not in _NO_FORMAT:
            out["format"] = said

    def _choose(self, node: dict[str, Any], out: dict[str, Any], at: At) -> None:
        said = node.get("discriminator")
        if said is None:
            return
        if not isinstance(said, dict) or not isinstance(said.get("propertyName"), str):
            raise (at / "discriminator").fault("must be a mapping with propertyName")
        word = next((w for w in ("oneOf", "anyOf") if w in node), None)
        if word is None:
            return  # on the parent of an inheritance: it tells readers, it validates nothing
        where: dict[str, list[str]] = {}
        mapping = said.get("mapping") or {}
        for name, target in mapping.items():
            where.setdefault(self._mapped(str(target), at / "discriminator"), []).append(str(name))
        for index, alternative in enumerate(node[word]):
            if not isinstance(alternative, dict) or "$ref" not in alternative:
                self._warn(at / word / index, "an alternative without $ref has no name, so the "
                           "discriminator does not choose")  # fmt: skip
                return
            ref = self._ref(alternative["$ref"], at)
            if ref not in where:
                where[ref] = [str(alternative["$ref"]).rpartition("/")[2]]
        prop = said["propertyName"]
        names = [name for each in where.values() for name in each]
        del out[word]
        out.setdefault("allOf", []).extend(
            [
                {"type": "object", "required": [prop], "properties": {prop: {"enum": names}}},
                *(
                    {
                        "if": {"required": [prop], "properties": {prop: {"enum": each}}},
                        "then": {"$ref": ref},
                    }
                    for ref, each in where.items()
                ),
            ]
        )

    def _mapped(self, target: str, at: At) -> str:
        """A mapping's value: the name of a component or, where there is none, a reference."""
        if _NAME(target):
            try:
                return self._ref(f"#/components/schemas/{target}", at)
            except DocumentInvalid:
                if "." not in target:
                    raise
        return self._ref(target, at)

    # -- what may not be sent ------------------------------------------------------------------

    def _is_hidden(self, schema: Any, at: At, hops: int) -> bool:
        if not isinstance(schema, dict) or hops > 8:
            return False
        at = at_key(at, schema)
        if "$ref" in schema and at.is_old:
            target, node = self._references.follow(schema["$ref"], at)
            return self._is_hidden(node, target, hops + 1)
        if schema.get(self._hidden_word) is True:
            return True
        if "$ref" in schema:
            target, node = self._references.follow(schema["$ref"], at)
            return self._is_hidden(node, target, hops + 1)
        return False

    def _hidden_names(self, node: dict[str, Any], at: At, hops: int) -> Iterator[str]:
        at = at_key(at, node)
        properties = node.get("properties")
        if isinstance(properties, dict):
            for name, schema in properties.items():
                if self._is_hidden(schema, at / "properties" / name, 0):
                    yield name
        if hops > 8:
            return
        branches = node.get("allOf")
        for index, each in enumerate(branches if isinstance(branches, list) else ()):
            here, branch = at / "allOf" / index, each
            if isinstance(each, dict) and "$ref" in each:
                here, branch = self._references.follow(each["$ref"], here)
            if isinstance(branch, dict):
                yield from self._hidden_names(branch, here, hops + 1)


def _is_dynamic(node: Any) -> bool:
    if isinstance(node, dict):
        return "$dynamicAnchor" in node or any(_is_dynamic(each) for each in node.values())
    return isinstance(node, list) and any(_is_dynamic(each) for each in node)
