"""Frames whole, byte by byte and with a tail; descriptors; questions and answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.channel import (
    MAX_PAYLOAD_BYTES,
    Channel,
    ChannelClosed,
    Decoder,
    Message,
    encode,
)

FRAMES = encode("apply", {"n": 1}, b"payload") + encode("drain") + encode("x", {"y": [1, 2]}, b"")


def as_tuples(messages: list[Message]):
    return [(message.kind, message.fields, message.payload) for message in messages]


EXPECTED = [("apply", {"n": 1}, b"payload"), ("drain", {}, b""), ("x", {"y": [1, 2]}, b"")]


def test_frames_are_read_whole():
    assert as_tuples(Decoder().feed(FRAMES)) == EXPECTED


def test_frames_are_read_byte_by_byte():
    decoder = Decoder()
    found = []
    for at in range(len(FRAMES)):
        found += decoder.feed(FRAMES[at : at + 1])
    assert as_tuples(found) == EXPECTED
    assert decoder.pending == b""


def test_a_tail_waits_and_can_be_carried_over():
    decoder = Decoder()
    assert as_tuples(decoder.feed(FRAMES[:-5])) == EXPECTED[:-1]
    successor = Decoder()
    successor.feed(decoder.pending)
    assert as_tuples(successor.feed(FRAMES[-5:])) == EXPECTED[-1:]


@given(st.lists(st.integers(1, 40), max_size=20))
def test_any_split_reads_the_same(sizes: list[int]):
    decoder, found, at = Decoder(), [], 0
    for size in sizes:
        found += decoder.feed(FRAMES[at : at + size])
        at += size
    found += decoder.feed(FRAMES[at:])
    assert as_tuples(found) == EXPECTED


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * 14,
        b"\0\0\0\2" + (MAX_PAYLOAD_BYTES + 1).to_bytes(8) + b"\0\0{}",
        b"\0\0\0\2" + bytes(8) + b"\0\0{}",
        b"\0\0\0\2" + bytes(8) + b"\0\0[]",
        b"\0\0\0\3" + bytes(8) + b"\0\0{,}",
        encode("x", fd_count=1),
    ],
)
def test_a_broken_frame_is_refused(frame: bytes):
    with pytest.raises(ChannelClosed):
        Decoder().feed(frame)


class End:
    """One end of a channel with what it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[Message] = []
        self.news = asyncio.Event()
        self.closed = asyncio.Event()
        self.channel = Channel(sock, self._hear, self.closed.set)
        self.channel.start()

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        self.news.set()
        if message.kind == "question":
            self.channel.answer(message, "answer", message.payload, n=message.fields["n"])

    async def wait_for(self, count: int) -> list[Message]:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()
        return self.heard


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, End]]:
    left, right = socket.socketpair()
    ends = End(left), End(right)
    try:
        yield ends
    finally:
        for end in ends:
            end.channel.close()
        await asyncio.sleep(0)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_arrive_with_their_own_message_and_none_leaks():
    async def scene() -> None:
        async with pair() as (left, right):
            pipes = [os.pipe() for _ in range(300)]  # more than the kernel takes at once
            left.channel.send("first", b"a" * 1_000_000, [out for _in, out in pipes], n=1)
            left.channel.send("second", b"", [pipes[0][1]], n=2)
            first, second = await right.wait_for(2)
            assert (first.kind, len(first.fds), len(first.payload)) == ("first", 300, 1_000_000)
            assert len(second.fds) == 1
            for at in (0, 199, 200, 299):
                os.write(first.fds[at], b"%d" % at)
                assert os.read(pipes[at][0], 10) == b"%d" % at
            assert not os.get_inheritable(first.fds[0])
            for fd in [*first.fds, *second.fds, *(fd for both in pipes for fd in both)]:
                os.close(fd)

    before = open_fds()
    asyncio.run(scene())
    assert open_fds() <= before


def test_descriptors_of_unread_messages_are_closed_with_the_channel():
    async def scene() -> None:
        async with pair() as (left, right):
            right.channel.release()  # it does not read
            read, write = os.pipe()
            left.channel.send("big", b"x" * 10_000_000, [write])
            left.channel.send("more", b"", [write])
            os.close(write)
            left.channel.close()
            right.channel.close()
            assert os.read(read, 1) == b""  # nobody has the other end any more
            os.close(read)

    asyncio.run(scene())


def test_questions_find_their_answers_whatever_the_order():
    async def scene() -> None:
        async with pair() as (left, _right):
            answers = await asyncio.gather(
                *(
                    left.channel.ask("question", str(n).encode(), timeout_s=10, n=n)
                    for n in range(50)
                )
            )
            assert [answer.fields["n"] for answer in answers] == list(range(50))
            assert [answer.payload for answer in answers] == [b"%d" % n for n in range(50)]

    asyncio.run(scene())


def test_an_answer_that_nobody_waits_for_is_heard_as_a_message():
    async def scene() -> None:
        async with pair() as (left, right):
            right.channel.send("applied", re=99, generation=3)
            (message,) = await left.wait_for(1)
            assert message.kind == "applied"

    asyncio.run(scene())


def test_an_asker_learns_that_the_other_end_died():
    async def scene() -> None:
        async with pair() as (left, right):
            asked = asyncio.get_running_loop().create_task(
                left.channel.ask("nothing", timeout_s=10)
            )
            await right.wait_for(1)
            right.channel.close()
            with pytest.raises(ChannelClosed):
                await asked
            async with asyncio.timeout(5):
                await left.closed.wait()
            with pytest.raises(ChannelClosed):
                await left.channel.ask("again", timeout_s=1)
            left.channel.send("to nobody")

    asyncio.run(scene())


def test_a_question_without_an_answer_times_out_and_is_forgotten():
    async def scene() -> None:
        async with pair() as (left, right):
            with pytest.raises(TimeoutError):
                await left.channel.ask("silence", timeout_s=0.01)
            right.channel.send("late", re=1)
            (message,) = await left.wait_for(1)
            assert message.kind == "late"

    asyncio.run(scene())


def test_last_words_are_heard_after_the_peer_has_gone():
    async def scene() -> None:
        async with pair() as (left, right):
            right.channel.send("refused", why="a reason")
            right.channel.flush(1)
            right.channel.close()
            left.channel.send("into the void")  # the send fails; what was said is still read
            left.channel.finish()
            assert [message.kind for message in left.heard] == ["refused"]

    asyncio.run(scene())


def test_a_head_is_plain_json():
    assert json.loads(encode("x", {"a": 1})[14:]) == {"a": 1, "kind": "x"}
