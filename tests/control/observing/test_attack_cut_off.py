"""A change of the file that was cut off between the file and the reload is told until it is over."""

from __future__ import annotations

import os
from pathlib import Path

from headgate.control.config_history import ConfigHistory
from headgate.control.reload import ReloadResult

DOCUMENT = {"workers": 1}


def history(folder: Path) -> ConfigHistory:
    file = folder / "headgate.yaml"
    if not file.exists():
        file.write_text("workers: 1\n")
    (folder / "state").mkdir(exist_ok=True)
    return ConfigHistory(folder / "state", file)


def test_a_change_that_was_cut_off_is_a_worry_until_a_reload_took_effect(tmp_path):
    history(tmp_path).begin_change("PUT /api/config by ann")
    after = history(tmp_path)
    after.begin(0.0, 1, DOCUMENT, ())
    assert "PUT /api/config by ann was cut off" in "".join(after.worries())
    assert "reload" in "".join(after.worries())
    after.keep(b"", ReloadResult(ok=False, generation=1, at=1.0), DOCUMENT, ())
    assert list(after.worries())
    after.keep(b"", ReloadResult(ok=True, generation=2, at=2.0), DOCUMENT, ())
    assert not list(after.worries())
    again = history(tmp_path)
    again.begin(0.0, 2, DOCUMENT, ())
    assert not list(again.worries())


def test_a_change_that_ended_is_no_worry(tmp_path):
    before = history(tmp_path)
    before.begin_change("x")
    before.end_change()
    after = history(tmp_path)
    after.begin(0.0, 1, DOCUMENT, ())
    assert not list(after.worries())


def test_a_run_that_began_since_has_read_the_file(tmp_path):
    history(tmp_path).begin_change("x")
    os.utime(tmp_path / "state" / "config-history" / "changing", (100.0, 100.0))
    after = history(tmp_path)
    after.begin(200.0, 1, DOCUMENT, ())
    assert not list(after.worries())


def test_a_full_disk_keeps_no_change_from_being_tried(tmp_path):
    kept = history(tmp_path)
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    kept.begin_change("x")
    kept.end_change()
