"""The fields of a response, by name in any spelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.wire.message import Header


class Headers(Mapping[str, str]):
    """Several lines of one field are joined by commas, except with `get_list`."""

    __slots__ = ("raw",)

    def __init__(self, raw: tuple[Header, ...]) -> None:
        self.raw = raw
        """Names in lower case."""

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode("latin-1", "replace")
        found: bytes | None = None
        for each, value in self.raw:
            if each == key:
                found = value if found is None else found + b", " + value
        if found is None:
            raise KeyError(name)
        return found.decode("latin-1")

    def get_list(self, name: str) -> list[str]:
        """Every line of a field apart: `set-cookie` cannot be joined (RFC 6265 3)."""
        key = name.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for each, value in self.raw if each == key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        # Names alone: values hold cookies and tokens.
        return f"<Headers {', '.join(self)}>"
