"""API keys as a method of authentication: where they are looked for, and what is made of them.

A key with `networks` depends on the address too, so its verdict is never kept with a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote_plus

from headgate.security.api_keys import ApiKey, ApiKeyRules, KeyRing, Wrong, read_key_file
from headgate.security.method import Finding, Method, Parts, Refused, Shown, Strips, Verified
from headgate.security.watched_file import WatchedFile

_SEVERAL: Final = Wrong("ambiguous", "This request shows more than one API key.")
KEPT_S: Final = 3600.0
"""How long a verdict may be kept with a head; a change of keys ends it at once."""


class ApiKeyMethod(Method):
    """The keys of one entry: those that stand in the configuration, and those of its file."""

    def __init__(
        self,
        rules: ApiKeyRules,
        inline: Sequence[ApiKey] = (),
        file: str = "",
        pepper: bytes = b"",
    ) -> None:
        """Read the file; ValueError says what is wrong with it."""
        self.name = rules.name
        self.challenge = f'ApiKey realm="{rules.realm}"'
        self._rules = rules
        self._header = rules.header.lower().encode("latin-1")
        self._schemes = frozenset(scheme.lower().encode() for scheme in rules.schemes)
        self._inline = tuple(inline)
        self._pepper = pepper
        self._file: WatchedFile[list[ApiKey]] | None = None
        self.strips = Strips(
            headers=frozenset(
                ({self._header} if self._header else set())
                | ({b"authorization"} if self._schemes else set())
            ),
            query=frozenset({rules.query} if rules.query else ()),
        )
        loaded: list[ApiKey] = []
        if file:
            self._file = WatchedFile(
                file, lambda content: self._checked(self._read(content)), every_s=2.0
            )
            loaded = self._file.load()
        self._ring = self._made(loaded)

    def verify(self, shown: Shown, wall: float) -> Finding:
        text = self._text(shown)
        if text is None:
            return None
        found = text if isinstance(text, Wrong) else self._ring.find(text, shown.client_ip, wall)
        if isinstance(found, Wrong):
            return Refused(found.error, found.reason)
        if found.networks:
            return Verified(found.identity, 0.0)
        until = wall + KEPT_S
        if found.expires is not None and found.expires < until:
            until = found.expires
        return Verified(found.identity, until)

    def start(self, parts: Parts) -> None:
        if self._file is not None:
            self._file.start(parts, self._take)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def snapshot(self, wall: float) -> dict[str, Any]:
        states: dict[str, int] = {}
        for key in self._ring:
            state = key.state(wall)
            states[state] = states.get(state, 0) + 1
        file = self._file.snapshot() if self._file is not None else None
        return {"keys": len(self._ring), "states": states, "file": file}

    def _text(self, shown: Shown) -> str | Wrong | None:
        """The key that is shown; None when there is none, or none of ours."""
        found: str | None = None
        for name, value in shown.headers:
            if name == self._header:
                text = value.strip(b" \t").decode("latin-1")
            elif name == b"authorization" and self._schemes:
                scheme, _, rest = value.strip(b" \t").partition(b" ")
                if scheme.lower() not in self._schemes:
                    continue
                text = rest.strip(b" ").decode("latin-1")
                # Other methods take bearer tokens as well: only what looks like a key is ours.
                if scheme.lower() == b"bearer" and not text.startswith(f"{self._rules.prefix}_"):
                    continue
            else:
                continue
            if found is not None:
                return _SEVERAL
            found = text
        wanted = self._rules.query
        if wanted and shown.query:
            for pair in shown.query.split("&"):
                name_, _, value_ = pair.partition("=")
                if unquote_plus(name_) == wanted:
                    if found is not None:
                        return _SEVERAL
                    found = unquote_plus(value_)
        return found

    def _read(self, content: bytes) -> list[ApiKey]:
        return read_key_file(content, self.name, has_pepper=bool(self._pepper))

    def _checked(self, loaded: list[ApiKey]) -> list[ApiKey]:
        both = {key.id for key in self._inline}.intersection(key.id for key in loaded)
        if both:
            raise ValueError(f"the id {min(both)} stands in the configuration as well")
        return loaded

    def _made(self, loaded: Sequence[ApiKey]) -> KeyRing:
        return KeyRing((*self._inline, *loaded), self._pepper, self._rules.prefix)

    def _take(self, loaded: list[ApiKey]) -> None:
        self._ring = self._made(loaded)
        self.generation += 1
