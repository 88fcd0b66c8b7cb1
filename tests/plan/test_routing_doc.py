"""The examples in docs/reference/routing.md are what the router does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from headgate.config.routes import MatchSpec
from headgate.plan.router import Matched, MatchInput, Router, rule_from_spec
from headgate.wire.host import parse_authority
from headgate.wire.target import Target, parse_target

PAGE = (Path(__file__).parents[2] / "docs/reference/routing.md").read_text()
[BLOCK] = re.findall(r"<!-- routes:.*?```yaml\n(.*?)```", PAGE, re.DOTALL)
ROUTES = yaml.safe_load(BLOCK)
ROWS = re.findall(r"^\| `([A-Z]+ [^`]*)` \| `([a-z-]+)` \|", PAGE, re.MULTILINE)
ROUTER = Router(
    [
        rule_from_spec(
            MatchSpec.model_validate(route.get("match", {})),
            i,
            route["name"],
            route.get("priority", 0),
        )
        for i, route in enumerate(ROUTES)
    ]
)
REQUEST = re.compile(
    r"(?P<method>\S+) (?P<host>[^/]+)(?P<target>/\S*)"
    r"(?: \[(?P<name>[^:]+): (?P<value>[^\]]*)\])?(?: from (?P<ip>\S+))?"
)


def test_the_page_has_its_examples():
    assert len(ROWS) > 20
    assert {name for _, name in ROWS} == {route["name"] for route in ROUTES}


@pytest.mark.parametrize(("line", "name"), ROWS)
def test_an_example_of_the_page_holds(line, name):
    said = REQUEST.fullmatch(line)
    assert said
    authority = parse_authority(said["host"].encode())
    target = parse_target(said["method"], said["target"].encode())
    assert authority
    assert isinstance(target, Target)
    headers = ((said["name"].encode(), said["value"].encode()),) if said["name"] else ()
    answer = ROUTER.match(
        MatchInput(
            said["method"],
            authority.host,
            target.path,
            target.query,
            headers,
            said["ip"] or "192.0.2.9",
        )
    )
    assert isinstance(answer, Matched)
    assert ROUTES[answer.index]["name"] == name
