"""What a person sees when a log-in did not work out, or is over.

Pages are plain and hold no script, no style and nothing of other hosts. Whatever they say of the
request or the provider is escaped. They are never kept by caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from headgate.security.method import Instead

_FIELDS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    # Not `no-referrer`: a form of such a page would be posted with the origin "null".
    ("referrer-policy", "same-origin"),
)
_SAFE: Final = (("cache-control", "no-store"), ("referrer-policy", "no-referrer"))


def page(
    status: int,
    title: str,
    text: str,
    *,
    again: str = "",
    again_text: str = "Try again",
    reference: str = "",
    cookies: Sequence[bytes] = (),
    more: Sequence[tuple[str, str]] = (),
    post_to: str = "",
) -> Instead:
    """A page; `again` is a local path to go on with, `post_to` one that a button posts to."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title></head><body><h1>{escape(title)}</h1>",
        f"<p>{escape(text)}</p>",
    ]
    if post_to:
        parts.append(
            f'<form method="post" action="{escape(post_to)}">'
            f"<button>{escape(again_text)}</button></form>"
        )
    if again:
        parts.append(f'<p><a href="{escape(again)}">{escape(again_text)}</a></p>')
    if reference:
        parts.append(f"<p><small>Reference: {escape(reference)}</small></p>")
    parts.append("</body></html>\n")
    return Instead(status, (*_FIELDS, *more, *_set(cookies)), "".join(parts).encode())


def redirect(location: str, cookies: Sequence[bytes] = (), status: int = 302) -> Instead:
    return Instead(status, (("location", location), *_SAFE, *_set(cookies)))


def plain(status: int, text: str, more: Sequence[tuple[str, str]] = ()) -> Instead:
    """For machines: the provider's own requests."""
    fields = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"), *more)
    return Instead(status, fields, f"{text}\n".encode() if text else b"")


def _set(cookies: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    return tuple(("set-cookie", each.decode("ascii")) for each in cookies)
