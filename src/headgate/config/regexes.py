r"""Which regular expressions may stand in the file.

Theory of operation
-------------------
Paths and headers come from strangers and Python's matcher backtracks, so an expression that can
cut one text in exponentially many ways would let a single request hold a worker for minutes.
Such expressions have one shape: an unbounded repeat over something that itself repeats without a
bound, ``(a+)+`` or ``(\w*-?)*``. They are refused here.

The shape alone would refuse too much: ``(/[^/]+)+`` is how people write paths, and it is safe,
because each turn of the outer repeat must pass a "/" that the inner one cannot take. So a turn
with a mandatory character that none of its inner repeats may match is let through.

What remains possible is polynomial time, as in ``.*a.*b.*c``; with the URL limit of 8KB that is
slow but finite, and it is the operator's own expression, so it is not refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["regex_fault"]

_LONGEST: Final = 1000
_UNBOUNDED: Final = 16  # {0,16} within {0,16} is as bad as no bound
# sre's own parser: private, but stable since 2.x and the only way to see the tree.
_parser: Final[Any] = getattr(re, "_parser")  # noqa: B009 - typeshed does not know it
_const: Final[Any] = getattr(re, "_constants")  # noqa: B009

_CATEGORIES: Final = {
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
}
_REPEATS: Final = (_const.MAX_REPEAT, _const.MIN_REPEAT)  # possessive ones do not backtrack


def regex_fault(pattern: str) -> str | None:
    """What is wrong with a regular expression, as a rule that reads on after it; or None."""
    if len(pattern) > _LONGEST:
        return f"is too long a regular expression; the most is {_LONGEST} characters"
    try:
        re.compile(pattern)
        tree = _parser.parse(pattern)
    except re.error as error:
        at = f" at character {error.pos + 1}" if error.pos is not None else ""
        return f"is not a regular expression: {_mild(error.msg)}{at}"
    except (OverflowError, RecursionError, ValueError):
        return "is not a regular expression: too much of it"
    if _nests(tree):
        return "repeats a repeat, as in (a+)+, which a crafted request could make take minutes"
    return None


def _mild(message: str) -> str:
    """The compiler's reason without the piece of the pattern that some reasons quote."""
    return re.split(r" ['\"(\\]", message, maxsplit=1)[0]


def _nests(tree: Any) -> bool:
    for most, body in _repeats(tree):
        if most >= _UNBOUNDED:
            inner = [item for bound, item in _repeats(body) if bound >= _UNBOUNDED]
            if inner and not any(
                not any(_takes(item, char) for item in inner) for char in _mandatory(body)
            ):
                return True
        if _nests(body):
            return True
    return False


def _repeats(tree: Any) -> Iterator[tuple[int, Any]]:
    """The outermost repeats within ``tree``: upper bound and body."""
    for operator, argument in tree:
        if operator in _REPEATS:
            yield argument[1], argument[2]
        elif operator is _const.SUBPATTERN:
            yield from _repeats(argument[3])
        elif operator is _const.BRANCH:
            for branch in argument[1]:
                yield from _repeats(branch)
        elif operator in (_const.ASSERT, _const.ASSERT_NOT):
            yield from _repeats(argument[1])
        elif operator is _const.GROUPREF_EXISTS:
            for branch in argument[1:]:
                yield from _repeats(branch or ())


def _mandatory(tree: Any) -> set[int]:
    """Characters that every pass over ``tree`` matches, outside its repeats and branches."""
    found: set[int] = set()
    for operator, argument in tree:
        if operator is _const.LITERAL:
            found.add(argument)
        elif operator is _const.SUBPATTERN:
            found |= _mandatory(argument[3])
    return found


def _takes(tree: Any, char: int) -> bool:
    """Whether any part of ``tree`` may match this character; when in doubt it may."""
    return any(_item_takes(operator, argument, char) for operator, argument in tree)


def _item_takes(operator: Any, argument: Any, char: int) -> bool:
    if operator is _const.LITERAL:
        return bool(argument == char)
    if operator is _const.NOT_LITERAL:
        return bool(argument != char)
    if operator is _const.IN:
        return _set_takes(argument, char)
    if operator is _const.SUBPATTERN:
        return _takes(argument[3], char)
    if operator in _REPEATS:
        return _takes(argument[2], char)
    return operator is not _const.AT


def _set_takes(members: Any, char: int) -> bool:
    negated = bool(members) and members[0][0] is _const.NEGATE
    inside = False
    for kind, member in members:
        if kind is _const.LITERAL:
            inside = inside or member == char
        elif kind is _const.RANGE:
            inside = inside or member[0] <= char <= member[1]
        elif kind is _const.CATEGORY:
            inside = inside or bool(_CATEGORIES[str(member)].fullmatch(chr(char)))
    return inside != negated
