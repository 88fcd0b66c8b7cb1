"""`headgate services`: the services of a running gateway, as `headgate ctl services`."""

from __future__ import annotations

from headgate.cli._ctl_alone import alone
from headgate.cli.ctl import services as of_ctl

__all__ = ["services"]

services = alone(of_ctl)
