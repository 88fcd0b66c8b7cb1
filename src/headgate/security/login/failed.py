"""Why a log-in came to nothing, for the person, the log and the choice of what to do next."""

from __future__ import annotations

from typing import Literal

from headgate.errors import HeadgateError

FailureKind = Literal[
    "away",  # the provider could not be reached, was too slow or is broken: later may help
    "refused",  # the provider said no: the session or code is worth nothing (any more)
    "invalid",  # what the provider said does not hold: never believe it, never try it again
    "too_large",  # what must be kept does not fit into cookies
    "busy",  # too many log-ins at once
]


class LoginFailed(HeadgateError):
    """`detail` is for the log; it may name addresses and claims, never tokens or secrets."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        self.kind: FailureKind = kind
        self.detail = detail
        super().__init__(kind, detail)

    def __str__(self) -> str:
        return self.detail
