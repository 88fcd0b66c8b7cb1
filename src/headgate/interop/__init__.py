"""Hand-over to what people already have: Prometheus, Alertmanager, Grafana, Elastic.

`hand_over(kind, site)` answers the files for one of them, made from the same tables that the
product itself runs by: metrics, alert rules, log fields. What names a metric is held against the
table of metrics before it is written (`naming`), so nothing can ask for one that does not exist.
"""

from __future__ import annotations

from headgate.interop.handing import KINDS, hand_over
from headgate.interop.site import Site, site_of

__all__ = ["KINDS", "Site", "hand_over", "site_of"]
