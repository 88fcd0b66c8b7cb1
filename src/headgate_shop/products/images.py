"""Images of products: files in a folder, named by what is in them, kept by everybody for ever.

Theory of operation
-------------------
A name has a hash in it, so what is under a name never changes and caches need not ask again. Files
are written beside their place and renamed, so a name is either the whole file or nothing.

What is uploaded is taken for what its first bytes say and not for what somebody calls it. SVG is
not taken: it may hold programs. The drawn ones (`art.py`) are SVG of our own; they are made when
they are first asked for, and only if a product has one of that name, or a stranger could fill the
disk with drawings.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from headgate_shop.products.art import draw, is_drawing

__all__ = ["HEADERS", "IMAGE_MAX_BYTES", "ImageInvalid", "Images", "kind_of"]

IMAGE_MAX_BYTES: Final = 5_000_000
NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?:svg|png|jpg|webp|avif|gif)")
TYPES: Final = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}
HEADERS: Final = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    # Whatever may be in it, opened by itself it is a picture that loads and runs nothing.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "cross-origin-resource-policy": "same-origin",
}


class ImageInvalid(Exception):
    """It is no image that is taken here."""


def kind_of(content: bytes) -> str:
    """The ending for it, by its first bytes; empty if it is none of the known."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp" and content[8:12] in (b"avif", b"avis"):
        return "avif"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return ""


class Images:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "images"

    async def keep(self, content: bytes) -> str:
        """Answers its name. The same image has the same one."""
        ending = kind_of(content)
        if not ending:
            raise ImageInvalid("it begins like no PNG, JPEG, WebP, AVIF or GIF")
        if len(content) > IMAGE_MAX_BYTES:
            raise ImageInvalid(f"it has {len(content)} bytes; {IMAGE_MAX_BYTES} at most")
        name = f"img-{hashlib.sha256(content).hexdigest()[:32]}.{ending}"
        await asyncio.to_thread(self._write, name, content)
        return name

    async def find(self, name: str) -> tuple[Path, str] | None:
        """The file and its type, if it is there; for a drawing see `drawn`."""
        if len(name) > 100 or NAME.fullmatch(name) is None:
            return None
        path = self._folder / name
        if not await asyncio.to_thread(path.is_file):
            return None
        return path, TYPES[name.rpartition(".")[2]]

    async def drawn(self, name: str) -> tuple[Path, str] | None:
        """Draw it now. The caller has seen that a product wants it."""
        if not is_drawing(name):
            return None
        await asyncio.to_thread(self._write, name, draw(name).encode())
        return await self.find(name)

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if path.is_file():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
