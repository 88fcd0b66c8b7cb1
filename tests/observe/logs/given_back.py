"""The logging of the test's process, lent to a test that sets it up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_given_back() -> Iterator[None]:
    """The root logger, given back as it was.

    Some of its handlers are pytest's and live on, so a filter that an earlier test hung on them, as a
    gateway in this process does, would still redact: they are lent without.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    filters = [handler.filters[:] for handler in handlers]
    for handler in handlers:
        handler.filters.clear()
    level, raises = root.level, logging.raiseExceptions
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for handler, had in zip(handlers, filters, strict=True):
            handler.filters[:] = had
        root.setLevel(level)
        logging.raiseExceptions = raises
