"""Statements in a value: stacked, as a whole, and the clauses that follow a condition."""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.sql_lexer import Token
from headgate.security.injection.sql_shapes import AHEAD, END, Reader
from headgate.security.injection.sql_words import SECRETS, SELF

AFTER_TEST: Final = frozenset("$-L);OU,S}(ATa")
cuts: Final = re.compile(
    r"(?:--|\#)(?:[\s+\-%]*|[\s+]*\w{1,8}[\s)]*|\s+-.*)|/\*\W*|;?\x00.*", re.DOTALL
).fullmatch
is_variable: Final = re.compile(r"@@[a-z_]+").fullmatch


class Statements(Reader):
    """A reader that knows statements."""

    def _statement(self, i: int, mark: bool, is_stacked: bool) -> bool:
        """Judge what begins after `;`, or where T-SQL needs none; an innocent one may precede."""
        if self._one_statement(i, mark, is_stacked):
            return True
        stop = i + AHEAD
        while is_stacked and i < stop and self._at(i) is not END:
            if self._at(i).kind == ";" and self._one_statement(i + 1, mark, is_stacked):
                return True
            i += 1
        return False

    def _one_statement(self, i: int, mark: bool, is_stacked: bool) -> bool:
        token = self._at(i)
        if token.kind == "-":
            if mark and cuts(token.text):
                return self._found(i, 5 if self._is_plain else 4, "cut")
            return False
        if token.kind == "S" or (token.kind == "(" and self._at(i + 1).kind == "S"):
            at = i if token.kind == "S" else i + 1
            return self._selects(at) == 2 and self._found(i, 7 if is_stacked else 6, "statement")
        if token.kind == "(" and self._at(i + 1).kind == "D":
            return self._found(i, 6, "statement")
        if token.kind in "TFEf" or token.text in {"begin", "analyze", "reindex"}:
            score = self._verb(i, token.text)
            is_sure = is_stacked or mark or score >= 8
            return bool(score) and self._found(i, score if is_sure else 4, "statement")
        return False

    def _begins(self) -> None:
        """Judge a value that is a whole statement.

        People send those too, in questions and tutorials: the statement alone is no attack, but
        what is only ever injected into one is.
        """
        first = self._at(0)
        score = self._selects(0) if first.kind == "S" else self._verb(0, first.text)
        if not score:
            return
        if first.text == "if" and not any(
            self._at(k).text in {"select", "waitfor", "exec", "drop", "shutdown"}
            for k in range(2, 24)
        ):
            return
        if score >= 8 or first.text in {"declare", "if", "shutdown", "copy", "load"}:
            self._found(0, min(score, 7), "statement")
            return
        self._found(0, 3, "statement")
        column = self._at(1)
        if column.kind == "v" and column.text[:2] == "@@" and self._at(2).kind in "$;-":
            self._found(1, 5, "variable")
            return
        if column.text in SELF and self._at(2).kind in "($;-" and self._at(5).kind == "$":
            self._found(1, 5, "variable")
            return
        previous = END
        i = 0
        while True:
            token = self._at(i)
            kind = token.kind
            if kind == "$":
                return
            after = self._at(i + 1)
            if kind == "w" and token.text in SECRETS and i < AHEAD:
                is_table = self._at(i - 1).text in {"from", "join", "into", "update", "."}
                if is_table and (token.text != "mysql" or after.kind == "."):
                    self._found(i, 5, "secret table")
            if token.text == "into" and after.text in {"outfile", "dumpfile"}:
                self._found(i, 6, "into")
                return
            if kind == "D" and after.kind == "(" and self._at(i + 2).kind in "nsDFfv(":
                self._found(i, 6, "call")
                return
            if (kind == "L" and after.kind in "ns0v") or (kind == "L" and after.kind in "N("):
                k = i + 1
                while self._at(k).kind in "N(" and k < i + 8:
                    k += 1
                if (
                    self._at(k).kind in "ns"
                    and self._at(k + 1).kind in "Cc"
                    and self._at(k + 2).kind in "ns("
                    and self._at(k + 3).kind in AFTER_TEST
                    and previous.text != "between"
                ):
                    self._found(i, 6, "tautology")
                    return
            if kind == "U":
                k = i + 1
                while self._at(k).kind in "q(":
                    k += 1
                column, then = self._at(k + 1), self._at(k + 2)
                if self._at(k).kind == "S" and (
                    (column.kind in "n0" and then.kind in ",$-")
                    or (column.kind == "v" and is_variable(column.text))
                    or (column.kind == "F" and column.text in {"version", "database", "user"})
                ):
                    self._found(i, 6, "union")
                    return
            if (
                kind == "-"
                and i > 3
                and cuts(token.text)
                and (first.kind == "T" or not token.text.strip("-# "))
            ):
                self._found(i, 5, "cut")
            if kind == "c" and token.text == "between":
                previous = token
            elif kind not in "nsL":
                previous = token
            i += 1

    def _union(self, i: int, head: str, depth: int) -> None:
        k = i + 1
        while self._at(k).kind in "(q" and k < i + 8:
            k += 1
        token = self._at(k)
        is_table = token.text == "values" or (token.text == "table" and bool(self._mark))
        if is_table and self._at(k + 1).kind in "(w":
            self._found(k, 6, "union")
        if token.kind != "S":
            return
        shape = self._selects(k)
        if self._mark:
            self._found(k, 8 if shape else 6, "union")
        elif shape == 2 or (shape and head in {"n", "s", "0", "v"}):
            self._found(k, 7, "union")

    def _clause(self, i: int, token: Token, head: str) -> int:
        """Judge ORDER BY and its kind; return where a condition goes on, or -1."""
        word, mark = token.text, bool(self._mark)
        first, second = self._at(i + 1), self._at(i + 2)
        if word in {"having", "where"}:
            return i + 1 if mark or head in {"", "n"} else -1
        if word in {"order", "group"} and first.text == "by":
            k = i + 2
            while self._at(k).kind in "nws" and self._at(k + 1).kind in ",a" and k < i + AHEAD:
                k += 2
            if self._at(k).kind == "D" and k > i + 2:
                self._found(k, 7, "by")
                return -1
            last, after = self._at(k), self._at(k + 1)
            while after.kind == "a":
                k += 1
                after = self._at(k + 1)
            is_cut = after.kind == "-" and cuts(after.text) is not None
            if mark and second.kind in "n(DFf":
                self._found(k, 7, "by")
            elif last.kind in "nws" and is_cut and (mark or second.kind == "n"):
                self._found(k, 5, "by")
            elif head in {"", "n"} and second.kind == "n" and after.kind in "$),;OU":
                # "Order by 10" is what a shop says.
                if (
                    head
                    or k > i + 2
                    or any(each in self._text for each in ("ORDER BY", "order by"))
                ):
                    self._found(k, 5, "by")
            elif second.kind == "D" or (second.kind == "(" and self._at(i + 3).kind in "SE"):
                self._found(k, 7, "by")
            if after.kind == "O" and after.text == "having":
                return k + 2
            if after.kind == "U":
                self._union(k + 1, head, 0)
            return -1
        if word == "into" and first.text in {"outfile", "dumpfile"}:
            self._found(i, 8 if second.kind in "s$-" else 4, "into")
        elif word == "procedure" and first.text == "analyse":
            self._found(i, 8, "procedure")
        elif word == "limit" and first.kind == "n":
            k = i + 2
            if self._at(k).kind == "," or self._at(k).text == "offset":
                k += 2
            after = self._at(k)
            if after.text in {"into", "procedure"}:
                return self._clause(k, after, head)
            if after.kind == "U":
                self._union(k, head, 0)
            elif mark and after.kind == "-" and cuts(after.text):
                self._found(k, 5, "limit")
        return -1
