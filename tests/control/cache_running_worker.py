"""The gateway's worker, which waits longer for what is below memory. On a busy machine lookups are
late, and late ones are misses: right for users, but tests of what is found are not about that.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from headgate.gateway.caching import lower_life
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.redis import open_redis
from headgate.gateway.worker import Worker

LOOKUP_S = 4.0


class PatientDisk(DiskStore):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"deadline_s": LOOKUP_S, **more})


class PatientWorker(Worker):
    def __init__(self, *args: Any, **more: Any) -> None:
        # In the worker's process, which ends with it.
        vars(lower_life).update(
            DiskStore=PatientDisk, open_redis=partial(open_redis, deadline_s=LOOKUP_S)
        )
        super().__init__(*args, **more)
