"""What stands in Redis, under which name and in which form.

    <prefix>:e:{=<key>}     an entry, or what is left of one that was struck
    <prefix>:n:{=<key>}     a counter (`add`)
    <prefix>:l:{=<key>}     the lease of a key: its fence
    <prefix>:f:{=<key>}     the last fence of a key; never goes back
    <prefix>:t:{=<tag>}     the barriers of a tag: hard and soft
    <prefix>:u:{=<url>}     the barriers of a URL
    <prefix>:{news}:clock   "<clock> <said> <epoch>"
    <prefix>:{news}:stream  what was invalidated, by stamp; each record names the one before it
    <prefix>:{news}:wide    hash: barriers on patterns and on everything
    <prefix>:{news}:nodes   hash: every Redis process that has been met, by its run id

What belongs to one key has one hash tag, so that a script may touch it on a Cluster. The tag begins
with `=`, since an empty one is none; a brace in a key ends it early, in all names alike.

An entry is `E`, three stamps of 16 digits and what the codec wrote: the hard and the soft barrier
of its key, and its own stamp. Without anything behind the stamps it is a tombstone. Stamps of 16
digits in text compare as they are, in Lua too, where numbers this long lose nothing (2**53).
"""

from __future__ import annotations

from typing import Final

__all__ = ["HEAD", "Names", "digits", "read_barriers", "read_head"]

HEAD: Final = 49
_NEVER_STRUCK: Final = b"E" + b"0" * 32
_STAMP_MAX: Final = 10**16 - 1


class Names:
    __slots__ = ("_begins", "_entry", "clock", "nodes", "prefix", "stream", "wide")

    def __init__(self, prefix: str) -> None:
        if not prefix or "{" in prefix or "}" in prefix:
            raise ValueError(f"prefix is {prefix!r}: write a name without braces")
        self.prefix = prefix
        self._entry = f"{prefix}:e:{{="
        self._begins = tuple(
            f"{prefix}:{kind}:{{=".encode("utf-8", "surrogatepass") for kind in "en"
        )
        self.clock = f"{prefix}:{{news}}:clock".encode()
        self.stream = f"{prefix}:{{news}}:stream".encode()
        self.wide = f"{prefix}:{{news}}:wide".encode()
        self.nodes = f"{prefix}:{{news}}:nodes".encode()

    def entry(self, key: str) -> bytes:
        # A lone surrogate is no UTF-8, and yet a key.
        return f"{self._entry}{key}}}".encode("utf-8", "surrogatepass")

    def of(self, kind: str, key: str) -> bytes:
        """`kind`: the letter, as above."""
        return f"{self.prefix}:{kind}:{{={key}}}".encode("utf-8", "surrogatepass")

    def entry_and_count(self, key: str) -> tuple[bytes, bytes]:
        """Both at once, as every reading asks for both."""
        end = f"{key}}}".encode("utf-8", "surrogatepass")
        entry, count = self._begins
        return entry + end, count + end

    def key_of(self, name: bytes) -> str | None:
        """The key of an entry's name; None if it is none of ours."""
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        if not (text.startswith(self._entry) and text.endswith("}")):
            return None
        return text[len(self._entry) : -1]

    def matching(self, glob: str) -> bytes:
        """Redis' pattern for the entries whose keys fit ours, in which only `*` is special."""
        fits = "*".join(map(_escaped, glob.split("*")))
        return f"{_escaped(self._entry)}{fits}}}".encode("utf-8", "surrogatepass")


def digits(stamp: int) -> str:
    return f"{min(max(stamp, 0), _STAMP_MAX):016d}"


def read_head(value: bytes) -> tuple[int, int, int] | None:
    """The hard and soft barrier of the key and the entry's stamp; None: not written by us."""
    if value.startswith(_NEVER_STRUCK):
        own = value[33:HEAD]
        return (0, 0, int(own)) if len(own) == 16 and own.isdigit() else None
    head = value[1:HEAD]
    if value[:1] != b"E" or len(head) != HEAD - 1 or not head.isdigit():
        return None
    return int(head[:16]), int(head[16:32]), int(head[32:])


def read_barriers(value: object) -> tuple[int, int] | None:
    """Hard and soft of a tag or URL; (0, 0) where none stands, None where something else does."""
    if value is None:
        return 0, 0
    if not isinstance(value, bytes) or len(value) != 32 or not value.isdigit():
        return None
    return int(value[:16]), int(value[16:])


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
