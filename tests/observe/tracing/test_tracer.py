"""Spans: who is whose child, what is kept, what is bounded."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.tracing.context import Incoming, SpanContext
from headgate.observe.tracing.ids import Share
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.rules import AUTO, TracingRules
from headgate.observe.tracing.sampling import Slowest, Tail
from headgate.observe.tracing.span import MOST_SPANS
from headgate.observe.tracing.tracer import Tracer

ALL = TracingRules(sample=1.0)
NONE = TracingRules(sample=0.0, keep_slow_s=0.0, keep_errors=False)
ERRORS = TracingRules(sample=0.0, keep_slow_s=0.0, keep_errors=True)
PARENT = SpanContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "a=1")


def by_name(tracer: Tracer) -> dict[str, SpanRecord]:
    return {span.name: span for span in tracer.take()}


def test_children_point_at_their_parents():
    tracer = Tracer(ALL, service="users")
    with tracer.span("root", {"http.route": "/x"}, user=42), tracer.span("child"):
        tracer.current.event("half way", n=1)
        with tracer.span("grandchild") as inner:
            inner.set(rows=3, none=None)
    got = by_name(tracer)
    root, child, grand = got["root"], got["child"], got["grandchild"]
    assert root.parent_id == ""
    assert child.parent_id == root.span_id
    assert grand.parent_id == child.span_id
    assert {span.trace_id for span in got.values()} == {root.trace_id}
    assert root.attributes == {"http.route": "/x", "user": 42}
    assert grand.attributes == {"rows": 3}
    assert [event.name for event in child.events] == ["half way"]
    assert root.service == "users"
    assert root.duration_s >= child.duration_s >= grand.duration_s >= 0
    assert root.start <= child.start <= grand.start
    assert tracer.under_way == 0
    assert all(SpanRecord.of_json(span.to_json()) == span for span in got.values())


def test_an_exception_is_told_and_goes_on():
    tracer = Tracer(ALL)
    with pytest.raises(KeyError), tracer.span("root"), tracer.span("child"):
        raise KeyError("gone")
    got = by_name(tracer)
    assert got["child"].status == got["root"].status == "error"
    assert got["child"].attributes["error.type"] == "KeyError"
    assert got["child"].events[0].attributes["exception.message"] == "'gone'"


def test_a_cancelled_span_is_no_error():
    tracer = Tracer(ALL)

    async def scenario():
        async def work():
            with tracer.span("work"):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    span = tracer.take()[0]
    assert span.status == "unset"
    assert span.attributes == {"headgate.cancelled": True}


def test_tasks_and_threads_have_their_own_current_span():
    tracer = Tracer(ALL)

    async def scenario():
        async def work(name):
            with tracer.span(name):
                await asyncio.sleep(0)
                with tracer.span(f"{name} inner"):
                    await asyncio.sleep(0)

        with tracer.span("root"):
            await asyncio.gather(*(work(f"task {n}") for n in range(5)))

    asyncio.run(scenario())
    got = by_name(tracer)
    for n in range(5):
        assert got[f"task {n}"].parent_id == got["root"].span_id
        assert got[f"task {n} inner"].parent_id == got[f"task {n}"].span_id

    def in_thread():
        with tracer.span("thread"):
            pass

    with tracer.span("outer"):
        for function in (in_thread, tracer.carry(in_thread)):
            thread = threading.Thread(target=function)
            thread.start()
            thread.join()
    spans = tracer.take()
    outer = next(span for span in spans if span.name == "outer")
    threads = [span for span in spans if span.name == "thread"]
    assert sorted(span.parent_id for span in threads) == ["", outer.span_id]


def test_functions_of_every_kind_are_traced():
    tracer = Tracer(ALL)

    @tracer.traced
    def plain(value):
        return value

    @tracer.traced(name="named", kind="client")
    async def coroutine():
        return tracer.current_ids()

    @tracer.traced
    def generator():
        yield 1
        yield 2
        return 3

    @tracer.traced
    async def stream():
        yield 1
        raise ValueError("over")

    async def scenario():
        with pytest.raises(ValueError, match="over"):
            async for _ in stream():
                with tracer.span("between"):
                    pass
        return await coroutine()

    assert plain(7) == 7
    assert list(generator()) == [1, 2]
    ids = asyncio.run(scenario())
    got = {name.rpartition(".")[2]: span for name, span in by_name(tracer).items()}
    assert set(got) == {"plain", "named", "generator", "stream", "between"}
    assert got["named"].kind == "client"
    assert (got["named"].trace_id, got["named"].span_id) == ids
    assert got["stream"].status == "error"
    assert got["between"].parent_id == ""
    assert plain.__name__ == "plain"


def test_off_costs_nothing_and_says_nothing():
    tracer = Tracer()
    with tracer.span("x", a=1) as span:
        span.set(b=2)
        span.event("e")
        span.error(ValueError())
        assert tracer.current_ids() is None
        assert tracer.inject() == []
        assert span.context is None
    assert tracer.take() == []


def trace_of(tracer: Tracer) -> str:
    ids = tracer.current_ids()
    assert ids is not None
    return ids[0]


def test_a_trace_that_is_not_recorded_still_hands_its_context_on():
    tracer = Tracer(NONE)
    with tracer.root("server", Incoming(PARENT, False)), tracer.span("child"):
        headers = dict(tracer.inject())
        again = dict(tracer.inject())
        assert tracer.exemplar() is None
        assert trace_of(tracer) == PARENT.trace_id
    assert headers["traceparent"].startswith(f"00-{PARENT.trace_id}-")
    assert headers["traceparent"].endswith("-00")
    assert headers["tracestate"] == "a=1"
    assert headers["traceparent"] != again["traceparent"]
    assert PARENT.span_id not in headers["traceparent"]
    assert tracer.take() == []
    assert tracer.inject() == []


def test_a_caller_that_has_decided_is_followed():
    for rules, decision, kept in ((ALL, False, False), (NONE, True, True), (NONE, None, False)):
        tracer = Tracer(TracingRules(sample=rules.sample, keep_slow_s=0, keep_errors=False))
        with tracer.root("server", Incoming(PARENT, decision)):
            pass
        assert [span.parent_id for span in tracer.take()] == [PARENT.span_id] * kept


def test_a_stranger_does_not_decide_and_may_be_kept_out():
    tracer = Tracer(TracingRules(sample=0.0, keep_slow_s=0, keep_errors=False))
    with tracer.root("server", Incoming(PARENT, True), is_trusted=False):
        assert trace_of(tracer) == PARENT.trace_id
    assert tracer.take() == []
    tracer = Tracer(TracingRules(sample=1.0, trust=False))
    with tracer.root("server", Incoming(PARENT, True), is_trusted=False):
        assert trace_of(tracer) != PARENT.trace_id
        assert "tracestate" not in dict(tracer.inject())
    span = tracer.take()[0]
    assert span.parent_id == ""
    assert span.links[0].trace_id == PARENT.trace_id


def test_debug_is_kept_and_travels_on():
    tracer = Tracer(NONE)
    with tracer.root("server", Incoming(PARENT, False, is_debug=True)):
        assert dict(tracer.inject())["tracestate"] == "hg=d,a=1"
    assert len(tracer.take()) == 1


def test_errors_are_kept_whole_and_others_are_let_go():
    tracer = Tracer(ERRORS)
    with tracer.span("good"), tracer.span("child"):
        assert dict(tracer.inject())["traceparent"].endswith("-02")
    with tracer.span("bad"), tracer.span("child") as child:
        child.error("no such user")
    assert [span.name for span in tracer.take()] == ["child", "bad"]
    assert (tracer.stats.kept, tracer.stats.let_go) == (1, 1)


def test_a_span_that_ends_late_follows_the_decision():
    tracer = Tracer(ERRORS)
    for fails in (True, False):
        with tracer.span("root") as root:
            late = tracer.span("late").begin()
            if fails:
                root.error()
        late.end()
        late.end()
    assert [span.name for span in tracer.take()] == ["root", "late"]


def test_undecided_spans_are_handed_on_marked():
    tracer = Tracer(ERRORS)
    tracer.sends_undecided = True
    with tracer.span("good"):
        pass
    assert tracer.take()[0].attributes == {"headgate.undecided": True}


def test_everything_is_bounded_and_counted():
    tracer = Tracer(ERRORS, under_way=2, ring=10)
    held = [tracer.root(f"r{n}") for n in range(5)]
    assert tracer.under_way == 2
    assert tracer.stats.no_room == 3
    del held
    gc.collect()
    assert tracer.under_way == 0  # roots that were never ended give their places back
    with tracer.span("root") as root:
        root.error()
        for _ in range(MOST_SPANS + 5):
            with tracer.span("child"):
                pass
    assert len(tracer.take(10_000)) == 10
    assert tracer.stats.dropped_spans == MOST_SPANS + 5 + 1 - 10
    assert tracer.extra == 0
    with tracer.span("r") as span:
        for n in range(1000):
            span.event("e")
            span.set({f"k{n}": "x" * 100_000})
        span.error()
    record = tracer.take()[-1]
    assert len(record.events) == 128
    assert len(record.attributes) == 128
    assert max(len(str(value)) for value in record.attributes.values()) == 16_384
    assert SpanRecord.of_json(record.to_json()) == record


def test_attributes_of_any_type_become_plain():
    class Awkward:
        def __str__(self):
            raise RuntimeError

    tracer = Tracer(ALL)
    with tracer.span("x", a=[1], b=float("nan"), c=1 << 80, d=Awkward(), e=True, f="\ud800"):
        pass
    got = tracer.take()[0].attributes
    assert got == {
        "a": "[1]",
        "b": "nan",
        "c": str(1 << 80),
        "d": "<Awkward>",
        "e": True,
        "f": "\ud800",
    }


def test_baggage_travels_on():
    tracer = Tracer(ALL)
    with tracer.span("x"), tracer.carrying(user="é"):
        assert ("baggage", "user=%C3%A9") in tracer.inject()
    headers: dict[str, str] = {}
    with tracer.span("x"):
        tracer.inject(headers)
    assert set(headers) == {"traceparent"}


def test_no_garbage_is_left_for_the_collector():
    tracer = Tracer(ERRORS)
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            with tracer.span("root"), tracer.span("child"):
                pass
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_child_process_has_other_ids_and_an_empty_ring():
    tracer = Tracer(ALL, rng=random.Random(1))
    with tracer.span("parent"):
        pass
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover  # the child
        try:
            taken = len(tracer.take())
            with tracer.span("child"):
                pass
            os.write(write, f"{taken} {tracer.take()[0].trace_id}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode().split()
    os.waitpid(pid, 0)
    tracer.take()
    with tracer.span("after"):
        pass
    assert said[0] == "0"
    assert said[1] != tracer.take()[0].trace_id


# -- sampling -------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 128) - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_what_a_smaller_one_does(trace_id, one, other):
    small, large = sorted((one, other))
    assert not Share(small).holds(trace_id) or Share(large).holds(trace_id)
    assert Share(1.0).holds(trace_id)
    assert not Share(0.0).holds(trace_id)
    assert Share(one).holds(trace_id) == Share(one).holds_id(f"{trace_id:032x}")


def test_a_share_is_as_large_as_it_says():
    rng = random.Random(7)
    held = sum(Share(0.1).holds(rng.getrandbits(128)) for _ in range(20_000))
    assert 1800 < held < 2200


def test_the_slowest_hundredth_is_found_and_followed():
    rng = random.Random(3)
    slowest = Slowest()
    assert not any(slowest.is_slow(rng.lognormvariate(-4, 0.5)) for _ in range(100))
    held = sum(slowest.is_slow(rng.lognormvariate(-4, 0.5)) for _ in range(20_000))
    assert 100 < held < 400
    for _ in range(3000):
        slowest.is_slow(rng.lognormvariate(-1, 0.5))
    held = sum(slowest.is_slow(rng.lognormvariate(-1, 0.5)) for _ in range(20_000))
    assert 100 < held < 400


def test_the_tail_judges_by_each_rule():
    tail = Tail(TracingRules(keep_slow_s=1.0))
    assert tail.keeps("r", 1.0, failed=False)
    assert not tail.keeps("r", 0.99, failed=False)
    assert tail.keeps("r", 0.0, failed=True)
    off = Tail(TracingRules(keep_slow_s=0.0, keep_errors=False))
    assert not off.keeps("r", 1e9, failed=True)
    assert not off.judges
    auto = Tail(TracingRules(keep_slow_s=AUTO))
    for n in range(2000):
        auto.keeps(f"route {n}", 0.1, failed=False)
    assert len(auto._routes) <= 513


def test_a_root_that_is_not_written_down_has_an_id_of_its_own_all_the_same():
    tracer = Tracer(TracingRules(sample=0.0, keep_errors=False, keep_slow_s=0.0))
    with tracer.span("first") as first:
        context = first.context
        assert context == first.context
        assert context is not None
        told = dict(tracer.inject())["traceparent"]
    _, trace_id, span_id, flags = context.traceparent.split("-")
    assert told.split("-")[1] == trace_id
    assert (len(trace_id), len(span_id), flags) == (32, 16, "02")
    assert int(span_id, 16) != 0
    with tracer.span("second"):
        assert dict(tracer.inject())["traceparent"].split("-")[1] != trace_id
    # Several services that go on with one trace are told apart within it.
    came = Incoming(SpanContext(trace_id, "1" * 16), decision=False)
    contexts = [tracer.root("GET", came).context for _ in range(10)]
    spans = {one.span_id for one in contexts if one is not None}
    assert len(spans) == 10
