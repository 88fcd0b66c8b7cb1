"""Values on their way into JSON, and what a failure says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.mesh.client.response import Response

__all__ = ["encoded", "has_words", "what_it_says"]

_PLAIN = (str, int, float, bool, type(None))


def encoded(value: Any) -> Any:
    """What JSON can hold: of models, dataclasses, enumerations, dates and ids too."""
    if isinstance(value, Enum):
        return encoded(value.value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(name): encoded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [encoded(each) for each in value]
    dump = getattr(value, "model_dump", None)  # of pydantic
    if callable(dump):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: encoded(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if not has_words(value):
        raise TypeError(f"a {type(value).__name__} has no form in JSON")
    return str(value)


def has_words(value: object) -> bool:
    """Whether its text says what it is, and not only where it lies."""
    return getattr(type(value), "__str__", None) is not object.__str__


def what_it_says(response: Response) -> str:
    """The words of a failure, where it has some: of problem+json, or as FastAPI says it."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return ""
    said = content.get("detail") or content.get("title") if isinstance(content, Mapping) else None
    return said[:300] if isinstance(said, str) else ""
