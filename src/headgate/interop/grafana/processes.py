"""Headgate's own processes, and the machine below them."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import EACH, GATE, GATEWAY
from headgate.interop.grafana.model import Board, Panel, Query, Row, Variable

__all__ = ["PROCESSES"]

_P: Final = f'{GATE},process=~"$process"'
_FULL: Final = ((0.80, "orange"), (0.95, "red"))


def _p99(metric: str) -> tuple[Query, ...]:
    return (
        Query(
            f"histogram_quantile(0.99, sum by (process, le) (rate({metric}_bucket{{{_P}}}{EACH})))",
            "{{process}}",
        ),
    )


PROCESSES: Final = Board(
    "headgate-processes",
    "Headgate / Processes and system",
    "Supervisor, control and workers: processor, memory, files, event loop, collector; the"
    " machine.",
    (
        Row(
            "Processes",
            (
                Panel(
                    "Processor",
                    (
                        Query(
                            "sum by (process)"
                            f" (rate(headgate_process_cpu_seconds_total{{{_P}}}{EACH}))",
                            "{{process}}",
                        ),
                    ),
                    unit="percentunit",
                    text="1 is one core.",
                ),
                Panel(
                    "Memory",
                    (
                        Query(
                            f"sum by (process) (headgate_process_resident_memory_bytes{{{_P}}})",
                            "{{process}}",
                        ),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "Open files of those allowed",
                    (
                        Query(
                            f"headgate_process_open_fds{{{_P}}} / headgate_process_max_fds{{{_P}}}",
                            "{{process}}",
                        ),
                    ),
                    unit="percentunit",
                    bounds=_FULL,
                ),
                Panel(
                    "Lag of the event loop, 99th percentile",
                    _p99("headgate_event_loop_lag_seconds"),
                    unit="s",
                ),
                Panel(
                    "Pauses of the collector, 99th percentile",
                    _p99("headgate_gc_pause_seconds"),
                    unit="s",
                ),
                Panel(
                    "Runs of the collector",
                    (
                        Query(
                            "sum by (process, generation)"
                            f" (rate(headgate_gc_collections_total{{{_P}}}{EACH}))",
                            "{{process}} {{generation}}",
                        ),
                    ),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Life",
            (
                Panel(
                    "Workers that ended by themselves",
                    (
                        Query(
                            "sum by (worker)"
                            f" (increase(headgate_worker_restarts_total{{{GATE}}}[10m]))",
                            "{{worker}}",
                        ),
                    ),
                    text="In ten minutes.",
                ),
                Panel(
                    "Reloads",
                    (
                        Query(
                            f"sum by (result) (increase(headgate_reloads_total{{{GATE}}}[10m]))",
                            "{{result}}",
                        ),
                    ),
                    text="In ten minutes.",
                ),
                Panel(
                    "Configuration, and what runs",
                    (
                        Query(
                            f"max by (process) (headgate_config_generation{{{_P}}})", "generation"
                        ),
                        Query(
                            f"max by (process) (headgate_process_uptime_seconds{{{_P}}})",
                            "seconds up",
                        ),
                    ),
                    draw="table",
                ),
            ),
        ),
        Row(
            "Forecasts and monitors",
            (
                Panel(
                    "Full in",
                    (
                        Query(
                            "min by (resource, name)"
                            f' (headgate_capacity_full_seconds{{{GATE},bound="likely"}})',
                            "{{resource}} {{name}}",
                        ),
                    ),
                    unit="s",
                    draw="bargauge",
                    bounds=((86400, "orange"), (604800, "green")),
                    below="red",
                    width=6,
                    text="Only what will be full within the horizon of the forecast.",
                ),
                Panel(
                    "Instances that services need",
                    (
                        Query(
                            f"max by (service) (headgate_capacity_instances_wanted{{{GATE}}})",
                            "{{service}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Monitors",
                    (Query(f"min by (monitor) (headgate_monitor_up{{{GATE}}})", "{{monitor}}"),),
                    draw="state-timeline",
                    bounds=((1, "green"),),
                    below="red",
                    names=(("0", "down"), ("1", "up")),
                    width=6,
                ),
                Panel(
                    "How long their checks take",
                    (
                        Query(
                            f"max by (monitor) (headgate_monitor_duration_seconds{{{GATE}}})",
                            "{{monitor}}",
                        ),
                    ),
                    unit="s",
                    width=6,
                ),
            ),
        ),
        Row(
            "The machine",
            (
                Panel(
                    "Processors",
                    (
                        Query(
                            f"headgate_system_cpu_usage_ratio{{{GATE}}}",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    bounds=((0.70, "orange"), (0.90, "red")),
                ),
                Panel(
                    "Processors that Headgate uses",
                    (
                        Query(
                            "sum by (instance)"
                            f" (rate(headgate_process_cpu_seconds_total{{{GATE}}}{EACH}))"
                            f" / max by (instance) (headgate_system_cpus_usable{{{GATE}}})",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    text="Of those it may use, by affinity and control group.",
                ),
                Panel(
                    "Load of each processor",
                    (
                        Query(
                            f"headgate_system_load{{{GATE}}}"
                            f" / on (instance) group_left () headgate_system_cpus{{{GATE}}}",
                            "{{instance}} {{window}}",
                        ),
                    ),
                    text="Above 1 tasks wait.",
                ),
                Panel(
                    "Memory in use",
                    (
                        Query(
                            f"1 - headgate_system_memory_available_bytes{{{GATE}}}"
                            f" / headgate_system_memory_total_bytes{{{GATE}}}",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    bounds=_FULL,
                ),
                Panel(
                    "Disk in use",
                    (
                        Query(
                            f"1 - headgate_system_disk_free_bytes{{{GATE}}}"
                            f" / headgate_system_disk_total_bytes{{{GATE}}}",
                            "{{instance}} {{path}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    bounds=_FULL,
                ),
                Panel(
                    "Running since its start",
                    (Query(f"headgate_system_uptime_seconds{{{GATE}}}", "{{instance}}"),),
                    unit="s",
                    draw="stat",
                ),
            ),
        ),
    ),
    (GATEWAY, Variable("process", "Process", "headgate_process_open_fds", "process")),
)
