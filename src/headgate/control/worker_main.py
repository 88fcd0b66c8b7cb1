"""A worker process: the gateway's data plane behind a channel.

Theory of operation
-------------------
The process owns what is the same for every program (signals, the loop, the collector, the end
of the process); the gateway's `Worker` owns what serves. Orders come from the supervisor and
are carried out one after the other:

    apply        the document and the sockets -> applied | refused
    drain        stop accepting, finish, end
    reopen_logs
    ping         -> pong: the loop turns (`watchdog`)
    link         a socket to control, over which it asks for snapshots and workers share limits
                 and news; an end of it (control has died) is no event: the supervisor brings a
                 new one

A socket keeps its Python object for as long as it is lent to us, so that a worker can tell by
identity which listeners a reload did not touch. Those that it is no longer lent are closed
after `apply` has returned.

A process is nobody's worker before its first apply, which names its seat. That first apply also
decides: when it is refused the process says so and ends, and the supervisor
decides when to try again. SIGTERM to the process itself means "leave": the supervisor seats
a successor and this one drains.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from headgate.control import process_logs
from headgate.control.channel import Channel, Message
from headgate.control.children import die_with_parent, name_process
from headgate.control.launch import DEFAULT_WORKER
from headgate.errors import ConfigInvalid, HeadgateError
from headgate.observe import logs
from headgate.observe.changes import NOTHING, Telling
from headgate.observe.sliced import json_steps
from headgate.state.hub import HubShared

__all__ = ["GatewayWorker", "Sharing", "load_worker", "main"]

# A request leaves few cycles behind, so the young generation may grow large between scans.
GC_THRESHOLDS = (50_000, 20, 50)
# A full scan stops the loop for about 10 ms for every 100,000 objects, so that a reload a second
# must not mean a scan a second.
FULL_SCAN_EVERY_S = 30.0
EVENTS_KEPT = 1000
PURGES_KEPT = 1000
EX_CONFIG = 78
FEED_EVERY_S = 1.0
SLICE_S = 0.0005
T = TypeVar("T")
FEED_BACKLOG = 100  # frames

log = logging.getLogger("headgate.worker")


class GatewayWorker(Protocol):
    """What this process asks of the gateway."""

    async def apply(
        self, document: dict[str, Any], sockets: dict[str, list[socket.socket]], generation: int
    ) -> None: ...
    async def drain(self, deadline_s: float) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def reopen_logs(self) -> None: ...


@runtime_checkable
class Sharing(Protocol):
    """A worker that shares limits and news with the others; told once, before its first apply."""

    def take_shared(self, shared: HubShared) -> None: ...


@runtime_checkable
class Judging(Protocol):
    """A worker that can say whether it would let a request in."""

    async def judge(self, asked: dict[str, Any]) -> dict[str, Any] | None: ...


@runtime_checkable
class HoldingResponses(Protocol):
    """A worker with a cache: it forgets what it is told to, and says what it holds."""

    async def cache_asked(self, asked: dict[str, Any]) -> dict[str, Any]: ...


WorkerClass = Callable[[int, Callable[[dict[str, Any]], None]], GatewayWorker]


def load_worker(name: str) -> WorkerClass:
    module, _colon, attribute = name.partition(":")
    found: WorkerClass = getattr(importlib.import_module(module), attribute)
    return found


class WorkerProcess:
    def __init__(self, channel: socket.socket, worker_class: WorkerClass) -> None:
        self._worker_class = worker_class
        self._worker: GatewayWorker | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._channel = Channel(channel, self._orders_put, _end_at_once)
        self._link: Channel | None = None
        self._shared = HubShared()
        self._judging: set[asyncio.Task[None]] = set()
        self._serves = False
        self._early: list[dict[str, Any]] = []  # purges from before it served
        self._unsent: list[dict[str, Any]] = []  # events, while control is away
        self._feed = process_logs.Feed(self._report)
        self._feeds = False
        self._shared.subscribe(process_logs.LEVELS_TOPIC, process_logs.hear_levels)
        self._scanned_at: float | None = None
        self._said_s = 0.0
        self._telling = Telling()

    def _orders_put(self, message: Message) -> None:
        if message.kind == "ping":
            self._channel.send("pong")  # that it comes at all is the answer
        elif message.kind == "link":
            self._on_link(message)
        elif message.kind == "reopen_logs":
            logs.reopen()
            if self._worker is not None:
                self._worker.reopen_logs()
        else:
            self._orders.put_nowait(message)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        # Ctrl-C and a closing terminal are the supervisor's business.
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_IGN)
        # The watchdog's wish before it ends us: written by the signal handler itself, so that it
        # needs neither the loop nor the interpreter's lock. Harmless if somebody else sends it.
        faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        self._channel.start()
        while True:
            order = await self._orders.get()
            if order.kind == "apply":
                if self._worker is None:
                    self._worker = self._sit_down(order.fields["index"])
                took = await self._apply(self._worker, order)
                if took:
                    await self._take_early(self._worker)
                elif not self._serves:
                    return EX_CONFIG
            elif order.kind == "drain":
                if self._worker is not None:
                    await self._drain(self._worker, order.fields["deadline_s"])
                return 0

    def _sit_down(self, index: int) -> GatewayWorker:
        """Become the worker of one seat; until then any seat may be ours."""
        name_process(f"headgate-w{index}")
        worker = self._worker_class(index, self._report)
        if isinstance(worker, Sharing):
            worker.take_shared(self._shared)
        return worker

    def _on_terminate(self) -> None:
        self._channel.send("leaving")  # the supervisor seats a successor and tells us to drain

    # -------------------------------------------------------------------------------- orders

    async def _apply(self, worker: GatewayWorker, order: Message) -> bool:
        fresh = {
            name: socket.socket(fileno=fd)
            for name, fd in zip(order.fields["new"], order.fds, strict=True)
        }
        for sock in fresh.values():
            sock.setblocking(False)
        held = {**self._sockets, **fresh}
        rows: dict[str, list[str]] = order.fields["sockets"]
        sockets = {bind: [held[name] for name in names] for bind, names in rows.items()}
        generation: int = order.fields["generation"]
        document: dict[str, Any] = json.loads(order.payload)
        if isinstance(document.get("workers"), int):
            self._shared.expect(document["workers"])
        try:
            await worker.apply(document, sockets, generation)
        except Exception as error:  # noqa: BLE001  whatever it is, the old plan serves on
            for sock in fresh.values():
                sock.close()
            self._channel.answer(order, "refused", faults=faults_of(error))
            return False
        named = {name for names in rows.values() for name in names}
        for name in held.keys() - named:
            held.pop(name).close()
        self._sockets = held
        self._take_logging(document)
        self._channel.answer(order, "applied", generation=generation, sockets=list(held))
        self._settle_memory()
        return True

    def _take_logging(self, document: dict[str, Any]) -> None:
        try:
            self._log_by(document)
        except Exception:
            log.exception("the logging of this worker stays as it was")

    def _log_by(self, document: dict[str, Any]) -> None:
        spec = process_logs.spec_of(document)
        process_logs.take(spec)
        self._feed.take(spec.store_rules())
        tap = getattr(self._worker, "tap_access", None)
        if tap is not None:
            wanted = spec.store_rules().access
            tap(self._feed.access if wanted != "off" else None, is_all=wanted == "all")
        if not self._feeds:
            self._feeds = True
            self._turn_feed()

    def _turn_feed(self) -> None:
        # While control is away or does not read, lines wait in the feed, up to its bound.
        link = self._link
        if link is not None and not link.is_closed and link.backlog < FEED_BACKLOG:
            self._feed.turn()
        asyncio.get_running_loop().call_later(FEED_EVERY_S, self._turn_feed)

    async def _answer_snapshot(
        self, worker: GatewayWorker, link: Channel, question: Message
    ) -> None:
        """In slices, so that nobody's request waits for what is only counted."""
        steps = getattr(worker, "snapshot_steps", None)
        try:
            if steps is None:
                payload = self._snapshot(worker)
            else:
                said, made_s = await _in_slices(steps())
                # What the words took is known behind them: those of last time stand for it.
                said["cost_s"] = round(made_s + self._said_s, 6)
                have = question.fields.get("have", NOTHING)
                telling = self._telling.steps(self._with_sinks(said), have)
                told, compared_s = await _in_slices(telling)
                payload, written_s = await _in_slices(json_steps(told))
                self._said_s = compared_s + written_s
        except Exception as error:  # noqa: BLE001  a question must not end the worker
            log.warning("a snapshot could not be made: %r", error)
            return
        link.answer(question, "snapshot", payload)

    def _snapshot(self, worker: GatewayWorker) -> bytes:
        return json.dumps(self._with_sinks(worker.snapshot())).encode()

    def _with_sinks(self, said: dict[str, Any]) -> dict[str, Any]:
        rows = said.get("rows")
        if isinstance(rows, dict):
            for name, labels, value in process_logs.sink_rows(str(said.get("process", ""))):
                rows.setdefault(name, []).append([labels, value])
        return said

    def _settle_memory(self) -> None:
        """What lives now will live long: keep the collector from looking at it again."""
        now = time.monotonic()
        if self._scanned_at is not None and now - self._scanned_at < FULL_SCAN_EVERY_S:
            return
        if self._scanned_at is not None:
            gc.unfreeze()  # what the plan before this one left
        # The first time all that is frozen was imported, much of it by the process that we are a
        # copy of: a look at it would make its pages ours.
        self._scanned_at = now
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def _drain(self, worker: GatewayWorker, deadline_s: float) -> None:
        # The worker has its own; while ours are open the kernel would queue for nobody.
        for sock in self._sockets.values():
            sock.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s + 0.5):
                await worker.drain(deadline_s)
        if self._link is not None:
            # Control folds these into the totals of workers that have gone.
            self._feed.turn()
            self._link.send("last_words", self._snapshot(worker))
            self._link.flush(0.2)

    # ------------------------------------------------------------------------------- control

    def _on_link(self, message: Message) -> None:
        if self._link is not None:
            self._link.close()
        link = Channel(
            socket.socket(fileno=message.fds[0]),
            on_message=lambda question: self._on_question(link, question),
            on_closed=lambda: self._shared.detach(link),
        )
        link.start()
        self._link = link
        self._shared.attach(link)
        unsent, self._unsent = self._unsent, []
        for event in unsent:
            link.send("event", event=event)

    def _on_question(self, link: Channel, question: Message) -> None:
        if question.kind == "snapshot" and self._worker is not None:
            work = asyncio.get_running_loop().create_task(
                self._answer_snapshot(self._worker, link, question), name="snapshot"
            )
            self._judging.add(work)
            work.add_done_callback(self._judging.discard)
        elif question.kind == "judge":
            work = asyncio.get_running_loop().create_task(_judge(self._worker, link, question))
            self._judging.add(work)
            work.add_done_callback(self._judging.discard)
        elif question.kind == "traffic":
            link.answer(question, "told", json.dumps(self._ask_traffic(question)).encode())
        elif question.kind == "cache":
            work = asyncio.get_running_loop().create_task(self._ask_cache(link, question))
            self._judging.add(work)
            work.add_done_callback(self._judging.discard)
        elif link is self._link:
            self._shared.heard(question.kind, question.fields)

    def _ask_traffic(self, question: Message) -> dict[str, Any]:
        asked: Callable[[Any], dict[str, Any]] | None
        asked = getattr(self._worker, "traffic_asked", None)
        try:
            return asked(json.loads(question.payload)) if asked is not None else {}
        except Exception as error:  # noqa: BLE001  a question must not end the worker
            log.warning("the worker could not be asked: %r", error)
            return {}

    async def _ask_cache(self, link: Channel, question: Message) -> None:
        """Act on a purge, or say what is held. Before it serves a worker holds nothing, but it may
        find something on the disk: purges wait until then.
        """
        worker: object = self._worker
        said: dict[str, Any] = {}
        try:
            asked: dict[str, Any] = json.loads(question.payload)
            if not self._serves:
                if asked["do"] == "invalidate":
                    self._keep_early(asked)
            elif isinstance(worker, HoldingResponses):
                said = await worker.cache_asked(asked)
        except Exception as error:  # noqa: BLE001  a question must not end the worker
            log.warning("the cache could not be asked: %r", error)
            said = {"error": type(error).__name__}
        if "id" in question.fields:
            link.answer(question, "cached", json.dumps(said).encode())

    def _keep_early(self, asked: dict[str, Any]) -> None:
        self._early.append(asked)
        if len(self._early) > PURGES_KEPT:
            stamp = asked["invalidation"]["stamp"]
            everything = {"everything": "responses", "stamp": stamp}
            self._early = [{"do": "invalidate", "invalidation": everything}]

    async def _take_early(self, worker: object) -> None:
        """The first configuration is taken up; what was purged before holds too."""
        self._serves = True
        early, self._early = self._early, []
        if not isinstance(worker, HoldingResponses):
            return
        for asked in early:
            try:
                await worker.cache_asked(asked)
            except Exception as error:  # noqa: BLE001  likewise
                log.warning("a purge could not be carried out: %r", error)

    def _report(self, event: dict[str, Any]) -> None:
        """An event from the worker for control; kept, up to a bound, while control is away."""
        if self._link is not None and not self._link.is_closed:
            self._link.send("event", event=event)
        elif len(self._unsent) < EVENTS_KEPT:
            self._unsent.append(event)


