"""`headgate explain`: which route takes a request, and why the others do not; and by its id what
became of one that is over.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from headgate.cli._instance import (
    DEFAULT_FILE,
    StateDirOption,
    UrlOption,
    find,
    print_faults,
)
from headgate.config import load
from headgate.control.explaining import described, with_judgement
from headgate.control.explaining import explain as explain_request
from headgate.control.trial import folder_of
from headgate.errors import ConfigInvalid
from headgate.gateway.compile import compile_plan
from headgate.gateway.judging import judge_alone
from headgate.plan.build import build
from headgate.plan.plan import Plan
from headgate.security.shown import ShownRequest

__all__ = ["explain"]

_ASK_S: Final = 20.0
_METHOD = re.compile(r"[A-Z][A-Z-]*|[a-z]{3,8}")
_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)


class Format(StrEnum):
    text = "text"
    json = "json"


def explain(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD URL [FILE] | ID [FILE]",
            help="The request, and the file if it is not headgate.yaml; FILE may come first. Or the"
            " id of a request that is over, from its x-request-id, or of its trace.",
            show_default=False,
        ),
    ],
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header of it, as 'name: value'.")
    ] = None,
    client_ip: Annotated[
        str, typer.Option("--client-ip", help="Where it comes from.")
    ] = "127.0.0.1",
    listener: Annotated[
        str,
        typer.Option(
            "--listener",
            help="Which listener it comes to. By default the first that speaks the URL's scheme.",
            show_default=False,
        ),
    ] = "",
    live: Annotated[
        bool, typer.Option("--live", help="Ask the running gateway instead of the file.")
    ] = False,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """Show which route a request takes, and why.

    The file is read as it is now; with --live the running gateway answers, which may still
    serve an earlier one.

    With an id the running gateway tells what became of that request: who answered, each attempt
    and wait, why it was refused, what was logged, and what else happened then.
    """
    if _is_id(words):
        _tell(words[0], Path(words[1]) if len(words) == 2 else None, state_dir, url, form)
        return
    method, target, file = _sorted_out(words)
    headers = [_header(line) for line in header or []]
    if live or url is not None:
        client = find(file, state_dir, url)
        asked: dict[str, Any] = {
            "method": method,
            "url": target,
            "headers": headers,
            "client_ip": client_ip,
        }
        if listener:  # a gateway that runs may be older than this command
            asked["listener"] = listener
        explained: dict[str, Any] = client.ask("POST", "/api/explain", asked).content
    else:
        path = (file or DEFAULT_FILE).absolute()
        try:
            loaded = load(path)
            plan = build(loaded.config)
            explained = explain_request(plan, method, target, headers, client_ip, listener)
            shown = described(method, target, headers, client_ip)
            judgement = _judgement(plan, folder_of(path), explained, shown)
        except ConfigInvalid as error:
            print_faults(error.faults)
            raise typer.Exit(1) from None
        explained = with_judgement(explained, judgement)
    text = explained.pop("text")
    if form is Format.json:
        print(json.dumps(explained, indent=2))
    else:
        print(text.rstrip("\n"))


def _tell(
    request: str, file: Path | None, state_dir: Path | None, url: str | None, form: Format
) -> None:
    """What became of a request that is over."""
    client = find(file, state_dir, url)
    told = client.ask("GET", f"/api/explain/{quote(request, safe='')}", timeout_s=_ASK_S).content
    text = told.pop("text")
    print(json.dumps(told, indent=2) if form is Format.json else text)


def _judgement(
    plan: Plan, folder: Path, explained: dict[str, Any], shown: ShownRequest
) -> dict[str, Any] | None:
    """Whether the file would let it in; keys of issuers are fetched for the question."""
    route = next((each for each in plan.routes if each.name == explained["route"]), None)
    if route is None or not route.is_guarded:
        return None
    compiled = compile_plan(plan, folder)
    found = asyncio.run(
        judge_alone(
            route,
            compiled.routes[route.index],
            compiled.methods,
            shown,
            explained["params"],
            time.time(),  # noqa: TID251 - tokens live in wall time
            time.monotonic(),
        )
    )
    return found.to_json()


def _sorted_out(words: list[str]) -> tuple[str, str, Path | None]:
    """METHOD URL, with a FILE after them or before: other commands take the file first. A URL alone
    is asked for by GET.
    """
    if len(words) in {1, 2} and _is_url(words[0]):
        words = ["GET", *words]
    if len(words) not in {2, 3}:
        raise typer.BadParameter(
            "expected METHOD URL [FILE], as in GET http://shop.example/cart, or the id of a request"
        )
    if len(words) == 2:
        return words[0].upper(), words[1], None
    if _METHOD.fullmatch(words[0]) and _is_url(words[1]):
        return words[0].upper(), words[1], Path(words[2])
    return words[1].upper(), words[2], Path(words[0])


def _is_id(words: list[str]) -> bool:
    """One word that is neither a method nor a URL; before a file, one that could be no method."""
    if _is_url(words[0]):
        return False
    if len(words) == 1:
        return words[0].upper() not in _METHODS
    return len(words) == 2 and not _METHOD.fullmatch(words[0])


def _is_url(word: str) -> bool:
    return word.startswith(("/", "http://", "https://"))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"expected 'name: value', got {line!r}", param_hint="--header")
    return name.strip(), value.strip()
