"""`headgate schema`: what an editor needs to complete and check the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headgate.config.schema import schema_text
from headgate.errors import HeadgateError


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead.")
    ] = None,
) -> None:
    """Print the JSON Schema of the configuration file.

    Save it beside the file, and name it in the file's first line; editors with the YAML language
    server then complete and check while you type:

      # yaml-language-server: $schema=headgate.schema.json
    """
    text = schema_text()
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HeadgateError(f"cannot write {output}: {error.strerror}") from error
