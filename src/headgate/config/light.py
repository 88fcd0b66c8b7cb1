"""The models without what checks them: for a process that is handed a `Config` and reads none.

Theory of operation
-------------------
To read a file takes pydantic, which keeps for each model how it is validated: a quarter of what a
worker weighs. A process that takes over what another one has read needs the classes alone, with
their methods and defaults. `install` puts a module in pydantic's place, before anything of
`headgate.config` is imported: there a model is a plain class, and what says how its fields are
validated says nothing. `packed` makes bytes of a `Config`, where the models are what they always
are; `unpacked` makes it again, where they are light.

Light models are made by `unpacked`, or with keywords that are already what they should be. They are
compared, copied, iterated and hashed like the others. What they do not have: validation, schemas,
`model_fields`, `model_dump`.

The bytes are a pickle, and may come from a process of our own alone; only classes of Headgate and
a few plain ones of the standard library are made of them.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = ["install", "packed", "unpacked"]

_NAMES: Final = ("pydantic", "pydantic.fields", "pydantic.json_schema", "pydantic_core")
_PLAIN: Final = frozenset({"ipaddress", "datetime", "re", "collections", "pathlib", "decimal"})
_BUILTINS: Final = frozenset({"frozenset", "set", "bytearray", "complex", "slice", "range"})


class _Made:
    """A default that each model has one of its own of."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class LightModel:
    """In the place of pydantic's `BaseModel`."""

    model_config: ClassVar[Any] = {}
    model_fields: ClassVar[dict[str, Any]] = {}
    model_fields_set: frozenset[str] = frozenset()

    def __init_subclass__(cls, **_config: Any) -> None:
        """Pydantic takes what stands in `model_config` here as well."""

    def __init__(self, **said: Any) -> None:
        found: dict[str, Any] = {}
        for kind in reversed(type(self).__mro__):
            for name in inspect.get_annotations(kind):
                if name in _OWN:
                    continue
                default = getattr(type(self), name, None)
                found[name] = default.make() if isinstance(default, _Made) else default
        self.__dict__.update(found | said)
        self.__dict__["model_fields_set"] = frozenset(said)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["__dict__"])
        self.__dict__["model_fields_set"] = frozenset(state["__pydantic_fields_set__"])

    def model_copy(self, *, update: dict[str, Any] | None = None) -> LightModel:
        made = self.__class__.__new__(self.__class__)
        made.__dict__.update(self.__dict__)
        if update:
            made.__dict__.update(update)
            made.__dict__["model_fields_set"] = self.model_fields_set | update.keys()
        return made

    def _values(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OWN}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._values().items())

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.__class__, tuple(self._values().values())))

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__}>"  # what it holds may be secret


_OWN: Final = frozenset({"model_config", "model_fields", "model_fields_set"})


class _Nothing:
    """In the place of everything that says how a field is validated, written or described."""

    def __init__(self, *_said: Any, **_more: Any) -> None:
        pass

    def __call__(self, *said: Any, **_more: Any) -> Any:
        return said[0] if said else self  # as a decorator: what is decorated

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


class _Refused(Exception):
    """In the place of pydantic's errors, which nobody raises here."""


def _field(default: Any = None, *, default_factory: Any = None, **_more: Any) -> Any:
    return _Made(default_factory) if default_factory is not None else default


class _Light(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


def install() -> None:
    """From now on models are light. Where pydantic is already there it stays, and so do they."""
    if any(name in sys.modules for name in _NAMES):
        return
    for name in _NAMES:
        module = _Light(name)
        module.BaseModel = LightModel  # type: ignore[attr-defined]
        module.ConfigDict = dict  # type: ignore[attr-defined]
        module.Field = _field  # type: ignore[attr-defined]
        module.core_schema = _Nothing()  # type: ignore[attr-defined]
        module.ValidationError = _Refused  # type: ignore[attr-defined]
        module.PydanticCustomError = _Refused  # type: ignore[attr-defined]
        sys.modules[name] = module


def packed(config: Config) -> bytes:
    """For `unpacked`, in a process of the same program."""
    return pickle.dumps(config, protocol=5)


def unpacked(data: bytes) -> Config:
    """What another process of ours has packed. Raises ValueError for anything else."""
    try:
        found = _Unpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError) as error:
        raise ValueError(f"is no configuration that was packed: {error}") from None
    from headgate.config.model import Config

    if not isinstance(found, Config):
        raise ValueError("is no configuration that was packed")
    return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_ours = module.startswith("headgate.")
        if is_ours or module in _PLAIN or (module == "builtins" and name in _BUILTINS):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is nothing that a configuration holds")
