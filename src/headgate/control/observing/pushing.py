"""The gateway's figures, pushed to a collector by OTLP over HTTP.

Theory of operation. Control asks the workers for their newest figures, as for a scrape, and a
thread packs and sends them, so that neither a thousand series nor a collector that does not answer
holds control up. When to push again after a failure is the receiver's rule (`otlp_post`): nothing
is queued, because figures are cumulative. At the end there is one last push, of two seconds at
most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Iterable
from typing import Final

import headgate
from headgate.config import Config
from headgate.config.pushing import MetricsPushSpec
from headgate.control.observing.observing import Surroundings
from headgate.observe import Merged, Rows
from headgate.observe.merged_families import families_of
from headgate.observe.meters.otlp_encode import encode
from headgate.observe.meters.otlp_post import Pushed, Receiver, wait_after

__all__ = ["MetricsPushing"]

FIRST_S: Final = 2.0
"""Soon, so that a mistake is seen."""
LAST_S: Final = 2.0
WORRY_AFTER: Final = 3
"""Failures in a row; one is no news."""

log = logging.getLogger("headgate.control")


class MetricsPushing:
    name = "metrics_push"

    def __init__(self, around: Surroundings, *, rng: random.Random | None = None) -> None:
        self._around = around
        self._rng = rng or random.Random()
        self._spec: MetricsPushSpec | None = None
        self._task: asyncio.Task[None] | None = None
        self._started_wall = time.time()  # noqa: TID251 - told to the collector
        self._results = {"ok": 0, "failed": 0, "refused": 0}
        self._failures = 0
        self._why = ""

    # -- the department -----------------------------------------------------------------------

    def start(self) -> None:
        """It begins with the file."""

    def take(self, config: Config) -> None:
        spec = config.metrics_push
        wanted = spec if isinstance(spec, MetricsPushSpec) else None
        if wanted == self._spec:
            return
        self._spec = wanted
        self._failures, self._why = 0, ""
        self._stop()
        if wanted is not None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(wanted), name="metrics-push")

    async def close(self) -> None:
        spec, self._spec = self._spec, None
        task = self._stop()
        if task is not None:
            await asyncio.wait([task])
        if spec is not None:
            # Not the workers' newest: they may have ended already.
            merged, timeout_s = self._around.merged(), min(LAST_S, spec.timeout)
            await asyncio.to_thread(self._push, merged, _receiver(spec), timeout_s)

    def worries(self) -> Iterable[str]:
        if self._failures >= WORRY_AFTER:
            yield f"figures could not be pushed {self._failures} times: {self._why}"

    def rows_into(self, rows: Rows) -> None:
        if self._spec is None and not any(self._results.values()):
            return
        for result, count in self._results.items():
            rows["headgate_metrics_pushes_total"].append(([result], count))

    # -- pushing ------------------------------------------------------------------------------

    def _stop(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    async def _run(self, spec: MetricsPushSpec) -> None:
        receiver = _receiver(spec)
        wait_s = min(FIRST_S, spec.every)
        while True:
            await asyncio.sleep(wait_s)
            with contextlib.suppress(Exception):  # what was told last is better than nothing
                await self._around.refresh()
            merged = self._around.merged()
            result = await asyncio.to_thread(self._push, merged, receiver, spec.timeout)
            self._note(result, receiver)
            wait_s = wait_after(result, self._failures, spec.every, self._rng)

    def _push(self, merged: Merged, receiver: Receiver, timeout_s: float) -> Pushed:
        try:
            host = socket.gethostname()
            body = encode(
                families_of(merged),
                {"service.name": "headgate", "host.name": host, "service.instance.id": host},
                start_wall=self._started_wall,
                wall=time.time(),  # noqa: TID251 - the collector asks for it
                version=headgate.__version__,
            )
            return receiver.post(body, timeout_s)
        except Exception as error:
            log.exception("figures could not be made ready for a push")
            return Pushed(False, why=type(error).__name__)

    def _note(self, result: Pushed, receiver: Receiver) -> None:
        kind = "ok" if result.is_ok else "failed" if result.may_pass else "refused"
        self._results[kind] += 1
        if result.is_ok:
            if self._failures:
                log.info("figures are pushed to %s again", receiver.host)
            self._failures, self._why = 0, ""
            return
        self._failures += 1
        self._why = result.why
        if self._failures == 1:
            log.warning("figures could not be pushed to %s: %s", receiver.host, result.why)


def _receiver(spec: MetricsPushSpec) -> Receiver:
    return Receiver(spec.url, headers=spec.headers)
