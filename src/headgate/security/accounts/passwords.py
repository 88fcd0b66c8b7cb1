"""Which passwords are taken, and in which spelling.

Theory of operation. A password is brought into one spelling (Unicode NFKC, as NIST SP 800-63B
asks for), so that the same keys give the same password on every device. What is refused: too
short, too long, and what is guessed first. There are no rules of composition.

A guessable password is found by taking away what people put around a word: case, digits for
letters, digits and punctuation, and repetition. What is left of it counts: fewer than `NEEDED`
characters that are not part of a known word, a run along the keyboard or a repetition of what
stood before make it weak. Every step is linear in the length, and the length has a bound.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable
from typing import Final

from headgate.security.accounts.common import WORDS
from headgate.security.accounts.errors import Weakness
from headgate.security.accounts.rules import PasswordRules

__all__ = ["normal", "weaknesses"]

NEEDED: Final = 6
"""So many characters beyond what is known must be there."""

LEET: Final = str.maketrans("013457$@!", "oieastsai")
RUNS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
)
STEPS: Final = frozenset(
    pair for run in RUNS for text in (run, run[::-1]) for pair in itertools.pairwise(text)
)
LONGEST: Final = max(map(len, WORDS))


def normal(password: str) -> str | None:
    """The one spelling of a password; None for what is no text."""
    try:
        password.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return unicodedata.normalize("NFKC", password)


def weaknesses(
    password: str, rules: PasswordRules, about: Iterable[str] = ()
) -> tuple[Weakness, ...]:
    """Every reason to refuse it; `about` are words about the user and the site."""
    if len(password) > rules.length_max:
        return ("too_long",)  # before anything reads it
    spelled = normal(password)
    if spelled is None:
        return ("unreadable",)
    found: list[Weakness] = []
    if len(spelled) < rules.length_min:
        found.append("too_short")
    if len(spelled) > rules.length_max:  # NFKC may lengthen
        return ("too_long",)
    plain = spelled.casefold()
    own = {word.casefold() for word in (*about, *rules.refused) if len(word) >= 3 and word.strip()}
    if _is_repetitive(plain):
        found.append("repetitive")
    elif _fresh(plain) < NEEDED:
        found.append("sequential")
    elif _left_of(plain, WORDS) < NEEDED:
        found.append("common")
    elif own and _left_of(plain, WORDS | own) < NEEDED:
        found.append("about_you")
    return tuple(found)


def _is_repetitive(text: str) -> bool:
    """At most three different characters, or one short part again and again."""
    if len(set(text)) <= 3:
        return True
    for size in range(1, NEEDED):
        part = text[:size]
        if (part * (len(text) // size + 1))[: len(text)] == text:
            return True
    return False


def _fresh(text: str) -> int:
    """Characters that do not follow from the one before them by a run or as its repetition."""
    steps = itertools.pairwise(text)
    return len(text[:1]) + sum(pair not in STEPS and pair[0] != pair[1] for pair in steps)


def _left_of(text: str, words: frozenset[str] | set[str]) -> int:
    """How much is left once known words, and what is usually put around them, are gone."""
    longest = max(LONGEST, *map(len, words))
    # Digits around are a year rather than letters in disguise.
    core = text.strip("".join(char for char in set(text) if not char.isalpha()))
    left = min(_without(text, words, longest), _without(text.translate(LEET), words, longest))
    if core:
        around = min(2, len(text) - len(core))
        left = min(left, _without(core.translate(LEET), words, longest) + around)
    return int(left)


def _without(text: str, words: frozenset[str] | set[str], longest: int) -> float:
    """Letters outside of known words, with a little for each word and each run of other signs.

    Digits beside a word are a year or a count: a short run of them weighs no more than two letters.
    The longest word at each place is taken.
    """
    left, at = 0.0, 0
    seen: set[str] = set()
    while at < len(text):
        for size in range(min(longest, len(text) - at), 2, -1):
            word = text[at : at + size]
            if word in words:
                if word not in seen:  # several different words make a passphrase
                    left += 1.5
                    seen.add(word)
                at += size
                break
        else:
            if text[at].isalpha():
                left += 1
                at += 1
                continue
            end = at
            while end < len(text) and not text[end].isalpha():
                end += 1
            left += min(2, end - at) + max(0, end - at - 4) / 2
            at = end
    return left
