"""What the workers say to control: their snapshots and their events.

Theory of operation
-------------------
Each worker has a link to control, which the supervisor made and sees nothing of. Control asks
for a snapshot when somebody wants to know, and now and then by itself, so that a worker that
dies takes little with it. One that does not answer within `ANSWER_S` counts with its last one.

Totals must not fall when a process ends, so every life of a worker (index and pid) is counted
apart by `Carried`, and folded into what has been when its link closes. A worker that leaves in
order sends its last words first. The folded sum itself is kept in the state directory, for a
control process that is started again; it belongs to one run of the supervisor and is dropped by
the next.

What workers share with each other (limits, news) goes over the same links; `Shared` has it.

Asking costs the worker: it tells only what has changed since the last time (`observe/changes.py`),
which is 3 ms of its processor for a thousand routes that stand still, 7 when a hundred of them are
busy, some forty when all are (`observe/sliced.py` has the slices). So `POLL_SHARE` bounds the share
of its time that polls by our own accord may take; the history has then the same figures for some
seconds. The worker says what it took: how long we waited says how busy the machine is, and when it
is busy the figures are needed most.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headgate.control.channel import Channel, ChannelClosed, Message
from headgate.control.shared import Shared
from headgate.control.state_dir import TOTALS_FILE, StateDir, StateDirUnusable
from headgate.observe import Carried, Merged
from headgate.observe.changes import NOTHING, Misfit, held

__all__ = ["Hub", "Sample", "WorkerLink"]

ANSWER_S = 0.5
JUDGING_S = 12.0
"""An issuer's keys may have to be fetched for it."""
POLL_S = 1.0
POLL_SHARE = 0.01
RATE_WINDOW_S = 30.0
EVENTS_KEPT = 200

log = logging.getLogger("headgate.control")


@dataclass(eq=False, slots=True)
class WorkerLink:
    index: int
    pid: int
    channel: Channel = field(init=False)
    snapshot: dict[str, Any] | None = None
    heard_at: float = 0.0  # of the newest snapshot; the start of the link before the first
    is_silent: bool = False  # it did not answer the last question in time

    @property
    def life(self) -> str:
        return f"worker-{self.index}/{self.pid}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one moment, for rates."""

    at: float
    requests: dict[tuple[str, str], float]  # by route and service


