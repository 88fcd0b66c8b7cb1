"""What an operator decides about injection protection, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from headgate.security.injection.findings import KINDS, THRESHOLD

KB: Final = 1024


@dataclass(frozen=True, slots=True)
class InjectionRules:
    mode: Literal["block", "detect"] = "block"
    threshold: int = THRESHOLD
    kinds: tuple[str, ...] = KINDS
    exclude: tuple[str, ...] = ()
    """Fields that are not looked at; `*` stands for any characters."""
    headers: tuple[str, ...] = ("user-agent", "referer", "x-*")
    cookies: bool = True
    body_bytes: int = 256 * KB
    """Longer bodies are not looked at; 0 looks at none."""
    unseen: Literal["pass", "refuse"] = "pass"
    """What becomes of bodies that are longer, or compressed in a way that cannot be undone."""
