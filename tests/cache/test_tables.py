"""Which tables statements read and write, as PostgreSQL, MySQL and SQLite write them."""

from __future__ import annotations

import asyncio
import builtins
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache import Cache, tables
from headgate.cache.errors import CacheError
from headgate.cache.tables import SQL_MAX, SqlNotUnderstood, Tables, tables_of, tags_for

ALL = ("postgres", "mysql", "sqlite")

EVERYWHERE = [
    ("SELECT 1", "", ""),
    ("SELECT * FROM orders", "orders", ""),
    ("select o.id from Orders as o where o.id = 7 -- of customers", "orders", ""),
    ("SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c ON true, d", "a b c d", ""),
    ("SELECT * FROM a WHERE id IN (SELECT a_id FROM b WHERE EXISTS (SELECT 1 FROM c))", "a b c", ""),
    ("SELECT (SELECT max(x) FROM b) FROM a", "a b", ""),
    ("SELECT * FROM (SELECT * FROM a) AS b", "a", ""),
    ("SELECT * FROM a UNION ALL SELECT * FROM b EXCEPT SELECT * FROM c", "a b c", ""),
    ("SELECT * FROM a AS x JOIN a AS y ON x.id = y.id", "a", ""),
    ("WITH x AS (SELECT * FROM a) SELECT * FROM x JOIN b ON true", "a b", ""),
    ("WITH x AS (SELECT 1), y AS (SELECT * FROM x) SELECT * FROM y", "", ""),
    ("WITH x AS (SELECT 1) SELECT * FROM a, (WITH y AS (SELECT * FROM x) SELECT * FROM y) z", "a", ""),
    ("SELECT * FROM (WITH x AS (SELECT * FROM a) SELECT * FROM x) q JOIN x ON true", "a x", ""),
    ("WITH RECURSIVE t AS (SELECT * FROM a UNION ALL SELECT b.* FROM b JOIN t ON true) SELECT * FROM t", "a b", ""),
    ("INSERT INTO orders (id, name) VALUES (1, 'x')", "", "orders"),
    ("INSERT INTO a SELECT * FROM b", "b", "a"),
    ("WITH x AS (SELECT * FROM b) INSERT INTO a SELECT * FROM x", "b", "a"),
    ("WITH a AS (SELECT * FROM b) INSERT INTO a SELECT * FROM a", "b", "a"),
    ("UPDATE orders SET paid = 1 WHERE id = 7", "", "orders"),
    ("UPDATE a SET x = (SELECT max(x) FROM b)", "b", "a"),
    ("DELETE FROM a WHERE id IN (SELECT id FROM b)", "b", "a"),
    ("DELETE FROM a WHERE id IN (SELECT id FROM a)", "a", "a"),
    ("CREATE TABLE a (id int)", "", "a"),
    ("CREATE TABLE a AS SELECT * FROM b", "b", "a"),
    ("CREATE VIEW v AS SELECT * FROM a", "a", "v"),
    ("CREATE INDEX i ON a (id)", "", ""),
    ("DROP TABLE IF EXISTS a", "", "a"),
    ("ALTER TABLE a ADD COLUMN x int", "", "a"),
    ("ALTER TABLE a RENAME TO b", "", "a b"),
    ("SELECT * FROM a; UPDATE b SET x = 1; DELETE FROM c", "a", "b c"),
    ("BEGIN", "", ""),
    ("COMMIT", "", ""),
]  # fmt: skip

