"""Field blocks to fields (RFC 7541), with bounds, and fast for blocks that come again.

Theory of operation
-------------------
A decoder belongs to one direction of one connection, and its dynamic table must see every block
in order, also those of streams that nobody wants any more.

Three memories make it fast, all bounded:
- A block that left the table as it was means the same fields whenever it comes again while the
  table stands. Clients that index send identical blocks for identical requests, so most of a
  busy connection is one dict look-up a request. Any insertion, eviction or resize forgets all.
- A Huffman-coded string means the same octets always; short ones are kept.
- `Block.judged` is where the next layer keeps what it made of the fields.

Bounds: decoded fields beyond `list_bytes` (counted as RFC 9113 6.5.2 counts, 32 a field) are not
kept, but the block is read to its end so that the table stays right; the block is then marked
`oversize` and the request can be answered with 431. A block that goes on to `BOMB_FACTOR` times
that is an attack, and the connection ends: the table need not be right any more.

What an editor must not break: every malformed block is a `HpackFault`, which ends the connection
with COMPRESSION_ERROR (RFC 9113 4.3).
"""

from __future__ import annotations

from typing import Final

from headgate.wire.h2 import huffman
from headgate.wire.h2.hpack_static import (
    DEFAULT_TABLE_BYTES,
    ENTRY_OVERHEAD,
    LAST_STATIC,
    STATIC,
    NeverIndexed,
)

Field = tuple[bytes, bytes]

BOMB_FACTOR: Final = 8
# Per connection, so they are small: what is kept with a block (its fields, and what the rim makes
# of them) comes to a few times the size of its fields.
_KEPT_BLOCKS: Final = 64
_KEPT_BLOCK_BYTES: Final = 1024
_KEPT_LIST_BYTES: Final = 4096
_KEPT_STRINGS: Final = 4096
_KEPT_STRING_BYTES: Final = 128
_INTEGER_SHIFT_LIMIT: Final = 28
"""Four continuation octets: more than any length or index that can be meant."""

_strings: dict[bytes, bytes] = {}


class HpackFault(Exception):
    """The peer's block cannot be decoded; the table is lost and so is the connection."""


class HeaderBomb(Exception):
    """The block expands far beyond the announced bound."""


class Block:
    """A decoded field block. Shared between requests: see the theory of operation."""

    __slots__ = ("fields", "is_oversize", "judged", "size")

    def __init__(self, fields: tuple[Field, ...], size: int, *, is_oversize: bool) -> None:
        self.fields = fields
        self.size = size
        self.is_oversize = is_oversize
        self.judged: object = None


class Decoder:
    __slots__ = ("_list_bytes", "_table", "_table_bytes", "_table_limit", "_used", "kept")

    def __init__(self, list_bytes: int = 65_536, table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        self._list_bytes = list_bytes
        self._table: list[Field] = []  # newest last: entry 62 is [-1], so index i is [61 - i]
        self._used = 0
        self._table_bytes = table_bytes
        self._table_limit = table_bytes
        self.kept: dict[bytes, Block] = {}
        """Blocks that mean what they meant, for the caller to look in before `decode`."""

    @property
    def table(self) -> tuple[Field, ...]:
        """The dynamic table, newest first."""
        return tuple(reversed(self._table))

    @property
    def table_bytes(self) -> int:
        return self._used

    def decode(self, data: bytes) -> Block:
        known = self.kept.get(data)
        if known is not None:
            return known
        table = self._table
        fields: list[Field] = []
        keep = fields.append
        size = 0
        limit = self._list_bytes
        changed = False
        pos = 0
        end = len(data)
        try:
            while pos < end:
                first = data[pos]
                pos += 1
                if first & 0x80:
                    index = first & 0x7F
                    if index == 0x7F:
                        index, pos = _integer(data, pos, 0x7F)
                    if index > LAST_STATIC:
                        field = table[LAST_STATIC - index]
                    elif index:
                        field = STATIC[index]
                    else:
                        raise HpackFault("index 0 (RFC 7541 6.1)")
                elif first & 0x40:
                    index = first & 0x3F
                    if index == 0x3F:
                        index, pos = _integer(data, pos, 0x3F)
                    field, pos = self._literal(data, pos, index)
                    if not changed:
                        changed = True
                        self.kept.clear()
                    self._insert(field)
                elif first & 0x20:
                    if fields or size:
                        raise HpackFault("a table size update inside a block (RFC 7541 4.2)")
                    index = first & 0x1F
                    if index == 0x1F:
                        index, pos = _integer(data, pos, 0x1F)
                    changed = True
                    self._resize(index)
                    continue
                else:
                    index = first & 0x0F
                    if index == 0x0F:
                        index, pos = _integer(data, pos, 0x0F)
                    field, pos = self._literal(data, pos, index)
                    if first & 0x10:
                        field = (field[0], NeverIndexed(field[1]))
                size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
                if size <= limit:
                    keep(field)
                elif size > limit * BOMB_FACTOR:
                    raise HeaderBomb(f"a field block beyond {limit * BOMB_FACTOR} bytes")
        except IndexError:
            raise HpackFault("an index beyond the table, or a truncated block") from None
        block = Block(tuple(fields), size, is_oversize=size > limit)
        if not changed and end <= _KEPT_BLOCK_BYTES and size <= _KEPT_LIST_BYTES:
            if len(self.kept) >= _KEPT_BLOCKS:
                self.kept.clear()
            self.kept[data] = block
        return block

    def _literal(self, data: bytes, pos: int, index: int) -> tuple[Field, int]:
        if index == 0:
            name, pos = _string(data, pos)
        elif index > LAST_STATIC:
            name = self._table[LAST_STATIC - index][0]
        else:
            name = STATIC[index][0]
        value, pos = _string(data, pos)
        return (name, value), pos

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self._used += size
        if self._used > self._table_bytes:
            self._evict()
            if size > self._table_bytes:  # RFC 7541 4.4: it empties the table and is not added
                self._used = 0
                return
        self._table.append(field)

    def _evict(self) -> None:
        gone = 0
        table = self._table
        while self._used > self._table_bytes and gone < len(table):
            name, value = table[gone]
            self._used -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        del table[:gone]

    def _resize(self, table_bytes: int) -> None:
        if table_bytes > self._table_limit:
            raise HpackFault(f"a table of {table_bytes} bytes, {self._table_limit} allowed")
        self.kept.clear()
        self._table_bytes = table_bytes
        self._evict()


def _integer(data: bytes, pos: int, value: int) -> tuple[int, int]:
    """The octets after a prefix of ones (RFC 7541 5.1)."""
    shift = 0
    while True:
        octet = data[pos]
        pos += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, pos
        shift += 7
        if shift >= _INTEGER_SHIFT_LIMIT:
            raise HpackFault("an integer without end (RFC 7541 5.1)")


def _string(data: bytes, pos: int) -> tuple[bytes, int]:
    first = data[pos]
    pos += 1
    length = first & 0x7F
    if length == 0x7F:
        length, pos = _integer(data, pos, 0x7F)
    end = pos + length
    raw = data[pos:end]
    if len(raw) != length:
        raise HpackFault("a string beyond the end of the block")
    if first < 0x80:
        return raw, end
    known = _strings.get(raw)
    if known is None:
        try:
            known = huffman.decode(raw)
        except huffman.HuffmanFault as fault:
            raise HpackFault(str(fault)) from fault
        if length <= _KEPT_STRING_BYTES:
            if len(_strings) >= _KEPT_STRINGS:
                _strings.clear()
            _strings[raw] = known
    return known, end
