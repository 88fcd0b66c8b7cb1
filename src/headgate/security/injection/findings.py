"""What the scorer says of a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "sql", "xss", "path", "command", "ssrf", "header", "template", "nosql", "ldap", "xml"
]

KINDS: Final[tuple[Kind, ...]] = (
    "sql",
    "xss",
    "path",
    "command",
    "ssrf",
    "header",
    "template",
    "nosql",
    "ldap",
    "xml",
)

THRESHOLD: Final = 5
"""Scores from here on are attacks as far as anybody can tell from the value alone. 3 and 4 are
what text about code also looks like; 8 and more could hardly be anything else."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was recognised."""

    kind: Kind
    score: int
    """From 1 to 10."""
    fingerprint: str
    """What was seen, in a few words or token classes; never the value itself."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was recognised in one value, the heaviest first."""

    hits: tuple[Hit, ...] = ()

    @property
    def score(self) -> int:
        """The score of the heaviest hit; 0 when there is none."""
        return self.hits[0].score if self.hits else 0

    @property
    def kind(self) -> str:
        """The kind of the heaviest hit; empty when there is none."""
        return self.hits[0].kind if self.hits else ""

    @property
    def fingerprint(self) -> str:
        return self.hits[0].fingerprint if self.hits else ""

    def of(self, kind: Kind) -> int:
        """The score of one kind."""
        return max((hit.score for hit in self.hits if hit.kind == kind), default=0)


NONE: Final = Findings()
