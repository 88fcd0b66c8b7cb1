"""`headgate export`: files into a folder, and what is said when that does not work."""

from __future__ import annotations

import os

import pytest
import yaml

from headgate.cli.app import main

FILE = """\
listeners: [{bind: "127.0.0.1:8080"}]
admin: {bind: "127.0.0.1:9911"}
routes: [{match: {path: /}, respond: {body: hello}}]
alerts:
  rules: {cpu: {warning: 42%}, memory: false}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headgate.yaml").write_text(FILE)

    def called(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["export", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return called


def test_the_rules_of_the_file_are_written_and_only_what_differs_is_written_again(run, tmp_path):
    code, out, _ = run("prometheus", "headgate.yaml")
    assert (code, out.count("wrote ")) == (0, 3)
    rules = tmp_path / "prometheus/rules/headgate-alerts.yml"
    said = {
        (rule["alert"], rule["labels"]["severity"]): rule["expr"]
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
    }
    assert said["cpu", "warning"].endswith("> 0.42")
    assert ("memory", "warning") not in said
    assert "127.0.0.1:9911" in (tmp_path / "prometheus/prometheus.yml").read_text()
    (tmp_path / "prometheus/mine.yml").write_text("mine")
    rules.write_text("changed")
    assert run("prometheus", "headgate.yaml", "--check")[:2] == (
        1,
        "prometheus/rules/headgate-alerts.yml differs\n",
    )
    assert rules.read_text() == "changed"
    assert run("prometheus", "headgate.yaml")[1].count("wrote ") == 1
    assert run("prometheus", "headgate.yaml", "--check")[0] == 0
    assert (tmp_path / "prometheus/mine.yml").read_text() == "mine"
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_without_a_file_it_is_a_gateway_with_all_defaults(run):
    code, out, _ = run("prometheus", "--admin", "gw:9900", "--stdout")
    assert code == 0
    content = yaml.safe_load(out)
    assert content["scrape_configs"][0]["static_configs"] == [{"targets": ["gw:9900"]}]


def test_a_script_may_be_run_and_the_rest_may_not(run, tmp_path):
    assert run("elastic", "-o", "here")[0] == 0
    assert os.access(tmp_path / "here/install.sh", os.X_OK)
    assert (tmp_path / "here/fields.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("splunk",), 2, "is not one of"),
        (("grafana", "nothing.yaml"), 1, "nothing.yaml: cannot be read"),
        (("grafana", "-o", "headgate.yaml"), 1, "cannot write headgate.yaml/"),
        (("grafana", "-o", "/proc/none"), 1, "cannot write /proc/none/"),
        (("prometheus", "--admin", "http://gw:1"), 1, "is no address; write host:port"),
        (("prometheus", "off.yaml"), 1, "say --admin HOST:PORT"),
    ],
    ids=["kind", "file", "folder", "place", "address", "off"],
)
def test_what_does_not_work_is_said_in_a_line(run, tmp_path, words, code, said):
    (tmp_path / "off.yaml").write_text(FILE.replace('"127.0.0.1:9911"', "off"))
    found, _, err = run(*words)
    assert found == code
    assert said in err
    assert "Traceback" not in err


def test_a_file_with_faults_is_refused_with_all_of_them(run, tmp_path):
    (tmp_path / "headgate.yaml").write_text(FILE + "nonsense: 1\n")
    code, _, err = run("prometheus", "headgate.yaml")
    assert code == 1
    assert "headgate.yaml:6" in err
    assert not (tmp_path / "prometheus").exists()
