"""From calls to batches: what is asked in one turn of the loop goes out at once, to the right node.

Theory of operation. `ask` puts commands into the turn; at its end they are sent, one batch a node.
Whoever asks for the clock shares one reading of it with all of its turn, placed last, so that it is
not older than what it was asked beside. Where there is one Redis, what is read in a turn goes in
few commands of many names (`read`): a name more costs less than a command more.

On a Cluster each name goes to the node of its slot. The slots are asked for at the start, every
half a minute, and when a node says that one has moved; what had moved is sent after it. Nodes come
and go with them. A node that is away takes its own slots with it and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from binascii import crc_hqx
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from headgate.cache.layer import LayerAway
from headgate.cache.redis.link import Call, Command, Entry, Link
from headgate.cache.redis.node import Clustered, Met, Node, pause_s
from headgate.policy.breaker import BreakerRules
from headgate.state.redis_place import Place

__all__ = ["Router", "slot_of"]

_SLOTS: Final = 16384
_REFRESH_S: Final = 30.0
_READ_AT_ONCE: Final = 128
"""Names of one command: one of many more would keep the others of this Redis waiting."""

Ask = tuple[bytes, Command]
"""The name by which a node is chosen, and the words."""
Join = Callable[[Node, Link, Met], Awaitable[None]]


def slot_of(name: bytes) -> int:
    """As Redis Cluster counts it: of the hash tag, where there is one that is not empty."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % _SLOTS


class _Clock(Call):
    """One reading of the clock for all that asked in a turn."""

    __slots__ = ("calls",)

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        super().__init__(1, loop, now)
        self.calls: list[Call] = []

    def deliver(self, index: int, reply: Any) -> None:
        for call in self.calls:
            call.deliver(len(call.replies) - 1, reply)

    def fail(self, error: Exception) -> None:
        for call in self.calls:
            call.fail(error)


class Reads(Call):
    """What is read in one turn by all who read, with the clock behind it."""

    __slots__ = ("_chunks", "_readers", "clock", "names")

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        super().__init__(0, loop, now)
        self.names: list[bytes] = []
        self.clock: Any = None
        self._chunks: list[int] = []
        self._readers: list[tuple[asyncio.Future[list[Any]], int, int]] = []

    def add(self, names: Sequence[bytes], reader: asyncio.Future[list[Any]]) -> None:
        start = len(self.names)
        self.names += names
        self._readers.append((reader, start, len(self.names)))

    def entries(self) -> list[Entry]:
        """Its commands. The clock, which is the last answer, is asked for by `_Clock`."""
        names = self.names
        found: list[Entry] = []
        for start in range(0, len(names), _READ_AT_ONCE):
            chunk = names[start : start + _READ_AT_ONCE]
            self._chunks.append(len(chunk))
            found.append((self, len(found), ("MGET", *chunk)))
        self.left = len(found) + 1
        self.replies = [None] * self.left
        return found

    def deliver(self, index: int, reply: Any) -> None:
        self.replies[index] = reply
        self.left -= 1
        if self.left:
            return
        *replies, self.clock = self.replies
        values: list[Any] = []
        for count, said in zip(self._chunks, replies, strict=True):
            if said.__class__ is list and len(said) == count:
                values += said
            else:
                fault = said if isinstance(said, Exception) else LayerAway("not what was asked for")
                values += [fault] * count
        for reader, start, end in self._readers:
            if not reader.done():
                reader.set_result(values[start:end])

    def fail(self, error: Exception) -> None:
        for reader, _, _ in self._readers:
            if not reader.done():
                reader.set_exception(LayerAway(*error.args))  # each raises one of its own


