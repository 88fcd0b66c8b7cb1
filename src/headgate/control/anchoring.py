"""Checkpoints carried elsewhere: to files, URLs or a standard stream.

Theory of operation. What was signed is of use against whoever can write our state directory only
where they cannot write it. A thread takes the checkpoints in turn; while a place does not answer,
the newest `_WAITING` wait and older ones are given up, since a later one stands for all before it.
A place that failed is tried again with the next checkpoint and after a while, never in a hurry.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import urllib.request
from collections import deque
from typing import Final
from urllib.parse import urlsplit

from headgate.security.audit.chain import Checkpoint

__all__ = ["Anchors"]

_WAITING: Final = 100
_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 30.0
_END_S: Final = 3.0

log = logging.getLogger("headgate.audit")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object, **_named: object) -> None:
        return None


class Anchors:
    def __init__(self, places: tuple[str, ...]) -> None:
        self.places = places
        self._waiting: dict[str, deque[bytes]] = {place: deque(maxlen=_WAITING) for place in places}
        self._wake = threading.Condition()
        self._is_ending = False
        self._thread: threading.Thread | None = None
        self.failing: dict[str, str] = {}
        """Places that did not take the last checkpoint, and why."""

    def carry(self, checkpoint: Checkpoint) -> None:
        """Hand over a checkpoint. Does not block."""
        if not self.places:
            return
        with self._wake:
            for waiting in self._waiting.values():
                waiting.append(checkpoint.to_line())
            if self._thread is None and not self._is_ending:
                self._thread = threading.Thread(target=self._run, name="anchors", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """Carry what waits, within a short while, and end. Blocks."""
        with self._wake:
            self._is_ending = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join(_END_S)

    def _run(self) -> None:
        next_try = 0.0
        while True:
            with self._wake:
                while not self._is_ending and not self._is_due(next_try):
                    self._wake.wait(_RETRY_S if any(self._waiting.values()) else None)
                is_last = self._is_ending
                if is_last and not any(self._waiting.values()):
                    return
            for place in self.places:
                self._empty(place)
            next_try = time.monotonic() + _RETRY_S
            if is_last:
                return

    def _is_due(self, next_try: float) -> bool:
        if time.monotonic() >= next_try:
            return any(self._waiting.values())
        return any(waiting for place, waiting in self._waiting.items() if place not in self.failing)

    def _empty(self, place: str) -> None:
        waiting = self._waiting[place]
        while waiting:
            line = waiting[0]
            try:
                _put(place, line)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                if place not in self.failing:
                    log.warning(
                        "checkpoints of the audit log do not reach %s: %s", shown(place), why
                    )
                self.failing[place] = why
                return
            self.failing.pop(place, None)
            with self._wake:
                if waiting and waiting[0] is line:
                    waiting.popleft()


def shown(place: str) -> str:
    """The place without what may be a secret in its URL."""
    if "://" not in place:
        return place
    url = urlsplit(place)
    return f"{url.scheme}://{url.hostname}{':' + str(url.port) if url.port else ''}{url.path}"


def _put(place: str, line: bytes) -> None:
    if place in {"stdout", "stderr"}:
        stream = sys.stdout if place == "stdout" else sys.stderr
        stream.write(f"headgate audit checkpoint {line.decode('ascii')}")
        stream.flush()
    elif "://" in place:
        request = urllib.request.Request(  # noqa: S310 - http and https, the file's check says
            place, line, {"content-type": "application/json", "user-agent": "headgate"}
        )
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            answer.read(1024)
    else:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, line) != len(line):
                raise OSError("was written in part")
            os.fsync(fd)
        finally:
            os.close(fd)
