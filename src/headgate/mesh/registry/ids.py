"""A plain name for an instance of which nothing is known but its URL."""

from __future__ import annotations

from headgate.wire.instance_url import parse_instance_url

__all__ = ["id_of"]


def id_of(url: str) -> str:
    """`host:port`, `ip6-...` or `unix-...`: fit for a URL, and the same for the same place."""
    place = parse_instance_url(url)
    if place.path is not None:
        return (
            "unix"
            + "".join(
                c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in place.path
            )[-120:]
        )
    host = place.host.strip("[]")
    text = f"ip6-{host}:{place.port}" if ":" in host else f"{host}:{place.port}"
    return text.lstrip("_")[-128:].lstrip(".-:")
