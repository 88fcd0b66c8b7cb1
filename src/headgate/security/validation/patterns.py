r"""Regular expressions of schemas: which of them are taken, and how they are run.

They are run by an automaton that takes time in proportion to the text whatever the expression is.
It cannot look around or back (`(?=...)`, `\1`), so such an expression is refused when the
document is loaded. `patterns: bounded` runs these alone by backtracking that gives up after a
number of steps; a value on which it gives up is invalid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from headgate.security.validation.references import At

__all__ = ["Patterns"]

_STEPS: Final = 20_000
_MAX_CHARACTERS: Final = 5000
_WHY: Final = (
    (re.compile(r"\(\?[=!]"), "looks ahead"),
    (re.compile(r"\(\?<[=!]"), "looks behind"),
    (re.compile(r"\\[1-9]|\\k<"), "refers back to a group"),
    (re.compile(r"\(\?>|[*+?}]\+"), "is possessive"),
)


class Patterns:
    """Tries expressions, and gives the library its options."""

    def __init__(self, how: Literal["linear", "bounded"]) -> None:
        # On use: `import headgate.security` must not load it.
        import jsonschema_rs

        self._library: Any = jsonschema_rs
        self.options: Any = (
            jsonschema_rs.RegexOptions()
            if how == "linear"
            else jsonschema_rs.FancyRegexOptions(backtrack_limit=_STEPS)
        )
        self._is_linear = how == "linear"
        self._good: set[str] = set()

    def check(self, pattern: str, at: At) -> None:
        """Raise DocumentInvalid for one that cannot be run."""
        if pattern in self._good:
            return
        shown = pattern[:80]
        if len(pattern) > _MAX_CHARACTERS:
            raise at.fault(f"the pattern is longer than {_MAX_CHARACTERS} characters")
        if not self._runs(pattern, self.options):
            why = next((text for form, text in _WHY if form.search(pattern)), None)
            if why is not None and self._is_linear:
                way_out = "rewrite it, or say `patterns: bounded`"
                raise at.fault(
                    f"the pattern {shown!r} {why}, which takes unbounded time; {way_out}"
                )
            raise at.fault(f"{shown!r} is no regular expression of ECMA 262, or is too large")
        self._good.add(pattern)

    def _runs(self, pattern: str, options: Any) -> bool:
        try:
            self._library.Draft202012Validator({"pattern": pattern}, pattern_options=options)
        except ValueError:
            return False
        return True
