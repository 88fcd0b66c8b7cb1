"""The gateway's figures, pushed to a collector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from headgate.config.collectors import BY_URL, CollectorUrl, in_the_clear
from headgate.config.fields import HeaderName, HeaderValue, Spec, Wait, refuse
from headgate.config.forms import OrFalse

__all__ = ["MetricsPush", "MetricsPushSpec", "problems"]

LEAST_S: Final = 1.0
MOST_S: Final = 3600.0
Found = tuple[tuple[str | int, ...], str, str, bool]


def _every(every_s: float) -> float:
    if not LEAST_S <= every_s <= MOST_S:
        raise refuse("lies between 1s and 1h")
    return every_s


class MetricsPushSpec(Spec):
    """A collector that is told all figures of the gateway, by OTLP over HTTP. What it could not be
    told it hears with the next push: figures only grow. `metrics_push: http://localhost:4318` is
    short for `url`.
    """

    url: CollectorUrl
    """The address of the receiver. Without a path it is `/v1/metrics`."""

    every: Annotated[Wait, AfterValidator(_every)] = 30.0
    """How often."""

    headers: dict[HeaderName, HeaderValue] = {}
    """Headers that go with every push, such as a key. Write it as `${env:NAME}`."""

    timeout: Wait = 10.0
    """How long one push may take."""


MetricsPush = Annotated[Annotated[MetricsPushSpec, BY_URL] | Literal[False], OrFalse()]


def problems(spec: MetricsPushSpec | Any) -> Iterator[Found]:
    if not isinstance(spec, MetricsPushSpec):
        return
    for wrong, hint in in_the_clear(spec.url, spec.headers):
        yield ("url",), wrong, hint, True
