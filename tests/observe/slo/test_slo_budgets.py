"""Budgets, paces, alerts, times that do not count, periods: the arithmetic by tables and by rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config import from_document
from headgate.config.budgets import slos_of
from headgate.config.promises import short_name
from headgate.observe.alerts.exporting import to_prometheus_rules
from headgate.observe.query import QueryFault, Series, evaluate, parse
from headgate.observe.slo.budget import burn_rate, lasts_s, spent, standing
from headgate.observe.slo.burning import PACES, paces_of, rules_of
from headgate.observe.slo.closed import Exclusion, Span, Weekly, spans_in
from headgate.observe.slo.indicator import terms_of
from headgate.observe.slo.periods import NoPeriod, days_of, period_of
from headgate.observe.slo.rules import WINDOWS, Slo, Term, availability, latency
from headgate.observe.slo.tally import Tally

DAY = 86400.0
NOW = 1_790_000_000.0


def slo(target=0.999, window=30 * DAY, **more) -> Slo:
    return Slo("shop", (availability(target, (), ("5xx",), ()),), window_s=window, **more)


def steady(per_s=10.0, bad=lambda at: 0.0, days=30.0, step=300.0) -> Tally:
    """So many events a second, of which a share is bad."""
    times = np.arange(NOW - days * DAY, NOW + 1, step)
    total = np.full(len(times) - 1, per_s * step)
    share = np.array([bad(at) for at in times[1:]])
    sums = np.array([np.cumsum(total * (1 - share)), np.cumsum(total)])
    return Tally(times, np.pad(sums, ((0, 0), (1, 0))), times - times[0])


@pytest.mark.parametrize(
    ("good", "total", "allowed", "consumed", "left"),
    [
        (1000, 1000, 0.001, 0.0, 1.0),
        (999, 1000, 0.001, 1.0, 0.0),
        (998, 1000, 0.001, 2.0, -1.0),
        (0, 1000, 0.001, 1000.0, -999.0),
        (0, 0, 0.001, None, None),
        (9995, 10000, 0.001, 0.5, 0.5),
        (1001, 1000, 0.05, 0.0, 1.0),
    ],
    ids=["none-bad", "all-spent", "twice", "all-bad", "no-events", "half", "estimate-above"],
)
def test_a_budget_is_the_allowed_share_of_events(good, total, allowed, consumed, left):
    found = spent(good, total, allowed)
    assert found.consumed == (None if consumed is None else pytest.approx(consumed))
    assert found.left == (None if left is None else pytest.approx(left))


@given(
    total=st.floats(1, 1e9),
    share=st.floats(0, 1),
    allowed=st.floats(1e-6, 0.5),
    more=st.floats(0, 1),
)
def test_budgets_only_fall_with_bad_events_and_rates_have_a_top(total, share, allowed, more):
    found = spent(total * (1 - share), total, allowed)
    worse = spent(total * (1 - share) * (1 - more), total, allowed)
    assert found.consumed is not None and found.left is not None and found.ratio is not None
    assert worse.consumed is not None
    assert found.consumed >= 0
    assert worse.consumed >= found.consumed - 1e-6
    assert found.consumed + found.left == pytest.approx(1.0)
    assert burn_rate(0, total, allowed) == pytest.approx(1 / allowed)
    assert 0 <= found.ratio <= 1


@pytest.mark.parametrize(
    ("left", "burn", "expected"),
    [(0.5, 2.0, 7.5 * DAY), (0.5, 1.0, None), (0.5, None, None), (0.0, 0.0, 0.0), (-1.0, 5.0, 0.0),
     (None, 3.0, None)],
    ids=["half-at-two", "as-allowed", "no-events", "spent", "overspent", "unknown"],
)  # fmt: skip
def test_how_long_a_budget_lasts(left, burn, expected):
    assert lasts_s(left, burn, 30 * DAY) == expected


def test_a_standing_says_what_is_left_and_how_fast_it_goes():
    found = standing(slo(), slo().objectives[0], steady(bad=lambda _: 0.0005), NOW, ())
    assert found.spent.left == pytest.approx(0.5, abs=0.01)
    assert found.burn == pytest.approx(dict.fromkeys(WINDOWS, 0.5), abs=5e-4)
    assert found.lasts_s is None
    assert found.state == "met"
    assert found.known_share == pytest.approx(1.0, abs=0.01)


def test_an_outage_of_an_hour_shows_in_short_windows_first():
    bad = lambda at: 0.1 if at > NOW - 3600 else 0.0  # noqa: E731
    found = standing(slo(), slo().objectives[0], steady(bad=bad), NOW, ())
    assert found.burn["5m"] == pytest.approx(100, rel=0.01)
    assert found.burn["1h"] == pytest.approx(100, rel=0.01)
    assert found.burn["6h"] == pytest.approx(100 / 6, rel=0.01)
    assert found.spent.consumed == pytest.approx(100 / 720, rel=0.01)
    assert found.state == "at_risk"
    assert found.lasts_s == pytest.approx((1 - 100 / 720) * 30 * DAY / (100 / 6), rel=0.01)


def test_what_is_excluded_is_in_no_figure():
    bad = lambda at: 1.0 if NOW - 7200 < at <= NOW - 3600 else 0.0  # noqa: E731
    tally = steady(bad=bad)
    without = standing(slo(), slo().objectives[0], tally, NOW, ((NOW - 7200, NOW - 3600),))
    assert without.spent.bad == pytest.approx(0, abs=1e-6)
    assert without.excluded_s == 3600
    assert without.spent.total == pytest.approx(10 * (30 * DAY - 3600), rel=1e-6)
    assert without.known_share == pytest.approx(1.0, abs=0.001)
    everything = standing(slo(), slo().objectives[0], tally, NOW, ((NOW - 40 * DAY, NOW + 1),))
    assert everything.state == "unknown"
    assert everything.spent.ratio is None


def test_without_any_events_nothing_is_judged():
    empty = Tally(np.empty(0), np.zeros((2, 0)), np.empty(0))
    found = standing(slo(), slo().objectives[0], empty, NOW, ())
    assert found.state == "unknown"
    assert set(found.burn.values()) == {None}


# -- paces and rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "days", "expected"),
    [
        (0.999, 30, {"fast": 14.4, "steady": 6.0, "slow": 3.0, "drain": 1.0}),
        (0.999, 28, {"fast": 13.44, "steady": 5.6, "slow": 2.8}),
        (0.999, 7, {"fast": 3.36, "steady": 1.4}),
        (0.95, 30, {"fast": 14.4, "steady": 6.0, "slow": 3.0, "drain": 1.0}),
        (0.9, 30, {"fast": 7.5, "steady": 6.0, "slow": 3.0, "drain": 1.0}),
        (0.5, 30, {"fast": 1.5, "steady": 1.5, "slow": 1.5, "drain": 1.0}),
        (0.999, 0.25, {}),
    ],
    ids=["month", "four-weeks", "week", "p95", "p90", "p50", "hours"],
)
def test_factors_follow_from_shares_of_the_budget(target, days, expected):
    found = paces_of(availability(target, (), ("5xx",), ()), days * DAY)
    assert {pace.name: round(factor, 4) for pace, factor in found} == expected


@given(target=st.floats(0.01, 0.9999), days=st.floats(0.05, 366))
def test_every_factor_can_be_reached_and_none_fires_while_all_is_well(target, days):
    objective = availability(round(target, 6), (), ("5xx",), ())
    for pace, factor in paces_of(objective, days * DAY):
        assert factor <= 1 / objective.allowed
        assert factor >= min(0.75, 0.75 / objective.allowed) or pace.factor(days * DAY) > factor


class Figures:
    """Burn rates and events as a source."""

    def __init__(self, burn, events, name="shop", objective="availability"):
        self.rows = []
        at = np.array([NOW - 15.0, NOW])
        key = {"slo": name, "objective": objective}
        for window, value in burn.items():
            labels = {"__name__": "headgate_slo_burn_rate", **key, "window": window}
            self.rows.append(Series(labels, at, np.array([value, value], dtype=float)))
            for result, count in zip(("all", "bad"), events, strict=True):
                labels = {"__name__": "headgate_slo_window_events", **key, "window": window}
                labels["result"] = result
                self.rows.append(Series(labels, at, np.array([count, count], dtype=float)))

    def select(self, name, matchers, start, end):
        return [
            row
            for row in self.rows
            if row.labels["__name__"] == name and all(m.is_met(row.labels) for m in matchers)
        ]


@pytest.mark.parametrize(
    ("burn", "events", "fires"),
    [
        ({"1h": 20, "5m": 20, "6h": 3, "30m": 20}, (1000, 20), {"fast"}),
        ({"1h": 20, "5m": 0, "6h": 3, "30m": 9}, (1000, 20), set()),
        ({"1h": 20, "5m": 20, "6h": 7, "30m": 20}, (1000, 20), {"fast", "steady"}),
        ({"1h": 20, "5m": 20}, (29, 5), set()),
        ({"1h": 20, "5m": 20}, (1000, 2), set()),
        ({"1d": 4, "2h": 4, "3d": 2, "6h": 2}, (1000, 20), {"slow", "drain"}),
        ({}, (0, 0), set()),
    ],
    ids=["fast", "over", "both", "few-requests", "few-failures", "slow", "nothing"],
)
def test_rules_fire_when_both_windows_burn_and_there_is_traffic(burn, events, fires):
    source = Figures(burn, events)
    found = set()
    for rule in rules_of(slo()):
        samples = evaluate(parse(rule.expr), source, NOW)
        if samples:
            found.add(rule.name.rsplit("-", 1)[1])
            assert samples[0].labels["slo"] == "shop"
            assert samples[0].value == next(v for w, v in burn.items() if f'"{w}"' in rule.expr)
    assert found == fires


def test_rules_are_rules_of_a_prometheus_too():
    made = rules_of(slo(labels=(("team", "shop"),)))
    assert [rule.level for rule in made] == ["critical", "critical", "warning", "warning"]
    groups = to_prometheus_rules(made)["groups"]
    names = [rule["alert"] for group in groups for rule in group["rules"]]
    assert names == [f"slo-shop-availability-{pace.name}" for pace in PACES]
    assert groups[0]["rules"][0]["labels"]["team"] == "shop"
    assert rules_of(slo(is_alerting=False)) == []


# -- times that do not count ------------------------------------------------------------------


def utc(year: int, month: int, day: int, *time: int) -> float:
    return datetime(year, month, day, *time, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


def test_weekly_hours_follow_the_clock_of_their_place():
    night = Weekly(frozenset({6}), 22 * 60, 2 * 60, "Europe/Berlin")
    found = spans_in((night,), utc(2026, 3, 22), utc(2026, 4, 1))
    # Sunday the 29th is an hour later by UTC: clocks went forward that morning.
    assert found == (
        (utc(2026, 3, 22, 21), utc(2026, 3, 23, 1)),
        (utc(2026, 3, 29, 20), utc(2026, 3, 30, 0)),
    )
    whole = Weekly(frozenset({0}), 0, 24 * 60)
    assert spans_in((whole,), utc(2026, 3, 23), utc(2026, 3, 25)) == (
        (utc(2026, 3, 23), utc(2026, 3, 24)),
    )


spans = st.lists(st.tuples(st.floats(0, 1000), st.floats(0.1, 300)), max_size=12)


@settings(max_examples=80)
@given(said=spans, cut=st.tuples(st.floats(0, 500), st.floats(1, 600)))
def test_spans_lie_apart_in_order_and_inside(said, cut):
    start, end = cut[0], cut[0] + cut[1]
    found = spans_in([Span(at, at + length) for at, length in said], start, end)
    assert all(start <= low < high <= end for low, high in found)
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False))
    for at in np.linspace(start, end, 50):
        inside = any(low < at < high for low, high in found)
        wanted = any(begin < at < begin + length for begin, length in said)
        on_edge = any(at in (begin, begin + length) for begin, length in said)
        assert inside == wanted or on_edge or at in (start, end)


def test_an_exclusion_is_the_same_after_it_was_written():
    made = Exclusion("a1", "shop", 1.0, 2.0, "<b>", "ann", 0.5)
    assert Exclusion.of_json(made.to_json()) == made
    with pytest.raises(ValueError, match="ends before"):
        Exclusion.of_json({**made.to_json(), "end": 0.5})


# -- business figures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_total", [("a_total", 1.0)]),
        ("a_total - b_total", [("a_total", 1.0), ("b_total", -1.0)]),
        ("sum(a_total) + 2 * b_total", [("a_total", 1.0), ("b_total", 2.0)]),
        ("a_total - (b_total - c_total)", [("a_total", 1.0), ("b_total", -1.0), ("c_total", 1.0)]),
        ("-a_total", [("a_total", -1.0)]),
    ],
    ids=["one", "less", "sum", "brackets", "minus"],
)
def test_an_indicator_is_a_sum_of_counters(text, expected):
    assert [(term.name, term.weight) for term in terms_of(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "rate(a_total[5m])",
        "a_total[5m]",
        "a_total / b_total",
        "5",
        "sum by (x) (a_total)",
        "",
        "a +",
    ],
    ids=["rate", "range", "ratio", "number", "by", "empty", "broken"],
)
def test_anything_else_is_no_indicator(text):
    with pytest.raises(QueryFault):
        terms_of(text)


def test_labels_of_an_indicator_are_kept():
    assert terms_of('o_total{state="paid",shop!~"x.*"}') == (
        Term("o_total", (("state", "=", "paid"), ("shop", "!~", "x.*"))),
    )


# -- periods ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "start", "end"),
    [
        ("2026-08", "UTC", utc(2026, 8, 1), utc(2026, 9, 1)),
        ("2026-08", "Europe/Berlin", utc(2026, 7, 31, 22), utc(2026, 8, 31, 22)),
        ("2026-08-05", "UTC", utc(2026, 8, 5), utc(2026, 8, 6)),
        ("2026-08-05/2026-08-07", "UTC", utc(2026, 8, 5), utc(2026, 8, 8)),
        ("2025", "UTC", utc(2025, 1, 1), utc(2026, 1, 1)),
        ("7d", "UTC", NOW - 7 * DAY, NOW),
        ("month", "UTC", utc(2026, 9, 1), NOW),
        ("last-month", "UTC", utc(2026, 8, 1), utc(2026, 9, 1)),
        ("2026-09", "UTC", utc(2026, 9, 1), NOW),
    ],
    ids=["month", "zone", "day", "days", "year", "last", "now", "before", "unfinished"],
)
def test_periods_as_people_say_them(text, zone, start, end):
    assert period_of(text, NOW, zone) == (start, end)


@pytest.mark.parametrize(
    "text", ["2026-13", "soon", "2027-01", "2026-08-05/2026-08-01", "0001/9999", "5s", "9" * 99]
)
def test_what_is_no_period_is_refused(text):
    with pytest.raises(NoPeriod):
        period_of(text, NOW)
    with pytest.raises(NoPeriod):
        period_of("2026-08", NOW, "Mars/Base")


def test_days_have_23_or_25_hours_when_clocks_change():
    start, end = period_of("2026-03", NOW, "Europe/Berlin")
    days = days_of(start, end, "Europe/Berlin")
    assert len(days) == 31
    assert [round((high - low) / 3600) for _, low, high in days][27:30] == [24, 23, 24]
    assert days[0][1] == start
    assert days[-1][2] == end
    assert all(a[2] == b[1] for a, b in zip(days, days[1:], strict=False))


def test_percentiles_have_a_good_share_as_their_target():
    assert latency(0.99, (), 0.5, quantile=0.99).name == "p99"
    assert latency(0.99, (), 0.3).name == "below-300ms"
    assert latency(0.999, (), 0.3, quantile=0.999).name == "p99.9"


# -- in short, on a route or a service --------------------------------------------------------------


def test_what_a_route_or_service_promises_in_short_is_what_an_entry_of_slos_would_be():
    def promised(**more):
        document = {
            "listeners": [{"bind": "127.0.0.1:1"}],
            "services": {"users": {"instances": ["http://127.0.0.1:2"], **more.pop("service", {})}},
            "routes": [{"match": {"path": "/users"}, "to": "users", **more.pop("route", {})}],
            **more,
        }
        return slos_of(from_document(document))

    said = {"availability": "99.9%", "latency": "300ms", "window": "7d"}
    assert promised(route={"name": "checkout", "slo": said}) == promised(
        route={"name": "checkout"}, slos=[{"name": "checkout", "route": "checkout", **said}]
    )
    assert promised(service={"slo": "99.9%"}) == promised(
        slos=[{"name": "users", "service": "users", "availability": 0.999}]
    )
    (unnamed,) = promised(route={"slo": 0.99})
    assert unnamed.name == "users-users"
    assert unnamed.of == "route /users -> users"
    (named,) = promised(service={"slo": {"latency": "1s", "name": "all"}})
    assert (named.name, [one.name for one in named.objectives]) == ("all", ["p95"])
    assert promised() == ()


@pytest.mark.parametrize(
    ("of", "name"),
    [
        ("checkout", "checkout"),
        ("GET,PUT /api/users/{id} -> users", "GET-PUT-api-users-id-users"),
        ("*.example.org/* -> users", "example.org-users"),
        ("/" + "x" * 80, "x" * 40),
        ("/* -> 308", "308"),
        ("日本", "route"),
    ],
    ids=["as_it_is", "default", "host", "long", "redirect", "no_letters"],
)
def test_any_name_of_a_route_gives_one_for_an_slo(of, name):
    assert short_name(of) == name
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}", name)
