"""structlog, brought to an end here: its events become records with fields."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

__all__ = ["configure", "to_record"]


def to_record(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The last processor: hand event and fields to the standard library's logger."""
    message = event.pop("event", "")
    info = event.pop("exc_info", None)
    stack = event.pop("stack_info", None)
    for name in ("level", "logger", "timestamp"):
        event.pop(name, None)  # we write our own
    extra = {"_fields": dict(event)}
    return (str(message),), {"exc_info": info, "stack_info": bool(stack), "extra": extra}


def configure(structlog: Any) -> None:
    """Have structlog's loggers write through the root logger."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            to_record,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("structlog").setLevel(logging.NOTSET)
