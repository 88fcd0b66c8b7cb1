"""What an SQL reader can tell of the tokens ahead: a SELECT, a table, another statement.

Prose has the same words. `select one from the menu` has an article where a table belongs, `drop
table 5 from the plan` a number: each shape asks for the neighbours that SQL needs, and looks ahead
by at most `AHEAD` tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headgate.security.injection.findings import Hit
from headgate.security.injection.sql_lexer import Token, lex
from headgate.security.injection.sql_words import OBJECTS, PROCEDURES, STOPS

AHEAD: Final = 48
TOKENS_MAX: Final = 4_000
"""An expression of so many tokens is no value; reading on would only cost time."""
END: Final = Token("$", "")
_BEGUN_WORDS: Final = "declare waitfor exec dbms_lock dbms_session user_lock dbms_pipe shutdown"
_BEGUN: Final = frozenset(_BEGUN_WORDS.split())
_PLAIN_HEAD: Final = re.compile(r"[\w@.+$%:/\\\-]*(?: [\w@.\-]+){0,2} ?").fullmatch


class Reader:
    """The tokens of a value from one place on, and the heaviest thing found among them."""

    def __init__(self, text: str, start: int, mark: str) -> None:
        self._text = text
        self._source: Iterator[Token] = lex(text, start)
        self._tokens: list[Token] = []
        self._mark = mark
        head = text[: max(0, start - 1)] if mark else ""
        self._is_measure = head[-1:].isdigit()
        # A quote behind a space and before a word begins a quotation rather than ends one.
        # So does one at the beginning, before a word, that is closed later on.
        self._opens = text[start : start + 1].isalnum() and (
            not head[-1].isalnum() if head else bool(mark) and text.find(mark, start) > 0
        )
        self._is_plain = (
            len(head) <= 64
            and _PLAIN_HEAD(head) is not None
            and (not head.strip() or not head[-1].isspace())
        )
        self._is_apart = text[start : start + 1].isspace()
        self._is_prose = False  # a string on the way held more than a word or two
        self.hit: Hit | None = None

    def _at(self, i: int) -> Token:
        tokens = self._tokens
        if i >= TOKENS_MAX:
            return END
        while len(tokens) <= i:
            token = next(self._source, None)
            if token is None:
                return END
            tokens.append(token)
        return tokens[i]

    def _found(self, i: int, score: int, name: str) -> bool:
        if self.hit is None or score > self.hit.score:
            seen = "".join(token.kind for token in self._tokens[: min(i + 1, 14)])
            self.hit = Hit("sql", score, f"{name}:{self._mark or '='}{seen}")
        return score >= 5

    def _selects(self, i: int) -> int:
        """Tell how much what follows SELECT looks like it: 2 surely, 1 maybe, 0 prose."""
        k = i + 1
        while self._at(k).kind in "q(NA" and k < i + 8:
            if self._at(k).text == "top" and self._at(k + 1).kind == "n":
                k += 1
            k += 1
        first = self._at(k)
        stars = self._at(k - 1).text == "*"
        if first.kind in "DFX" or (first.kind == "E" and first.text == "case"):
            return 2
        if first.kind == "S":
            return 1 + (self._at(k - 1).kind == "(")
        if stars:
            return self._from(k) if first.text == "from" else 2 * (first.kind in "$-);,")
        if first.kind == "f":
            return 2 if self._at(k + 2).kind not in "w0?" else 1
        if first.text == "like" and self._at(k + 1).kind == "(":
            return 2  # SQLite calls its operators, too
        if first.kind in "nsv0":
            after = self._at(k + 1)
            if first.kind == "s" and (first.is_open or after.kind == "$"):
                return 0
            if after.text == "from":
                return self._from(k + 1)
            if after.kind in "$-),;ACLUO":
                return 2 if after.kind != "," or self._at(k + 2).kind in "nsv0wfDF(AN*S" else 0
            if after.kind in "wa":
                return 1 if self._at(k + 2).kind in "$-),;O" else 0
            return 0
        if first.kind == "w":
            if self._at(k + 1).text == "where" and self._at(k + 2).kind == "n":
                return 2 * (self._at(k + 3).kind == "C")
            for _ in range(AHEAD):
                after = self._at(k + 1)
                if after.text == "from":
                    return self._from(k + 1)
                if after.kind not in ".,AfFDw0nsv()La" or (
                    after.kind == "w" and self._at(k + 2).kind == "w"
                ):
                    return 1 if after.kind in "-)C" else 0
                k += 1
        return 0

    def _from(self, i: int) -> int:
        table, after = self._at(i + 1), self._at(i + 2)
        if table.kind in "(Df":
            return 2
        if table.kind not in "w0s" or table.text in STOPS or table.is_open:
            return 0
        while after.kind == "." and i < AHEAD * 4:
            i += 2
            after = self._at(i + 2)
        if after.kind in "$-),;OUS" or after.text in {"as", "join", "inner", "left", "natural"}:
            return 2
        if after.kind == "w":
            return 2 if self._at(i + 3).kind in "$-),;OU" and after.text not in STOPS else 0
        return 1 if after.kind == "L" else 0

    def _acts(self, i: int) -> bool:
        """Whether something that only SQL has follows soon."""
        tokens = [self._at(k) for k in range(i, i + AHEAD)]
        return any(token.kind in "SDU" or token.text in _BEGUN for token in tokens)

    def _verb(self, i: int, word: str) -> int:
        one, two, three = self._at(i + 1), self._at(i + 2), self._at(i + 3)
        ends = frozenset("$-;)")
        if word in {"drop", "truncate", "alter", "create"}:
            if word == "truncate" and one.kind == "w" and one.text != "table":
                return 0
            k = i + 2
            if one.text not in OBJECTS or two.text in STOPS:
                return 0
            while self._at(k).text in {"if", "not", "exists", "table", "replace"} and k < i + 6:
                k += 1
            after = self._at(k + 1)
            while after.kind == "." and k < i + AHEAD:
                k += 2
                after = self._at(k + 1)
            good = after.kind in "$-;),(O" or word in {"alter", "create"} or after.text == "cascade"
            return 7 if self._at(k).kind in "w0sf" and good and not self._at(k).is_open else 0
        if word in {"exec", "execute"}:
            if (
                (one.kind == "(" and two.kind in "sv(DF")
                or one.kind == "v"
                or one.text.startswith(PROCEDURES)
            ):
                return 8
            return 7 if one.kind in "ws" and two.kind in "svn" else 0
        if word == "waitfor":
            return 9 if one.text in {"delay", "time"} and two.kind in "sv" else 0
        if word == "declare":
            return 7 if one.kind == "v" else 0
        if word == "set":
            return 7 if one.kind == "v" and two.kind == "C" else 0
        if word == "shutdown":
            is_last = one.kind == "-" or one.text == "with"
            return 6 if is_last or (one.kind == ";" and bool(self._mark)) else 0
        if word in {"insert", "replace", "merge"}:
            if one.text != "into" or two.kind not in "wf0" or two.text in STOPS:
                return 0
            k = i + 3
            while self._at(k).kind == "." and k < i + 10:
                k += 2
            return 7 if self._at(k).kind in "(S" or self._at(k).text == "values" else 0
        if word == "update":
            k = i + 2
            while self._at(k).kind == "." and k < i + 10:
                k += 2
            column, equals = self._at(k + 1), self._at(k + 2)
            if self._at(k).text == "set" and column.kind in "w0" and one.text not in STOPS:
                return 7 if equals.kind in {"C", "."} else 0
            return 0
        if word == "delete":
            return 7 if one.text == "from" and self._from(i + 1) == 2 else 0
        if word == "if":
            if one.kind == "N" and two.kind == "(":
                return 7
            if one.kind in "(XDF" and two.kind in "(Sns@vDFN":
                # `if (strcmp(a, b) != 0)` is anybody's program.
                return 7 if two.kind != "F" or self._acts(i + 3) else 0
            return 7 if one.kind == "D" else 0
        if word == "begin":
            return 6 if one.text in _BEGUN else 0
        if word in {"grant", "revoke"}:
            return 6 if two.text in {"on", "to"} or (one.text == "all" and three.kind == "w") else 0
        if word == "load":
            return 7 if one.text in {"data", "xml"} and two.text in {"infile", "local"} else 0
        if word == "copy":
            if one.kind == "(":
                return 7 if two.kind == "S" else 0
            is_file = three.kind == "s" or three.text in {"program", "stdin", "stdout", "/"}
            return 7 if one.kind == "w" and two.text in {"from", "to"} and is_file else 0
        if word in {"backup", "restore"}:
            return 7 if one.text in {"database", "log"} and two.kind in "w@v" else 0
        if word == "bulk":
            return 7 if one.text == "insert" else 0
        if word in {"commit", "rollback", "reconfigure"}:
            return 5 if one.kind == "-" else 0
        if word in {"pragma", "use", "kill", "dbcc"}:
            return 5 if one.kind in "wn" and two.kind in ends and two.kind != "$" else 0
        if word == "print":
            return 6 if one.kind == "v" else 0
        if word == "attach":
            return 7 if one.text == "database" and two.kind == "s" else 0
        if word in {"call", "do", "handler"}:
            return 6 if (one.kind in "Df" and word != "do") or one.kind == "D" else 0
        if word == "rename":
            return 6 if one.text == "table" and two.kind == "w" and three.text == "to" else 0
        if word == "prepare":
            return 6 if two.text == "from" else 0
        if word == "case":
            return 0
        return 0
