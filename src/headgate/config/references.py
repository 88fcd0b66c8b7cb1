"""``${env:NAME}``, ``${file:PATH}``, ``${vault:PATH#KEY}`` and ``${secret:NAME}`` inside values.

Theory of operation
-------------------
A value may hold references anywhere in its text; each is replaced by what it names. The result
is always text: fields that want a number or a boolean read one from text, so ``${env:PORT}`` can
stand for a whole value as well. What a reference brings in is not searched for references again.
``$${`` writes a plain ``${``.

The last two need to know where Vault and the encrypted file are, which the sections ``vault`` and
``secrets`` of the same file say. Those are read first, and may themselves use the first two only;
so may ``include``, which is followed before any section is known.

What was brought in is a secret until proven otherwise: it is registered with the faults, which
never print it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from headgate.config.faults import Faults, Place, clip
from headgate.config.nodes import Scalar
from headgate.config.sources import NoValue, Sources
from headgate.units import KB, format_size

__all__ = ["References"]

SCHEMES: Final = ("env", "file", "vault", "secret")
MAX_FILE: Final = 1024 * KB
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_UNKNOWN_LENGTH: Final = 64  # long enough for a key, so that it does not pass for a short one
_TOP: Final = re.compile(r"[^.\[]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class References:
    """Resolves references against one environment, and remembers the files it has read."""

    def __init__(self, env: Mapping[str, str], faults: Faults) -> None:
        self._env = env
        self._faults = faults
        self._texts: dict[Path, str | None] = {}
        self.sources: Sources | None = None
        """Where Vault and the encrypted file are, once the file has been read that says it."""
        self.kept: dict[str, str] = {}
        """What Vault and the encrypted file brought in, and by which reference."""
        self.unknown: dict[Place, str] = {}
        """Where references stand that were not asked for, offline."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file a ``${file:}`` has named."""
        return tuple(self._texts)

    def resolve(self, node: Scalar, where: str) -> str:
        """The node's text with its references replaced."""

        def replace(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            body = found[1]
            if body is None:
                self._fault(node, where, 'a "${" without its "}"', "write $${ for a plain ${")
                return ""
            value = self._value(node, where, body)
            if value is None:
                return ""
            if node.place not in self.unknown:
                self._faults.hide(value, found[0])
            return value

        return _REFERENCE.sub(replace, node.text)

    def _value(self, node: Scalar, where: str, body: str) -> str | None:
        scheme, colon, rest = body.partition(":")
        if scheme == "env" and colon:
            return self._env_value(node, where, rest)
        if scheme == "file" and colon:
            return self._file_value(node, where, rest)
        if scheme in ("vault", "secret") and colon:
            return self._kept_value(node, where, scheme, rest)
        known = ", ".join(f"${{{scheme}:...}}" for scheme in SCHEMES)
        if not colon and _NAME.fullmatch(body):
            hint = f"write ${{env:{body}}} for the environment variable"
        else:
            hint = f"known are {known}; write $${{ for a plain ${{"
        self._fault(node, where, f'no reference of the kind "{clip(scheme)}"', hint)
        return None

    def _env_value(self, node: Scalar, where: str, rest: str) -> str | None:
        name, default_follows, default = rest.partition(":-")
        if not _NAME.fullmatch(name):
            self._fault(node, where, f'"{clip(name)}" is no name of an environment variable')
            return None
        value = self._env.get(name)
        if default_follows and not value:
            return default  # as in a shell, an empty variable counts as none
        if value is None:
            hint = f"set it, or give a default: ${{env:{name}:-...}}"
            self._fault(node, where, f"the environment variable {name} is not set", hint)
            return None
        if not _is_text(value):
            self._fault(node, where, f"the environment variable {name} is not UTF-8 text")
            return None
        return value

    def _file_value(self, node: Scalar, where: str, name: str) -> str | None:
        if not name or "\0" in name:
            self._fault(node, where, "a ${file:} that names no file")
            return None
        path = Path(os.path.abspath(node.source.directory / name))  # noqa: PTH100 - keep links
        if path not in self._texts:
            self._texts[path] = self._read(node, where, path, name)
        return self._texts[path]

    def _read(self, node: Scalar, where: str, path: Path, name: str) -> str | None:
        shown = clip(name)
        try:
            # Opening a pipe would wait for a writer for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    self._fault(node, where, f'"{shown}" is not a regular file')
                    return None
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            self._fault(node, where, f'cannot read the file "{shown}": {reason}')
            return None
        if len(data) > MAX_FILE:
            most = format_size(MAX_FILE)
            self._fault(node, where, f'the file "{shown}" is larger than {most}')
            return None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fault(node, where, f'the file "{shown}" is not UTF-8 text')
            return None
        return text.removesuffix("\n").removesuffix("\r")

    def _kept_value(self, node: Scalar, where: str, scheme: str, rest: str) -> str | None:
        reference = f"${{{scheme}:{rest}}}"
        top = _TOP.match(where)
        section = top[0] if top is not None else ""
        if section in ("include", "vault", "secrets"):
            message = f"${{{scheme}:...}} cannot stand in {section}, which is read before it"
            self._fault(node, where, message, "use ${env:NAME} or ${file:PATH}")
            return None
        if self.sources is None:
            return None  # the file could not be read so far
        try:
            value = self.sources.value(scheme, rest)
        except NoValue as error:
            if error.message:
                self._fault(node, where, error.message, error.hint)
            self._faults.unresolved.add(node.place)
            return None
        if value is None:
            self.unknown[node.place] = scheme
            self._faults.unresolved.add(node.place)
            return reference.ljust(_UNKNOWN_LENGTH, "x")
        if value:
            self.kept[value] = reference
        return value

    def _fault(self, node: Scalar, where: str, message: str, hint: str = "") -> None:
        self._faults.add(node.place, message, hint, where=where)
        self._faults.unresolved.add(node.place)


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; os.environ smuggles other bytes as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
