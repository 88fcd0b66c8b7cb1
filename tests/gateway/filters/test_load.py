"""Loading plugins: what works, and exactly what is said of what does not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
from pathlib import Path

import pytest

from headgate.errors import PluginInvalid
from headgate.gateway.filters import Outcome, Reply
from headgate.gateway.filters import build_chain as build_chain_or_none
from headgate.gateway.filters.load import load_filter


def build_chain(filters):
    return build_chain_or_none(filters)


GOOD = """
from pydantic import Field, field_validator
from headgate.gateway.filters import Filter, Reply

class Stamp(Filter):
    class Options(Filter.Options):
        header: str
        limit: int = Field(3, ge=1)
        words: list[str] = []

        @field_validator("header")
        @classmethod
        def _known(cls, value):
            if value == "x-bad":
                raise ValueError("Not this one")
            return value

    def __init__(self, options, context):
        super().__init__(options, context)
        if options.limit == 99:
            raise ValueError("99 is too many")
        if options.limit == 98:
            raise RuntimeError("no 98")
        if options.limit == 97:
            raise SystemExit(3)

    def on_request(self, request):
        request.headers.set(self.options.header, self.context.route)

class Plain(Filter):
    pass

class NoBase(Filter):
    def __init__(self, options, context):
        pass

class BadOptions(Filter):
    Options = dict

class NotAFilter:
    pass

value = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "hgplug").mkdir()
    (tmp_path / "hgplug" / "__init__.py").write_text("")
    (tmp_path / "hgplug" / "good.py").write_text(GOOD)
    (tmp_path / "hgplug" / "syntax.py").write_text("def f(:\n")
    (tmp_path / "hgplug" / "raises.py").write_text("x = 1\nx.y\n")
    (tmp_path / "hgplug" / "exits.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "hgplug" / "needs.py").write_text("import no_such_library_here\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(folder, context, use="hgplug.good:Stamp", options=None):
    return load_filter(
        use, {"header": "x-a"} if options is None else options, context, folder=folder,
        where="routes[1].plugins[0]", locate=lambda where: ("headgate.yaml", 7, 3),
    )  # fmt: skip


def test_a_plugin_beside_the_file_is_built_with_its_options(folder, context, make_request):
    chain = build_chain([load(folder, context)])
    request = make_request()
    chain.run_request(request)
    assert request.headers.get("x-a") == "users"


def test_the_folder_comes_after_the_path(folder, context):
    (folder / "json.py").write_text("raise RuntimeError('the wrong json')")
    load(folder, context)
    assert sys.path[-1] == str(folder)
    load(folder, context)
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    "use, where, message, hint",
    [
        ("hgplug.good", "use", "does not name a class", 'write "package.module:Class"'),
        ("hgplug.good:", "use", "does not name a class", ""),
        ("hgplug.god:Stamp", "use", 'no module named "hgplug.god"', "it is not on the Python path or in"),
        ("nowhere.at_all:X", "use", 'no module named "nowhere"', ""),
        ("hgplug.good:Stmap", "use", 'has no class "Stmap"', 'did you mean "Stamp"?'),
        ("hgplug.good:NotAFilter", "use", "is not a Filter", "derive it from"),
        ("hgplug.good:value", "use", "is not a Filter", ""),
        ("hgplug.good:BadOptions", "use", "Options is not a pydantic model", ""),
        ("hgplug.good:NoBase", "use", "did not initialise its base", "super().__init__"),
        ("hgplug.syntax:X", "use", "SyntaxError", ""),
        ("hgplug.raises:X", "use", "has no attribute 'y'", ""),
        ("hgplug.exits:X", "use", "fails on import: SystemExit", ""),
        ("hgplug.needs:X", "use", 'needs "no_such_library_here", which is not installed', "needs.py:1"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why(folder, context, use, where, message, hint):
    options: dict[str, str] | None = {} if use.endswith("NoBase") else None
    with pytest.raises(PluginInvalid) as caught:
        load(folder, context, use, options)
    (fault,) = caught.value.faults
    assert fault.where == f"routes[1].plugins[0].{where}"
    assert (fault.file, fault.line, fault.column) == ("headgate.yaml", 7, 3)
    assert message in fault.message
    assert hint in fault.hint


def test_a_fault_on_import_names_the_line_of_the_plugin(folder, context):
    with pytest.raises(PluginInvalid, match=r"raises\.py:2"):
        load(folder, context, "hgplug.raises:X")


@pytest.mark.parametrize(
    "options, faults",
    [
        ({}, [("options.header", "required option is missing", "")]),
        (
            {"header": "x", "limt": 3},
            [("options.limt", "unknown option", 'did you mean "limit"?')],
        ),
        (
            {"header": "x", "zzz": 3},
            [("options.zzz", "unknown option", "the options are header, limit, words")],
        ),
        (
            {"header": "x", "limit": 0, "words": ["a", 5]},
            [
                ("options.limit", "input should be greater than or equal to 1", ""),
                ("options.words[1]", "input should be a valid string", ""),
            ],
        ),
        ({"header": "x-bad"}, [("options.header", "not this one", "")]),
        ({"header": "x", "limit": 99}, [("options", "99 is too many", "")]),
    ],
)
def test_wrong_options_are_named_with_the_reason(folder, context, options, faults):
    with pytest.raises(PluginInvalid) as caught:
        load(folder, context, options=options)
    got = [
        (f.where.removeprefix("routes[1].plugins[0]."), f.message, f.hint)
        for f in caught.value.faults
    ]
    assert got == faults


def test_options_of_a_plugin_without_any(folder, context):
    load(folder, context, "hgplug.good:Plain", {})
    with pytest.raises(PluginInvalid, match="it takes no options"):
        load(folder, context, "hgplug.good:Plain", {"a": 1})


@pytest.mark.parametrize("limit", [98, 97])
def test_a_constructor_that_fails_is_a_fault(folder, context, limit):
    with pytest.raises(PluginInvalid, match="cannot be built"):
        load(folder, context, options={"header": "x", "limit": limit})


def test_a_fault_never_shows_the_value(folder, context):
    with pytest.raises(PluginInvalid) as caught:
        load(folder, context, options={"header": "x", "limit": "s3cret"})
    assert "s3cret" not in str(caught.value)


EXAMPLES = Path(__file__).parents[3] / "examples" / "plugins"


@pytest.fixture
def example(context, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def build(name, **options):
        return build_chain([load_filter(f"shop_filters:{name}", options, context, folder=EXAMPLES)])

    yield build
    sys.modules.pop("shop_filters", None)


def test_the_maintenance_example(example, make_request):
    chain = example("Maintenance", allow=["192.0.2.1"], retry_after=5)
    assert chain.run_request(make_request(client_ip="192.0.2.1")) is None
    reply = chain.run_request(make_request(client_ip="192.0.2.7"))
    assert reply.status == 503
    assert ("retry-after", "5") in reply.headers


def test_the_webhook_example(example, make_request):
    chain = example("SignedWebhook", secret="k")
    assert chain.request_body_max == 65536
    assert chain.run_request(make_request()).status == 401
    good = hmac.new(b"k", b"body", hashlib.sha256).hexdigest()
    signed = make_request([(b"x-signature", good.encode())])
    assert chain.run_request(signed) is None
    assert chain.run_request_body(signed, b"body", True) == b"body"
    assert chain.run_request_body(signed, b"bodi", True).status == 401


def test_the_redirects_example(example, make_request, tmp_path):
    (tmp_path / "links.json").write_text('{"/x": "https://shop.example/"}')
    chain = example("Redirects", file=str(tmp_path / "links.json"))

    async def first():
        return await chain.run_request(make_request(path="/x"))

    expected = Reply(302, headers=(("location", "https://shop.example/"),))
    assert asyncio.run(first()) == expected
    assert chain.run_request(make_request(path="/x")) == expected
    assert chain.run_request(make_request(path="/y")) is None


def test_the_slow_requests_example(example, make_request, make_response, caplog):
    chain = example("SlowRequests", threshold=0.5)
    request, response = make_request(), make_response([(b"x-slow-query", b"SELECT 1")])
    chain.run_response(request, response)
    assert len(response.headers) == 0
    chain.end[0](request, Outcome(200, 0.4, 0, 0, None, None))
    assert caplog.text == ""
    chain.end[0](request, Outcome(200, 0.6, 0, 0, None, "127.0.0.1:3001"))
    assert "took 0.600 s on 127.0.0.1:3001; slowest query: SELECT 1" in caplog.text
