"""A worker that starts while control is away goes by what control has kept on the disk."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from headgate.gateway import members
from headgate.gateway.members_file import AGE_MAX_S, Kept, members_path, read_members, write_members
from headgate.gateway.worker import Worker
from headgate.state.hub import HubShared
from tests.gateway.test_members import Linked, discovering

A, B = "http://127.0.0.1:9", "http://127.0.0.1:19"


def told(*urls: str, revision: int = 3, service: str = "upstream") -> dict[str, Any]:
    rows = [{"url": url, "weight": 1} for url in urls]
    return {"service": service, "epoch": "e", "revision": revision, "members": rows}


async def seated(folder: Path, *, answers: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Instances that a worker begins with, and after control has answered, if it does."""
    hub = HubShared()
    worker = Worker(0, lambda _: None)
    worker.take_shared(hub)
    link = Linked()
    said: list[Any] = []
    link.send = lambda kind, *_, **fields: said.append((kind, fields))  # type: ignore[method-assign]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        made = {**discovering(), "state_dir": str(folder)}
        await worker.apply(made, {"127.0.0.1:0": [sock]}, 1)
        first = sorted(line.name for line in worker._lines.values())
        hub.attach(link)
        offered = [row[3]["members"] for row in said[0][1]["retained"] if row[0] == "members"]
        if answers is not None:
            version = time.time_ns() // 1000
            retained = [["members", "upstream", version, answers]]
            hub.heard("shared_welcome", {"holders": 1, "retained": retained})
        last = sorted(line.name for line in worker._lines.values())
        await worker.drain(0.0)
    hub.detach()
    return (first, offered), last


@pytest.fixture(autouse=True)
def no_wait(monkeypatch) -> None:
    monkeypatch.setattr(members, "FIRST_NEWS_S", 0.02)


def keep(folder: Path, *messages: dict[str, Any], at: float | None = None) -> None:
    rows = {message["service"]: message for message in messages}
    write_members(members_path(folder), Kept(at if at is not None else time.time(), rows))


def test_it_begins_with_what_was_kept_until_control_says_otherwise(tmp_path):
    keep(tmp_path, told(A, B), told(A, service="elsewhere"))
    (first, offered), last = asyncio.run(seated(tmp_path, answers=told(B, revision=9)))
    assert first == sorted([A, B])
    assert [row["url"] for row in offered[0]] == [A, B]  # control that has lost its memory hears it
    assert last == [B]


def test_another_epoch_of_control_takes_its_place_as_well(tmp_path):
    keep(tmp_path, told(A))
    _, last = asyncio.run(seated(tmp_path, answers={**told(B, revision=1), "epoch": "f"}))
    assert last == [B]


def test_what_is_older_than_a_day_is_left_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    keep(tmp_path, told(A), at=time.time() - AGE_MAX_S - 5)
    assert asyncio.run(seated(tmp_path))[0][0] == []
    assert "nothing is known" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "[" * 100_000,
        json.dumps({"format": 2, "at": 1.0, "services": {}}),
        json.dumps({"format": 1, "at": "now", "services": {}}),
        json.dumps({"format": 1, "at": 1.0, "services": []}),
    ],
    ids=["empty", "text", "list", "deep", "newer", "no-time", "no-services"],
)
def test_a_file_that_is_spoilt_is_as_none(tmp_path, text, caplog):
    path = members_path(tmp_path)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError):
        read_members(path)
    assert asyncio.run(seated(tmp_path))[0][0] == []
    assert "cannot be read" in caplog.text


def test_rows_that_make_no_sense_take_nothing_along(tmp_path):
    keep(tmp_path, {**told(A), "members": [{"url": A}, {"url": 7}, {"weight": 3}]})
    assert asyncio.run(seated(tmp_path))[0][0] == [A]
    keep(tmp_path, {**told(A), "members": "all of them"})
    assert asyncio.run(seated(tmp_path))[0][0] == []


def test_only_its_owner_may_read_the_file(tmp_path):
    keep(tmp_path, told(A))
    path = members_path(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
