"""The order of the rooms: imports point down, and a light room stays light.

ORDER is the rule. A module may import from its own room and from rooms of lower levels; rooms of
one level do not know each other, except where SIDEWAYS says so with the reason.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"

ORDER: tuple[frozenset[str], ...] = (
    frozenset({"__init__", "errors", "units"}),
    frozenset({"config", "wire", "policy", "state", "cache", "security", "observe", "db"}),
    frozenset({"plan"}),
    frozenset({"gateway", "testing", "mesh", "delivery", "interop", "resilience"}),
    frozenset({"kit"}),
    frozenset({"control", "load", "cli"}),
    frozenset({"__main__"}),
)

SIDEWAYS: frozenset[tuple[str, str]] = frozenset(
    {
        ("__init__", "kit"),  # `headgate.harden`, loaded when it is asked for
        ("cache", "policy"),  # a layer that is away is left alone by the same breaker
        ("cache", "state"),  # what a Redis is called, and how it is reached, stands once
        ("cache", "wire"),  # structured fields, dates and lists are read as on the wire
        ("cli", "control"),  # a command starts the supervisor or asks the admin API
        ("cli", "load"),  # likewise the load engine
        ("config", "cache"),  # a policy's defaults stand once, with the policy
        ("config", "observe"),  # likewise
        ("config", "policy"),  # likewise
        ("config", "security"),  # likewise
        ("config", "wire"),  # an instance's URL is read in one way
        ("policy", "wire"),  # dates of HTTP are read in one way
        ("mesh", "resilience"),  # a call obeys the deadline and attempt of the call around it
        ("observe", "policy"),  # those who deliver wait and try again by the same rules
        ("observe", "security"),  # what is logged is redacted by the rules of security
        ("security", "db"),  # accounts are kept in a database
        ("security", "policy"),  # bans and lock-outs count by the same windows
        ("security", "wire"),  # keys are fetched, certificates made
        ("state", "policy"),  # a home of limits holds the limiters
        ("testing", "mesh"),  # a fake mesh is the real one with another end
    }
)

DOORS: frozenset[str] = frozenset(
    {
        "headgate.cache.asgi",
        "headgate.cache.gateway_link",
        "headgate.db.sqlite",
        "headgate.kit.fastapi",
        "headgate.observe.health",
        "headgate.observe.logs",
        "headgate.observe.tracing",
        "headgate.security.accounts",
        "headgate.security.accounts.fastapi",
        "headgate.security.audit",
        "headgate.security.identity",
        "headgate.security.redact",
        "headgate.security.secrets",
    }
)
"""What is public below a room: the modules that `docs/howto` tells services to import."""

LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every import of a file, also those inside functions, as (line, full dotted name)."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def modules(src: Path, package: str) -> Iterator[tuple[Path, str, bool]]:
    for path in sorted((src / package).rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def room_of(name: str) -> str:
    """The room a dotted name of headgate belongs to; the package itself is `__init__`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__"


def upward(src: Path) -> list[str]:
    """Every import that points up or sideways, as file:line and the import."""
    wrong = []
    for path, module, is_package in modules(src, "headgate"):
        own = module.split(".")[1] if "." in module else "__init__"
        if own not in LEVEL:
            wrong.append(f"{path}:1: the room {own} has no place in ORDER")
            continue
        for line, name in imported(ast.parse(path.read_text(), str(path)), module, is_package):
            if name.split(".")[0] == "headgate_shop":
                wrong.append(f"{path}:{line}: {own} imports the shop: {name}")
            if name.split(".")[0] != "headgate":
                continue
            other = room_of(name)
            if own == other or (own, other) in SIDEWAYS or LEVEL[other] < LEVEL[own]:
                continue
            wrong.append(f"{path}:{line}: {own} may not import {name}")
    return wrong


