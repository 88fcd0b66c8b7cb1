"""Metrics of the mesh: the registry, identities, who calls whom."""

from __future__ import annotations

from typing import Final

from headgate.observe.metric import Metric

__all__ = ["MESH"]

MESH: Final[tuple[Metric, ...]] = (
    Metric(
        "headgate_mesh_refused_total",
        "counter",
        ("source", "destination", "why", "mode"),
        "Calls between services that the rules of access speak against; source is the caller by"
        " its certificate, or anonymous; why is rule, default or no_identity; mode is strict where"
        " they were refused, permissive where they passed.",
    ),
    Metric(
        "headgate_mesh_certificates_issued_total",
        "counter",
        ("service", "how"),
        "Certificates of services that the mesh's authority has issued; how is join, renew or own"
        " (the gateway's).",
    ),
    Metric(
        "headgate_mesh_certificates_refused_total",
        "counter",
        ("why",),
        "Certificates that were asked for and not issued; why is token, certificate, request,"
        " denied, rate or unavailable.",
    ),
    Metric(
        "headgate_mesh_authority_ends_timestamp_seconds",
        "gauge",
        ("what",),
        "When the newest root and the newest intermediate of the mesh end, since 1970; both are"
        " followed by others long before.",
    ),
    Metric(
        "headgate_mesh_roots",
        "gauge",
        (),
        "Roots that services of the mesh trust; two while one follows the other.",
    ),
    Metric(
        "headgate_mesh_join_tokens",
        "gauge",
        (),
        "Tokens with which a service may still join the mesh.",
    ),
    Metric(
        "headgate_registry_instances",
        "gauge",
        ("service", "state"),
        "Instances that the registry lists, whoever named them; state is up, draining or suspect."
        " Of services that the file does not name, the first hundred stand alone, the rest as"
        " (others).",
    ),
    Metric(
        "headgate_registry_leases",
        "gauge",
        (),
        "Instances that registered themselves and hold a lease.",
    ),
    Metric(
        "headgate_registry_events_total",
        "counter",
        ("event",),
        "What the registry was told or did; event is registered, beat, left, expired, suspected,"
        " fenced, unknown, refused or changed.",
    ),
    Metric(
        "headgate_registry_watchers",
        "gauge",
        (),
        "Who watches the registry at the moment.",
    ),
    Metric(
        "headgate_registry_watchers_cut_total",
        "counter",
        (),
        "Watchers that were too slow and were cut; they come back and are told what they missed.",
    ),
    Metric(
        "headgate_registry_members_told_total",
        "counter",
        (),
        "Messages to workers about found instances, of one service each.",
    ),
    Metric(
        "headgate_registry_writes_total",
        "counter",
        ("result",),
        "Writes to where registrations are kept; result is done or failed.",
    ),
    Metric(
        "headgate_members_changes_total",
        "counter",
        ("service",),
        "How often the workers, each for itself, have taken up other instances of a service that"
        " are found, and not named in the file.",
    ),
    Metric(
        "headgate_members_unread_total",
        "counter",
        (),
        "News of found instances that a worker could not read, in part or as a whole.",
    ),
    Metric(
        "headgate_mesh_requests_total",
        "counter",
        ("source", "destination"),
        "Calls between services, as clients and sidecars of the callers report them; an edge of"
        " which nothing is heard for 15 minutes goes.",
    ),
    Metric(
        "headgate_mesh_errors_total",
        "counter",
        ("source", "destination"),
        "Of these, those that ended with 5xx or without an answer.",
    ),
    Metric(
        "headgate_mesh_retries_total",
        "counter",
        ("source", "destination"),
        "Further attempts that callers made.",
    ),
    Metric(
        "headgate_mesh_duration_seconds",
        "histogram",
        ("source", "destination"),
        "How long calls between services took, all attempts together.",
    ),
    Metric("headgate_mesh_edges", "gauge", (), "Edges between services that are known."),
    Metric(
        "headgate_mesh_edges_overflowed_total",
        "counter",
        (),
        "Edges in reports that were counted under other, as there were too many.",
    ),
)
