"""A UNION behind operands and clauses that the walk does not know, as in `1::real union select`.

What stands before it must be short and nothing that people write: no two plain words side by side,
no statement of its own (who asks about SQL sends the whole of it). Behind it must be a SELECT.
"""

from __future__ import annotations

from typing import Final

from headgate.security.injection.findings import Hit
from headgate.security.injection.sql_shapes import END
from headgate.security.injection.sql_statements import Statements

_BEFORE_MAX: Final = 24
_STATEMENTS: Final = frozenset({"select", "with", "insert", "update", "delete", "create", "use"})


class LateUnion(Statements):
    def run(self) -> Hit | None:
        was_word = False
        for i in range(_BEFORE_MAX):
            token = self._at(i)
            if token is END:
                return self.hit
            if token.kind == "U":
                if token.text == "union":
                    self._union(i, "", 0)
                return self.hit
            is_word = token.kind == "w" and not token.text.startswith(("_", "`"))
            if (is_word and was_word) or (i == 0 and token.text in _STATEMENTS):
                return None
            was_word = is_word
        return None
