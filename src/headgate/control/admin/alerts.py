"""The part of the admin API about alerts: what fires, the rules, silences, acknowledgements."""

from __future__ import annotations

import time
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field

from headgate.control.admin.audit import actor_of, origin_of
from headgate.control.admin.models import Accepted, Answer
from headgate.control.admin.paging import Cursor, Limit, page
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.auditing import Auditing
from headgate.control.observing.alerts import Alerts, NoSuchRule
from headgate.errors import HeadgateError
from headgate.observe.alerts.alert import Alert, finite
from headgate.observe.alerts.matching import MatcherFault, parse_matcher
from headgate.observe.alerts.muting import Silence
from headgate.observe.alerts.rules import RANK
from headgate.units import UnitError, parse_duration

__all__ = ["HasAlerts", "add_alerts"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_TAGS: list[Any] = ["alerts"]
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "It cannot be told so", "content": _PROBLEM},
}
_FOUND: dict[int | str, dict[str, Any]] = {
    **_ASKED,
    404: {"description": "There is none", "content": _PROBLEM},
}
_MOST_DAYS = 366


class AlertState(Answer):
    id: str
    """Of the rule and its labels; acknowledge it by this."""
    rule: str
    state: str
    """pending, firing or resolved."""
    level: str
    labels: dict[str, str]
    value: float | None
    since: float
    """When it first held, in seconds since 1970."""
    fired_at: float | None
    resolved_at: float | None
    flapping: bool
    summary: str
    description: str
    runbook: str
    silenced_by: str | None = None
    inhibited_by: str | None = None
    """The alert that explains this one."""
    acknowledged_by: str | None = None
    acknowledged_at: float | None = None


class AlertList(Answer):
    total: int
    alerts: list[AlertState]
    """What fires and is worst comes first."""
    counts: dict[str, int]
    """By state, of all."""
    next: str | None = None
    """Ask again with this as `cursor`; null on the last page."""


class LastValue(Answer):
    labels: dict[str, str]
    value: float | None


class AlertRuleState(Answer):
    name: str
    expr: str
    state: str
    """inactive, pending or firing."""
    built_in: bool
    thresholds: dict[str, float]
    clear: dict[str, float]
    direction: str
    severity: str
    """The lowest level that it has."""
    for_s: float
    every_s: float
    unit: str
    alerts: int
    """Pending and firing."""
    dropped: int
    """Label sets that found no room."""
    last_at: float | None
    """When it was judged last."""
    last_values: list[LastValue]
    """The first few."""
    took_ms: float
    evaluations: int
    error: str


class SilenceState(Answer):
    id: str
    matchers: list[str]
    starts: float
    ends: float
    author: str
    comment: str
    created: float
    active: bool


class SilenceOrder(Answer):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    matchers: Annotated[list[str], Field(min_length=1, max_length=20)]
    """Conditions that all must hold: `severity="warning"`, `route=~"api-.*"`."""
    for_: Annotated[str, Field(alias="for", max_length=50)] = "1h"
    """How long, such as `30min` or `7d`."""
    starts: Annotated[float | None, Field(ge=0, le=1e11, allow_inf_nan=False)] = None
    """In seconds since 1970; now if not said."""
    author: Annotated[str, Field(max_length=100)] = ""
    comment: Annotated[str, Field(max_length=500)] = ""


class AckOrder(Answer):
    model_config = ConfigDict(extra="forbid")

    by: Annotated[str, Field(max_length=100)] = ""
    comment: Annotated[str, Field(max_length=500)] = ""


class TestOrder(Answer):
    model_config = ConfigDict(extra="forbid")

    receiver: Annotated[str, Field(max_length=64)]


class TestResult(Answer):
    channel: str
    place: str
    ok: bool
    detail: str
    took_ms: float


class Told(Answer):
    number: int
    at: float
    id: str
    """The same for every attempt."""
    receiver: str
    kind: str
    subject: str
    alerts: list[str]
    attempt: int
    outcome: str
    """sent, retried, failed or dropped."""
    detail: str
    took_ms: float


class ToldList(Answer):
    notifications: list[Told]
    """The newest first."""
    next: int | None
    """Ask again with this as `before`."""


class ReplayFiring(Answer):
    labels: dict[str, str]
    level: str
    since: float
    fired_at: float
    ended_at: float | None
    peak: float | None
    flapping: bool


class ReplayPlot(Answer):
    times: list[float]
    values: list[float | None]


class ReplayResult(Answer):
    rule: str
    start: float
    end: float
    step_s: float
    firing_s: float
    """During which at least one alert fired."""
    notifications: int
    evaluations: int
    errors: int
    error: str
    firings: list[ReplayFiring]
    plot: ReplayPlot
    thresholds: dict[str, float] = Field(default_factory=dict)
    unit: str = ""


