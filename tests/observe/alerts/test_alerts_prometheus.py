"""The exported rules are rules of Prometheus, and both fire at the same evaluations."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.exporting import seconds, to_alertmanager, to_prometheus_rules
from headgate.observe.alerts.judging import Judge
from headgate.observe.alerts.matching import parse_matcher
from headgate.observe.alerts.muting import Inhibition, MuteWindow
from headgate.observe.alerts.receivers import EmailChannel, Receiver, SlackChannel
from headgate.observe.alerts.routing import Node, Routing
from headgate.observe.alerts.rules import Rule, Threshold
from headgate.observe.alerts.wording import TemplateFault, fill, pieces, to_go
from headgate.observe.query import Matcher, Rules, Series, evaluate, parse

PROMTOOL = shutil.which("promtool")


def promtool(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None, "promtool is missing: apt-get install prometheus"
    return subprocess.run(
        [PROMTOOL, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


class Samples:
    """Series for our own evaluation, one sample every `step`."""

    def __init__(
        self, rows: dict[tuple[str, tuple[tuple[str, str], ...]], list[float | None]], step: float
    ) -> None:
        self._rows, self._step = rows, step

    def select(
        self, name: str, matchers: Sequence[Matcher], start: float, end: float
    ) -> list[Series]:
        found = []
        for (own, labels), values in self._rows.items():
            said = {"__name__": own, **dict(labels)}
            if own != name or not all(each.is_met(said) for each in matchers):
                continue
            kept = [
                (place * self._step, value)
                for place, value in enumerate(values)
                if value is not None and start <= place * self._step <= end
            ]
            if kept:
                times, numbers = zip(*kept, strict=True)
                found.append(Series(said, np.array(times), np.array(numbers, dtype=float)))
        return found


@pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
def test_every_built_in_rule_can_be_read_and_its_texts_filled(rule):
    parse(rule.expr)
    for text in (rule.summary, rule.description):
        fill(text, {"value": 1.0}, rule.unit)
    assert rule.summary


@pytest.mark.integration
def test_promtool_takes_the_built_in_rules(tmp_path):
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(to_prometheus_rules(BUILT_IN)))
    done = promtool("check", "rules", "rules.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


RULES = (
    Rule(
        "busy",
        "load",
        (Threshold("warning", 0.7, 0.7), Threshold("critical", 0.9, 0.9)),
        for_s=60.0,
        keep_firing_s=90.0,
        flapping=None,
        labels=(("team", "t-{host}"),),
        summary="{host} is {value:percent} busy, over {bound:percent} {{x}}",
        every_s=30.0,
    ),
    Rule("errors", "rate(errors_total[2m]) > 1", level="critical", flapping=None, every_s=30.0),
    Rule(
        "low", "hits", (Threshold("warning", 0.5, 0.5),), direction="below", for_s=30.0,
        flapping=None, every_s=30.0,
    ),
    Rule("gone", "absent(load{host='z'})", for_s=120.0, flapping=None, every_s=30.0),
)  # fmt: skip
LOAD_A = [0.5, 0.8, 0.8, 0.8, 0.95, 0.95, 0.95, 0.95, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.6, 0.6]
LOAD_B = [0.95, 0.95, 0.95, 0.6, 0.95, 0.6, 0.6, 0.6, 0.6, 0.7, 0.70001, 0.8, 0.8, 0.8, 0.8, 0.8]
ERRORS = [0, 0, 10, 60, 120, 180, 240, 240, 240, 240, 240, 5, 10, 300, 300, 300]
HITS = [1, 0.4, 0.4, 0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.6, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9]
STEP = 30.0


def fired_here() -> dict[tuple[str, int], list[dict[str, str]]]:
    rows: dict[tuple[str, tuple[tuple[str, str], ...]], list[float | None]] = {
        ("load", (("host", "a"),)): [float(v) for v in LOAD_A],
        ("load", (("host", "b"),)): [float(v) for v in LOAD_B],
        ("errors_total", (("code", "500"),)): [float(v) for v in ERRORS],
        ("hits", ()): [float(v) for v in HITS],
    }
    source = Samples(rows, STEP)
    # Of the age of the Debian package: its ranges include both ends.
    as_then = Rules(is_closed=True, is_eager=True)
    found: dict[tuple[str, int], list[dict[str, str]]] = {}
    for rule in RULES:
        judge, expr = Judge(rule), parse(rule.expr)
        for place in range(len(LOAD_A)):
            at = place * STEP
            judge.judge(evaluate(expr, source, at, as_then), at)
            for each in judge.alerts():
                if each.state != "firing":
                    continue
                labels = {k: v for k, v in each.labels if k != "alertname"}
                levels = [t.level for t in rule.thresholds] or [rule.level]
                # One alert here is one a level there, up to its own.
                for level in levels[: levels.index(each.level) + 1]:
                    found.setdefault((rule.name, place), []).append({**labels, "severity": level})
    return found


@pytest.mark.integration
def test_both_fire_at_the_same_evaluations_on_the_same_samples(tmp_path):
    exported = to_prometheus_rules(RULES)
    for group in exported["groups"]:
        for one in group["rules"]:
            one["annotations"] = {}  # what is compared here is when, and with which labels
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(exported))
    here = fired_here()
    assert {name for name, _ in here} == {"busy", "errors", "low", "gone"}
    series: dict[str, Sequence[float]] = {
        'load{host="a"}': LOAD_A,
        'load{host="b"}': LOAD_B,
        'errors_total{code="500"}': ERRORS,
        "hits": HITS,
    }
    checks = [
        {
            "eval_time": seconds(place * STEP),
            "alertname": rule.name,
            "exp_alerts": [
                {"exp_labels": labels, "exp_annotations": {}}
                for labels in here.get((rule.name, place), [])
            ],
        }
        for rule in RULES
        for place in range(len(LOAD_A))
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {"series": name, "values": " ".join(str(v) for v in values)}
                    for name, values in series.items()
                ],
                "alert_rule_test": checks,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[:6000]


def test_a_template_means_the_same_there():
    rule = RULES[0]
    said = to_go(rule.summary, rule, "warning")
    assert said == (
        '{{ $labels.host }} is {{ $value | humanizePercentage }} busy, over 70% {{ "{" }}x}'
    )


@pytest.mark.parametrize(
    "text", ["{", "}", "{a", "{a b}", "{value:miles}", "{route:percent}", "{}"]
)
def test_a_template_with_a_fault_is_refused(text):
    with pytest.raises(TemplateFault):
        list(pieces(text))


def test_nothing_a_label_holds_is_evaluated():
    assert (
        fill("{route}", {"route": "{value} {{x}} {0.__class__}"}) == "{value} {{x}} {0.__class__}"
    )


def test_the_routes_of_an_alertmanager_hold_no_secret():
    night = MuteWindow("night", frozenset({4}), 22 * 60, 6 * 60, "Europe/Berlin")
    tree = Node(
        "root", "ops", routes=(Node("p", "pager", (parse_matcher('a=~"x.*"'),), mute=(night,)),)
    )
    inhibit = Inhibition((parse_matcher("a=b"),), (parse_matcher("c!=d"),), ("service",))
    receivers = [
        Receiver("ops", (SlackChannel("https://hooks/secret"),)),
        Receiver("mail", (EmailChannel("h", "a@b", ("c@d",), username="u", password="secret"),)),
    ]
    made = to_alertmanager(Routing(tree, (inhibit,)), receivers)
    assert "secret" not in json.dumps(made)
    assert made["route"]["routes"][0]["matchers"] == ['a=~"x.*"']
    assert [each["name"] for each in made["receivers"]] == ["mail", "ops", "pager"]
    intervals = made["time_intervals"][0]["time_intervals"]
    assert [each["weekdays"] for each in intervals] == [["friday"], ["saturday"]]
    assert intervals[0]["times"] == [{"start_time": "22:00", "end_time": "24:00"}]
