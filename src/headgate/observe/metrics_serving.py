"""Metrics of the data plane: requests, connections, instances, policies, the HTTP cache."""

from __future__ import annotations

from typing import Final

from headgate.observe.metric import Metric

__all__ = ["SERVING"]

_ROUTE = ("route", "service")
# `instance` is the label Prometheus itself puts on every sample of a target.
_INSTANCE = ("service", "service_instance")

SERVING: Final[tuple[Metric, ...]] = (
    Metric(
        "headgate_build_info",
        "gauge",
        ("version", "python"),
        "Always 1; see the labels.",
        "max",
    ),
    Metric(
        "headgate_http_requests_total",
        "counter",
        (*_ROUTE, "method", "code"),
        "Requests answered, or given up by the client (code 499).",
    ),
    Metric(
        "headgate_http_request_duration_seconds",
        "histogram",
        _ROUTE,
        "From the first byte of a request to the last byte of its response.",
    ),
    Metric(
        "headgate_upstream_duration_seconds",
        "histogram",
        _ROUTE,
        "From sending a request upstream to the end of the response from there, all attempts.",
    ),
    Metric(
        "headgate_http_request_body_bytes_total",
        "counter",
        _ROUTE,
        "Body bytes received from clients.",
    ),
    Metric(
        "headgate_http_response_body_bytes_total",
        "counter",
        _ROUTE,
        "Body bytes sent to clients.",
    ),
    Metric(
        "headgate_http_requests_in_flight",
        "gauge",
        (),
        "Requests begun and not yet ended, tunnels included.",
    ),
    Metric("headgate_connections", "gauge", ("listener",), "Client connections that are open."),
    Metric(
        "headgate_connections_accepted_total",
        "counter",
        ("listener",),
        "Client connections accepted.",
    ),
    Metric(
        "headgate_connections_refused_total",
        "counter",
        ("listener", "reason"),
        "Client connections closed on arrival because of a limit.",
    ),
    Metric(
        "headgate_tls_handshakes_total",
        "counter",
        ("listener", "result"),
        "TLS handshakes with clients; result is ok, or why one failed: not_tls, version,"
        " no_shared_cipher, alpn, no_client_certificate, client_certificate,"
        " certificate_refused (ours, by the client), client_alert, closed, timeout, other.",
    ),
    Metric(
        "headgate_upstream_connections",
        "gauge",
        (*_INSTANCE, "state"),
        "Connections to an instance; state is active or idle.",
    ),
    Metric(
        "headgate_upstream_connections_created_total",
        "counter",
        _INSTANCE,
        "Connections made to an instance.",
    ),
    Metric(
        "headgate_upstream_connections_reused_total",
        "counter",
        _INSTANCE,
        "Exchanges that found an open connection in the pool.",
    ),
    Metric(
        "headgate_upstream_failures_total",
        "counter",
        (*_INSTANCE, "kind"),
        "Exchanges an instance failed; kind is connect, timeout, reset, protocol, tls, dns,"
        " queue_full, queue_timeout or closed.",
    ),
    Metric(
        "headgate_upstream_retries_total",
        "counter",
        _INSTANCE,
        "Exchanges sent again after this instance had failed them.",
    ),
    Metric(
        "headgate_upstream_attempts_total",
        "counter",
        _INSTANCE,
        "Attempts at an instance that have ended, well or not, where there was a choice of"
        " instances or a policy to learn from them.",
    ),
    Metric(
        "headgate_upstream_attempt_seconds_total",
        "counter",
        _INSTANCE,
        "How long they took, from the choice of the instance to the end of its answer.",
    ),
    Metric(
        "headgate_upstream_queue",
        "gauge",
        _INSTANCE,
        "Requests waiting for a connection to an instance.",
    ),
    Metric(
        "headgate_timeouts_total",
        "counter",
        ("kind",),
        "Waits given up, by what was waited for.",
    ),
    Metric(
        "headgate_protocol_refusals_total",
        "counter",
        ("side", "reason"),
        "Messages refused because they break the rules of the wire; side is downstream or"
        " upstream.",
    ),
    Metric(
        "headgate_filter_errors_total",
        "counter",
        ("filter",),
        "Exceptions raised by a filter.",
    ),
    Metric(
        "headgate_access_log_lines_total",
        "counter",
        ("result",),
        "Access log lines; result is written, dropped (the queue was full) or failed (the"
        " file or pipe did not take them).",
    ),
    Metric(
        "headgate_breaker_state",
        "gauge",
        (*_INSTANCE, "state"),
        "1 for each state that the circuit breaker is in, in some worker; without an instance"
        " it is the service's.",
        "max",
    ),
    Metric(
        "headgate_breaker_rejected_total",
        "counter",
        _INSTANCE,
        "Attempts that a circuit breaker let not through.",
    ),
    Metric(
        "headgate_instance_usable",
        "gauge",
        _INSTANCE,
        "Workers that consider the instance fit to serve.",
    ),
    Metric(
        "headgate_instance_drained",
        "gauge",
        _INSTANCE,
        "Workers that give the instance no new requests because somebody has said so.",
    ),
    Metric(
        "headgate_limit_decisions_total",
        "counter",
        ("limit", "outcome"),
        "Decisions of rate limits: allowed, refused, or shadowed (would have been refused).",
    ),
    Metric(
        "headgate_guard_decisions_total",
        "counter",
        ("policy", "outcome"),
        "Decisions on who is let in, by method of authentication or policy.",
    ),
    Metric(
        "headgate_traces_kept_total",
        "counter",
        ("why",),
        "Traces of requests that were kept: sampled, error or slow.",
    ),
    Metric(
        "headgate_traces_dropped_total",
        "counter",
        ("where",),
        "Traces, or spans where no more is known, that were to be kept and found no room.",
    ),
    Metric("headgate_limit_keys", "gauge", ("limit",), "Keys that a rate limit keeps."),
    Metric("headgate_concurrency_limit", "gauge", ("limit",), "Requests that may be under way."),
    Metric("headgate_concurrency_in_flight", "gauge", ("limit",), "Requests that hold a seat."),
    Metric("headgate_concurrency_waiting", "gauge", ("limit",), "Requests in line for a seat."),
    Metric(
        "headgate_concurrency_rejected_total",
        "counter",
        ("limit",),
        "Requests that got no seat: the line was full, or they waited for too long.",
    ),
    Metric(
        "headgate_policy_events_total",
        "counter",
        ("route", "event"),
        "What traffic policies did: retries, hedges, hedges_won, budget_spent, fallbacks,"
        " faults, rejected_open, shed, mirrored, mirrored_failed, mirrors_dropped.",
    ),
    Metric(
        "headgate_cache_total",
        "counter",
        ("route", "outcome"),
        "What became of requests on routes with a cache: hit, stale, stale_on_error,"
        " revalidated, collapsed, miss, pass, refused, alone; and of responses: stored,"
        " too_long (for the rules), no_room (too much was on its way into the cache).",
    ),
    Metric("headgate_cache_bytes", "gauge", (), "Memory that kept responses take."),
    Metric("headgate_cache_bytes_max", "gauge", (), "Memory that they may take."),
    Metric("headgate_cache_responses", "gauge", (), "Responses kept in memory."),
    Metric(
        "headgate_cache_evictions_total",
        "counter",
        (),
        "Responses that went to make room for others.",
    ),
    Metric(
        "headgate_cache_fills",
        "gauge",
        (),
        "Requests to services under way whose answers may be kept, or read by several clients.",
    ),
    Metric(
        "headgate_cache_lower_reads_total",
        "counter",
        ("layer", "result"),
        "Responses looked for on disk or in Redis, as memory had none; result is hit or miss.",
    ),
    Metric(
        "headgate_cache_lower_writes_total",
        "counter",
        ("layer", "result"),
        "Responses for disk or Redis; result is written or dropped (it was away, the queue was"
        " full, or the response too large).",
    ),
    Metric(
        "headgate_cache_lower_drops_total",
        "counter",
        ("layer", "reason"),
        "Responses that left the disk or were not taken from Redis: evicted, struck by an"
        " invalidation, or spoilt (garbled or cut short).",
    ),
    Metric(
        "headgate_cache_lower_failures_total",
        "counter",
        ("layer",),
        "Reads and writes of disk or Redis that failed or were late; none fails a request.",
    ),
    Metric(
        "headgate_cache_lower_away",
        "gauge",
        ("layer",),
        "Workers that cannot use the disk or Redis now.",
    ),
    Metric(
        "headgate_cache_lower_queued",
        "gauge",
        ("layer",),
        "Responses and invalidations that wait to be written.",
    ),
    Metric(
        "headgate_cache_lower_bytes",
        "gauge",
        ("layer",),
        "What responses on disk take, for all workers.",
        "max",
    ),
    Metric(
        "headgate_cache_lower_bytes_max",
        "gauge",
        ("layer",),
        "What they may take.",
        "max",
    ),
    Metric("headgate_workers", "gauge", (), "Workers that are running."),
)
