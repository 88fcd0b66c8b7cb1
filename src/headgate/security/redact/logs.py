"""Python's logging without secrets: a filter for handlers."""

from __future__ import annotations

import logging
from typing import Final

from headgate.security.redact.redactor import Redactor

__all__ = ["RedactingFilter", "redact_logs"]

_UNREADABLE: Final = "a message that could not be put together"
_formatter = logging.Formatter()


class RedactingFilter(logging.Filter):
    """Takes secrets out of the message, its arguments and the traceback of every record.

    On a handler, not a logger: filters of a logger do not see what comes from below it.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        text = self.redactor.text
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  arguments that do not fit; logging would print them all
            record.msg, record.args = _UNREADABLE, ()
            return True
        clean = text(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = text(record.exc_text)
        if record.stack_info:
            record.stack_info = text(record.stack_info)
        return True


def redact_logs(redactor: Redactor, logger: logging.Logger | None = None) -> None:
    """Have all handlers of a logger, the root unless said, redact by this; anew after a reload."""
    for handler in (logger or logging.getLogger()).handlers:
        for old in [each for each in handler.filters if isinstance(each, RedactingFilter)]:
            handler.removeFilter(old)
        handler.addFilter(RedactingFilter(redactor))
