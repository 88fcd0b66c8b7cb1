"""The files of a description: the document itself and what it refers to beneath its folder.

What must hold: a reference reaches nothing that is not beneath the folder of the document, also
not by `..`, an absolute name or a symbolic link; nothing is ever fetched; and what is read is
bounded, in files and bytes.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from headgate.security.validation.rules import DocumentInvalid
from headgate.security.validation.yaml_text import parse_yaml

__all__ = ["Files"]

_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_FILES: Final = 1000


class Files:
    """Reads each file once. A file is named by its path beneath the folder."""

    def __init__(self, main: str) -> None:
        path = Path(main)
        self.main: Final = path.name
        self._folder = path.parent
        self._real = path.parent.resolve()
        self._known: dict[str, Any] = {}
        self._bytes = 0
        self.stamps: dict[str, tuple[int, int]] = {}
        """What each file looked like when it was read: (time of change, size)."""

    def document(self, name: str) -> Any:
        """What the file holds; raises DocumentInvalid."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def beside(self, name: str, reference: str) -> str:
        """The file that `reference` names in the file `name`; raises DocumentInvalid."""
        split = urlsplit(reference)
        if split.scheme or split.netloc:
            msg = f"{reference[:200]} is remote, and nothing is fetched; put a copy beside {name}"
            raise DocumentInvalid(msg)
        path = unquote(split.path)
        steps: list[str] = []
        for step in PurePosixPath(name).parent.joinpath(path).parts:
            if step == "..":
                if not steps:
                    raise _outside(reference)
                steps.pop()
            elif step != ".":
                steps.append(step)
        if path.startswith("/") or "\0" in path or "\\" in path:
            raise _outside(reference)
        return "/".join(steps)

    def is_unchanged(self) -> bool:
        """Whether every file still looks as it did when it was read."""
        try:
            return all(_stamp(self._folder / name) == was for name, was in self.stamps.items())
        except OSError:
            return False

    def _read(self, name: str) -> Any:
        path = self._folder / name
        try:
            if name != self.main and not path.resolve(strict=True).is_relative_to(self._real):
                raise _outside(name)
            stamp = _stamp(path)
            self._bytes += stamp[1]
            if self._bytes > _MAX_BYTES or len(self._known) >= _MAX_FILES:
                most = f"{_MAX_BYTES >> 20} MB or {_MAX_FILES} files"
                msg = f"{name}: the description has more than {most}"
                raise DocumentInvalid(msg)
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            msg = f"{name}: is not UTF-8"
            raise DocumentInvalid(msg) from None
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "cannot be read"
            msg = f"{name}: {reason}"
            raise DocumentInvalid(msg) from None
        self.stamps[name] = stamp
        return parse(text, name)


def parse(text: str, name: str) -> Any:
    """JSON where it looks like that, which is read fifty times faster, else YAML."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, name))
        except json.JSONDecodeError as error:
            if name.endswith(".json"):
                msg = f"{name}:{error.lineno}: {error.msg}"
                raise DocumentInvalid(msg) from None
        except RecursionError:
            msg = f"{name}: is nested too deeply"
            raise DocumentInvalid(msg) from None
    return parse_yaml(text, name)


def _unique(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        msg = f'{name}: the key "{twice[:80]}" stands twice in one object'
        raise DocumentInvalid(msg)
    return made


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _outside(reference: str) -> DocumentInvalid:
    return DocumentInvalid(f"{reference[:200]} leads out of the folder of the document")
