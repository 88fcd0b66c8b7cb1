"""One look at the sidecar's identity, in a process of its own that ends.

Keys and requests need a cryptography library that weighs as much as a quarter of a sidecar, for a
moment every few hours. So the sidecar starts this, hands it what it needs on standard input, and
reads from its standard output when to look again.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["look", "main"]


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """Join or renew if that is due."""
    from headgate.errors import HeadgateError
    from headgate.mesh.identity.agent import Agent

    try:
        agent = Agent(
            asked["folder"],
            control=asked["control"],
            service=asked["service"],
            token=asked.get("token") or None,
            token_file=asked.get("token_file") or None,
            ca_file=asked.get("ca_file") or None,
        )
        left_s = agent.turn()
        state = agent.snapshot()
        if left_s <= 0 and not state.trouble:
            left_s = agent.turn()
            state = agent.snapshot()
    except HeadgateError as error:
        return {"left_s": 0.0, "trouble": str(error), "ends": 0.0}
    return {"left_s": left_s, "trouble": state.trouble, "ends": state.ends}


def main() -> int:
    asked = json.loads(sys.stdin.buffer.read())
    json.dump(look(asked), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