POSTGRES = [
    ('SELECT * FROM "Orders" JOIN Orders ON true', "Orders orders", ""),
    ("SELECT * FROM public.orders", "orders", ""),
    ('SELECT * FROM "a.b" JOIN "x, y" ON true', "a%2Eb x%2C%20y", ""),
    ("SELECT * FROM ONLY a WHERE x = $1 AND y = %s AND z = %(z)s AND t = :t", "a", ""),
    ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x) q", "a b", ""),
    ("SELECT * FROM a, unnest(a.list), jsonb_to_recordset(a.j) AS r(x int)", "a", ""),
    ("SELECT * FROM generate_series(1, 3) AS g", "", ""),
    ("SELECT * FROM a TABLESAMPLE SYSTEM (1) FOR UPDATE", "a", ""),
    ("TABLE a", "a", ""),
    ("SELECT * INTO a FROM b", "b", "a"),
    ("INSERT INTO a VALUES (1) RETURNING id", "", "a"),
    ("INSERT INTO a AS z VALUES (1) ON CONFLICT (id) DO UPDATE SET x = excluded.x", "", "a"),
    ("UPDATE a AS z SET x = b.x FROM b WHERE z.id = b.id RETURNING *", "b", "a"),
    ("DELETE FROM a AS z USING b WHERE z.id = b.id RETURNING *", "b", "a"),
    ("WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone", "", "a b"),
    ("WITH x AS (UPDATE a SET n = 1 RETURNING *) SELECT * FROM x JOIN b ON true", "b", "a"),
    ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a", ""),
    ("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET x = 1 "
     "WHEN NOT MATCHED THEN INSERT (id) VALUES (1)", "b", "a"),
    ("MERGE INTO a USING (SELECT * FROM b) s ON true WHEN MATCHED THEN DELETE", "b", "a"),
    ("COPY a FROM STDIN", "", "a"),
    ("COPY a (x, y) FROM '/data/b'", "", "a"),
    ("COPY a (x, y) TO '/data/b'", "a", ""),
    ("COPY (SELECT * FROM a) TO STDOUT", "a", ""),
    ("TRUNCATE a, ONLY b RESTART IDENTITY", "", "a b"),
    ("CREATE MATERIALIZED VIEW m AS SELECT * FROM a", "a", "m"),
    ("DROP TABLE a, b CASCADE", "", "a b"),
    ("SELECT nextval('orders_id_seq')", "", ""),
    ("SELECT $$ FROM b $$, E'it\\'s FROM c' FROM a", "a", ""),
]  # fmt: skip

MYSQL = [
    ("SELECT * FROM `Orders` WHERE id = %s AND name = %(name)s AND n % 2 = 0", "orders", ""),
    ("SELECT '%s' FROM a WHERE b = 'it\\'s %s'", "a", ""),
    ("SELECT 1 FROM dual", "", ""),
    ("SELECT * FROM a PARTITION (p0) FORCE INDEX (i)", "a", ""),
    ("REPLACE INTO a (id) VALUES (1)", "", "a"),
    ("REPLACE LOW_PRIORITY a SELECT * FROM b", "b", "a"),
    ("INSERT IGNORE INTO a VALUES (1) ON DUPLICATE KEY UPDATE x = 1", "", "a"),
    ("UPDATE a JOIN b ON a.id = b.id SET a.x = 1", "", "a b"),
    ("UPDATE a, b SET b.x = 1 WHERE a.id = b.id", "", "a b"),
    ("DELETE o FROM orders AS o JOIN b ON o.id = b.id", "b", "orders"),
    ("DELETE a, c FROM a JOIN b JOIN c", "a b c", "a c"),
    ("DELETE FROM o USING orders AS o JOIN b", "b", "orders"),
    ("TRUNCATE a", "", "a"),
    ("SELECT * FROM a # of b", "a", ""),
]  # fmt: skip

SQLITE = [
    ("SELECT * FROM [Orders] WHERE id = ? AND b = :b", "orders", ""),
    ('SELECT * FROM main."Orders"', "orders", ""),
    ("INSERT OR REPLACE INTO a VALUES (1)", "", "a"),
    ("REPLACE INTO a VALUES (?)", "", "a"),
    ("UPDATE OR IGNORE a SET x = 1 RETURNING *", "", "a"),
    ("INSERT INTO a VALUES (1) ON CONFLICT (id) DO NOTHING", "", "a"),
    ("SELECT * FROM a, json_each(a.list)", "a", ""),
    ("WITH t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t", "", ""),
    ("PRAGMA user_version", "", ""),
]

CASES = [
    *((dialect, *case) for dialect in ALL for case in EVERYWHERE),
    *(("postgres", *case) for case in POSTGRES),
    *(("mysql", *case) for case in MYSQL),
    *(("sqlite", *case) for case in SQLITE),
]


@pytest.mark.parametrize(
    ("dialect", "sql", "read", "written"),
    CASES,
    ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)],
)
def test_what_a_statement_reads_and_writes(dialect: Any, sql: str, read: str, written: str):
    found = tables_of(sql, dialect)
    assert (sorted(found.read), sorted(found.written)) == (
        sorted(read.split()),
        sorted(written.split()),
    )
    # By its shape, then by its text: the same.
    assert tables_of(sql + " ", dialect) == tables_of(sql, dialect) == found


