"""The tables of the file of responses. Another shape of them is another `packing.FORMAT`.

Bodies stand apart, so that what goes through the index does not read them. Triggers keep the sums,
which then hold for whatever process takes away what.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STATEMENTS"]

STATEMENTS: Final = (
    """CREATE TABLE IF NOT EXISTS responses (
        id INTEGER PRIMARY KEY AUTOINCREMENT, slot BLOB NOT NULL, variant BLOB NOT NULL,
        names TEXT NOT NULL, url TEXT NOT NULL, stamp INTEGER NOT NULL, made REAL NOT NULL,
        keep_until REAL NOT NULL, soft INTEGER NOT NULL, used INTEGER NOT NULL,
        size INTEGER NOT NULL, UNIQUE (slot, variant))""",
    "CREATE INDEX IF NOT EXISTS by_url ON responses (url)",
    "CREATE INDEX IF NOT EXISTS by_use ON responses (used)",
    "CREATE INDEX IF NOT EXISTS by_end ON responses (keep_until)",
    "CREATE INDEX IF NOT EXISTS by_stamp ON responses (stamp)",
    "CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS tags (
        tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS tags_of ON tags (id)",
    """CREATE TABLE IF NOT EXISTS records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, stamp INTEGER NOT NULL, said TEXT NOT NULL,
        is_done INTEGER NOT NULL, UNIQUE (stamp, said))""",
    """CREATE TABLE IF NOT EXISTS state (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID""",
    "INSERT OR IGNORE INTO state VALUES ('bytes', 0), ('entries', 0), ('floor', 0)",
    """CREATE TRIGGER IF NOT EXISTS came AFTER INSERT ON responses BEGIN
        UPDATE state SET value = value + new.size WHERE name = 'bytes';
        UPDATE state SET value = value + 1 WHERE name = 'entries'; END""",
    """CREATE TRIGGER IF NOT EXISTS went AFTER DELETE ON responses BEGIN
        DELETE FROM bodies WHERE id = old.id;
        DELETE FROM tags WHERE id = old.id;
        UPDATE state SET value = value - old.size WHERE name = 'bytes';
        UPDATE state SET value = value - 1 WHERE name = 'entries'; END""",
)
