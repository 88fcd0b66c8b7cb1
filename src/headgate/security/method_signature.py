"""Signed requests as a method of authentication; see `signatures` for what is checked.

A request without `Signature` and `Signature-Input` is for another method. A verdict is never kept:
a nonce holds once. Nonces outlive reloads, or each reload would let replays in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.security.method import Finding, Method, Parts, Refused, Shown, Strips, Verified
from headgate.security.nonces import Nonces, tag_of
from headgate.security.signatures import (
    Accepted,
    BadSignature,
    SignatureRules,
    SignedHead,
    SigningKey,
    check,
)
from headgate.security.signing_keys import read_signing_file
from headgate.security.watched_file import WatchedFile

TOPIC: Final = "nonce"


class SignatureMethod(Method):
    """The signing keys of one entry."""

    is_of_head = False
    strips = Strips(headers=frozenset({b"signature", b"signature-input"}))

    def __init__(
        self,
        rules: SignatureRules,
        inline: Mapping[str, SigningKey] | None = None,
        file: str = "",
    ) -> None:
        """Read the file; ValueError says what is wrong with it."""
        self.name = rules.name
        self.challenge = "Signature"
        self._rules = rules
        self._inline = dict(inline or {})
        self._parts: Parts | None = None
        self._nonces = Nonces(rules.nonces_max)
        self._file: WatchedFile[dict[str, SigningKey]] | None = None
        loaded: dict[str, SigningKey] = {}
        if file:
            self._file = WatchedFile(file, self._read)
            loaded = self._file.load()
        self._keys: dict[str, SigningKey] = {**self._inline, **loaded}

    def verify(self, shown: Shown, wall: float) -> Finding:
        path, mark, query = shown.target.partition("?")
        head = SignedHead(
            shown.method,
            "https" if shown.is_tls else "http",
            shown.authority,
            path,
            query if mark else None,
            shown.headers,
        )
        found = check(head, self._keys, self._rules, wall)
        if found is None:
            return None
        if isinstance(found, BadSignature):
            return Refused(found.error, found.reason)
        if found.nonce:
            refused = self._use(found, wall)
            if refused is not None:
                return refused
        return Verified(found.key.identity, 0.0)

    def start(self, parts: Parts) -> None:
        self._parts = parts
        self._nonces = parts.keep(("nonces", self.name), lambda: Nonces(self._rules.nonces_max))
        self._nonces.limit = self._rules.nonces_max
        if self._rules.shares_nonces:
            # Heard by what outlives reloads: one subscription, however many methods came and went.
            news = parts.keep(("nonces", "news"), NonceNews)
            news.hear_for(self.name, self._nonces)
            parts.subscribe(TOPIC, news.hear)
        if self._file is not None:
            self._file.start(parts, self._take)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def snapshot(self, wall: float) -> dict[str, Any]:
        return {
            "keys": len(self._keys),
            "nonces": len(self._nonces),
            "nonces_max": self._nonces.limit,
            "nonces_heard": self._nonces.heard,
            "file": self._file.snapshot() if self._file is not None else None,
        }

    def _use(self, found: Accepted, wall: float) -> Refused | None:
        said = self._nonces.use(found.key.id, found.nonce, found.expires, wall)
        if said == "used":
            return Refused("replayed", "This signed request was seen before.")
        if said == "full":
            return Refused("busy", "Too many signed requests at once; try again.", status=503)
        if self._rules.shares_nonces and self._parts is not None:
            self._parts.publish(
                TOPIC,
                {
                    "method": self.name,
                    "key": found.key.id,
                    "tag": tag_of(found.key.id, found.nonce).hex(),
                    "ends": found.expires,
                },
            )
        return None

    def _read(self, content: bytes) -> dict[str, SigningKey]:
        loaded = read_signing_file(content, self.name)
        both = loaded.keys() & self._inline.keys()
        if both:
            raise ValueError(f"the key {min(both)!r} stands in the configuration as well")
        return loaded

    def _take(self, loaded: dict[str, SigningKey]) -> None:
        self._keys = {**self._inline, **loaded}
        self.generation += 1


class NonceNews:
    """What other workers tell of nonces, handed to the memory of the method it is for."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:  # noqa: TID251 - news comes without a time, and another machine's clock must not decide what is forgotten here
        self._clock = clock
        self._of: dict[str, Nonces] = {}

    def hear_for(self, name: str, nonces: Nonces) -> None:
        self._of[name] = nonces

    def hear(self, message: Mapping[str, Any]) -> None:
        nonces = self._of.get(str(message.get("method")))
        tag, key, ends = (message.get(name) for name in ("tag", "key", "ends"))
        if nonces is None or not isinstance(tag, str) or not isinstance(key, str):
            return
        if not isinstance(ends, (int, float)):
            return
        try:
            nonces.hear(bytes.fromhex(tag), key, float(ends), self._clock())
        except ValueError:
            return
