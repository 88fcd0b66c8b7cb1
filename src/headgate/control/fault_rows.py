"""Faults of the file as the rows of JSON in which processes and the admin API tell them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from headgate.errors import Fault

__all__ = ["fault_row", "fault_text", "faults_of"]


def fault_row(fault: Fault) -> dict[str, Any]:
    return asdict(fault)


def faults_of(rows: Iterable[dict[str, Any]]) -> Iterable[Fault]:
    """Faults that came from another process; it may have left out what it did not know."""
    for row in rows:
        yield Fault(**{"file": "", "line": 0, "column": 0, "where": "", "hint": "", **row})


def fault_text(fault: dict[str, Any]) -> str:
    """A fault as one line, whichever process found it."""
    return "".join(str(found) for found in faults_of([fault]))
