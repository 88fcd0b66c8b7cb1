"""A pool by itself, with connections that are made by hand: order, counts, and who gets what."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.errors import UpstreamFailed
from headgate.gateway.pool import Pool, PoolSizes
from headgate.observe.shard import InstanceStats


class Ex:
    """As much of an exchange as a pool sees."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.waiting_on: Any = None
        self.attempts = 1
        self.expires_at = inf
        self.instance = None
        self.up: Any = None
        self.failure: UpstreamFailed | None = None
        self.unsent = False

    def on_connected(self, up) -> None:
        assert self.up is None and self.failure is None
        self.waiting_on = None
        self.up = up

    def on_upstream_failed(self, failure, *, unsent=False) -> None:
        assert self.up is None and self.failure is None
        self.waiting_on = None
        self.failure, self.unsent = failure, unsent

    @property
    def is_waiting(self) -> bool:
        return self.up is None and self.failure is None


class Conn:
    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.is_closing = False

    def close(self) -> None:
        """As a transport does it: `lost` comes later, in `die`."""
        self.is_closing = True

    def die(self) -> None:
        self.is_closing = True
        self.pool.lost(self)


class Making:
    """A connection being made; a test says how it ends."""

    def __await__(self):
        result = yield self
        if isinstance(result, BaseException):
            raise result
        return result


class Rig:
    def __init__(self, **sizes) -> None:
        self.making: list = []
        # Any: what is lent and waits here has only as much of a connection as a pool sees.
        self.pool: Any = Pool(
            "http://one",
            "one",
            PoolSizes(**sizes),
            InstanceStats(),
            self._connect,
            self._spawn,
        )
        self.conns: list[Conn] = []

    async def _connect(self, pool):
        return await Making()

    def _spawn(self, work):
        work.send(None)
        self.making.append(work)

    def made(self) -> Conn:
        conn = Conn(self.pool)
        self.conns.append(conn)
        self._end(conn)
        return conn

    def refused(self, kind="connect") -> None:
        self._end(UpstreamFailed(kind, "refused"))

    def _end(self, result) -> None:
        work = self.making.pop(0)
        with pytest.raises(StopIteration):
            work.send(result)

    def take(self, number=0) -> Ex:
        ex = Ex(number)
        got = self.pool.take(ex)
        if isinstance(got, UpstreamFailed):
            ex.failure = got
        elif got is not None:
            ex.up = got
        return ex


def test_the_first_waits_for_a_connection_and_the_next_gets_it_at_once():
    rig = Rig()
    ex = rig.take()
    assert ex.is_waiting
    conn = rig.made()
    assert ex.up is conn
    rig.pool.give(conn)
    assert rig.take().up is conn
    said = rig.pool.snapshot()
    assert (said.open, said.idle, said.created, said.reused) == (1, 0, 1, 1)


def test_the_newest_idle_connection_is_taken():
    rig = Rig()
    for _ in range(3):
        rig.take()
    for _ in range(3):
        rig.made()
    for conn in rig.conns:
        rig.pool.give(conn)
    assert rig.take().up is rig.conns[2]


def test_an_idle_connection_that_is_closing_is_passed_over():
    rig = Rig()
    rig.take()
    rig.take()
    one, two = rig.made(), rig.made()
    rig.pool.give(one)
    rig.pool.give(two)
    two.close()
    assert rig.take().up is one


def test_the_line_is_served_in_order():
    rig = Rig(connections=1)
    waiting = [rig.take(at) for at in range(4)]
    assert len(rig.making) == 1
    conn = rig.made()
    for ex in waiting:
        assert ex.up is conn
        rig.pool.give(conn)
    assert rig.pool.snapshot().idle == 1


def test_a_connection_given_back_serves_the_line_before_the_one_being_made():
    rig = Rig()
    rig.take()
    conn = rig.made()
    waiting = rig.take()
    rig.pool.give(conn)
    assert waiting.up is conn
    other = rig.made()
    assert rig.pool.idle == [other]


def test_one_who_leaves_the_line_leaves_the_connection_to_the_next():
    rig = Rig(connections=1)
    leaving, staying = rig.take(), rig.take()
    rig.pool.forget(leaving)
    conn = rig.made()
    assert leaving.up is None
    assert staying.up is conn


def test_a_full_line():
    rig = Rig(connections=1, queue=2)
    rig.take()
    rig.take()
    failure = rig.take().failure
    assert failure is not None
    assert failure.kind == "queue_full"


