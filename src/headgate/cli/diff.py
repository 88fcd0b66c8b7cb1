"""`headgate diff`: what a file would change in the gateway that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.cli.config import show_diff

__all__ = ["diff"]


def diff(
    source: Annotated[Path, typer.Argument(help="The file to compare with what serves.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say what a file would change in a running gateway: routes, services, everything else.

    The gateway itself reads the text as if it stood in place of its own file, so that what it names
    is looked for there. Nothing is changed. Exits with 1 when the text would be refused.
    """
    show_diff(find(file, state_dir, url), source, as_json=is_json)
