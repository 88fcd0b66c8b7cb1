"""Which tables a parsed statement reads and writes: the only module that knows sqlglot.

Theory of operation. Every table node is one of three: the target of something that writes, a name
that a CTE in scope has taken, or a table that is read. What is not understood to the end (a command
that sqlglot does not parse, a function that stands for a table) is refused rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["Found", "NotUnderstood", "read"]

Name = tuple[str, str]
"""Schema, empty if not said; and table."""

_REPLACE: Final = re.compile(
    r"(\A\s*|;\s*)REPLACE(?:\s+(?:LOW_PRIORITY|DELAYED))?\s+(?:INTO\s+)?", re.IGNORECASE
)
_UPDATE_OR: Final = re.compile(
    r"((?:\A\s*|;\s*)UPDATE)\s+OR\s+(?:ROLLBACK|ABORT|REPLACE|FAIL|IGNORE)\b", re.IGNORECASE
)
_PLACE: Final = re.compile(
    r"('(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`)|%\([^()%]*\)s|%s(?!\w)", re.DOTALL
)
_PURE: Final = re.compile(
    r"(jsonb?_|json_|regexp_|string_|unnest|generate_|xml|pragma_|ts_|pg_|carray|fts|sequence)"
)
"""Functions in the place of a table that read no table."""


class NotUnderstood(Exception):
    """The message says what; the caller says the way out."""


class Found:
    __slots__ = ("calls", "read", "written")

    def __init__(self) -> None:
        self.read: dict[Name, None] = {}
        self.written: dict[Name, None] = {}
        self.calls: dict[str, None] = {}
        """Functions and procedures, in lower case."""


def read(sql: str, dialect: str, known: Collection[str]) -> Found:
    """Of one or more statements. `known`: functions of which the caller says what they touch."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    if dialect != "postgres":
        sql = _UPDATE_OR.sub(r"\1", _REPLACE.sub(r"\1INSERT INTO ", sql))
        sql = _PLACE.sub(lambda piece: piece[1] or "?", sql)
    try:
        reader = sqlglot.Dialect.get_or_raise(dialect)
        parser = reader.parser(error_level=sqlglot.ErrorLevel.IMMEDIATE)
        # It would log the statement, values and all, where it parses no more than the first word.
        parser._warn_unsupported = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
        trees = [tree for tree in parser.parse(reader.tokenize(sql), sql) if tree is not None]
    except SqlglotError as error:
        # Without its cause, which quotes the statement.
        raise NotUnderstood(_where(error)) from None
    except RecursionError:
        raise NotUnderstood("it is too deep") from None
    if not trees:
        raise NotUnderstood("there is no statement in it")
    found = Found()
    try:
        for tree in trees:
            _Statement(tree, dialect, known, found).take()
    except RecursionError:
        raise NotUnderstood("it is too deep") from None
    return found


def _where(error: Any) -> str:
    """Its place, and not its text: there may be values in it."""
    faults = getattr(error, "errors", None)
    if faults and faults[0].get("line"):
        return f"it cannot be parsed at line {faults[0]['line']}, column {faults[0]['col']}"
    return "it cannot be parsed"


