"""When a service's certificate is renewed, and what is in its files. Pure but for `read`.

    got ---- 40 to 50 % of its life ----> renew ----> (fails) ---> again, later each time
                                                                     |
                                                       ended --------+---> join, with a token

The life counts from when the file was written, and not from what the certificate says, which is
backdated. A clock that jumps back makes it look younger and no worse; one that jumps forward has it
renewed at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headgate.mesh.identity.refusals import IdentityRefused
from headgate.policy.retry import RetryRules, wait_before
from headgate.security.service_identity.contexts import IdentityFiles
from headgate.security.service_identity.spiffe import SpiffeId

__all__ = ["Held", "due_at", "pause_s", "read_held"]

_EARLIEST: Final = 0.4
_LATEST: Final = 0.5
_AGAIN: Final = RetryRules(wait_s=1.0, wait_max_s=60.0, jitter="decorrelated")
_SHORTEST_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Held:
    """The certificate that we have."""

    id: SpiffeId
    serial: str
    got: float
    """In wall time, as is the other."""
    ends: float
    chain: str
    key_pem: str

    def __repr__(self) -> str:
        return f"Held({self.id}, {self.serial})"

    def is_good(self, wall: float) -> bool:
        return wall < self.ends


def due_at(held: Held, chance: float) -> float:
    """When to renew; `chance` from 0 to 1 is drawn once for each certificate."""
    got = min(held.got, held.ends)
    return got + (held.ends - got) * (_EARLIEST + (_LATEST - _EARLIEST) * chance)


def pause_s(
    failures: int, before_s: float, life_s: float, rng: random.Random, asked_s: float | None
) -> float:
    """How long to wait after so many failures; short lives have short pauses."""
    wait_s = wait_before(_AGAIN, failures, before_s, rng, None)
    most_s = max(life_s / 20.0, _SHORTEST_PAUSE_S) if life_s > 0 else _AGAIN.wait_max_s
    return max(min(wait_s or _AGAIN.wait_max_s, most_s), min(asked_s or 0.0, _AGAIN.wait_max_s))


def read_held(files: IdentityFiles) -> Held | None:
    """What the files hold; None if that is nothing that can be used."""
    from headgate.mesh.identity.certificates import read_key, read_shown

    try:
        text = _text_of(files.identity)
        got = files.identity.stat().st_mtime
        if not files.bundle.stat().st_size:
            return None
        shown = read_shown(text)
        chain, mark, rest = text.partition("-----BEGIN PRIVATE KEY-----")
        key_pem = mark + rest
        if read_key(key_pem).public_key() != shown.public_key:
            return None
    except (OSError, ValueError, IdentityRefused):
        return None
    return Held(shown.id, shown.serial, got, shown.ends, chain, key_pem)


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 20).decode("ascii")
