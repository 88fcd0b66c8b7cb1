"""The configuration as an operator may see it: without its secrets.

Theory of operation
-------------------
Two nets, because either alone has holes:

- what a reference brought in (`${env:NAME}`, `${file:PATH}`, `${vault:PATH#KEY}`,
  `${secret:NAME}`) is shown as that reference again, wherever it stands. The values are gathered
  when the file is loaded and travel with the document, since an environment, a file or a Vault
  may change after that;
- what stands in the file as it is, under a name that says secret (`token`, `password`,
  `authorization`, ...), is shown as `***`; so are a password in a URL, the value of a header
  that carries credentials, and the hash of a password or key: somebody may guess at it at home.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["brought_in", "redact"]

SHOWN = "***"
_MAX_FILE_BYTES = 1024 * 1024
_REFERENCE = re.compile(r"\$\{(env|file):([^{}]+)\}")
_SECRET_NAME = re.compile(
    r"(^|[-_.])(token|password|passwd|secret|secrets|api[-_]?key|apikey|private[-_]?key|"
    r"authorization|cookie|credential|credentials|passphrase|hash)($|[-_.])",
    re.IGNORECASE,
)
# Fields whose names say secret and whose values are names, places or patterns.
_INNOCENT = re.compile(r"(_file|_dir|_path|_ttl|_header)$", re.IGNORECASE)
# As crypt(3) and its kin write them; in a file of users under the name of the user.
_HASH = re.compile(r"^\s*(\$[a-z0-9-]+\$.*\$|\$2[abxy]\$|\{[A-Z0-9]+\}[A-Za-z0-9+/])")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")


def brought_in(
    files: Iterable[Path],
    env: Mapping[str, str] = os.environ,
    *,
    kept: Iterable[tuple[str, str]] = (),
) -> tuple[tuple[str, str], ...]:
    """What the references in these files stand for: (value, reference), longest value first.

    `kept` is what cannot be had a second time: from Vault and the encrypted file.
    """
    found: dict[str, str] = dict(kept)
    for path in files:
        text = _text_of(path)
        for match in _REFERENCE.finditer(text):
            scheme, rest = match.groups()
            if scheme == "env":
                value = env.get(rest.partition(":-")[0], "")
            else:
                value = _text_of(path.parent / rest).removesuffix("\n").removesuffix("\r")
            if value:
                found[value] = match[0]
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


def _text_of(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES + 1).decode(errors="replace")
    except OSError:
        return ""


def redact(document: Any, hidden: Sequence[tuple[str, str]], name: str = "") -> Any:
    """A copy of the document without secrets."""
    if isinstance(document, dict):
        return {key: redact(value, hidden, str(key)) for key, value in document.items()}
    if isinstance(document, list):
        return [redact(value, hidden, name) for value in document]
    if isinstance(document, str | int | float) and not isinstance(document, bool):
        text = str(document)
        shown = _with_references(text, hidden)
        if shown != text:
            return shown
        if _SECRET_NAME.search(name) and not _INNOCENT.search(name) and text:
            return SHOWN
        if isinstance(document, str) and _HASH.match(document):
            return SHOWN
        if isinstance(document, str):
            return _USER_INFO.sub(SHOWN, document)
    return document


def _with_references(text: str, hidden: Sequence[tuple[str, str]]) -> str:
    for value, reference in hidden:
        if text == value:
            return reference
        # Within a longer text, a value of three letters would hide half of the file.
        if len(value) > 3 and value in text:
            text = text.replace(value, reference)
    return text