class Router:
    def __init__(
        self,
        place: Place,
        clock_name: bytes,
        *,
        deadline_s: float,
        rules: BreakerRules,
        rng: random.Random,
        join: Join,
        gone: Callable[[Node], None],
        faults: tuple[type[Exception], ...],
    ) -> None:
        self.place = place
        self._clock_name = clock_name
        self._clock_command: Command = ("GET", clock_name)
        self._deadline_s = deadline_s
        self._rules = rules
        self._rng = rng
        self._join = join
        self._gone = gone
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._client = place.connect()
        self._pool = self._client.connection_pool
        self._single: Node = self._node(place.text, self._pool.make_connection)
        self.nodes: dict[tuple[str, int], Node] = {}
        self._slots: list[Node] | None = None
        self.is_cluster = False
        self._refresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turn: list[tuple[bytes, Entry]] = []
        self._reading: _Clock | None = None
        self._reads: Reads | None = None
        self._is_due = False
        self._is_trial = False

    # ---- life

    async def start(self, wait_s: float) -> None:
        self._single.start(seed=True)
        self._task = self._loop.create_task(self._follow(), name="cache redis slots")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._single.tried.wait()
                first = self._single.task
                while first is not None and first.done():  # of a cluster
                    if self._slots is not None and self.home.tried.is_set():
                        break
                    await asyncio.sleep(0.005)

    async def close(self) -> None:
        nodes = self.all_nodes()
        tasks = [self._task, *(node.task for node in nodes)]
        for node in nodes:
            node.forget()
        alive = {task for task in tasks if task is not None}
        while alive:  # more than once: before Python 3.12 `wait_for` may swallow one
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=0.05)
        for done in tasks:
            if done is not None and not done.cancelled():
                done.exception()
        for node in nodes:
            node.forget()  # it may have connected all the same
        for client in (self._client, *self.place.sentinels_of(self._client)):
            with contextlib.suppress(*self._faults):
                await client.aclose()

    def abandon(self, *, is_forked: bool) -> None:
        """The loop is over, or this is another process: nothing may be said any more."""
        for node in self.all_nodes():
            if is_forked:
                node.orphan()
            else:
                node.forget()

    def all_nodes(self) -> list[Node]:
        return [*self.nodes.values()] if self.is_cluster else [self._single]

    @property
    def home(self) -> Node:
        """Where the clock and the news are."""
        if self._slots is not None:
            return self._slots[slot_of(self._clock_name)]
        return self._single

    def _node(self, name: str, connect: Callable[[], Any]) -> Node:
        return Node(
            name,
            connect,
            deadline_s=self._deadline_s,
            rules=self._rules,
            rng=self._rng,
            join=self._join,
            gone=self._gone,
            redirect=self._redirect,
            words=self.place.words,
            faults=self._faults,
        )

    # ---- the slots of a cluster

    async def _follow(self) -> None:
        seed = self._single.task
        if seed is None:
            return
        with contextlib.suppress(Clustered):
            await seed
        self.is_cluster = True
        tries = 0
        while True:
            self._refresh.clear()
            try:
                await self._learn()
                tries = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH_S):
                        await self._refresh.wait()
            except self._faults as error:
                self._single.why = self.place.words(error)
                tries += 1
            await asyncio.sleep(pause_s(self._rng, max(1, tries)))

    async def _learn(self) -> None:
        """Ask one node after the other, the one of the URL last."""
        ways = [self._connection(*address) for address in self.nodes]
        self._rng.shuffle(ways)
        ways.append(self._pool.make_connection())  # type: ignore[no-untyped-call]  # redis-py's gap
        last: BaseException = ConnectionError("no node answers")
        for connection in ways:
            try:
                async with asyncio.timeout(1.0):
                    await connection.connect()
                    await connection.send_command("CLUSTER", "SLOTS")
                    found = await connection.read_response()
                self._take(found, connection.host)
            except self._faults as error:
                last = error
            else:
                return
            finally:
                with contextlib.suppress(*self._faults):
                    await connection.disconnect(nowait=True)
        raise last

    def _connection(self, host: str, port: int) -> Any:
        options = dict(self._pool.connection_kwargs)
        options |= {"host": host, "port": port}
        return self._pool.connection_class(**options)

    def _take(self, found: Any, asked: str) -> None:
        slots: list[Node | None] = [None] * _SLOTS
        seen: dict[tuple[str, int], Node] = {}
        for first, last, master, *_ in found:
            host = master[0].decode() if isinstance(master[0], bytes) else master[0]
            address = (host or asked, int(master[1]))
            node = seen.get(address) or self.nodes.get(address)
            if node is None:
                node = self._add(address)
            seen[address] = node
            slots[first : last + 1] = [node] * (last + 1 - first)
        home = slots[slot_of(self._clock_name)]
        if home is None:
            raise ConnectionError("the cluster does not serve all slots")
        for address, node in self.nodes.items():
            if address not in seen:
                node.forget()
        self.nodes = seen
        self._slots = [node or home for node in slots]  # a slot of nobody is answered with MOVED

    def _add(self, address: tuple[str, int]) -> Node:
        host, port = address
        node = self._node(f"redis://{host}:{port}", lambda: self._connection(host, port))
        self.nodes[address] = node
        node.start()
        return node

    def _redirect(self, entry: Entry, text: str) -> bool:
        """Whether an answer that names another node was followed."""
        if not self.is_cluster:
            return False
        self._refresh.set()
        call, _, command = entry
        kind, *rest = text.split()
        spent_s = time.monotonic() - call.sent_at
        if len(rest) < 2 or kind not in ("MOVED", "ASK") or spent_s > self._deadline_s:
            call.fail(LayerAway(f"{self.place.text}: {kind}"))
            return True
        host, _, port = rest[1].rpartition(":")
        node = self.nodes.get((host, int(port)))
        if node is None or not node.is_here:
            call.fail(LayerAway(f"{host}:{port} holds it now, and is not connected yet"))
            return True
        if kind == "ASK":
            asking = Call(1, self._loop, call.sent_at)
            node.send([(asking, 0, ("ASKING",)), entry])
            asking.future.cancel()
        else:
            node.send([(call, entry[1], command)])
        return True

    # ---- asking

    def ask(self, asks: Sequence[Ask], *, clock: bool = False, is_trial: bool = False) -> Call:
        """Commands into this turn; with the clock as the last answer where it is asked for."""
        now = time.monotonic()
        call = Call(len(asks) + clock, self._loop, now)
        turn = self._turn
        for i, (name, command) in enumerate(asks):
            turn.append((name, (call, i, command)))
        if clock:
            if self._reading is None:
                self._reading = _Clock(self._loop, now)
            self._reading.calls.append(call)
        self._is_trial = self._is_trial or is_trial
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._send_turn)
        return call

    def read(self, names: Sequence[bytes]) -> tuple[Reads, asyncio.Future[list[Any]]]:
        """Values into this turn, and the clock; of one Redis, not of a cluster."""
        reads = self._reads
        if reads is None:
            now = time.monotonic()
            reads = self._reads = Reads(self._loop, now)
            if self._reading is None:
                self._reading = _Clock(self._loop, now)
            self._reading.calls.append(reads)
            if not self._is_due:
                self._is_due = True
                self._loop.call_soon(self._send_turn)
        reader = self._loop.create_future()
        reads.add(names, reader)
        return reads, reader

    def _send_turn(self) -> None:
        turn, self._turn = self._turn, []
        reads, self._reads = self._reads, None
        reading, self._reading = self._reading, None
        is_trial, self._is_trial, self._is_due = self._is_trial, False, False
        if self._slots is None:
            entries = [entry for _, entry in turn]
            if reads is not None:
                entries += reads.entries()
            if reading is not None:
                entries.append((reading, 0, self._clock_command))
            self._single.send(entries, is_trial=is_trial)
            return
        by_node: dict[Node, list[Entry]] = {}
        if reads is not None:  # it was one Redis when this turn began: nothing will be found
            by_node[self.home] = reads.entries()
        for name, entry in turn:
            by_node.setdefault(self._slots[slot_of(name)], []).append(entry)
        if reading is not None:
            by_node.setdefault(self.home, []).append((reading, 0, self._clock_command))
        for node, some in by_node.items():
            node.send(some, is_trial=is_trial)
