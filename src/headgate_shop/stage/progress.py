"""What is told of a start, on standard output: lines of JSON for whoever started the stage."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

__all__ = ["Progress", "step", "tell"]

Progress: TypeAlias = Callable[[int, str], None]
"""So many are done, and which was the last."""


def tell(**news: Any) -> None:
    """A line, if somebody reads it. What is longer than a pipe takes at once is not torn apart."""
    line = json.dumps(news).encode() + b"\n"
    with contextlib.suppress(OSError):
        os.write(1, line)


@contextlib.contextmanager
def step(name: str, of: int = 0) -> Iterator[Progress]:
    """A step of the start; the function that it gives tells how far it is."""
    began = time.monotonic()
    tell(step=name, state="begun", of=of)

    def progress(done: int, what: str) -> None:
        tell(step=name, state="going", done=done, of=of, what=what)

    yield progress
    tell(step=name, state="done", of=of, took_s=round(time.monotonic() - began, 2))