REFUSED = [
    ("postgres", ""),
    ("postgres", "-- nothing"),
    ("postgres", "SELEC 1"),
    ("postgres", "SELECT * FROM"),
    ("postgres", "SELECT * FROM orders_of('ann')"),
    ("postgres", "SELECT * FROM ROWS FROM (f(1), unnest(x))"),
    ("postgres", "CALL archive(1)"),
    ("postgres", "DO $$ BEGIN DELETE FROM a; END $$"),
    ("postgres", "EXPLAIN ANALYZE DELETE FROM a"),
    ("postgres", "EXECUTE prepared"),
    ("postgres", "DROP SCHEMA s CASCADE"),
    ("postgres", "SELECT * FROM a; VACUUM a"),
    ("mysql", "LOAD DATA INFILE 'x' INTO TABLE a"),
    ("mysql", "RENAME TABLE a TO b"),
    ("sqlite", "ATTACH DATABASE 'x' AS y"),
    ("sqlite", "\x00\udc80"),
    ("postgres", "SELECT " + "(" * 20_000),
    ("postgres", "SELECT '" + "x" * SQL_MAX + "'"),
]


@pytest.mark.parametrize(
    ("dialect", "sql"), REFUSED, ids=[f"{case[0]}-{n}" for n, case in enumerate(REFUSED)]
)
def test_what_is_not_understood_is_refused_with_the_way_out(dialect: Any, sql: str):
    with pytest.raises(SqlNotUnderstood, match=r'tags=\["table:orders"\]') as refused:
        tags_for(sql, dialect)
    assert refused.value.__cause__ is None or refused.value.__cause__.__cause__ is None


def test_values_stand_neither_in_errors_nor_in_the_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for sql in (
        "CALL pay('hunter2')",
        "SELECT 'hunter2' FROM FROM",
        "hunter2",
        "ALTER x 'hunter2'",
    ):
        with pytest.raises(SqlNotUnderstood) as refused:
            tables_of(sql)
        if sql != "hunter2":
            assert "hunter2" not in str(refused.value)
    assert "hunter2" not in caplog.text


def test_tags_are_of_what_is_written_or_else_of_what_is_read():
    assert tags_for("SELECT * FROM orders JOIN items ON true") == ("table:orders", "table:items")
    assert tags_for("UPDATE orders SET x = 1 WHERE id IN (SELECT id FROM items)") == (
        "table:orders",
    )
    both = tables_of("INSERT INTO a SELECT * FROM b")
    assert (both.read_tags, both.written_tags) == (("table:b",), ("table:a",))
    assert tags_for("SELECT now()") == ()


@pytest.mark.parametrize(
    ("dialect", "sql", "schema", "names"),
    [
        ("postgres", "SELECT * FROM sales.orders", None, "sales.orders orders"),
        ("postgres", "SELECT * FROM shop.sales.orders", None, "sales.orders orders"),
        ("postgres", "SELECT * FROM orders", None, "orders"),
        ("postgres", "SELECT * FROM sales.orders", "sales", "sales.orders"),
        ("postgres", "SELECT * FROM orders", "sales", "sales.orders"),
        ("postgres", "SELECT * FROM public.orders", "sales", "orders"),
        ("postgres", "SELECT * FROM orders", "public", "orders"),
        ("postgres", 'SELECT * FROM "Sales".orders', "public", "Sales.orders"),
        ("mysql", "SELECT * FROM Shop.Orders", None, "shop.orders orders"),
        ("mysql", "SELECT * FROM Orders", "Shop", "shop.orders"),
        ("sqlite", "SELECT * FROM main.orders", None, "orders"),
        ("sqlite", "SELECT * FROM temp.orders", "main", "temp.orders"),
    ],
)
def test_schemas(dialect: Any, sql: str, schema: str | None, names: str):
    assert tables_of(sql, dialect, schema=schema).read == tuple(names.split())


@pytest.mark.parametrize("read", ["orders", "sales.orders", "public.orders"])
@pytest.mark.parametrize("written", ["orders", "sales.orders"])
def test_where_the_schema_is_not_known_what_may_be_one_table_shares_a_tag(read: str, written: str):
    got = set(tags_for(f"SELECT * FROM {read}"))
    assert got & set(tags_for(f"DELETE FROM {written}"))


