"""What the shop signs in with at each partner. Both sides derive it from the secret that they were
given, so it stands in no file and no database.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from headgate_shop.base.settings import SettingsInvalid

__all__ = ["CLIENT_ID", "PARTNERS", "credential", "is_credential"]

PARTNERS: Final = ("shopfront", "marketplace", "ledger", "chat")
CLIENT_ID: Final = "headgate-shop"
LEAST: Final = 32


def credential(secret: str, partner: str) -> str:
    if len(secret) < LEAST:
        raise SettingsInvalid(f"SHOP_SECRET has {len(secret)} characters, fewer than {LEAST}")
    made = hmac.new(secret.encode(), f"partner {partner}".encode(), hashlib.sha256)
    return made.hexdigest()[:40]


def is_credential(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "replace"), wanted.encode())
