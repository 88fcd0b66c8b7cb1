"""Wall time for header fields, formatted once a second."""

from __future__ import annotations

import time
from email.utils import formatdate


class _Dates:
    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """A `Date` header line for now (RFC 9110 6.6.1)."""
        second = int(time.time())  # noqa: TID251 - this is the one place that dates messages
        if second != self._second:
            self._second = second
            self._line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._line


http_date = _Dates().line
