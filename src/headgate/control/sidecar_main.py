"""A sidecar's process: the gateway's worker with what feeds it, in one process and one loop.

Started by `headgate sidecar` by exec, with its settings in a memfd, so that the command's own
imports are gone and no secret stands on a command line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from headgate.config.light import unpacked
from headgate.control import process_logs
from headgate.control.children import name_process
from headgate.control.launch import DEFAULT_WORKER
from headgate.control.listening import BindRefused, Endpoint, open_socket
from headgate.control.sidecar_settings import from_memfd
from headgate.control.worker_main import GC_THRESHOLDS, load_worker
from headgate.errors import ConfigInvalid, HeadgateError
from headgate.mesh.sidecar.running import Sidecar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.mesh.sidecar.settings import Settings

__all__ = ["main"]

log: Final = logging.getLogger("headgate.sidecar")

EX_CONFIG: Final = 78


def _sockets(settings: Settings) -> dict[str, list[socket.socket]]:
    beside = settings.beside
    binds = [beside.inbound] if beside.takes_calls else []
    binds += [beside.outbound] if beside.outbound else []
    return {bind: [open_socket(Endpoint(bind))] for bind in binds}


async def _run(settings: Settings, sockets: Mapping[str, list[socket.socket]]) -> None:
    worker: Any = load_worker(DEFAULT_WORKER)(0, lambda _event: None, unpacked)  # type: ignore[call-arg]
    sidecar = Sidecar(settings, worker, sockets, random.Random())
    loop = asyncio.get_running_loop()
    asked_to_end = 0

    def end() -> None:
        nonlocal asked_to_end
        asked_to_end += 1
        if asked_to_end > 1:
            os._exit(1)
        sidecar.end()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, end)
    loop.add_signal_handler(signal.SIGHUP, sidecar.reread)
    # A request leaves few cycles behind; what the imports left stays for good.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await sidecar.run()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.sidecar_main")
    parser.add_argument("--state", type=int, required=True)
    options = parser.parse_args(arguments)
    settings = from_memfd(options.state)
    name_process(f"headgate-{settings.beside.name}")
    process_logs.begin("sidecar")
    import uvloop  # here, so that tests can import this module

    try:
        os.makedirs(settings.beside.state_dir, mode=0o700, exist_ok=True)  # noqa: PTH103
        sockets = _sockets(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, sockets))
    except ConfigInvalid as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        return EX_CONFIG
    except (BindRefused, HeadgateError) as error:
        sys.stderr.write(f"headgate: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"headgate: {settings.beside.state_dir}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
