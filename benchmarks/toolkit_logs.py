"""Logging, for `make bench-toolkit`: a line with two fields as JSON, to where it leaves the loop.

Each function imports its library and answers what is called once a time. Headgate's line is in the
queue of its writer thread by then, whose own time is not the caller's; the others write it into a
file that throws it away, which is what their documentation has them do.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from benchmarks.toolkit_measure import HEADGATE, Primitive, of, work

_FIELDS: Final = {"order": 42, "amount": 3.5}


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


def _alone(handler: logging.Handler, name: str) -> logging.Logger:
    logger = logging.getLogger(f"bench.{name}")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


def _outlet(*, redact: bool) -> logging.Handler:
    from headgate.observe.logs.formats import Identity, JsonFormat
    from headgate.observe.logs.outlet import Lane, Outlet
    from headgate.observe.logs.pump import Line, Pump, Sent
    from headgate.security.redact import Redactor

    class Nowhere:
        name = "nowhere"
        is_local = True

        def send(self, lines: list[Line], deadline: float) -> Sent:
            return Sent(len(lines))

        def reopen(self) -> None: ...
        def close(self) -> None: ...

    pump = Pump(Nowhere(), queue_bytes=1_000_000_000)  # none is dropped: every line is made
    lane = Lane(JsonFormat(Identity("orders", "1")), 0, pump)
    return Outlet([lane], redactor=Redactor() if redact else None)


def ours(*, redact: bool = False) -> Callable[[], Any]:
    from headgate.observe import logs

    name = f"ours.{redact}"
    _alone(_outlet(redact=redact), name)
    return partial(logs.get(f"bench.{name}").info, "paid", **_FIELDS)


def ours_by_logging() -> Callable[[], Any]:
    logger = _alone(_outlet(redact=False), "stdlib")
    return lambda: logger.info("paid", extra=_FIELDS)


def json_logger() -> Callable[[], Any]:
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(_Nowhere())
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = _alone(handler, "pythonjsonlogger")
    return lambda: logger.info("paid", extra=_FIELDS)


def plain_formatter() -> Callable[[], Any]:
    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps(
                {
                    "time": self.formatTime(record),
                    "level": record.levelname,
                    "logger": record.name,
                    "message": record.getMessage(),
                    "order": record.__dict__["order"],
                    "amount": record.__dict__["amount"],
                }
            )

    handler = logging.StreamHandler(_Nowhere())
    handler.setFormatter(Formatter())
    logger = _alone(handler, "plain")
    return lambda: logger.info("paid", extra=_FIELDS)


def structlog_fast() -> Callable[[], Any]:
    """As its page on performance has it."""
    import structlog

    logger = structlog.wrap_logger(
        structlog.PrintLogger(file=_Nowhere()),  # type: ignore[arg-type]
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    ).bind()
    return lambda: logger.info("paid", order=42, amount=3.5)


def ours_off() -> Callable[[], Any]:
    from headgate.observe import logs

    logging.getLogger("bench.off").setLevel(logging.WARNING)
    return partial(logs.get("bench.off").info, "paid", **_FIELDS)


def logging_off() -> Callable[[], Any]:
    logger = logging.getLogger("bench.off")
    logger.setLevel(logging.WARNING)
    return lambda: logger.info("paid", extra=_FIELDS)


PRIMITIVES: Final = (
    Primitive(
        "log line, JSON with two fields",
        False,
        of(
            work,
            (HEADGATE, ours),
            ("headgate by logging", ours_by_logging),
            ("headgate, redacted", partial(ours, redact=True)),
            ("structlog", structlog_fast),
            ("python-json-logger", json_logger),
            ("logging with json.dumps", plain_formatter),
        ),
    ),
    Primitive(
        "log line below the level",
        False,
        of(work, (HEADGATE, ours_off), ("logging", logging_off)),
    ),
)


def storm(lines: int = 100_000) -> tuple[float, int]:
    """Seconds of the calling thread for so many lines into a full queue, and how many went."""
    from headgate.observe import logs
    from headgate.observe.logs.outlet import Outlet

    handler = _outlet(redact=False)
    if not isinstance(handler, Outlet):
        raise TypeError(handler)
    pump = handler.lanes[0].pump
    pump._max = 0
    _alone(handler, "storm")
    say = logs.get("bench.storm").info
    began = time.thread_time()
    for number in range(lines):
        say("line %d", number)
    return time.thread_time() - began, pump.stats.dropped


if __name__ == "__main__":
    took_s, dropped = storm()
    print(f"100,000 lines into a full queue: {took_s:.2f} s of the caller, {dropped} dropped")