async def _in_slices(steps: Generator[None, None, T]) -> tuple[T, float]:
    """Drive a generator, giving way to the loop after every `SLICE_S`; with its processor time."""
    used_s = 0.0
    until = time.monotonic() + SLICE_S
    began = time.thread_time()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found, used_s + time.thread_time() - began
        if time.monotonic() >= until:
            used_s += time.thread_time() - began
            await asyncio.sleep(0)
            until = time.monotonic() + SLICE_S
            began = time.thread_time()


async def _judge(worker: object, link: Channel, question: Message) -> None:
    found = None
    try:
        if isinstance(worker, Judging):
            found = await worker.judge(json.loads(question.payload))
    except Exception as error:  # noqa: BLE001  a question must not end the worker
        log.warning("a request could not be judged: %r", error)
    link.answer(question, "judgement", json.dumps(found).encode())


def faults_of(error: BaseException) -> list[dict[str, Any]]:
    """An exception as faults in JSON: those of a `ConfigInvalid`, or its message as one."""
    if isinstance(error, ConfigInvalid):
        return [
            {
                "file": fault.file,
                "line": fault.line,
                "column": fault.column,
                "where": fault.where,
                "message": fault.message,
                "hint": fault.hint,
            }
            for fault in error.faults
            if fault.level == "error"
        ]
    if isinstance(error, HeadgateError | OSError):
        return [{"message": str(error), "hint": ""}]
    log.error("a configuration could not be applied", exc_info=error)
    return [
        {
            "message": f"{type(error).__name__}: {error}",
            "hint": "this is a fault of Headgate or of a plugin; the log has the details",
        }
    ]


def _end_at_once() -> None:
    """The supervisor is gone, and with it the sockets' keeper and everyone who could stop us."""
    os._exit(1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.worker_main")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--worker", default=DEFAULT_WORKER)
    parser.add_argument("--folder", type=Path)  # of the configuration, where plugins may be
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    os.set_inheritable(options.channel, False)
    name_process("headgate-w")
    faulthandler.enable()
    process_logs.begin("worker")
    if options.folder is not None and str(options.folder) not in sys.path:
        sys.path.append(str(options.folder))
    import uvloop  # here, so that the trial of an upgrade and the tests can import this module

    worker_class = load_worker(options.worker)
    process = WorkerProcess(socket.socket(fileno=options.channel), worker_class)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(process.run())


if __name__ == "__main__":
    sys.exit(main())
