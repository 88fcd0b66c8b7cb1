"""`headgate mesh`: services that know each other. Each command stands with its subject."""

from __future__ import annotations

import typer

from headgate.cli.identity import add_identity_commands
from headgate.cli.mesh_topology import add_topology_commands

__all__ = ["mesh"]

mesh = typer.Typer(
    help="Identities of services: join tokens, who has one, who may not any more.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_identity_commands(mesh)
add_topology_commands(mesh)
