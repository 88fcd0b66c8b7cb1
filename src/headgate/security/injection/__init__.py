"""Attacks that come in as values: SQL, scripts, paths, commands, addresses, header lines.

`score` judges one text and knows nothing of requests; `Inspector` finds the texts of a request and
holds them against the rules of a route. Services may use either.
"""

from __future__ import annotations

from headgate.security.injection.findings import KINDS, THRESHOLD, Findings, Hit, Kind
from headgate.security.injection.inspector import Found, Inspector
from headgate.security.injection.plain import is_plain
from headgate.security.injection.rules import InjectionRules
from headgate.security.injection.scorer import score

__all__ = [
    "KINDS",
    "THRESHOLD",
    "Findings",
    "Found",
    "Hit",
    "InjectionRules",
    "Inspector",
    "Kind",
    "is_plain",
    "score",
]
