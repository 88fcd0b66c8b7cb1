"""Headgate beside nginx, Envoy, HAProxy and Caddy: one core each, the same upstream and client.

`python -m benchmarks.run` measures throughput and latency and writes `docs/benchmarks.md`;
`benchmarks.memory`, `benchmarks.flame`, `benchmarks.chaos` and `benchmarks.slow_clients` each
answer one question more. Everything listens on 127.0.0.1 only, and every run is bounded.
"""

from __future__ import annotations
