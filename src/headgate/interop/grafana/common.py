"""What the dashboards of the gateway have in common: selectors, variables, ratios, quantiles."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.model import Query, Variable

__all__ = [
    "ASKED",
    "EACH",
    "ERRORS",
    "FEW_ERRORS",
    "GATE",
    "GATEWAY",
    "HITS",
    "REQUESTS",
    "ROUTE",
    "ROUTED",
    "SERVED",
    "SERVICE",
    "SLOW",
    "TOOK",
    "TRACES",
    "UPSTREAM",
    "p95",
    "quantiles",
    "ratio",
]

EACH: Final = "[$__rate_interval]"
GATE: Final = 'instance=~"$gateway"'
ROUTED: Final = f'{GATE},route=~"$route"'
SERVED: Final = f'{GATE},service=~"$service"'
REQUESTS: Final = "headgate_http_requests_total"
TOOK: Final = "headgate_http_request_duration_seconds"
UPSTREAM: Final = "headgate_upstream_duration_seconds"
ERRORS: Final = 'code=~"5.."'
HITS: Final = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed"'
ASKED: Final = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed|miss"'

GATEWAY: Final = Variable("gateway", "Gateway", "headgate_build_info", "instance")
ROUTE: Final = Variable("route", "Route", REQUESTS, "route")
SERVICE: Final = Variable("service", "Service", "headgate_instance_usable", "service")
TRACES: Final = (("Traces of this time", "${traces_url}/search?service=headgate&lookback=1h"),)

FEW_ERRORS: Final = ((0.05, "orange"), (0.10, "red"))
SLOW: Final = ((2.0, "orange"), (5.0, "red"))


def quantiles(name: str, where: str, by: str = "le") -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by ({by}) (rate({name}_bucket{{{where}}}{EACH})))",
            legend,
            has_exemplars=q == 0.99,
        )
        for q, legend in ((0.5, "median"), (0.95, "p95"), (0.99, "p99"))
    )


def p95(name: str, where: str, by: str) -> Query:
    return Query(
        f"histogram_quantile(0.95, sum by ({by}, le) (rate({name}_bucket{{{where}}}{EACH})))",
        f"{{{{{by}}}}}",
        has_exemplars=True,
    )


def ratio(part: str, whole: str, by: str = "") -> str:
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({part}{EACH})) / sum{group} (rate({whole}{EACH}))"
