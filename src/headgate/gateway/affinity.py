"""Session affinity: the cookie that brings a client back to the instance it began with.

Theory of operation. The cookie holds a keyed digest of the instance, not its address, and its own
signature (`policy.affinity`). One that is valid, names an instance that still exists and may serve
decides the instance; otherwise the balancer chooses, and the answer carries a new cookie. A retry
on another instance moves the client there: the one that answers is the one to come back to.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.gateway.keys import cookie_of
from headgate.security.kept import kept_file

if TYPE_CHECKING:
    from headgate.gateway.attempts import AttemptedExchange
    from headgate.plan.traffic import AffinityPlan
    from headgate.policy.affinity import Affinity as Signer
    from headgate.policy.balancer import Group, Member

_SECRET_BYTES: Final = 32
_SESSION_S: Final = 7 * 24 * 3600.0
"""How long a cookie without a lifetime is believed: a browser that is never closed keeps it."""


class Affinity:
    __slots__ = (
        "_attributes",
        "_cookie",
        "_group",
        "_may_be_secure",
        "_signer",
        "_ttl_s",
    )

    def __init__(self, plan: AffinityPlan, signer: Signer, group: Group) -> None:
        self._cookie = plan.cookie
        self._ttl_s = plan.ttl_s
        age = b"" if plan.ttl_s is None else b"; Max-Age=%d" % plan.ttl_s
        self._attributes = plan.attributes + age
        self._may_be_secure = b"; Secure" not in plan.attributes
        self._signer = signer
        self._group = group

    def member_of(self, ex: AttemptedExchange) -> Member | None:
        """The instance this client began with, if it can serve now."""
        value = cookie_of(ex, self._cookie)
        if value is None:
            return None
        wall = time.time()  # noqa: TID251 - a cookie lives in wall time
        named = self._signer.read(value, wall)
        member = self._group.member(named) if named is not None else None
        if (
            member is None
            or not member.usable
            or not member.weight
            or member.drained
            or member in ex.tried
        ):
            return None
        return member

    def line(self, ex: AttemptedExchange) -> bytes:
        """The cookie to set, or nothing when the client already has the right one."""
        answered = ex.answered_by
        if answered is None or ex.came_back_to is answered:
            return b""
        wall = time.time()  # noqa: TID251 - a cookie lives in wall time
        value = self._signer.make(answered.id, wall + (self._ttl_s or _SESSION_S))
        secure = b"; Secure" if self._may_be_secure and ex.is_secure else b""
        parts = (self._cookie, value.encode(), self._attributes, secure)
        return b"set-cookie: %b=%b%b%b\r\n" % parts


def kept_secret(path: Path) -> bytes:
    """The secret in this file; made by whichever worker comes first."""
    found = kept_file(path, _new_secret)
    if len(found) < _SECRET_BYTES:
        # Of an older version that a crash met while it wrote: nothing was signed with it.
        path.unlink(missing_ok=True)
        found = kept_file(path, _new_secret)
    return found


def _new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)
