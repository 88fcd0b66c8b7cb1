"""What will come, out of what was: forecasts with intervals, when something is full, how many
instances it takes.

Pure: values in, values out, with numpy in the modules that count (`forecasting`, `filling`,
`instances`). Here are only the values, which are light.
"""

from __future__ import annotations

from headgate.observe.forecast.planning import Planning, ServicePlan, capacity_rules

__all__ = ["Planning", "ServicePlan", "capacity_rules"]
