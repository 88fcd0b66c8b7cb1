"""Chains: which hooks are called, in which order, and when a phase becomes a coroutine."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from headgate.gateway.filters import Chain, Filter, Outcome, Reply
from headgate.gateway.filters import build_chain as build_chain_or_none


def build_chain(filters) -> Chain:
    chain = build_chain_or_none(filters)
    assert chain is not None
    return chain


OUTCOME = Outcome(200, 0.1, 0, 0, None, None)


class Tracing(Filter):
    """Writes its name to a list at every hook."""

    def __init__(self, name, trace, context):
        super().__init__(Filter.Options(), context)
        self.name, self.trace = name, trace

    def on_request(self, request):
        self.trace.append(f"{self.name} request")

    def on_request_body(self, request, chunk, last):
        return chunk + self.name.encode()

    def on_response(self, request, response):
        self.trace.append(f"{self.name} response")

    def on_response_body(self, request, response, chunk, last):
        return chunk + self.name.encode()

    def on_end(self, request, outcome):
        self.trace.append(f"{self.name} end")


class TracingLater(Tracing):
    """The same, awaiting."""

    async def on_request(self, request):
        await asyncio.sleep(0)
        super().on_request(request)

    async def on_request_body(self, request, chunk, last):
        await asyncio.sleep(0)
        return super().on_request_body(request, chunk, last)

    async def on_response(self, request, response):
        await asyncio.sleep(0)
        super().on_response(request, response)

    async def on_response_body(self, request, response, chunk, last):
        await asyncio.sleep(0)
        return super().on_response_body(request, response, chunk, last)


async def value_of(got):
    return await got if inspect.isawaitable(got) else got


KINDS = [
    (Tracing, Tracing, Tracing),
    (TracingLater, Tracing, Tracing),
    (Tracing, TracingLater, Tracing),
    (Tracing, Tracing, TracingLater),
    (TracingLater, TracingLater, TracingLater),
]


@pytest.mark.parametrize("kinds", KINDS)
def test_requests_go_forward_and_responses_backward(kinds, context, make_request, make_response):
    trace: list[str] = []
    chain = build_chain([kind(name, trace, context) for kind, name in zip(kinds, "abc")])
    request, response = make_request(), make_response()

    async def scenario():
        assert await value_of(chain.run_request(request)) is None
        assert await value_of(chain.run_request_body(request, b"+", True)) == b"+abc"
        assert await value_of(chain.run_response(request, response)) is None
        assert await value_of(chain.run_response_body(request, response, b"+", True)) == b"+cba"
        for hook in chain.end:
            hook(request, OUTCOME)

    asyncio.run(scenario())
    assert trace == [
        "a request", "b request", "c request",
        "c response", "b response", "a response",
        "c end", "b end", "a end",
    ]  # fmt: skip


def test_a_chain_of_plain_hooks_answers_at_once(context, make_request):
    chain = build_chain([Tracing("a", [], context)])
    assert chain.run_request(make_request()) is None
    assert chain.run_request_body(make_request(), b"x", False) == b"xa"


class Replying(Tracing):
    def on_request(self, request):
        return Reply(403)

    def on_response(self, request, response):
        return Reply(502)


class ReplyingLater(Tracing):
    async def on_request(self, request):
        return Reply(403)

    async def on_response(self, request, response):
        return Reply(502)


@pytest.mark.parametrize("kind", [Replying, ReplyingLater])
@pytest.mark.parametrize("before", [Tracing, TracingLater])
def test_a_reply_ends_its_phase(kind, before, context, make_request, make_response):
    trace: list[str] = []
    filters = [before("a", trace, context), kind("b", trace, context), before("c", trace, context)]
    chain = build_chain(filters)

    async def scenario():
        assert await value_of(chain.run_request(make_request())) == Reply(403)
        assert await value_of(chain.run_response(make_request(), make_response())) == Reply(502)

    asyncio.run(scenario())
    assert trace == ["a request", "c response"]


class RefusingBody(Tracing):
    def on_request_body(self, request, chunk, last):
        return Reply(401)

    def on_response_body(self, request, response, chunk, last):
        return Reply(502)


@pytest.mark.parametrize("before", [Tracing, TracingLater])
def test_a_reply_from_a_body_hook_ends_its_phase(before, context, make_request, make_response):
    chain = build_chain(
        [before("a", [], context), RefusingBody("b", [], context), before("c", [], context)]
    )

    async def scenario():
        got = await value_of(chain.run_request_body(make_request(), b"x", True))
        assert got == Reply(401)
        got = await value_of(chain.run_response_body(make_request(), make_response(), b"x", True))
        assert got == Reply(502)

    asyncio.run(scenario())


def test_a_subclass_of_reply_counts_as_a_reply(context, make_request):
    class Denied(Reply):
        pass

    class Denying(Filter):
        def on_request(self, request):
            return Denied(403)

    chain = build_chain([Denying(Filter.Options(), context)])
    assert asyncio.run(value_of(chain.run_request(make_request()))) == Denied(403)


def test_hooks_that_are_not_overridden_are_not_in_the_chain(context):
    class OnlyEnd(Filter):
        def on_end(self, request, outcome):
            pass

    class Grandchild(OnlyEnd):
        def on_response(self, request, response):
            return None

    chain = build_chain(
        [Filter(Filter.Options(), context), OnlyEnd(Filter.Options(), context),
         Grandchild(Filter.Options(), context)]
    )  # fmt: skip
    assert (chain.request, chain.request_body, chain.response_body) == ((), (), ())
    assert len(chain.response) == 1
    assert len(chain.end) == 2
    assert chain.wants_end and chain.wants_response
    assert not (chain.wants_request or chain.wants_request_body or chain.wants_response_body)


def test_nothing_overridden_is_no_chain(context):
    assert build_chain_or_none([]) is None
    assert build_chain_or_none([Filter(Filter.Options(), context)]) is None


def test_a_hook_set_on_the_object_counts_as_overridden(context, make_request):
    plain = Filter(Filter.Options(), context)
    plain.on_request = lambda request: Reply(418)  # type: ignore[method-assign]
    assert build_chain([plain]).run_request(make_request()) == Reply(418)


def test_the_smallest_bound_gathers_for_all(context):
    class Streams(Tracing):
        pass

    class Gathers(Tracing):
        request_body_max = 1000

    class GathersLess(Tracing):
        request_body_max = 10
        response_body_max = 20

    class GathersWithoutHook(Filter):
        request_body_max = 1

    def chain(*kinds):
        built = [kind("x", [], context) for kind in kinds]
        return build_chain([*built, GathersWithoutHook(Filter.Options(), context)])

    assert chain(Streams).request_body_max is None
    assert chain(Streams, Gathers, GathersLess).request_body_max == 10
    assert chain(Streams, Gathers, GathersLess).response_body_max == 20
