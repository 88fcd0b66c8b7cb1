"""Carriers by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from headgate.observe.logs.formats import Identity
from headgate.observe.logs.pump import Carrier
from headgate.observe.logs.rules import Format, LogRules, SinkRules

__all__ = ["carrier_of", "format_for"]


def _stream(rules: SinkRules, _who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.stream import StreamCarrier

    return StreamCarrier(rules.kind)


def _file(rules: SinkRules, _who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.file import FileCarrier

    return FileCarrier(rules.path, rules.rotation)


def _elasticsearch(rules: SinkRules, _who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.elastic import ElasticCarrier

    return ElasticCarrier(rules)


def _loki(rules: SinkRules, who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.loki import LokiCarrier

    return LokiCarrier(rules, who)


def _syslog(rules: SinkRules, who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.syslog import SyslogCarrier

    return SyslogCarrier(rules, who)


def _otlp(rules: SinkRules, who: Identity) -> Carrier:
    from headgate.observe.logs.sinks.otlp import OtlpCarrier

    return OtlpCarrier(rules, who)


_MAKERS: Final[Mapping[str, Callable[[SinkRules, Identity], Carrier]]] = {
    "stdout": _stream,
    "stderr": _stream,
    "file": _file,
    "elasticsearch": _elasticsearch,
    "loki": _loki,
    "syslog": _syslog,
    "otlp": _otlp,
}


def carrier_of(rules: SinkRules, who: Identity) -> Carrier:
    """Raises ValueError for a kind that there is not, and for rules that cannot be followed."""
    made = _MAKERS.get(rules.kind)
    if made is None:
        raise ValueError(f'"{rules.kind}" is no kind of sink; there are {", ".join(_MAKERS)}')
    return made(rules, who)


def format_for(sink: SinkRules, rules: LogRules) -> Format:
    """What lines to this sink look like."""
    if sink.kind == "otlp":
        return "json"  # it is taken apart again in the sink's own thread
    if sink.format is not None:
        return sink.format
    return "ecs" if sink.kind == "elasticsearch" else rules.format
