"""Who a service is. It stands with what the gateway needs, too: see
`headgate.security.service_identity.spiffe`.
"""

from __future__ import annotations

from headgate.security.service_identity.spiffe import (
    NotAnIdentity,
    SpiffeId,
    service_fault,
    trust_domain_fault,
)

__all__ = ["NotAnIdentity", "SpiffeId", "service_fault", "trust_domain_fault"]
