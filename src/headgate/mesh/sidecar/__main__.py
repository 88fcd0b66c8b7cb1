"""The process of a sidecar: packages are thin here, models are light, and all else is in
`control.sidecar_main`.
"""

from __future__ import annotations

import importlib
import sys

from headgate.mesh.sidecar.thin import install

if __name__ == "__main__":
    install()
    importlib.import_module("headgate.config.light").install()
    sys.exit(importlib.import_module("headgate.control.sidecar_main").main())
