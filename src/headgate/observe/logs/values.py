"""What a line may hold: anything a program passes, made plain and bounded.

What an editor must not break: nothing here raises, whatever `__str__` or `__iter__` of a value
does; and what is made is bounded, however large or deep the value is.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from math import isfinite
from types import TracebackType
from typing import Any, Final

__all__ = ["MESSAGE_MAX", "bounded", "plain", "told_error"]

MESSAGE_MAX: Final = 64 * 1024
TEXT_MAX: Final = 16 * 1024
STACK_MAX: Final = 32 * 1024
_ITEMS: Final = 1000
_DEEPEST: Final = 8
_CAUSES: Final = 10
_CUT: Final = "...[cut]"


def bounded(text: str, most: int = TEXT_MAX) -> str:
    """The text, or its beginning and how much there was."""
    return text if len(text) <= most else f"{text[:most]}...[cut, {len(text)} characters]"


def text_of(value: object) -> str:
    try:
        return bounded(str(value))
    except Exception as error:  # noqa: BLE001  a value's own code; see above
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    return _plain(value, _DEEPEST, [_ITEMS])


def _plain(value: Any, deeper: int, left: list[int]) -> Any:
    kind = type(value)
    if kind is str:
        return bounded(value)
    if kind is int:
        return value if -(2**63) <= value < 2**63 else bounded(_digits(value))
    if value is None or kind is bool:
        return value
    if kind is float:
        return value if isfinite(value) else str(value)
    left[0] -= 1
    if deeper <= 0 or left[0] <= 0:
        return _CUT
    try:
        if isinstance(value, Mapping):
            return {
                text_of(key): _plain(each, deeper - 1, left)
                for key, each in _first(value.items(), left)
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, deeper - 1, left) for each in _first(value, left)]
        if isinstance(value, bytes | bytearray):
            return bounded(bytes(value[:TEXT_MAX]).decode("utf-8", "backslashreplace"))
        if isinstance(value, BaseException):
            return f"{kind.__name__}: {text_of(value)}"
    except Exception as error:  # noqa: BLE001  see above
        return f"<{kind.__name__} that cannot be shown: {type(error).__name__}>"
    return text_of(value)


def _first(items: Any, left: list[int]) -> Any:
    for each in items:
        left[0] -= 1
        if left[0] < 0:
            return
        yield each


def _digits(value: int) -> str:
    # Beyond 4300 digits Python refuses to write an int as decimal.
    return hex(value) if value.bit_length() > 10_000 else str(value)


def told_error(
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
    stack: str | None = None,
) -> dict[str, Any]:
    """Type, message, stack and the chain of causes."""
    told: dict[str, Any] = {
        "type": _type_name(type(error) if error is not None else kind),
        "message": text_of(error) if error is not None else "",
    }
    causes: list[dict[str, str]] = []
    seen = {id(error)}
    at = error
    while at is not None and len(causes) < _CAUSES:
        how, cause = "cause", at.__cause__
        if cause is None and not at.__suppress_context__:
            how, cause = "context", at.__context__
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        causes.append({"how": how, "type": _type_name(type(cause)), "message": text_of(cause)})
        at = cause
    if causes:
        told["causes"] = causes
    told["stack"] = stack or _stack(kind, error, trace)
    told["stack"] = _middle_cut(told["stack"])
    return told


def _type_name(kind: type | None) -> str:
    if kind is None:
        return ""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _stack(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    try:
        return "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    except Exception as failed:  # noqa: BLE001  an exception that cannot be shown
        return f"<a stack that cannot be shown: {type(failed).__name__}>"


def _middle_cut(text: str) -> str:
    if len(text) <= STACK_MAX:
        return text
    half = STACK_MAX // 2
    return f"{text[:half]}\n...[{len(text) - 2 * half} characters cut]\n{text[-half:]}"
