"""What is handed over, without running it: nothing has drifted, nothing is named that is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import deploy as tool

from headgate.config import from_document, load
from headgate.errors import HeadgateError
from headgate.interop import KINDS, Site, hand_over, site_of
from headgate.interop.grafana import BOARDS, Board, Panel, Query, Row
from headgate.interop.grafana.model import expressions, to_dashboard
from headgate.interop.naming import CATALOGUE, Unnamed, filled, wrong
from headgate.interop.prometheus import alert_rules
from headgate.interop.services import SERVICES
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.meters.text import to_text
from headgate.observe.metrics import METRICS
from tests.deploy.instruments import families

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return tool.made()


# -- drift ----------------------------------------------------------------------------------


def test_what_is_generated_is_what_stands_there(made):
    assert not tool.drift(made), "run `make docs`"


def test_drift_is_seen_in_a_changed_a_missing_and_a_left_over_file(made, tmp_path, monkeypatch):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    monkeypatch.setattr(tool, "DEPLOY", tmp_path / "deploy")
    assert not tool.drift(made)
    (tmp_path / "deploy/grafana/dashboards/headgate-cache.json").write_text("{}")
    (tmp_path / "deploy/elastic/fields.json").unlink()
    (tmp_path / "deploy/prometheus/rules/headgate-old.yml").write_text("groups: []")
    assert [line.split(" ", 1)[0] for line in tool.drift(made)] == [
        "deploy/grafana/dashboards/headgate-cache.json",
        "deploy/elastic/fields.json",
        "deploy/prometheus/rules/headgate-old.yml",
    ]
    tool.write(made)
    assert len(tool.drift(made)) == 1


# -- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_asks_only_for_what_exists(board):
    found = [(where, said) for where, expr in expressions(board) for said in wrong(expr)]
    assert not found


def test_every_metric_of_the_gateway_is_in_a_dashboard_or_left_out_with_a_reason():
    asked = " ".join(expr for board in BOARDS for _, expr in expressions(board))
    left_out = {
        "headgate_build_info",  # a variable asks for it
        "headgate_process_start_time_seconds",  # how long ago it is is shown
        "headgate_connections_accepted_total",
        "headgate_filter_errors_total",
        "headgate_admin_live_dropped_total",
        "headgate_admin_live_views",
        "headgate_config_versions_lost_total",
        "headgate_alerts_queued",
        "headgate_alerts_held_back_total",
        "headgate_capacity_forecasts_total",
        "headgate_monitor_checks_total",
        "headgate_monitor_results_lost_total",
        "headgate_monitor_certificate_expiry_seconds",
        "headgate_monitor_uptime_ratio",
        "headgate_monitor_degraded",
        "headgate_slo_age_seconds",
        "headgate_history_blocks",
        "headgate_history_unwritten_blocks",
        "headgate_logs_store_lines",
        "headgate_members_changes_total",  # of services that are found alone
        "headgate_members_unread_total",  # likewise
        "headgate_metrics_pushes_total",  # of those who do not scrape
        "headgate_registry_events_total",  # where instances register: `headgate services stats`
        "headgate_registry_instances",
        "headgate_registry_leases",
        "headgate_registry_members_told_total",
        "headgate_registry_watchers",
        "headgate_registry_watchers_cut_total",
        "headgate_registry_writes_total",
        "headgate_mesh_authority_ends_timestamp_seconds",  # followed by others by itself
        "headgate_mesh_certificates_issued_total",  # where there is a mesh
        "headgate_mesh_certificates_refused_total",
        "headgate_mesh_join_tokens",
        "headgate_mesh_roots",
        "headgate_mesh_refused_total",  # nobody is refused where access is not on
        "headgate_mesh_requests_total",  # calls past the gateway, where there is a mesh
        "headgate_mesh_errors_total",
        "headgate_mesh_retries_total",
        "headgate_mesh_duration_seconds",
        "headgate_mesh_edges",
        "headgate_mesh_edges_overflowed_total",
        "headgate_metrics_left_out",
        "headgate_traces_stored",
    }
    missing = {
        name for name in METRICS if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked)
    }
    assert missing <= left_out, sorted(missing - left_out)


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("headgate_http_request_total", "no metric is named headgate_http_request_total"),
        ("headgate_http_request_duration_seconds", "no metric is named"),
        ("headgate_workers_count", "no metric is named"),
        ('headgate_workers{route="a"}', "headgate_workers has no label route"),
        ("sum by (listener) (headgate_http_requests_in_flight)", '"listener" is no label'),
        ("headgate_workers / on (zone) headgate_cache_bytes", '"zone" is no label'),
        ("sum(rate(headgate_workers[5m])", "cannot be read"),
        ("vector(1)", "asks for nothing"),
        ('http_server_requests_total{host="a"}', "has no label host"),
    ],
)
def test_an_expression_with_a_wrong_name_is_found_out(expr, said):
    assert said in next(iter(wrong(expr)), "")


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (le) (rate(headgate_http_request_duration_seconds_bucket{le="1"}[5m]))',
        'http_server_requests_total{service=~"$service",instance="a"}',
        "count by (pid) (process_open_fds)",
        'up{job="headgate"} == 0',
    ],
)
def test_labels_that_whoever_scrapes_adds_are_known(expr):
    assert not list(wrong(expr))


def test_a_dashboard_with_a_wrong_name_is_not_written():
    panel = Panel("a", (Query("headgate_nothing_total"),))
    board = Board("headgate-bad", "Bad", "", (Row("r", (panel,)),))
    with pytest.raises(Unnamed, match="Bad / a: no metric is named headgate_nothing_total"):
        to_dashboard(board, traces_url="")


def test_the_table_of_services_is_what_their_instruments_show():
    found = {}
    for family in families():
        labels = list(family.labels)
        for sample in family.samples:
            labels += [n for n, _ in sample.labels if n not in labels and n != "le"]
        found[family.name] = (family.kind, labels)
    for name, metric in SERVICES.items():
        assert name in found, f"no instrument shows {name}"
        # `pid` is there where several processes share a registry.
        said = [label for label in metric.labels if label != "pid"]
        assert found[name] == (metric.kind, said), name
    assert not SERVICES.keys() & METRICS.keys()
    assert len(CATALOGUE) == len(SERVICES) + len(METRICS)


# -- dashboards -----------------------------------------------------------------------------

BOARD_NEEDS = {
    "annotations", "editable", "fiscalYearStartMonth", "graphTooltip", "id", "links", "panels",
    "schemaVersion", "tags", "templating", "time", "timepicker", "timezone", "title", "uid",
    "version",
}  # fmt: skip
PANEL_NEEDS = {"datasource", "fieldConfig", "gridPos", "id", "options", "targets", "title", "type"}
UNITS = {
    "short", "reqps", "percentunit", "s", "cps", "Bps", "ops", "bytes",
}  # fmt: skip


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_one_that_grafana_takes(board):
    content = to_dashboard(board, traces_url="http://jaeger")
    assert content.keys() >= BOARD_NEEDS
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", content["uid"])
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel.keys() >= PANEL_NEEDS, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None
        bounds = [step["value"] for step in steps[1:]]
        assert bounds == sorted(bounds)
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert target["instant"] != target["range"]
            assert not (target["exemplar"] and target["instant"])
    variables = {one["name"] for one in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z][a-z_]*)", json.dumps(content)))
    assert used - {"__rate_interval", "__range"} <= variables, used - variables


def test_dashboards_have_names_of_their_own():
    assert len({board.uid for board in BOARDS}) == len({board.title for board in BOARDS}) == 9


def test_the_variables_of_grafana_are_filled_in_before_an_expression_is_read():
    assert filled('rate(a{b=~"$route"}[$__rate_interval])') == 'rate(a{b=~".*"}[5m])'
    assert "$" not in filled("${datasource} ${route:regex} $__range")


def test_data_sources_hold_no_token_and_name_each_other(made):
    text = made["grafana/provisioning/datasources/headgate.yml"]
    sources = {one["uid"]: one for one in yaml.safe_load(text)["datasources"]}
    assert sum(one["isDefault"] for one in sources.values()) == 1
    header = sources["headgate-history"]["secureJsonData"]["httpHeaderValue1"]
    assert header == "Bearer ${HEADGATE_TOKEN}"
    for one in sources["headgate-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]:
        assert one.get("datasourceUid", "headgate-jaeger") in sources
    provider = yaml.safe_load(made["grafana/provisioning/dashboards/headgate.yml"])["providers"][0]
    mounts = compose()["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


# -- Prometheus and Alertmanager ------------------------------------------------------------


def checked(*words: str, cwd: Path) -> str:
    name = shutil.which(words[0])
    assert name is not None, f"{words[0]} is missing: make os-test"
    done = subprocess.run(
        [name, *words[1:]], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def prometheus(tmp_path) -> Path:
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    for name in ("headgate-token", "headgate-ca.pem"):
        (folder / name).write_text("x")
    return folder


@pytest.mark.integration
def test_promtool_takes_every_configuration_and_the_rules_pass_their_tests(prometheus):
    for name in ("prometheus", "compose", "discovery"):
        said = checked("promtool", "check", "config", f"{name}.yml", cwd=prometheus)
        assert "rules found" in said, name
        assert "FAILED" not in said
    # Debian's Prometheus is built without Kubernetes; the rest of that file is checked.
    content = yaml.safe_load((prometheus / "kubernetes.yml").read_text())
    for job in content["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs")[0]["role"] == "pod"
        job["static_configs"] = [{"targets": ["a:1"]}]
    (prometheus / "kubernetes.yml").write_text(yaml.safe_dump(content))
    checked("promtool", "check", "config", "kubernetes.yml", cwd=prometheus)
    said = checked(
        "promtool", "test", "rules", "headgate-alerts.test.yml", cwd=prometheus / "tests"
    )
    assert "SUCCESS" in said


@pytest.mark.integration
def test_what_instruments_of_services_show_is_fine_with_promtool():
    name = shutil.which("promtool")
    assert name is not None
    text = to_text([one for one in families() if not one.samples])
    done = subprocess.run([name, "check", "metrics"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_amtool_takes_the_routes(tmp_path):
    shutil.copytree(DEPLOY / "alertmanager", tmp_path / "alertmanager")
    checked("amtool", "check-config", "alertmanager.yml", cwd=tmp_path / "alertmanager")
    for labels, receiver in (
        (["severity=critical"], "on-call"),
        (["severity=warning"], "team"),
        (["severity=info"], "team"),
    ):
        said = checked(
            "amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *labels,
            cwd=tmp_path / "alertmanager",
        )  # fmt: skip
        assert said.split()[0] == receiver


def test_what_is_wrong_with_one_gateway_explains_nothing_of_another(made):
    rules = yaml.safe_load(made["alertmanager/alertmanager.yml"])["inhibit_rules"]
    assert {"alertname", "instance", "route"} <= set(rules[0]["equal"])


def test_every_rule_is_handed_over_and_judged_no_faster_than_figures_come():
    groups = alert_rules(Site())["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert names >= {rule.name for rule in BUILT_IN}
    assert names >= {"gateway-unreachable", "service-figures-missing"}
    assert {group["interval"] for group in groups} == {"15s"}


def test_no_secret_is_handed_over():
    secrets = (
        "T0/B0/hook-of-slack",
        "key-of-pagerduty-0123",
        "word-of-mail",
        "a-viewer-token-012345",
    )
    slack, pager, word, token = secrets
    config = from_document(
        {
            "listeners": [{"bind": "127.0.0.1:8080"}],
            "routes": [{"match": {"path": "/"}, "respond": {"body": "x"}}],
            "admin": {"tokens": [{"name": "p", "token": token}]},
            "alerts": {
                "receivers": {
                    "all": {
                        "slack": f"https://hooks.slack.example/{slack}",
                        "pagerduty": pager,
                        "webhook": f"https://x.example/{slack}",
                        "email": {
                            "host": "m", "from": "a@b", "to": "c@d", "username": "u",
                            "password": word,
                        },
                    }
                }
            },
        }
    )  # fmt: skip
    site = site_of(config)
    texts = " ".join(text for kind in KINDS for text in hand_over(kind, site).values())
    assert "all-slack-url" in texts
    for secret in secrets:
        assert secret not in texts


def test_the_scrape_follows_the_file():
    config = from_document(
        {
            "listeners": [{"bind": "127.0.0.1:8080"}],
            "admin": {"bind": "0.0.0.0:9901", "tls": "local"},
            "routes": [{"match": {"path": "/"}, "to": "a"}],
            "services": {
                "a": {"instances": ["http://a1:3001", "https://a2:3002", "unix:/run/a.sock"]}
            },
            "history": {"scrape": [{"service": "a", "path": "/figures"}]},
            "alerts": False,
        }
    )
    made = hand_over("prometheus", site_of(config))
    gateway, *services = yaml.safe_load(made["prometheus.yml"])["scrape_configs"]
    assert gateway["scheme"] == "https"
    assert gateway["static_configs"] == [{"targets": ["127.0.0.1:9901"]}]
    assert [(one["scheme"], one["static_configs"][0]["targets"]) for one in services] == [
        ("http", ["a1:3001"]),
        ("https", ["a2:3002"]),
    ]
    assert {one["metrics_path"] for one in services} == {"/figures"}
    groups = yaml.safe_load(made["rules/headgate-alerts.yml"])["groups"]
    assert [group["name"] for group in groups] == ["headgate-outside"]
    there = site_of(config, admin="gateway.shop.example:443")
    assert "gateway.shop.example:443" in hand_over("prometheus", there)["prometheus.yml"]


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(
        HeadgateError, match=r"there are: prometheus, alertmanager, grafana, elastic"
    ):
        hand_over("splunk", Site())


# -- the stack and OpenTelemetry ------------------------------------------------------------


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def test_the_stack_names_only_files_volumes_and_services_that_are_there():
    content = compose()
    services = content["services"]
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        if "image" in service:
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"]), (
                "a version is pinned"
            )
        else:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), volume
            else:
                assert source in content["volumes"], volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "published on loopback alone"
        assert set(service.get("depends_on", ())) <= services.keys()
        for secret in service.get("secrets", ()):
            assert secret["source"] in content["secrets"]


def test_the_stack_and_its_gateway_agree_on_addresses(monkeypatch):
    monkeypatch.setenv("HEADGATE_TOKEN", "0123456789abcdef0123456789abcdef")
    config = load(DEPLOY / "headgate/headgate.yaml").config
    services = compose()["services"]
    for spec in config.services.values():
        for instance in spec.instances:
            host, _, port = str(instance.url).removeprefix("http://").partition(":")
            assert port in services[host]["command"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/compose.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["headgate:9900"]
    assert scraped["rule_files"] == ["rules/headgate-*.yml"]
    for name, variable in (("headgate", "HEADGATE_URL"), ("prometheus", "PROMETHEUS_URL")):
        assert services["grafana"]["environment"][variable].startswith(f"http://{name}:")


@pytest.mark.parametrize("file", sorted((DEPLOY / "otel").glob("headgate-*")), ids=lambda f: f.stem)
def test_an_example_for_otlp_is_a_file_that_headgate_takes(file, monkeypatch):
    monkeypatch.setenv("ELASTIC_APM_KEY", "a-key-of-some-length")
    config: Any = load(file).config
    assert config.tracing.export.url.startswith(("http://", "https://"))


def test_the_collector_uses_what_it_defines_and_defines_what_it_uses():
    content = yaml.safe_load((DEPLOY / "otel/collector.yaml").read_text())
    used: dict[str, set[str]] = {"extensions": set(content["service"]["extensions"])}
    for pipeline in content["service"]["pipelines"].values():
        for part, names in pipeline.items():
            used.setdefault(part, set()).update(names)
            assert part != "processors" or names[0] == "memory_limiter"
    for part, names in used.items():
        assert names <= content[part].keys(), part
    # One exporter of traces is a choice and stands there to be chosen.
    assert content["exporters"].keys() - used["exporters"] == {"otlp/tempo"}
