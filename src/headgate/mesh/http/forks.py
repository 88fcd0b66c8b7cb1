"""Whether this process is the one that something was made in.

A child of a fork has its parent's sockets and loops by descriptor: what it did with them would
happen to the parent. So it begins anew, and what it inherited is neither used nor collected.
"""

from __future__ import annotations

import os
from typing import Final


class _Generation:
    def __init__(self) -> None:
        self.number = 0
        self.kept: list[object] = []

    def after_fork(self) -> None:
        self.number += 1


_generation: Final = _Generation()
os.register_at_fork(after_in_child=_generation.after_fork)


def generation() -> int:
    """How many forks lie between this process and the one that loaded this module."""
    return _generation.number


def keep(inherited: object) -> None:
    """Hold what a parent's loop owns for as long as the process lives."""
    _generation.kept.append(inherited)
