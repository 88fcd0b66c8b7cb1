"""Regular expressions over labels that take time in proportion to the label, whatever they say.

Theory of operation
-------------------
Expressions and matchers come from whoever may read, and labels from whoever is measured. Python's
matcher backtracks, and holds every other thread meanwhile: `.*a.*a.*a.*b` on one long label would
stop the whole process for minutes. So a pattern becomes an automaton here, and a label is read
once, letter by letter, in all its states at a time (Thompson 1968; RE2, and so Prometheus, do the
same). Sets of states are remembered as they are met, which makes a step one look-up.

What cannot be told so is refused: what refers back, looks around, or is possessive. A pattern fits
the whole label; `.` is any letter, a line's end too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

__all__ = ["LabelPattern", "PatternFault", "label_pattern", "search_cost"]

_LONGEST: Final = 1000
_MOST_STATES: Final = 2000
_MOST_SETS: Final = 1000
"""Of sets of states that are remembered; then they are forgotten and met again."""

_TOO_MUCH: Final = "repeats too much: write * or + in place of a large count"

# sre's own parser: private, but stable since 2.x and the only way to see the tree.
_parser: Final[Any] = getattr(re, "_parser")  # noqa: B009 - typeshed does not know it
_constants: Final[Any] = getattr(re, "_constants")  # noqa: B009 - likewise

_Fits = Callable[[str], bool]
_CATEGORIES: Final[dict[str, _Fits]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda letter: letter == "_" or letter.isalnum(),
}


class PatternFault(ValueError):
    """The rule that a pattern breaks."""


def parsed(pattern: str) -> Any:
    """The tree of a pattern; raises PatternFault."""
    if len(pattern) > _LONGEST:
        raise PatternFault(f"is longer than {_LONGEST} letters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _parser.parse(pattern, re.DOTALL)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise PatternFault(f"cannot be read: {error}") from None


@lru_cache(maxsize=512)
def label_pattern(pattern: str) -> LabelPattern:
    """Raises PatternFault."""
    return LabelPattern(pattern)


class LabelPattern:
    """Whether a text as a whole is one of those that a pattern means."""

    def __init__(self, pattern: str) -> None:
        self._steps: list[tuple[_Fits, int] | None] = []
        """By state: which letter leads on, and where to; None for those that only split."""
        self._splits: list[tuple[int, ...]] = []
        self._anchors: dict[int, tuple[bool, int]] = {}
        """By state: whether it leads on at the beginning or at the end, and where to."""
        self._parts = 0
        tree = parsed(pattern)
        self._end = self._state()
        self._ignores_case = bool(tree.state.flags & re.IGNORECASE)
        self._start = self._sequence(tree, self._end)
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._first = self._closed({self._start}, is_first=True)

    def fits(self, text: str) -> bool:
        now, known = self._first, self._known
        for letter in text:
            following = known.get((now, letter))
            if following is None:
                following = self._step(now, letter)
            if not following:
                return False
            now = following
        return self._end in now or (bool(self._anchors) and self._ends(now, is_first=not text))

    def _step(self, now: frozenset[int], letter: str) -> frozenset[int]:
        reached = set()
        for state in now:
            step = self._steps[state]
            if step is not None and step[0](letter):
                reached.add(step[1])
        made = self._closed(reached)
        if len(self._known) >= _MOST_SETS:
            self._known.clear()
        self._known[now, letter] = made
        return made

    def _closed(
        self, states: Iterable[int], *, is_first: bool = False, is_last: bool = False
    ) -> frozenset[int]:
        """With all that is reached without a letter; without those that are only on the way."""
        seen: set[int] = set()
        left = list(states)
        while left:
            state = left.pop()
            if state in seen:
                continue
            seen.add(state)
            left += self._splits[state]
            if state in self._anchors:
                at_beginning, following = self._anchors[state]
                if is_first if at_beginning else is_last:
                    left.append(following)
        return frozenset(
            state
            for state in seen
            if self._steps[state] is not None or state == self._end or state in self._anchors
        )

    def _ends(self, now: frozenset[int], *, is_first: bool) -> bool:
        return self._end in self._closed(now, is_first=is_first, is_last=True)

    # -- from the tree, back to front: each part is made with what follows it ------------------

    def _state(self, step: tuple[_Fits, int] | None = None, splits: tuple[int, ...] = ()) -> int:
        if len(self._steps) >= _MOST_STATES:
            raise PatternFault(_TOO_MUCH)
        self._steps.append(step)
        self._splits.append(splits)
        return len(self._steps) - 1

    def _sequence(self, items: Any, following: int) -> int:
        self._parts += 1
        if self._parts > 10 * _MOST_STATES:
            raise PatternFault(_TOO_MUCH)
        for item in reversed(list(items)):
            following = self._part(str(item[0]), item[1], following)
        return following

    def _part(self, kind: str, said: Any, following: int) -> int:
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._state((self._letters(kind, said), following))
            case "BRANCH":
                ways = tuple(self._sequence(way, following) for way in said[1])
                return self._state(splits=ways)
            case "SUBPATTERN":
                _group, added, removed, items = said
                before = self._ignores_case
                self._ignores_case = (before or bool(added & re.IGNORECASE)) and not (
                    removed & re.IGNORECASE
                )
                made = self._sequence(items, following)
                self._ignores_case = before
                return made
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(said[0], said[1], said[2], following)
            case "AT":
                return self._anchor(str(said), following)
            case _:
                raise PatternFault("refers back, looks around, or does not give back")

    def _repeat(self, least: int, most: Any, items: Any, following: int) -> int:
        if most == _constants.MAXREPEAT:
            again = self._state()
            self._splits[again] = (self._sequence(items, again), following)
            following = again
        else:
            end = following
            for _ in range(int(most) - least):
                following = self._state(splits=(self._sequence(items, following), end))
        for _ in range(least):
            following = self._sequence(items, following)
        return following

    def _anchor(self, where: str, following: int) -> int:
        if where in {"AT_BEGINNING", "AT_BEGINNING_STRING", "AT_END", "AT_END_STRING"}:
            made = self._state()
            self._anchors[made] = (where.startswith("AT_BEG"), following)
            return made
        raise PatternFault("asks for the edge of a word")

    def _letters(self, kind: str, said: Any) -> _Fits:
        fits = self._one_of(kind, said)
        if not self._ignores_case:
            return fits
        return lambda letter: fits(letter) or fits(letter.lower()) or fits(letter.upper())

    @staticmethod
    def _one_of(kind: str, said: Any) -> _Fits:
        if kind == "ANY":
            return lambda _letter: True
        if kind == "LITERAL":
            return chr(said).__eq__
        if kind == "NOT_LITERAL":
            return chr(said).__ne__
        ways = [_member(str(name), value) for name, value in said if str(name) != "NEGATE"]
        if str(said[0][0]) == "NEGATE":
            return lambda letter: not any(way(letter) for way in ways)
        return lambda letter: any(way(letter) for way in ways)


def _member(name: str, value: Any) -> _Fits:
    if name == "LITERAL":
        return chr(value).__eq__
    if name == "RANGE":
        low, high = chr(value[0]), chr(value[1])
        return lambda letter: low <= letter <= high
    plain = str(value).replace("_NOT_", "_")
    fits = _CATEGORIES.get(plain)
    if name != "CATEGORY" or fits is None:
        raise PatternFault(f"has a set that is not understood: {value}")
    if plain == str(value):
        return fits
    return lambda letter: not fits(letter)


def search_cost(pattern: str, letters: int) -> float:
    """At most how many ways Python's own matcher may try on a text so long, where groups are
    wanted and it has to be taken; raises PatternFault.
    """
    return _cost(parsed(pattern), letters)


def _cost(items: Any, letters: int) -> float:
    ways = 1.0
    for kind, said in items:
        match str(kind):
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, of = said
                turns = min(letters, int(most)) - least + 1
                inner = _cost(of, letters)
                # A turn that can be cut in several ways multiplies with each turn.
                ways *= max(1, turns) * (inner if inner <= 1 else inner ** min(letters, int(most)))
            case "BRANCH":
                ways *= sum(_cost(way, letters) for way in said[1])
            case "SUBPATTERN":
                ways *= _cost(said[3], letters)
        if ways > 1e15:
            return 1e15
    return ways
