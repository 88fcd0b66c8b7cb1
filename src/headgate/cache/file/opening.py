"""What a user says of a file layer, checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from headgate.cache.codecs import ZSTD_ABOVE, Codec, Packer
from headgate.cache.file.layer import FileLayer
from headgate.units import parse_duration, parse_size

__all__ = ["open_layer"]

_SIZE_MIN: Final = 1024 * 1024
_POLL_S: Final = 0.02
_COHERENT_S: Final = 0.075
"""With a poll on top, and the loop's turn, under 100 ms."""


def open_layer(
    path: str | os.PathLike[str],
    *,
    codec: Codec | str = "json",
    version: str = "",
    zstd_above: int | None = ZSTD_ABOVE,
    size: int | str = "256MB",
    deadline: float | str = 1.0,
    busy: float | str = 0.25,
) -> FileLayer:
    """A layer in this file, which is made when it starts. All processes that share it must be
    given the same `codec` and `version`. `size`: of what is kept; the file is somewhat larger.
    `deadline`: no call takes longer. `busy`: how long to wait for another process that writes.
    """
    name: object = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name or name == ":memory:":
        raise ValueError(f"{name!r}: a file layer needs the path of a file; Cache() is in memory")
    bytes_max = parse_size(size) if isinstance(size, str) else size
    if type(bytes_max) is not int or bytes_max < _SIZE_MIN:
        raise ValueError(f"size is {size!r}; it is at least 1MB")
    return FileLayer(
        str(Path(name).absolute()),
        Packer(codec, version=version, zstd_above=zstd_above, value_max=bytes_max),
        bytes_max=bytes_max,
        deadline_s=_seconds("deadline", deadline),
        busy_s=_seconds("busy", busy),
        poll_s=_POLL_S,
        coherent_s=_COHERENT_S,
    )


def _seconds(name: str, value: float | str) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    if not 0 < seconds <= 60:
        raise ValueError(f"{name} is {value!r}; it is above 0 and at most a minute")
    return seconds
