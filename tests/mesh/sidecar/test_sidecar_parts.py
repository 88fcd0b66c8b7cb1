"""Parts of a sidecar by themselves: what it is started with, what it keeps, what it tells."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
from typing import Any

import pytest

import headgate
from headgate.control.sidecar_settings import from_memfd, to_memfd
from headgate.mesh.client.control import Answer, Control
from headgate.mesh.client.failures import ControlAway
from headgate.mesh.sidecar.children import ChildFailed, ask_child
from headgate.mesh.sidecar.document import Beside
from headgate.mesh.sidecar.portions import NoPortion, Portions
from headgate.mesh.sidecar.registered import Registered
from headgate.mesh.sidecar.settings import Settings
from headgate.mesh.sidecar.thin import install
from headgate.mesh.sidecar.told import EdgesSeen, RefusalsSeen, edges_of, refusals_of
from headgate.observe.histogram import BOUNDS, empty


class ScriptedControl(Control):
    """Answers from a list; None is a control that is away."""

    text = "control"

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []

    async def ask(self, method, path, body=None, *, timeout_s=5.0):
        self.asked.append((method, path.partition("/instances/")[2] or path, body))
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            raise ControlAway("away")
        return answer


HELD = Answer(201, {"fence": 7, "ttl_s": 3.0, "beat_every_s": 0.02})
BEATEN = Answer(200, {"ttl_s": 3.0, "beat_every_s": 0.02})


def registered(control, wellness=()):
    well = list(wellness)

    async def is_well():
        return well.pop(0) if well else True

    asked = {"url": "http://10.0.0.1:8443"}
    return Registered(control, "orders", "a-1", asked, is_well, random.Random(1))


async def run_until(one, control, count):
    task = asyncio.create_task(one.run())
    async with asyncio.timeout(20):
        while len(control.asked) < count and not task.done():
            await asyncio.sleep(0.005)
    return task


def test_a_process_is_registered_once_it_is_well_and_beats():
    async def play():
        control = ScriptedControl(HELD, BEATEN, BEATEN)
        one = registered(control, [False, True])
        task = await run_until(one, control, 3)
        task.cancel()
        assert [each[:2] for each in control.asked[:3]] == [
            ("PUT", "a-1"),
            ("POST", "a-1/beat"),
            ("POST", "a-1/beat"),
        ]
        assert control.asked[1][2] == {"fence": 7, "health": "up"}

    asyncio.run(play())


def test_one_bad_look_is_forgiven_and_two_are_told():
    async def play():
        control = ScriptedControl(HELD, *[BEATEN] * 4)
        one = registered(control, [True, False, False, True])
        task = await run_until(one, control, 4)
        task.cancel()
        assert [each[2]["health"] for each in control.asked[1:4]] == ["up", "down", "up"]

    asyncio.run(play())


def test_control_that_is_away_is_asked_again_and_one_that_has_forgotten_is_told_anew():
    async def play():
        control = ScriptedControl(None, HELD, None, Answer(404, {}), HELD)
        one = registered(control)
        task = await run_until(one, control, 5)
        task.cancel()
        assert [each[0] for each in control.asked[:5]] == ["PUT", "PUT", "POST", "POST", "PUT"]

    asyncio.run(play())


def test_whose_id_another_has_taken_ends_and_leaves_nothing():
    async def play():
        control = ScriptedControl(HELD, Answer(409, {"detail": "fenced"}))
        one = registered(control)
        await asyncio.wait_for(one.run(), 20)
        assert await one.leave(1.0) is False
        assert len(control.asked) == 2

    asyncio.run(play())


def test_leaving_is_told_at_once_and_the_end_after_it():
    async def play():
        control = ScriptedControl(HELD, Answer(200, {}), Answer(200, {}))
        one = registered(control)
        task = await run_until(one, control, 1)
        async with asyncio.timeout(20):
            while one.lease.state != "held":
                await asyncio.sleep(0)
        assert await one.leave(5.0) is True
        await one.gone()
        await one.gone()
        await asyncio.wait_for(task, 20)
        assert [each[1] for each in control.asked[1:]] == [
            "a-1?fence=7&drain=5s",
            "a-1?fence=7&drain=0s",
        ]

    asyncio.run(play())


def test_what_a_sidecar_is_to_be_travels_whole_and_shows_no_secret():
    settings = Settings(Beside("orders", "http://127.0.0.1:1"), token="hunter22", join_token="jt22")
    assert "hunter22" not in repr(settings) and "jt22" not in repr(settings)
    assert from_memfd(to_memfd(settings)) == settings


# -- what it goes by -------------------------------------------------------------------------------

PART = {"services": {"users": {"discover": "registry"}}}


def test_the_last_portion_is_gone_by_while_control_is_away(tmp_path):
    async def play():
        portions = Portions(None, "", tmp_path)
        with pytest.raises(NoPortion):
            await portions.first()
        said = Answer(200, {"tag": "t1", "portion": PART})
        control = ScriptedControl(said, Answer(200, {"tag": "t1", "portion": None}), said)
        portions = Portions(control, "", tmp_path)
        assert await portions.first() == PART
        assert await portions.fresh(1.0) is None
        assert control.asked[1][1] == "/api/mesh/sidecar?known=t1&wait=1"
        portions.again()  # it could not be taken up
        assert await portions.fresh(1.0) == PART
        assert control.asked[2][1] == "/api/mesh/sidecar?known=&wait=1"
        await portions.keep(PART)
        assert (tmp_path / "portion.json").stat().st_mode & 0o077 == 0
        assert await Portions(ScriptedControl(None), "", tmp_path).first() == PART

    asyncio.run(play())


@pytest.mark.parametrize(
    "kept",
    [b"", b"{", b"[]", b'{"format": 9, "portion": {}}', b'{"format": 1, "portion": []}', b"\xff"],
    ids=["empty", "cut", "list", "newer", "no-portion", "bytes"],
)
def test_a_spoilt_portion_is_moved_aside_or_passed_over(tmp_path, kept):
    async def play():
        (tmp_path / "portion.json").write_bytes(kept)
        with pytest.raises(NoPortion, match="control is away"):
            await Portions(ScriptedControl(None), "", tmp_path).first()

    asyncio.run(play())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, {"detail": "no"}),
        Answer(200, None),
        Answer(200, {}),
        Answer(200, {"portion": {}}),
    ],
    ids=["refused", "empty", "nothing", "no-tag"],
)
def test_what_is_no_portion_is_said(tmp_path, answer):
    with pytest.raises(NoPortion, match="does not say"):
        asyncio.run(Portions(ScriptedControl(answer), "", tmp_path).first())


# -- children --------------------------------------------------------------------------------------


def test_a_child_answers_fails_or_is_ended(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, json, time\n"
        "asked = json.load(sys.stdin)\n"
        "if asked['do'] == 'sleep': time.sleep(60)\n"
        "if asked['do'] == 'fail': sys.exit('it went wrong')\n"
        "print(json.dumps(asked) if asked['do'] == 'answer' else 'nonsense')\n"
    )
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    shim.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shim))

    async def play():
        assert await ask_child("any", {"do": "answer"}) == {"do": "answer"}
        for do, said in (("fail", "it went wrong"), ("nonsense", "no JSON")):
            with pytest.raises(ChildFailed, match=said):
                await ask_child("any", {"do": do})
        with pytest.raises(ChildFailed, match="did not end"):
            await ask_child("any", {"do": "sleep"}, 0.3)

    asyncio.run(play())


# -- what it tells ---------------------------------------------------------------------------------


def rows(requests: int, errors: int = 0):
    counts = empty()
    counts[BOUNDS.index(0.01)] = requests + errors
    return {
        "headgate_http_requests_total": [
            (["outbound users", "users", "GET", "200"], requests),
            (["outbound /users/", "users", "GET", "503"], errors),
            (["inbound orders", "orders", "GET", "200"], 99),
            (["", "", "GET", "404"], 5),
        ],
        "headgate_http_request_duration_seconds": [
            (["outbound users", "users"], {"counts": counts, "sum": 0.01 * (requests + errors)})
        ],
        "headgate_upstream_retries_total": [(["users", "http://u:1"], 2)],
    }


def test_what_goes_out_is_told_by_service_and_what_comes_in_is_not():
    found = edges_of(rows(3, 1), lambda name: name)
    assert list(found) == ["users"]
    edge = found["users"].to_json()
    assert (edge["requests"], edge["errors"], edge["retries"]) == (4, 1, 2)
    assert edge["duration_s"]["count"] == 4
    assert edge["duration_s"]["buckets"][5] == 4  # up to 10 ms
    json.dumps(edge)


def test_what_did_not_arrive_goes_along_with_the_next_report():
    seen = EdgesSeen()
    name = str
    assert seen.take(edges_of(rows(3), name))[0].requests == 3
    assert seen.take(edges_of(rows(5), name))[0].requests == 5
    seen.taken()
    assert seen.take(edges_of(rows(5), name)) == []
    (since,) = seen.take(edges_of(rows(9), name))
    assert (since.requests, sum(since.buckets)) == (4, 4)


def test_refusals_are_told_once_and_again_if_they_did_not_arrive():
    key = ["orders", "users", "default", "strict"]
    seen = RefusalsSeen()
    for count, told in ((2, 2), (3, 3)):
        (one,) = seen.take(refusals_of({"headgate_mesh_refused_total": [(key, count)]}))
        assert (one["source"], one["count"]) == ("orders", told)
    seen.taken()
    assert seen.take(refusals_of({"headgate_mesh_refused_total": [(key, 3)]})) == []
    assert seen.take(refusals_of({})) == []


# -- what it weighs --------------------------------------------------------------------------------


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package of ours with two modules, thin."""
    home = tmp_path / "thinned"
    home.mkdir()
    (home / "__init__.py").write_text(
        "from headgate.thinned.heavy import WEIGHT\nOPENED = True\n__all__ = ['WEIGHT']\n"
    )
    (home / "heavy.py").write_text("from headgate.thinned.light import NAME\nWEIGHT = 10\n")
    (home / "light.py").write_text("NAME = 'light'\n")
    monkeypatch.setattr(headgate, "__path__", [*headgate.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    install()
    install()
    yield
    for name in [name for name in sys.modules if name.startswith("headgate.thinned")]:
        del sys.modules[name]
    vars(headgate).pop("thinned", None)


def test_a_thin_package_is_opened_when_somebody_asks_for_what_is_in_it(room):
    assert importlib.import_module("headgate.thinned.light").NAME == "light"
    assert "headgate.thinned.heavy" not in sys.modules
    package = sys.modules["headgate.thinned"]
    assert package.light.NAME == "light"
    assert package.WEIGHT == 10
    assert package.OPENED is True
    assert "headgate.thinned.heavy" in sys.modules
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_a_module_is_found_by_its_package_without_opening_it(room):
    package = importlib.import_module("headgate.thinned")
    assert package.heavy.WEIGHT == 10
    assert "OPENED" not in vars(package)
