"""What a metric and a label may be called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["LABELS_MAX", "checked_labels", "checked_name"]

LABELS_MAX: Final = 20
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TAKEN: Final = {"histogram": "le", "summary": "quantile"}


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        hint = re.sub(r"[^a-zA-Z0-9_:]", "_", name) or "requests"
        hint = f"_{hint}" if hint[0].isdigit() else hint
        raise ValueError(
            f"{name!r} is no name of a metric; letters, digits, _ and : may be used: {hint}"
        )
    return name


def checked_labels(name: str, labels: Sequence[str], kind: str = "") -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ValueError(f'{name}: labels are a list of names; write ("{labels}",)')
    found = tuple(labels)
    if len(found) > LABELS_MAX:
        raise ValueError(f"{name}: {len(found)} labels; at most {LABELS_MAX} are shown")
    for label in found:
        if not _LABEL.fullmatch(label) or label.startswith("__"):
            raise ValueError(
                f"{name}: {label!r} is no name of a label; letters, digits and _ may be used, and "
                "two _ at its begin are Prometheus' own"
            )
        if label == _TAKEN.get(kind):
            raise ValueError(f"{name}: the label {label!r} is what a {kind} itself puts there")
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: a label stands twice in {', '.join(found)}")
    return found
