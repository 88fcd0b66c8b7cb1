"""Words as the search knows them, and what somebody meant who spelt one wrongly. Pure.

Theory of operation
-------------------
What is indexed and what is asked for go through the same `words_of`: lower case, no accents,
letters and digits only, and a plural's `s` taken off. So "Café Tables" and "cafe table" are the
same two words, whatever the database would make of them, and nothing of its own language is left
in a query: no quote, no star, no AND.

A word that is no beginning of any known word is taken for a slip: `meant_by` looks for the known
word that is nearest, with up to two changes of a letter (one in short words). Two letters that have
changed places are one change. Of equally near ones the more common is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["WORDS_MAX", "fold", "meant_by", "words_of"]

WORDS_MAX: Final = 8
"""Of a query. What else there is in it narrows nothing that anybody would notice."""
WORD_LENGTH_MAX: Final = 40
SHORT: Final = 4
_WORD: Final = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """Without case and accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in parts if not unicodedata.combining(sign))


def words_of(text: str, most: int | None = None) -> list[str]:
    """The words of a text in their order; of a query, `most` of them and each one once."""
    found = (_singular(word[:WORD_LENGTH_MAX]) for word in _WORD.findall(fold(text)))
    if most is None:
        return list(found)
    return list(dict.fromkeys(found))[:most]


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]


def meant_by(asked: Sequence[str], known: Mapping[str, int]) -> list[str]:
    """The words with those that are not known exchanged for the nearest; `known` has how often each
    one stands in the catalogue. What is like nothing stays as it is.
    """
    beginnings = {word[:length] for word in known for length in range(1, len(word) + 1)}
    return [word if word in beginnings else _nearest(word, known) for word in asked]


def _nearest(word: str, known: Mapping[str, int]) -> str:
    most = 1 if len(word) <= SHORT else 2
    if len(word) < 3:
        return word
    best = (most + 1, 0, "")
    for other, count in known.items():
        if abs(len(other) - len(word)) > most:
            continue
        away = _distance(word, other, best[0])
        if away <= most:
            best = min(best, (away, -count, other))
    return best[2] or word


def _distance(left: str, right: str, most: int) -> int:
    """Changes of a letter, or of two side by side; more than `most` is not told apart."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, sign in enumerate(left, 1):
        last, row = row, [i, *([0] * len(right))]
        for j, other in enumerate(right, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (sign != other))
            if i > 1 and j > 1 and sign == right[j - 2] and left[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row[j] = cost
        if min(row) > most:
            return most + 1
        before = last
    return row[-1]
