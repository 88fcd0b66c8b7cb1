"""Which service may call which, by method and path.

Theory of operation
-------------------
A rule names who calls (`sources`), who is called (`targets`), with which methods and paths, and
whether that is allowed or not. Their order means nothing:

    a rule that refuses  >  a rule that allows  >  the default

Callers are known by the name in their certificate. `*` is every service of our own trust domain;
a service of another domain is named by its whole id, and never meant by `*`. Who shows no identity
is `anonymous`, and is let in by a rule that says so alone, whatever the default is.

Compiled, the rules towards one service are look-ups: by caller, then by the prefixes of the path
from the root to the deepest that any rule has, then by method. What a decision costs follows from
the depth of the path and not from how many rules there are.

Prefixes hold for whole segments (`/users` and `/users/` are one, `/usersx` is neither). Paths are
judged in the normal form of `wire.target`. Servers differ about empty segments: a rule that refuses
is looked up with them and without them, one that allows only as the path is written, so that
`//admin` gets past neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "ANONYMOUS",
    "EVERY",
    "MeshAccess",
    "MeshAccessRules",
    "MeshRule",
    "Towards",
    "Verdict",
    "Why",
    "covers",
]

EVERY: Final = "*"
ANONYMOUS: Final = "anonymous"

Why = Literal["rule", "default", "no_identity"]


@dataclass(frozen=True, slots=True)
class MeshRule:
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    methods: frozenset[str] = frozenset()
    """Empty: all."""
    paths: tuple[str, ...] = ()
    """Prefixes; empty: all."""
    allow: bool = True


@dataclass(frozen=True, slots=True)
class MeshAccessRules:
    default: Literal["allow", "deny"] = "deny"
    mode: Literal["permissive", "strict"] = "strict"
    rules: tuple[MeshRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    why: Why
    rule: int | None = None
    """Which one decided, by its place among the rules."""

    def in_words(self) -> str:
        """The reason, to go on after "because"."""
        match self.why:
            case "rule":
                return (
                    f"mesh.access.rules[{self.rule}] {'allows' if self.allowed else 'refuses'} it"
                )
            case "default":
                said = "allow" if self.allowed else "deny"
                return f"no rule speaks of it, and mesh.access.default is {said}"
            case "no_identity":
                return "the caller shows no identity, and no rule lets anonymous callers in"


_Methods = dict[str, Verdict]


class _Tree:
    """What is said of one caller: verdicts by prefix of the path, then by method."""

    __slots__ = ("allows", "deepest", "refuses")

    def __init__(self) -> None:
        self.allows: dict[str, _Methods] = {}
        self.refuses: dict[str, _Methods] = {}
        self.deepest = 0

    def add(self, rule: MeshRule, verdict: Verdict) -> None:
        table = self.allows if rule.allow else self.refuses
        for path in rule.paths or ("/",):
            prefix = prefix_of(path)
            self.deepest = max(self.deepest, prefix.count("/"))
            held = table.setdefault(prefix, {})
            for method in rule.methods or (EVERY,):
                held.setdefault(method, verdict)


def prefix_of(path: str) -> str:
    """The key of a prefix: without a slash at its end, so that the root is empty."""
    return path.rstrip("/")


def _prefixes(path: str, deepest: int) -> Iterator[str]:
    """The prefixes of a path, from the root on, no deeper than asked for."""
    yield ""
    at = 0
    for _ in range(deepest):
        at = path.find("/", at + 1)
        if at < 0:
            yield path
            return
        yield path[:at]


def _found(table: dict[str, _Methods], prefixes: Iterable[str], method: str) -> Verdict | None:
    for prefix in prefixes:
        held = table.get(prefix)
        if held is not None:
            found = held.get(EVERY) or held.get(method)
            if found is not None:
                return found
    return None


class Towards:
    """The rules towards one service."""

    __slots__ = ("_by_source", "_default", "_every", "_nobody", "destination", "is_strict")

    def __init__(self, rules: MeshAccessRules, destination: str) -> None:
        self.destination = destination
        self.is_strict = rules.mode == "strict"
        self._by_source: dict[str, _Tree] = {}
        self._default = Verdict(rules.default == "allow", "default")
        self._nobody = Verdict(False, "no_identity")
        for at, rule in enumerate(rules.rules):
            if destination in rule.targets or EVERY in rule.targets:
                verdict = Verdict(rule.allow, "rule", at)
                for source in rule.sources:
                    self._by_source.setdefault(source, _Tree()).add(rule, verdict)
        self._every = self._by_source.pop(EVERY, None)

    def judge(self, source: str | None, method: str, path: str) -> Verdict:
        """Whether this caller may. None is a caller who shows no identity."""
        known = self._by_source.get(ANONYMOUS if source is None else source)
        is_ours = source is not None and "://" not in source
        every = self._every if is_ours else None
        if known is None and every is None:
            return self._nobody if source is None else self._default
        merged = _merged(path) if "//" in path else path
        allowed = None
        for tree in (known, every):
            if tree is None:
                continue
            prefixes = tuple(_prefixes(path, tree.deepest))
            if tree.refuses:
                refused = _found(tree.refuses, prefixes, method)
                if refused is None and merged is not path:
                    refused = _found(tree.refuses, _prefixes(merged, tree.deepest), method)
                if refused is not None:
                    return refused
            if allowed is None:
                allowed = _found(tree.allows, prefixes, method)
        if allowed is not None:
            return allowed
        return self._nobody if source is None else self._default


def _merged(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path


class MeshAccess:
    """All rules; what stands towards one service is compiled when it is first asked for."""

    def __init__(self, rules: MeshAccessRules) -> None:
        self.rules = rules
        self._towards: dict[str, Towards] = {}

    def towards(self, destination: str) -> Towards:
        """The rules towards a service. Of services that the file names: each is kept."""
        known = self._towards.get(destination)
        if known is None:
            known = self._towards[destination] = Towards(self.rules, destination)
        return known


# -- what makes a rule useless ---------------------------------------------------------------------


def covers(wide: MeshRule, narrow: MeshRule) -> bool:
    """Whether everything that the narrow rule speaks of is spoken of by the wide one."""
    return (
        _names_cover(wide.sources, narrow.sources, is_caller=True)
        and _names_cover(wide.targets, narrow.targets, is_caller=False)
        and (not wide.methods or (bool(narrow.methods) and narrow.methods <= wide.methods))
        and _paths_cover(wide.paths, narrow.paths)
    )


def _names_cover(wide: tuple[str, ...], narrow: tuple[str, ...], *, is_caller: bool) -> bool:
    for name in narrow:
        if name in wide:
            continue
        is_in_every = not is_caller or (name != ANONYMOUS and "://" not in name)
        if not (EVERY in wide and is_in_every):
            return False
    return True


def _paths_cover(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    if not wide:
        return True
    held = {prefix_of(path) for path in wide}
    return all(
        any(prefix in held for prefix in _prefixes(prefix_of(path), path.count("/")))
        for path in narrow or ("/",)
    )
