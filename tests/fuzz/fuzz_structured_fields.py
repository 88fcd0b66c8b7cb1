"""Fuzz structured fields: read and written again they are the same, and all else is refused."""

from __future__ import annotations

from headgate.security.signatures import read_content_digest
from headgate.wire.structured_fields import (
    InnerList,
    parse_dictionary,
    write_item,
    write_list,
)

SEEDS = (
    b'sig1=("@method" "@path" "content-digest");created=1700000000;nonce="a\\"b";keyid="k", a',
    b'a=1, b=-2.50;x;y=?0, c=tok/en:*, d=:YWJj:, e=(), f=(1 2.0;q "\\\\" :: ?1);z=*',
    b"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, sha-512=:AA==:",
)


def one(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        read_content_digest(text)
    except ValueError as error:
        assert "\n" not in str(error)
    try:
        found = parse_dictionary(text)
    except ValueError:
        return
    again = ", ".join(
        f"{key}={write_list(member) if isinstance(member, InnerList) else write_item(member)}"
        for key, member in found.items()
    )
    assert again.isascii(), data
    assert again.isprintable(), data
    assert parse_dictionary(again) == found, data
