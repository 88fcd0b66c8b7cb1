"""Files as text: YAML and JSON that look the same whoever writes them."""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

__all__ = ["as_json", "as_yaml", "note"]

_WIDTH: Final = 100


class _Dumper(yaml.SafeDumper):
    """Lists stand below their key, texts of several lines as they are, nothing is an alias."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def note(kind: str) -> str:
    """The first line of what is generated."""
    return f"Made by `headgate export {kind}`; do not edit, make it again."


def as_yaml(content: Any, *comments: str) -> str:
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return head + body


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
