"""What is told of found instances is on the disk a moment later, whole, and says its age."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from headgate.control import registering_kept
from headgate.control.registering_kept import RENEW_S, KeptMembers
from headgate.gateway.members_file import Kept, members_path, read_members, write_members


class Told:
    def __init__(self) -> None:
        self.services: dict[str, bool] = {"users": True, "orders": True}
        self.messages: dict[str, dict[str, Any]] = {}


class Rig:
    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.told = Told()
        self.folder = folder
        self.kept = KeptMembers(self.told, folder, lambda: self.now, lambda: 5000.0 + self.now)

    async def turn(self, passed_s: float = 2.0) -> Kept | None:
        """Let time pass, and see what is on the disk."""
        self.now += passed_s
        self.kept.turn()
        if self.kept._writing is not None:
            await self.kept._writing
        return read_members(members_path(self.folder))


def said(service: str, *urls: str) -> dict[str, Any]:
    rows = [{"url": url} for url in urls]
    return {"service": service, "epoch": "e", "revision": 1, "members": rows}


def test_what_is_told_is_written_and_written_again_so_that_its_age_is_known(tmp_path):
    async def run() -> None:
        rig = Rig(tmp_path)
        await rig.kept.open()
        assert await rig.turn() is None  # nobody was ever found
        rig.told.messages["users"] = said("users", "http://a")
        found = await rig.turn()
        assert found is not None
        assert (list(found.messages), found.at) == (["users"], 5000.0 + rig.now)
        before = found.at
        again = await rig.turn()
        assert again is not None
        assert again.at == before  # nothing is new
        later = await rig.turn(RENEW_S)
        assert later is not None
        assert later.at > before

    asyncio.run(run())


def test_a_service_that_is_not_told_yet_keeps_what_was_known_and_one_that_is_gone_goes(tmp_path):
    async def run() -> None:
        rows = {name: said(name, "http://a") for name in ("users", "orders", "gone")}
        write_members(members_path(tmp_path), Kept(1.0, rows))
        rig = Rig(tmp_path)
        await rig.kept.open()
        rig.told.messages["users"] = said("users", "http://b")
        found = await rig.turn()
        assert found is not None
        assert found.messages == {"users": said("users", "http://b"), "orders": rows["orders"]}
        del rig.told.services["orders"]
        rig.told.messages["users"] = said("users")
        await rig.kept.close()
        last = read_members(members_path(tmp_path))
        assert last is not None
        assert last.messages == {"users": said("users")}

    asyncio.run(run())


def test_what_cannot_be_written_is_told_once_and_tried_again(tmp_path, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        rig = Rig(tmp_path)
        await rig.kept.open()
        rig.told.messages["users"] = said("users", "http://a")
        with monkeypatch.context() as patched:
            patched.setattr(registering_kept, "write_members", full)
            await rig.turn()
            await rig.turn()
            assert rig.kept.worry == "No space left on device"
            assert caplog.text.count("No space left") == 1
        assert await rig.turn() is not None
        assert rig.kept.worry == ""

    asyncio.run(run())


def test_a_writing_that_takes_long_makes_the_next_one_wait(tmp_path):
    async def run() -> None:
        rig = Rig(tmp_path)
        await rig.kept.open()
        rig.told.messages["users"] = said("users", "http://a")
        rig.now += 2.0
        rig.kept.turn()
        rig.now += 1.0  # as long as the disk takes
        assert rig.kept._writing is not None
        await rig.kept._writing
        rig.told.messages["users"] = said("users", "http://b")
        found = await rig.turn(10.0)
        assert found is not None
        assert found.messages["users"] == said("users", "http://a")
        found = await rig.turn(15.0)
        assert found is not None
        assert found.messages["users"] == said("users", "http://b")

    asyncio.run(run())


def test_more_than_can_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("headgate.gateway.members_file.LARGEST", 200)
    path = members_path(tmp_path)
    write_members(path, Kept(1.0, {"a": said("a")}))
    with pytest.raises(ValueError, match="larger"):
        write_members(path, Kept(2.0, {"a": said("a", *["http://10.0.0.1"] * 20)}))
    with contextlib.suppress(ValueError):
        kept = read_members(path)
        assert kept is not None
        assert kept.at == 1.0
