"""The worked example of docs/howto/plugins.md, loaded and called as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from headgate.errors import PluginInvalid
from headgate.gateway.filters import FilterContext, Headers, Reply, Request, Response
from headgate.gateway.filters.load import load_filter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "plugins.md"
CONTEXT = FilterContext(route="api", service="api")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "key_filters.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("key_filters", None)


def make_request(**headers: str) -> Request:
    named = Headers(
        (name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()
    )
    return Request("GET", "/", "", named, "192.0.2.1", False, "id", "api", "api", {})


def test_the_example_lets_only_the_right_key_through(folder):
    plugin = load_filter("key_filters:ApiKey", {"key": "right"}, CONTEXT, folder=folder)
    refused = plugin.on_request(make_request(x_api_key="wrong"))
    assert isinstance(refused, Reply)
    assert refused.status == 401
    request = make_request(x_api_key="right")
    assert plugin.on_request(request) is None
    assert "x-api-key" not in request.headers
    response = Response(200, Headers())
    plugin.on_response(request, response)
    assert response.headers.get("x-checked-by") == "ApiKey"


def test_a_misspelt_option_of_the_example_is_a_fault(folder):
    with pytest.raises(PluginInvalid, match="kye"):
        load_filter("key_filters:ApiKey", {"kye": "right"}, CONTEXT, folder=folder)
