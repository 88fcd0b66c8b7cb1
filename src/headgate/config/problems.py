"""One thing wrong with a configuration, before anybody knows in which line."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.config.faults import Loc

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault by its path in the document.

    The first ``{value}`` in the message stands for the value at ``loc``. Pure checks do not
    fill it in themselves: it may be a secret, and only the loader knows what the file says in
    its place. For the same reason no message quotes a value in any other way; names that are
    keys of the document (services) are no secrets, since keys hold no references.
    """

    loc: Loc
    message: str
    hint: str = ""
    warning: bool = False
    at_key: bool = False
    """The key is what is wrong, and not what stands under it."""
    see: Loc | None = None
    """Another place that the reader should look at."""
    needs: tuple[Loc, ...] = ()
    """The places it was concluded from, if they are others than ``loc``: when one of them was
    refused, this is an echo of that. ANY stands for every entry of a list or mapping."""
    means: Loc | None = None
    """For a key that nobody knows: the one that was probably meant, or itself."""
