"""What a worker shows to authorities: the answers of challenges, as control publishes them.

Theory of operation. The board tells each challenge (topic `acme`) before the authority is asked to
look, and again with `gone` when it has looked. An answer lives `LIFE_S` at most, in case nobody
takes it back, and there are `MAX` of them; a further one pushes out the oldest. What comes in by
the board is judged as bytes of a stranger's: Redis may be shared with others.

http-01 (RFC 8555 8.3) is a path and a body: `{token, answer}`. tls-alpn-01 (RFC 8737) is a
certificate which every worker makes itself from `{name, digest}`, so that no key travels.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from headgate.security.certificates.rules import CHALLENGE_PREFIX, domain_fault
from headgate.wire.acme_alpn import challenge_pem

__all__ = ["CERTIFICATES_TOPIC", "TOPIC", "ChallengeBook"]

TOPIC: Final = "acme"
CERTIFICATES_TOPIC: Final = "certificates"
LIFE_S: Final = 600.0
MAX: Final = 200
_AUTHORIZATION: Final = re.compile(r"([A-Za-z0-9_-]{1,128})\.[A-Za-z0-9_-]{43}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class _Showing(Protocol):
    """A `CertificateStore`."""

    def show_challenges(self, files: Mapping[str, str]) -> None: ...


class ChallengeBook:
    """The challenges that are pending. `on_certificates` is told when those within TLS change."""

    def __init__(
        self,
        on_certificates: Callable[[ChallengeBook], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251  certificates live in wall time
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._on_certificates = on_certificates
        self._answers: dict[str, tuple[bytes, float]] = {}
        self._pems: dict[str, tuple[str, bytes, float]] = {}

    def answer(self, path: str) -> bytes | None:
        """What an authority asks for by this path, before anything else is looked at."""
        if not path.startswith(CHALLENGE_PREFIX):
            return None
        found = self._answers.get(path[len(CHALLENGE_PREFIX) :])
        if found is None or self._clock() > found[1]:
            return None
        return found[0]

    @property
    def pems(self) -> dict[str, bytes]:
        """By name the certificate and key of what is to be shown within TLS."""
        now = self._clock()
        return {name: pem for name, (_, pem, until) in self._pems.items() if now <= until}

    def show_on(self, stores: Iterable[_Showing]) -> None:
        """Have these `CertificateStore`s show them."""
        files: dict[str, str] = {}
        with contextlib.ExitStack() as opened:
            for name, pem in self.pems.items():
                # Python reads certificates from files alone; these are in memory.
                descriptor = os.memfd_create("headgate-acme")
                opened.callback(os.close, descriptor)
                os.write(descriptor, pem)
                files[name] = f"/proc/self/fd/{descriptor}"
            for store in stores:
                store.show_challenges(files)

    def hear(self, message: Mapping[str, Any]) -> None:
        """News of the board."""
        until = self._clock() + LIFE_S
        gone = message.get("gone") is True
        token, name = message.get("token"), message.get("name")
        if isinstance(token, str):
            if gone:
                self._answers.pop(token, None)
                return
            said = message.get("answer")
            found = _AUTHORIZATION.fullmatch(said) if isinstance(said, str) else None
            if found is not None and isinstance(said, str) and found[1] == token:
                self._answers.pop(token, None)
                self._answers[token] = (said.encode("ascii"), until)
                _bound(self._answers)
        elif isinstance(name, str):
            self._hear_certificate(name, message.get("digest"), until, gone=gone)

    def _hear_certificate(self, name: str, digest: object, until: float, *, gone: bool) -> None:
        before = self._pems.get(name)
        if gone:
            self._pems.pop(name, None)
        elif isinstance(digest, str) and _DIGEST.fullmatch(digest) and not domain_fault(name):
            if before is not None and before[0] == digest:
                return
            pem = challenge_pem(name, bytes.fromhex(digest), self._wall())
            self._pems.pop(name, None)
            self._pems[name] = (digest, pem, until)
            _bound(self._pems)
        if self._pems.get(name) is not before and self._on_certificates is not None:
            self._on_certificates(self)


def _bound(kept: dict[str, Any]) -> None:
    while len(kept) > MAX:
        del kept[next(iter(kept))]
