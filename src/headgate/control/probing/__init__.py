"""One health check of one instance: connect, ask, judge what comes back.

`headgate.control.health` decides when; here is what is sent and how the answer is read.
"""

from __future__ import annotations

from headgate.control.probing.probe import Seen, probe
from headgate.control.probing.target import Target

__all__ = ["Seen", "Target", "probe"]
