from __future__ import annotations

import importlib
import json
import os
import struct
from pathlib import Path

import pytest

from headgate.config import load
from headgate.control.launch import HandoverUnreadable, Launch, Outline, python, worker_count
from headgate.control.listening import Endpoint

OUTLINE = Outline(
    (Endpoint("127.0.0.1:1"), Endpoint("unix:/s", 0o600)),
    2,
    30.0,
    None,
    ("a",),
    (("v", "${env:V}"),),
)


def round_trip(launch: Launch) -> Launch:
    fd = launch.to_memfd()
    try:
        return Launch.from_memfd(fd)
    finally:
        os.close(fd)


def test_a_launch_survives_the_exec():
    launch = Launch(
        "/f", "/s", OUTLINE, b"\0document\xff", 3, True, "a:B", {"pid": 9, "fd": 7}, 4, {"pid": 1}
    )
    assert round_trip(launch) == launch


@pytest.mark.parametrize("workers", [None, 3])
def test_the_first_document_says_all_that_those_of_reloads_say(tmp_path, monkeypatch, workers):
    file = tmp_path / "headgate.yaml"
    file.write_text("listeners: [{bind: '127.0.0.1:0'}]\nworkers: auto\n")
    run = importlib.import_module("headgate.cli.run")
    launched: list[Launch] = []
    monkeypatch.setattr(run, "exec_supervisor", lambda fd: launched.append(Launch.from_memfd(fd)))
    run.run(file, workers=workers, state_dir=tmp_path / "s", watch=None)
    reloaded = load(file)
    outline = Outline.of(reloaded, workers)
    said = {**reloaded.document, "state_dir": str(tmp_path / "s")}
    assert json.loads(launched[0].document) == said
    assert said["workers"] == outline.workers


@pytest.mark.parametrize("content", [b"", b"\0" * 8, struct.pack("!Q", 2) + b"{}", b"\xff" * 100])
def test_what_is_no_launch_is_refused(content: bytes):
    fd = os.memfd_create("test")
    try:
        os.write(fd, content)
        with pytest.raises(HandoverUnreadable):
            Launch.from_memfd(fd)
    finally:
        os.close(fd)


def test_the_state_of_another_format_is_refused():
    fd = Launch("/f", "/s", OUTLINE).to_memfd()
    try:
        os.pwrite(fd, b"9", os.pread(fd, 100, 0).index(b'"format": 1') + len('"format": '))
        with pytest.raises(HandoverUnreadable, match="another format"):
            Launch.from_memfd(fd)
    finally:
        os.close(fd)


def test_nothing_is_imported_from_the_working_directory():
    assert "-P" in python("headgate.control.supervisor")


@pytest.mark.parametrize(
    ("quota", "most"),
    [("max 100000", 10_000), ("50000 100000", 1), ("150000 100000", 2), ("x", 10_000)],
)
def test_workers_are_one_a_core_that_the_container_may_use(tmp_path: Path, quota: str, most: int):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert worker_count(file) == min(most, len(os.sched_getaffinity(0)))
    assert worker_count(tmp_path / "absent") == len(os.sched_getaffinity(0))
