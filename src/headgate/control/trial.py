"""A configuration tried out before anybody serves it: everything that only building finds.

The text may be good and a regular expression, a plugin or its options may not be. `headgate
run`, a reload and the check of a file all build the same things here, in the process that can
still tell file and line: a worker knows only the document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from headgate.config import Loaded
from headgate.errors import ConfigInvalid, Fault
from headgate.gateway.compile import compile_chains
from headgate.plan.build import build
from headgate.plan.plan import Plan

__all__ = ["folder_of", "import_from", "located", "trial"]

_STEP = re.compile(r"\[(\d+)\]|\[\"([^\"]*)\"\]|([^.\[\]]+)")


def trial(loaded: Loaded, config_file: Path) -> Plan:
    """The plan, after its filters have been built once. Raises ConfigInvalid."""
    try:
        plan = build(loaded.config)
        compile_chains(plan, folder_of(config_file))
    except ConfigInvalid as error:
        raise ConfigInvalid(located(loaded, error.faults)) from error
    return plan


def located(loaded: Loaded, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults with file and line, for those that came without."""
    return tuple(_located(loaded, fault) for fault in faults)


def _located(loaded: Loaded, fault: Fault) -> Fault:
    if fault.line or not fault.where:
        return fault
    loc = tuple(
        int(index) if index else key or name for index, key, name in _STEP.findall(fault.where)
    )
    found = loaded.fault(loc, fault.message, fault.hint)
    return replace(found, level=fault.level, where=fault.where)


def folder_of(config_file: Path) -> Path:
    return config_file if config_file.is_dir() else config_file.parent


def import_from(folder: Path) -> None:
    """Let plugins beside the file be imported: last, so that they take nobody's place."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
