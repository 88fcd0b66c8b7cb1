"""The circuit breaker, as it is written in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Number,
    Percent,
    Positive,
    Spec,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.config.http import Statuses, StatusRange
from headgate.errors import UpstreamFailure
from headgate.policy.breaker import BreakerMode, BreakerRules
from headgate.units import UnitError, format_duration, parse_duration

__all__ = ["Breaker", "BreakerSpec", "FailureKinds", "FailuresSpec", "WindowSize"]

_D: Final = BreakerRules()
_WINDOW: Final = re.compile(r"([0-9]{1,9})(?: ?calls?)?")


@dataclass(frozen=True, slots=True)
class WindowSize:
    """What a breaker looks back on: so many calls, or so many seconds."""

    calls: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        """As it is written in the file."""
        return format_duration(self.seconds) if self.seconds is not None else f"{self.calls} calls"


def _window(value: object) -> WindowSize:
    if isinstance(value, WindowSize):
        return value
    text = text_of(value).strip()
    if found := _WINDOW.fullmatch(text):
        if int(found[1]) < 1:
            raise refuse("is no window: nothing fits into it")
        return WindowSize(calls=int(found[1]))
    try:
        seconds = parse_duration(text)
    except UnitError:
        raise refuse("is not a window; write 20 calls, or a duration such as 30s") from None
    if seconds <= 0:
        raise refuse("is no window: nothing fits into it")
    return WindowSize(seconds=seconds)


FailureKind = Annotated[UpstreamFailure, BeforeValidator(text_of)]
FailureKinds = Annotated[tuple[FailureKind, ...], OneOrMore]


class FailuresSpec(Spec):
    """What counts as a failure. Everything else is a success: an answer of `404` says that the
    service is well.
    """

    status: Statuses = (StatusRange(500, 599),)
    """Statuses of answers: `503`, `500-504` or `5xx`; one or a list."""

    errors: FailureKinds = ("connect", "timeout", "reset", "protocol", "tls", "dns")
    """Ways in which no answer comes: `connect` (refused or unreachable), `timeout` (connected,
    then silent for too long), `reset` (broken off), `protocol` (not HTTP), `tls`, `dns`. A full
    queue for connections (`queue_full`, `queue_timeout`) is ours and not the service's, so it is
    no failure unless said here."""


def _mode(value: object) -> str:
    return "on" if value is True else text_of(value)


class BreakerSpec(Spec):
    """Stops sending requests to what fails, and finds out with a few of them when it is well
    again. While it is open, requests are answered with 503 and `Retry-After` at once, or by
    `fallback`; with `per: instance` they go to other instances. Workers tell each other when one
    opens.
    """

    failure_rate: Percent = _D.failure_rate
    """It opens when this share of the calls in the window has failed."""

    window: Annotated[
        WindowSize,
        PlainValidator(_window),
        PlainSerializer(str, return_type=str),
        Words("calls or duration"),
        WithJsonSchema(
            {
                "type": ["string", "integer"],
                "pattern": r"^[0-9]+(\.[0-9]+)? ?(calls?|us|ms|s|sec|min|m|h|d)?$",
                "minimum": 1,
                "examples": ["20 calls", 100, "30s"],
            }
        ),
    ] = WindowSize(calls=_D.calls_kept)
    """What it judges by: the last `20 calls` (a bare number is calls), or those of the last `30s`.
    Calls, because a window of time is empty where there is little traffic."""

    minimum_calls: Positive = _D.minimum_calls
    """With fewer calls in the window nothing is decided: one failure of two calls is no 50%. When
    it is not said, never more than the window holds."""

    slow: Wait = _D.slow_s
    """A call that takes longer counts as slow, whether it succeeds or not."""

    slow_rate: Percent = _D.slow_rate
    """It opens when this share of the calls was slow. By default only when all of them were."""

    trial_calls: Positive = _D.trial_calls
    """After `reset_after` so many calls are let through as a trial. They decide whether it closes
    or opens again."""

    trial_wait: Wait = _D.trial_wait_s
    """Longest wait for the result of a trial; then it opens again."""

    reset_after: Wait = _D.reset_s
    """How long it stays open before the trial."""

    reset_growth: Annotated[Number, Field(ge=1)] = _D.reset_growth
    """Each trial that fails makes the next wait this many times longer: what has been down for
    long is asked less often."""

    reset_max: Wait = _D.reset_max_s
    """The longest wait. When it is not said, at least `reset_after`."""

    mode: Annotated[BreakerMode, BeforeValidator(_mode)] = _D.mode
    """`on`; `metrics_only` counts and never rejects, to try out settings; `disabled` does not
    count either; `forced_open` rejects everything. It can be
    changed by hand while Headgate runs."""

    per: Annotated[Literal["service", "instance"], BeforeValidator(text_of)] = "service"
    """One breaker for the whole service, or one for each instance. `service` by default: a single
    bad instance is the business of `outlier` and `health`."""

    failures: FailuresSpec = FailuresSpec()
    """What counts as a failure."""

    def rules(self) -> BreakerRules:
        """The breaker's own rules. Defaults give way to what was said beside them."""
        said = self.model_fields_set
        size = self.window.calls
        minimum, reset_max = self.minimum_calls, self.reset_max
        if size is not None and "minimum_calls" not in said:
            minimum = min(minimum, size)
        if "reset_max" not in said:
            reset_max = max(reset_max, self.reset_after)
        return BreakerRules(
            failure_rate=self.failure_rate,
            slow_rate=self.slow_rate,
            slow_s=self.slow,
            window_calls=size,
            window_s=self.window.seconds,
            minimum_calls=minimum,
            trial_calls=self.trial_calls,
            trial_wait_s=self.trial_wait,
            reset_s=self.reset_after,
            reset_growth=self.reset_growth,
            reset_max_s=reset_max,
            mode=self.mode,
        )


BREAKER_IN_FILE: Final = {
    "slow_s": "slow",
    "window_calls": "window",
    "window_s": "window",
    "trial_wait_s": "trial_wait",
    "reset_s": "reset_after",
    "reset_max_s": "reset_max",
}
"""What fields of the rules are called in the file, where the names differ."""

Breaker = Annotated[BreakerSpec | Literal[False], OrFalse()]
