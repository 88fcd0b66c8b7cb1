"""Work that is done in a process of its own, because it weighs too much to be kept: keys are made,
files are read. One at a time is started, is told on its standard input, and ends within a limit.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from headgate.errors import HeadgateError

__all__ = ["ChildFailed", "ask_child"]

_LONGEST_S: Final = 60.0
_SAID_MAX: Final = 500


class ChildFailed(HeadgateError):
    """It did not do what it was for; the text is what it said last."""


async def ask_child(module: str, asked: dict[str, Any], timeout_s: float = _LONGEST_S) -> Any:
    """What `python -m module` answers to `asked`, JSON both ways. Raises ChildFailed."""
    # -P: the directory that we happen to be started in is no place to import from.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, trouble = await process.communicate(json.dumps(asked).encode())
    except TimeoutError:
        raise ChildFailed(f"{module} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = trouble.decode("utf-8", "replace").strip()[-_SAID_MAX:]
        raise ChildFailed(said or f"{module} ended with {process.returncode}")
    try:
        return json.loads(out)
    except ValueError:
        raise ChildFailed(f"{module} answered with something that is no JSON") from None
