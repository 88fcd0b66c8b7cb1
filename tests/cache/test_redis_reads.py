"""What many tasks read in one turn goes to Redis in few commands, and comes back to each its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headgate.cache.layer import LayerAway
from headgate.cache.redis.router import Reads

NAMES_AT_ONCE = 128


def reads_of(*counts: int) -> tuple[Reads, list[asyncio.Future[list[Any]]]]:
    """A turn in which readers ask for so many names each, all of them different."""
    loop = asyncio.get_running_loop()
    reads, readers, number = Reads(loop, 0.0), [], 0
    for count in counts:
        reader: asyncio.Future[list[Any]] = loop.create_future()
        reads.add([b"%d" % (number + at) for at in range(count)], reader)
        number += count
        readers.append(reader)
    return reads, readers


def answered(reads: Reads, say: Callable[[int, tuple[bytes, ...]], Any]) -> list[int]:
    """Answer each command; how many names each had."""
    sent = reads.entries()
    for call, index, (word, *names) in sent:
        assert call is reads
        assert word == "MGET"
        reads.deliver(index, say(index, tuple(names)))
    reads.deliver(len(sent), b"1 0 epoch")  # the clock, behind all of them
    return [len(command) - 1 for _, _, command in sent]


def as_asked(index: int, names: tuple[bytes, ...]) -> list[bytes]:
    return [b"v" + name for name in names]


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ((2,), [2]),
        ((2,) * 64, [128]),
        ((2,) * 65, [128, 2]),
        ((127, 3, 400), [128, 128, 128, 128, 18]),
    ],
    ids=["one", "full", "one-more", "across"],
)
def test_each_reader_gets_the_values_of_its_own_names(counts, sizes):
    async def main() -> None:
        reads, readers = reads_of(*counts)
        assert answered(reads, as_asked) == sizes
        number = 0
        for count, reader in zip(counts, readers, strict=True):
            assert await reader == [b"v%d" % (number + at) for at in range(count)]
            number += count
        assert reads.clock == b"1 0 epoch"

    asyncio.run(main())


def test_nobody_is_answered_before_the_clock_has_been_read():
    async def main() -> None:
        reads, (reader,) = reads_of(2)
        ((_, index, (_, *names)),) = reads.entries()
        reads.deliver(index, as_asked(index, tuple(names)))
        assert not reader.done()
        reads.deliver(1, b"clock")
        assert await reader == [b"v0", b"v1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "reply",
    [RuntimeError("OOM"), [b"too", b"short"], b"a text", None, 7],
    ids=["error", "short", "text", "nothing", "number"],
)
def test_a_command_that_was_refused_harms_only_those_who_had_names_in_it(reply):
    async def main() -> None:
        reads, readers = reads_of(NAMES_AT_ONCE - 1, 2, NAMES_AT_ONCE - 1)
        answered(reads, lambda index, names: as_asked(index, names) if index else reply)
        first, across, last = [await reader for reader in readers]
        assert all(isinstance(value, Exception) for value in first)
        assert isinstance(across[0], Exception)
        assert across[1] == b"v128"
        assert last[0] == b"v129"

    asyncio.run(main())


def test_a_reader_that_was_cancelled_is_passed_over():
    async def main() -> None:
        reads, (one, gone, other) = reads_of(2, 2, 2)
        gone.cancel()
        answered(reads, as_asked)
        assert await one == [b"v0", b"v1"]
        assert await other == [b"v4", b"v5"]

    asyncio.run(main())


def test_who_fails_together_raises_an_error_of_his_own():
    async def main() -> None:
        reads, readers = reads_of(2, 2)
        reads.entries()
        for _ in range(2):  # a batch is failed once for each of its commands
            reads.fail(LayerAway("redis://here: no answer"))
        errors = await asyncio.gather(*readers, return_exceptions=True)
        assert [str(error) for error in errors] == ["redis://here: no answer"] * 2
        assert errors[0] is not errors[1]

    asyncio.run(main())
