"""What clients are told: `RateLimit`, `RateLimit-Policy`, `X-RateLimit-*` and `Retry-After`.

Theory of operation. draft-ietf-httpapi-ratelimit-headers-10 (September 2025): both fields are lists
of items of Structured Fields (RFC 9651); an item is a String that names the policy.

    RateLimit-Policy: "default";q=100;w=60          quota, window in whole seconds (at least 1)
    RateLimit-Policy: "seats";q=5;qu="concurrent-requests"
    RateLimit: "default";r=50;t=30                  remaining, seconds until there is more

`t` is when the whole quota is there again, so that a client that spreads `r` over `t` is never
refused. On a refusal it is when the same request would pass: Retry-After should not be earlier
than `t` (section on server behavior), and a later `t` would make clients wait for nothing. Where
the request can never pass, `t` is as large as an Integer may be.
`Retry-After` (RFC 9110 section 10.2.3) is whole seconds, rounded up, at least 1. A request that can
never pass gets none: coming back is of no use.

The classic fields are no standard. `X-RateLimit-Reset` is given in seconds from now, as most
gateways do; others mean seconds since 1970 by it, so read the documents of your clients.

With several limits the lines of the tightest are enough. Those of others may be added: both fields
of the draft are lists. What does not change is put together once, when the plan is built.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, Literal

from headgate.policy.limiter.rules import LimitRules, Verdict

HeaderStyle = Literal["draft", "classic", "both"]

_LONGEST_S: Final = 999_999_999_999_999
"""RFC 9651 section 3.3.1: an Integer has at most 15 digits."""


def sf_string(text: str) -> str:
    """A String of RFC 9651 section 3.3.3; what it cannot hold is left out as `?`."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def retry_after_line(retry_after_s: float) -> bytes:
    """`Retry-After`, or nothing where coming back is of no use."""
    if retry_after_s == inf:
        return b""
    return b"retry-after: %d\r\n" % max(1, _whole(retry_after_s))


class LimitHeaders:
    """The header lines of one limit, without `Retry-After`."""

    __slots__ = ("_form", "_is_both")

    def __init__(self, name: str, rules: LimitRules, style: HeaderStyle = "draft") -> None:
        item = sf_string(name)
        if rules.algorithm == "concurrency":
            policy = f'{item};q={rules.limit};qu="concurrent-requests"'
        else:
            policy = f"{item};q={rules.limit};w={max(1, _whole(rules.period_s))}"
        lines: list[str] = []
        # A form for the % operator: the fastest way to put two numbers into bytes.
        if style != "classic":
            lines.append("ratelimit-policy: " + policy.replace("%", "%%"))
            lines.append(f"ratelimit: {item.replace('%', '%%')};r=%d;t=%d")
        if style != "draft":
            lines.append(f"x-ratelimit-limit: {rules.capacity}")
            lines.append("x-ratelimit-remaining: %d")
            lines.append("x-ratelimit-reset: %d")
        self._form = "".join(f"{line}\r\n" for line in lines).encode("ascii")
        self._is_both = style == "both"

    def lines(self, verdict: Verdict) -> bytes:
        """Header lines in one block, each with its CRLF; names in small letters, for HTTP/2 too."""
        at_s = verdict.reset_s if verdict.allowed else verdict.retry_after_s
        whole_s = int(at_s) if at_s < _LONGEST_S else _LONGEST_S
        if whole_s < at_s < _LONGEST_S:
            whole_s += 1
        if self._is_both:
            return self._form % (verdict.remaining, whole_s, verdict.remaining, whole_s)
        return self._form % (verdict.remaining, whole_s)

    def fields(self, verdict: Verdict) -> list[tuple[str, str]]:
        """The same as names and values, for frameworks; `Retry-After` with a refusal."""
        block = self.lines(verdict)
        if not verdict.allowed:
            block += retry_after_line(verdict.retry_after_s)
        lines = block.decode("ascii").split("\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def _whole(seconds: float) -> int:
    return min(ceil(seconds), _LONGEST_S)
