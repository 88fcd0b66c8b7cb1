"""Whether a value would be more than a value inside an SQL statement.

Theory of operation
-------------------
A value stands in a statement in one of three ways: bare (`id = VALUE`), in single or in double
quotes. An attack has to leave that place and go on in valid SQL. So the value is read three
times: as it is, from behind its first single quote, and from behind its first double quote. A
later quote cannot leave the literal: what stands between would not be SQL.

From there `Walk` follows the tokens as an expression: operand, operator, operand, ... Prose and
program code soon put two words side by side, or a word where an operator belongs, and the walk
ends with what it has seen so far, which is mostly nothing; only real SQL gets far, and it is a
finding when it does something on its way: compare constants after AND/OR, call a function that
waits or leaks, open a sub-select or UNION, begin another statement, cut off the rest by a comment.

What an editor must not break:
- The walk looks at each token once and ahead by at most `_AHEAD`: the cost is linear.
- Weak signs (`x' or 1`, `'='`) count only behind a short, plain value, because text that quotes
  code has them too; and never behind a digit and a quote, which are feet and inches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headgate.security.injection.findings import Hit
from headgate.security.injection.sql_lexer import Token, lex
from headgate.security.injection.sql_words import OBJECTS, PROCEDURES, SECRETS, SELF, STOPS, WORDS

_AHEAD: Final = 48
_TOKENS_MAX: Final = 4_000
"""An expression of so many tokens is no value; reading on would only cost time."""
_END: Final = Token("$", "")
_CONSTANT: Final = frozenset("nsv0")
_CALL: Final = frozenset("DFf")
_AFTER_TEST: Final = frozenset("$-L);OU,S}(ATa")
_PLAIN_HEAD: Final = re.compile(r"[\w@.+$%:/\\\-]*(?: [\w@.\-]+){0,2} ?").fullmatch
_CUT: Final = re.compile(
    r"(?:--|\#)(?:[\s+\-%]*|[\s+]*\w{1,8}[\s)]*|\s+-.*)|/\*\W*|;?\x00.*", re.DOTALL
).fullmatch
_CUT_BEFORE_QUOTE: Final = re.compile(r"(?:--|#)[\s\-+]*['\"]?").fullmatch
_PARAMETER: Final = re.compile(r"[\w.\-]{1,40}(?:\[\w*\])?=(?![=>])").match
_VERSIONS: Final = re.compile(r"@@[a-z_]+").fullmatch
_PLAIN_STRING: Final = re.compile(r"[\w%\-.@*=]*(?: [\w%\-.@*]*)?").fullmatch


class Walk:
    """One reading of a value, from one place on."""

    def __init__(self, text: str, start: int, mark: str) -> None:
        self._text = text
        self._source: Iterator[Token] = lex(text, start)
        self._tokens: list[Token] = []
        self._mark = mark
        head = text[: max(0, start - 1)] if mark else ""
        self._is_measure = head[-1:].isdigit()
        # A quote behind a space and before a word begins a quotation rather than ends one.
        self._opens = bool(head) and not head[-1].isalnum() and text[start : start + 1].isalnum()
        self._is_plain = len(head) <= 64 and _PLAIN_HEAD(head) is not None
        self._is_prose = False  # a string on the way held more than a word or two
        self.hit: Hit | None = None

    def _at(self, i: int) -> Token:
        tokens = self._tokens
        if i >= _TOKENS_MAX:
            return _END
        while len(tokens) <= i:
            token = next(self._source, None)
            if token is None:
                return _END
            tokens.append(token)
        return tokens[i]

    def _found(self, i: int, score: int, name: str) -> bool:
        if self.hit is None or score > self.hit.score:
            seen = "".join(token.kind for token in self._tokens[: min(i + 1, 14)])
            self.hit = Hit("sql", score, f"{name}:{self._mark or '='}{seen}")
        return score >= 5

    # -- the expression ------------------------------------------------------------------------

    def run(self) -> Hit | None:
        """Follow the expression; return the heaviest thing seen on the way."""
        mark = bool(self._mark)
        wants_operand = not mark
        logic = 0  # AND, OR and what works like them, so far
        operators = 0
        is_compared = False  # a comparison since the last AND/OR
        is_constant = True  # only constants since then
        was_compared = False  # a comparison before the first AND/OR: `2+2=4 and ...`
        depth = 0
        head = "" if not mark else "s"  # the first operand
        last = _END  # the last operand
        i = 0
        while True:
            if i >= _TOKENS_MAX:
                if operators > _TOKENS_MAX // 8:
                    self._found(i, 5, "endless")
                return self.hit
            token = self._at(i)
            kind = token.kind
            if wants_operand:
                if kind in _CONSTANT or kind == "w" or kind == "*":
                    if kind == "v" and i == 0 and _VERSIONS(token.text) and self._at(1) is _END:
                        self._found(i, 5, "variable")
                    if kind == "w" and self._at(i + 1).kind == ".":
                        i += 2
                        continue
                    if kind == "w" and token.text in {"n", "x"} and self._at(i + 1).kind == "s":
                        i += 1
                        continue
                    head = head or kind
                    after = self._at(i + 1)
                    if self._tests(i, token, after, last, logic, operators,
                                   is_compared, is_constant, was_compared, head):  # fmt: skip
                        return self.hit
                    if kind == "w":
                        is_constant = False
                    last = token
                    wants_operand = False
                    i += 1
                elif kind in _CALL:
                    if self._calls(i, kind, logic, operators):
                        return self.hit
                    head = head or "f"
                    last = token
                    depth += 1
                    if kind == "f":
                        is_constant = False
                    i += 2
                    if self._at(i).kind == ")":
                        depth -= 1
                        i += 1
                        wants_operand = False
                elif kind == "(":
                    depth += 1
                    i += 1
                    if self._at(i).kind == "S":
                        shape = self._selects(i)
                        if shape and (shape == 2 or mark or operators):
                            if self._found(i, 7 if mark or operators else 6, "subselect"):
                                return self.hit
                        if not mark:
                            return self.hit
                        wants_operand = False
                        i += 1
                elif kind == "N" or (kind == "A" and token.text in "+-*") or kind == "q":
                    i += 1
                elif kind == "E" and token.text == "case":
                    self._case(i)
                    return self.hit
                elif kind == "c" and self._at(i + 1).kind == "(":
                    i += 2  # SQLite: like('a', b)
                elif kind == "X":
                    if self._at(i + 1).kind == "(" and self._at(i + 2).kind == "S":
                        self._found(i, 7, "exists")
                    return self.hit
                elif kind == "S" and operators and self._selects(i) == 2:
                    self._found(i, 6, "select")
                    return self.hit
                elif kind == "-" and operators and mark and _CUT(token.text):
                    self._found(i, 5, "cut")
                    return self.hit
                elif i == 0 or kind in ");":
                    # Nothing before: ` or 1=1`, `) or (1=1`, `union select`: the value may begin
                    # where another operand was.
                    wants_operand = False
                    if kind in "ST" and i == 0:
                        self._begins()
                        return self.hit
                else:
                    return self.hit
                continue
            # After an operand: an operator, the end of something, or no SQL.
            if kind == "L":
                if not logic:
                    was_compared = is_compared
                logic += 1
                operators += 1
                is_compared, is_constant = False, True
                wants_operand = True
                i += 1
            elif kind in "Cc":
                if not self._compares(i, token):
                    return self.hit
                if kind == "c" and token.text == "is":
                    if mark or (logic and head in "n"):
                        self._found(i, 6 if logic else 5, "is null")
                    return self.hit
                is_compared = True
                operators += 1
                wants_operand = True
                i += 1
            elif kind == "A":
                operators += 1
                wants_operand = True
                i += 1
            elif kind == "N":
                i += 1  # `x not like`, `1!=2`
                if self._at(i).kind not in "cC":
                    return self.hit
            elif kind == ")":
                depth -= 1
                i += 1
            elif kind == "(" and last.kind == "n" and last.text.endswith("e"):
                i += 1  # MySQL reads `1.e(1)` as `1(1)`, and that as a call
                wants_operand = True
            elif kind == ",":
                logic = 0
                is_compared, is_constant = False, True
                wants_operand = True
                i += 1
            elif kind == "U":
                self._union(i, head, depth)
                return self.hit
            elif kind == "O":
                i = self._clause(i, token, head)
                if i < 0:
                    return self.hit
                logic += 1
                operators += 1
                is_compared, is_constant = False, True
                wants_operand = True
            elif kind == ";":
                self._statement(i + 1, mark, True)
                return self.hit
            elif kind in "TS" and (mark or head in "n0"):
                if (kind == "S" and not mark) or self._opens:
                    return self.hit
                self._statement(i, mark, False)
                return self.hit
            elif kind == "-":
                self._cut(i, token, logic, operators, depth, last)
                return self.hit
            elif kind == "s" and last.kind == "s" and not last.is_open and mark:
                last = token
                i += 1  # adjacent strings are one
            elif kind == "a" or (kind == "q" and mark):
                named = token.text == "as" and self._at(i + 1).kind == "w"
                if not mark and not (named and self._at(i + 2).text == "where"):
                    return self.hit
                i += 2 if named else 1
                wants_operand = False
            else:
                return self.hit

    def _tests(
        self,
        i: int,
        token: Token,
        after: Token,
        last: Token,
        logic: int,
        operators: int,
        is_compared: bool,
        is_constant: bool,
        was_compared: bool,
        head: str,
    ) -> bool:
        """Judge an operand that has just been read."""
        mark = bool(self._mark)
        kind = token.kind
        if kind == "s" and not _PLAIN_STRING(token.text):
            self._is_prose = True
        ends = after.kind in _AFTER_TEST or (after.kind == "s" and after.is_open)
        is_cut = after.kind == "-" and bool(
            after.text[:2] == "/*" or _CUT(after.text) or _CUT_BEFORE_QUOTE(after.text)
        )
        if after.kind == "-" and not is_cut and not mark:
            ends = False
        if is_compared and ends:
            same = (
                kind == last.kind == "w"
                and token.text == last.text
                and "." not in {self._at(i - 1).kind, self._at(max(0, i - 3)).kind}
            )
            constant = is_constant and kind in _CONSTANT
            if logic and (constant or same):
                if mark:
                    return self._found(i, 7, "tautology")
                if was_compared and after.kind != "-":
                    return self._found(i, 3, "tautology")
                if head == "w" and self._at(0).text in STOPS:
                    return False
                return self._found(i, 6, "tautology")
            if logic and mark and kind in "nswv0":
                return self._found(i, 5 if self._is_plain else 4, "condition")
            if logic and not mark and head == "n" and kind == "s" and operators > 1:
                return self._found(i, 5, "condition")
            if not logic and mark and constant and kind == "s" and token.is_open and self._at(i - 1).text != "==":
                weak = self._is_plain and not self._is_prose and not self._is_measure
                return self._found(i, 5 if weak else 3, "comparison")
            if not logic and mark and constant and after.kind == "L":
                return False
        if is_compared or not logic:
            if mark and kind == "s" and token.is_open and operators > 1 and is_constant:
                plain = self._is_plain and not self._is_prose
                return self._found(i, 5 if plain else 3, "operators")
            return False
        if mark and kind in _CONSTANT and (
            after.kind in "$-);L" or (kind == after.kind == "s" and after.is_open)
        ):
            if kind == "s":
                is_good = token.is_open or after.kind != "$"
                is_good = is_good and not self._is_prose
            else:
                is_good = not self._is_measure or after.kind == "-"
            if after.kind == "-":
                is_good = is_good and is_cut
            elif after.kind == "L":
                is_good = is_good and self._at(i + 2).kind in "nsvwfFD0("
            return self._found(i, 5 if is_good and self._is_plain else 3, "truth")
        if not mark and kind in _CONSTANT and is_cut:
            return self._found(i, 5, "truth")
        return False

    def _compares(self, i: int, token: Token) -> bool:
        after = self._at(i + 1)
        if token.text == "is":
            words = [self._at(i + k).text for k in (1, 2, 3)]
            if words[0] == "not":
                words = words[1:]
            last = self._at(i + (3 if self._at(i + 1).text == "not" else 2))
            return words[0] in {"null", "true", "false"} and last.kind in _AFTER_TEST
        if token.text == "in":
            return after.kind == "("
        if token.text == "between" or token.kind == "c":
            return after.kind in "nsv0(fFDAN"
        return True

    def _calls(self, i: int, kind: str, logic: int, operators: int) -> bool:
        """Judge a call: what stands in its parentheses tells functions from prose."""
        first, second = self._at(i + 2), self._at(i + 3)
        name = self._at(i).text
        if first.kind == "A" and first.text in "-+*":
            first, second = second, self._at(i + 4)
        if first.kind in "w0" and second.kind in "w?s0n":
            return False
        if first.kind in "nsv" and second.kind not in "),ACLc;-$":
            return False
        mark = bool(self._mark)
        if kind == "D":
            if first.kind == ")" and name not in {"sqlite_version", "pg_client_encoding"}:
                return self._found(i, 4 if not mark else 5, "call")
            if mark or operators:
                return self._found(i, 8, "call")
            is_sure = first.kind in "nsDFf(v" or bool(_CUT(self._at(i + 4).text))
            return self._found(i, 6 if is_sure else 4, "call")
        if mark and kind == "F" and operators:
            return self._found(i, 6, "call")
        if mark and kind == "f" and operators and self._is_plain and first.kind in "ns(DFSv)":
            return self._found(i, 5, "call")
        if kind == "F" and name in {"if", "iif", "char", "chr", "concat", "cast", "convert"}:
            return not mark and self._inner(i) and self._found(i, 6, "call")
        if kind == "F" and operators and logic:
            return self._inner(i) and self._found(i, 6, "call")
        return False

    def _inner(self, i: int) -> bool:
        """Whether a call holds what values do not hold: data functions, sub-selects, a test."""
        depth = 0
        name = self._at(i).text
        # Languages other than SQL have `if (` and `cast(` too, but not with these inside.
        is_sql = name not in {"if", "iif", "cast"}
        is_data = False
        for k in range(i + 1, i + _AHEAD):
            token = self._at(k)
            if k > i + 1 and token.kind in "DFS" and token.text != "len" or token.kind == "C":
                is_data = True
            if token.text == ("as" if name == "cast" else ",") and depth == 1:
                is_sql = True
            if is_sql and is_data and name in {"if", "iif", "cast"}:
                return True
            if token.kind == "(":
                depth += 1
            elif token.kind == ")":
                depth -= 1
                if not depth:
                    after = self._at(k + 1)
                    if after.kind in "ST" and name == "if":
                        return True
                    if not is_sql or (name in {"if", "iif", "cast"} and not is_data):
                        return False
                    if not is_data and self._at(0).kind != "n":
                        return False  # `and len(x) != 1` is anybody's program
                    return after.kind in "Cc" or (after.kind == "-" and bool(_CUT(after.text)))
            elif not is_sql:
                continue
            elif token.kind in "DSFU" or (token.kind == "v" and token.text.startswith("@@")):
                return True
            elif token.kind in "?$" or (token.kind == "w" and self._at(k + 1).kind == "w"):
                return False
        return is_sql

    def _case(self, i: int) -> bool:
        if "when" not in {self._at(i + k).text for k in (1, 2, 3, 4)}:
            return False
        for k in range(i + 1, i + _AHEAD):
            token = self._at(k)
            if token.kind in "CDFS":
                return self._found(i, 6, "case")
            if token.kind in "$?-" or (token.kind == "w" and self._at(k + 1).kind == "w"):
                return False
        return False

    # -- what follows a condition --------------------------------------------------------------

    def _union(self, i: int, head: str, depth: int) -> None:
        k = i + 1
        while self._at(k).kind in "(q" and k < i + 8:
            k += 1
        token = self._at(k)
        if token.text == "values" or (token.text == "table" and self._mark):
            if self._at(k + 1).kind in "(w":
                self._found(k, 6, "union")
        if token.kind != "S":
            return
        shape = self._selects(k)
        if self._mark:
            self._found(k, 8 if shape else 6, "union")
        elif shape == 2 or (shape and head and head in "ns0v"):
            self._found(k, 7, "union")

    def _clause(self, i: int, token: Token, head: str) -> int:
        """Judge ORDER BY and its kind; return where a condition goes on, or -1."""
        word, mark = token.text, bool(self._mark)
        first, second = self._at(i + 1), self._at(i + 2)
        if word in {"having", "where"}:
            return i + 1 if mark or head in "n" else -1
        if word in {"order", "group"} and first.text == "by":
            k = i + 2
            while self._at(k).kind in "nws" and self._at(k + 1).kind in ",a" and k < i + _AHEAD:
                k += 2
            if self._at(k).kind == "D" and k > i + 2:
                self._found(k, 7, "by")
                return -1
            last, after = self._at(k), self._at(k + 1)
            while after.kind == "a":
                k += 1
                after = self._at(k + 1)
            is_cut = after.kind == "-" and _CUT(after.text) is not None
            if mark and second.kind in "n(DFf":
                self._found(k, 7, "by")
            elif last.kind in "nws" and is_cut and (mark or second.kind == "n"):
                self._found(k, 5, "by")
            elif head in "n" and second.kind == "n" and after.kind in "$),;OU":
                # "Order by 10" is what a shop says.
                if head or k > i + 2 or any(each in self._text for each in ("ORDER BY", "order by")):
                    self._found(k, 5, "by")
            elif second.kind in "D" or (second.kind == "(" and self._at(i + 3).kind in "SE"):
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
            elif mark and after.kind == "-" and _CUT(after.text):
                self._found(k, 5, "limit")
        return -1

    def _cut(self, i: int, token: Token, logic: int, operators: int, depth: int, last: Token) -> None:
        """Judge a comment that takes away the rest of the statement."""
        if not _CUT(token.text):
            return
        if self._mark:
            if token.text[0] == "#" and self._is_measure and not operators:
                return
            self._found(i, 5 if self._is_plain or operators else 4, "cut")
        elif (depth < 0 and token.text[:2] in {"--", "/*"}) or (logic and operators > 1):
            self._found(i, 5, "cut")

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
            for _ in range(_AHEAD):
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
        while after.kind == "." and i < _AHEAD * 4:
            i += 2
            after = self._at(i + 2)
        if after.kind in "$-),;OUS" or after.text in {"as", "join", "inner", "left", "natural"}:
            return 2
        if after.kind == "w":
            return 2 if self._at(i + 3).kind in "$-),;OU" and after.text not in STOPS else 0
        return 1 if after.kind in "L" else 0

    # -- statements ----------------------------------------------------------------------------

    def _statement(self, i: int, mark: bool, is_stacked: bool) -> bool:
        """Judge what begins after `;`, or where T-SQL needs none."""
        token = self._at(i)
        if token.kind == "-":
            if mark and _CUT(token.text):
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
            while after.kind == "." and k < i + _AHEAD:
                k += 2
                after = self._at(k + 1)
            good = after.kind in "$-;),(O" or word in {"alter", "create"} or after.text == "cascade"
            return 7 if self._at(k).kind in "w0sf" and good and not self._at(k).is_open else 0
        if word in {"exec", "execute"}:
            if (one.kind == "(" and two.kind in "sv(DF") or one.kind == "v" or one.text.startswith(PROCEDURES):
                return 8
            return 7 if one.kind in "ws" and two.kind in "svn" else 0
        if word == "waitfor":
            return 9 if one.text in {"delay", "time"} and two.kind in "sv" else 0
        if word == "declare":
            return 7 if one.kind == "v" else 0
        if word == "set":
            return 7 if one.kind == "v" and two.kind == "C" else 0
        if word == "shutdown":
            return 6 if one.kind == "-" or one.text == "with" else 0
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
                return 7 if equals.kind == "C" or equals.kind == "." else 0
            return 0
        if word == "delete":
            return 7 if one.text == "from" and self._from(i + 1) == 2 else 0
        if word == "if":
            if one.kind == "N" and two.kind == "(":
                return 7
            return 7 if one.kind in "(XDF" and two.kind in "(Sns@vDFN" or one.kind == "D" else 0
        if word == "begin":
            return 6 if one.text in {"declare", "waitfor", "exec", "dbms_lock"} else 0
        if word in {"grant", "revoke"}:
            return 6 if two.text in {"on", "to"} or one.text == "all" and three.kind == "w" else 0
        if word == "load":
            return 7 if one.text in {"data", "xml"} and two.text in {"infile", "local"} else 0
        if word == "copy":
            return 7 if one.kind in "(w" and (two.kind == "S" or two.text in {"from", "to"}) else 0
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
            return 6 if one.kind in "Df" and word != "do" or one.kind == "D" else 0
        if word == "rename":
            return 6 if one.text == "table" and two.kind == "w" and three.text == "to" else 0
        if word == "prepare":
            return 6 if two.text == "from" else 0
        if word == "case":
            return 0
        return 0

    # -- values that are statements ------------------------------------------------------------

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
            self._at(k).text in {"select", "waitfor", "exec", "drop", "shutdown"} for k in range(2, 24)
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
        previous = _END
        i = 0
        while True:
            token = self._at(i)
            kind = token.kind
            if kind == "$":
                return
            after = self._at(i + 1)
            if kind == "w" and token.text in SECRETS and i < _AHEAD:
                self._found(i, 5, "secret table")
            if kind == "D" and after.kind == "(" and self._at(i + 2).kind in "nsDFfv(":
                self._found(i, 6, "call")
                return
            if kind == "L" and after.kind in "ns0v" or (kind == "L" and after.kind in "N("):
                k = i + 1
                while self._at(k).kind in "N(" and k < i + 8:
                    k += 1
                if (
                    self._at(k).kind in "ns"
                    and self._at(k + 1).kind in "Cc"
                    and self._at(k + 2).kind in "ns("
                    and self._at(k + 3).kind in _AFTER_TEST
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
                    or (column.kind == "v" and _VERSIONS(column.text))
                    or (column.kind == "F" and column.text in {"version", "database", "user"})
                ):
                    self._found(i, 6, "union")
                    return
            if kind == "-" and i > 3 and _CUT(token.text) and first.kind == "T":
                self._found(i, 5, "cut")
            if kind == "c" and token.text == "between":
                previous = token
            elif kind not in "nsL":
                previous = token
            i += 1


_GOES_ON: Final = "|".join(word for word, kind in WORDS.items() if kind in "LcANUOTSaq")
_WORD_AFTER: Final = rf"(?:{_GOES_ON})(?![a-z_\x80-\uffff])"
# Where a walk cannot get anywhere is told by one match, without taking tokens.
_BARE_START: Final = re.compile(
    rf"""[\s\x00-\x20\xa0(+\-~!*]*+(?:
    (?:[\w$@.]++|`[^`]*`|\[[\w ]*\]|'[^']*+'|"[^"]*+")?
    (?:[\s\x00-\x20\xa0)]|/\*!\d*|/\*[^*]*\*+/|\*/)*+(?:[;,|&=<>!*/%^\#+\-~]|{_WORD_AFTER})
    |\w+(?:\.\w+)?\s*+\(|{_WORD_AFTER}|@@|\d+e(?=[a-z])|\(*select\b|case\b|\d[\d.]*[a-z])""",
    re.IGNORECASE | re.VERBOSE,
).match
_QUOTED_START: Final = re.compile(
    rf"[\s\x00-\x20\xa0)\]}}]*+(?:[^\w\s]|{_WORD_AFTER}|[nbxe]['\"])", re.IGNORECASE
).match


_WORD: Final = re.compile(r"[a-z_]*").match
_GOES_ON_WORDS: Final = frozenset(_GOES_ON.split("|"))


def goes_on(low: str, at: int) -> bool:
    """Whether what stands behind a quote could go on in SQL at all; of text in lower case."""
    if low[at : at + 1] == " ":
        at += 1
    word = _WORD(low, at)
    if word is not None and word.end() > at:
        end = word.end()
        return word.group() in _GOES_ON_WORDS or low[end : end + 1] in {"'", '"'}
    return _QUOTED_START(low, at) is not None


def find_sql(text: str) -> Hit | None:
    """Return the heaviest finding of the three readings."""
    best = None
    if _BARE_START(text):
        best = Walk(text, 0, "").run()
        parameter = _PARAMETER(text)
        if parameter is not None and _BARE_START(text, parameter.end()):
            best = _heavier(best, Walk(text, parameter.end(), "").run())
    for mark in "'\"":
        at = text.find(mark)
        if at >= 0 and (best is None or best.score < 7) and _QUOTED_START(text, at + 1):
            best = _heavier(best, Walk(text, at + 1, mark).run())
            if at and text[at - 1] == "\\":
                # Where the backslash escapes, the next quote is the one that leaves.
                at = text.find(mark, at + 1)
                if at >= 0:
                    best = _heavier(best, Walk(text, at + 1, mark).run())
    return best


def _heavier(a: Hit | None, b: Hit | None) -> Hit | None:
    if a is None or (b is not None and b.score > a.score):
        return b
    return a