class _Statement:
    def __init__(self, tree: Any, dialect: str, known: Collection[str], found: Found) -> None:
        from sqlglot import exp

        self._exp = exp
        self._tree = tree
        self._is_lax = dialect == "sqlite"
        """CTEs may name themselves and later ones without RECURSIVE."""
        self._folds = dialect != "postgres"
        self._known = known
        self._found = found
        self._targets: dict[int, exp.Table] = {}
        self._skipped: set[int] = set()

    def take(self) -> None:
        exp, tree = self._exp, self._tree
        quiet = (exp.Transaction, exp.Commit, exp.Rollback, exp.Set, exp.Show, exp.Comment)
        if isinstance(tree, quiet) or type(tree).__name__ in {"Analyze", "Pragma"}:
            return
        if isinstance(tree, exp.Command):
            self._command(tree)
            return
        if isinstance(tree, exp.Create | exp.Drop | exp.Alter):
            if str(tree.args.get("kind") or "").upper() not in {"TABLE", "VIEW"}:
                if isinstance(tree, exp.Create) or tree.args.get("kind") == "INDEX":
                    return
                raise NotUnderstood("which tables this concerns does not stand in it")
        elif not isinstance(tree, exp.Query | exp.Values | exp.DML | exp.Merge | exp.Copy) and (
            not isinstance(tree, exp.TruncateTable)
        ):
            raise NotUnderstood(f"{type(tree).__name__} is not a statement that is known here")
        self._find_targets()
        for call in tree.find_all(exp.Func):
            name = call.name if isinstance(call, exp.Anonymous) else call.sql_name()
            self._found.calls.setdefault(name.lower())
        for table in tree.find_all(exp.Table):
            self._table(table)

    def _command(self, tree: Any) -> None:
        word = str(tree.this).upper()
        called = re.match(
            r"\s*(?:[\w$\"]+\.)?([\w$]+)\s*(?:\(|$)", _text(tree.args.get("expression"))
        )
        if word in {"CALL", "EXEC"} and called and called[1].lower() in self._known:
            self._found.calls.setdefault(called[1].lower())
            return
        raise NotUnderstood(f"what {word[:20]} touches does not stand in it")

    # -- what is written -----------------------------------------------------------------------

    def _find_targets(self) -> None:
        exp = self._exp
        for node in self._tree.find_all(exp.DML, exp.Merge, exp.Into):
            if isinstance(node, exp.Copy) and not node.args.get("kind"):
                continue  # TO: it is read
            self._target(node.args.get("this"))
            if isinstance(node, exp.Update):
                # MySQL writes any of those that are joined.
                for join in _joined(node.args.get("this")):
                    self._target(join)
            elif isinstance(node, exp.Delete):
                self._delete(node)
        tree = self._tree
        if isinstance(tree, exp.Create | exp.Alter):
            self._target(tree.args.get("this"))
            for renamed in tree.find_all(exp.AlterRename):
                self._target(renamed.args.get("this"))
        elif isinstance(tree, exp.Drop):
            for table in (tree.args.get("this"), *(tree.args.get("tables") or ())):
                self._target(table)
        elif isinstance(tree, exp.TruncateTable):
            for table in tree.expressions:
                self._target(table)

    def _delete(self, node: Any) -> None:
        """MySQL names what it deletes from by alias, before or after FROM."""
        this, named = node.args.get("this"), node.args.get("tables") or ()
        using = node.args.get("using") or ()
        sources = [*_with_joins(this), *(each for use in using for each in _with_joins(use))]
        by_alias = {table.alias: table for table in sources if table.alias}
        if named:
            self._targets.pop(id(this), None)
        for table in (*named, *(() if named else [this])):
            meant = by_alias.get(table.name) if not table.args.get("db") else None
            if meant is not None and meant is not table and (named or table is this):
                self._skipped.add(id(table))
                self._targets.pop(id(table), None)
                self._target(meant)
            else:
                self._target(table)

    def _target(self, node: Any) -> None:
        if isinstance(node, self._exp.Schema):
            node = node.this
        if isinstance(node, self._exp.Table) and isinstance(node.this, self._exp.Identifier):
            self._targets[id(node)] = node

    # -- what is read --------------------------------------------------------------------------

    def _table(self, table: Any) -> None:
        exp = self._exp
        if id(table) in self._skipped:
            return
        if id(table) in self._targets:
            self._found.written.setdefault(self._name(table))
            return
        this = table.this
        if isinstance(this, exp.Identifier):
            name = self._name(table)
            if name != ("", "dual") and not (not name[0] and self._is_cte(table, name[1])):
                self._found.read.setdefault(name)
        elif isinstance(this, exp.Anonymous):
            called = this.name.lower()
            if called not in self._known and not _PURE.match(called):
                raise NotUnderstood(
                    f"what the function {called[:100]}() reads does not stand in it"
                )

    def _name(self, table: Any) -> Name:
        return self._folded(table.args.get("db")), self._folded(table.this)

    def _folded(self, part: Any) -> str:
        if part is None:
            return ""
        name: str = part.name
        return name.lower() if self._folds or not part.args.get("quoted") else name

    def _is_cte(self, table: Any, name: str) -> bool:
        """Whether a WITH around it has taken the name."""
        below, node, within = table, table.parent, None
        while node is not None:
            if isinstance(node, self._exp.CTE):
                within = node
            with_ = node.args.get("with_") or node.args.get("with")
            if with_ is not None:
                ctes = list(with_.expressions)
                if below is with_ and not (self._is_lax or with_.args.get("recursive")):
                    ctes = ctes[: next(n for n, cte in enumerate(ctes) if cte is within)]
                if any(self._folded(cte.args["alias"].this) == name for cte in ctes):
                    return True
            below, node = node, node.parent
        return False


def _text(said: Any) -> str:
    return said if isinstance(said, str) else str(getattr(said, "name", ""))


def _joined(table: Any) -> Iterator[Any]:
    for join in (table.args.get("joins") or ()) if table is not None else ():
        yield join.this


def _with_joins(table: Any) -> Iterator[Any]:
    if table is not None:
        yield table
        yield from _joined(table)
