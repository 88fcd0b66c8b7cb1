from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from headgate.config import load
from headgate.config.examples import EXAMPLES
from headgate.config.model import Config
from headgate.config.prose import describe
from headgate.config.reference import anchor_of, page
from headgate.config.schema import schema, schema_text
from headgate.config.walk import models_under

ROOT = Path(__file__).resolve().parents[2]
LISTENER = "listeners: [0.0.0.0:8080]\n"


class Core(yaml.SafeLoader):
    """YAML as editors read it (1.2): only `true` and `false` are booleans."""


Core.yaml_implicit_resolvers = {
    letter: [(tag, rule) for tag, rule in rules if not tag.endswith(":bool")]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Core.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def as_an_editor_sees(text: str) -> object:
    """The document, with text for keys."""
    return json.loads(json.dumps(yaml.load(text, Loader=Core)))


@pytest.fixture(scope="module")
def validator():
    made = schema()
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def example_text(text: str) -> str:
    return text if text.startswith("listeners") else LISTENER + text


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_reference_load(name, tmp_path):
    path = tmp_path / "headgate.yaml"
    path.write_text(example_text(EXAMPLES[name]))
    assert load(path, {}).config


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_reference_fit_the_schema(name, validator):
    errors = list(validator.iter_errors(as_an_editor_sees(example_text(EXAMPLES[name]))))
    assert not errors, errors[0].message


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "examples").rglob("*.yaml")), ROOT / "src/headgate/cli/demo.yaml"],
    ids=lambda path: path.name,
)
def test_the_examples_of_the_repository_fit_the_schema(path, validator):
    # As editors see it: keys of mappings are texts.
    document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    errors = list(validator.iter_errors(document))
    assert not errors, errors[0].message


@pytest.mark.parametrize(
    "text",
    [
        "listeners: ['0.0.0.0:${env:PORT}']\nworkers: ${env:N}\nwatch: ${env:W}\ndrain: ${env:D}\n",
        "limits: {url: 8KB, header_count: '${env:N}'}\ncompress: true\n",
        "include: [a.yaml]\nerror_pages: {5xx: {body: x}}\ncompress: {level: {gzip: 3}}\n",
        "services: {a: {instances: [http://a], http: '2', timeout: {total: 1h}}}\n",
        "routes: [{match: {methods: [GET, PURGE], headers: {a: {present: true}}}, respond: 204}]\n",
        "limit: {rate: 5/s, by: ip}\nretry: 3\nbreaker: true\nhealth: /ready\nbalance: random\n",
        "limit: [5/s, {concurrency: 3}]\nretry: false\nconcurrency: '${env:N}'\nimportance: low\n",
        "limit: false\nretry: {attempts: 5, budget: 20%, when: {status: 5xx}}\nstate: redis://h/0\n",
        "routes: [{to: {a: 95%, b: 5%}}, {to: [a, b]}, {to: a, fallback: {respond: 503}}]\n",
        "breaker: {window: 20, slow: 2s}\nhedge: {after: p99}\noutlier: {errors: off}\n",
    ],
)
def test_what_may_be_written_fits_the_schema(text, validator):
    errors = list(validator.iter_errors(as_an_editor_sees(text)))
    assert not errors, errors[0].message


@pytest.mark.parametrize(
    "text",
    [
        "listners: []\n",
        "drain: soon\n",
        "drain: -5\n",
        "watch: maybe\n",
        "routes: [{tu: a}]\n",
        "services: {a: {http: 3, instances: [http://a]}}\n",
        "services: {a: {instances: [ftp://a]}}\n".replace("ftp://a", "{url: ftp://a}"),
        "limits: {url: 8 parsecs}\n",
        "listeners: [{bind: 8080}]\n",
        "limit: often\n",
        "limit: [{by: everybody}]\n",
        "breaker: {window: a while}\n",
        "balance: {by: fastest}\n",
        "routes: [{to: {a: most}}]\n",
        "degrade: {levels: [{name: a, measures: [panic]}]}\n",
    ],
)
def test_slips_do_not_fit_the_schema(text, validator):
    assert list(validator.iter_errors(yaml.safe_load(text)))


def test_every_field_is_described():
    describe(models_under(Config))
    for model in models_under(Config):
        assert model.__doc__, model
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_the_schema_proposes_no_null_and_writes_units():
    text = schema_text()
    assert '"null"' not in text
    limits = json.loads(text)["$defs"]["LimitsSpec"]["properties"]
    assert limits["body"]["default"] == "10MB"
    assert limits["idle_timeout"]["default"] == "75s"


def test_the_reference_is_whole_and_the_same_every_time():
    text = page()
    assert text == page()
    for model in models_under(Config):
        assert f"(#{anchor_of(model)})" in text or model is Config
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in text
    anchors = {line.split("(#")[1].split(")")[0] for line in text.split("[") if "(#" in line}
    headings = {
        "".join(c for c in line[3:].lower() if c.isalnum() or c in " -").replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }
    assert anchors <= headings


def test_the_reference_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "headgate.config.reference"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": "src"},
    )
    assert done.stdout == page()
