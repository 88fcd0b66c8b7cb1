"""The settings of accounts and their defaults, each with where it comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

__all__ = ["HashRules", "LaneRules", "PasswordRules", "Rules", "ThrottleRules"]

DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """NIST SP 800-63B: length and a list of what is guessed first; no rules of composition."""

    length_min: int = 12
    length_max: int = 256
    """In characters after normalisation. A bound, because hashing reads all of it."""
    refused: frozenset[str] = frozenset()
    """More words that must not make up a password: the company, the product."""

    def __post_init__(self) -> None:
        if not 8 <= self.length_min <= self.length_max <= 4096:
            raise ValueError("passwords: 8 <= length_min <= length_max <= 4096 must hold")


@dataclass(frozen=True, slots=True)
class HashRules:
    """argon2id with the first choice of the OWASP password storage sheet: 19 MiB, 2 passes."""

    memory_kib: int = 19456
    passes: int = 2
    lanes: int = 1
    threads: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    """How many are hashed at once; each takes `memory_kib`."""
    waiting: int = 64
    """How many may wait for a thread; beyond, `Busy` is raised."""

    def __post_init__(self) -> None:
        if self.memory_kib < 8 * self.lanes or self.passes < 1 or self.lanes < 1:
            raise ValueError("hash: passes and lanes from 1, memory_kib from 8 for each lane")
        if self.threads < 1 or self.waiting < 0:
            raise ValueError("hash: threads must be 1 or more, waiting 0 or more")


@dataclass(frozen=True, slots=True)
class LaneRules:
    """How one kind of failures slows whoever makes them."""

    free: int
    """Failures without a delay."""
    base_s: float
    """The delay after the first failure beyond; doubled by each further one."""
    cap_s: float
    drain_s: float
    """One failure is forgotten in this time."""


@dataclass(frozen=True, slots=True)
class ThrottleRules:
    pair: LaneRules = LaneRules(free=5, base_s=1, cap_s=900, drain_s=600)
    """One account from one network; also one account from one known device."""
    network: LaneRules = LaneRules(free=50, base_s=1, cap_s=300, drain_s=30)
    """One network over all accounts. It may be a whole company behind one address: it forgets
    quickly, and is not asked for whoever has logged in from it before."""
    account: LaneRules = LaneRules(free=10, base_s=1, cap_s=1, drain_s=60)
    """One account from everywhere; counted apart for networks that have not failed at it. Its cap
    is the time between two guesses; keep it small: whoever logs in from a new place waits too."""
    mfa: LaneRules = LaneRules(free=5, base_s=2, cap_s=3600, drain_s=3600)
    """Wrong codes after a right password. Only who knows the password gets here."""
    mail: LaneRules = LaneRules(free=3, base_s=60, cap_s=3600, drain_s=600)
    """Mail to one address; what is too much is left out without a word."""
    asking: LaneRules = LaneRules(free=20, base_s=1, cap_s=300, drain_s=60)
    """Registrations and requests for mail from one network."""
    trusted_s: float = 30 * DAY_S
    """A network from which the account was logged in to is trusted for this long."""
    device_s: float = 180 * DAY_S
    """A device is known for this long after its last login."""
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64


@dataclass(frozen=True, slots=True)
class Rules:
    verify_email: bool = True
    """An account exists once the link in the mail has been followed. Without it, registration
    has to say that an address is taken."""
    password: PasswordRules = PasswordRules()
    hash: HashRules = field(default_factory=HashRules)
    throttle: ThrottleRules = ThrottleRules()

    access_life_s: float = 600.0
    refresh_life_s: float = 14 * DAY_S
    """A session that is not refreshed for this long is over."""
    session_life_s: float = 90 * DAY_S
    """A session is over after this long, whatever it does."""
    refresh_grace_s: float = 10.0
    """A used refresh token gives its successor once more for this long: tabs side by side, an
    answer lost on the way."""
    sessions_max: int = 100
    """Per user; a further login ends the one that was used least recently."""

    key_life_s: float = 30 * DAY_S
    key_ahead_s: float = DAY_S
    """How long a key is published before it signs. Longer than anyone caches the key set."""
    leeway_s: float = 30.0
    """By how much clocks may differ."""

    verify_life_s: float = DAY_S
    reset_life_s: float = 1800.0
    totp_drift: int = 1
    """Steps of 30 s before and after."""
    recovery_codes: int = 10

    upkeep_s: float = 5.0
    """How often a process looks for sessions that others ended, and for keys."""
    outbox_max: int = 1000
    """Mail under way; beyond, `Busy` is raised."""
    send_timeout_s: float = 30.0
    cached_tokens: int = 10_000
    """Access tokens known to be good."""
    ended_max: int = 100_000
    """Ended sessions remembered until their access tokens are over. Beyond, every access token
    issued so far is refused and has to be refreshed."""

    def __post_init__(self) -> None:
        if not 0 < self.access_life_s <= self.refresh_life_s <= self.session_life_s:
            raise ValueError(
                "0 < access_life_s <= refresh_life_s <= session_life_s must hold; got "
                f"{self.access_life_s}, {self.refresh_life_s}, {self.session_life_s}"
            )
        if not 0 <= self.key_ahead_s < self.key_life_s:
            raise ValueError("0 <= key_ahead_s < key_life_s must hold")
        if self.refresh_grace_s < 0 or self.refresh_grace_s > 60:
            raise ValueError("refresh_grace_s is a few seconds, at most 60")
        if not 0 <= self.totp_drift <= 2:
            raise ValueError("totp_drift is 0, 1 or 2 steps")
