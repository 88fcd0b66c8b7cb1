"""The one place that knows the library which compiles and runs schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.checker import Compiled, is_base64
from headgate.security.validation.patterns import Patterns
from headgate.security.validation.references import At, References, at_key
from headgate.security.validation.rules import DocumentInvalid
from headgate.security.validation.telling import telling_of

if TYPE_CHECKING:
    from headgate.security.validation.dialect import Definitions
    from headgate.security.validation.files import Files
    from headgate.security.validation.rules import ValidationRules

__all__ = ["Compiler"]

_SCHEME: Final = "headgate:///"
_OTHER_REFERENCES: Final = frozenset({"$dynamicRef", "$recursiveRef"})
_CHOICES: Final = frozenset({"oneOf", "anyOf"})


class Compiler:
    """Makes validators, all with the same options; raises DocumentInvalid, never fetches."""

    def __init__(self, rules: ValidationRules) -> None:
        # On use: `import headgate.security` must not load it.
        try:
            import jsonschema_rs
        except ImportError:
            msg = 'validation needs the "validation" extra: pip install "headgate[validation]"'
            raise DocumentInvalid(msg) from None
        self._library: Any = jsonschema_rs
        self.patterns = Patterns(rules.patterns)
        self._options: dict[str, Any] = {
            "validate_formats": rules.formats,
            "pattern_options": self.patterns.options,
        }

    def check(self, schema: Any, at: At) -> None:
        """Hold a converted schema against the metaschema."""
        try:
            self._library.meta.validate(schema)
        except self._library.ValidationError as error:
            path = error.instance_path
            here = at
            for token in path:
                here /= token
            raise here.fault(f"is no valid schema: {_first_line(error.message)}") from None

    def compile(self, definitions: Definitions, root: dict[str, Any], names: list[str]) -> Compiled:
        """Compile a converted schema, which refers to these definitions."""
        bundle = definitions.bundle_of(root, names)
        telling = None
        if definitions.has_alternatives(names):
            is_dynamic = definitions.is_dynamic

            def telling() -> Any:
                # With anchors of its own a definition cannot stand there twice.
                return None if is_dynamic else self._validator(telling_of(bundle))

        return Compiled(
            self._validator(bundle),
            len(bundle["$defs"]),
            telling,
            definitions.repeats_in_alternatives(names),
        )

    def _validator(self, bundle: dict[str, Any]) -> Any:
        try:
            return self._library.Draft202012Validator(
                bundle, formats={"byte": is_base64}, offline=True, **self._options
            )
        except ValueError as error:
            raise DocumentInvalid(_first_line(str(error))) from None

    def compile_file(self, schema: Any, at: At, files: Files) -> Compiled:
        """The validator of a plain JSON Schema, in the draft that it says it is in."""

        def retrieve(uri: str) -> Any:
            if not uri.startswith(_SCHEME):
                msg = f"{uri[:200]} is remote, and nothing is fetched"
                raise DocumentInvalid(msg)
            return files.document(files.beside("", uri[len(_SCHEME) :]))

        try:
            made = self._library.validator_for(
                schema, retriever=retrieve, base_uri=f"{_SCHEME}{at.file}", **self._options
            )
        except self._library.ValidationError as error:
            here = at
            for token in error.instance_path:
                here /= token
            if isinstance(error.instance, str) and '"regex"' in error.message:
                self.patterns.check(error.instance, here)
            raise here.fault(f"is no schema that holds: {_first_line(error.message)}") from None
        except ValueError as error:
            raise at.fault(_first_line(str(error))) from None
        has_choices, has_circle = _choices_and_circles(schema, at, References(files))
        return Compiled(made, telling=(lambda: None) if has_choices else None, repeats=has_circle)


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]


def _choices_and_circles(schema: Any, at: At, references: References) -> tuple[bool, bool]:
    """Whether a schema has alternatives, and whether it refers to itself; see `telling`."""
    has_choices = has_circle = False
    open_nodes: set[int] = set()
    done: set[int] = set()
    todo: list[tuple[Any, At, bool]] = [(schema, at, False)]
    while todo:
        node, here, is_left = todo.pop()
        if is_left:
            open_nodes.discard(id(node))
            done.add(id(node))
            continue
        if id(node) in open_nodes:
            has_circle = True
        if not isinstance(node, dict | list) or id(node) in open_nodes or id(node) in done:
            continue
        open_nodes.add(id(node))
        todo.append((node, here, True))
        if isinstance(node, list):
            todo.extend((each, here / index, False) for index, each in enumerate(node))
            continue
        here = at_key(here, node)
        has_choices = has_choices or not _CHOICES.isdisjoint(node)
        if not _OTHER_REFERENCES.isdisjoint(node):
            has_circle = True
        if "$ref" in node:
            try:
                where, target = references.follow(node["$ref"], here)
            except DocumentInvalid:
                has_circle = True  # in a way that drafts before 2019-09 name things
            else:
                todo.append((target, where, False))
        todo.extend((each, here / key, False) for key, each in node.items())
    return has_choices, has_circle
