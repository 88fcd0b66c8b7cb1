"""The `validation` policy as the file writes it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from headgate.config.validating import Validation, ValidationSpec, problems
from headgate.security.validation import ValidationRules

READ: Any = TypeAdapter(Validation).validate_python


def test_text_is_the_document_and_false_switches_off():
    assert READ("users.yaml") == ValidationSpec(openapi="users.yaml")
    assert READ({"openapi": "users.yaml", "mode": "report"}).mode == "report"
    assert READ(False) is False
    assert READ("off") is False


def test_every_rule_can_be_said_and_has_the_same_default():
    assert set(ValidationSpec.model_fields) == {field.name for field in fields(ValidationRules)}
    assert ValidationSpec().rules() == ValidationRules()
    spec = READ(
        {
            "query": {"properties": {"a": {"type": "integer"}}},
            "status": "422",
            "max_body": "2MB",
            "strict_query": "yes",
        }
    )
    assert spec.rules() == ValidationRules(
        query={"properties": {"a": {"type": "integer"}}},
        status=422,
        max_body=2 * 1024 * 1024,
        strict_query=True,
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"mode": "shout"},
        {"responses": "refuse"},
        {"unknown": True},
        {"status": 500},
        {"patterns": "any"},
        {"max_depth": 0},
        {"body": ""},
        {"bodies": "x.json"},
        {"query": ["a"]},
    ],
)
def test_what_means_nothing_is_refused(spec):
    with pytest.raises(ValidationError):
        READ(spec)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"openapi": "a.yaml", "base": "/v1", "unknown": "refuse"}, []),
        ({"body": "a.json", "query": {}}, []),
        ({"strict_query": True}, []),
        ({}, [((), False)]),
        ({"mode": "report"}, [((), False)]),
        ({"openapi": "a.yaml", "body": "b.json"}, [(("body",), False)]),
        ({"openapi": "a.yaml", "base": "v1"}, [(("base",), False)]),
        ({"openapi": "a.yaml", "max_depth": 500}, [(("max_depth",), False)]),
        (
            {"body": "a.json", "unknown": "refuse", "responses": "report"},
            [(("responses",), True), (("unknown",), True)],
        ),
    ],
)
def test_fields_that_contradict_each_other_are_told_of(spec, found):
    got = [(loc, is_warning) for loc, _, _, is_warning in problems(READ(spec))]
    assert got == found


def test_the_examples_of_the_page_are_good():
    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "validation.md"
    text = page.read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) >= 4
    for block in blocks:
        found = block.get("routes", [block]) if isinstance(block, dict) else block
        for route in found:
            assert list(problems(READ(route["validation"]))) == []