def private(src: Path) -> list[str]:
    """What the shop imports beyond the public API: `headgate`, `headgate.<room>` and DOORS."""
    wrong = []
    for path, module, is_package in modules(src, "headgate_shop"):
        tree = ast.parse(path.read_text(), str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
                parts = [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names, parts = [alias.name for alias in node.names], []
            else:
                continue
            for name in names:
                if name.split(".")[0] != "headgate":
                    continue
                if (name.count(".") > 1 and name not in DOORS) or any(
                    part.startswith("_") for part in parts
                ):
                    wrong.append(f"{path}:{node.lineno}: {module} imports {name} {parts}")
    return wrong


def test_imports_point_down():
    assert not upward(SRC), "\n" + "\n".join(upward(SRC))


def test_the_shop_imports_only_the_public_api():
    assert not private(SRC), "\n" + "\n".join(private(SRC))


@pytest.fixture
def tree(tmp_path: Path):
    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import headgate.gateway.worker\n", 1),
        ("from headgate.gateway import worker\n", 1),
        ("from headgate import gateway\n", 1),
        ("from ..gateway import worker\n", 1),
        ("from .. import gateway\n", 1),
        ("def late():\n    from headgate.plan.plan import Plan\n", 2),
        ("from headgate.config import Config\n", 1),  # a sibling
    ],
)
def test_an_import_that_points_up_is_reported_with_its_line(tree, text, line):
    src = tree(headgate__in__wire__in__tls=text)
    (wrong,) = upward(src)
    assert f"tls.py:{line}: wire may not import headgate." in wrong


@pytest.mark.parametrize(
    "text",
    [
        "from headgate.errors import HeadgateError\n",
        "from headgate import __version__\n",
        "from .message import Header\nfrom . import host\nfrom headgate.wire.http1 import head\n",
        "import asyncio, uvloop\n",
    ],
)
def test_an_import_that_points_down_or_stays_in_its_room_is_fine(tree, text):
    assert upward(tree(headgate__in__wire__in__tls=text)) == []


@pytest.mark.parametrize("door", sorted(DOORS))
def test_the_docs_show_each_public_door(door):
    pages = [page.read_text() for page in (ROOT / "docs" / "howto").glob("*.md")]
    room, _, last = door.rpartition(".")
    assert any(door in page or f"from {room} import {last}" in page for page in pages)


def test_a_room_without_a_place_is_reported(tree):
    (wrong,) = upward(tree(headgate__in__utils__in__things="import os\n"))
    assert "the room utils has no place" in wrong


def test_the_shop_may_not_reach_into_a_room(tree):
    src = tree(
        headgate_shop__in__good="from headgate.cache import Cache\nimport headgate\n"
        "from headgate.cache.asgi import CacheHeaders\n",
        headgate_shop__in__bad="from headgate.cache.layers import Layer\n",
    )
    (wrong,) = private(src)
    assert "bad.py:1" in wrong


# ---- light rooms stay light

HEAVY = (
    "fastapi",
    "uvicorn",
    "starlette",
    "rich",
    "typer",
    "uvloop",
    "watchfiles",
    "aiohttp",
    "redis",
)


def loaded_by(module: str) -> set[str]:
    code = f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SRC)},
    )
    return set(json.loads(done.stdout))


def test_importing_headgate_loads_no_room():
    loaded = {name for name in loaded_by("headgate") if name.startswith("headgate.")}
    assert loaded == set()


@pytest.mark.parametrize("room", ["config", "policy", "state", "observe", "testing", "kit"])
def test_a_light_room_pulls_in_neither_the_gateway_nor_a_web_framework(room):
    loaded = loaded_by(f"headgate.{room}")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("headgate.")}
    assert not rooms & {"gateway", "control", "cli", "plan"}
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_the_help_of_the_program_loads_no_command():
    loaded = loaded_by("headgate.cli.app")
    assert not {
        name for name in loaded if name.startswith(("headgate.control", "headgate.gateway"))
    }
