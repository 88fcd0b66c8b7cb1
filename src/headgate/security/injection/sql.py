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
- The walk looks at each token once and ahead by at most `AHEAD`: the cost is linear.
- Weak signs (`x' or 1`, `'='`) count only behind a short, plain value, because text that quotes
  code has them too; and never behind a digit and a quote, which are feet and inches.
"""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.findings import Hit
from headgate.security.injection.sql_lexer import Token
from headgate.security.injection.sql_shapes import AHEAD, END, TOKENS_MAX
from headgate.security.injection.sql_start import begins, goes_on
from headgate.security.injection.sql_statements import AFTER_TEST, Statements, cuts, is_variable
from headgate.security.injection.sql_union import LateUnion
from headgate.security.injection.sql_words import STOPS

_CONSTANT: Final = frozenset("nsv0")
_CALL: Final = frozenset("DFf")
_DASH: Final = re.compile(r"--\s+\w").match
_HASH: Final = re.compile(r"#\s+\w").match
_CUT_BEFORE_QUOTE: Final = re.compile(r"(?:--|#)[\s\-+]*['\"]?").fullmatch
_ADDRESS: Final = re.compile(r"[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}").fullmatch
_PARAMETER: Final = re.compile(r"[\w.\-]{1,40}(?:\[\w*\])?=(?![=>])").match
_PLAIN_STRING: Final = re.compile(r"[\w%\-.@*=]*(?: [\w%\-.@*]*)?").fullmatch


class Walk(Statements):
    """One reading of a value, from one place on."""

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
        last = END  # the last operand
        i = 0
        while True:
            if i >= TOKENS_MAX:
                if operators > TOKENS_MAX // 8:
                    self._found(i, 5, "endless")
                return self.hit
            token = self._at(i)
            kind = token.kind
            if wants_operand:
                if kind in _CONSTANT or kind in {"w", "*"}:
                    if kind == "v" and i == 0 and is_variable(token.text) and self._at(1) is END:
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
                        is_inside = mark or operators > 0
                        if shape and (shape == 2 or is_inside):
                            self._found(i, 7 if is_inside else 6, "subselect")
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
                elif kind == "{" and self._at(i + 1).text == "fn":
                    i += 2  # ODBC: {fn now()}
                elif kind == "c" and self._at(i + 1).kind == "(":
                    i += 2  # SQLite: like('a', b)
                elif kind == "X":
                    if self._at(i + 1).kind == "(" and self._at(i + 2).kind == "S":
                        self._found(i, 7, "exists")
                    return self.hit
                elif kind == "S" and operators and self._selects(i) == 2:
                    self._found(i, 6, "select")
                    return self.hit
                elif kind == "-" and operators and mark and cuts(token.text):
                    self._found(i, 5, "cut")
                    return self.hit
                elif i == 0 and token.text == "?":
                    i += 1  # a placeholder
                    wants_operand = False
                elif i == 0 and token.text == "=" and self._at(1).kind in "Ff":
                    return self.hit  # =IF(A1>5,"a","b") is a spreadsheet's
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
            if kind == "E" and token.text == "end":
                i += 1  # of a CASE that the service began
            elif kind == "(" and mark and self._at(i + 1).kind == "S":
                if self._selects(i + 1) == 2:
                    self._found(i, 6, "subselect")
                return self.hit
            elif kind == "c" and self._at(i + 1).text in {"boolean", "natural"} and mark:
                i += 3 if self._at(i + 1).text == "boolean" else 4  # MATCH ... IN BOOLEAN MODE
            elif kind == "L":
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
                    if mark or (logic and head in {"", "n"}):
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
            elif kind in "TS" and (mark or head in {"", "n", "0"}):
                is_quoted = self._opens and token.text not in {"exec", "execute", "waitfor"}
                if (kind == "S" and not mark) or is_quoted:
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
        ends = after.kind in AFTER_TEST or (
            after.kind == "s" and after.is_open and _PLAIN_STRING(after.text) is not None
        )
        is_cut = after.kind == "-" and bool(
            after.text[:2] == "/*" or cuts(after.text) or _CUT_BEFORE_QUOTE(after.text)
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
            if (
                not logic
                and mark
                and constant
                and kind == "s"
                and token.is_open
                and self._at(i - 1).text != "=="
                and not (self._opens and token.text[:1] == " ")
            ):
                weak = self._is_plain and not self._is_prose
                return self._found(i, 5 if weak else 3, "comparison")
            if not logic and mark and constant and after.kind == "L":
                return False
        if is_compared or not logic:
            if mark and kind == "s" and token.is_open and operators > 1 and is_constant:
                plain = self._is_plain and not self._is_prose
                return self._found(i, 5 if plain else 3, "operators")
            return False
        if (
            mark
            and kind in _CONSTANT
            and (
                after.kind in "$-);L"
                or (kind == after.kind == "s" and after.is_open and bool(_PLAIN_STRING(after.text)))
            )
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
            return words[0] in {"null", "true", "false"} and last.kind in AFTER_TEST
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
            if self._at(i + 3).kind == ")" and self._at(i + 4).kind in "wn":
                return False  # sleep(5)ms
            is_sure = first.kind in "nsDFf(v" or bool(cuts(self._at(i + 4).text))
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
        for k in range(i + 1, i + AHEAD):
            token = self._at(k)
            if (k > i + 1 and token.kind in "DFS" and token.text != "len") or token.kind == "C":
                is_data = True
            if token.text == ("as" if name == "cast" else ",") and depth == 1:
                is_sql = True
            if is_sql and is_data and name in {"if", "iif", "cast"}:
                return True
            if token.kind in "{}:" and name in {"if", "iif", "cast"}:
                return False
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
                    return after.kind in "Cc" or (after.kind == "-" and bool(cuts(after.text)))
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
        for k in range(i + 1, i + AHEAD):
            token = self._at(k)
            if token.kind in "CDFS":
                return self._found(i, 6, "case")
            if token.kind in "$?-" or (token.kind == "w" and self._at(k + 1).kind == "w"):
                return False
        return False

    # -- what follows a condition --------------------------------------------------------------

    def _cut(
        self, i: int, token: Token, logic: int, operators: int, depth: int, last: Token
    ) -> None:
        """Judge a comment that takes away the rest of the statement."""
        if not cuts(token.text):
            return
        if self._mark:
            if token.text[0] == "#" and self._is_measure and not operators:
                return
            # `teachers' -- ten of them` is a dash; `admin' -- -` is none.
            is_dash = not operators and (
                _DASH(token.text) is not None if self._is_apart else _HASH(token.text) is not None
            )
            self._found(i, 5 if (self._is_plain and not is_dash) or operators else 4, "cut")
        elif token.text.startswith("--+"):
            self._found(i, 5, "cut")  # a plus sign for a space: this was written for a URL
        elif (depth < 0 and token.text[:2] in {"--", "/*"}) or (logic and operators > 1):
            self._found(i, 5, "cut")


def find_sql(text: str) -> Hit | None:
    """Return the heaviest finding of the three readings."""
    if "@" in text and _ADDRESS(text) is not None:
        return None
    best = None
    lowered = text.lower()
    if begins(text):
        best = Walk(text, 0, "").run()
        parameter = _PARAMETER(text)
        if parameter is not None and begins(text, parameter.end()):
            best = _heavier(best, Walk(text, parameter.end(), "").run())
    for mark in "'\"":
        at = text.find(mark)
        if at >= 0 and (best is None or best.score < 7) and goes_on(lowered, at + 1):
            best = _heavier(best, Walk(text, at + 1, mark).run())
            if at and text[at - 1] == "\\":
                # Where the backslash escapes, the next quote is the one that leaves.
                at = text.find(mark, at + 1)
                if at >= 0:
                    best = _heavier(best, Walk(text, at + 1, mark).run())
    if "union" in lowered and (best is None or best.score < 5):
        best = _heavier(best, LateUnion(text, 0, "").run())
    return best


def _heavier(a: Hit | None, b: Hit | None) -> Hit | None:
    if a is None or (b is not None and b.score > a.score):
        return b
    return a
