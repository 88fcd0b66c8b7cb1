"""The Huffman code of HPACK (RFC 7541 5.2 and Appendix B).

Theory of operation
-------------------
The code is canonical: codes of one length are consecutive and sorted by symbol, and each longer
length goes on where the shorter one stopped. So the list of lengths is the whole table; the
codes of Appendix B follow from it (a test compares every one with the appendix).

Decoding walks a byte at a time. A step depends only on the node of the code tree reached so far
and on the next byte, and yields the next node and at most two symbols. There are 256 x 256 such
steps, of which real traffic meets a few thousand: a step is worked out bit by bit when it is
first met and kept, so nothing is built at import and the table cannot outgrow 65,536 entries.

What an editor must not break: a string may end only in fewer than eight bits that are all ones
(the beginning of EOS), and may not contain EOS; both are decoding errors (RFC 7541 5.2).
"""

from __future__ import annotations

from typing import Final

# fmt: off
_LENGTHS: Final = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
    6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23,
    23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22,
    22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26,
    27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
    25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)
# fmt: on
EOS: Final = 256


class HuffmanFault(ValueError):
    """The bytes are not a Huffman-coded string."""


def _codes() -> list[str]:
    """Every symbol's code as a string of bits."""
    bits = [""] * len(_LENGTHS)
    code, length = 0, 0
    for wanted, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= wanted - length
        length = wanted
        bits[symbol] = format(code, f"0{length}b")
        code += 1
    return bits


CODES: Final = tuple(_codes())


def _tree() -> list[list[int]]:
    """Inner nodes as [child on 0, child on 1]; a leaf is the symbol's complement."""
    nodes = [[0, 0]]
    for symbol, bits in enumerate(CODES):
        node = 0
        for bit in bits[:-1]:
            child = nodes[node][int(bit)]
            if not child:
                nodes.append([0, 0])
                child = nodes[node][int(bit)] = len(nodes) - 1
            node = child
        nodes[node][int(bits[-1])] = ~symbol
    return nodes


_NODES: Final = _tree()


def _endings() -> frozenset[int]:
    """The nodes in which a string may end, shifted as `decode` keeps them."""
    node, found = 0, [0]
    for _ in range(7):
        node = _NODES[node][1]
        found.append(node << 8)
    return frozenset(found)


_ENDINGS: Final = _endings()
_STEPS: Final[dict[int, tuple[int, bytes]]] = {}


def _step(key: int) -> tuple[int, bytes]:
    node, byte = key >> 8, key & 0xFF
    out = bytearray()
    for shift in range(7, -1, -1):
        node = _NODES[node][byte >> shift & 1]
        if node < 0:
            if ~node == EOS:
                raise HuffmanFault("a string contains EOS")
            out.append(~node)
            node = 0
    step = _STEPS[key] = (node << 8, bytes(out))
    return step


def decode(data: bytes) -> bytes:
    node = 0
    out: list[bytes] = []
    step = _STEPS.get
    for byte in data:
        node, symbols = step(node | byte) or _step(node | byte)
        out.append(symbols)
    if node not in _ENDINGS:
        raise HuffmanFault("a string ends inside a symbol or in wrong padding")
    return b"".join(out)


def encode(data: bytes) -> bytes:
    if not data:
        return b""
    bits = "".join([CODES[byte] for byte in data])
    padding = -len(bits) & 7
    return int(bits + "1" * padding, 2).to_bytes((len(bits) + padding) // 8, "big")
