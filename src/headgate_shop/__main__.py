"""`python -m headgate_shop`: one service, the whole shop, or the document of a service.

serve NAME      one service in this process; its environment says the rest (`base.settings`)
openapi NAME    print its OpenAPI document
demo            the whole shop, until Ctrl-C; `demo check` walks through it and ends
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

from headgate_shop.base.settings import SERVICES, Settings, SettingsInvalid

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["demo"]:
        from headgate_shop.stage import demo

        return demo.main(words[1:])
    parser = argparse.ArgumentParser(
        prog="python -m headgate_shop",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("serve", "run one service"),
        ("openapi", "print the OpenAPI document of a service"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("service", choices=SERVICES, metavar="NAME")
    commands.add_parser("demo", help="run the whole shop; see `demo --help`")
    chosen = parser.parse_args(words)
    try:
        return _serve(chosen.service) if chosen.command == "serve" else _openapi(chosen.service)
    except SettingsInvalid as error:
        sys.stderr.write(f"headgate_shop: {error}\n")
        return 1


def _serve(name: str) -> int:
    from headgate_shop.stage.parent import die_with_parent
    from headgate_shop.stage.serving import serve

    die_with_parent(os.getppid(), signal.SIGTERM)
    settings = Settings.from_environment({**os.environ, "SHOP_SERVICE": name})

    def tell(port: int) -> None:
        sys.stdout.write(f"{name} answers on http://127.0.0.1:{port}\n")
        sys.stdout.flush()

    try:
        return 0 if serve(settings, on_bound=tell) else 1
    except OSError as error:
        sys.stderr.write(f"headgate_shop: {name} cannot listen: {error}\n")
        return 1
    except KeyboardInterrupt:  # uvicorn has drained, and then passes it on
        return 0


def _openapi(name: str) -> int:
    from headgate_shop.stage.documents import document

    with tempfile.TemporaryDirectory(prefix="headgate-shop-") as folder:
        settings = Settings.from_environment({"SHOP_SERVICE": name, "SHOP_DATA": folder})
        sys.stdout.write(json.dumps(document(settings), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
