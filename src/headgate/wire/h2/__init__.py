"""HTTP/2 without input or output: frames, HPACK, streams, flow control and their guards.

`ServerConnection` and `ClientConnection` take bytes with `feed`, call the methods of the
`Stream`s that a rim subclasses, and gather what is to be written for `take`.
"""

from __future__ import annotations

from headgate.wire.h2.client import ClientConnection
from headgate.wire.h2.connection import H2Limits
from headgate.wire.h2.fields import Malformed, RequestFields, judge_request
from headgate.wire.h2.frames import PREFACE, ConnectionFault, ErrorCode
from headgate.wire.h2.guards import Bucket, GuardLimits
from headgate.wire.h2.hpack_encoder import encode_passing
from headgate.wire.h2.server import ServerConnection
from headgate.wire.h2.stream import Stream

__all__ = [
    "PREFACE",
    "Bucket",
    "ClientConnection",
    "ConnectionFault",
    "ErrorCode",
    "GuardLimits",
    "H2Limits",
    "Malformed",
    "RequestFields",
    "ServerConnection",
    "Stream",
    "encode_passing",
    "judge_request",
]