def test_waiting_has_an_end(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("headgate.gateway.pool.monotonic", lambda: now[0])
    rig = Rig(connections=1, queue_timeout_s=5.0)
    rig.take()
    rig.made()
    early = rig.take()
    now[0] = 103.0
    late = rig.take()
    rig.pool.sweep(104.9)
    assert early.is_waiting
    rig.pool.sweep(105.0)
    assert early.failure is not None
    assert (early.failure.kind, early.unsent) == ("queue_timeout", True)
    assert late.is_waiting
    rig.pool.sweep(108.0)
    assert not late.is_waiting


def test_who_has_no_time_left_does_not_wait_on(monkeypatch):
    """The end of the whole exchange may come before the end of the wait, for anyone in line."""
    monkeypatch.setattr("headgate.gateway.pool.monotonic", lambda: 100.0)
    rig = Rig(connections=1, queue_timeout_s=50.0)
    first, hasty, last = rig.take(), Ex(), Ex()
    hasty.expires_at = 101.0
    for ex in (hasty, last):
        rig.pool.take(ex)
    rig.pool.sweep(101.0)
    assert hasty.failure is not None
    assert hasty.failure.kind == "timeout"
    assert first.is_waiting
    assert last.is_waiting
    conn = rig.made()
    rig.pool.give(conn)
    assert last.up is conn


def test_a_refusal_with_nothing_else_open_is_news_for_the_whole_line():
    rig = Rig(connections=1)
    waiting = [rig.take(at) for at in range(3)]
    rig.refused()
    assert all(ex.failure is not None and ex.unsent for ex in waiting)
    assert rig.pool.snapshot().open == 0
    assert rig.pool.snapshot().failed == 1


def test_a_refusal_while_others_are_open_costs_one():
    rig = Rig()
    rig.take()
    rig.made()
    one, two = rig.take(), rig.take()
    rig.refused()
    assert (one.failure is not None, two.is_waiting) == (True, True)


def test_a_lost_connection_makes_room():
    rig = Rig(connections=1)
    rig.take()
    conn = rig.made()
    waiting = rig.take()
    assert rig.making == []
    conn.die()
    assert len(rig.making) == 1
    assert waiting.up is None
    fresh = rig.made()
    assert waiting.up is fresh


def test_a_connection_lost_before_it_was_lent_is_a_refusal():
    rig = Rig()
    ex = rig.take()
    conn = Conn(rig.pool)
    conn.die()
    rig._end(conn)
    assert rig.pool.snapshot().open == 0
    assert ex.failure is not None
    assert (ex.failure.kind, ex.unsent) == ("connect", True)


def test_others_in_line_get_another_connection_than_the_lost_one():
    rig = Rig(connections=2)
    rig.take()
    rig.made()
    one, two = rig.take(), rig.take()
    conn = Conn(rig.pool)
    conn.die()
    rig._end(conn)
    assert one.failure is not None
    assert two.is_waiting
    fresh = rig.made()
    assert two.up is fresh


def test_no_more_idle_than_allowed():
    rig = Rig(idle=1)
    rig.take()
    rig.take()
    one, two = rig.made(), rig.made()
    rig.pool.give(one)
    rig.pool.give(two)
    assert (one.is_closing, two.is_closing) == (False, True)


def test_a_closed_pool_lends_nothing_and_keeps_nothing():
    rig = Rig(connections=1)
    rig.take()
    lent = rig.made()
    waiting = rig.take()
    rig.pool.close()
    assert waiting.failure is not None
    assert waiting.failure.kind == "closed"
    failure = rig.take().failure
    assert failure is not None
    rig.pool.give(lent)
    assert lent.is_closing
    lent.die()
    assert rig.pool.snapshot().open == 0
    assert rig.making == []


class Life(RuleBasedStateMachine):
    """Any order of events: the counts stay true and nobody is forgotten or served twice."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(connections=3, idle=2, queue=4)
        self.exchanges: list[Ex] = []
        self.lent: list[tuple[Ex, Conn]] = []
        self.dying: list[Conn] = []

    def _note(self) -> None:
        for ex in self.exchanges:
            if ex.up is not None:
                self.lent.append((ex, ex.up))
        self.exchanges = [ex for ex in self.exchanges if ex.is_waiting]
        self.dying = [c for c in self.rig.conns if c.is_closing]

    @rule()
    def take(self):
        self.exchanges.append(self.rig.take())
        self._note()

    @precondition(lambda self: self.rig.making)
    @rule()
    def made(self):
        self.rig.made()
        self._note()

    @precondition(lambda self: self.rig.making)
    @rule()
    def refused(self):
        self.rig.refused()
        self._note()

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), keeps=st.booleans())
    def ends(self, data, keeps):
        _, conn = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        if keeps:
            self.rig.pool.give(conn)
        else:
            conn.close()
        self._note()

    @precondition(lambda self: self.exchanges)
    @rule(data=st.data())
    def leaves(self, data):
        ex = self.exchanges.pop(data.draw(st.integers(0, len(self.exchanges) - 1)))
        self.rig.pool.forget(ex)

    @precondition(lambda self: self.rig.pool.idle)
    @rule()
    def idle_one_dies(self):
        conn = self.rig.pool.idle[0]
        self.rig.conns.remove(conn)
        conn.die()
        self._note()

    @precondition(lambda self: self.dying)
    @rule()
    def closing_one_is_gone(self):
        conn = self.dying[0]
        self.rig.conns.remove(conn)
        conn.die()
        self._note()

    @invariant()
    def counts_are_true(self):
        pool, rig = self.rig.pool, self.rig
        assert pool.connecting == len(rig.making)
        assert pool.open == len(rig.conns) + len(rig.making)
        assert pool.open <= 3
        assert len(pool.idle) <= 2
        assert list(pool.waiting) == [ex for ex in self.exchanges if ex.is_waiting]

    @invariant()
    def nobody_waits_for_nothing(self):
        pool = self.rig.pool
        if pool.waiting:
            usable = [conn for conn in pool.idle if not conn.is_closing]
            assert not usable
            assert pool.connecting or pool.open == 3

    @invariant()
    def no_connection_is_lent_twice(self):
        lent = [id(conn) for _, conn in self.lent]
        assert len(set(lent)) == len(lent)
        assert not set(lent) & {id(conn) for conn in self.rig.pool.idle}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
