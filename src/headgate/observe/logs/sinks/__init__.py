"""Where lines go: one module a kind, each a carrier for `headgate.observe.logs.pump.Pump`.

A kind's module is imported when a sink of that kind is made.
"""

from headgate.observe.logs.sinks.making import carrier_of, format_for

__all__ = ["carrier_of", "format_for"]
