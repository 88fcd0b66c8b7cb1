"""The `secure_headers` policy: response headers that make browsers careful.

What is added is bytes, made when the plan is built (`headgate.plan.secure_headers`): one edit for
plain connections and one for encrypted ones, each of which `Chain` may make once for equal heads.
"""

from __future__ import annotations

from headgate.config.browsers import SecureHeadersSpec
from headgate.gateway.filters.base import Filter, FilterContext, Request, Response
from headgate.plan.secure_headers import secure_sets

__all__ = ["SecureHeaders"]


class SecureHeaders(Filter):
    """Adds the headers of one route."""

    def __init__(self, spec: SecureHeadersSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        self.plain, self.over_tls = secure_sets(spec)

    def on_response(self, request: Request, response: Response) -> None:
        edits = self.over_tls if request.is_tls else self.plain
        response.headers.raw = edits.apply_constant(response.headers.fields)
