"""Every metric Headgate shows, as data: the exposition and the reference page are made from it.

Theory of operation. A metric is known by its name; its labels have a fixed order, and a sample is
the tuple of their values with a number (or, for a histogram, with counts and a sum). To add a
metric is to add a row to one of the three tables and to put samples under its name into a snapshot;
to put samples under a name that has no row is a programming error and raises.
"""

from __future__ import annotations

from typing import Final

from headgate.observe.metric import Kind, Metric
from headgate.observe.metrics_keeping import KEEPING
from headgate.observe.metrics_mesh import MESH
from headgate.observe.metrics_serving import SERVING

__all__ = ["METRICS", "OTHER", "Kind", "Metric", "reference"]

METRICS: Final[dict[str, Metric]] = {metric.name: metric for metric in (*SERVING, *KEEPING, *MESH)}

OTHER: Final = "other"
"""The label value under which samples are added up that exceed a family's bound."""


def reference() -> str:
    """The text of docs/reference/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` on the admin listener answers in the Prometheus text format. The figures",
        "of all workers are added up; those of a worker that has ended are kept, so a counter",
        "never falls while the control process lives.",
        "",
        "Label values come from the configuration or from fixed sets, never from what clients",
        "send: a method or status that is not registered counts as `other` or as its class",
        "(`5xx`). A family shows at most 1,000 label sets (10,000 for",
        "`headgate_http_requests_total`); what comes after them is added up under `other`.",
        "",
        "| Metric | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    lines += [
        "",
        "Durations are kept in buckets about 12 % wide, from which the admin API estimates the",
        "median, 95th and 99th percentile; Prometheus sees the coarser buckets from 250 us to",
        "50 s. A histogram `x` has the samples `x_bucket`, `x_sum` and `x_count`.",
        "",
    ]
    return "\n".join(lines)
