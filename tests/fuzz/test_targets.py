"""Every fuzz target runs, and holds on its seeds and a few thousand inputs that are always the same."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.__main__ import Target, fuzz, mutated, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_target_holds(target):
    rng = random.Random(7)
    for seed in target.corpus:
        target.one(seed)
    for _ in range(1000):
        target.one(mutated(target.corpus, rng))


def test_a_fault_is_found_and_handed_back(capsys):
    def one(data: bytes) -> None:
        assert b"\r\n" not in data

    found = fuzz(Target("planted", one, [b"GET"]), 5.0, random.Random(7))
    assert found is not None
    assert b"\r\n" in found
