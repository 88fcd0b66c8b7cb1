"""From "package.module:Class" in the file to a Filter object, with exact faults.

Theory of operation. Modules are looked for on `sys.path`, and after it in the folder of the
configuration file; after, so that a stray `random.py` beside the file cannot take the place of the
standard library's. The class must be a `Filter`; its `Options` model reads the options; its
constructor may refuse them with ValueError. Whatever goes wrong becomes PluginInvalid with one
Fault for each thing wrong, so that a check of the file reports them beside its other faults. Code
of others runs here: anything it raises, SystemExit included, is a fault of the plugin and must
not take the process down.

Python keeps a module once imported: a reload of the configuration builds new filter objects with
new options, but new code of a plugin is taken up when the workers are started anew.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from headgate.errors import Fault, PluginInvalid
from headgate.gateway.filters.base import Filter, FilterContext

# What a plugin's code may raise. KeyboardInterrupt is the operator's.
_ANYTHING = (Exception, SystemExit)

Locate = Callable[[str], tuple[str, int, int]]
"""From a path in the document to file, line and column; zeros where not known."""


def _nowhere(_where: str) -> tuple[str, int, int]:
    return "", 0, 0


class _Place:
    """Where the plugin stands in the file, to raise faults from."""

    def __init__(self, where: str, locate: Locate) -> None:
        self.where = where
        self.locate = locate

    def fault(self, below: str, message: str, hint: str = "") -> Fault:
        where = f"{self.where}.{below}" if self.where else below
        file, line, column = self.locate(where)
        return Fault(file, line, column, where, message, hint)

    def refuse(
        self, below: str, message: str, hint: str = "", *, cause: BaseException | None = None
    ) -> NoReturn:
        raise PluginInvalid((self.fault(below, message, hint),)) from cause


def load_filter(
    use: str,
    options: Mapping[str, Any],
    context: FilterContext,
    *,
    folder: Path | None = None,
    where: str = "",
    locate: Locate = _nowhere,
) -> Filter:
    """Build the filter that `use` names. `where` is its path in the file, as "plugins[0]".

    Raises PluginInvalid.
    """
    place = _Place(where, locate)
    filter_class = _find_class(use, folder, place)
    parsed = _read_options(filter_class, options, place)
    try:
        built = filter_class(parsed, context)
    except ValueError as error:
        place.refuse("options", str(error) or "refused by the plugin", cause=error)
    except _ANYTHING as error:
        place.refuse("use", f"{use} cannot be built: {_told(error)}", cause=error)
    if not hasattr(built, "context"):
        place.refuse(
            "use",
            f"{use} did not initialise its base",
            "call super().__init__(options, context) in __init__",
        )
    return built


def _find_class(use: str, folder: Path | None, place: _Place) -> type[Filter]:
    module_name, colon, class_name = use.partition(":")
    if not (colon and module_name and class_name.isidentifier()):
        place.refuse("use", f'"{use}" does not name a class', 'write "package.module:Class"')
    module = _import(module_name, folder, place)
    found = getattr(module, class_name, None)
    if found is None:
        own = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Filter) and value is not Filter
        ]
        near = difflib.get_close_matches(class_name, own, 1) or own
        place.refuse(
            "use",
            f'module {module_name} has no class "{class_name}"',
            f'did you mean "{near[0]}"?' if near else "",
        )
    if not (isinstance(found, type) and issubclass(found, Filter)):
        place.refuse(
            "use", f"{use} is not a Filter", "derive it from headgate.gateway.filters.Filter"
        )
    if inspect.isabstract(found):
        place.refuse("use", f"{use} is abstract and cannot be built")
    model: Any = found.Options  # a foreign class may have put anything there
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        place.refuse(
            "use", f"{use}.Options is not a pydantic model", "derive it from Filter.Options"
        )
    return found


def _import(name: str, folder: Path | None, place: _Place) -> ModuleType:
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            beside = f" or in {folder}" if folder else ""
            place.refuse(
                "use",
                f'no module named "{missing}"',
                f"it is not on the Python path{beside}",
                cause=error,
            )
        place.refuse(
            "use",
            f'module {name} needs "{missing}", which is not installed',
            _line_in(error),
            cause=error,
        )
    except _ANYTHING as error:
        place.refuse("use", f"module {name} fails on import: {_told(error)}", cause=error)


def _read_options(
    filter_class: type[Filter], options: Mapping[str, Any], place: _Place
) -> BaseModel:
    model: type[BaseModel] = filter_class.Options
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = [field.alias or name for name, field in model.model_fields.items()]
        raise PluginInvalid(
            tuple(
                _option_fault(place, problem["loc"], problem["type"], problem["msg"], known)
                # The input is left out: it may be a secret that came from the environment.
                for problem in error.errors(include_url=False, include_input=False)
            )
        ) from error
    except _ANYTHING as error:
        place.refuse("options", f"Options fails to read them: {_told(error)}", cause=error)


def _option_fault(
    place: _Place, loc: tuple[int | str, ...], kind: str, message: str, known: list[str]
) -> Fault:
    path = "options"
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), known, 1) if len(loc) == 1 else []
        hint = f'did you mean "{near[0]}"?' if near else ""
        if not near and len(loc) == 1:
            hint = f"the options are {', '.join(known)}" if known else "it takes no options"
        return place.fault(path, "unknown option", hint)
    if kind == "missing":
        return place.fault(path, "required option is missing")
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return place.fault(path, text[:1].lower() + text[1:])


def _told(error: BaseException) -> str:
    line = _line_in(error)
    return f"{type(error).__name__}: {error}" + (f" ({line})" if line else "")


def _line_in(error: BaseException) -> str:
    """Name the line of the plugin, not of the import machinery, that raised."""
    if isinstance(error, SyntaxError):
        return ""  # its message names the place
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if frame.filename != __file__ and not frame.filename.startswith("<frozen"):
            if "importlib" in Path(frame.filename).parts:
                continue
            return f"{frame.filename}:{frame.lineno}"
    return ""
