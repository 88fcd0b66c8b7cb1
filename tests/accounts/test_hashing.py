"""Hashing is bounded: in threads, in line, and when callers go away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headgate.security.accounts import Busy, HashRules
from headgate.security.accounts.hashing import Hasher

QUICK = HashRules(memory_kib=64, passes=1, threads=1, waiting=2)
PEPPER = "p" * 16


async def settled(hasher: Hasher) -> None:
    async with asyncio.timeout(10):
        while hasher.snapshot().taken:
            await asyncio.sleep(0.001)


def test_the_defaults_are_those_of_the_owasp_sheet():
    hasher = Hasher(HashRules(), {})
    try:
        assert hasher.nobody.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    finally:
        hasher.close()


def test_a_hash_verifies_and_is_stale_when_the_parameters_grow():
    async def main():
        small, large = Hasher(QUICK, {}), Hasher(HashRules(memory_kib=128, passes=2, threads=1), {})
        made = await small.hash("a password")
        assert (await small.verify(made, "a password")) == (await small.verify(made, "a password"))
        assert not (await small.verify(made, "another")).is_right
        assert not (await small.verify(made, "a password")).is_stale
        assert (await large.verify(made, "a password")).is_stale
        small.close()
        large.close()

    asyncio.run(main())


def test_peppers_are_exchanged_in_front_and_needed_to_verify():
    async def main():
        bare, one = Hasher(QUICK, {}), Hasher(QUICK, {"a": PEPPER})
        two = Hasher(QUICK, {"b": "q" * 16, "a": PEPPER})
        plain, peppered = await bare.hash("words"), await one.hash("words")
        assert peppered.startswith("pepper=a$argon2id$")
        assert not (await one.verify(peppered, "words")).is_stale
        for stored in (plain, peppered):
            verdict = await two.verify(stored, "words")
            assert verdict.is_right
            assert verdict.is_stale
        assert not (await bare.verify(peppered, "words")).is_right
        assert not (await bare.verify("pepper=a", "words")).is_right
        for hasher in (bare, one, two):
            hasher.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "stored", ["", "x", "$argon2id$v=19$m=1", "$2b$12$abc", "\x00"], ids=range(5)
)
def test_a_broken_hash_is_wrong_rather_than_an_error(stored):
    async def main():
        hasher = Hasher(QUICK, {})
        before = hasher.snapshot().done
        assert not (await hasher.verify(stored, "words")).is_right
        assert hasher.snapshot().done == before + 1  # and takes as long as a wrong password
        hasher.close()

    asyncio.run(main())


def held(hasher: Hasher) -> threading.Event:
    """Keep the only thread busy until the event is set."""
    go = threading.Event()
    hasher._threads.submit(go.wait, 20)
    return go


def test_beyond_the_line_the_answer_is_busy():
    async def main():
        hasher = Hasher(QUICK, {})
        go = held(hasher)
        tasks = [asyncio.create_task(hasher.hash("words")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await hasher.hash("words")
        assert hasher.snapshot().taken == 3
        assert hasher.snapshot().refused == 1
        go.set()
        await asyncio.gather(*tasks)
        await settled(hasher)
        hasher.close()

    asyncio.run(main())


def test_a_caller_that_goes_away_leaves_its_place():
    async def main():
        hasher = Hasher(QUICK, {})
        go = held(hasher)
        tasks = [asyncio.create_task(hasher.hash("words")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert hasher.snapshot().taken == 0  # none had begun
        go.set()
        assert (await hasher.verify(await hasher.hash("words"), "words")).is_right
        await settled(hasher)
        hasher.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "peppers", [{"": PEPPER}, {"a$b": PEPPER}, {"é": PEPPER}, {"a": "short"}], ids=range(4)
)
def test_a_pepper_that_cannot_be_one_is_refused(peppers):
    with pytest.raises(ValueError, match="pepper"):
        Hasher(QUICK, peppers)
