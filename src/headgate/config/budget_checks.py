"""Checks of `slos:` and `capacity:` that need all of the file: names, windows, expressions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from headgate.config.budgets import (
    QUANTILES,
    CapacitySpec,
    SloIndicatorSpec,
    SloMaintenanceSpec,
    SloSpec,
    promises_of,
)
from headgate.config.faults import Loc, did_you_mean
from headgate.config.problems import Problem
from headgate.config.routes import default_name
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.slo.burning import paces_of
from headgate.observe.slo.rules import Objective

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = ["check_budgets"]

_MOST: Final = 100
_TAKEN: Final = ("report", "exclusions")
_DAY_S: Final = 86400.0
_LONGEST_S: Final = 366 * _DAY_S


def check_budgets(config: Config) -> Iterator[Problem]:
    """What single fields cannot say: names, windows, expressions."""
    promises = list(promises_of(config))
    routes = {each.name or default_name(each) for each in config.routes}
    seen: dict[str, Loc] = {}
    if promises:
        first = promises[0][0]
        where = first[:1] if first[0] == "slos" else first
        if len(promises) > _MOST:
            yield Problem(
                where, f"has more than {_MOST} entries, with those of routes and services"
            )
        if config.history is False:
            hint = "take out history: false, or these"
            yield Problem(where, "cannot be judged without a history", hint)
    for loc, said in promises:
        # What is said in short may have its name from elsewhere.
        is_short = loc[0] != "slos"
        named = loc if is_short else (*loc, "name")
        before = seen.setdefault(said.name, named)
        if before != named:
            what = "has the name of another promise" if is_short else "{value} is there twice"
            yield Problem(named, what, "give one of them a `name`" if is_short else "", see=before)
        if said.name in _TAKEN:
            what = "has a name that" if is_short else "{value}"
            yield Problem(named, f"{what} is a word of the admin API", "take another name")
        yield from _check_names((*loc, "route"), said.route, routes, "route")
        yield from _check_names((*loc, "service"), said.service, set(config.services), "service")
        yield from _check_promise(loc, said)
        yield from _check_window(loc, said, config)
        for index, each in enumerate(said.maintenance):
            yield from _check_maintenance((*loc, "maintenance", index), each)
    yield from _check_capacity(config)


def _check_names(loc: Loc, names: tuple[str, ...], known: set[str], what: str) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(sorted(known)[:10])}"
            where = (*loc, index) if len(names) > 1 else loc
            yield Problem(where, f"no {what} has the name {{value}}", hint)


def _check_promise(loc: Loc, said: SloSpec) -> Iterator[Problem]:
    latency_said = said.latency
    if latency_said is not None:
        where = (*loc, "latency")
        bounds = [(name, getattr(latency_said, name)) for name in QUANTILES]
        there = [(name, bound) for name, bound in bounds if bound is not None]
        if (latency_said.below is None) != (latency_said.for_ is None):
            missing = "for" if latency_said.for_ is None else "below"
            yield Problem(where, f"has no `{missing}`", "write below: 300ms and for: 99%")
        elif not there and latency_said.below is None:
            yield Problem(where, "promises nothing", "write p95: 300ms", needs=_below(where))
        for (low, less), (high, more) in pairwise(there):
            if more < less:
                yield Problem(
                    (*where, _as_said(high)), f"is less than `{low}`, so that says nothing"
                )
        for name, bound in (*there, ("below", latency_said.below)):
            if bound is not None and bound > SHOWN_BOUNDS[-1]:
                yield Problem((*where, _as_said(name)), "is more than 50s, the last bound counted")
    elif said.availability is None and said.indicator is None:
        hint = "write availability: 99.9% or latency: {p95: 300ms}"
        needs = tuple((*loc, field) for field in ("availability", "latency", "indicator"))
        where = (*loc, "name") if loc[0] == "slos" else loc
        yield Problem(where, "promises nothing", hint, needs=needs)
    if said.indicator is not None:
        yield from _check_indicator((*loc, "indicator"), said.indicator)


def _below(loc: Loc) -> tuple[Loc, ...]:
    return tuple((*loc, _as_said(name)) for name in (*QUANTILES, "below", "for"))


def _as_said(name: str) -> str:
    return "p99.9" if name == "p999" else name


def _check_indicator(loc: Loc, said: SloIndicatorSpec) -> Iterator[Problem]:
    if (said.good is None) == (said.bad is None):
        yield Problem(loc, "needs one of `good` and `bad`")
    try:
        from headgate.observe.query import QueryFault
        from headgate.observe.slo.indicator import terms_of
    except ImportError:
        return
    for field in ("good", "bad", "total"):
        text = getattr(said, field)
        if text is None:
            continue
        try:
            terms_of(text)
        except QueryFault as error:
            yield Problem((*loc, field), f"{error.message} (at {error.position + 1})", error.hint)


def _check_window(loc: Loc, said: SloSpec, config: Config) -> Iterator[Problem]:
    if not 3600 <= said.window <= _LONGEST_S:
        yield Problem((*loc, "window"), "is not between 1h and 366d")
        return
    keep = getattr(getattr(config.history, "keep", None), "hours", _LONGEST_S)
    if said.window > keep:
        yield Problem(
            (*loc, "window"),
            "is longer than the history is kept (`history: keep: 1h`)",
            warning=True,
        )
    if (
        said.alerts is not False
        and said.availability is not None
        and not paces_of(Objective("", said.availability, (), ()), said.window)
    ):
        yield Problem((*loc, "window"), "is too short for alerts on its budget", warning=True)


def _check_maintenance(loc: Loc, said: SloMaintenanceSpec) -> Iterator[Problem]:
    is_once = said.start is not None or said.end is not None
    if is_once:
        if said.start is None or said.end is None:
            missing = "end" if said.end is None else "start"
            yield Problem(loc, f"has no `{missing}`")
        elif said.end <= said.start:
            yield Problem((*loc, "end"), "is not after `start`")
        if said.days:
            yield Problem((*loc, "days"), "has no meaning beside `start`", "make two entries of it")
        return
    if said.from_ == said.to:
        yield Problem((*loc, "to"), "is the same as `from`: a window of no length")
    try:
        ZoneInfo(said.zone)
    except Exception:  # noqa: BLE001 - it raises half a dozen kinds for a bad name
        yield Problem((*loc, "zone"), "is no time zone", "write one such as Europe/Berlin")
    if not said.days and (said.from_, said.to) == (0, 1440):
        yield Problem(loc, "leaves out all time", "write start: and end:, or days:, from: and to:")


def _check_capacity(config: Config) -> Iterator[Problem]:
    spec: Any = getattr(config, "capacity", None)
    if not isinstance(spec, CapacitySpec):
        return
    loc: Loc = ("capacity",)
    for field, low, high, shown in (
        ("every", 60.0, _DAY_S, "1min and 1d"),
        ("horizon", _DAY_S, _LONGEST_S, "1d and 366d"),
        ("history", 2 * _DAY_S, 3 * _LONGEST_S, "2d and 3 years"),
    ):
        if not low <= getattr(spec, field) <= high:
            yield Problem((*loc, field), f"is not between {shown}")
    if spec.headroom >= 0.95:
        yield Problem((*loc, "headroom"), "leaves nothing of an instance to be used")
    for name, each in spec.services.items():
        where: Loc = (*loc, "services", name)
        if name not in config.services:
            hint = did_you_mean(name, set(config.services)) or ""
            yield Problem(where, f"no service has the name {name}", hint, at_key=True)
        if each.headroom is not None and each.headroom >= 0.95:
            yield Problem((*where, "headroom"), "leaves nothing of an instance to be used")
