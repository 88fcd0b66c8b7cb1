"""What every line of one piece of work has in common: bound fields, and the ids of its trace.

`current` is a hook: whoever keeps trace context sets it to a function that returns `trace_id`,
`span_id` and `request_id` of the work that is under way, those that there are. It is called once a
line and must neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

__all__ = ["NOTHING", "bound", "bound_fields", "current"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_bound: ContextVar[Mapping[str, Any]] = ContextVar("headgate_logs_bound", default=NOTHING)


def _no_ids() -> Mapping[str, Any]:
    return NOTHING


current: Callable[[], Mapping[str, Any]] = _no_ids


def bound_fields() -> Mapping[str, Any]:
    """The fields that lines have here, from all `bound` around."""
    return _bound.get()


class bound:  # noqa: N801  a context manager reads as a word
    """`with bound(order=42):` adds the field to every line within, also in tasks begun there."""

    __slots__ = ("_fields", "_tokens")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_bound.set({**_bound.get(), **self._fields}))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _bound.reset(self._tokens.pop())
