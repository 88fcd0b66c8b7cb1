"""Elasticsearch and OpenSearch, by `_bulk`.

Theory of operation. Lines are created, never indexed over: a data stream takes nothing else. The
answer has an item for each line, in order; those refused for load (429, 503) are tried again,
others are counted as failed with the first reason. An answer that says errors and has not as many
items as there were lines is taken for a failure of all of them: to send them again could not help.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

from headgate.observe.logs.pump import Line, Sent
from headgate.observe.logs.rules import SinkRules
from headgate.observe.logs.sinks.posting import Poster

__all__ = ["ElasticCarrier", "index_of"]

_FILTER: Final = "?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
_AGAIN: Final = frozenset({429, 502, 503, 504})


def index_of(template: str, wall: float) -> str:
    """`headgate-logs-%Y.%m.%d`, on the line's own day."""
    day = wall if 0 <= wall < 253402300800 else 0.0
    return time.strftime(template, time.gmtime(day)) if "%" in template else template


class ElasticCarrier:
    is_local = False

    def __init__(self, rules: SinkRules) -> None:
        self.name = rules.name
        self._poster = Poster(rules.url, f"/_bulk{_FILTER}", dict(rules.headers), rules.ca_file)
        self._index = rules.index

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        body = bytearray()
        for line in lines:
            index = json.dumps(index_of(self._index, line.wall))
            body += b'{"create":{"_index":%b}}\n%b\n' % (index.encode(), line.data)
        answer = self._poster.post(bytes(body), "application/x-ndjson", deadline)
        if answer.status == 413 and len(lines) > 1:
            half = len(lines) // 2
            first = self.send(lines[:half], deadline)
            return Sent(first.written, first.failed, (*first.again, *lines[half:]), first.wait_s)
        if answer.is_busy or answer.status in {401, 403}:
            why = f"it answers {answer.status}"
            return Sent(0, 0, tuple(lines), answer.retry_after_s, why)
        if answer.status != 200:
            return Sent(0, len(lines), why=f"it refuses a batch with {answer.status}")
        return _judged(lines, answer.body)

    def reopen(self) -> None:
        """It has no file."""

    def close(self) -> None:
        self._poster.close()


def _judged(lines: Sequence[Line], body: bytes) -> Sent:
    try:
        said = json.loads(body)
        if said.get("errors", False) is False:
            return Sent(len(lines))
        items = [next(iter(item.values())) for item in said["items"]]
        statuses = [int(item["status"]) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return Sent(0, len(lines), why="its answer makes no sense")
    if len(items) != len(lines):
        return Sent(0, len(lines), why="its answer is not about the lines that were sent")
    again = tuple(line for line, status in zip(lines, statuses, strict=True) if status in _AGAIN)
    written = sum(status < 300 for status in statuses)
    failed = len(lines) - len(again) - written
    why = "it is too busy for some lines" if again else ""
    for item, status in zip(items, statuses, strict=True):
        if status >= 300 and status not in _AGAIN:
            error = item.get("error") if isinstance(item.get("error"), dict) else {}
            why = f"it refuses lines: {error.get('type')}: {str(error.get('reason'))[:200]}"
            break
    return Sent(written, failed, again, why=why)
