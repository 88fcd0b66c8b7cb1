"""What is handed over, at work: a Prometheus, an Alertmanager and a gateway set up by it."""

from __future__ import annotations

import math
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

from headgate.interop.grafana import BOARDS
from headgate.interop.grafana.model import expressions
from headgate.interop.naming import filled, names_in
from headgate.interop.prometheus import RECORDED
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.meters.text import to_text
from tests.control.running import wait_until
from tests.deploy.instruments import families
from tests.deploy.stack import PATIENCE_S, TOKEN, Stack, ask, program, stack

pytestmark = pytest.mark.integration

GOOD, BAD, KEPT = 60, 30, 30

# What a gateway like this one has no reason to show.
NOT_HERE = {
    "headgate_admin_refused_total": "nobody was refused",
    "headgate_breaker_rejected_total": "no breaker is open",
    "headgate_breaker_state": "no breaker has been made",
    "headgate_cache_lower_away": "there is neither disk nor Redis",
    "headgate_cache_lower_bytes": "likewise",
    "headgate_cache_lower_bytes_max": "likewise",
    "headgate_cache_lower_drops_total": "likewise",
    "headgate_cache_lower_failures_total": "likewise",
    "headgate_cache_lower_queued": "likewise",
    "headgate_cache_lower_reads_total": "likewise",
    "headgate_cache_lower_writes_total": "likewise",
    "headgate_certificate_expiry_seconds": "there is no TLS",
    "headgate_concurrency_in_flight": "no concurrency limit",
    "headgate_concurrency_limit": "likewise",
    "headgate_concurrency_rejected_total": "likewise",
    "headgate_concurrency_waiting": "likewise",
    "headgate_connections_refused_total": "none was",
    "headgate_guard_decisions_total": "nobody is asked who he is",
    "headgate_mesh_refused_total": "likewise",
    "headgate_mesh_requests_total": "nobody reports calls",
    "headgate_mesh_errors_total": "likewise",
    "headgate_mesh_retries_total": "likewise",
    "headgate_mesh_duration_seconds": "likewise",
    "headgate_policy_events_total": "no policy had to act",
    "headgate_protocol_refusals_total": "no message was refused",
    "headgate_timeouts_total": "nothing timed out",
    "headgate_tls_handshakes_total": "there is no TLS",
    "headgate_upstream_attempts_total": "a service of one instance and no breaker is its routes' time",
    "headgate_upstream_attempt_seconds_total": "likewise",
    "headgate_upstream_failures_total": "an answer of 500 is an answer",
    "headgate_alerts_notifications_total": "looked at by itself below",
}
NOT_ASKED_FOR = ("headgate_monitor_", "headgate_slo_", "headgate_capacity_", "headgate_gc_pause_")
"""What the file would have to ask for, what comes by the minute, pauses that have not been yet."""


@pytest.fixture(scope="module")
def at_work(tmp_path_factory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("handover"), to_text(families())) as made:
        # A few of each, so that both see every series begin.
        for path in ("/users/1", "/pay/1", "/catalog/1"):
            made.visit(path, 3)
        made.wait_counted(made.sent)
        for _ in range(2):
            made.visit("/users/1", GOOD)
            made.visit("/pay/1", BAD)
            made.visit("/catalog/1", KEPT)
            made.wait_counted(made.sent)
        yield made


def test_prometheus_scrapes_all_that_the_export_names(at_work):
    def up() -> bool:
        return set(at_work.values("prometheus", "up").values()) == {1.0}

    wait_until(up, PATIENCE_S)
    found = at_work.values("prometheus", "up")
    assert (("service", "inside"), ("service_instance", at_work.figures.url)) in found
    assert len(found) == 2


def test_what_dashboards_and_rules_ask_for_is_in_prometheus(at_work):
    asked = {expr for board in BOARDS for _, expr in expressions(board)}
    asked |= {rule.expr for rule in BUILT_IN}
    names = {name for name in names_in(asked) - set(NOT_HERE) if not name.startswith(NOT_ASKED_FOR)}
    missing = sorted(names)

    def all_there() -> bool:
        have = at_work.query("prometheus", "label/__name__/values") or []
        missing[:] = sorted(names - set(have))
        return not missing

    try:
        wait_until(all_there, 20.0)
    except AssertionError:
        raise AssertionError(f"not in Prometheus: {missing}") from None
    wanted = {name for name, _, _ in RECORDED if "upstream_failures" not in name}
    wait_until(
        lambda: wanted <= set(at_work.query("prometheus", "label/__name__/values") or []),
        PATIENCE_S,
    )


