"""`headgate export`: files for Prometheus, Alertmanager, Grafana and Elastic, made from yours."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from headgate.errors import HeadgateError

__all__ = ["export"]


_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


class Kind(StrEnum):
    """For whom."""

    prometheus = "prometheus"
    alertmanager = "alertmanager"
    grafana = "grafana"
    elastic = "elastic"


def export(
    kind: Annotated[Kind, typer.Argument(help="For whom.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="The configuration; without it a gateway with all defaults."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to write to; ./KIND unless said."),
    ] = None,
    admin: Annotated[
        str,
        typer.Option("--admin", help="host:port at which others reach the admin API."),
    ] = "",
    to_stdout: Annotated[
        bool, typer.Option("--stdout", help="Print the first file instead of writing all.")
    ] = False,
    is_check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 when a file differs.")
    ] = False,
) -> None:
    """Write the configuration of Prometheus, Alertmanager, Grafana or the Elastic stack.

    prometheus: what to scrape, your alert rules, recorded series. alertmanager: your routes and
    receivers, with their secrets in files. grafana: dashboards and data sources. elastic: Filebeat,
    Logstash, templates and pipelines.

    Nothing of it holds a secret. Files that are there are replaced; others are left alone.
    """
    from headgate.config import load
    from headgate.interop import Site, hand_over, site_of

    if admin and not _ADDRESS.fullmatch(admin):
        raise HeadgateError(f'--admin: "{admin}" is no address; write host:port')
    site = Site(admin=admin or Site().admin)
    if file is not None:
        site = site_of(load(file).config, admin=admin)
    made = hand_over(kind.value, site)
    if to_stdout:
        sys.stdout.write(next(iter(made.values())))
        return
    folder = out or Path(kind.value)
    differing = [path for path, text in made.items() if _text_of(folder / path) != text]
    if is_check:
        for path in differing:
            print(f"{folder / path} differs")
        raise typer.Exit(1 if differing else 0)
    for path in differing:
        _write(folder / path, made[path])
        print(f"wrote {folder / path}")
    if not differing:
        print(f"{folder} is as it would be written")


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise HeadgateError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """Wholly or not at all: Prometheus and Grafana may be reading."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755 if text.startswith("#!") else 0o644)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise HeadgateError(f"cannot write {path}: {error.strerror}") from error
