"""A response as it is kept: what it says of itself, read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.wire.message import Header

__all__ = ["Stored"]


class Stored:
    """The metadata of a kept response. Never changed: a validation makes a new one (`merged`)."""

    __slots__ = (
        "etag",
        "fresh_s",
        "headers",
        "initial_age_s",
        "is_heuristic",
        "is_immutable",
        "is_storable",
        "last_modified",
        "may_be_stale",
        "must_revalidate",
        "needs_validation",
        "reason",
        "received_at",
        "stale_if_error_s",
        "stale_while_revalidate_s",
        "status",
        "stripped_fields",
        "tags",
        "vary",
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: tuple[Header, ...],
        *,
        received_at: float,
        initial_age_s: float,
        fresh_s: float,
        is_heuristic: bool = False,
        needs_validation: bool = False,
        must_revalidate: bool = False,
        may_be_stale: bool = True,
        stale_while_revalidate_s: float = 0.0,
        stale_if_error_s: float = 0.0,
        etag: bytes | None = None,
        last_modified: float | None = None,
        vary: tuple[Header, ...] = (),
        stripped_fields: frozenset[bytes] = frozenset(),
        tags: tuple[str, ...] = (),
        is_immutable: bool = False,
        is_storable: bool = True,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        """End-to-end fields as they came, without those that a directive forbids to keep."""
        self.received_at = received_at
        """Wall clock, when its head was here."""
        self.initial_age_s = initial_age_s
        """Its age at that moment: corrected_initial_age of RFC 9111 4.2.3."""
        self.fresh_s = fresh_s
        """Freshness lifetime: how old it may be and still be fresh."""
        self.is_heuristic = is_heuristic
        self.needs_validation = needs_validation
        """`no-cache`: never without asking."""
        self.must_revalidate = must_revalidate
        self.may_be_stale = may_be_stale
        """No directive forbids to serve it stale, and it was fresh once, or is `public`."""
        self.stale_while_revalidate_s = stale_while_revalidate_s
        self.stale_if_error_s = stale_if_error_s
        self.etag = etag
        """As it came, with its quotes and a `W/` where it is weak."""
        self.last_modified = last_modified
        """Wall clock."""
        self.vary = vary
        """What the request said in the fields that `Vary` names, normalised."""
        self.stripped_fields = stripped_fields
        """Fields of `no-cache=` and `private=`."""
        self.tags = tags
        self.is_immutable = is_immutable
        """While it is fresh a reload asks in vain (RFC 8246)."""
        self.is_storable = is_storable
        """False: a validation has said what forbids to keep it. Serve it once, then drop it."""

    def age_s(self, wall: float) -> float:
        return self.initial_age_s + max(wall - self.received_at, 0.0)
