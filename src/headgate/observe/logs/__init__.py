"""Logs of a service: structured, with the ids of its trace, without secrets, to any sink.

    from headgate.observe import logs

    logs.setup("orders", sinks=["stdout", "/var/log/orders.log"])
    logger = logs.get("orders.pay")
    with logs.bound(order=42):
        logger.info("paid", amount=3)

What the standard library's `logging` says, by whomever, comes out the same way.
"""

from __future__ import annotations

from headgate.observe.logs.context import bound
from headgate.observe.logs.installing import (
    Logging,
    flush,
    levels,
    process_logging,
    reopen,
    setup,
    shutdown,
    snapshot,
)
from headgate.observe.logs.logger import Log, get
from headgate.observe.logs.pump import SinkStats
from headgate.observe.logs.rules import (
    FileRotation,
    LogRules,
    RepeatRules,
    SinkRules,
    StoreRules,
    level_name,
    level_number,
)

__all__ = [
    "FileRotation",
    "Log",
    "LogRules",
    "Logging",
    "RepeatRules",
    "SinkRules",
    "SinkStats",
    "StoreRules",
    "bound",
    "flush",
    "get",
    "level_name",
    "level_number",
    "levels",
    "process_logging",
    "reopen",
    "setup",
    "shutdown",
    "snapshot",
]
