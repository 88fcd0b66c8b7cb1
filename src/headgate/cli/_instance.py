"""Which running gateway a command means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from headgate.errors import ConfigInvalid, Fault, HeadgateError

__all__ = [
    "File",
    "FileOption",
    "JsonOption",
    "SinceOption",
    "StateDirOption",
    "UrlOption",
    "find",
    "print_faults",
    "state_dir_of",
]

DEFAULT_FILE = Path("headgate.yaml")
DEFAULT_STATE_DIR = ".headgate"

File = Annotated[
    Path | None,
    typer.Argument(help="The file that the gateway runs; headgate.yaml if not said."),
]
FileOption = Annotated[Path | None, typer.Option("--file", help="The file that the gateway runs.")]
StateDirOption = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Its state directory; .headgate beside the file if not said."),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Its admin API, if it runs elsewhere. The token is read from HEADGATE_TOKEN.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
SinceOption = Annotated[str, typer.Option("--since", help="A time, or an age such as 2h.")]


def find(file: Path | None, state_dir: Path | None, url: str | None) -> AdminClient:
    """The gateway that runs this file, or holds this directory, or answers there."""
    if url is not None:
        token = os.environ.get("HEADGATE_TOKEN")
        if token is None:
            token = StateDir(state_dir_of(file, state_dir)).token()
        return AdminClient(None, url=url, token=token)
    return AdminClient(StateDir(state_dir_of(file, state_dir)))


def state_dir_of(file: Path | None, state_dir: Path | None) -> Path:
    """Where a run of this file keeps its state, also when the file has faults by now."""
    if state_dir is not None:
        return state_dir.absolute()
    path = (file or DEFAULT_FILE).absolute()
    if file is not None and not path.exists():
        raise HeadgateError(f"there is no file {file}")
    home = path if path.is_dir() else path.parent
    said: str | None = None
    if path.is_file():
        from headgate.config import load  # half a second, which most commands can do without

        try:
            said = load(path, offline=True).config.state_dir
        except ConfigInvalid:
            # The command may be about to report these very faults.
            said = _state_dir_said(path)
    return (home / (said or DEFAULT_STATE_DIR)).absolute()


def _state_dir_said(path: Path) -> str | None:
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError):
        return None
    said = content.get("state_dir") if isinstance(content, dict) else None
    return said if isinstance(said, str) and "${" not in said else None


def print_faults(faults: tuple[Fault, ...]) -> None:
    for fault in faults:
        print(fault, file=sys.stderr)
