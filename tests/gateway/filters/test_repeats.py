"""Bodies that come again: looked up from the third time on, within bounds, never another's."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.policies import CompressSpec
from headgate.gateway.filters import FilterContext, compress
from headgate.gateway.filters.compress import Compress
from headgate.gateway.filters.encoders import ENCODERS
from headgate.gateway.filters.repeats import SEEN_MAX, Repeats

TEXT = (b"content-type", b"text/plain")


def test_the_second_time_is_kept_and_the_third_found():
    repeats = Repeats()
    key = ("gzip", 5, b"x" * 100)
    for _ in range(2):
        assert repeats.find(key) is None
        repeats.made(key, b"small")
    assert repeats.find(("gzip", 5, bytes(b"x" * 100))) == b"small"
    assert repeats.find(("gzip", 6, b"x" * 100)) is None
    assert repeats.find(("br", 5, b"x" * 100)) is None
    assert repeats.bytes == 105


def test_what_comes_once_is_never_kept():
    repeats = Repeats()
    for at in range(3 * SEEN_MAX):
        repeats.made(("gzip", 5, b"%d" % at), b"")
    assert repeats.bytes == 0
    assert len(repeats._seen) == SEEN_MAX


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=80))
def test_what_is_kept_stays_within_its_bound_and_is_right(asked):
    repeats = Repeats(size_max=100)
    for name, size in asked:
        key = ("gzip", 5, bytes([name]) * size)
        found = repeats.find(key)
        assert found in {None, bytes([name, size])}
        if found is None:
            repeats.made(key, bytes([name, size]))
        held = sum(len(key[2]) + len(packed) for key, packed in repeats._kept.items())
        assert repeats.bytes == held <= 100


def test_what_was_not_asked_for_the_longest_time_goes_first():
    repeats = Repeats(size_max=30)
    keys = [("gzip", 5, bytes([at]) * 9) for at in range(4)]
    for key in keys[:3]:
        repeats.made(key, b"!")
        repeats.made(key, b"!")
    repeats.find(keys[0])
    repeats.made(keys[3], b"!")
    repeats.made(keys[3], b"!")
    assert [repeats.find(key) is not None for key in keys] == [True, False, True, True]


@pytest.fixture
def answered(make_request, make_response, monkeypatch):
    """Answer with these chunks, and count the encoders that were made for it."""
    monkeypatch.setattr(compress, "_repeats", Repeats())
    made = []

    def encoder(level):
        made.append(level)
        return ENCODERS["gzip"](level)

    monkeypatch.setattr(compress, "ENCODERS", {**ENCODERS, "gzip": encoder})
    policy = Compress(CompressSpec(), FilterContext("r", "s"))

    def run(*chunks, length=-1):
        request = make_request([(b"accept-encoding", b"gzip")])
        response = make_response((TEXT,), 200, length)
        before = len(made)
        policy.on_response(request, response)
        out = b""
        for at, chunk in enumerate(chunks):
            packed = policy.on_response_body(request, response, chunk, at == len(chunks) - 1)
            assert isinstance(packed, bytes)
            out += packed
        return gzip.decompress(out), len(made) - before

    return run


def test_a_kept_body_is_compressed_twice_and_not_again(answered):
    body = b"words " * 500
    assert [answered(body, length=len(body)) for _ in range(4)] == [
        (body, 1), (body, 1), (body, 0), (body, 0),
    ]  # fmt: skip


def test_the_end_of_a_stream_is_not_taken_for_a_whole_body(answered):
    body = b"words " * 500
    for _ in range(3):
        assert answered(body, length=len(body))[0] == body
    # The last piece equals a body that is kept; here it is the end of another one.
    assert answered(b"first ", body) == (b"first " + body, 1)
    assert answered(body, b"")[0] == body