class Hub:
    def __init__(self, state: StateDir, run_id: str, shared: Shared | None = None) -> None:
        self.shared = Shared() if shared is None else shared
        self._state = state
        self._run_id = run_id
        self._carried = Carried()
        self._departed = Carried()  # the same lives once they have ended, for the file
        self.links: dict[int, WorkerLink] = {}
        self._hearers: dict[str, Callable[[int, dict[str, Any]], object]] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.samples: deque[Sample] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._own_rows: Callable[[], dict[str, Any]] | None = None
        self.reloads = {"ok": 0, "refused": 0}
        self._load()

    def count_ourselves(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Add a snapshot of the control process to every total."""
        self._own_rows = snapshot

    def hear(self, event: str, hearer: Callable[[int, dict[str, Any]], object]) -> None:
        """Have `hearer(worker, event)` called for a worker's events of this kind:
        `{"event": kind, ...}`. They are from a process of ours, but torn ones must do no harm.
        """
        self._hearers[event] = hearer

    # --------------------------------------------------------------------------------- links

    def connect(self, index: int, pid: int, fd: int) -> None:
        link = WorkerLink(index, pid, heard_at=time.monotonic())
        link.channel = Channel(
            socket.socket(fileno=fd),
            on_message=lambda message: self._heard(link, message),
            on_closed=lambda: self._gone(link),
        )
        link.channel.start()
        self.links[pid] = link

    def _heard(self, link: WorkerLink, message: Message) -> None:
        if message.kind == "last_words":
            self._take(link, message)
        elif message.kind == "event":
            event = message.fields.get("event", {})
            hearer = self._hearers.get(str(event.get("event")))
            if hearer is None:
                self.events.append({**event, "worker": link.index})
            else:
                hearer(link.index, event)
        elif message.kind == "snapshot":
            self._take(link, message)  # it answers, late
        else:
            self.shared.heard(link, message)

    def _take(self, link: WorkerLink, message: Message) -> None:
        try:
            snapshot = held(link.snapshot, json.loads(message.payload))
            # Two lives of one worker may overlap, in an upgrade: they are counted apart.
            life = {**snapshot, "process": link.life}
            self._carried.take(life)
        except Misfit:
            return  # it came late; the next question has all of it told
        except (ValueError, KeyError, TypeError, LookupError, AttributeError) as error:
            log.warning("worker %d sent a snapshot that cannot be read: %r", link.index, error)
            return
        link.snapshot = snapshot
        link.heard_at = time.monotonic()
        link.is_silent = False

    def _gone(self, link: WorkerLink) -> None:
        self.links.pop(link.pid, None)
        self.shared.left(link)
        if link.snapshot is not None:
            self._carried.end(link.life)
            self._departed.take({**link.snapshot, "process": link.life})
            self._departed.end(link.life)
            self.save()

    # ------------------------------------------------------------------------------ snapshots

    async def refresh(self) -> None:
        """Ask every worker for a snapshot; those who ask at once share the answers."""
        if self._asking is None or self._asking.done():
            loop = asyncio.get_running_loop()
            self._asking = loop.create_task(self._ask_all(), name="snapshots")
        await asyncio.shield(self._asking)

    async def _ask_all(self) -> None:
        links = list(self.links.values())
        await asyncio.gather(*(self._ask(link) for link in links))
        self._sample()

    async def _ask(self, link: WorkerLink) -> None:
        try:
            have = (link.snapshot or {}).get("number", NOTHING)
            answer = await link.channel.ask("snapshot", timeout_s=ANSWER_S, have=have)
        except TimeoutError:
            link.is_silent = True
            return
        except ChannelClosed:
            return
        self._take(link, answer)

    async def judge(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Ask a worker whether it would let a request in; None where it has nothing to say."""
        payload = json.dumps(asked).encode()
        for link in list(self.links.values()):
            try:
                answer = await link.channel.ask("judge", payload, timeout_s=JUDGING_S)
            except (TimeoutError, ChannelClosed):
                continue
            found: dict[str, Any] | None = json.loads(answer.payload)
            return found
        return None

    async def poll(self) -> None:
        """Refresh for ever, as often as `POLL_SHARE` allows."""
        while True:
            costs = [(link.snapshot or {}).get("cost_s", 0.0) for link in self.links.values()]
            await asyncio.sleep(max(POLL_S, max(costs, default=0.0) / POLL_SHARE))
            await self.refresh()

    def merged(self) -> Merged:
        if self._own_rows is not None:
            self._carried.take(self._own_rows())
        return self._carried.merged()

    def _sample(self) -> None:
        requests: dict[tuple[str, str], float] = {}
        merged = self._carried.merged()
        for labels, count in merged.numbers.get("headgate_http_requests_total", {}).items():
            key = (labels[0], labels[1])
            requests[key] = requests.get(key, 0.0) + count
        now = time.monotonic()
        self.samples.append(Sample(now, requests))
        while len(self.samples) > 2 and now - self.samples[0].at > RATE_WINDOW_S:
            self.samples.popleft()

    def rates(self) -> dict[tuple[str, str], float]:
        """Requests a second by route and service, over the last half minute or so."""
        if len(self.samples) < 2:
            return {}
        first, last = self.samples[0], self.samples[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return {}
        return {
            key: max(0.0, count - first.requests.get(key, 0.0)) / seconds
            for key, count in last.requests.items()
        }

    # ------------------------------------------------------------------------ across restarts

    def save(self) -> None:
        """Keep the totals of those who have gone, for the next control process of this run."""
        merged = self._departed.merged()
        rows: dict[str, list[Any]] = {
            name: [[list(labels), value] for labels, value in family.items()]
            for name, family in merged.numbers.items()
        }
        for name, histograms in merged.histograms.items():
            rows[name] = [
                [list(labels), {"counts": counted.counts, "sum": counted.sum}]
                for labels, counted in histograms.items()
            ]
        try:
            self._state.write_json(
                TOTALS_FILE, {"run": self._run_id, "rows": rows, "reloads": self.reloads}
            )
        except StateDirUnusable as error:
            log.warning("totals of ended workers are not kept: %s", error)

    def _load(self) -> None:
        kept = self._state.read_json(TOTALS_FILE)
        if kept.get("run") != self._run_id:
            return
        earlier = {"process": "earlier", "start": self._run_id, "rows": kept["rows"]}
        try:
            for carried in (self._carried, self._departed):
                carried.take(earlier)
                carried.end("earlier")
            self.reloads.update(kept.get("reloads", {}))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("totals of ended workers cannot be read: %r", error)