class HasAlerts(Protocol):
    """What this part needs of control."""

    @property
    def alerts(self) -> Alerts: ...
    @property
    def auditing(self) -> Auditing: ...


def add_alerts(router: APIRouter, control: HasAlerts) -> None:
    # In this order: `/api/alerts/{id}` would take the names of the others.
    _add_list_and_rules(router, control)
    _add_silences(router, control)
    _add_telling(router, control)
    _add_one(router, control)


def _add_list_and_rules(router: APIRouter, control: HasAlerts) -> None:
    @router.get("/api/alerts", tags=_TAGS, responses=_ASKED)
    async def alerts(
        request: Request,
        response: Response,
        state: Annotated[str, Query(max_length=20, pattern="^(|pending|firing|resolved)$")] = "",
        rule: Annotated[str, Query(max_length=64)] = "",
        match: Annotated[list[str] | None, Query(description='`label="value"`')] = None,
        limit: Limit = 200,
        cursor: Cursor = "",
    ) -> AlertList:
        """What fires, is about to, or was resolved in the last 15 minutes."""
        matchers = _matchers(match or [])
        known = control.alerts.alerts()
        counts: dict[str, int] = {}
        for each in known:
            counts[each.state] = counts.get(each.state, 0) + 1
        found = [
            each
            for each in known
            if (not state or each.state == state)
            and (not rule or each.rule == rule)
            and all(one.matches(each.matched) for one in matchers)
        ]
        found.sort(key=_place)
        part = page(found, limit=limit, cursor=cursor, key=_place)
        response.headers.update(part.headers(request))
        shown = [_shown(control.alerts, each) for each in part.items]
        return AlertList(total=part.total, alerts=shown, counts=counts, next=part.next)

    @router.get("/api/alerts/rules", tags=_TAGS, responses=_ASKED)
    async def rules() -> list[AlertRuleState]:
        """Every rule, with its state, its last value and why it cannot be judged."""
        return [AlertRuleState.model_validate(each) for each in control.alerts.rules()]

    @router.get("/api/alerts/rules/{name}/replay", tags=_TAGS, responses=_FOUND)
    async def replayed(
        name: str,
        since: Annotated[str, Query(max_length=50)] = "1d",
        step: Annotated[str, Query(max_length=50)] = "",
    ) -> ReplayResult:
        """Hold a rule against the history: when it would have fired."""
        since_s = _duration(since)
        try:
            made = await control.alerts.replayed(name, since_s, _duration(step) if step else None)
        except NoSuchRule as error:
            raise Problem(404, str(error)) from error
        except HeadgateError as error:
            raise Problem(422, str(error)) from error
        rule = next((each for each in control.alerts.rules() if each["name"] == name), {})
        more = {"thresholds": rule.get("thresholds", {}), "unit": rule.get("unit", "")}
        return ReplayResult.model_validate({**made.to_json(), **more})


def _add_silences(router: APIRouter, control: HasAlerts) -> None:
    @router.get("/api/alerts/silences", tags=_TAGS, responses=_ASKED)
    async def silences() -> list[SilenceState]:
        """Silences that hold or will; those that ended are gone."""
        found = sorted(control.alerts.telling.silences.values(), key=lambda each: each.ends)
        return [_silence(each) for each in found]

    @router.post("/api/alerts/silences", tags=_TAGS, status_code=201, responses=_ASKED)
    async def silence(order: SilenceOrder, request: Request) -> SilenceState:
        """Keep alerts from being told for a while. They are judged and listed as before."""
        matchers = _matchers(order.matchers)
        for_s = _duration(order.for_)
        starts = order.starts
        begins = time.time() if starts is None else starts  # noqa: TID251 - a time for people
        author = order.author or actor_of(request.scope)
        try:
            made = control.alerts.silence(
                tuple(matchers), starts, begins + for_s, author, order.comment
            )
        except HeadgateError as error:
            raise Problem(422, str(error)) from error
        _record(control, request, "alerts.silenced", made.id, _silence(made).model_dump())
        return _silence(made)

    @router.get("/api/alerts/silences/{id}", tags=_TAGS, responses=_FOUND)
    async def one_silence(id: str) -> SilenceState:  # noqa: A002 - the parameter's name is the API's
        """One silence."""
        found = control.alerts.telling.silences.get(id)
        if found is None:
            raise Problem(404, "there is no such silence")
        return _silence(found)

    @router.delete("/api/alerts/silences/{id}", tags=_TAGS, responses=_FOUND)
    async def unsilence(id: str, request: Request) -> Accepted:  # noqa: A002
        """End a silence."""
        gone = control.alerts.unsilence(id)
        if gone is None:
            raise Problem(404, "there is no such silence")
        _record(control, request, "alerts.unsilenced", id, _silence(gone).model_dump())
        return Accepted(message=f"the silence {id} has ended")


