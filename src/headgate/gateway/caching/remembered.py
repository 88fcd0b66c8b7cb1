"""What is kept with a head of a request for the cache (`Prepared.cached`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.cache.http.asked import Asked
    from headgate.gateway.caching.fill_exchange import FillPrepared
    from headgate.gateway.caching.store import Kept
    from headgate.wire.message import ResponseHead

__all__ = ["Remembered"]


class Remembered:
    """What follows from a head for the cache, once known."""

    __slots__ = (
        "asked",
        "comes_again",
        "counts",
        "fill_prep",
        "identified",
        "kept",
        "reply",
        "until",
    )

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        """Of the route."""
        self.comes_again = False
        """This head came more than once: only then it pays to keep its answer at hand."""
        self.asked: Asked | None = None
        self.identified: Asked | None = None
        """The same for one who is known."""
        self.fill_prep: FillPrepared | None = None
        self.kept: Kept | None = None
        self.reply: tuple[ResponseHead, bytes] | None = None
        """What answers the next request with this head, as long as `kept` stands: see `hit`."""
        self.until = 0.0
        """Monotonic."""
