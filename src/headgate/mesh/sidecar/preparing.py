"""Makes the configuration of a sidecar's worker, in a process of its own that ends: see `children`.

What checks a configuration weighs a third of a sidecar, and is needed when it starts and when the
gateway's file changes. So it is done here, and the worker gets what came of it (`config.light`).
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from headgate.errors import ConfigInvalid, Fault
from headgate.mesh.sidecar.children import ChildFailed, ask_child

__all__ = ["main", "prepare", "prepared"]

_MODULE: Final = "headgate.mesh.sidecar.preparing"


async def prepared(document: Mapping[str, Any]) -> bytes:
    """A document as the worker takes it up. Raises ConfigInvalid and ChildFailed."""
    try:
        answer = await ask_child(_MODULE, dict(document))
    except OSError as error:
        raise ChildFailed(f"the configuration cannot be read: {error}") from None
    if "faults" in answer:
        raise ConfigInvalid(tuple(Fault(**row) for row in answer["faults"]))
    return base64.b85decode(answer["config"])


def prepare(document: Mapping[str, Any]) -> dict[str, Any]:
    """What `prepared` is answered."""
    from headgate.config import from_document
    from headgate.config.light import packed

    try:
        config = from_document(document)
    except ConfigInvalid as error:
        return {"faults": [asdict(fault) for fault in error.faults]}
    return {"config": base64.b85encode(packed(config)).decode("ascii")}


def main() -> int:
    json.dump(prepare(json.loads(sys.stdin.buffer.read())), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
