"""The `slos:` and `capacity:` sections: what was promised, and for when there is room.

Theory of operation. An entry of `slos`, and what a route or service says in short, becomes one
`Slo` with an objective for each thing that it promises, and each objective some alert rules
(`slo_rules`). What `capacity` says becomes a `Planning`. What needs the whole file to be checked
is in `budget_checks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.alert_texts import OneOrMaps
from headgate.config.fields import (
    Count,
    Duration,
    Percent,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.config.http import Statuses, StatusRange
from headgate.config.promises import PromiseSpec, SloLatency, SloName, Target, short_name
from headgate.config.routes import default_name
from headgate.observe.alerts.muting import DAYS
from headgate.observe.alerts.rules import Rule
from headgate.observe.forecast.planning import Planning, ServicePlan, capacity_rules
from headgate.observe.slo.burning import rules_of
from headgate.observe.slo.closed import Span, Weekly
from headgate.observe.slo.rules import (
    Objective,
    Slo,
    SloDefaults,
    availability,
    latency,
    of_any,
)

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = [
    "QUANTILES",
    "Capacity",
    "CapacitySpec",
    "SloSpec",
    "generated_rules",
    "planning_of",
    "promises_of",
    "slos_of",
]

_D: Final = SloDefaults()
_P: Final = Planning()
_S: Final = ServicePlan("")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")


def _moment(value: object) -> float:
    if isinstance(value, datetime):
        found = value
    else:
        try:
            found = datetime.fromisoformat(text_of(value).strip())
        except ValueError:
            raise refuse("is no moment; write 2026-10-03T22:00Z") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return found.timestamp()


def _clock(value: object) -> int:
    found = _CLOCK.fullmatch(text_of(value).strip())
    minutes = int(found[1]) * 60 + int(found[2]) if found else 24 * 60 + 1
    if minutes > 24 * 60:
        raise refuse('is no time of day; write "22:00"')
    return minutes


Moment = Annotated[
    float,
    PlainValidator(_moment),
    Words("moment"),
    WithJsonSchema({"type": "string", "examples": ["2026-10-03T22:00Z"]}),
]
Clock = Annotated[
    int,
    PlainValidator(_clock),
    Words("time of day"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$"}),
]


# -- slos ---------------------------------------------------------------------------------


QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class SloIndicatorSpec(Spec):
    """Any figure of a service or a business as a share: counters of the history, also of services
    that are scraped or send their own, with `+` and `-` between them.
    """

    good: Text | None = None
    """The good events: `orders_total{state="paid"}`."""

    bad: Text | None = None
    """Or the bad ones."""

    total: Text
    """All of them: `orders_total`."""

    target: Target
    """So many must be good."""


class SloMaintenanceSpec(Spec):
    """Time that does not count: once (`start`, `end`) or every week (`days`, `from`, `to`)."""

    start: Moment | None = None
    """`2026-10-03T22:00Z`; without a zone it is UTC."""

    end: Moment | None = None
    """Likewise."""

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], OneOrMore
    ] = ()
    """Days of the week; of hours over midnight that of their beginning."""

    from_: Annotated[Clock, Field(alias="from")] = 0
    """`"02:00"`"""

    to: Clock = 24 * 60
    """`"04:00"`"""

    zone: Text = "UTC"
    """Of which clock, such as `Europe/Berlin`."""

    why: Text = ""
    """For the report."""


class SloAlertSpec(Spec):
    """When the pace at which a budget is spent is told. The rules themselves are made from the
    window: as the SRE workbook has them.
    """

    min_requests: Count = _D.min_requests
    """So many requests there must be in the long window of a rule: where there are few, one
    failure is a large share."""

    min_failures: Positive = _D.min_failures
    """So many of them must be bad."""

    labels: dict[SloName, Text] = Field(default_factory=dict)
    """Labels to add, for routes of `alerts`."""


class SloSpec(Spec):
    """A promise about a route, a service, the whole gateway or a figure of a business: what share
    of requests must not fail, how long they may take. The rest is the error budget.
    """

    name: SloName
    """For reports, alerts (`slo-NAME-...`) and the admin API."""

    description: Text = ""
    """What was promised to whom."""

    route: Annotated[tuple[Text, ...], OneOrMore] = ()
    """The route that it is about, or several together. Without `route` and `service` it is about
    all requests."""

    service: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Or the service."""

    availability: Target | None = None
    """The share of requests that must not fail: `99.9%`."""

    latency: SloLatency | None = None
    """How long requests may take. All answers count, also those that failed."""

    indicator: SloIndicatorSpec | None = None
    """Another figure."""

    window: Wait = _D.window_s
    """Over what time; from 1h to 366d. Times beyond `history: keep: 1h` cannot be judged."""

    failed: Statuses = (StatusRange(500, 599),)
    """Which statuses are failures."""

    exclude: Statuses = (StatusRange(499, 499),)
    """Statuses that count neither way in `availability`; 499 is a client that gave up. An empty
    list excludes none."""

    maintenance: Annotated[tuple[SloMaintenanceSpec, ...], OneOrMaps] = ()
    """Times that do not count. More can be said while the gateway runs: `headgate slo exclude`."""

    alerts: Annotated[SloAlertSpec | Literal[False], OrFalse()] = SloAlertSpec()
    """Alerts on the pace at which the budget is spent; `false` for none. Each is changed or
    switched off by its name under `alerts: rules:`, as are those that hold by themselves."""


