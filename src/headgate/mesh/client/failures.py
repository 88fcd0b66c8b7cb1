"""What calls by name and by function raise beyond what a call itself may.

    HeadgateError
      NoSuchService      nothing knows a service of this name: a mistake in the program
      WrongArguments     (TypeError) a function was called as its document does not allow
      CallFailed         the service has answered, and says that it failed

A call that gets no answer raises `headgate.errors.UpstreamFailed`; one that is not made
`headgate.resilience.BreakerOpen`; one that takes too long `headgate.resilience.TimedOut`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.mesh.client.response import Response

__all__ = ["CallFailed", "ControlAway", "ControlRefused", "NoSuchService", "WrongArguments"]


class NoSuchService(HeadgateError, LookupError):
    """Nothing knows a service of this name."""

    def __init__(self, name: str, where: str, known: Iterable[str]) -> None:
        self.name = name
        names = sorted(known)
        hint = hint_of(name, names)
        if not hint:
            hint = f"known are {', '.join(names[:12])}" if names else "it names none"
        super().__init__(f'no service named "{name}" in {where}; {hint}')


class WrongArguments(HeadgateError, TypeError):
    """A function was called with arguments that its document or Protocol does not have."""


class CallFailed(HeadgateError):
    """A function answered with a status that says that it failed."""

    def __init__(self, what: str, response: Response, said: str = "") -> None:
        self.response = response
        self.status_code = response.status_code
        text = f"{what}: {response.status_code}"
        if said:
            text += f" ({said})"
        super().__init__(text)

    @property
    def body(self) -> Any:
        """What came along: JSON, if it is that, else text."""
        try:
            return self.response.json()
        except ValueError:
            return self.response.text


class ControlAway(HeadgateError):
    """The control process does not answer."""


class ControlRefused(HeadgateError):
    """The control process has answered, and will not do it."""

    def __init__(self, where: str, status: int, said: str) -> None:
        self.status = status
        self.said = said
        super().__init__(f"{where}: {status} {said}".rstrip())


def hint_of(name: str, known: Iterable[str]) -> str:
    """'did you mean "users"?', or nothing."""
    from headgate.config.faults import did_you_mean  # heavy, and only for who has made a mistake

    return did_you_mean(name, known)
