"""Fuzz Accept-Encoding: the choice is one of ours or none, never a raise."""

from __future__ import annotations

from headgate.gateway.filters.accept import choose_coding

SEEDS = (b"gzip, br;q=0.8, *;q=0", b"identity;q=0, zstd", b"x-gzip;q=1.000,*")
OURS = ("zstd", "br", "gzip")


def one(data: bytes) -> None:
    assert choose_coding(data.decode("latin-1"), OURS) in {None, *OURS}, data
