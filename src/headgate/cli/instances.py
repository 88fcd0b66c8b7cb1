"""`headgate instances`: the instances of a running gateway, as `headgate ctl instances`."""

from __future__ import annotations

from headgate.cli._ctl_alone import alone
from headgate.cli.ctl import instances as of_ctl

__all__ = ["instances"]

instances = alone(of_ctl)
