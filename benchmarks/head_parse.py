"""What reading one request head costs: our parser beside llhttp's Python binding.

    python -m benchmarks.head_parse

Needs httptools (in the `dev` extra; the product does not). Both get the same browser-like head;
llhttp is driven as a proxy would, with a callback for the target and each field.
"""

from __future__ import annotations

import timeit
from time import thread_time

import httptools

from benchmarks.hot_path import BROWSER
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits, parse_request_head

LIMITS = HeadLimits()
COUNT = 20_000


class Callbacks:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = b""

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None: ...

    def on_message_complete(self) -> None: ...


def main() -> None:
    heads = [BROWSER % (n, n, n) for n in range(COUNT)]
    pages = [BROWSER % (n, n, 1) for n in range(COUNT)]
    same = bytes(bytearray(heads[0]))
    known: HeadCache[object] = HeadCache()
    for _ in range(2):  # once is not enough to be kept
        known.put(heads[0], object())

    def ours() -> None:
        for head in heads:
            parse_request_head(head, LIMITS, "http")

    def targets() -> None:
        for head in pages:
            parse_request_head(head, LIMITS, "http")

    def theirs() -> None:
        for head in heads:
            httptools.HttpRequestParser(Callbacks()).feed_data(head)

    def seen() -> None:
        for _ in range(COUNT):
            # A copy, so that its hash is not known yet, as with bytes from a socket.
            known.get(bytes(memoryview(same)))

    for name, work in (
        ("every head different, ours (judged, normalised)", ours),
        ("every target different, the fields the same", targets),
        ("every head different, llhttp (split into fields)", theirs),
        ("a head seen before, by its bytes", seen),
    ):
        best = min(timeit.repeat(work, number=1, repeat=7, timer=thread_time))
        print(f"{name:50} {best / COUNT * 1e6:6.2f} us")


if __name__ == "__main__":
    main()
