"""What is left of a document when the models refuse parts of it.

Theory of operation
-------------------
    document, refused paths -> the document without them -> Config -> checks -> their problems

A refused value is taken out where it stands, and its model falls back on the default. Where there
is none, the value was required: the models then refuse what is around it, which is taken out in
the next round. So a route with a misspelt key is still checked for the service it leads to, and a
service that nothing can be made of is at least known by name.

Lists close up when something is taken out of them, so positions differ between the document and
its rest. ``Rest.back`` translates.

A default that stands for what was refused must not be taken for what the user said: a path that
is no path leaves a route that matches everything. Each problem therefore names the places it
``needs``; it is dropped when one of them was damaged. A key that nobody knows damages the one that
was probably meant (``Problem.means``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import ValidationError

from headgate.config.faults import Loc
from headgate.config.model import Config
from headgate.config.problems import Problem
from headgate.config.refusals import problems_of
from headgate.config.walk import ANY

__all__ = ["Damage", "Rest", "rest_of"]

_ROUNDS: Final = 8
"""A value lies at most five levels deep in the models, and each round climbs one."""

_Tree = dict[str | int, Any]
"""Paths as a tree; an empty branch means all that is under it."""


@dataclass(slots=True)
class Damage:
    """Paths of the whole document, as a tree that tells quickly whether one is touched."""

    _tree: _Tree = field(default_factory=dict)

    def add(self, loc: Loc) -> None:
        _plant(self._tree, loc)

    def touches(self, loc: Loc) -> bool:
        """Whether something damaged is ``loc``, around it or in it; ANY is every entry."""
        return _touches(self._tree, loc)


@dataclass(frozen=True, slots=True)
class Rest:
    """As much of a configuration as holds."""

    config: Config
    services: frozenset[str]
    """Services that were taken out. They exist, so a route may name them."""
    _kept: Mapping[Loc, Sequence[int]]
    _damaged: Damage

    def holds(self, problem: Problem) -> bool:
        """Whether the problem is one of the document, and no echo of what was taken out."""
        needs = problem.needs or (problem.loc,)
        return not any(self._damaged.touches(self.back(need)) for need in needs)

    def back(self, loc: Loc) -> Loc:
        """The path in the whole document of a path in the rest."""
        return _back(self._kept, loc)

    def in_whole(self, problem: Problem) -> Problem:
        """The problem with the positions that the whole document has."""
        see = self.back(problem.see) if problem.see is not None else None
        return replace(problem, loc=self.back(problem.loc), see=see)


def _touches(tree: _Tree, loc: Loc) -> bool:
    if not loc:
        return True
    if loc[0] == 0 and any(isinstance(part, str) for part in tree):
        return _touches(tree, loc[1:])  # a list that is written as its only entry
    entries = list(tree.values()) if loc[0] == ANY else [tree[loc[0]]] if loc[0] in tree else []
    return any(not entry or _touches(entry, loc[1:]) for entry in entries)


def _plant(tree: _Tree, loc: Loc) -> bool:
    """Add a path; False when it, or something around it, is there already."""
    for depth, part in enumerate(loc):
        if part not in tree:
            for later in loc[depth:]:
                tree[later] = {}
                tree = tree[later]
            return True
        tree = tree[part]
        if not tree:
            return False
    tree.clear()
    return True


def rest_of(document: Mapping[str, Any], problems: Sequence[Problem]) -> Rest | None:
    """What can still be checked, or None when that is nothing."""
    removed: _Tree = {}
    damage = Damage()
    kept: dict[Loc, list[int]] = {}
    for _ in range(_ROUNDS):
        got_smaller = False
        for problem in problems:
            loc = _written(document, _back(kept, problem.loc))
            if not loc:
                return None
            got_smaller |= _plant(removed, loc)
            damage.add(loc if problem.means is None else problem.means)
        if not got_smaller:
            return None
        kept = {}
        try:
            config = Config.model_validate(_without(document, removed, (), kept))
        except ValidationError as error:
            problems = list(problems_of(error, Config))
            continue
        gone = [name for name, inner in removed.get("services", {}).items() if not inner]
        return Rest(config, frozenset(str(name) for name in gone), kept, damage)
    return None


def _back(kept: Mapping[Loc, Sequence[int]], loc: Loc) -> Loc:
    parts: list[str | int] = []
    for depth, part in enumerate(loc):
        indexes = kept.get(loc[:depth])
        if indexes is not None and isinstance(part, int) and part < len(indexes):
            part = indexes[part]
        parts.append(part)
    return tuple(parts)


def _written(document: Any, loc: Loc, above: Loc = ()) -> Loc:
    """The path as far as the document goes: a short form has no parts, and a mapping that stands
    for a list of one has no index.
    """
    for depth, part in enumerate(loc):
        if isinstance(document, dict):
            if part == 0 and part not in document:
                return _written(document, loc[depth + 1 :], (*above, *loc[:depth]))
            if part not in document:
                return (*above, *loc[:depth])
        elif not (isinstance(document, list) and isinstance(part, int) and part < len(document)):
            return (*above, *loc[:depth])
        document = document[part]
    return (*above, *loc)


def _without(value: Any, removed: _Tree, loc: Loc, kept: dict[Loc, list[int]]) -> Any:
    """The value without what is removed. ``loc`` is its path in the rest."""
    if isinstance(value, list):
        indexes = [i for i in range(len(value)) if i not in removed or removed[i]]
        kept[loc] = indexes
        return [
            _without(value[i], removed[i], (*loc, at), kept) if i in removed else value[i]
            for at, i in enumerate(indexes)
        ]
    return {
        key: _without(item, removed[key], (*loc, key), kept) if key in removed else item
        for key, item in value.items()
        if key not in removed or removed[key]
    }
