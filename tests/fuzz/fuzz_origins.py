"""Fuzz origins: no text that only looks like a listed origin passes, and no entry opens to strangers.

The first byte chooses: what a browser says; what stands in a list.
"""

from __future__ import annotations

import re
import warnings

from headgate.security.origins import Origins, is_same, origin_fault, origin_of_url

LISTED = (
    "https://shop.example.org",
    "https://*.preview.example.org",
    "http://localhost:*",
    r"~https://[a-z]+-shop\.example\.net",
)
ORIGINS = Origins(LISTED)
MEANT = re.compile(
    rb"https://shop\.example\.org"
    rb"|https://([a-z0-9_-]+\.)+preview\.example\.org"
    rb"|http://localhost(:[0-9]{1,5})?"
    rb"|https://[a-z]+-shop\.example\.net"
)
STRANGERS = (b"https://q7.example", b"http://203.0.113.9:81", b"https://evil.invalid")
SEEDS = (
    *(
        b"\0" + said
        for said in (
            b"https://shop.example.org", b"https://a.b.preview.example.org", b"null",
            b"http://localhost:3000", b"https://my-shop.example.net", b"https://shop.example.org:443",
            b"https://SHOP.example.org", b"https://shop.example.org.evil.net", b"https://u@shop.example.org",
        )
    ),
    *(b"\1" + entry.encode() for entry in LISTED),
    b"\1~https://([a-z]+|x)\\.example\\.org(:[0-9]+)?",
    b"\1*",
)  # fmt: skip


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    if kind and kind[0] & 1:
        _as_entry(rest.decode("latin-1"))
        return
    for _ in range(2):  # the second time from what was remembered
        assert ORIGINS.has(rest) is _is_meant(rest), rest
    origin = origin_of_url(rest)
    if origin is not None:
        assert ORIGINS.has(origin) is _is_meant(origin), rest
        assert rest.lower().startswith(origin.partition(b":")[0]), rest
    same = is_same(rest, "Shop.Example.org:443", is_tls=True)
    assert not same or rest == b"https://shop.example.org", rest


def _as_entry(text: str) -> None:
    with warnings.catch_warnings():
        # Python would read `[a--b]` otherwise some day.
        warnings.simplefilter("ignore", FutureWarning)
        _judged(text)


def _judged(text: str) -> None:
    fault = origin_fault(text)
    if fault is not None:
        assert "\n" not in fault
        return
    made = Origins([text])
    if text != "*" and text[:1] != "~":
        for stranger in STRANGERS:
            host = stranger.decode().split("//")[1].partition(":")[0]
            assert not made.has(stranger) or host.split(".")[0] in text, text
    assert made.has(b"null") is (text in ("*", "null")), text
    if text[:1] not in "~*" and "*" not in text:
        assert made.has(text.encode("latin-1")), text


def _is_meant(origin: bytes) -> bool:
    return len(origin) <= 300 and MEANT.fullmatch(origin) is not None
