"""The URL of an instance, as the file, the registry and callers write it."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

__all__ = ["URL_RULE", "InstanceUrl", "parse_instance_url"]

URL_RULE: Final = "is not an instance; write http://host:port, https://host or unix:/path"
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]+\]")
_PORTS: Final = {"http": 80, "https": 443}


class InstanceUrl(NamedTuple):
    """An instance's address: TCP (``host`` and ``port``) or a Unix socket (``path``)."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str | None = None

    @property
    def authority(self) -> str:
        """What stands in ``Host`` when the instance's own name is sent."""
        if self.path is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _PORTS[self.scheme] == self.port else f"{host}:{self.port}"


def parse_instance_url(text: str) -> InstanceUrl:
    """An instance's URL in its parts. Raises ValueError with a rule that follows the value."""
    for prefix in ("http+unix://", "unix:"):
        if text.startswith(prefix):
            path = text[len(prefix) :]
            if not path.startswith("/") or "\0" in path:
                raise ValueError("needs an absolute path; write unix:/run/users.sock")
            return InstanceUrl("http", "", 0, path)
    if not text.isprintable() or " " in text:
        raise ValueError(URL_RULE)  # urlsplit drops line breaks in silence
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(URL_RULE) from None
    if url.scheme not in _PORTS:
        raise ValueError(URL_RULE)
    if url.username is not None or url.password is not None:
        raise ValueError("has user info in it; set an authorization header by `headers` instead")
    if url.path not in ("", "/") or url.query or url.fragment or "?" in text or "#" in text:
        raise ValueError("has a path; an instance is an address, use `rewrite` on the route")
    host = url.netloc.rsplit(":", 1)[0] if port is not None else url.netloc.removesuffix(":")
    if not url.hostname or not _HOST.fullmatch(host):
        raise ValueError(URL_RULE)
    if port == 0:
        raise ValueError("has port 0, where nothing can answer")
    scheme: Literal["http", "https"] = "https" if url.scheme == "https" else "http"
    return InstanceUrl(scheme, url.hostname, port if port is not None else _PORTS[scheme])
