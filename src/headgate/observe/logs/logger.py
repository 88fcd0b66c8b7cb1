"""`logs.get("shop").info("paid", amount=3)`: the standard library's logger with fields by name.

A `Log` is a thin hold on `logging.getLogger(name)`: the same levels, the same handlers, one record
a line, so that whatever else listens (a test, an error tracker) hears it too.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Log", "get"]

_NO_PLACE: Final = "(unknown file)"
_TEMPLATE: Final = logging.LogRecord("", 0, _NO_PLACE, 0, "", (), None).__dict__


class Log:
    __slots__ = ("_fields", "_logger", "_name")

    def __init__(self, name: str, fields: dict[str, Any] | None = None) -> None:
        self._name = name
        self._logger = logging.getLogger(name)
        self._fields = fields or {}

    def bind(self, **fields: Any) -> Log:
        """One that has these fields in every line."""
        return Log(self._name, {**self._fields, **fields})

    def debug(self, message: str, *args: object, **fields: Any) -> None:
        if self._logger.isEnabledFor(10):
            self._say(10, message, args, fields, None)

    def info(self, message: str, *args: object, **fields: Any) -> None:
        if self._logger.isEnabledFor(20):
            self._say(20, message, args, fields, None)

    def warning(self, message: str, *args: object, **fields: Any) -> None:
        if self._logger.isEnabledFor(30):
            self._say(30, message, args, fields, fields.pop("exc_info", None))

    def error(self, message: str, *args: object, **fields: Any) -> None:
        if self._logger.isEnabledFor(40):
            self._say(40, message, args, fields, fields.pop("exc_info", None))

    def critical(self, message: str, *args: object, **fields: Any) -> None:
        if self._logger.isEnabledFor(50):
            self._say(50, message, args, fields, fields.pop("exc_info", None))

    def exception(self, message: str, *args: object, **fields: Any) -> None:
        """An error, with the exception that is being handled."""
        if self._logger.isEnabledFor(40):
            self._say(40, message, args, fields, fields.pop("exc_info", True))

    def _say(
        self, level: int, message: str, args: tuple[object, ...], fields: dict[str, Any], info: Any
    ) -> None:
        if info:
            if isinstance(info, BaseException):
                info = (type(info), info, info.__traceback__)
            elif not isinstance(info, tuple):
                info = sys.exc_info()
        own = self._fields
        record = _record(self._logger.name, level, message, args, info or None)
        if own or fields:
            record.__dict__["_fields"] = {**own, **fields} if own else fields
        self._logger.handle(record)


def _record(
    name: str, level: int, message: str, args: tuple[object, ...], info: Any
) -> logging.LogRecord:
    """A record without file and line, for which the stack would have to be looked at, and thread:
    both cost as much as all the rest.
    """
    factory = logging.getLogRecordFactory()
    if factory is not logging.LogRecord:
        return factory(name, level, _NO_PLACE, 0, message, args, info, None, None)
    wall = time.time()  # noqa: TID251  when it was said
    record = logging.LogRecord.__new__(logging.LogRecord)
    held = record.__dict__
    held.update(_TEMPLATE)
    held["name"] = name
    held["levelno"] = level
    held["levelname"] = logging.getLevelName(level)
    held["msg"] = message
    held["args"] = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
    held["exc_info"] = info
    held["created"] = wall
    held["msecs"] = int((wall % 1) * 1000) + 0.0
    return record


def get(name: str = "") -> Log:
    return Log(name)
