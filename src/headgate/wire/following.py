"""TLS contexts that stay while certificates change: each handshake goes by what is there then.

Theory of operation
-------------------
A server or a pool of connections is given its context once. `FrontContext` is one that hands every
connection to another, the base of the time, so that whoever was given it need not be told.
`following` makes the base of files: it looks at them before each handshake (two `stat`, 4 us) and
reads them when they have changed. Files that cannot be read change nothing, and are tried again a
second later; before there were any that could, handshakes fail with the reason.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headgate.errors import ConfigInvalid
from headgate.wire.handshakes import WatchedObject

__all__ = ["FollowedTls", "FrontContext", "NamedContext", "following", "stamp_of"]

_LOOK_AGAIN_S: Final = 1.0
# Where `outgoing` and `server_hostname` stand among the parameters of the standard library.
_OUTGOING_PLACE: Final = 1
_BIO_PLACE: Final = 3
_SOCKET_PLACE: Final = 4


class FrontContext(ssl.SSLContext):
    """What stays the same while certificates change: every connection is made by the base of the
    time.
    """

    base: Callable[[], ssl.SSLContext]
    watch: Callable[[WatchedObject], None] | None = None

    # The parameters are those of the standard library, and their own business.
    def wrap_bio(self, *how: Any, **more: Any) -> ssl.SSLObject:
        made = self.base().wrap_bio(*how, **more)
        if self.watch is not None and isinstance(made, WatchedObject):
            made.outgoing = how[_OUTGOING_PLACE] if len(how) > _OUTGOING_PLACE else more["outgoing"]
            self.watch(made)
        return made

    def wrap_socket(self, *how: Any, **more: Any) -> ssl.SSLSocket:
        return self.base().wrap_socket(*how, **more)


class NamedContext(FrontContext):
    """A client's context for one server, whatever name the connection was given."""

    name: str

    def wrap_bio(self, *how: Any, **more: Any) -> ssl.SSLObject:
        # In its place or by its name: callers do either.
        if len(how) > _BIO_PLACE:
            return super().wrap_bio(*_with(how, _BIO_PLACE, self.name), **more)
        return super().wrap_bio(*how, **{**more, "server_hostname": self.name})

    def wrap_socket(self, *how: Any, **more: Any) -> ssl.SSLSocket:
        if len(how) > _SOCKET_PLACE:
            return super().wrap_socket(*_with(how, _SOCKET_PLACE, self.name), **more)
        return super().wrap_socket(*how, **{**more, "server_hostname": self.name})


def _with(how: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*how[:place], value, *how[place + 1 :])


@dataclass(frozen=True, slots=True)
class FollowedTls:
    """Files that somebody else renews: every handshake goes by them as they are then."""

    ca_file: str
    cert_file: str
    """Certificate and key in one file: two could be of different moments."""
    server_name: str | None = None
    verify: bool = True

    @property
    def key_file(self) -> str:
        return self.cert_file


def following(
    side: int, files: Sequence[str], make: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """A context whose handshakes go by what `make` makes of the files; it raises ConfigInvalid."""
    seen: list[object] = []
    made: list[ssl.SSLContext] = []
    again_at = 0.0

    def now() -> ssl.SSLContext:
        nonlocal again_at
        stamps = [stamp_of(path) for path in files]
        if (stamps != seen or not made) and (not made or time.monotonic() >= again_at):
            try:
                fresh = make()
            except ConfigInvalid as error:
                if not made:
                    fault = error.faults[0]
                    failed = ssl.SSLError(0, f"{fault.file} {fault.message}")
                    # Where OpenSSL says why, and we look for it.
                    failed.reason = f"{Path(fault.file).name} {fault.message}"
                    raise failed from None
                # It may be no fault of theirs: all descriptors in use, for one.
                again_at = time.monotonic() + _LOOK_AGAIN_S
            else:
                made[:] = [fresh]
                seen[:] = stamps
        return made[0]

    front = FrontContext(side)
    front.base = now
    return front


def stamp_of(path: str | None) -> tuple[int, int, int] | None:
    """What changes when a file does."""
    if path is None:
        return None
    try:
        stat = os.stat(path)  # noqa: PTH116  before each handshake, and five times as quick
    except OSError:
        return None  # told when it is read
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
