"""A noun of `headgate ctl` as a command of its own."""

from __future__ import annotations

from typing import Any

import typer

from headgate.cli._ctl import Anywhere, Noun
from headgate.cli.ctl import EPILOG, Asked, where

__all__ = ["alone"]


class _AskedNoun(Asked, Noun):
    """Both: options anywhere on the line, and a verb that may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's own click's Context
        return Anywhere.parse_args(self, ctx, args)

    def with_verb(self, args: list[str]) -> list[str]:
        return Noun.with_verb(self, args)


def alone(noun: typer.Typer) -> typer.Typer:
    """`headgate NOUN` for what is `headgate ctl NOUN`: the same commands, the same options."""
    made = typer.Typer(
        help=str(noun.info.help),
        epilog=EPILOG,
        cls=_AskedNoun,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    made.callback(epilog=EPILOG)(where)
    made.registered_commands = noun.registered_commands
    return made