def test_what_does_not_stand_in_a_statement_is_said_by_the_caller():
    also = {
        "open_orders": ["orders", "customers_now"],
        "Customers_Now": ["customers"],
        "archive": ["orders", "archived"],
        "customers": ["customer_names"],
        "orders_of": [],
    }
    assert tables_of("SELECT * FROM open_orders", also=also).read == (
        "open_orders",
        "orders",
        "customers_now",
        "customers",
        "customer_names",
    )
    assert tags_for("SELECT archive(7)", also=also) == ("table:orders", "table:archived")
    assert tags_for("CALL archive(7)", also=also) == ("table:orders", "table:archived")
    assert tags_for("SELECT * FROM orders_of(7)", also=also) == ()
    assert tags_for("DELETE FROM customers", also=also) == (
        "table:customers",
        "table:customer_names",
    )
    assert tags_for("SELECT * FROM a", also={"a": ["b"], "b": ["a"]}) == ("table:a", "table:b")
    with pytest.raises(TypeError, match="write \\['orders'\\]"):
        tags_for("SELECT 1", also={"v": "orders"})


def test_a_wrong_dialect_or_type_is_an_error_at_once():
    with pytest.raises(ValueError, match='write "postgres", "mysql" or "sqlite"'):
        tables_of("SELECT 1", "oracle")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give the statement as a text"):
        tables_of(b"SELECT 1")  # type: ignore[arg-type]


def test_a_statement_is_parsed_once_however_many_values_it_comes_with():
    memo = tables._MEMO
    before = memo.parsed
    for number in range(50):
        sql = f"SELECT * FROM only_here WHERE id = {number} AND n IN ({'1,' * number}2) AND s = 'x{number}'"
        assert tables_of(sql).read == ("only_here",)
    assert memo.parsed == before + 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "REMEMBERED_MAX", 10)
    memo = tables._Memo()
    for number in range(30):
        memo.found(f"SELECT * FROM t{number}", "postgres", frozenset())
    assert (len(memo._texts), len(memo._shapes), memo.parsed) == (10, 10, 30)


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).map(lambda name: f"t_{name}")
_TEXTS = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=12)


@given(name=_NAMES, value=_TEXTS, comment=_TEXTS, number=st.integers(0, 10**9))
@pytest.mark.parametrize("dialect", ALL)
def test_no_value_is_taken_for_a_table_nor_hides_one(
    dialect: Any, name: str, value: str, comment: str, number: int
):
    quoted = value.replace("'", "''")
    if dialect == "mysql":
        quoted = quoted.replace("\\", "\\\\")
    aside = comment.replace("*/", "").replace("/*", "").strip("*/!M+")
    sql = f"SELECT '{quoted}', {number} /* {aside} */ FROM {name} WHERE x = '{quoted}'"
    assert tables_of(sql, dialect) == Tables((name,), ())


@given(sql=st.text(max_size=60) | st.text("SELECTFROM ab(),'\"$-/*;", max_size=40))
@pytest.mark.parametrize("dialect", ALL)
def test_any_text_is_understood_or_refused(dialect: Any, sql: str):
    try:
        tables_of(sql, dialect)
    except SqlNotUnderstood:
        pass


def test_without_sqlglot_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "sqlglot":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CacheError, match=r'pip install "headgate\[postgres\]"'):
        tags_for("SELECT * FROM never_seen_before")


def test_the_module_does_not_import_sqlglot_before_it_is_used():
    code = "import sys, headgate.cache.tables; sys.exit('sqlglot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_an_update_clears_what_was_read_from_its_table():
    async def whole() -> list[str]:
        async with Cache() as cache:
            made: list[str] = []

            @cache.cached("orders", tags=tags_for("SELECT * FROM orders JOIN items USING (id)"))
            async def orders() -> int:
                made.append("orders")
                return len(made)

            @cache.cached("people", tags=tags_for("SELECT * FROM people"))
            async def people() -> int:
                made.append("people")
                return len(made)

            await orders()
            await people()
            await cache.invalidate(tags=tags_for("UPDATE items SET n = 2 WHERE id = 7"))
            await orders()
            await people()
            return made

    assert asyncio.run(whole()) == ["orders", "people", "orders"]