def _add_telling(router: APIRouter, control: HasAlerts) -> None:
    @router.post("/api/alerts/test", tags=_TAGS, responses=_FOUND)
    async def test(order: TestOrder, request: Request) -> list[TestResult]:
        """Send a test message to a receiver, and say what became of it on each of its channels."""
        found = await control.alerts.test(order.receiver)
        if found is None:
            known = ", ".join(sorted(control.alerts.post.receivers))
            raise Problem(404, f"there is no such receiver; there are: {known}")
        _record(control, request, "alerts.tested", order.receiver, {})
        return [TestResult.model_validate(each) for each in found]

    @router.get("/api/alerts/receivers", tags=_TAGS, responses=_ASKED)
    async def receivers() -> list[str]:
        """The names of those who may be told."""
        return sorted(control.alerts.post.receivers)

    @router.get("/api/alerts/notifications", tags=_TAGS, responses=_ASKED)
    async def notifications(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        receiver: Annotated[str, Query(max_length=100)] = "",
        outcome: Annotated[str, Query(max_length=20)] = "",
    ) -> ToldList:
        """What was sent to whom, every attempt with its outcome."""
        try:
            rows = await control.alerts.told(
                limit=limit, before=before, receiver=receiver, outcome=outcome
            )
        except HeadgateError as error:
            raise Problem(503, str(error)) from error
        following = rows[-1]["number"] if len(rows) == limit else None
        return ToldList(notifications=[Told.model_validate(row) for row in rows], next=following)


def _add_one(router: APIRouter, control: HasAlerts) -> None:
    @router.get("/api/alerts/{id}", tags=_TAGS, responses=_FOUND)
    async def one_alert(id: str) -> AlertState:  # noqa: A002
        """One alert."""
        for each in control.alerts.alerts():
            if each.id == id:
                return _shown(control.alerts, each)
        raise Problem(404, "there is no such alert, or it ended a while ago")

    @router.post("/api/alerts/{id}/ack", tags=_TAGS, responses=_FOUND)
    async def acknowledge(id: str, order: AckOrder, request: Request) -> AlertState:  # noqa: A002
        """Say that somebody is at it: no repeats and no escalation until it ends."""
        found = [each for each in control.alerts.alerts() if each.id == id]
        if not found:
            raise Problem(404, "there is no such alert, or it ended a while ago")
        by = order.by or actor_of(request.scope)
        if control.alerts.acknowledge(id, by, order.comment) is None:
            raise Problem(422, "only an alert that fires can be acknowledged")
        detail = {"by": by, "comment": order.comment, "rule": found[0].rule}
        _record(control, request, "alerts.acknowledged", id, detail)
        return _shown(control.alerts, found[0])


def _record(
    control: HasAlerts, request: Request, action: str, target: str, detail: dict[str, Any]
) -> None:
    control.auditing.record(
        action,
        actor_of(request.scope),
        target=target,
        origin=origin_of(request.scope),
        detail=detail,
    )


def _matchers(texts: list[str]) -> list[Any]:
    found = []
    for each in texts:
        try:
            found.append(parse_matcher(each))
        except MatcherFault as error:
            raise Problem(422, f"{each[:100]!r} {error}") from error
    return found


def _duration(text: str) -> float:
    try:
        found = parse_duration(text)
    except UnitError as error:
        raise Problem(422, str(error)) from error
    if not 0 < found <= _MOST_DAYS * 86400:
        raise Problem(422, f"{text!r} is not between nothing and {_MOST_DAYS} days")
    return found


_STATES = {"firing": 0, "pending": 1, "resolved": 2}


def _place(alert: Alert) -> str:
    """Where it stands in the list, as a text that a cursor holds."""
    labels = " ".join(value for _, value in alert.labels)[:60]
    return f"{_STATES[alert.state]} {9 - RANK[alert.level]} {alert.rule} {labels} {alert.id}"


def _shown(alerts: Alerts, alert: Alert) -> AlertState:
    muted = alerts.muted().get(alert.id)
    ack = alerts.telling.acks.get(alert.id)
    said = alert.to_json()
    said["value"] = finite(alert.value)
    return AlertState.model_validate(
        {
            **said,
            "silenced_by": muted.silenced_by if muted else None,
            "inhibited_by": muted.inhibited_by if muted else None,
            "acknowledged_by": ack.by if ack else None,
            "acknowledged_at": ack.at if ack else None,
        }
    )


def _silence(each: Silence) -> SilenceState:
    now = time.time()  # noqa: TID251 - silences have times of the clock
    return SilenceState.model_validate({**each.to_json(), "active": each.is_active(now)})
