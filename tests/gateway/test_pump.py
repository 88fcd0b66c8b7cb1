"""A pump by itself: order, bounds and endings, with hooks that answer at once or later."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.gateway.filters import Reply
from headgate.gateway.pump import HELD_MAX, Pump


class Later:
    """An awaitable that a test completes by hand."""

    def __init__(self, result):
        self.result = result

    def __await__(self):
        yield self
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Rig:
    """A pump with everything around it written down, and coroutines driven step by step."""

    def __init__(self, hook, **more):
        self.out: list[tuple[bytes, bool]] = []
        self.refused: list[Reply] = []
        self.failed: list[BaseException] = []
        self.flow: list[str] = []
        self.overflowed = 0
        self.running: list = []
        self.pump = Pump(
            hook,
            lambda data, last: self.out.append((data, last)),
            self.refused.append,
            self.failed.append,
            self._spawn,
            (lambda: self.flow.append("pause"), lambda: self.flow.append("resume")),
            overflow=self._overflow,
            **more,
        )

    def _overflow(self, _gathered, _last):
        self.overflowed += 1

    def _spawn(self, work):
        work.send(None)
        self.running.append(work)

    def step(self):
        """Let the hook that is waiting finish."""
        work = self.running.pop(0)
        try:
            work.send(None)
        except StopIteration:
            return
        self.running.append(work)

    def run(self):
        while self.running:
            self.step()


def upper(data, last):
    return data.upper()


def later_upper(data, last):
    return Later(data.upper())


def test_a_hook_that_answers_at_once_holds_nothing():
    rig = Rig(upper)
    rig.pump.feed(b"a", last=False)
    assert rig.out == [(b"A", False)]
    rig.pump.feed(b"b", last=True)
    assert rig.out[1:] == [(b"B", True)]
    assert rig.flow == []


def test_chunks_queue_up_behind_a_hook_that_waits():
    rig = Rig(later_upper)
    for data in (b"a", b"b", b"c"):
        rig.pump.feed(data, last=data == b"c")
    assert rig.out == []
    rig.run()
    assert rig.out == [(b"A", False), (b"B", False), (b"C", True)]


def test_the_source_is_told_to_wait_and_to_go_on():
    rig = Rig(later_upper)
    piece = bytes(HELD_MAX // 4)
    for _ in range(8):
        rig.pump.feed(piece, last=False)
    assert rig.flow == ["pause"]
    rig.run()
    assert rig.flow == ["pause", "resume"]
    assert len(rig.out) == 8


def test_a_reply_ends_it():
    reply = Reply(400)
    rig = Rig(lambda data, last: reply if data == b"bad" else data)
    for data in (b"good", b"bad", b"good"):
        rig.pump.feed(data, last=False)
    assert rig.out == [(b"good", False)]
    assert rig.refused == [reply]


def test_a_reply_that_came_late_drops_what_waits():
    reply = Reply(400)
    rig = Rig(lambda data, last: Later(reply))
    rig.pump.feed(b"a", last=False)
    rig.pump.feed(b"b", last=True)
    rig.run()
    assert (rig.out, rig.refused) == ([], [reply])


def test_what_raises_ends_it():
    def hook(data, last):
        raise ValueError

    rig = Rig(hook)
    rig.pump.feed(b"a", last=False)
    rig.pump.feed(b"b", last=True)
    assert len(rig.failed) == 1
    rig = Rig(lambda data, last: Later(ValueError("late")))
    rig.pump.feed(b"a", last=False)
    rig.pump.feed(b"b", last=True)
    rig.run()
    assert len(rig.failed) == 1
    assert rig.out == []


def test_after_close_nothing_comes_out():
    rig = Rig(later_upper)
    rig.pump.feed(b"a", last=False)
    rig.pump.feed(b"b", last=True)
    rig.pump.close()
    rig.run()
    rig.pump.feed(b"c", last=True)
    assert rig.out == []
    assert rig.flow == []


def test_gathering_calls_the_hook_once():
    calls: list[tuple[bytes, bool]] = []

    def hook(data, last):
        calls.append((data, last))
        return data

    rig = Rig(hook, gather_max=10)
    for data in (b"abc", b"", b"def"):
        rig.pump.feed(data, last=False)
    rig.pump.feed(b"", last=True)
    assert calls == [(b"abcdef", True)]
    assert rig.out == [(b"abcdef", True)]


def test_gathering_has_an_end():
    rig = Rig(upper, gather_max=10)
    rig.pump.feed(bytes(10), last=False)
    assert rig.overflowed == 0
    rig.pump.feed(b"x", last=True)
    rig.pump.feed(b"x", last=True)
    assert rig.overflowed == 1
    assert rig.out == []


@given(
    st.lists(st.tuples(st.binary(max_size=40_000), st.booleans()), max_size=30),
    st.lists(st.booleans(), max_size=60),
)
def test_everything_comes_out_once_and_in_order(chunks, turns):
    """Whatever is fed when, and whichever hooks wait."""
    waits = iter([*(wait for _, wait in chunks), True])
    rig = Rig(lambda data, last: Later(data) if next(waits) else data)
    left = [data for data, _ in chunks]
    while left:
        if rig.running and turns and turns.pop():
            rig.step()
        else:
            rig.pump.feed(left.pop(0), last=False)
    rig.pump.feed(b"end", last=True)
    rig.run()
    assert rig.out == [(data, False) for data, _ in chunks] + [(b"end", True)]
    assert rig.flow == ["pause", "resume"] * (len(rig.flow) // 2)
