"""Text to ``Config``: the models, the loader and what is said when a file is wrong.

``load`` reads a file, with all it includes, and answers a ``Loaded``: the frozen ``Config``, the
plain document it was made from (references resolved; what workers are sent) and the files read.
``from_document`` makes the same ``Config`` from such a document. Both raise ``ConfigInvalid``
with every fault at once.
"""

from __future__ import annotations

from headgate.config.answers import RespondSpec
from headgate.config.balancing import AffinitySpec, BalanceSpec
from headgate.config.breaking import BreakerSpec, FailuresSpec, WindowSize
from headgate.config.cache_store import CacheDiskSpec, CacheStoreSpec
from headgate.config.caching import CacheKeySpec, CacheSpec
from headgate.config.checks import check
from headgate.config.degrading import DegradeSpec, FallbackSpec, LevelSpec, LevelWhenSpec
from headgate.config.discovery import DiscoverDnsSpec, DiscoverSpec
from headgate.config.health import HealthSpec, OutlierSpec
from headgate.config.keys import KeySpec
from headgate.config.limiting import CostSpec, LimitSpec, RefundSpec
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
    RewriteSpec,
    RouteSpec,
    ServicePolicyFields,
    ServiceSpec,
    TimeoutSpec,
    UpstreamTlsSpec,
    ValueMatchSpec,
    parse_bind,
    parse_url,
)
from headgate.config.protecting import ConcurrencySpec, ImportanceSpec, ShedSpec
from headgate.config.registry import RegistrySpec
from headgate.config.retrying import BudgetSpec, HedgeSpec, RetrySpec, RetryWhenSpec
from headgate.config.routes import targets
from headgate.config.splitting import FaultSpec, MirrorSpec, Part, SplitSpec
from headgate.errors import ConfigInvalid, Fault

__all__ = [
    "AccessLogSpec",
    "AdminSpec",
    "AffinitySpec",
    "BalanceSpec",
    "Bind",
    "BreakerSpec",
    "BudgetSpec",
    "CacheDiskSpec",
    "CacheKeySpec",
    "CacheSpec",
    "CacheStoreSpec",
    "CertificateSpec",
    "CompressLevels",
    "CompressSpec",
    "ConcurrencySpec",
    "Config",
    "ConfigInvalid",
    "CostSpec",
    "DegradeSpec",
    "DiscoverDnsSpec",
    "DiscoverSpec",
    "DnsSpec",
    "Endpoint",
    "ErrorPageSpec",
    "FailuresSpec",
    "FallbackSpec",
    "Fault",
    "FaultSpec",
    "ForwardedSpec",
    "HeaderEdits",
    "HeadersSpec",
    "HealthSpec",
    "HedgeSpec",
    "Http2Spec",
    "ImportanceSpec",
    "InstanceSpec",
    "KeySpec",
    "LevelSpec",
    "LevelWhenSpec",
    "LimitSpec",
    "LimitsSpec",
    "ListenerSpec",
    "ListenerTlsSpec",
    "Loaded",
    "MatchSpec",
    "MirrorSpec",
    "OutlierSpec",
    "Part",
    "PluginSpec",
    "PolicyFields",
    "PoolSpec",
    "RedirectSpec",
    "RefundSpec",
    "RegistrySpec",
    "RequestIdSpec",
    "RespondSpec",
    "RetrySpec",
    "RetryWhenSpec",
    "RewriteSpec",
    "RouteSpec",
    "ServicePolicyFields",
    "ServiceSpec",
    "ShedSpec",
    "SplitSpec",
    "TimeoutSpec",
    "UpstreamTlsSpec",
    "ValueMatchSpec",
    "WindowSize",
    "check",
    "from_document",
    "load",
    "parse_bind",
    "parse_url",
    "targets",
]
