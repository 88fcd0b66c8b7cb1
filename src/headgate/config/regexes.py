r"""Which regular expressions may stand in the file.

Theory of operation
-------------------
Paths and headers come from strangers and Python's matcher backtracks, so an expression that can
cut one text in exponentially many ways would let a single request hold a worker for minutes.
That takes a repeat whose turns can be cut differently: ``(a+)+``, ``(\w*-?)*``, ``(a|aa)*``. They
are refused here, and what is in doubt is refused too.

Shape alone would refuse too much: ``(/[^/]+)+`` is how people write paths. It is safe, because
each turn must pass a "/", and nothing in the turn that may be longer or shorter can take one. So:

- a turn with parts of varying length is safe when it has a *guard*: a mandatory character that
  none of these parts may take;
- alternatives within a turn are safe when no two of them can begin with the same character, or
  when they are words of which none begins another.

What remains possible is polynomial time, as in ``.*a.*b.*c``; with the URL limit of 8KB that is
slow but finite, and it is the operator's own expression, so it is not refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

__all__ = ["regex_fault"]

_LONGEST: Final = 1000
_MANY: Final = 16  # (a{0,20}){0,20} is as bad as no bound
_ALPHABET: Final = (*range(0x180), 0x4E00)  # a sample of what is beyond stands for all of it
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
_IGNORES_CASE: Final = re.compile(r"\(\?[a-zA-Z-]*i")


def regex_fault(pattern: str) -> str | None:
    """What is wrong with a regular expression, as a rule that reads on after it; or None."""
    if len(pattern) > _LONGEST:
        return f"is too long a regular expression; the most is {_LONGEST} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            re.compile(pattern)
            tree = _parser.parse(pattern)
    except FutureWarning:
        return "has [[, --, &&, || or ~~ in a set, which is not clear; put a backslash before it"
    except re.error as error:
        at = f" at character {error.pos + 1}" if error.pos is not None else ""
        return f"is not a regular expression: {_mild(error.msg)}{at}"
    except (OverflowError, RecursionError, ValueError):
        return "is not a regular expression: too much of it"
    if _Judge(ignores_case=bool(_IGNORES_CASE.search(pattern))).is_explosive(tree):
        return "repeats a repeat, as in (a+)+, which a crafted request could make take minutes"
    return None


def _mild(message: str) -> str:
    """The compiler's reason without the piece of the pattern that some reasons quote."""
    return re.split(r" ['\"(\\]", message, maxsplit=1)[0]


class _Judge:
    """Looks for turns that can be cut differently."""

    def __init__(self, *, ignores_case: bool) -> None:
        self._ignores_case = ignores_case

    def is_explosive(self, tree: Any) -> bool:
        for operator, argument in tree:
            if operator in _REPEATS and argument[1] >= _MANY and self._is_loose(argument[2]):
                return True
            if any(self.is_explosive(inner) for inner in _inside(operator, argument)):
                return True
        return False

    def _is_loose(self, turn: Any) -> bool:
        """Whether a repeat of ``turn`` can be cut in exponentially many ways, or may be."""
        elastic = list(_elastic(turn))
        if elastic and not any(
            not any(self._takes(part, char) for part in elastic) for char in _mandatory(turn)
        ):
            return True
        return any(
            self._overlap(one, other)
            for branches in _choices(turn)
            for one, other in combinations(branches, 2)
        )

    def _overlap(self, one: Any, other: Any) -> bool:
        """Whether two alternatives may both match at one place and go on differently."""
        words = _word(one), _word(other)
        if words[0] is not None and words[1] is not None:
            shorter, longer = sorted((words[0], words[1]), key=len)
            return shorter != [] and longer[: len(shorter)] == shorter
        return any(self._begins(one, char) and self._begins(other, char) for char in _ALPHABET)

    def _takes(self, tree: Any, char: int) -> bool:
        """Whether any part of ``tree`` may match this character; when in doubt it may."""
        return any(self._item_takes(operator, argument, char) for operator, argument in tree)

    def _begins(self, tree: Any, char: int) -> bool:
        """Whether a match of ``tree`` may begin with this character; when in doubt it may."""
        for operator, argument in tree:
            if operator is _const.AT:
                continue
            if operator is _const.SUBPATTERN:
                return self._begins(argument[3], char)
            if operator in _REPEATS:
                if self._begins(argument[2], char):
                    return True
                if argument[0] == 0:
                    continue  # it may be left out, and then the next part begins
                return False
            return self._item_takes(operator, argument, char)
        return False  # the empty alternative counts as a part of varying length instead

    def _item_takes(self, operator: Any, argument: Any, char: int) -> bool:
        if self._ignores_case and chr(char).isalpha():
            return True  # in doubt: letters take each other
        if operator is _const.LITERAL:
            return bool(argument == char)
        if operator is _const.NOT_LITERAL:
            return bool(argument != char)
        if operator is _const.IN:
            return _set_takes(argument, char)
        if operator is _const.SUBPATTERN:
            return self._takes(argument[3], char)
        if operator in _REPEATS:
            return self._takes(argument[2], char)
        if operator is _const.BRANCH:
            return any(self._takes(branch, char) for branch in argument[1])
        return operator is not _const.AT


def _inside(operator: Any, argument: Any) -> Iterator[Any]:
    """The trees that stand directly in one item."""
    if operator in _REPEATS or operator is getattr(_const, "POSSESSIVE_REPEAT", None):
        yield argument[2]
    elif operator is _const.SUBPATTERN:
        yield argument[3]
    elif operator is _const.BRANCH:
        yield from argument[1]
    elif operator in (_const.ASSERT, _const.ASSERT_NOT):
        yield argument[1]
    elif operator is _const.GROUPREF_EXISTS:
        yield from (branch for branch in argument[1:] if branch is not None)
    elif operator is getattr(_const, "ATOMIC_GROUP", None):
        yield argument


def _elastic(tree: Any) -> Iterator[Any]:
    """The outermost parts whose matches can be of different length."""
    for operator, argument in tree:
        if operator in _REPEATS and argument[0] != argument[1]:
            yield argument[2]
        elif operator is _const.BRANCH and not all(argument[1]):
            yield from filter(None, argument[1])  # an empty alternative makes the rest optional
        else:
            for inner in _inside(operator, argument):
                yield from _elastic(inner)


def _choices(tree: Any) -> Iterator[Any]:
    """Every set of alternatives within ``tree``."""
    for operator, argument in tree:
        if operator is _const.BRANCH:
            yield argument[1]
        for inner in _inside(operator, argument):
            yield from _choices(inner)


def _word(tree: Any) -> list[int] | None:
    """The characters of an alternative that is plain text."""
    if all(operator is _const.LITERAL for operator, _ in tree):
        return [argument for _, argument in tree]
    return None


def _mandatory(tree: Any) -> set[int]:
    """Characters that every pass over ``tree`` matches, outside its repeats and branches."""
    found: set[int] = set()
    for operator, argument in tree:
        if operator is _const.LITERAL:
            found.add(argument)
        elif operator is _const.SUBPATTERN:
            found |= _mandatory(argument[3])
    return found


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
