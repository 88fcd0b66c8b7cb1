"""What each process of a stage is told, as its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate_shop.stage.layout import Layout

__all__ = ["Environments"]

HOST = "127.0.0.1"


@dataclass(slots=True)
class Environments:
    layout: Layout
    ports: Mapping[str, int]
    rate: float
    """Of the usual traffic."""
    workers: int = 0
    """Of the gateway; 0 is one for each two cores, as the services want the others. Several also
    ask each other for what is left of a limit."""
    peers: dict[str, str] = field(default_factory=dict)
    """Where real servers are, by name, as they come."""

    @property
    def url(self) -> str:
        """The gateway, as customers see it."""
        return f"http://{HOST}:{self.ports['gateway']}"

    @property
    def admin_url(self) -> str:
        return f"http://{HOST}:{self.ports['admin']}"

    @property
    def stage_url(self) -> str:
        return f"http://{HOST}:{self.ports['stage']}"

    def service(self, name: str) -> dict[str, str]:
        layout = self.layout
        told = {
            "SHOP_SERVICE": name,
            "SHOP_PORT": str(self.ports.get(name, 0)),
            "SHOP_DATA": str(layout.data),
            "SHOP_SMTP": f"{HOST}:{self.ports['mail']}",
            "SHOP_URL": self.url,
            "SHOP_IDENTITY_KEYS": str(layout.identity_keys),
            "SHOP_SECRET": layout.token("secret"),
            "HEADGATE_URL": self.admin_url,
            "HEADGATE_TOKEN": layout.token("service"),
            "HEADGATE_TRACES": self.admin_url,
            "HEADGATE_TRACES_TOKEN": layout.token("ingest"),
        }
        if redis := self.peers.get("redis"):
            told |= {"SHOP_QUEUE": redis, "SHOP_CACHE": redis}
        if postgres := self.peers.get("postgres"):
            told["SHOP_DATABASE"] = postgres
        if name.startswith("products"):
            # Whoever edits a product has it forgotten everywhere.
            told |= {"SHOP_PURGE_TOKEN": layout.token("purge")}
        if name.startswith(("products", "storefront")):
            told |= {"SHOP_CACHE_TOKEN": layout.token("purge")}
        if name == "users":
            # Whoever is erased is signed out at once.
            told |= {"SHOP_REVOKE_TOKEN": layout.token("revoke")}
        if name == "operations":
            told |= {"SHOP_OPERATOR_TOKEN": layout.token("operator"), **self._stage()}
        return told

    def traffic(self) -> dict[str, str]:
        return {
            "SHOP_URL": self.url,
            "SHOP_TRAFFIC_ORDER": str(self.layout.traffic_order),
            "SHOP_TRAFFIC_REPORT": str(self.layout.traffic_report),
            "SHOP_TRAFFIC_RATE": str(self.rate),
            **self._stage(),
        }

    def gateway(self) -> dict[str, str]:
        told = {
            "SHOP_GATEWAY": f"{HOST}:{self.ports['gateway']}",
            "SHOP_ADMIN": f"{HOST}:{self.ports['admin']}",
            "SHOP_USERS": f"{HOST}:{self.ports['users']}",
            "SHOP_URL": self.url,
            "SHOP_STATE": self.peers.get("redis", "memory"),
        }
        cores = os.cpu_count() or 1
        told["SHOP_WORKERS"] = str(self.workers or max(1, cores // 2))
        return told

    def _stage(self) -> dict[str, str]:
        return {"SHOP_STAGE_URL": self.stage_url, "SHOP_STAGE_TOKEN": self.layout.token("stage")}
