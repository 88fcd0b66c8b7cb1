"""The home in a file: what comes back, what is refused, and that nothing about it stops anybody."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headgate.mesh.registry.book import Asked, Book
from headgate.mesh.registry.model import Instance
from headgate.mesh.registry.remembered import Remembered, Unsaved
from headgate.mesh.registry.store_sqlite import SqliteStore, StoreTrouble
from headgate.policy.registering import RegistryRules

WALL = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


def started(path: Path, **rules: Any) -> tuple[Book, SqliteStore, Remembered]:
    store = SqliteStore(path, RegistryRules(**{"protect_last": False, **rules}), wall=lambda: WALL)
    known = store.open()
    book = Book(f"new{os.urandom(3).hex()}", store.rules)
    book.restore(known, 5.0, WALL)
    return book, store, known


def register(book: Book, *names: str) -> None:
    for name in names:
        book.register(Asked("users", name, f"http://{name}:1", metadata={"é": "ü"}), 5.0, WALL)


def known_to(book: Book) -> tuple[str, int, list[Instance]]:
    epoch, revision, listed = book.all()
    return epoch, revision, sorted(listed, key=lambda each: each.id)


def save(book: Book, store: SqliteStore) -> None:
    store.write(book.take_unsaved())


def close(book: Book, store: SqliteStore) -> None:
    store.close(book.take_unsaved())


def filled(path: Path) -> Book:
    book, store, _ = started(path)
    register(book, "a", "b", "c")
    book.leave("users", "b", book.lease("users", "b").fence, 20.0, 5.0, WALL)  # type: ignore[union-attr]  # it was registered
    said = [Instance(service="users", id=n, url=f"http://{n}:1") for n in ("c", "d")]
    book.name("dns", "users.internal", said, 5.0, WALL)
    save(book, store)
    register(book, "e")
    book.leave("users", "a", book.lease("users", "a").fence, 0, 5.0, WALL)  # type: ignore[union-attr]  # likewise
    close(book, store)
    return book


def test_after_an_orderly_end_everything_goes_on_where_it_was(path: Path) -> None:
    before = filled(path)
    book, store, known = started(path)
    store.close()
    assert known_to(book) == known_to(before)
    assert book.history() == before.history()
    assert book.since(before.epoch, 2) == before.since(before.epoch, 2)
    assert known.lost == ()
    fence = before.lease("users", "e").fence  # type: ignore[union-attr]  # it was registered
    assert book.beat("users", "e", fence, 5.0, WALL) == before.lease("users", "e")
    assert (path.stat().st_mode & 0o777) == 0o600


def test_every_lease_has_a_full_ttl_after_a_start_and_a_drain_its_rest(path: Path) -> None:
    filled(path)
    store = SqliteStore(path)
    book = Book("x")
    book.restore(store.open(), 1000.0, WALL + 15)
    store.close()
    book.turn(1004.0, 0.0)
    assert {each.id: each.state for each in book.of("users")}["b"] == "draining"
    book.turn(1006.0, 0.0)
    assert "b" not in {each.id for each in book.of("users")}
    book.turn(1029.0, 0.0)
    assert {each.id for each in book.of("users")} == {"c", "d", "e"}
    book.turn(1031.0, 0.0)
    assert {(each.id, each.source) for each in book.of("users")} == {("c", "dns"), ("d", "dns")}


def test_two_names_of_one_instance_keep_apart_over_a_restart(path: Path) -> None:
    book, store, _ = started(path)
    same = Instance(service="users", id="a", url="http://a:1")
    book.name("dns", "m", [same], 5.0, WALL)
    book.name(
        "dns", "n", [Instance(service="users", id="a", url="http://a:1", weight=2)], 5.0, WALL
    )
    assert [(each.source_key, each.is_listed) for each in book.claims("users", 5.0)] == [
        ("m", False),
        ("n", True),
    ]
    close(book, store)
    again, second, _ = started(path)
    second.close()
    assert known_to(again) == known_to(book)
    again.name("dns", "n", [], 5.0, WALL)
    assert again.of("users")[0].weight == 1


def test_after_a_crash_nobody_resumes_and_no_fence_comes_twice(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    save(book, store)
    register(book, "b")  # told, and never written
    del store
    again, second, known = started(path)
    second.close()
    assert known.epoch is None
    assert [each.id for each in again.of("users")] == ["a"]
    assert again.since(book.epoch, 1) is None
    register(again, "b")
    assert again.lease("users", "b").fence > book.lease("users", "b").fence  # type: ignore[union-attr]  # both registered


def test_a_run_that_told_and_wrote_nothing_is_not_resumed_either(path: Path) -> None:
    filled(path)
    book, store, known = started(path)
    assert known.epoch is not None
    register(book, "told")
    del store  # killed before the first write
    assert started(path)[2].epoch is None


def test_what_is_listed_again_is_kept_with_its_new_revision(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    said = [Instance(service="users", id="other", url="http://a:1")]
    book.name("file", "", said, 5.0, WALL)
    save(book, store)
    book.leave("users", "a", book.lease("users", "a").fence, 0, 5.0, WALL + 9)  # type: ignore[union-attr]  # it was registered
    close(book, store)
    again, second, _ = started(path)
    second.close()
    assert known_to(again) == known_to(book)
    assert again.of("users")[0].since == WALL + 9


def test_what_was_written_after_a_crash_is_resumed_from(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    save(book, store)
    del store
    again, second, _ = started(path)
    register(again, "b")
    close(again, second)
    third, last, known = started(path)
    last.close()
    assert known.epoch == again.epoch
    assert known_to(third) == known_to(again)
    assert third.since(again.epoch, 1) is not None


def test_kill_9_between_writes_leaves_whole_states(path: Path) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from headgate.mesh.registry.book import Asked, Book
        from headgate.mesh.registry.store_sqlite import SqliteStore
        store = SqliteStore(Path({str(path)!r}))
        book = Book("e")
        book.restore(store.open(), 0.0, 0.0)
        n = 0
        while True:
            n += 1
            # Two at a time: half of that must never be seen.
            book.register(Asked("users", f"i{{n}}a", "http://h:1"), 0.0, float(n))
            book.register(Asked("users", f"i{{n}}b", "http://h:1"), 0.0, float(n))
            store.write(book.take_unsaved())
            print(n, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        for _ in range(30):
            assert child.stdout.readline()
    finally:
        child.send_signal(signal.SIGKILL)
        said = child.communicate()[0].split()
    told = int(said[-1]) if said else 30
    store = SqliteStore(path)
    known = store.open()
    store.close()
    names = {row.instance.id for row in known.leases}
    assert len(names) % 2 == 0
    assert len(names) >= 2 * told
    assert known.epoch is None
    assert known.lost == ()


def test_a_corrupt_file_is_moved_aside_and_another_begun(path: Path) -> None:
    filled(path)
    path.write_bytes(b"no database, but long enough to be one" * 200)
    book, store, known = started(path)
    assert book.of("users") == []
    assert store.spoilt == path.with_name(f"registry.db.spoilt-{int(WALL)}")
    assert "it is now registry.db.spoilt-1800000000" in known.lost[0]
    register(book, "a")
    close(book, store)
    assert [each.id for each in started(path)[0].of("users")] == ["a"]


@pytest.mark.parametrize("at", [100, 4096, 9000, -3000])
def test_a_page_that_is_damaged_does_not_keep_it_from_starting(path: Path, at: int) -> None:
    book, store, _ = started(path)
    register(book, *(f"i{n}" for n in range(100)))
    close(book, store)
    content = bytearray(path.read_bytes())
    content[at : at + 300 if at > 0 else None] = os.urandom(300 if at > 0 else -at)
    path.write_bytes(content)
    again, second, _ = started(path)
    register(again, "new")
    save(again, second)
    second.close()
    assert again.find("users", "new")


def test_a_folder_in_its_place_is_renamed(path: Path) -> None:
    path.mkdir()
    book, store, known = started(path)
    assert "was no file" in known.lost[0]
    register(book, "a")
    close(book, store)
    assert path.is_file()


def test_the_tables_of_another_release_are_moved_aside(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
        db.execute("CREATE TABLE x (y)")
    db.close()
    _, store, known = started(path)
    store.close()
    assert "its tables are of version 99" in known.lost[0]


GOOD = Instance(service="users", id="good", url="http://g:1", fence=3, revision=1)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("leases", ("users", "x", "{")),
        ("leases", ("users", "x", "[]")),
        ("leases", ("users", "x", "[" * 100_000)),
        ("leases", ("users", "x", json.dumps({"instance": GOOD.to_json(), "ttl_s": 1}))),
        ("leases", ("users", "x", json.dumps({"instance": {}, "ttl_s": "x", "beaten": 0}))),
        ("leases", ("users", "good", json.dumps({"instance": GOOD.to_json(), "ttl_s": float("nan"), "beaten": 1}))),
        ("named", ("astrology", "k", json.dumps([GOOD.to_json()]))),
        ("named", ("dns", "k", json.dumps([{**GOOD.to_json(), "url": "ftp://x"}]))),
        ("named", ("dns", "k", "7")),
        ("changes", (999, json.dumps({"revision": 7}))),
        ("changes", (999, "null")),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_left_out_and_told(
    path: Path, table: str, row: tuple[Any, ...]
) -> None:
    book, store, _ = started(path)
    register(book, "a", "b")
    close(book, store)
    db = sqlite3.connect(path)
    with db:
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    db.close()
    again, second, known = started(path)
    assert known.lost == ("registry.db: 1 rows could not be read and are left out",)
    assert known.epoch is None  # a change may be among what is missing
    assert {each.id for each in again.of("users")} == {"a", "b"}
    save(again, second)
    second.close()
    assert started(path)[2].lost == ()  # all was written anew


def test_a_change_that_is_missing_cannot_be_resumed_over(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    with db:
        db.execute("DELETE FROM changes WHERE revision = 2")
    db.close()
    assert started(path)[2].epoch is None


def test_changes_are_bounded_on_disk(path: Path) -> None:
    book, store, _ = started(path, changes_kept=10)
    for n in range(50):
        register(book, f"i{n}")
        save(book, store)
    store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM changes").fetchone() == (10,)
    db.close()


def test_a_full_disk_is_trouble_and_what_was_to_be_written_comes_later(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    save(book, store)
    assert store._db is not None
    ((pages,),) = store._db.execute("PRAGMA page_count")
    store._db.execute(f"PRAGMA max_page_count={pages}")
    register(book, *(f"i{n}" for n in range(300)))
    unsaved = book.take_unsaved()
    with pytest.raises(StoreTrouble, match=r"registry\.db: the disk is full") as caught:
        store.write(unsaved)
    assert caught.value.kind == "later"
    book.give_back(unsaved)
    assert store.trouble == "registry.db: the disk is full"
    store._db.execute("PRAGMA max_page_count=100000")
    book.leave("users", "a", book.lease("users", "a").fence, 0, 5.0, WALL)  # type: ignore[union-attr]  # it was registered
    close(book, store)
    assert store.trouble == ""
    again = started(path)[0]
    assert known_to(again) == known_to(book)


def test_a_file_that_is_deleted_is_begun_again_with_all(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    save(book, store)
    for beside in ("", "-wal", "-shm"):
        Path(f"{path}{beside}").unlink(missing_ok=True)
    register(book, "b")
    unsaved = book.take_unsaved()
    with pytest.raises(StoreTrouble) as caught:
        store.write(unsaved)
    assert caught.value.kind == "lost"
    book.give_back(unsaved)
    book.forget_saved()
    close(book, store)
    assert known_to(started(path)[0]) == known_to(book)


def test_corruption_that_shows_while_it_runs_loses_nothing_either(path: Path) -> None:
    book, store, _ = started(path)
    register(book, *(f"i{n}" for n in range(200)))
    save(book, store)
    assert store._db is not None
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._db.execute("DROP TABLE leases")
    register(book, "z")
    unsaved = book.take_unsaved()
    with pytest.raises(StoreTrouble) as caught:
        store.write(unsaved)
    assert caught.value.kind == "lost"
    assert store.spoilt is not None
    book.give_back(unsaved)
    book.forget_saved()
    close(book, store)
    assert known_to(started(path)[0]) == known_to(book)


def test_a_lock_is_trouble_for_now(path: Path) -> None:
    book, store, _ = started(path)
    assert store._db is not None
    store._db.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    register(book, "a")
    unsaved = book.take_unsaved()
    with pytest.raises(StoreTrouble, match="locked by another process"):
        store.write(unsaved)
    other.execute("ROLLBACK")
    other.close()
    book.give_back(unsaved)
    close(book, store)
    assert known_to(started(path)[0]) == known_to(book)


def test_who_was_followed_by_another_process_writes_no_more(path: Path) -> None:
    book, store, _ = started(path)
    register(book, "a")
    save(book, store)
    after, second, _ = started(path)
    register(after, "b")
    save(after, second)
    register(book, "old")
    with pytest.raises(StoreTrouble, match="another process has taken it over") as caught:
        close(book, store)
    assert caught.value.kind == "taken"
    close(after, second)
    assert {each.id for each in started(path)[0].of("users")} == {"a", "b"}


def test_where_nothing_can_be_opened_it_starts_without_and_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    store = SqliteStore(blocked / "registry.db")
    assert store.open() == Remembered()
    assert store.trouble
    with pytest.raises(StoreTrouble):
        store.write(Unsaved("e", 1, 1))
    blocked.unlink()
    with pytest.raises(StoreTrouble) as caught:
        store.write(Unsaved("e", 1, 1))
    store.close()
    assert caught.value.kind in ("lost", "later")


def test_a_home_that_is_away_for_long_is_given_all_and_not_a_list_without_end() -> None:
    book = Book("e", RegistryRules(max_instances=5))
    for n in range(50):
        held = book.register(Asked("users", f"i{n}", "http://h:1"), 0.0, WALL)
        book.leave("users", f"i{n}", held.fence, 0, 0.0, WALL)
    book.register(Asked("users", "last", "http://h:1"), 0.0, WALL)
    unsaved = book.take_unsaved()
    assert unsaved.is_all
    assert unsaved.gone == []
    assert [row.instance.id for row in unsaved.leases] == ["last"]
    assert book.take_unsaved().is_nothing
