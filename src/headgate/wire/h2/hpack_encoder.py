"""Fields to field blocks (RFC 7541), and from memory for heads that are sent again.

Theory of operation
-------------------
How a field is written:
- an exact entry of the static or dynamic table as its index;
- a secret (`SECRETS`, or a value that its sender marked) as a literal never indexed, so that its
  length on the wire does not tell a guesser anything (RFC 7541 7.1.3). One connection to an
  instance carries many users' requests, which is why cookies count as secrets of any length;
- anything else enters the table when it is met for the **second** time, and is a literal without
  indexing before. Values that never come again (ids, times) would push out useful entries
  and would make the memory below forget everything for every request.

A run of fields whose encoding did not change the table has the same encoding as long as the
table stands, and is kept: by identity first, because heads are shared objects, then by value.

What an editor must not break: encoded pieces must be sent in the order in which they were made,
all of them; a piece that inserted into the table, or that met a field for the first time, may not
be kept (`_changes` counts both); and a change of the table's
size is announced at the start of the next block (RFC 7541 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.wire.h2 import huffman
from headgate.wire.h2.hpack_static import (
    DEFAULT_TABLE_BYTES,
    ENTRY_OVERHEAD,
    LAST_STATIC,
    STATIC_FIELDS,
    STATIC_NAMES,
    NeverIndexed,
    encode_integer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Field = tuple[bytes, bytes]

SECRETS: Final = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"x-api-key",
        b"x-auth-token",
        b"x-csrf-token",
        b"x-xsrf-token",
        b"x-amz-security-token",
    }
)
PASSING: Final = frozenset(
    {
        b"x-request-id",
        b"x-response-time",
        b"x-correlation-id",
        b"traceparent",
        b"tracestate",
        b"age",
        b"content-range",
        b"grpc-timeout",
    }
)
"""Names whose values hardly ever come again: not even remembered."""

# Per connection, so they are small.
_KEPT_RUNS: Final = 64
_KEPT_RUN_BYTES: Final = 1024
_REMEMBERED: Final = 128
_LARGEST_ENTRY: Final = 512

_STATUS: Final = {
    status: STATIC_FIELDS[b":status", str(status).encode()] | 0x80
    for status in (200, 204, 206, 304, 400, 404, 500)
}
_STATUS_BLOCKS: Final = {
    status: bytes((_STATUS[status],))
    if status in _STATUS
    else bytes((STATIC_NAMES[b":status"], 3)) + str(status).encode()
    for status in range(100, 1000)
}


def _string(value: bytes) -> bytes:
    length = len(value)
    if length < 0x7F:
        return bytes((length,)) + value
    return encode_integer(length, 7, 0) + value


def _packed_string(value: bytes) -> bytes:
    packed = huffman.encode(value)
    if len(packed) >= len(value):
        return _string(value)
    return encode_integer(len(packed), 7, 0x80) + packed


_names: dict[bytes, bytes] = {}


def encode_passing(fields: Iterable[Field]) -> bytes:
    """Fields of this one message, as plain literals; needs no encoder because no table matters."""
    out = []
    for name, value in fields:
        head = _names.get(name)
        if head is None:
            index = STATIC_NAMES.get(name, 0)
            head = encode_integer(index, 4, 0x10 if name in SECRETS else 0)
            if not index:
                head += _packed_string(name)
            if len(_names) < _REMEMBERED:
                _names[name] = head
        if type(value) is NeverIndexed:
            head = bytes((head[0] | 0x10,)) + head[1:]
        length = len(value)
        out.append(head)
        out.append(bytes((length,)) if length < 0x7F else encode_integer(length, 7, 0))
        out.append(value)
    return b"".join(out)


class Encoder:
    __slots__ = (
        "_announce",
        "_by_field",
        "_by_name",
        "_changes",
        "_first",
        "_inserted",
        "_kept_by_id",
        "_kept_by_value",
        "_kept_requests",
        "_seen",
        "_smallest",
        "_table",
        "_table_bytes",
        "_used",
    )

    def __init__(self) -> None:
        self._table: dict[int, Field] = {}  # by number of insertion; the oldest is `_first`
        self._first = 0
        self._inserted = 0
        self._used = 0
        self._changes = 0
        self._table_bytes = DEFAULT_TABLE_BYTES
        self._announce = b""
        self._smallest = 0
        self._by_field: dict[Field, int] = {}
        self._by_name: dict[bytes, int] = {}
        self._seen: dict[Field, None] = {}
        self._kept_by_id: dict[int, tuple[tuple[Field, ...], bytes]] = {}
        self._kept_by_value: dict[tuple[Field, ...], bytes] = {}
        self._kept_requests: dict[tuple[str, str, str, str], bytes] = {}

    @property
    def table(self) -> tuple[Field, ...]:
        """The dynamic table, newest first."""
        return tuple(self._table[number] for number in sorted(self._table, reverse=True))

    def allow(self, table_bytes: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE; we use at most the default."""
        wanted = min(table_bytes, DEFAULT_TABLE_BYTES)
        if wanted == self._table_bytes:
            return
        # Of several changes before one block the smallest counts, and the last (RFC 7541 4.2).
        self._smallest = smallest = min(wanted, self._smallest) if self._announce else wanted
        self._announce = encode_integer(wanted, 5, 0x20)
        if smallest < wanted:
            self._announce = encode_integer(smallest, 5, 0x20) + self._announce
        self._table_bytes = wanted
        self._shrink(wanted)
        self._forget()

    def encode(self, fields: tuple[Field, ...]) -> bytes:
        """A run of fields as a whole block (trailers, tests)."""
        announce, self._announce = self._announce, b""
        return announce + self._run(fields)

    def encode_response(self, status: int, fields: tuple[Field, ...]) -> bytes:
        block = _STATUS_BLOCKS[status]
        if self._announce:
            block = self._announce + block
            self._announce = b""
        kept = self._kept_by_id.get(id(fields))
        if kept is not None:
            return block + kept[1]
        return block + self._run(fields)

    def encode_request(
        self,
        method: str,
        scheme: str,
        authority: str,
        target: str,
        fields: tuple[Field, ...],
        protocol: str | None = None,
    ) -> bytes:
        """The pseudo-fields in one order, then the rest; an empty one is left out (CONNECT)."""
        announce, self._announce = self._announce, b""
        key = (method, scheme, authority, target)
        pseudo = self._kept_requests.get(key)
        if pseudo is None or protocol is not None:
            before = self._changes
            line = [(b":method", method.encode("latin-1"))]
            if scheme:
                line.append((b":scheme", scheme.encode("latin-1")))
            if authority:
                line.append((b":authority", authority.encode("latin-1")))
            if target:
                line.append((b":path", target.encode("latin-1")))
            if protocol is not None:
                line.append((b":protocol", protocol.encode("latin-1")))
            pseudo = b"".join([self._field(field) for field in line])
            if before == self._changes and protocol is None and len(pseudo) <= _KEPT_RUN_BYTES:
                if len(self._kept_requests) >= _KEPT_RUNS:
                    self._kept_requests.clear()
                self._kept_requests[key] = pseudo
        kept = self._kept_by_id.get(id(fields))
        return announce + pseudo + (kept[1] if kept is not None else self._run(fields))

    def _run(self, fields: tuple[Field, ...]) -> bytes:
        known = self._kept_by_value.get(fields)
        marked = False
        for _, value in fields:
            if type(value) is NeverIndexed:  # equal to the plain value, but not to be sent alike
                marked = True
                break
        if known is None or marked:
            before = self._changes
            known = b"".join([self._field(field) for field in fields])
            if before != self._changes or len(known) > _KEPT_RUN_BYTES:
                return known
        if len(self._kept_by_id) >= _KEPT_RUNS:
            self._kept_by_id.clear()
            self._kept_by_value.clear()
        self._kept_by_id[id(fields)] = (fields, known)
        if not marked:
            self._kept_by_value[fields] = known
        return known

    def _field(self, field: Field) -> bytes:
        static = STATIC_FIELDS.get(field)
        name, value = field
        if type(value) is NeverIndexed or name in SECRETS:
            return self._literal(name, 4, 0x10) + _string(value)
        if static is not None:
            return bytes((0x80 | static,))
        number = self._by_field.get(field)
        if number is not None:
            return encode_integer(LAST_STATIC + self._inserted - number, 7, 0x80)
        size = len(name) + len(value) + ENTRY_OVERHEAD
        if name in PASSING or size > _LARGEST_ENTRY or size > self._table_bytes:
            return self._literal(name, 4, 0) + _string(value)
        if field not in self._seen:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[field] = None
            self._changes += 1
            return self._literal(name, 4, 0) + _string(value)
        out = self._literal(name, 6, 0x40) + _packed_string(value)
        self._insert(field, size)
        return out

    def _literal(self, name: bytes, prefix_bits: int, first: int) -> bytes:
        index = STATIC_NAMES.get(name)
        if index is None:
            number = self._by_name.get(name)
            if number is None:
                return bytes((first,)) + _packed_string(name)
            index = LAST_STATIC + self._inserted - number
        return encode_integer(index, prefix_bits, first)

    def _insert(self, field: Field, size: int) -> None:
        self._forget()
        self._shrink(self._table_bytes - size)
        number = self._inserted
        self._table[number] = field
        self._by_field[field] = number
        self._by_name[field[0]] = number
        self._used += size
        self._inserted = number + 1
        self._changes += 1

    def _shrink(self, table_bytes: int) -> None:
        while self._used > table_bytes:
            number = self._first
            field = self._table.pop(number)
            self._first = number + 1
            self._used -= len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            if self._by_field.get(field) == number:
                del self._by_field[field]
            if self._by_name.get(field[0]) == number:
                del self._by_name[field[0]]

    def _forget(self) -> None:
        self._kept_by_id.clear()
        self._kept_by_value.clear()
        self._kept_requests.clear()
