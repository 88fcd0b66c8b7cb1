"""What a route may say about the path: exact, template, regex, prefix.

Theory of operation
-------------------
A request's path arrives in the one normal form of `wire.target`, and it is matched in that form,
still percent-encoded. So a `%2F` inside a segment never ends the segment, and two spellings of
one path cannot reach two routes. The paths of rules are brought into the same form here, so
`/caf\u00e9`, `/caf%c3%a9` and `/caf%C3%A9` in a file mean the same; a path that no request can have
after normalisation (`/a/../b` as a template, `/%zz`) is refused with `PathInvalid` rather than
left to never match. The one exception is a regex: a pattern cannot be normalised, it must be
written for the normal form.

Only once a path has matched are its parameters percent-decoded. A decoded value may hold
anything: slashes, line ends, broken UTF-8 (as U+FFFD). Whoever puts one into a path or a header
has to encode it again.

Each pattern knows its place among the others (`order`) and can read a path (`read`). `order` is
a key for sorting: exact before template before regex before prefix, and within one kind

- templates: more literal segments, then the earlier ones, then narrower types
  (`int`/`uuid` < `slug` < untyped < `path`);
- regexes: file order, before any count of further conditions;
- prefixes: more segments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from headgate.errors import HeadgateError
from headgate.wire.target import normalise_path

__all__ = [
    "ExactPath",
    "Parameter",
    "PathInvalid",
    "PathPattern",
    "PrefixPath",
    "RegexPath",
    "TemplatePath",
    "compile_exact",
    "compile_path",
    "compile_regex",
    "literal_start",
    "parameter_reader",
    "regex_reader",
    "split_path",
]

Order = tuple[int, ...] | tuple[int, int, tuple[int, ...], tuple[int, ...]]

# Every character a normal path may have unescaped, and "%" itself, which begins an escape.
_AS_WRITTEN: Final = "!\"#$%&'()*+,/:;<=>@[]^`{|}~"
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")

_TYPES: Final[dict[str, tuple[int, re.Pattern[str]]]] = {
    # Matched on the raw segment: all of these characters stand unescaped in the normal form.
    "int": (1, re.compile(r"[0-9]+")),
    "uuid": (1, re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")),
    "slug": (2, re.compile(r"[A-Za-z0-9_-]+")),
    "str": (3, re.compile(r".+", re.DOTALL)),
    "path": (4, re.compile(r".*", re.DOTALL)),
}


class PathInvalid(HeadgateError, ValueError):
    """A route's path that no request can have."""


def _decode(value: str) -> str:
    return unquote(value, errors="replace") if "%" in value else value


def split_path(path: str, most: int = -1) -> list[str]:
    """Return the segments after the leading slash; beyond `most`, the last holds all the rest."""
    return path[1:].split("/", most)


