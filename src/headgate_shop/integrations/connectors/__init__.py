"""A connector for each partner, behind one interface."""

from __future__ import annotations

from headgate_shop.integrations.connectors.accounting import AccountingConnector
from headgate_shop.integrations.connectors.chat import ChatConnector
from headgate_shop.integrations.connectors.connector import (
    Connector,
    Outgoing,
    Pulled,
    Pushed,
    Record,
)
from headgate_shop.integrations.connectors.marketplace import MarketplaceConnector
from headgate_shop.integrations.connectors.shop import ShopConnector

__all__ = [
    "CONNECTORS",
    "AccountingConnector",
    "ChatConnector",
    "Connector",
    "MarketplaceConnector",
    "Outgoing",
    "Pulled",
    "Pushed",
    "Record",
    "ShopConnector",
]

CONNECTORS = (ShopConnector, MarketplaceConnector, AccountingConnector, ChatConnector)
