"""Response headers that make browsers careful, put together once from what a file says.

Theory of operation. Every header is bytes. What is added depends on nothing but which fields a
response has and whether the connection is encrypted (HSTS and Clear-Site-Data mean nothing
without), so there are two sets; `secure_sets` makes both.

A header of the service's own stays, unless the policy overrides. A Content-Security-Policy is a
whole: we do not add a directive to one that the service wrote. Where the service says
`X-Frame-Options` alone, our policy goes without `frame-ancestors`: browsers go by that in place of
the older header, and DENY would become what we say.

The gateway's filter and the service kit both use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from headgate.config.secure_headers import HstsSpec, SecureHeadersSpec
from headgate.wire.message import Header

__all__ = ["SecureSet", "secure_sets"]

_TELLTALES: Final = frozenset(
    {
        b"server",
        b"x-powered-by",
        b"x-aspnet-version",
        b"x-aspnetmvc-version",
        b"x-generator",
        b"x-runtime",
    }
)
_POLICY: Final = b"content-security-policy"
_FRAMING: Final = b"x-frame-options"
_ONE: Final = 1


class SecureSet:
    """Headers for one kind of connection: an edit that depends on the fields alone."""

    __slots__ = ("_gone", "_headers", "_names", "_overrides", "_unframed")

    def __init__(
        self,
        headers: Iterable[Header],
        gone: frozenset[bytes],
        *,
        overrides: bool,
        unframed: bytes = b"",
    ) -> None:
        self._headers = list(headers)
        self._unframed = unframed
        """Our policy without `frame-ancestors`."""
        self._names = frozenset(name for name, _ in self._headers)
        self._overrides = overrides
        self._gone = gone | self._names if overrides else gone

    def apply_constant(self, raw: Sequence[Header]) -> list[Header]:
        """Return `raw` with what it lacks."""
        gone = self._gone
        out = [field for field in raw if field[0] not in gone] if gone else list(raw)
        if self._overrides:
            return out + self._headers
        names = self._names
        said = {name for name, _ in out if name in names or name == _FRAMING}
        if not said:
            return out + self._headers
        if _FRAMING in said and _POLICY not in said:
            said.add(_POLICY)
            if self._unframed:
                out.append((_POLICY, self._unframed))
        return out + [field for field in self._headers if field[0] not in said]


def secure_sets(spec: SecureHeadersSpec) -> tuple[SecureSet, SecureSet]:
    """What is added over plain connections, and over encrypted ones."""
    gone = _TELLTALES if spec.hide_server else frozenset()
    common = list(_headers(spec))
    tls_only = list(_tls_headers(spec))
    policy = {name: said for name, said in spec.csp.items() if name != "frame-ancestors"}
    unframed = _policy(policy)

    def made(headers: list[Header]) -> SecureSet:
        return SecureSet(headers, gone, overrides=spec.override, unframed=unframed)

    plain = made(common)
    return plain, made(tls_only + common) if tls_only else plain


def _tls_headers(spec: SecureHeadersSpec) -> Iterable[Header]:
    if spec.hsts:
        yield b"strict-transport-security", _hsts(spec.hsts)
    if spec.clear_site_data:
        data = ", ".join(f'"{each}"' for each in spec.clear_site_data)
        yield b"clear-site-data", data.encode("ascii")


def _hsts(spec: HstsSpec) -> bytes:
    text = f"max-age={int(spec.max_age)}"
    if spec.subdomains:
        text += "; includeSubDomains"
    if spec.preload:
        text += "; preload"
    return text.encode("ascii")


def _headers(spec: SecureHeadersSpec) -> Iterable[Header]:
    policy = dict(spec.csp)
    if spec.frame and "frame-ancestors" not in policy:
        policy["frame-ancestors"] = tuple(_ancestor(each) for each in spec.frame)
    if policy:
        yield _POLICY, _policy(policy)
    if spec.csp_report_only:
        yield b"content-security-policy-report-only", _policy(spec.csp_report_only)
    framing = _x_frame_options(policy.get("frame-ancestors", ()))
    if framing:
        yield _FRAMING, framing
    if spec.content_type_options:
        yield b"x-content-type-options", b"nosniff"
    if spec.referrer_policy:
        yield b"referrer-policy", ", ".join(spec.referrer_policy).encode("ascii")
    if spec.permissions:
        yield b"permissions-policy", _permissions(spec.permissions)
    for name, value in (
        (b"cross-origin-opener-policy", spec.opener),
        (b"cross-origin-embedder-policy", spec.embedder),
        (b"cross-origin-resource-policy", spec.resource),
        (b"x-permitted-cross-domain-policies", spec.cross_domain_policies),
    ):
        if value != "off":
            yield name, value.encode("ascii")
    if spec.origin_agent_cluster:
        yield b"origin-agent-cluster", b"?1"
    for own, text in spec.extra.items():
        yield own.lower().encode("latin-1"), text.strip(" \t").encode("latin-1")


def _ancestor(framer: str) -> str:
    return {"self": "'self'", "deny": "'none'"}.get(framer, framer)


def _x_frame_options(ancestors: Sequence[str]) -> bytes:
    """What `frame-ancestors` says, in the older header's words; nothing where it has none."""
    if len(ancestors) != _ONE:
        return b""
    return {"'none'": b"DENY", "'self'": b"SAMEORIGIN"}.get(ancestors[0].lower(), b"")


def _policy(directives: dict[str, tuple[str, ...]]) -> bytes:
    return "; ".join(" ".join((name, *sources)) for name, sources in directives.items()).encode(
        "ascii"
    )


def _permissions(features: dict[str, tuple[str, ...]]) -> bytes:
    """A dictionary of structured fields (RFC 9651): `camera=(), geolocation=(self "https://..")`."""
    parts = []
    for name, allowed in features.items():
        if "*" in allowed:
            parts.append(f"{name}=*")
        else:
            words = (
                each if each in ("self", "src") else f'"{each}"'
                for each in allowed
                if each != "none"
            )
            parts.append(f"{name}=({' '.join(words)})")
    return ", ".join(parts).encode("ascii")