def promises_of(config: Config) -> Iterator[tuple[tuple[str | int, ...], SloSpec]]:
    """Every promise of the file and where it stands: those of `slos`, then what routes and services
    say in short.
    """
    for at, said in enumerate(getattr(config, "slos", ())):
        yield ("slos", at), said
    for at, route in enumerate(getattr(config, "routes", ())):
        if route.slo is not None:
            name = route.name or default_name(route)
            yield ("routes", at, "slo"), _in_full(route.slo, name, route=(name,))
    for name, service in getattr(config, "services", {}).items():
        if service.slo is not None:
            yield ("services", name, "slo"), _in_full(service.slo, name, service=(name,))


def _in_full(
    said: PromiseSpec, name: str, route: tuple[str, ...] = (), service: tuple[str, ...] = ()
) -> SloSpec:
    # All of it has been checked where it stands.
    return SloSpec.model_construct(
        name=said.name or short_name(name),
        availability=said.availability,
        latency=said.latency,
        window=said.window,
        route=route,
        service=service,
    )


def slos_of(config: Config) -> tuple[Slo, ...]:
    """Every promise of the file, with its objectives."""
    return tuple(_slo(said) for _, said in promises_of(config))


def _slo(said: SloSpec) -> Slo:
    where = (*of_any("route", said.route), *of_any("service", said.service))
    objectives: list[Objective] = []
    if said.availability is not None:
        objectives.append(
            availability(said.availability, where, _codes(said.failed), _codes(said.exclude))
        )
    if said.latency is not None:
        for name, quantile in QUANTILES.items():
            bound = getattr(said.latency, name)
            if bound is not None:
                objectives.append(latency(quantile, where, bound, quantile=quantile))
        if said.latency.below is not None and said.latency.for_ is not None:
            objectives.append(latency(said.latency.for_, where, said.latency.below))
    if said.indicator is not None and (made := _indicator(said.indicator)) is not None:
        objectives.append(made)
    alerts = said.alerts if said.alerts is not False else None
    about = [f"route {name}" for name in said.route] + [f"service {name}" for name in said.service]
    return Slo(
        name=said.name,
        objectives=tuple(objectives),
        window_s=said.window,
        of=", ".join(about) or ("" if said.indicator and len(objectives) == 1 else "all requests"),
        durations=where if said.availability is not None or said.latency is not None else None,
        closed=tuple(_closed(each) for each in said.maintenance),
        min_requests=alerts.min_requests if alerts else 0,
        min_failures=alerts.min_failures if alerts else 1,
        is_alerting=alerts is not None,
        labels=tuple(sorted(alerts.labels.items())) if alerts else (),
        description=said.description,
    )


