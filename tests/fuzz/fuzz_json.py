"""Fuzz JSON from strangers: what is read is what Python's parser reads, within the bounds, and no key
stands twice. The same of multipart: its parts put together again are the body.
"""

from __future__ import annotations

import json
from typing import Any

from headgate.security.validation.forms import FormRefused, split_multipart
from headgate.security.validation.json_text import JsonReader, JsonRefused

DEPTH, VALUES = 8, 200
STRICT = JsonReader(DEPTH, VALUES)
LAX = JsonReader(DEPTH, VALUES, unique_keys=False)
SEEDS = (
    b'{"a":[1,-2.5e3,"\\u00e9\\ud83d\\ude00",true,null],"b":{"c":"]}\\"\\\\"}}',
    b'{"a":1,"a":2}',
    b"[" * 9 + b"]" * 9,
    b'{"x":"' + b"[{," * 60 + b'"}',
    b'["\\ud800"]',
    b"[1e400, NaN, 00, 1" + b"0" * 300 + b"]",
    b"[" + b"1," * 198 + b"1]",
    b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x\r\n'
    b'Content-Disposition: form-data; name="b"; filename="c"\r\n\r\n\r\n--x--\r\n',
)


def one(data: bytes) -> None:
    strict, lax = _read(STRICT, data), _read(LAX, data)
    if strict is not None:
        assert lax is not None, data
        assert repr(strict) == repr(lax), data
        pairs = json.loads(data, object_pairs_hook=_counted)
        assert repr(pairs) == repr(strict[0]), data
    try:
        parts = split_multipart(data, "x")
    except FormRefused as error:
        assert error.detail.isprintable()
        return
    assert data.startswith(b"--x"), data
    assert sum(len(part.content) for part in parts) <= len(data)
    assert all(part.content in data for part in parts), data
    assert all(b"\r\n--x" not in b"\r\n" + part.content for part in parts), data


def _read(reader: JsonReader, text: bytes) -> tuple[Any] | None:
    try:
        value = reader.read(text)
    except JsonRefused as error:
        assert error.detail.isascii()
        return None
    assert repr(json.loads(text)) == repr(value), text
    depth, count = _measure(value)
    assert depth <= DEPTH, text
    assert count <= VALUES, text
    json.dumps(value, ensure_ascii=False).encode()
    return (value,)


def _counted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _measure(value: Any) -> tuple[int, int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    measured = [_measure(each) for each in inner]
    deeper = isinstance(value, dict | list)
    return deeper + max((d for d, _ in measured), default=0), 1 + sum(n for _, n in measured)
