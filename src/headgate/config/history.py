"""What is kept of the figures, for how long, and whose."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headgate.config.fields import Duration, Positive, Size, Spec, Text, Wait
from headgate.config.forms import OneOrMore, OrFalse
from headgate.observe.history import Keep, KeepRules, Scrape

__all__ = ["History", "HistoryKeepSpec", "HistorySpec", "ScrapeSpec", "problems"]

_KEEP: Final = Keep()
_RULES: Final = KeepRules()
_SCRAPE: Final = Scrape("")
_LEAST_SIZE: Final = 10_000_000
_LONGEST_EVERY_S: Final = 60.0
_MAX_SCRAPES: Final = 100
Found = tuple[tuple[str | int, ...], str, str, bool]


class HistoryKeepSpec(Spec):
    """How long the samples of each tier are kept."""

    seconds: Annotated[Duration, Field(alias="1s")] = _RULES.seconds_s
    """Every sample, as it was taken. An hour at least: minutes are made of these."""

    minutes: Annotated[Duration, Field(alias="1min")] = _RULES.minutes_s
    """One a minute: the last, and for gauges also sum, count, least and greatest. A day at
    least."""

    hours: Annotated[Duration, Field(alias="1h")] = _RULES.hours_s
    """Likewise one an hour."""


class ScrapeSpec(Spec):
    """A service that shows figures of its own, in the Prometheus text format. Every instance of it
    is asked, and its series get the labels `service` and `service_instance`.
    """

    service: Text
    """A service of this file."""

    path: Text = _SCRAPE.path
    """What to ask for."""

    every: Wait = _SCRAPE.every_s
    """How often; a second at least."""

    max_series: Positive = _SCRAPE.max_series
    """The most series that are taken of one instance; what comes after them is left out."""


class HistorySpec(Spec):
    """The history of all figures that `/metrics` shows, in a store of Headgate's own, for charts,
    alerts and questions. It lives in `history` in the state directory.
    """

    every: Wait = _KEEP.every_s
    """How often all figures are taken; from 1s to 60s."""

    size: Size = _KEEP.disk_bytes
    """The most that is kept on disk; 10MB at least. When it is reached the oldest goes, by the
    second first, then by the minute, then by the hour."""

    keep: HistoryKeepSpec = HistoryKeepSpec()
    """How long."""

    max_series: Positive = _KEEP.max_series
    """The most series at one time; what comes after them is left out, counted, and a worry."""

    scrape: Annotated[tuple[ScrapeSpec, ...], OneOrMore] = ()
    """Services whose own figures are kept as well."""

    def rules(self) -> Keep:
        """The same for `headgate.observe.history`."""
        return Keep(
            every_s=self.every,
            disk_bytes=self.size,
            keep=KeepRules(self.keep.seconds, self.keep.minutes, self.keep.hours),
            max_series=self.max_series,
        )

    def scrapes(self) -> tuple[Scrape, ...]:
        return tuple(
            Scrape(one.service, one.path, one.every, one.max_series) for one in self.scrape
        )


History = Annotated[HistorySpec | Literal[False], OrFalse()]
"""`history: off` keeps none."""


def problems(spec: HistorySpec | Any, services: Collection[str]) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if not isinstance(spec, HistorySpec):
        return
    if not 1.0 <= spec.every <= _LONGEST_EVERY_S:
        yield ("every",), "is not between 1s and 60s", "", False
    if spec.size < _LEAST_SIZE:
        yield ("size",), "is less than 10MB", "", False
    if spec.keep.seconds < 3600:
        yield ("keep", "1s"), "is less than an hour", "minutes are made of these", False
    if spec.keep.minutes < 86400:
        yield ("keep", "1min"), "is less than a day", "hours are made of these", False
    if len(spec.scrape) > _MAX_SCRAPES:
        yield ("scrape",), f"has more than {_MAX_SCRAPES} entries", "", False
    for at, one in enumerate(spec.scrape):
        if one.service not in services:
            known = ", ".join(sorted(services)[:10]) or "none"
            hint = f"the services of this file: {known}"
            yield ("scrape", at, "service"), f'no service is named "{one.service}"', hint, False
        if not one.path.startswith("/"):
            yield ("scrape", at, "path"), "does not begin with /", "such as /metrics", False
        if one.every < 1:
            yield ("scrape", at, "every"), "is less than a second", "", False
