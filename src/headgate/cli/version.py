"""`headgate version`: what is running, for a bug report."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata

from headgate import __version__


def version() -> None:
    """Print the version, and those of what Headgate stands on."""
    print(f"headgate {__version__}")
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    )
    print(ssl.OPENSSL_VERSION)
    for name in ("uvloop", "pydantic", "cryptography"):
        print(f"{name} {metadata.version(name)}")
