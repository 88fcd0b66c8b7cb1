"""Whom the gateway turns away."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import EACH, GATE, GATEWAY, REQUESTS
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["GUARDS"]

GUARDS: Final = Board(
    "headgate-guards",
    "Headgate / Limits and security",
    "Whom rate limits, concurrency limits and guards turn away, and TLS.",
    (
        Row(
            "Limits",
            (
                Panel(
                    "Refused by rate limits",
                    (
                        Query(
                            "sum by (limit) (rate(headgate_limit_decisions_total"
                            f'{{{GATE},outcome="refused"}}{EACH}))',
                            "{{limit}}",
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    "Would have been refused",
                    (
                        Query(
                            "sum by (limit) (rate(headgate_limit_decisions_total"
                            f'{{{GATE},outcome="shadowed"}}{EACH}))',
                            "{{limit}}",
                        ),
                    ),
                    unit="reqps",
                    text="Limits that only watch.",
                ),
                Panel(
                    "Keys",
                    (Query(f"sum by (limit) (headgate_limit_keys{{{GATE}}})", "{{limit}}"),),
                ),
                Panel(
                    "Seats taken",
                    (
                        Query(
                            f"sum by (limit) (headgate_concurrency_in_flight{{{GATE}}})"
                            f" / sum by (limit) (headgate_concurrency_limit{{{GATE}}})",
                            "{{limit}}",
                        ),
                    ),
                    unit="percentunit",
                    bounds=((0.9, "red"),),
                ),
                Panel(
                    "In line for a seat",
                    (
                        Query(
                            f"sum by (limit) (headgate_concurrency_waiting{{{GATE}}})",
                            "{{limit}}",
                        ),
                    ),
                ),
                Panel(
                    "Without a seat",
                    (
                        Query(
                            f"sum by (limit) (rate(headgate_concurrency_rejected_total{{{GATE}}}"
                            f"{EACH}))",
                            "{{limit}}",
                        ),
                    ),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Guards",
            (
                Panel(
                    "Decisions",
                    (
                        Query(
                            "sum by (policy, outcome)"
                            f" (rate(headgate_guard_decisions_total{{{GATE}}}{EACH}))",
                            "{{policy}} {{outcome}}",
                        ),
                    ),
                    unit="reqps",
                    width=12,
                ),
                Panel(
                    "Answers 401, 403 and 429",
                    (
                        Query(
                            "sum by (route, code)"
                            f' (rate({REQUESTS}{{{GATE},code=~"401|403|429"}}{EACH}))',
                            "{{route}} {{code}}",
                        ),
                    ),
                    unit="reqps",
                    width=12,
                ),
            ),
        ),
        Row(
            "TLS and the admin API",
            (
                Panel(
                    "Handshakes that failed",
                    (
                        Query(
                            "sum by (listener, result) (rate(headgate_tls_handshakes_total"
                            f'{{{GATE},result!="ok"}}{EACH}))',
                            "{{listener}} {{result}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Certificates are good for",
                    (
                        Query(
                            f"min by (name) (headgate_certificate_expiry_seconds{{{GATE}}})",
                            "{{name}}",
                        ),
                    ),
                    unit="s",
                    draw="bargauge",
                    bounds=((0, "red"), (259200, "orange"), (1209600, "green")),
                ),
                Panel(
                    "Not let into the admin API",
                    (
                        Query(
                            f"sum by (reason) (rate(headgate_admin_refused_total{{{GATE}}}{EACH}))",
                            "{{reason}}",
                        ),
                    ),
                    unit="reqps",
                ),
            ),
        ),
    ),
    (GATEWAY,),
)
