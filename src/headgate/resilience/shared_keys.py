"""Whom a shared limit counts, in the gateway's own words.

Theory of operation. Two processes share a count if they call the client the same. The gateway
writes `user=ann`, `header:x-tenant=red`, or the bare address of a client it knows only by that;
with several keys each part goes with its length before it. `by` makes the same text from plain
values. Long values are replaced by a digest, as there: a client must not choose how much we keep.

A key that leaves the process is text or a whole number. Anything else is refused rather than
written out, because what an object prints may differ from process to process, and then nothing
would be shared and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias

from headgate.policy.limiter.keys import client_ip_key, measured_key, short_key

__all__ = ["By", "TextOf", "plain_text", "text_by"]

By: TypeAlias = str | Sequence[str]
"""As in the gateway's file: "user", "header:x-tenant", or several."""
TextOf: TypeAlias = Callable[[Hashable], str]

_PLAIN: Final = ("user", "api_key", "consumer", "route")
_NAMED: Final = ("header", "cookie", "query", "claim", "param")


def plain_text(key: Hashable) -> str:
    """A key that is given as it goes to the ledger."""
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int):
        return str(int(key))
    raise TypeError(
        f"a key of a shared limit is text or a whole number, for it leaves this process; "
        f"{type(key).__name__} is neither: give user.id or str(key)"
    )


def text_by(by: By) -> TextOf:
    """How to write what the client is known by; of several, from a tuple of as many values."""
    if isinstance(by, str):
        return _one(by)
    parts = tuple(_one(each) for each in by)
    if not parts:
        raise ValueError('by=(): name what is counted, as in by="user"')
    if len(parts) == 1:
        return parts[0]

    def joined(key: Hashable) -> str:
        if not isinstance(key, tuple) or len(key) != len(parts):
            raise TypeError(f"a key by {', '.join(by)} is a tuple of {len(parts)} values")
        texts = [part(value) for part, value in zip(parts, key, strict=True)]
        return measured_key(texts)

    return joined


def _one(by: str) -> TextOf:
    kind, colon, name = by.strip().partition(":")
    if kind == "ip" and not colon:
        return lambda key: client_ip_key(plain_text(key))
    if kind == "header":
        name = name.lower()
    if not (kind in _NAMED and name.strip() if colon else kind in _PLAIN):
        raise ValueError(
            f'by="{by}": write ip, {", ".join(_PLAIN)}, or one of '
            f"{', '.join(f'{each}:NAME' for each in _NAMED)}"
        )
    mark = f"{kind}:{name.strip()}=" if colon else f"{kind}="
    return lambda key: mark + short_key(plain_text(key))
