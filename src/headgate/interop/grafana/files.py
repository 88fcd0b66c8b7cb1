"""The files that Grafana reads when it starts: data sources, dashboards, where these are."""

from __future__ import annotations

from typing import Any, Final

from headgate.interop.grafana.boards import BOARDS
from headgate.interop.grafana.model import to_dashboard
from headgate.interop.site import Site
from headgate.interop.writing import as_json, as_yaml, note

__all__ = ["files"]

KIND: Final = "grafana"
FOLDER: Final = "/etc/grafana/provisioning"
DASHBOARDS: Final = "/var/lib/grafana/dashboards/headgate"
# Grafana fills in variables of the environment in these files, so a dollar is written twice.
_TRACE: Final = "$${__value.raw}"


def files(site: Site) -> dict[str, str]:
    """By path. Raises Unnamed where a dashboard asks for what does not exist."""
    made = {
        "provisioning/datasources/headgate.yml": as_yaml(
            _datasources(site),
            note(KIND),
            f"Belongs into {FOLDER}/datasources. HEADGATE_TOKEN is a token of the role viewer,",
            "from Grafana's environment; PROMETHEUS_URL, HEADGATE_URL and JAEGER_URL likewise.",
        ),
        "provisioning/dashboards/headgate.yml": as_yaml(
            _providers(), note(KIND), f"Belongs into {FOLDER}/dashboards."
        ),
    }
    for board in BOARDS:
        content = to_dashboard(board, traces_url=site.jaeger)
        made[f"dashboards/{board.uid}.json"] = as_json(content)
    return made


def _datasources(site: Site) -> dict[str, Any]:
    scheme = "https" if site.is_tls else "http"
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": "headgate-prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": "${PROMETHEUS_URL}",
                "isDefault": True,
                "jsonData": {
                    "httpMethod": "POST",
                    "manageAlerts": False,
                    "timeInterval": "15s",
                    "prometheusType": "Prometheus",
                    "exemplarTraceIdDestinations": [
                        {"name": "trace_id", "datasourceUid": "headgate-jaeger"},
                        {
                            "name": "trace_id",
                            "url": f"{site.jaeger}/trace/{_TRACE}",
                            "urlDisplayLabel": "In Jaeger",
                        },
                    ],
                },
            },
            {
                "name": "Headgate",
                "uid": "headgate-history",
                "type": "prometheus",
                "access": "proxy",
                "url": "${HEADGATE_URL}",
                "isDefault": False,
                "jsonData": {
                    "httpMethod": "POST",
                    "manageAlerts": False,
                    "timeInterval": "1s",
                    "prometheusType": "Prometheus",
                    "httpHeaderName1": "Authorization",
                    **({"tlsSkipVerify": False} if scheme == "https" else {}),
                },
                "secureJsonData": {"httpHeaderValue1": "Bearer ${HEADGATE_TOKEN}"},
            },
            {
                "name": "Jaeger",
                "uid": "headgate-jaeger",
                "type": "jaeger",
                "access": "proxy",
                "url": "${JAEGER_URL}",
                "isDefault": False,
                "jsonData": {},
            },
        ],
    }


def _providers() -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "headgate",
                "orgId": 1,
                "folder": "Headgate",
                "type": "file",
                "disableDeletion": False,
                "allowUiUpdates": False,
                "updateIntervalSeconds": 60,
                "options": {"path": DASHBOARDS},
            }
        ],
    }
