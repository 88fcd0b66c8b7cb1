"""Errors of OpenSSL and of the system in words. Apart, as it is needed where certificates are not:
to read those takes a library that a client does without.
"""

from __future__ import annotations

import os
import ssl


def say(error: Exception) -> str:
    """Put an error of OpenSSL or of the system into words."""
    # An error that the ssl module raises by itself has no `reason` at all.
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason:
        return str(reason).lower().replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        # Not `strerror`, which asyncio sets to words of its own.
        return os.strerror(error.errno)
    return "not understood"