def _codes(ranges: tuple[StatusRange, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for each in ranges:
        if each.first % 100 == 0 and each.last == each.first + 99:
            found.append(f"{each.first // 100}xx")
        else:
            found += [str(status) for status in range(each.first, each.last + 1)]
    return tuple(found)


def _indicator(said: SloIndicatorSpec) -> Objective | None:
    try:
        from headgate.observe.query import QueryFault
        from headgate.observe.slo.indicator import terms_of
    except ImportError:  # no numpy; the department that would judge it says so
        return None
    try:
        total = terms_of(said.total)
        given = terms_of(said.good if said.good is not None else said.bad or "")
    except QueryFault:
        return None  # `check_budgets` says it
    if said.good is None:
        from dataclasses import replace

        given = (*total, *(replace(term, weight=-term.weight) for term in given))
    what = said.good or f"all but {said.bad}"
    return Objective("indicator", said.target, given, total, f"{what} of {said.total}")


def _closed(said: SloMaintenanceSpec) -> Span | Weekly:
    if said.start is not None and said.end is not None:
        return Span(said.start, said.end, said.why)
    days = frozenset(DAYS.index(day) for day in said.days or DAYS)
    return Weekly(days, said.from_, said.to, said.zone, said.why)


# -- capacity -----------------------------------------------------------------------------


class ServiceCapacitySpec(Spec):
    """What an instance of a service must still do well."""

    latency: Wait = _S.latency_s
    """What 95 % of the service's answers may take; how many requests one instance can have at that
    is measured from the history."""

    headroom: Percent | None = None
    """Instead of that of `capacity`."""

    spare: Count | None = None
    """Instead of that of `capacity`."""


class CapacitySpec(Spec):
    """Forecasts from the history: when disk, memory and connections are full, how many requests
    will come, how many instances a service needs for them.
    """

    every: Wait = _P.every_s
    """How often forecasts are made; from 1min."""

    horizon: Wait = _P.horizon_s
    """How far ahead; from 1d to 366d."""

    history: Wait = _P.history_s
    """How much of the past is looked at; from 2d."""

    disk: Duration = _P.disk_s
    """An alert when the disk of the state directory will be full within so long; 0 for none."""

    memory: Duration = _P.memory_s
    """Likewise memory of the machine."""

    headroom: Percent = _P.headroom
    """What is to be free of a service at its busiest hour that is forecast."""

    spare: Count = _P.spare
    """So many instances more, for those that fail or are being replaced."""

    services: dict[Text, ServiceCapacitySpec] = Field(default_factory=dict)
    """Services by name, where they differ."""


Capacity = Annotated[CapacitySpec | Literal[False], OrFalse()]
"""`capacity: false` makes no forecasts."""


def planning_of(config: Config) -> Planning | None:
    spec: Any = getattr(config, "capacity", None)
    if not isinstance(spec, CapacitySpec):
        return None
    plans = tuple(
        ServicePlan(
            name,
            each.latency,
            spec.headroom if each.headroom is None else each.headroom,
            spec.spare if each.spare is None else each.spare,
        )
        for name, each in spec.services.items()
    )
    return Planning(
        every_s=spec.every,
        horizon_s=spec.horizon,
        history_s=spec.history,
        disk_s=spec.disk,
        memory_s=spec.memory,
        headroom=spec.headroom,
        spare=spec.spare,
        services=plans,
    )


def generated_rules(config: Config) -> tuple[Rule, ...]:
    """Alert rules that follow from other sections of the file."""
    made = [rule for slo in slos_of(config) for rule in rules_of(slo)]
    planning = planning_of(config)
    if planning is not None:
        made += capacity_rules(planning)
    return tuple(made)
