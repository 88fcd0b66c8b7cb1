"""Content negotiation by `Accept-Encoding` (RFC 9110 12.5.3), as a pure function.

Theory of operation. Each coding the client names has a weight; `*` speaks for every coding not
named; weight 0 means "not acceptable". A coding neither named nor covered by `*` is not used:
clients that can decode something say so. `identity` is acceptable unless it is refused, and wins
over codings the client likes less than it. What is malformed is passed over: a guess about it
could give the client a body it cannot read, identity cannot.

When the client refuses identity and everything we have, RFC 9110 allows 406 or an unencoded
answer; the answer goes out unencoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ALIASES = {"x-gzip": "gzip"}
# weight = OWS ";" OWS "q=" qvalue; qvalue = 0[.000-999] or 1[.000]
_MEMBER = re.compile(
    r"""[ \t]* ([!#$%&'*+\-.^_`|~0-9a-z]+)
    (?: [ \t]* ; [ \t]* q= (0(?:\.[0-9]{0,3})? | 1(?:\.0{0,3})?) )? [ \t]*""",
    re.VERBOSE,
).fullmatch


def choose_coding(accept_encoding: str | None, ours: Sequence[str]) -> str | None:
    """Return the coding to use, of `ours` in order of our preference; None for identity."""
    if not accept_encoding:
        return None
    weights: dict[str, float] = {}
    for member in accept_encoding.lower().split(","):
        match = _MEMBER(member)
        if match:
            name, weight = match.groups()
            weights.setdefault(_ALIASES.get(name, name), 1.0 if weight is None else float(weight))
    others = weights.get("*", 0.0)
    best, best_weight = None, 0.0
    for coding in ours:
        weight = weights.get(coding, others)
        if weight > best_weight:
            best, best_weight = coding, weight
    # `*` does not raise identity above the codings: "gzip;q=0.5, *" asks for gzip, if anything.
    if weights.get("identity", 0.0) > best_weight:
        return None
    return best
