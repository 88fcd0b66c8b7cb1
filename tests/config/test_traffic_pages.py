"""Every piece of a file in the pages about traffic is one that loads, once it is made whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headgate.config import load

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("howto/traffic-policies.md", "howto/health-and-outliers.md", "overload.md", "chaos.md")
BLOCKS = [
    pytest.param(block, id=f"{Path(page).stem}-{at}")
    for page in PAGES
    for at, block in enumerate(
        re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    )
]
NAMES = ("users", "products", "products-next", "search", "reports", "tips")


def whole(block: str) -> dict[str, Any]:
    """What the piece leaves out: the services that it names, routes to those that it has."""
    said: dict[str, Any] = {"listeners": ["127.0.0.1:0"], **yaml.safe_load(block)}
    services = said.setdefault("services", {})
    for number, name in enumerate(NAMES, 3001):
        services.setdefault(name, {"instances": [f"http://10.0.9.1:{number}"]})
    routes = said.setdefault("routes", [])
    for name in services:
        routes.append({"match": {"path": f"/all-of-{name}/"}, "to": name})
    return said


@pytest.mark.parametrize("block", BLOCKS)
def test_the_files_of_the_pages_load(block, tmp_path):
    path = tmp_path / "headgate.yaml"
    path.write_text(yaml.safe_dump(whole(block)))
    found = [str(each) for each in load(path, {}).warnings]
    # Who asks is known by `auth`, which is told on other pages.
    assert [each for each in found if "nobody is known by" not in each] == []


def test_there_are_some():
    assert len(BLOCKS) >= 10
