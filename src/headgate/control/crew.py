"""The workers of a run: one slot each, always filled, and a configuration that all agree on.

Theory of operation
-------------------
A slot is a seat for one worker. Whoever sits there may change (crash, upgrade in place); the
slot keeps the seat's history for the back-off and for the operator. A worker that leaves has no
seat any more: it drains beside its successor and is killed when its deadline has passed.

`committed` is the configuration that every worker runs or is about to run; a worker that starts
gets that one. `roll_out` moves the crew to a candidate:

    1. every seated worker is offered the candidate; one that dies meanwhile is waited for and
       its successor is asked (a kill is not the candidate's fault; a second one is)
    2. all took it        -> it is committed; seats are added or retired
       any refused it     -> those that took it are given the committed one again

A worker holds either the old or the new configuration, never a mixture: `Worker.apply` swaps
one reference or raises. One that does not answer, or refuses the way back, is killed; its
successor starts on what is committed. Between the first and the last acceptance both
configurations serve, which is what clients see of any rolling change.

Only one roll-out or upgrade runs at a time; the supervisor holds the lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.control.backoff import Backoff
from headgate.control.channel import ChannelClosed, Message
from headgate.control.children import Child, Children, ending
from headgate.control.launch import Outline
from headgate.control.listening import Listeners

__all__ = ["Candidate", "Crew", "Refused", "Slot"]

APPLY_TIMEOUT_S = 60.0
RESPAWN_PATIENCE_S = 3.0
KILL_GRACE_S = 1.0  # between the end of the drain and SIGKILL

Faults = list[dict[str, Any]]
log = logging.getLogger("headgate.supervisor")


def fault(message: str, hint: str = "") -> dict[str, Any]:
    """A fault that has no place in a file, in the form that `Fault` has in JSON."""
    return {"message": message, "hint": hint}


@dataclass(frozen=True, slots=True)
class Candidate:
    generation: int
    outline: Outline
    document: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    faults: Faults


@dataclass(eq=False, slots=True)
class Slot:
    index: int
    child: Child | None = None
    backoff: Backoff = field(default_factory=Backoff)
    respawn: asyncio.TimerHandle | None = None
    respawn_at: float = 0.0
    is_to_be_fresh: bool = False
    last_end: str = ""
    last_refusal: Faults = field(default_factory=list)
    filled: asyncio.Event = field(default_factory=asyncio.Event)


class Crew:
    """Starts, replaces, reconfigures and drains the workers."""

    def __init__(
        self,
        children: Children,
        listeners: Listeners,
        committed: Candidate,
        *,
        worker_class: str,
        folder: str,
        on_change: Callable[[], None],
        on_seated: Callable[[Child], None],
    ) -> None:
        self.children = children
        self.listeners = listeners
        self.committed = committed
        self.slots: list[Slot] = []
        self.leaving: set[Child] = set()
        self.applying: set[Child] = set()
        """Those that are being given a configuration, which may hold them for long."""
        self.is_draining = False
        self._worker_class = worker_class
        self._folder = folder
        self._on_change = on_change
        self._on_seated = on_seated
        self.on_pong: Callable[[Child], None] | None = None

    # ------------------------------------------------------------------------------ seats

    def fill(self) -> None:
        """As many seats as the committed configuration wants, all taken."""
        wanted = self.committed.outline.workers
        self.listeners.grow(wanted)
        while len(self.slots) < wanted:
            self.slots.append(Slot(len(self.slots)))
        for slot in self.slots[wanted:]:
            if slot.respawn is not None:
                slot.respawn.cancel()
            if slot.child is not None:
                self.retire(slot.child)
        del self.slots[wanted:]
        for slot in self.slots:
            if slot.child is None:
                slot.backoff.forgive()
                self._start(slot)
        self._on_change()

    def _start(self, slot: Slot) -> None:
        if slot.respawn is not None:
            slot.respawn.cancel()
            slot.respawn = None
        if self.is_draining or slot.child is not None:
            return
        try:
            slot.child = self.spawn(slot.index, is_fresh=slot.is_to_be_fresh)
        except OSError as error:
            self._wait_and_start(slot, f"could not be started: {error.strerror}", None)
            return
        slot.filled.set()
        self._on_change()

    def spawn(self, index: int, *, is_fresh: bool = False) -> Child:
        """Start a worker on the committed configuration, seated or not yet."""
        child = self.children.spawn(
            "worker",
            index,
            time.monotonic(),
            *("--worker", self._worker_class),
            *("--folder", self._folder),
            is_fresh=is_fresh,
        )
        self._on_seated(child)
        fields, fds = self._terms(child, self.committed)
        child.channel.send("apply", self.committed.document, fds, **fields)
        return child

    def _wait_and_start(self, slot: Slot, how: str, ready_at: float | None) -> None:
        now = time.monotonic()
        wait_s = slot.backoff.crashed(now, ready_at)
        # Whoever never became ready may have had a template to blame.
        slot.is_to_be_fresh = ready_at is None
        slot.last_end = how
        slot.filled.clear()
        log.error(
            "worker %d %s; %s",
            slot.index,
            how,
            f"next start in {wait_s:g} s" if wait_s else "starting another",
        )
        if wait_s:
            slot.respawn_at = now + wait_s
            slot.respawn = asyncio.get_running_loop().call_later(wait_s, self._start, slot)
        else:
            self._start(slot)
        self._on_change()

    def ended(self, child: Child) -> None:
        """A worker process has ended, for whatever reason."""
        self.leaving.discard(child)
        slot = self.seat_of(child)
        if slot is None or self.is_draining:
            if child.state == "leaving":
                log.info("worker %d (pid %d) has drained", child.index, child.pid)
            if slot is not None:
                slot.child = None
            self._on_change()
            return
        slot.child = None
        slot.last_refusal = child.refusal
        how = f"(pid {child.pid}) {child.verdict or ending(child.status or 0)}"
        if child.refusal:
            how = f"(pid {child.pid}) could not start: {child.refusal[0]['message']}"
        self._wait_and_start(slot, how, child.ready_at)

    def seat_of(self, child: Child) -> Slot | None:
        for slot in self.slots:
            if slot.child is child:
                return slot
        return None

    def processes(self) -> list[Child]:
        """Those with a seat, and those that are leaving theirs."""
        seated = [slot.child for slot in self.slots if slot.child is not None]
        return [*seated, *self.leaving]

    # ---------------------------------------------------------------------------- messages

    def heard(self, child: Child, message: Message) -> None:
        """What a worker says unasked, or in answer to a supervisor that re-exec'd since."""
        match message.kind:
            case "applied":
                self._applied(child, message.fields["generation"], message.fields["sockets"])
            case "refused":
                # Only the first configuration of a starting worker is answered here; it ends
                # by itself and `ended` decides what next.
                child.refusal = message.fields["faults"]
                self._tell_news(child)
            case "pong":
                if self.on_pong is not None:
                    self.on_pong(child)
            case "leaving":
                # Somebody sent it SIGTERM: it drains, and its successor is wanted at once.
                slot = self.seat_of(child)
                log.info("worker %d (pid %d) was told to leave", child.index, child.pid)
                self.retire(child)
                if slot is not None and not self.is_draining:
                    slot.child = None
                    self._start(slot)
            case _:
                log.warning("worker %d said %r, which means nothing", child.index, message.kind)

    def _applied(self, child: Child, generation: int, sockets: Iterable[str]) -> None:
        child.generation = generation
        child.sockets = set(sockets)
        if child.state == "starting":
            child.state = "ready"
            child.ready_at = time.monotonic()
            slot = self.seat_of(child)
            if slot is not None:
                slot.last_refusal = []
        self._tell_news(child)
        self._on_change()

    @staticmethod
    def _tell_news(child: Child) -> None:
        if not child.first_news.done():
            child.first_news.set_result(None)

    # --------------------------------------------------------------------------- roll-out

    async def roll_out(self, candidate: Candidate) -> Refused | None:
        """Bring every seated worker to the candidate, or every one back."""
        seats = self.slots[: candidate.outline.workers]
        answers = await asyncio.gather(*(self._offer(slot, candidate) for slot in seats))
        faults = [fault for answer in answers for fault in answer]
        if faults:
            await self._take_back(candidate)
            return Refused(_distinct(faults))
        self.committed = candidate
        self.fill()
        await self.settle()
        return None

    async def _offer(self, slot: Slot, candidate: Candidate) -> Faults:
        for _life in range(2):
            child = slot.child
            if child is None:
                return []  # it waits out a crash loop, and will start on what is committed
            try:
                answer = await self._ask_apply(child, candidate)
            except TimeoutError:
                child.kill()
                return [fault(f"worker {slot.index} did not answer in {APPLY_TIMEOUT_S:g} s")]
            except ChannelClosed:
                if not await self._successor(slot, child):
                    return []
                continue
            if answer.kind == "refused":
                faults: Faults = answer.fields["faults"]
                return faults
            self._applied(child, answer.fields["generation"], answer.fields["sockets"])
            return []
        return [fault(f"worker {slot.index} died twice while it took the new configuration")]

    async def _successor(self, slot: Slot, dead: Child) -> bool:
        """Wait until somebody else sits there; False when that is a matter of a crash loop."""
        try:
            async with asyncio.timeout(RESPAWN_PATIENCE_S):
                while slot.child is dead or slot.child is None:
                    slot.filled.clear()
                    await slot.filled.wait()
        except TimeoutError:
            return False
        return True

    async def _take_back(self, candidate: Candidate) -> None:
        for slot in self.slots:
            child = slot.child
            if child is None or child.generation != candidate.generation:
                continue
            try:
                answer = await self._ask_apply(child, self.committed)
                if answer.kind == "applied":
                    self._applied(child, answer.fields["generation"], answer.fields["sockets"])
                    continue
            except (TimeoutError, ChannelClosed):
                pass
            log.error("worker %d cannot return to what it served; replacing it", slot.index)
            child.kill()

    async def settle(self) -> None:
        """Wait until every seat is ready on what is committed, or has failed to be."""
        for slot in list(self.slots):
            child = slot.child
            if child is None:
                continue
            try:
                async with asyncio.timeout(APPLY_TIMEOUT_S):
                    await asyncio.shield(child.first_news)
            except TimeoutError:
                continue
            if child.status is not None or child.generation == self.committed.generation:
                continue
            # It started on the one before, while this one was being rolled out.
            if await self._offer(slot, self.committed):
                child.kill()

    async def _ask_apply(self, child: Child, candidate: Candidate) -> Message:
        fields, fds = self._terms(child, candidate)
        self.applying.add(child)
        try:
            return await child.channel.ask(
                "apply", candidate.document, fds, timeout_s=APPLY_TIMEOUT_S, **fields
            )
        finally:
            self.applying.discard(child)

    def _terms(self, child: Child, candidate: Candidate) -> tuple[dict[str, Any], list[int]]:
        """The sockets of a worker by name, and descriptors of those it has not got yet."""
        lent = self.listeners.assignment(
            candidate.outline.listeners, child.index, candidate.outline.workers
        )
        by_name = {name: sock for row in lent.values() for name, sock in row.items()}
        new = [name for name in by_name if name not in child.sockets]
        fields = {
            "index": child.index,
            "generation": candidate.generation,
            "sockets": {bind: list(row) for bind, row in lent.items()},
            "new": new,
        }
        return fields, [by_name[name].fileno() for name in new]

    # ---------------------------------------------------------------------------- leaving

    def retire(self, child: Child) -> None:
        """Let a worker finish its connections within the drain time, then end."""
        if child.state == "leaving":
            return
        drain_s = self.committed.outline.drain_s
        child.state = "leaving"
        child.deadline = time.monotonic() + drain_s + KILL_GRACE_S
        self.leaving.add(child)
        child.channel.send("drain", deadline_s=drain_s)
        self.watch_deadline(child)

    def watch_deadline(self, child: Child) -> None:
        if child.deadline is None:
            return
        wait_s = max(0.0, child.deadline - time.monotonic())

        def too_late() -> None:
            if child.status is None:
                log.warning("worker %d (pid %d) is cut off: time is over", child.index, child.pid)
                child.kill()

        asyncio.get_running_loop().call_later(wait_s, too_late)

    def drain(self) -> None:
        """Every worker finishes and ends; nobody is replaced."""
        self.is_draining = True
        for slot in self.slots:
            if slot.respawn is not None:
                slot.respawn.cancel()
                slot.respawn = None
            if slot.child is not None:
                self.retire(slot.child)

    async def replace(self, slot: Slot) -> Refused | None:
        """Seat a fresh process on the same sockets, and only then let the old one drain."""
        old = slot.child
        try:
            successor = self.spawn(slot.index)
        except OSError as error:
            return Refused([fault(f"worker {slot.index} could not be started: {error}")])
        try:
            async with asyncio.timeout(APPLY_TIMEOUT_S):
                await asyncio.shield(successor.first_news)
        except TimeoutError:
            successor.kill()
            return Refused([fault(f"the new worker {slot.index} did not become ready")])
        if successor.state != "ready":
            successor.kill()
            faults = successor.refusal or [fault(f"the new worker {slot.index} died at its start")]
            return Refused(faults)
        if slot.child is not old and slot.child is not None:
            # The old one crashed meanwhile and has been replaced: one of the two is too many.
            old = slot.child
        if slot.respawn is not None:
            slot.respawn.cancel()
            slot.respawn = None
        slot.child = successor
        slot.backoff.forgive()
        slot.filled.set()
        if old is not None and old.status is None:
            self.retire(old)
        self._on_change()
        return None

    # --------------------------------------------------------------------------- snapshot

    def snapshot(self) -> list[dict[str, Any]]:
        """One entry a process: seated ones first, then those that are leaving."""
        now = time.monotonic()
        rows: list[dict[str, Any]] = []
        for slot in self.slots:
            child = slot.child
            history = slot.backoff.snapshot(now, child.ready_at if child else None)
            rows.append(
                {
                    "index": slot.index,
                    "pid": child.pid if child else None,
                    "state": child.state if child else "waiting",
                    "generation": child.generation if child else 0,
                    "age_s": round(now - child.started_at, 3) if child else 0.0,
                    "next_start_s": 0.0 if child else round(max(0.0, slot.respawn_at - now), 3),
                    "crashes": history.crashes,
                    "crashes_last_minute": history.crashes_last_minute,
                    "is_looping": history.is_looping,
                    "last_end": slot.last_end,
                    "faults": slot.last_refusal,
                }
            )
        rows.extend(
            {
                "index": child.index,
                "pid": child.pid,
                "state": "leaving",
                "generation": child.generation,
                "age_s": round(now - child.started_at, 3),
                "deadline_s": round(max(0.0, (child.deadline or now) - now), 3),
            }
            for child in sorted(self.leaving, key=lambda child: child.started_at)
        )
        return rows

    # -------------------------------------------------------------------------- handing over

    def history(self) -> Mapping[str, Any]:
        return {str(slot.index): slot.backoff.crashes for slot in self.slots}

    def adopt(self, rows: Iterable[dict[str, Any]], crashes: Mapping[str, int]) -> None:
        """Seat the workers of the supervisor that we were before the re-exec."""
        seats = {index: Slot(index) for index in range(self.committed.outline.workers)}
        for row in rows:
            child = self.children.adopt(dict(row))
            if child.state == "leaving" or seats[child.index].child is not None:
                self.leaving.add(child)
                self.watch_deadline(child)
            else:
                seats[child.index].child = child
                seats[child.index].filled.set()
        self.slots = list(seats.values())
        for slot in self.slots:
            slot.backoff.crashes = crashes.get(str(slot.index), 0)


def _distinct(faults: Faults) -> Faults:
    """Several workers refuse for the same reason; the operator reads it once."""
    seen: list[dict[str, Any]] = []
    for entry in faults:
        if entry not in seen:
            seen.append(entry)
    return seen
