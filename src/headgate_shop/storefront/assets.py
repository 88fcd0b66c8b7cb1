"""The files under `/static/`, by names that hold a hash of what is in them.

A file that changes has a new name, so browsers keep what they have for a year and never show an old
one. Scripts are modules that import each other (`from "./cart.js"`): the names in these lines are
exchanged too, so the hash of a module covers what it imports.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Asset", "Assets"]

KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".txt": "text/plain; charset=utf-8",
}
_IMPORT: Final = re.compile(rb"""((?:from|import)\s*\(?\s*["'])\./([a-z0-9_-]+\.js)(["'])""")


@dataclass(frozen=True, slots=True)
class Asset:
    name: str
    """With its hash."""
    body: bytes
    kind: str


class Assets:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_plain: dict[str, Asset] = {}
        self._by_name: dict[str, Asset] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix in KINDS:
                self._load(path.name, ())

    def url(self, plain: str) -> str:
        return f"/static/{self._by_plain[plain].name}"

    def find(self, name: str) -> Asset | None:
        return self._by_name.get(name)

    def scripts(self) -> list[str]:
        """All modules, so that a page can have them fetched at once."""
        return sorted(plain for plain in self._by_plain if plain.endswith(".js"))

    def _load(self, plain: str, inside: tuple[str, ...]) -> Asset:
        found = self._by_plain.get(plain)
        if found is not None:
            return found
        if plain in inside:
            raise ValueError(f"{plain} imports itself, by way of {' -> '.join(inside)}")
        path = self._folder / plain
        body = path.read_bytes()
        if path.suffix == ".js":

            def renamed(match: re.Match[bytes]) -> bytes:
                other = self._load(match[2].decode(), (*inside, plain))
                return match[1] + b"./" + other.name.encode() + match[3]

            body = _IMPORT.sub(renamed, body)
        digest = _hash(body)
        asset = Asset(f"{path.stem}.{digest}{path.suffix}", body, KINDS[path.suffix])
        self._by_plain[plain] = asset
        self._by_name[asset.name] = asset
        return asset


def _hash(body: bytes) -> str:
    """Ten hexadecimal digits with a letter and a digit among them, as caches know a hash by."""
    digest = hashlib.sha256(body).hexdigest()
    for start in range(len(digest) - 10):
        part = digest[start : start + 10]
        if not part.isdigit() and not part.isalpha():
            return part
    return digest