@dataclass(frozen=True, slots=True)
class ExactPath:
    """The whole path, as it is."""

    path: str
    order: Order = (0,)

    def read(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        return {} if path == self.path else None

    def __str__(self) -> str:
        """Return the form used in explanations."""
        return f'exact path "{self.path}"'


@dataclass(frozen=True, slots=True)
class Parameter:
    """`{name:type}`: one whole segment, or with type `path` all that is left."""

    name: str
    kind: str

    @property
    def is_rest(self) -> bool:
        return self.kind == "path"

    def takes(self, segment: str) -> bool:
        return _TYPES[self.kind][1].fullmatch(segment) is not None


@dataclass(frozen=True, slots=True)
class TemplatePath:
    """The whole path, with parameters for some of its segments."""

    text: str
    segments: tuple[str | Parameter, ...]
    order: Order

    def read(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        wanted = self.segments
        is_open = self.parameters[-1][1].is_rest
        if len(segments) < len(wanted) if is_open else len(segments) != len(wanted):
            return None
        for want, segment in zip(wanted, segments, strict=False):
            if isinstance(want, str) and want != segment:
                return None
        return parameter_reader(self)(path, segments)

    @property
    def parameters(self) -> tuple[tuple[int, Parameter], ...]:
        """Each parameter with the number of its segment."""
        return tuple((at, s) for at, s in enumerate(self.segments) if isinstance(s, Parameter))

    def __str__(self) -> str:
        """Return the form used in explanations."""
        return f'template "{self.text}"'


class _ParameterReader:
    """Reads the parameters out of a path whose number and literals are known to fit."""

    __slots__ = ("_parameters", "_rest")

    def __init__(self, parameters: tuple[tuple[int, Parameter], ...]) -> None:
        self._rest: tuple[int, str] | None = None
        at, last = parameters[-1]
        if last.is_rest:
            self._rest = (at, last.name)
            parameters = parameters[:-1]
        self._parameters = tuple((n, p.name, _TYPES[p.kind][1].fullmatch) for n, p in parameters)

    def __call__(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for at, name, fits in self._parameters:
            segment = segments[at]
            if fits(segment) is None:
                return None
            found[name] = _decode(segment)
        if self._rest is not None:
            at, name = self._rest
            found[name] = _decode("/".join(segments[at:]))
        return found


@lru_cache(maxsize=1024)
def _reader_of(parameters: tuple[tuple[int, Parameter], ...]) -> _ParameterReader:
    return _ParameterReader(parameters)


def parameter_reader(path: TemplatePath) -> _ParameterReader:
    """Return the reader for a template; templates with equal parameters share one.

    Most of thousands of routes look alike in this, and a shared one stays in the cache.
    """
    return _reader_of(path.parameters)


@dataclass(frozen=True, slots=True)
class RegexPath:
    """A regular expression that has to match the whole path.

    `literal` is what every match begins with; the router finds the pattern by it. `rest` is the
    pattern of what follows.
    """

    pattern: re.Pattern[str]
    literal: str
    rest: str
    order: Order

    def read(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        # The target of OPTIONS * is no path.
        return _read_match(self.pattern.fullmatch(path)) if path != "*" else None

    def __str__(self) -> str:
        """Return the form used in explanations."""
        return f'regex "{self.pattern.pattern}"'


def _read_match(match: re.Match[str] | None) -> dict[str, str] | None:
    if match is None:
        return None
    return {name: _decode(value) for name, value in match.groupdict(default="").items()}


class _RegexReader:
    """Reads a path that is known to be one, and to begin with the literal start of a pattern."""

    __slots__ = ("_fits", "_has_groups", "_start")

    def __init__(self, rest: str, start: int) -> None:
        pattern = re.compile(rest)
        self._fits = pattern.fullmatch
        self._has_groups = bool(pattern.groupindex)
        self._start = start

    def __call__(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        # With a position, what looks back (`^`, `\b`, `(?<=`) still sees the whole path.
        match = self._fits(path, self._start)
        if match is None:
            return None
        return _read_match(match) if self._has_groups else {}


_regex_reader = lru_cache(maxsize=1024)(_RegexReader)


def regex_reader(path: RegexPath) -> _RegexReader:
    """Return the reader for a regex; those that differ in their literal start may share one."""
    return _regex_reader(path.rest, len(path.literal))


@dataclass(frozen=True, slots=True)
class PrefixPath:
    """The first segments of the path; `/api/users` and `/api/users/` are one prefix."""

    path: str
    """Without a slash at the end; the prefix of everything is empty."""
    segments: tuple[str, ...]
    order: Order

    def read(self, path: str, segments: Sequence[str]) -> dict[str, str] | None:
        is_under = path.startswith("/") and (path == self.path or path.startswith(f"{self.path}/"))
        return {} if is_under else None

    def __str__(self) -> str:
        """Return the form used in explanations."""
        return f'prefix "{self.path or "/"}"'


PathPattern = ExactPath | TemplatePath | RegexPath | PrefixPath


def _normal(path: str) -> str:
    escaped = quote(path, safe=_AS_WRITTEN)
    normal = normalise_path(escaped.encode("ascii"))
    if normal is None:
        raise PathInvalid(f'no request can have the path "{path}"')
    return normal


def compile_exact(path: str) -> ExactPath:
    return ExactPath(_normal(path))


def compile_path(path: str) -> TemplatePath | PrefixPath:
    """Compile what stands under `path`: a template if it has parameters, else a prefix."""
    if "{" in path:
        return _compile_template(path)
    # One slash is dropped and no more: "/a//" asks for an empty segment.
    prefix = _normal(path).removesuffix("/")
    segments = tuple(split_path(prefix)) if prefix else ()
    return PrefixPath(prefix, segments, (3, -len(segments)))


def _compile_template(path: str) -> TemplatePath:
    segments: list[str | Parameter] = []
    names: set[str] = set()
    for text in split_path(path):
        if "{" not in text and "}" not in text:
            literal = _normal("/" + text)[1:]
            if text and not literal:  # a dot segment: no request has one after normalisation
                raise PathInvalid(f'no request can have the path "{path}"')
            segments.append(literal)
            continue
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise PathInvalid(f'"{text}" in "{path}" is not one whole parameter')
        name, kind = match[1], match[2] or "str"
        if kind not in _TYPES:
            raise PathInvalid(f'"{path}": no parameter type "{kind}"; one of {", ".join(_TYPES)}')
        if name in names:
            raise PathInvalid(f'"{path}" has two parameters "{name}"')
        names.add(name)
        segments.append(Parameter(name, kind))
    if any(isinstance(s, Parameter) and s.is_rest for s in segments[:-1]):
        raise PathInvalid(f'"{path}": a parameter of type path can only stand last')
    literals = tuple(i for i, s in enumerate(segments) if isinstance(s, str))
    kinds = tuple(0 if isinstance(s, str) else _TYPES[s.kind][0] for s in segments)
    return TemplatePath(path, tuple(segments), (1, -len(literals), literals, kinds))


def compile_regex(pattern: str, index: int) -> RegexPath:
    """Compile a regex; `index` is its place in the file, by which regexes are ordered."""
    return RegexPath(re.compile(pattern), *_after_literal(pattern), (2, index))


_META: Final = frozenset(".^$*+?{}[]|()\\")
_REPEATS: Final = frozenset("*+?{")


def literal_start(pattern: str) -> str:
    """Return text that every match of `pattern` begins with; "" when there is none, or in doubt.

    Read by hand: Python's own parser of patterns is private. It stops at the first thing that
    is not plain text, so the answer may be too short but never too long.
    """
    return _after_literal(pattern)[0]


def _after_literal(pattern: str) -> tuple[str, str]:
    """Part a pattern into its literal start, as text, and what follows, as a pattern."""
    if _has_outer_choice(pattern):
        return "", pattern
    pattern = pattern.removeprefix("^")
    found: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        after = at + 1
        if char == "\\":
            if after == len(pattern) or pattern[after].isalnum():
                break  # \d, \b, \1 and the like
            char = pattern[after]
            after += 1
        elif char in _META:
            break
        if after < len(pattern) and pattern[after] in _REPEATS:
            break
        found.append(char)
        at = after
    return "".join(found), pattern[at:]


def _has_outer_choice(pattern: str) -> bool:
    """Whether a `|` stands outside all groups: then the start is one of several."""
    depth = 0
    in_class = False
    class_start = -1
    escaped = False
    for at, char in enumerate(pattern):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif in_class:
            # "]" as the first member of a class is a member.
            in_class = char != "]" or at == class_start
        elif char == "[":
            in_class = True
            class_start = at + 2 if pattern[at + 1 : at + 2] == "^" else at + 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "|" and depth == 0:
            return True
    return False
