"""Files to ``Config``: reading, including, merging, and one report of everything wrong.

Theory of operation
-------------------
    files -> nodes -> one merged tree -> document -> Config -> checks
                        (lines kept)     (plain data)

Each step notes its faults and the next goes on with what is left, so that a file with a wrong
number, a misspelt key and a route to nowhere hears of all three. Only text that is not YAML at
all stops its own file. When the models refuse parts of the document, the rest is still checked,
and what would be the mere echo of another fault is kept back (see ``rest``).

Files are merged before they are understood: lists are joined (the including file's own entries
first, then those of its files in the order named), mappings are merged key by key, and anything
said twice is a fault that names both places. A service is one thing: two files may not each say
a part of it.

The sections ``vault`` and ``secrets`` are read before the rest, which may refer to what they name.

The document is what workers are sent. It is plain data with every reference resolved and every
file name absolute, so a worker needs neither the files nor the environment. The keys to Vault and
to the encrypted file are taken out of it: whoever has the document needs them no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from headgate.config.checks import check
from headgate.config.document import Builder, TooMuchError
from headgate.config.faults import Faults, Loc, Place, clip, path_text
from headgate.config.fields import PathMark
from headgate.config.files import Files
from headgate.config.model import Config
from headgate.config.nodes import Mapping as MappingNode
from headgate.config.nodes import Node, Scalar, as_written, find
from headgate.config.offline import judged, tell_unknown
from headgate.config.problems import Problem
from headgate.config.references import References
from headgate.config.refusals import problems_of
from headgate.config.rest import rest_of
from headgate.config.sources import OPENERS, Sources, without_openers
from headgate.config.vaulting import SecretsSpec, VaultSpec, problems
from headgate.config.walk import ANY, marked_paths
from headgate.errors import ConfigInvalid, Fault

__all__ = ["Loaded", "from_document", "load"]

_USER_INFO: Final = re.compile(r"//[^/@\s]*@")
_PASSWORD: Final = re.compile(r"//[^/@\s]*:[^/@\s]+@|[?&]password=")
_QUERY_PASSWORD: Final = re.compile(r"([?&]password=)[^&\s]*")
_SHARED: Final[tuple[Loc, ...]] = (("state",), ("registry", "home"))
_FORGED: Final = "whoever reads the file can make cookies"
# Fields that are called like a secret and hold none.
_INNOCENT: Final = (("balance", "key"), ("affinity", "cookie"))
_SECRET_WORDS: Final = (
    "authorization",
    "cookie",
    "credential",
    "key",
    "passphrase",
    "passw",
    "secret",
    "token",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read and found good."""

    config: Config = field(repr=False)
    document: dict[str, Any] = field(repr=False)
    """Plain data, references resolved: what ``from_document`` takes. It may hold secrets."""
    files: tuple[Path, ...]
    """Every file that was read, for watching: included ones and those of ``${file:}`` too."""
    warnings: tuple[Fault, ...] = ()
    _root: Node | None = field(default=None, repr=False, compare=False)
    hidden: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What ``${vault:}`` and ``${secret:}`` brought in: value and reference, never to be shown."""
    _unknown: frozenset[Place] = field(default=frozenset(), repr=False, compare=False)

    def judged(self, faults: Iterable[Fault]) -> tuple[Fault, ...]:
        """What building it found: only a warning where a value is not known, offline."""
        return judged(faults, self._unknown, self._root)

    def fault(self, loc: Loc, message: str, hint: str = "") -> Fault:
        """A fault at a path of the document, with its line, for those who find more later:
        loading plugins, opening certificates.
        """
        view = _FileView(self._root, Place(str(self.files[0]) if self.files else ""))
        return Fault(*view.place(loc, at_key=False), path_text(view.where(loc)), message, hint)


def load(
    path: str | os.PathLike[str], env: Mapping[str, str] | None = None, *, offline: bool = False
) -> Loaded:
    """Read a file, or every ``*.yaml`` of a directory, and all that it includes.

    ``offline`` asks no Vault and needs no key: what they would bring in is unknown text, and the
    configuration is good for checking only.

    Raises ConfigInvalid with every fault at once, and nothing else.
    """
    faults = Faults()
    name = os.fspath(path)
    references = References(os.environ if env is None else env, faults)
    builder = Builder(references, faults)
    files = Files(faults, references, builder)
    document: dict[str, Any] = {}
    root: MappingNode | None = None
    try:
        root = files.read_all(name)
        references.sources = _sources(root, builder, faults, offline=offline)
        document = builder.build(root)
    except TooMuchError:
        faults.add(
            Place(name),
            "holds far too much once its aliases are followed",
            "anchors within anchors multiply",
        )
    finally:
        if references.sources is not None:
            references.sources.close()
    if root is None or not document:
        if not faults.errors:
            faults.add(Place(name, 1, 1), "is empty", "a gateway needs listeners, services, routes")
        raise ConfigInvalid(faults.sorted())
    view = _FileView(root, Place(name, 1, 1))
    _place_files(document, root, view, faults, offline=offline)
    base = name if os.path.isdir(name) else os.path.dirname(name)  # noqa: PTH112, PTH120
    if document.get("state_dir") is None:
        document["state_dir"] = os.path.abspath(os.path.join(base, ".headgate"))  # noqa: PTH100, PTH118
    _check_secrets(root, view, faults)
    config = _validate(document, view, faults, is_complete=files.is_complete)
    tell_unknown(references.unknown, faults)
    if config is None and references.unknown and not faults.errors:
        config = _what_is_known(document)
    if config is None or faults.errors:
        raise ConfigInvalid(faults.sorted("error") + faults.sorted("warning"))
    _check_extras(config, view, faults)
    without_openers(document, root)
    return Loaded(
        config,
        document,
        (*files.read, *references.files, *_opened_files(config)),
        faults.sorted("warning"),
        root,
        tuple(sorted(references.kept.items(), key=lambda item: -len(item[0]))),
        frozenset(references.unknown),
    )


def from_document(document: Mapping[str, Any], *, show_values: bool = False) -> Config:
    """The same ``Config`` that ``load`` made, from its plain document.

    Raises ConfigInvalid. Values are not quoted in messages unless asked for, since nobody can
    tell any more which of them came from a reference.
    """
    faults = Faults()
    config = _validate(document, _PlainView(document, show_values=show_values), faults)
    if config is None or faults.errors:
        raise ConfigInvalid(faults.sorted("error"))
    return config


# -- Vault and the encrypted file ----------------------------------------------------------


def _sources(root: MappingNode, builder: Builder, faults: Faults, *, offline: bool) -> Sources:
    """What the sections ``vault`` and ``secrets`` name. Their faults are told later, with those
    of the whole document; a section with faults is not used.
    """
    specs: dict[str, Any] = {}
    broken: set[str] = set()
    for name, model in (("vault", VaultSpec), ("secrets", SecretsSpec)):
        pair = (root.entries or {}).get(name)
        if pair is None:
            continue
        alone = MappingNode(root.source, root.line, root.column)
        alone.entries = {name: pair}
        errors = faults.errors
        part = builder.build(alone)
        view = _FileView(root, Place(root.source.name))
        _place_files(part, root, view, faults, offline=offline)
        if part.get(name) is None:
            continue
        try:
            spec = model.model_validate(part[name])
        except ValidationError:
            broken.add(name)
            continue
        is_wrong = any(not is_warning for _, _, _, is_warning in problems(spec))
        if faults.errors > errors or is_wrong:
            broken.add(name)
        else:
            specs[name] = spec
    return Sources(
        specs.get("vault"), specs.get("secrets"), broken=frozenset(broken), offline=offline
    )


def _what_is_known(document: Mapping[str, Any]) -> Config | None:
    """The configuration without the values that are unknown and had to be more than text."""
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        rest = rest_of(document, list(problems_of(error, Config)))
    return rest.config if rest is not None else None


def _opened_files(config: Config) -> tuple[Path, ...]:
    secrets = getattr(config, "secrets", None)
    if secrets is None:
        return ()
    return tuple(Path(name) for name in (secrets.file, secrets.key_file) if name)


# -- from paths to places -----------------------------------------------------------------


class _FileView:
    """Where in the files a path of the document stands, and what is written there."""

    def __init__(self, root: Node | None, nowhere: Place) -> None:
        self._root = root
        self._nowhere = nowhere

    def place(self, loc: Loc, *, at_key: bool) -> Place:
        node, key, depth = find(self._root, loc)
        if node is None or not loc:
            return self._nowhere
        if key is not None and (at_key or not isinstance(node, Scalar)):
            return key.place
        return node.place if depth else self._nowhere

    def read_at(self, loc: Loc, *, at_key: bool) -> Place:
        """Where the value itself was read."""
        node, key, _ = find(self._root, loc)
        if at_key and key is not None:
            return key.place
        return node.place if node is not None else self._nowhere

    def where(self, loc: Loc) -> Loc:
        """The path as far as it is written: a short form has no parts."""
        node, _, depth = find(self._root, loc)
        return as_written(self._root, loc[:depth] if isinstance(node, Scalar) else loc)

    def shown(self, loc: Loc, *, at_key: bool) -> str:
        """The value in quotes, as it stands in the file and so with its references unresolved."""
        node, key, _ = find(self._root, loc)
        if at_key and key is not None:
            return f'"{clip(key.text)}"'
        if not isinstance(node, Scalar):
            return "this"
        return _quoted(node.text, loc)


class _PlainView:
    """The same for a document that has no file."""

    def __init__(self, document: Mapping[str, Any], *, show_values: bool) -> None:
        self._document = document
        self._show_values = show_values

    def place(self, loc: Loc, *, at_key: bool) -> Place:
        return Place("")

    read_at = place

    def where(self, loc: Loc) -> Loc:
        return loc

    def shown(self, loc: Loc, *, at_key: bool) -> str:
        if at_key:
            return f'"{clip(str(loc[-1]))}"' if loc else "this"
        if not self._show_values:
            return "the value"
        value: Any = self._document
        for part in loc:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                break  # a short form: the rest of the path is not written
        return _quoted(str(value), loc) if isinstance(value, (str, int, float)) else "this"


def _quoted(text: str, loc: Loc) -> str:
    name = str(loc[-1]).lower() if loc else ""
    is_innocent = name.endswith("_file") or loc[-2:] in _INNOCENT
    if any(word in name for word in _SECRET_WORDS) and not is_innocent:
        return "the value"
    text = _QUERY_PASSWORD.sub(r"\1***", _USER_INFO.sub("//***@", text))
    return f'"{clip(text)}"'


_View = _FileView | _PlainView


def _report(problem: Problem, view: _View, faults: Faults) -> None:
    if view.read_at(problem.loc, at_key=problem.at_key) in faults.unresolved:
        return
    place = view.place(problem.loc, at_key=problem.at_key)
    message = problem.message
    if "{value}" in message:
        shown = view.shown(problem.loc, at_key=problem.at_key)
        message = message.replace("{value}", shown, 1)
    if problem.see is not None:
        other = view.place(problem.see, at_key=False)
        line = f" ({other.file}:{other.line})" if other.line else ""
        message = f"{message}: {path_text(view.where(problem.see))}{line}"
    faults.add(
        place,
        message,
        problem.hint,
        where=path_text(view.where(problem.loc)),
        warning=problem.warning,
    )


# -- validation ---------------------------------------------------------------------------


def _validate(
    document: Mapping[str, Any], view: _View, faults: Faults, *, is_complete: bool = True
) -> Config | None:
    """Models, then checks, on as much of the document as holds.

    An incomplete document, one of whose files is not YAML, is not checked across its parts.
    """
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems = list(problems_of(error, Config))
        for problem in problems:
            _report(problem, view, faults)
        if is_complete:
            _check_rest(document, problems, view, faults)
        return None
    for problem in check(config) if is_complete else ():
        _report(problem, view, faults)
    return config


def _check_rest(
    document: Mapping[str, Any], problems: list[Problem], view: _View, faults: Faults
) -> None:
    """Check what the models did not refuse, so that all faults are told at once."""
    rest = rest_of(document, problems)
    if rest is None:
        return
    for problem in check(rest.config, also_known=rest.services):
        if rest.holds(problem):
            _report(rest.in_whole(problem), view, faults)


def _check_secrets(root: MappingNode, view: _FileView, faults: Faults) -> None:
    """Only the text of the file knows whether a secret stands in it."""
    services, _, depth = find(root, ("services",))
    names = services.entries if depth and isinstance(services, MappingNode) else {}
    places: list[tuple[Loc, str]] = [
        (("admin", "token"), "whoever reads the file commands the gateway"),
        (("affinity", "secret"), _FORGED),
        *((("services", name, "affinity", "secret"), _FORGED) for name in names or ()),
        *((loc, "whoever reads the file can read and change what is shared") for loc in _SHARED),
        *((loc, "whoever reads the file can read what it opens") for loc in OPENERS),
    ]
    for loc, why in places:
        node, _, depth = find(root, loc)
        text = node.text if depth == len(loc) and isinstance(node, Scalar) else ""
        if loc in _SHARED and not _PASSWORD.search(text):
            continue
        if text.strip() and "${" not in text:
            faults.add(
                view.place(loc, at_key=False),
                f"stands in the file as it is: {why}",
                "write ${env:NAME} or ${file:PATH}",
                where=path_text(loc),
                warning=True,
            )


def _check_extras(config: Config, view: _FileView, faults: Faults) -> None:
    """Whether what the file asks for is installed here, which may not be where it will run."""
    registry_home = config.registry.home if config.registry else "sqlite"
    asked: tuple[tuple[Loc, bool], ...] = (
        (("state",), config.state != "memory"),
        (("registry", "home"), registry_home not in ("sqlite", "state")),
        (("cache_store", "redis"), bool(config.cache_store.redis)),
    )
    for loc, is_asked in asked:
        if not is_asked or find_spec("redis") is not None:
            continue
        faults.add(
            view.place(loc, at_key=False),
            'needs the "redis" extra, which is not installed here',
            'pip install "headgate[redis]"',
            where=path_text(loc),
            warning=True,
        )


# -- names of files -----------------------------------------------------------------------


def _place_files(
    document: dict[str, Any],
    root: MappingNode,
    view: _FileView,
    faults: Faults,
    *,
    offline: bool = False,
) -> None:
    """Make the names of files absolute, beside the file that names them, and look for them.

    Offline, the keys to Vault and to the encrypted file need not be here.
    """

    def visit(value: Any, loc: Loc, pattern: tuple[str, ...], mark: PathMark) -> None:
        step, rest = pattern[0], pattern[1:]
        keys: list[Any] = []
        if isinstance(value, dict):
            keys = list(value) if step == ANY else [step] if step in value else []
        elif isinstance(value, list) and step == ANY:
            keys = list(range(len(value)))
        for key in keys:
            here = (*loc, key)
            if rest:
                visit(value[key], here, rest, mark)
            elif isinstance(value[key], str) and value[key] and "\0" not in value[key]:
                value[key] = absolute(value[key], here, mark)

    def absolute(name: str, loc: Loc, mark: PathMark) -> str:
        if name in mark.words:
            return name
        node, _, _ = find(root, loc)
        directory = node.source.directory if node is not None else Path()
        path = os.path.abspath(directory / name)  # noqa: PTH100 - keeps symbolic links
        is_wanted = mark.must_exist and not (
            offline and loc[0] in ("vault", "secrets") and loc != ("secrets", "file")
        )
        if is_wanted and (fault := _unreadable(path)):
            shown = view.shown(loc, at_key=False)
            faults.add(
                view.place(loc, at_key=False),
                f"{shown} {fault}",
                "" if os.path.isabs(name) else "names are relative to this file",  # noqa: PTH117
                where=path_text(loc),
            )
        return path

    for pattern, mark in marked_paths(Config):
        visit(document, (), pattern, mark)


def _unreadable(path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110 - str in, str out
        return "does not exist"
    if not os.path.isfile(path):  # noqa: PTH113
        return "is not a file"
    return "" if os.access(path, os.R_OK) else "may not be read by this user"
