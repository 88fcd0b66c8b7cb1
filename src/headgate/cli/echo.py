"""`headgate echo`: a service to put behind the gateway while trying things out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from headgate.errors import HeadgateError
from headgate.testing.echo import EchoServer


def echo(
    name: Annotated[str, typer.Option(help="What the service calls itself.")] = "echo",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 0,
    unix: Annotated[
        Path | None, typer.Option(help="Listen on this Unix socket instead of a port.")
    ] = None,
) -> None:
    """Run a service that answers with what it received, until Ctrl-C.

    Its address is the last word of the first line it prints. Most paths answer with a JSON
    description of the request; these do something else:

      /delay/SECONDS  /status/CODE  /bytes/N  /stream/N?tick=0.1  /drip/N?tick=0.1
      /sse?n=5&tick=1  /upload  /close  /health  /ws
    """
    server = EchoServer(name, host=host, port=port, unix=unix)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server))


async def _serve(server: EchoServer) -> None:
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave.set)
    try:
        await server.start()
    except OSError as error:
        raise HeadgateError(f"cannot listen on {server.url}: {error}") from error
    print(f"{server.name} answers on {server.url}", flush=True)
    await leave.wait()
    await server.stop()
