"""The instances that were found, on the disk: for workers that start while control is away.

Theory of operation
-------------------
Control writes what it tells workers (topic `members`), whole each time, into
`STATE_DIR/registry/members.json`, and says when it did. A worker reads that only if control has not
answered when its first plan is to serve; what control says afterwards takes its place. What is
older than `AGE_MAX_S` is left alone: by then another process may have the address.

A file that is spoilt or too large is as none: nothing is known, as it was before there were files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headgate.security.whole_file import write_whole

__all__ = ["AGE_MAX_S", "LARGEST", "Kept", "members_path", "read_members", "write_members"]

AGE_MAX_S: Final = 86_400.0
LARGEST: Final = 64 * 1024 * 1024
"""Some 300,000 instances."""
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """Messages of the topic by service, and when control said last that they hold."""

    at: float = 0.0
    messages: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def members_path(state_dir: str | Path) -> Path:
    return Path(state_dir) / "registry" / "members.json"


def read_members(path: Path) -> Kept | None:
    """What was written; None where nothing was. Raises OSError, or ValueError for what is none."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    if len(text) > LARGEST:
        raise ValueError(f"is larger than {LARGEST} bytes")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("is far too deep") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("is no list of instances of this version")
    at, services = content.get("at"), content.get("services")
    if at.__class__ not in (int, float) or not isinstance(services, dict):
        raise ValueError("is no list of instances")
    # What is in a message is judged where it is heard.
    return Kept(
        float(at),
        {name: said for name, said in services.items() if isinstance(said, dict)},
    )


def write_members(path: Path, kept: Kept) -> None:
    """Whole or not at all, readable by its owner alone. Raises OSError, or ValueError where it
    would be too large to be read again.
    """
    said = {"format": _FORMAT, "at": kept.at, "services": kept.messages}
    content = json.dumps(said, separators=(",", ":")).encode()
    if len(content) > LARGEST:
        raise ValueError(f"would be larger than {LARGEST} bytes")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, content)
