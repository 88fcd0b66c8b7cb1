"""Tags for the answers of a database: a table is a tag.

    ORDERS = "SELECT * FROM orders JOIN customers USING (customer_id) WHERE shop = $1"
    PAY = "UPDATE orders SET paid = true WHERE id = $1"

    @cache.cached("orders:{shop}", ttl="5min", tags=tags_for(ORDERS))
    async def orders(shop): ...

    await cache.invalidate(tags=tags_for(PAY))          # ("table:orders",)

Theory of operation. `tables_of` parses a statement (sqlglot) and remembers the answer by the shape
of the statement, so that it is parsed once however many values it comes with. What is not
understood is an error: nothing is cached by a guess, and nothing is invalidated by one.

A name without a schema is that of `schema`, where that is given; then `orders` and `sales.orders`
are one or two tables as the database sees it. Where it is not, a table that is named with its
schema has two tags, with and without: rather one too much is cleared than one too few. `public` of
PostgreSQL and `main` of SQLite are left out of tags.

Of what does not stand in a statement nothing is known: what a view reads, what a function or a
trigger writes, what a foreign key cascades to. `also` says it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from headgate.cache.errors import CacheError
from headgate.cache.tables_reading import Found, NotUnderstood, read
from headgate.cache.tables_shape import shape_of

__all__ = ["Dialect", "SqlNotUnderstood", "Tables", "tables_of", "tags_for"]

Dialect = Literal["postgres", "mysql", "sqlite"]

SQL_MAX: Final = 100_000
REMEMBERED_MAX: Final = 1000
_TEXT_MAX: Final = 4000
"""Of a statement that is remembered by its text as well, which is looked up without reading it."""
_USUAL: Final = {"postgres": "public", "mysql": "", "sqlite": "main"}
_PLAIN: Final = "$!*@-"


class SqlNotUnderstood(CacheError, ValueError):
    """Which tables a statement touches cannot be told."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Names as they stand in tags, each once: "orders", "sales.orders"."""

    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def read_tags(self) -> tuple[str, ...]:
        return tuple(f"table:{name}" for name in self.read)

    @property
    def written_tags(self) -> tuple[str, ...]:
        return tuple(f"table:{name}" for name in self.written)


Also = Mapping[str, Iterable[str]]


def tables_of(
    sql: str, dialect: Dialect = "postgres", *, schema: str | None = None, also: Also | None = None
) -> Tables:
    """What a statement, or several, read and write; SqlNotUnderstood if that cannot be told.

    `also` names what does not stand in statements: for a view the tables that it reads, for a
    function those that it writes, for a table those that are changed with it.
    """
    if dialect not in _USUAL:
        raise ValueError(f'dialect is {dialect!r:.50}: write "postgres", "mysql" or "sqlite"')
    if not isinstance(sql, str):
        raise TypeError(f"sql is {type(sql).__name__}: give the statement as a text")
    more = {name.lower(): _listed(name, tables) for name, tables in (also or {}).items()}
    found = _MEMO.found(sql, dialect, frozenset(more))
    reads = [name for said in found.read for name in _canonical(said, dialect, schema)]
    writes = [name for said in found.written for name in _canonical(said, dialect, schema)]
    if more:
        reads = _extended(reads, more)
        writes = _extended(writes, more)
        writes += [table for call in found.calls for table in more.get(call, ())]
    return Tables(tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(writes)))


def tags_for(
    sql: str, dialect: Dialect = "postgres", *, schema: str | None = None, also: Also | None = None
) -> tuple[str, ...]:
    """Of what is written, if anything is: for `invalidate`. Of what is read, else: for `cached`."""
    tables = tables_of(sql, dialect, schema=schema, also=also)
    return tables.written_tags or tables.read_tags


def _canonical(said: tuple[str, str], dialect: str, schema: str | None) -> tuple[str, ...]:
    """A name as it stands in tags; two where it is not known which table it is."""
    of, table = said
    usual = _USUAL[dialect]
    bare = _quoted(table)
    if not of and schema is not None:
        of = schema if dialect == "postgres" else schema.lower()
    if not of or of == usual:
        return (bare,)
    full = f"{_quoted(of)}.{bare}"
    return (full,) if schema is not None else (full, bare)


def _quoted(name: str) -> str:
    """With no letter that a tag in a header cannot carry, and no dot."""
    return quote(name, safe=_PLAIN).replace(".", "%2E")


def _extended(names: list[str], more: Mapping[str, tuple[str, ...]]) -> list[str]:
    """With what is behind them, however far."""
    made = dict.fromkeys(names)
    todo = list(made)
    while todo:
        for name in more.get(todo.pop().lower(), ()):
            if name not in made:
                made[name] = None
                todo.append(name)
    return list(made)


def _listed(name: str, tables: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tables, str):
        raise TypeError(f"also[{name!r:.100}] is a text: write [{tables!r:.100}]")
    return tuple(tables)


class _Memo:
    """What was found, by text and by shape; the oldest go when it is full."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[str, str, frozenset[str]], Found] = OrderedDict()
        self._shapes: OrderedDict[tuple[str, str, frozenset[str]], Found] = OrderedDict()
        self.parsed = 0

    def found(self, sql: str, dialect: str, known: frozenset[str]) -> Found:
        said = (sql, dialect, known)
        found = self._texts.get(said)
        if found is not None:
            with contextlib.suppress(KeyError):
                self._texts.move_to_end(said)
            return found
        if len(sql) > SQL_MAX:
            raise _refused(sql, f"it is longer than {SQL_MAX} characters")
        shape = shape_of(sql, dialect)
        key = None if shape is None else (shape, dialect, known)
        found = None if key is None else self._shapes.get(key)
        if found is None:
            found = _read(sql, dialect, known)
            self.parsed += 1
        with self._lock:
            if key is not None:
                _keep(self._shapes, key, found)
            if len(sql) <= _TEXT_MAX:
                _keep(self._texts, said, found)
        return found


def _keep(
    kept: OrderedDict[tuple[str, str, frozenset[str]], Found],
    key: tuple[str, str, frozenset[str]],
    found: Found,
) -> None:
    kept[key] = found
    kept.move_to_end(key)
    while len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)


_MEMO: Final = _Memo()


def _read(sql: str, dialect: str, known: frozenset[str]) -> Found:
    try:
        return read(sql, dialect, known)
    except NotUnderstood as error:
        raise _refused(sql, str(error)) from error
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "sqlglot":
            raise
        raise CacheError(
            'to read tables out of SQL, sqlglot is needed: pip install "headgate[postgres]"; '
            'or name the tables yourself: tags=["table:orders"]'
        ) from error


def _refused(sql: str, why: str) -> SqlNotUnderstood:
    # The first word only: there may be secrets among the values.
    word = sql.split(maxsplit=1)[0][:20] if sql.strip() else ""
    return SqlNotUnderstood(
        f"the tables of {f'a statement {word}' if word.isalpha() else 'a statement'} cannot be "
        f'told: {why}. Name them yourself, as in tags=["table:orders"], or in also= what a '
        "function touches"
    )