def test_prometheus_judges_the_objectives_of_the_file(at_work):
    groups = at_work.query("prometheus", "rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert rules["slo-pay-availability-fast"]["labels"]["severity"] == "critical"
    wait_until(
        lambda: (
            {rule["health"] for rule in at_work.query("prometheus", "rules")["groups"][0]["rules"]}
            == {"ok"}
        ),
        PATIENCE_S,
    )


def test_the_services_own_figures_are_in_both_under_the_same_labels(at_work):
    expr = "sum by (service, service_instance, route) (http_server_requests_total)"
    for which in ("prometheus", "headgate"):
        wait_until(lambda: at_work.values(which, expr), PATIENCE_S)
    there, here = at_work.values("prometheus", expr), at_work.values("headgate", expr)
    assert there == here
    assert [dict(key)["service_instance"] for key in there] == [at_work.figures.url]


# Rates of a few seconds are mostly extrapolation, to either side, and depend on when somebody looked.
# Their shares of the whole do not.
SHARES = ("Headgate / Overview / Requests by status", "Headgate / Routes / By route")
# Panel by its dashboard and title, and how far the two answers may be apart.
COMPARED = (
    ("Headgate / Overview / Requests by status", 0.10),
    ("Headgate / Overview / Errors", 0.10),
    ("Headgate / Overview / 95th percentile", 0.30),
    ("Headgate / Overview / Workers", 0.0),
    ("Headgate / Overview / Instances out", 0.0),
    ("Headgate / Routes / By route", 0.10),
    ("Headgate / Cache / Hit rate by route", 0.10),
    ("Headgate / Services and instances / Workers that find it fit", 0.0),
    ("Headgate / Objectives / By the hour", 0.10),
    ("Headgate / Objectives / Within a second, by the hour", 0.10),
)


def shares(values):
    whole = sum(values.values())
    return {labels: value / whole for labels, value in values.items()}


@pytest.mark.parametrize(("where", "apart"), COMPARED, ids=lambda value: str(value)[11:40])
def test_prometheus_and_headgate_answer_a_dashboard_alike(at_work, where, apart):
    exprs = [
        filled(expr) for board in BOARDS for place, expr in expressions(board) if place == where
    ]
    assert exprs, f"there is no panel {where}"
    at = f"{time.time():.3f}"
    # A panel may have a line for what is not the case here, such as instances that are drained.
    shown = 0
    for expr in exprs:
        there = at_work.values("prometheus", expr, time=at)
        here = at_work.values("headgate", expr, time=at)
        assert here.keys() == there.keys(), expr
        shown += len(here)
        if where in SHARES:
            here, there = shares(here), shares(there)
        for labels, value in here.items():
            assert not math.isnan(value), f"{expr}: {here} here, {there} there"
            assert math.isclose(value, there[labels], rel_tol=apart, abs_tol=1e-9), (
                f"{expr} {labels}: {value} here, {there[labels]} there"
            )
    assert shown, exprs


def test_grafana_may_ask_headgate_as_it_asks_prometheus(at_work):
    for which in ("prometheus", "headgate"):
        found = at_work.query(
            which, "label/route/values", **{"match[]": "headgate_http_requests_total"}
        )
        assert {"users", "pay", "catalog"} <= set(found), which
        now = time.time()
        over = at_work.query(
            which,
            "query_range",
            query="sum by (route) (headgate_http_requests_total)",
            start=str(now - 10),
            end=str(now),
            step="1",
        )
        assert over["resultType"] == "matrix"
        assert {"users", "pay", "catalog"} <= {one["metric"]["route"] for one in over["result"]}


def test_an_exemplar_in_prometheus_leads_to_a_trace_in_headgate(at_work):
    def found() -> str:
        data = at_work.query(
            "prometheus",
            "query_exemplars",
            query='headgate_http_request_duration_seconds_bucket{route="pay"}',
            start=f"{time.time() - 300:.0f}",
            end=f"{time.time():.0f}",
        )
        ids = [one["labels"]["trace_id"] for series in data or [] for one in series["exemplars"]]
        return ids[-1] if ids else ""

    trace_id = wait_until(found, PATIENCE_S)

    url = f"http://127.0.0.1:{at_work.gateway.admin_port}/api/traces/{trace_id}"

    def there() -> bool:
        try:
            return trace_id in str(ask(url, TOKEN))
        except AssertionError:
            return False

    wait_until(there, PATIENCE_S)


def test_a_failing_service_is_told_of_by_alertmanager_and_by_headgate(at_work):
    def firing(which: str) -> list[dict[str, str]]:
        return [
            alert["labels"]
            for alert in at_work.told(which)
            if alert["labels"]["alertname"] == "error-rate" and alert["status"] == "firing"
        ]

    expr = 'ALERTS{alertname="error-rate",alertstate="firing",severity="critical"}'
    wait_until(lambda: at_work.values("prometheus", expr), PATIENCE_S)
    # With no wait for the group the warning may be told before Prometheus has sent what is critical.
    wait_until(
        lambda: "critical" in {labels["severity"] for labels in firing("alertmanager")}, PATIENCE_S
    )
    wait_until(lambda: firing("headgate"), PATIENCE_S)
    assert {labels["route"] for labels in firing("alertmanager")} == {"pay"}
    assert {labels["route"] for labels in firing("headgate")} == {"pay"}

    def inhibited() -> list[str]:
        url = f"http://127.0.0.1:{at_work.alertmanager_port}/api/v2/alerts"
        return [
            each["labels"]["severity"]
            for each in ask(url)
            if each["labels"]["alertname"] == "error-rate" and each["status"]["inhibitedBy"]
        ]

    # The warning is explained by what is critical, there as here.
    wait_until(lambda: inhibited() == ["warning"], PATIENCE_S)


def test_promtool_finds_no_fault_in_what_the_gateway_shows(at_work):
    request = urllib.request.Request(
        f"http://127.0.0.1:{at_work.gateway.admin_port}/metrics",
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert not done.stdout + done.stderr
