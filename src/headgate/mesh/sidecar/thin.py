"""Packages that are not opened until somebody asks for a name in them.

Theory of operation. A package of ours is a shop window: its `__init__` imports most of what is in
the room, so that users find it in one place. Modules that want one constant of one module in it
(the defaults of a policy, say) get all of that along, which in a sidecar is a tenth of its weight.

A *thin* package has a path, so that its modules can be imported, and no contents. Its `__init__`
runs when a name is asked for that is no module of it: then it is what it always was. That is right
because nothing happens when a package of ours is imported (a rule of the house), and it is done in
a sidecar's process alone, before anything else is imported there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

__all__ = ["install"]

_OURS: Final = "headgate."


class _Thin(ModuleType):
    def __getattr__(self, name: str) -> Any:
        """Asked only for what is not here."""
        if name.startswith("__"):
            raise AttributeError(name)
        said = self.__dict__
        if PathFinder.find_spec(f"{self.__name__}.{name}", said["__path__"]) is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        real = said.pop("_unopened", None)
        if real is not None:
            code = real.get_code(self.__name__)
            exec(code, said)  # noqa: S102 - its own text, as the import system would
            if name in said:
                return said[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _ThinLoader(Loader):
    def __init__(self, real: SourceFileLoader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Thin(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["_unopened"] = self._real


class _ThinFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_OURS):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if (
            spec is None
            or spec.submodule_search_locations is None
            or not isinstance(spec.loader, SourceFileLoader)
        ):
            return None
        spec.loader = _ThinLoader(spec.loader)
        return spec


def install() -> None:
    """From now on packages of ours that are not imported yet are thin."""
    if not any(isinstance(each, _ThinFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, _ThinFinder())
