"""The one error tree.

Theory of operation
-------------------
Expected outcomes (a full bucket, an open breaker, a miss) are return values and never stand
here. An exception means a broken call, a broken file or a broken peer, and its class says whose
fault that is:

    HeadgateError
      ConfigInvalid        the operator's file: carries every fault found, not only the first
        PluginInvalid      a plugin named in the file cannot be loaded or refuses its options
      ProtocolViolation    the peer on the wire broke the rules; carries the status it is answered
      UpstreamFailed       an instance could not be reached or broke off; carries the kind
      ExtraMissing         an optional part is used but its extra is not installed
      AlreadyRunning       another process holds the state directory

Foreign exceptions are translated into these once, at the boundary, with ``from``. Messages name
the thing, the value and the way out, and never contain a secret: a value that came from
``${env:}`` or ``${file:}`` is shown as that reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AlreadyRunning",
    "ConfigInvalid",
    "ExtraMissing",
    "Fault",
    "HeadgateError",
    "PluginInvalid",
    "ProtocolViolation",
    "UpstreamFailed",
    "UpstreamFailure",
]

UpstreamFailure = Literal[
    "connect",  # refused, unreachable, or no answer within the connect timeout
    "timeout",  # connected, but silent for longer than the route allows
    "reset",  # the instance closed or reset in the middle of an exchange
    "protocol",  # the instance broke the wire rules
    "tls",  # handshake or certificate refused
    "dns",  # the instance's name does not resolve
    "queue_full",  # every connection of the pool is taken and so is every waiting place
    "queue_timeout",  # waited for a connection of the pool for too long
    "closed",  # the pool is shutting down
    "no_instance",  # none may serve: all are out, or none has any weight
]


class HeadgateError(Exception):
    """Everything that Headgate raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the configuration, and where.

    ``line`` and ``column`` count from one; zero means "not known", as for a document that did
    not come from a file. ``where`` is the path in the document, as in ``routes[3].to``.
    """

    file: str
    line: int
    column: int
    where: str
    message: str
    hint: str = ""
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}" if self.column else f":{self.line}"
        parts = [part for part in (place, self.where) if part]
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        if self.level == "warning":
            text = f"warning: {text}"
        return ": ".join([*parts, text])


class ConfigInvalid(HeadgateError):
    """The configuration is refused; ``faults`` holds every reason, in file order."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults) or "invalid configuration")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.faults,))  # the default would hand the message to __init__


class PluginInvalid(ConfigInvalid):
    """A plugin named in the file cannot be imported, is no filter, or refuses its options."""


class ProtocolViolation(HeadgateError):
    """The peer broke the rules of the wire.

    ``status`` is what a client is answered before its connection is closed; for an upstream it
    is the 502 the client sees. ``reason`` is for the log: short, and free of the peer's bytes.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(status, reason)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class UpstreamFailed(HeadgateError):
    """An instance could not be reached, or broke off. The kind decides status and retry."""

    def __init__(self, kind: UpstreamFailure, detail: str = "", reason: str = "") -> None:
        self.kind: UpstreamFailure = kind
        self.detail = detail
        self.reason = reason
        """What the kind alone leaves open, without the instance's name: for the access log."""
        super().__init__(kind, detail, reason)

    @property
    def log_word(self) -> str:
        """What the access log's `error` says."""
        return f"upstream_{self.kind}: {self.reason}" if self.reason else f"upstream_{self.kind}"

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class ExtraMissing(HeadgateError):
    """An optional part is used but the packages it needs are not installed."""

    def __init__(self, extra: str, feature: str) -> None:
        self.extra = extra
        self.feature = feature
        super().__init__(extra, feature)

    def __str__(self) -> str:
        return (
            f'{self.feature} needs the "{self.extra}" extra: pip install "headgate[{self.extra}]"'
        )


class AlreadyRunning(HeadgateError):
    """Another Headgate process holds this state directory."""

    def __init__(self, state_dir: str, pid: int | None = None) -> None:
        self.state_dir = state_dir
        self.pid = pid
        super().__init__(state_dir, pid)

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        return f"{who} already runs on the state directory {self.state_dir}"
