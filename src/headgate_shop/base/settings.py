"""What a service is told by its environment, read once when its process starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["SERVICES", "Settings", "SettingsInvalid"]

SERVICES: Final = (
    "users",
    "products",
    "products-next",
    "orders",
    "payments",
    "notifications",
    "analytics",
    "forecasting",
    "integrations",
    "partners",
    "storefront",
    "operations",
)
"""In the order in which they are started. `products-next` is the canary: the next version of
`products` on the same database. `payments` and `partners` stand in for other companies."""


SMTP: Final = "127.0.0.1:25"
PUBLIC_URL: Final = "http://127.0.0.1:8080"


class SettingsInvalid(Exception):
    """The environment of a service does not say what it must."""


@dataclass(frozen=True, slots=True)
class Settings:
    service: str
    folder: Path
    """Where what it keeps is: SQLite files, images, audit."""
    port: int = 0
    """0 takes a free one."""
    database: str = ""
    """`postgresql://user@host:port` for a server where each service gets a database of its own,
    `shop_<service>`; by default a SQLite file for each."""
    queue: str = ""
    """`redis://...`; by default a SQLite file that all services share."""
    cache: str = ""
    """`redis://...`; by default each process has a cache in its memory alone."""
    smtp: str = SMTP
    public_url: str = PUBLIC_URL
    """What customers write into their browsers: the gateway."""
    admin_url: str = ""
    """The gateway's admin API. Without it a service runs alone: it registers nowhere."""
    admin_token: str = ""
    """A token of the role `service`; the operations page has one of an operator."""
    purge_token: str = ""
    """A token that may have the gateway forget what it holds (role `purge`), for `products`."""
    revoke_token: str = ""
    """A token that may end the tokens of customers (role `revoke`), for `users`."""
    identity_keys: str = ""
    """The public keys by which the gateway's word on who asks is verified: a file or a URL."""
    secret: str = ""
    """32 characters or more; seals what must not be read from a stolen database."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read `SHOP_*` and, for the gateway, `HEADGATE_URL` and `HEADGATE_TOKEN`."""
        service = environment.get("SHOP_SERVICE", "")
        if service not in SERVICES:
            raise SettingsInvalid(f"SHOP_SERVICE is {service!r}, not one of {', '.join(SERVICES)}")
        port = environment.get("SHOP_PORT", "0")
        if not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise SettingsInvalid(f"SHOP_PORT is {port!r}, not a port")
        return cls(
            service=service,
            folder=Path(environment.get("SHOP_DATA", "shop-data")).absolute(),
            port=int(port),
            database=environment.get("SHOP_DATABASE", ""),
            queue=environment.get("SHOP_QUEUE", ""),
            cache=environment.get("SHOP_CACHE", ""),
            smtp=environment.get("SHOP_SMTP", SMTP),
            public_url=environment.get("SHOP_URL", PUBLIC_URL).rstrip("/"),
            admin_url=environment.get("HEADGATE_URL", "").rstrip("/"),
            admin_token=environment.get("HEADGATE_TOKEN", ""),
            purge_token=environment.get("SHOP_PURGE_TOKEN", ""),
            revoke_token=environment.get("SHOP_REVOKE_TOKEN", ""),
            identity_keys=environment.get("SHOP_IDENTITY_KEYS", ""),
            secret=environment.get("SHOP_SECRET", ""),
        )

    @property
    def room(self) -> str:
        """Whose database it is: that of `products` is the canary's too."""
        return self.service.removesuffix("-next")

    @property
    def version(self) -> str:
        return "2.0.0" if self.service.endswith("-next") else "1.0.0"

    def database_url(self) -> str:
        """The URL for SQLAlchemy, with the driver that waits without a thread of ours."""
        name = f"shop_{self.room}"
        if not self.database:
            return f"sqlite+aiosqlite:///{self.folder / self.room}.db"
        scheme, _, rest = self.database.partition("://")
        if scheme not in ("postgresql", "postgres"):
            raise SettingsInvalid(f"SHOP_DATABASE begins with {scheme}://; write postgresql://")
        server, _, options = rest.partition("?")
        url = f"postgresql+asyncpg://{server.rstrip('/')}/{name}"
        return f"{url}?{options}" if options else url

    def queue_url(self) -> str:
        return self.queue or f"sqlite:///{self.folder / 'queue.db'}"
