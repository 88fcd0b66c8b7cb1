"""What credentials look like: prefixes of known makers, JWTs, schemes of Authorization, PEM.

Only shapes that say themselves what they are stand here. Forty characters of base64 may be a key of
AWS or the digest of a file, so they are known by the name before them alone; see `names`.

Every expression is linear: it begins with fixed text at a boundary and repeats possessively.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

__all__ = ["AUTHORITY", "HEADER_LINE", "KEYS", "PAIR", "PEM", "SCHEME", "is_basic", "is_opaque"]

KEYS: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"eyJ[0-9A-Za-z_-]{8,}+\.[0-9A-Za-z_-]*+(?:\.[0-9A-Za-z_-]*+){1,3}+"  # JWT and JWE
    r"|[a-z][a-z0-9]{0,11}_[0-9A-Za-z]{4,32}_[0-9A-Za-z]{49}(?![0-9A-Za-z])"  # our own
    r"|(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![0-9A-Za-z])"  # AWS
    r"|gh[pousr]_[0-9A-Za-z_]{30,}+|github_pat_[0-9A-Za-z_]{22,}+"
    r"|glpat-[0-9A-Za-z_-]{20,}+"
    r"|(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}+|whsec_[0-9A-Za-z+/=]{20,}+"  # Stripe
    r"|xox[abeoprs]-[0-9A-Za-z-]{10,}+|xapp-[0-9A-Za-z-]{10,}+"  # Slack
    r"|hooks\.slack\.com/services/[0-9A-Za-z/]{20,}+"
    r"|AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])|ya29\.[0-9A-Za-z_-]{20,}+|GOCSPX-[0-9A-Za-z_-]{20,}+"
    r"|sk-[0-9A-Za-z_-]{20,}+|hf_[0-9A-Za-z]{30,}+|npm_[0-9A-Za-z]{36}(?![0-9A-Za-z])"
    r"|pypi-[0-9A-Za-z_-]{50,}+|dop_v1_[0-9a-f]{64}(?![0-9A-Za-z])"
    r"|SG\.[0-9A-Za-z_-]{16,}+\.[0-9A-Za-z_-]{16,}+|hvs\.[0-9A-Za-z_-]{20,}+"
    r")"
)
SCHEME: Final = re.compile(
    r"(?<![0-9A-Za-z])(bearer|basic)((?:[ \t]|%20|\+){1,8}+)([^\s,;\"'<>&]{4,}+)",
    re.IGNORECASE,
)
PEM: Final = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]*?(?:-----END [A-Z0-9 ]{1,60}-----|\Z)"
)
AUTHORITY: Final = re.compile(r"([A-Za-z][0-9A-Za-z+.-]{0,20}://)([^\s/?#\"'<>]++)")
PAIR: Final = re.compile(
    r"(?<![\w.%-])([\w.%-]++)(\\?[\"']?\s{0,4}+(?:=>|[:=])\s{0,4}+)"
    r"(\\\"(?:[^\"\\]|\\[^\"])*+(?:\\?\")?|\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?|[^\s,;&)}\"'<>]++)"
)
"""`name=value`, `name: value`, `"name": "value"`, also inside a JSON text within another."""
HEADER_LINE: Final = re.compile(
    r"(?<![0-9A-Za-z])((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,30}?(?:token|key))"
    r"(\s?:\s{0,4}+)([^\r\n\"'}\]]++)",
    re.IGNORECASE,
)


def is_opaque(token: str) -> bool:
    """Whether what follows the word "Bearer" is a credential, and not the next word of prose."""
    if token.startswith("[redacted"):
        return False
    bare = token.rstrip(".:)")
    return len(bare) >= 24 or (
        len(bare) >= 8 and any(char.isdigit() for char in bare) and not bare.isdigit()
    )


def is_basic(token: str) -> bool:
    """Whether it is base64 of a name, a colon and a password."""
    try:
        return b":" in base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
