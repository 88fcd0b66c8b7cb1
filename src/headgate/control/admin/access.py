"""Who may use the admin API of this control process, over all its listeners.

One object: the tokens, the certificates that give roles, the bounds and the live views. A reload
tells it the new `admin` section; everything it holds goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from headgate.config.admin import AdminSpec
from headgate.control.admin.client_certificates import AdminTls, caller_of, serving
from headgate.control.admin.limits import Limits
from headgate.control.admin.live import Streams
from headgate.control.admin.roles import Role
from headgate.control.admin.tokens import Caller, TokenBook, digest_of
from headgate.errors import HeadgateError
from headgate.observe import Rows

__all__ = ["Access"]

log = logging.getLogger("headgate.control")


class Access:
    def __init__(self, state_dir: Path, first_token: Callable[[], str]) -> None:
        self._state_dir = state_dir
        self._first_token = first_token
        self._spec = AdminSpec()
        self._base = Path()
        self._why = ""
        self._first: tuple[str, str] = ("", "")
        self.tokens = TokenBook(state_dir)
        self.limits = Limits()
        self.streams = Streams()
        self.tls: AdminTls | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called after a reload: a server may have to begin or end to speak TLS."""

    # -- who -----------------------------------------------------------------------------------

    def by_token(self, token: str, wall: float) -> Caller | None:
        expected = self._first_token()
        if expected != self._first[0]:
            self._first = (expected, digest_of(expected))
        # Hashes are compared, so that how long it takes depends on nothing that can be chosen.
        if expected and token and digest_of(token) == self._first[1]:
            return Caller("admin-token", Role.ADMIN)
        return self.tokens.known(token, wall)

    def by_certificate(self, facts: Any, wall: float) -> Caller | None:
        tls = self._spec.tls
        return caller_of(facts, tls.clients, wall) if tls is not None else None

    # -- life ----------------------------------------------------------------------------------

    def take(self, spec: AdminSpec, base: Path) -> None:
        """At the start and after each reload. Blocks for some small files."""
        self._spec, self._base = spec, base
        self.limits.take(spec, time.monotonic())
        self.tokens.take(spec, base)
        self._renew_tls()
        self.on_change()

    def _renew_tls(self) -> None:
        self._why = ""
        if self._spec.tls is None:
            self.tls = None
            return
        wall = time.time()  # noqa: TID251 - certificates live in wall time
        try:
            if self.tls is None:
                self.tls = AdminTls(self._spec, self._state_dir, self._base, wall)
            else:
                self.tls.take(self._spec, self._state_dir, self._base, wall)
        except (HeadgateError, OSError) as error:
            # Never plain text in place of TLS: the old certificate, or no listener.
            self._why = f"the admin listener's TLS cannot be taken up: {error}"
            log.error("%s", self._why)  # noqa: TRY400

    @property
    def wants_tls(self) -> bool:
        return self._spec.tls is not None

    def try_tls(self, spec: AdminSpec, base: Path) -> None:
        """Raise ConfigInvalid if this could not be served. Changes nothing."""
        if spec.tls is not None and spec.bind != "off":
            wall = time.time()  # noqa: TID251 - certificates live in wall time
            serving(spec, self._state_dir, base, wall)

    def worries(self) -> Iterable[str]:
        if self._why:
            yield self._why
        if self.tokens.trouble:
            yield self.tokens.trouble

    def rows_into(self, rows: Rows) -> None:
        for reason, count in self.limits.refused.items():
            rows["headgate_admin_refused_total"].append(([reason], count))
        rows["headgate_admin_live_dropped_total"].append(([], self.streams.dropped))
        rows["headgate_admin_live_views"].append(([], len(self.streams)))

    def close(self) -> None:
        self.streams.close()
        self.tokens.close()
