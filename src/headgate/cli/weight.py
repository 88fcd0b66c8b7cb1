"""`headgate weight`: give an instance another weight, as `headgate ctl instances weight`."""

from __future__ import annotations

from typing import Annotated

import typer

from headgate.cli._ctl import Asking
from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.cli.ctl_orders import weight_order

__all__ = ["weight"]


def weight(
    service: Annotated[str, typer.Argument(help="Its service.")],
    instance: Annotated[str, typer.Argument(help="Its URL, or its id in the registry.")],
    value: Annotated[
        str, typer.Argument(metavar="WEIGHT", help="From 1 to 1000, or `file`: as it says.")
    ],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    hold: Annotated[str | None, typer.Option("--for", help="How long, such as 1h.")] = None,
    why: Annotated[
        str, typer.Option("--why", help="The reason, for lists and for the audit log.")
    ] = "by hand",
    is_json: JsonOption = False,
) -> None:
    """Give an instance another weight than the file, or itself, says."""
    asked = Asking(find(file, state_dir, url), is_json)
    asked.order("POST", "/api/instances/weight", weight_order(service, instance, value, hold, why))
