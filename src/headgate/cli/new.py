"""`headgate new service NAME` and `headgate new gateway`: files that work, to go on from.

Theory of operation
-------------------
Templates are files below `templates/`, whose `{{words}}` are replaced, in their paths too: `module`
is the name as Python writes it, `dot-` at the beginning a dot. All of them are put together before
the first is written. If one exists already, or cannot be written, none is there afterwards that was
not there before.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from headgate import __version__
from headgate.errors import HeadgateError

__all__ = ["NameInvalid", "new", "rendered", "written"]

_SUFFIX: Final = ".tmpl"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 50
_WORD: Final = re.compile(r"\{\{(\w+)\}\}")
_TAKEN: Final = frozenset({"headgate", "fastapi", "starlette", "uvicorn", "pydantic", "pytest",
                           "httpx", "tests", "test"})  # fmt: skip

new = typer.Typer(
    help="Begin a service or a gateway: files that work, with tests.", no_args_is_help=True
)


class NameInvalid(HeadgateError):
    """A name that cannot be one of a service."""


class FilesThere(HeadgateError):
    """What would be written exists already."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of one thing go."""

    folder: Path
    files: Mapping[PurePosixPath, str]


Port = Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")]


@new.command()
def service(
    name: Annotated[str, typer.Argument(help="Its name in the mesh, such as orders.")],
    into: Annotated[
        Path, typer.Argument(help="The folder in which a folder of this name is made.")
    ] = Path(),
    port: Port = 3001,
) -> None:
    """Begin a service: FastAPI with everything around its routes, registered in the mesh."""
    module = module_of(name)
    words = {"name": name, "module": module, "port": str(port), "headgate": __version__}
    folder = into / name
    written(Place(folder, rendered("service", words, module)))
    _say(
        f"{folder}: a service with a test.",
        f"cd {folder}",
        'pip install -e ".[dev]"',
        "pytest",
        f"python -m {module}",
        f"curl http://127.0.0.1:{port}/{name}/hello/you",
    )


@new.command()
def gateway(
    folder: Annotated[Path, typer.Argument(help="The folder, which is made.")] = Path("gateway"),
    service: Annotated[
        list[str] | None,
        typer.Option(help="A service that will register with it; may be said again."),
    ] = None,
    port: Port = 8080,
    admin_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where its admin API listens.")
    ] = 9900,
) -> None:
    """Begin a gateway: a file that passes its check, with a route to each service."""
    names = list(dict.fromkeys(service or ["hello"]))
    modules = [module_of(name) for name in names]
    if port == admin_port:
        raise HeadgateError(f"--port and --admin-port are both {port}")
    words = {
        "port": str(port),
        "admin_port": str(admin_port),
        "service": names[0],
        "module": modules[0],
        "here": folder.absolute().as_posix(),
        "services": _parts("service.yaml.part", names),
        "routes": _parts("route.yaml.part", names),
    }
    written(Place(folder, rendered("gateway", words, "")))
    _say(
        f"{folder}: a gateway with a route to {' and '.join(names)}.",
        f"cd {folder}",
        "headgate check",
        "headgate run",
        "headgate status            # in another terminal",
    )


def module_of(name: str) -> str:
    """The name as Python writes it. Raises NameInvalid."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise NameInvalid(
            f"{name!r} is no name of a service: up to {_LONGEST} small letters, digits and single "
            "dashes, beginning with a letter, such as order-mails"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise NameInvalid(f"{name!r} is a word of Python; try {name}-service")
    if module in sys.stdlib_module_names or module in _TAKEN:
        raise NameInvalid(
            f"{name!r} would hide the module {module} that others import; try {name}-service"
        )
    return module


def rendered(kind: str, words: Mapping[str, str], module: str) -> dict[PurePosixPath, str]:
    """The files of a template by their paths."""
    files = {}
    for path, template in _templates(_root().joinpath(kind), PurePosixPath()):
        parts = [module if part == "module" else part for part in path.parts]
        last = parts[-1].removesuffix(_SUFFIX)
        if last.startswith("dot-"):
            last = "." + last.removeprefix("dot-")
        files[PurePosixPath(*parts[:-1], last)] = _filled(template, words)
    return files


def _root() -> Traversable:
    return resources.files("headgate.cli").joinpath("templates")


def _templates(folder: Traversable, at: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for one in sorted(folder.iterdir(), key=lambda each: each.name):
        if one.is_dir():
            yield from _templates(one, at / one.name)
        elif one.name.endswith(_SUFFIX):
            yield at / one.name, one.read_text(encoding="utf-8")


def _filled(template: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda found: words[found[1]], template)


def _parts(name: str, services: list[str]) -> str:
    template = _root().joinpath("gateway").joinpath(name).read_text(encoding="utf-8")
    return "".join(_filled(template, {"service": one}) for one in services).rstrip("\n") + "\n"


def written(place: Place) -> None:
    """Write all files, or none. Raises HeadgateError with what is in the way."""
    paths = {place.folder / path: text for path, text in place.files.items()}
    there = [path for path in paths if os.path.lexists(path)]
    if there:
        shown = ", ".join(str(path) for path in there[:3])
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise FilesThere(f"nothing was written; this is there already: {shown}{more}")
    made: list[Path] = []
    folders: list[Path] = []
    try:
        for path, text in paths.items():
            _make_folder(path.parent, folders)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()
        why = error.strerror or type(error).__name__
        raise FilesThere(f"nothing was written: {error.filename or place.folder}: {why}") from error


def _make_folder(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir()
        made.append(one)


def _say(what: str, *steps: str) -> None:
    print(what)
    print("\nNext:\n")
    for step in steps:
        print(f"    {step}")
