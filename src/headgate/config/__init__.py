"""Text to ``Config``: the models, the loader and what is said when a file is wrong.

``load`` reads a file, with all it includes, and answers a ``Loaded``: the frozen ``Config``, the
plain document it was made from (references resolved; what workers are sent) and the files read.
``from_document`` makes the same ``Config`` from such a document. Both raise ``ConfigInvalid``
with every fault at once.
"""

from __future__ import annotations

from headgate.config.checks import check
from headgate.config.loader import Loaded, from_document, load
from headgate.config.model import (
    AccessLogSpec,
    AdminSpec,
    Bind,
    CertificateSpec,
    CompressLevels,
    CompressSpec,
    Config,
    DnsSpec,
    Endpoint,
    ErrorPageSpec,
    ForwardedSpec,
    HeaderEdits,
    HeadersSpec,
    Http2Spec,
    InstanceSpec,
    LimitsSpec,
    ListenerSpec,
    ListenerTlsSpec,
    MatchSpec,
    PluginSpec,
    PolicyFields,
    PoolSpec,
    RedirectSpec,
    RequestIdSpec,
    RespondSpec,
    RewriteSpec,
    RouteSpec,
    ServiceSpec,
    TimeoutSpec,
    UpstreamTlsSpec,
    ValueMatchSpec,
    parse_bind,
    parse_url,
)
from headgate.errors import ConfigInvalid, Fault

__all__ = [
    "AccessLogSpec",
    "AdminSpec",
    "Bind",
    "CertificateSpec",
    "CompressLevels",
    "CompressSpec",
    "Config",
    "ConfigInvalid",
    "DnsSpec",
    "Endpoint",
    "ErrorPageSpec",
    "Fault",
    "ForwardedSpec",
    "HeaderEdits",
    "HeadersSpec",
    "Http2Spec",
    "InstanceSpec",
    "LimitsSpec",
    "ListenerSpec",
    "ListenerTlsSpec",
    "Loaded",
    "MatchSpec",
    "PluginSpec",
    "PolicyFields",
    "PoolSpec",
    "RedirectSpec",
    "RequestIdSpec",
    "RespondSpec",
    "RewriteSpec",
    "RouteSpec",
    "ServiceSpec",
    "TimeoutSpec",
    "UpstreamTlsSpec",
    "ValueMatchSpec",
    "check",
    "from_document",
    "load",
    "parse_bind",
    "parse_url",
]
