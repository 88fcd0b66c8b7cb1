"""Instances that the files of a directory name: what is read, what is kept, what is a worry."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from headgate.mesh.registry import from_directory
from headgate.mesh.registry.from_directory import (
    DirectorySource,
    Folder,
    instances_in,
    read_folder,
)
from headgate.mesh.registry.model import Instance
from headgate.policy.registering import RegistryRules

RULES = RegistryRules()


def put(folder: Path, name: str, content: str) -> None:
    """As it should be done: beside its place, then renamed."""
    part = folder / f".{name}"
    part.write_text(content)
    part.replace(folder / name)


class Looked:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder()

    def look(self) -> list[str]:
        self.folder = read_folder(self.path, "users", RULES, self.folder)
        return [each.id for each in self.folder.instances]


def test_a_file_may_say_everything_of_an_instance_or_only_its_url() -> None:
    content = """
    - http://a:1
    - {url: "http://b:2", id: b, zone: z, version: v1, weight: 0, priority: 3, metadata: {k: v}}
    - url: unix:/run/u.sock
      service: users
    """
    found = instances_in(content.encode(), "users", RULES)
    assert [each.id for each in found] == ["a:1", "b", "unix-run-u.sock"]
    assert found[1] == Instance(
        service="users",
        id="b",
        url="http://b:2",
        zone="z",
        version="v1",
        weight=0,
        priority=3,
        metadata={"k": "v"},
    )
    assert instances_in(b'{"url": "http://a:1"}', "users", RULES)[0].id == "a:1"
    assert instances_in(b"", "users", RULES) == []
    assert instances_in(b"[]", "users", RULES) == []


def test_instances_of_other_services_are_theirs() -> None:
    content = b'[{"url": "http://a:1", "service": "orders"}, {"url": "http://b:1"}]'
    assert [each.id for each in instances_in(content, "users", RULES)] == ["b:1"]
    assert [each.id for each in instances_in(content, "orders", RULES)] == ["a:1", "b:1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("url: [", "is not valid YAML"),
        ("{", "is not valid YAML"),
        ("[[http://a:1]]", "line 1: [0]: must be a mapping"),
        ("- http://a:1\n- {zone: z}", "line 2: [1]: has no url"),
        ("- url: http://a:1\n  wieght: 2", 'line 2: [0].wieght: is not a field that is known; did you mean "weight"?'),
        ("- url: ftp://a", "line 1: [0].url: is not an instance"),
        ("url: http://a:1\nweight: many", "line 2: weight: 'many' is no whole number"),
        ("url: http://a:1\nid: 'a b'", "line 2: id: 'a b' is no name"),
        ("url: http://a:1\nmetadata: [1]", "line 2: metadata: list is no object"),
        ("url: http://u:secret@a:1", "url: has user info"),
        ("7", "must be a mapping"),
        ("\x80", "is not UTF-8 text"),
    ],
    ids=["yaml", "json", "nested", "no-url", "typo", "scheme", "weight", "id", "metadata", "secret", "number", "utf8"],
)  # fmt: skip
def test_a_fault_is_told_with_its_line(content: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        instances_in(content.encode("latin-1"), "users", RULES)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_files_come_change_and_go(tmp_path: Path) -> None:
    it = Looked(tmp_path)
    assert it.look() == []
    put(tmp_path, "one.json", json.dumps({"url": "http://a:1"}))
    put(tmp_path, "two.yaml", "- http://b:1\n- http://c:1")
    put(tmp_path, "notes.txt", "not for us")
    put(tmp_path, ".hidden.json", '{"url": "http://no:1"}')
    (tmp_path / ".part.json").write_text("{")
    assert it.look() == ["a:1", "b:1", "c:1"]
    put(tmp_path, "two.yaml", "- http://b:1")
    assert it.look() == ["a:1", "b:1"]
    (tmp_path / "one.json").unlink()
    assert it.look() == ["b:1"]
    assert it.folder.faults == []


def test_a_broken_file_keeps_what_it_said_and_the_others_go_on(tmp_path: Path) -> None:
    it = Looked(tmp_path)
    put(tmp_path, "a.yaml", "- http://a:1\n- http://b:1")
    put(tmp_path, "c.yaml", "http://c:1")
    it.look()
    put(tmp_path, "a.yaml", "- http://a:1\n- {url: ")
    put(tmp_path, "c.yaml", "http://d:1")
    assert it.look() == ["a:1", "b:1", "d:1"]
    assert it.look() == ["a:1", "b:1", "d:1"]
    assert it.folder.faults == [
        f"{tmp_path}/a.yaml: line 3: is not valid YAML; what it said before is kept"
    ]
    put(tmp_path, "a.yaml", "- http://a:2")
    assert it.look() == ["a:2", "d:1"]
    assert it.folder.faults == []


def test_a_file_that_was_never_right_names_nobody(tmp_path: Path) -> None:
    put(tmp_path, "a.json", "{")
    it = Looked(tmp_path)
    assert it.look() == []
    assert it.folder.faults[0].endswith("nothing of it is used")


def test_a_directory_that_is_gone_keeps_everything(tmp_path: Path) -> None:
    folder = tmp_path / "instances"
    folder.mkdir()
    put(folder, "a.json", '"http://a:1"')
    it = Looked(folder)
    it.look()
    folder.rename(tmp_path / "elsewhere")
    assert it.look() == ["a:1"]
    assert it.folder.faults == [
        f"{folder}: cannot be read: no such file or directory; what it said is kept"
    ]
    (tmp_path / "elsewhere").rename(folder)
    assert it.look() == ["a:1"]
    assert it.folder.faults == []


def test_a_pipe_a_folder_and_a_dead_link_do_not_hold_it_up(tmp_path: Path) -> None:
    put(tmp_path, "a.json", '"http://a:1"')
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    it = Looked(tmp_path)
    assert it.look() == ["a:1"]
    assert len(it.folder.faults) == 2


def test_links_are_followed_so_that_whole_directories_may_be_swapped(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text(f'"http://{name}:1"')
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "data").symlink_to(tmp_path / "one")
    (watched / "a.json").symlink_to(watched / "data" / "a.json")
    it = Looked(watched)
    assert it.look() == ["one:1"]
    (watched / "new").symlink_to(tmp_path / "two")
    (watched / "new").replace(watched / "data")
    assert it.look() == ["two:1"]


def test_too_many_files_and_too_long_ones_are_worries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_directory, "FILES_MAX", 3)
    monkeypatch.setattr(from_directory, "BYTES_MAX", 2000)
    for n in range(4):
        (tmp_path / f"{n}.json").write_text("[]")
    (tmp_path / "0.json").write_text(" " * 2001)
    it = Looked(tmp_path)
    assert it.look() == []
    assert "has 4 files; the first 3 by name are read" in it.folder.fault
    assert "is longer than 2000B" in it.folder.faults[1]


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path) -> None:
    put(tmp_path, "a.json", '"http://a:1"')
    it = Looked(tmp_path)
    it.look()
    before = it.folder.files["a.json"]
    it.look()
    assert it.folder.files["a.json"] is before


def test_aliases_that_stand_for_billions_are_refused_quickly() -> None:
    lines = ["a: &a [http://a:1]"]
    for at, name in enumerate("bcdefghij"):
        last = "abcdefghij"[at]
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]")
    with pytest.raises(ValueError, match="is not a field that is known"):
        instances_in("\n".join(lines).encode(), "users", RULES)


@pytest.mark.integration
def test_a_watched_directory_is_named_when_it_changes_and_only_then(tmp_path: Path) -> None:
    named: list[list[str]] = []

    async def main() -> None:
        said = asyncio.Event()

        def name(source: str, key: str, found: Sequence[Instance]) -> None:
            assert (source, key) == ("directory", f"{tmp_path} for users")
            named.append([each.id for each in found])
            said.set()

        put(tmp_path, "a.json", '"http://a:1"')
        source = DirectorySource("users", tmp_path, name, every_s=0.01)
        source.start()
        async with asyncio.timeout(20):
            await said.wait()
            said.clear()
            looks = source.looks
            while source.looks < looks + 3:
                await asyncio.sleep(0.01)
            put(tmp_path, "b.json", "{")
            while not source.worry:
                await asyncio.sleep(0.01)
            put(tmp_path, "b.json", '"http://b:1"')
            await said.wait()
        await source.close()
        assert source.worry == ""

    asyncio.run(main())
    assert named == [["a:1"], ["a:1", "b:1"]]


def test_a_directory_that_is_not_there_at_the_start_takes_nothing_away(tmp_path: Path) -> None:
    named: list[Sequence[Instance]] = []
    source = DirectorySource("users", tmp_path / "none", lambda *said: named.append(said[2]))
    asyncio.run(source.look())
    assert named == []
    assert "no such file" in source.worry
