"""A worker that says something whenever it is asked for its figures."""

from __future__ import annotations

import logging
from typing import Any

from tests.control.echo_worker import EchoWorker

log = logging.getLogger("test.worker")


class LoggingWorker(EchoWorker):
    def snapshot(self) -> dict[str, Any]:
        log.debug("asked for figures, quietly")
        log.warning("asked for figures, aloud", extra={"password": "hunter2hunter2"})
        return super().snapshot()
