"""Fakes that our own tests and demos use, for yours too.

`EchoServer` is an HTTP/1.1 service that answers with what it received. Nothing here takes part in
the gateway, and no mode of the gateway knows that it is being tested.
"""

from __future__ import annotations

from headgate.testing.echo import EchoServer, Seen

__all__ = ["EchoServer", "Seen"]
