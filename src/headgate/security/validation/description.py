"""What requests are held against: an OpenAPI document, or single schemas.

description = describe(rules)              # raises DocumentInvalid
found = description.find("GET", "/users/7")
Found      -> the operation, with what is wrong with the path
Refusal    -> nothing of that kind is described, and such requests are refused
None       -> nothing is described, and it passes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headgate.security.validation.compiling import Compiler
from headgate.security.validation.files import Files
from headgate.security.validation.openapi import OpenApi
from headgate.security.validation.paths import PathTree
from headgate.security.validation.plain import plain_operations
from headgate.security.validation.rules import DocumentInvalid, Refusal

if TYPE_CHECKING:
    from headgate.security.validation.operation import Operation
    from headgate.security.validation.references import At
    from headgate.security.validation.rules import Fault, ValidationRules

__all__ = ["Description", "Found", "describe"]

_KEPT_PATHS: Final = 1024
_KEPT_PATH_CHARACTERS: Final = 256
_WARNINGS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Found:
    operation: Operation
    path_faults: tuple[Fault, ...] = ()


class Description:
    """Finds operations. What paths came to is kept, within a bound."""

    def __init__(
        self,
        rules: ValidationRules,
        tree: PathTree[dict[str, Operation]] | None,
        base: str,
        plain: tuple[dict[str, Operation], Operation] | None,
        files: list[Files],
        warnings: tuple[str, ...],
    ) -> None:
        self._tree = tree
        self._base = base.rstrip("/")
        self._plain = plain
        self._refuses = rules.unknown == "refuse"
        self._files = files
        self._kept: dict[tuple[str, str], Found | Refusal | None] = {}
        self.warnings: Final = warnings

    def find(self, method: str, path: str) -> Found | Refusal | None:
        """What is described for this request; `path` is percent-encoded."""
        key = (method, path)
        try:
            return self._kept[key]
        except KeyError:
            found = self._find(method, path)
            if len(path) <= _KEPT_PATH_CHARACTERS:
                if len(self._kept) >= _KEPT_PATHS:
                    self._kept.clear()
                self._kept[key] = found
            return found

    def is_unchanged(self) -> bool:
        """Whether the files are still those it was made from."""
        return all(files.is_unchanged() for files in self._files)

    def _find(self, method: str, path: str) -> Found | Refusal | None:
        if self._tree is None:
            if self._plain is None:
                return None
            by_method, other = self._plain
            return Found(by_method.get(method, other))
        allowed: set[str] = set()
        base = self._base
        if path.startswith(base) and path[len(base) : len(base) + 1] in ("/", ""):
            for operations, texts in self._tree.find(path[len(base) :] or "/"):
                operation = operations.get(method)
                if operation is None and method == "HEAD":
                    operation = operations.get("GET")
                if operation is not None:
                    parameters = operation.path
                    faults = parameters.check_path(texts) if parameters is not None else ()
                    return Found(operation, faults)
                allowed |= operations.keys()
        if not self._refuses:
            return None
        if not allowed:
            return Refusal(404, "no such path is described", kind="unknown_path")
        if "GET" in allowed:
            allowed.add("HEAD")
        allow = ", ".join(sorted(allowed))
        return Refusal(405, f"the path takes {allow}", (), (("allow", allow),), "unknown_method")


def describe(rules: ValidationRules) -> Description:
    """Read and check what `rules` name; raises DocumentInvalid."""
    warnings: list[str] = []

    def warn(at: At, what: str) -> None:
        if len(warnings) < _WARNINGS_MAX:
            warnings.append(f"{at}: {what}")

    compiler = Compiler(rules)
    if rules.openapi is not None:
        files = Files(rules.openapi)
        document = OpenApi(files, rules, compiler, warn)
        try:
            tree = document.tree()
        except RecursionError:
            msg = f"{files.main}: is nested too deeply"
            raise DocumentInvalid(msg) from None
        unique = tuple(dict.fromkeys(warnings))
        return Description(rules, tree, document.base, None, [files], unique)
    by_method, other, used = plain_operations(rules, compiler)
    return Description(rules, None, "", (by_method, other), used, tuple(warnings))
