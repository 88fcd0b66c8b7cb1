"""Plugins that guard: the one on the page and the one among the examples, at a running gateway."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import PluginInvalid
from headgate.gateway.filters import FilterContext, Headers, Reply, Request
from headgate.gateway.filters.load import load_filter
from headgate.testing import EchoServer
from tests.gateway.conftest import start  # noqa: F401 - a fixture
from tests.gateway.rig import document, get, request

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "plugins.md"
CONTEXT = FilterContext(route="api", service="api")


class Lent:
    """What a worker lends, as far as these plugins use it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def suspect(self, client_ip, kind, weight=1.0):
        self.seen.append(("suspect", client_ip, kind, weight))

    def count(self, policy, outcome):
        self.seen.append(("count", policy, outcome))

    def note(self, kind, fields):
        self.seen.append(("note", kind, *fields.values()))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's guard and the examples, each as a module beside a configuration."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "door_filters.py").write_text(next(each for each in blocks if "OneDoor" in each))
    examples = (ROOT / "examples" / "plugins" / "shop_filters.py").read_text()
    (tmp_path / "trap_filters.py").write_text(examples)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("door_filters", None)
    sys.modules.pop("trap_filters", None)


def make_request(path="/", **headers: str) -> Request:
    named = Headers(
        (name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()
    )
    return Request("GET", path, "", named, "192.0.2.1", False, "id", "api", "api", {})


def test_the_guard_of_the_page_tells_who_knocked(folder):
    door = load_filter("door_filters:OneDoor", {"word": "open sesame"}, CONTEXT, folder=folder)
    assert door.is_early
    assert door.on_request(make_request(x_word="open sesame")) is None
    assert isinstance(door.on_request(make_request()), Reply)  # never started: only checked
    lent: Any = Lent()
    door.start(lent)
    refused = door.on_request(make_request(x_word="please"))
    assert isinstance(refused, Reply)
    assert refused.status == 403
    assert lent.seen == [
        ("suspect", "192.0.2.1", "bad_credentials", 1.0),
        ("count", "one_door", "refused"),
        ("note", "one_door", "192.0.2.1", "api"),
    ]


def test_an_option_that_the_guard_refuses_is_a_fault(folder):
    with pytest.raises(PluginInvalid, match="fewer than 8 characters"):
        load_filter("door_filters:OneDoor", {"word": "short"}, CONTEXT, folder=folder)


def test_the_trap_of_the_examples_counts_who_steps_into_it(folder):
    trap = load_filter("trap_filters:Trap", {"weight": 3}, CONTEXT, folder=folder)
    lent: Any = Lent()
    trap.start(lent)
    assert trap.on_request(make_request("/orders")) is None
    assert lent.seen == []
    sprung = trap.on_request(make_request("/.env"))
    assert isinstance(sprung, Reply)
    assert sprung.status == 404
    assert ("suspect", "192.0.2.1", "malformed", 3.0) in lent.seen


@pytest.mark.integration
def test_a_guard_stands_before_authentication_and_its_word_leads_to_a_ban(start, folder):  # noqa: F811
    sys.path.append(str(folder))
    jwt = {"issuer": "https://id.example", "audience": "shop", "secret": "0" * 32}
    trap = {"use": "trap_filters:Trap", "options": {"weight": 30}}
    with EchoServer() as echo:
        gateway = start(
            document(
                echo.url,
                route={"plugins": [trap], "auth": "jwt"},
                auth={"jwt": jwt},
                bans={"loopback": True},
            )
        )
        assert gateway.ask(get("/orders"))[0].status == 401
        assert gateway.ask(get("/.env"))[0].status == 404
        assert gateway.ask(get("/orders"))[0].status == 403


GLANCE = """
from headgate.gateway.filters import Filter, Reply


class Glance(Filter):
    request_body_max = 10
    request_body_over = "{over}"

    def on_request_body(self, request, chunk, last):
        return Reply(403, b"seen") if chunk else chunk
"""


@pytest.mark.integration
@pytest.mark.parametrize(("over", "long"), [("pass", 200), ("refuse", 413)], ids=["pass", "refuse"])
def test_a_body_too_long_to_look_at_goes_on_or_not(start, tmp_path, monkeypatch, over, long):  # noqa: F811
    (tmp_path / f"glance_{over}.py").write_text(GLANCE.format(over=over))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with EchoServer() as echo:
        gateway = start(document(echo.url, route={"plugins": [{"use": f"glance_{over}:Glance"}]}))
        assert gateway.ask(request("POST", "/", body=b"short"))[0].status == 403
        assert gateway.ask(request("POST", "/", body=b"x" * 11))[0].status == long
    sys.modules.pop(f"glance_{over}", None)
