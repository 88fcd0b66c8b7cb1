"""How a process logs, as values. The defaults stand here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = [
    "FORMATS",
    "KINDS",
    "LEVELS",
    "FileRotation",
    "Format",
    "LogRules",
    "RepeatRules",
    "SinkRules",
    "StoreRules",
    "level_name",
    "level_number",
]

Format = Literal["json", "ecs", "text", "logfmt"]
FORMATS: Final = ("json", "ecs", "text", "logfmt")
KINDS: Final = ("stdout", "stderr", "file", "elasticsearch", "loki", "syslog", "otlp")
LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_ALIASES: Final = {"warn": "warning", "fatal": "critical", "trace": "debug", "notice": "info"}
MB: Final = 1024 * 1024


def level_number(name: str) -> int:
    """The number of a level's name. Raises ValueError, which says what there is."""
    word = name.strip().lower()
    number = LEVELS.get(_ALIASES.get(word, word))
    if number is None:
        raise ValueError(f'"{name[:40]}" is no level; there are {", ".join(LEVELS)}')
    return number


def level_name(number: int) -> str:
    """The name of the level at or below this number."""
    if number >= logging.ERROR:
        return "critical" if number >= logging.CRITICAL else "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


@dataclass(frozen=True, slots=True)
class RepeatRules:
    """A line is a repeat when it has the message (before its arguments are put in), the logger and
    the level of another. From `level` on, the first `most` within `within_s` are written.
    """

    most: int = 100
    within_s: float = 10.0
    level: int = logging.WARNING
    places: int = 2000
    """So many different messages are counted at once."""


@dataclass(frozen=True, slots=True)
class FileRotation:
    size_bytes: int = 100 * MB
    every_s: float = 0.0
    """Zero is never."""
    keep: int = 10
    compress: bool = True


@dataclass(frozen=True, slots=True)
class SinkRules:
    """One place where lines go. What a kind has no use for is ignored."""

    kind: str = "stderr"
    format: Format | None = None
    """None is that of all."""
    level: int = logging.NOTSET
    path: str = ""
    """Of a file, or of a Unix socket of syslog."""
    rotation: FileRotation = FileRotation()
    url: str = field(default="", repr=False)
    """http://host:9200, http://host:3100, http://host:4318, udp://host:514, tcp://, tls://."""
    index: str = "headgate-logs-%Y.%m.%d"
    labels: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str | None = None
    facility: int = 16
    timeout_s: float = 10.0
    queue_bytes: int = 8 * MB
    batch_bytes: int = 512 * 1024
    linger_s: float = 1.0

    @property
    def name(self) -> str:
        if self.kind == "file":
            return f"file:{self.path}"
        return self.kind


@dataclass(frozen=True, slots=True)
class StoreRules:
    """What the store in the control process keeps."""

    size_bytes: int = 64 * MB
    keep_s: float = 3 * 86400.0
    access: Literal["errors", "all", "off"] = "errors"
    level: int = logging.DEBUG
    """All that is said: what is not wanted is not said, and who makes a logger louder for a while
    wants to find what it says.
    """
    is_on: bool = True


@dataclass(frozen=True, slots=True)
class LogRules:
    format: Format = "json"
    level: int = logging.INFO
    levels: Mapping[str, int] = field(default_factory=dict)
    sinks: tuple[SinkRules, ...] = (SinkRules(),)
    repeats: RepeatRules | None = RepeatRules()
