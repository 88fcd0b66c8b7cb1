"""What a connection needs to know to serve a request: one plan as one listener sees it.

Theory of operation
-------------------
A reload makes new sites and swaps the listener's reference; connections notice at their next
request. Exchanges keep the site they began with, so a request is judged by one plan to its end.

`prepare` turns a head into a `Prepared`: matched, rewritten, rendered. That is the expensive
part of a request, and it depends on nothing but the head and the plan, so it is done once per
distinct head and kept in `heads` (or `heads_trusted` for peers whose word on forwarding is taken
and whose fields are therefore kept). A decision that looked at the client's address is not kept.
One that looked at the scheme or the listener is: a site is one listener's, and of a trusted peer's
client the scheme stands in the head.
"""

from __future__ import annotations

import hmac
import random
import re
from typing import TYPE_CHECKING, Final

from headgate.gateway.exchange import Exchange
from headgate.gateway.identity_headers import told_of
from headgate.gateway.prepared import Prepared
from headgate.gateway.tracing_heads import BAGGAGE, kept_baggage
from headgate.plan.conditions import MatchInput
from headgate.plan.match import Matched, Missed
from headgate.policy.hops import EXPLAIN, OWN_NAMES, REQUEST_ID
from headgate.security.certificates.rules import CHALLENGE_PREFIX
from headgate.wire import forwarded
from headgate.wire.forwarded import TrustedNetworks
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.max_forwards import COUNTED, counted_down, hops_left
from headgate.wire.message import Forward, Refusal, RequestHead, ResponseHead, find

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from headgate.config import ErrorPageSpec, ListenerSpec
    from headgate.gateway.access_log import AccessLog
    from headgate.gateway.route import RouteRuntime
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.tracing import Tracing
    from headgate.observe import RouteStats, WorkerStats
    from headgate.plan.plan import Plan
    from headgate.security.bans import Bans
    from headgate.wire.message import Header

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_HOSTS_KEPT: Final = 1024
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_TRACE_FIELDS: Final = frozenset({b"traceparent", b"tracestate"})
_OPTIONS_ALL: Final = (
    ResponseHead(
        204,
        ((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),),
        reason=b"No Content",
        length=0,
    ),
    b"",
)
_NOTHING_OWNED: Final[Mapping[str, tuple[int, ...]]] = {}


def _challenge_head(shown: bytes) -> ResponseHead:
    content_type = (b"content-type", b"application/octet-stream")  # RFC 8555 8.3
    return ResponseHead(200, (content_type,), reason=b"OK", length=len(shown))


class Site:
    """One plan as one listener sees it."""

    def __init__(
        self,
        plan: Plan,
        spec: ListenerSpec,
        routes: tuple[RouteRuntime, ...],
        stats: WorkerStats,
        log: AccessLog,
        error_pages: Mapping[int | str, tuple[bytes, str]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        rng: random.Random,
        bans: Bans | None = None,
        owned: Mapping[str, tuple[int, ...]] = _NOTHING_OWNED,
        challenge: Callable[[str], bytes | None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        config = plan.config
        limits = spec.limits or config.limits
        self.plan = plan
        self.spec = spec
        self.routes = routes
        self.stats = stats
        self.unrouted: RouteStats = stats.route("", "")
        self.log = log
        self.spawn = spawn
        self.rng = rng
        self.bans = bans
        self._challenge = challenge
        """The answer to an authority's question, by path."""
        self.has_ban_rules = bool(config.bans)
        self._owned = owned
        """Routes by the paths that their methods of authentication own."""
        self.limits = limits
        self.head_limits = HeadLimits(limits.url, limits.header_bytes, limits.header_count)
        self.header_timeout_s = limits.header_timeout
        self.body_timeout_s = limits.body_timeout
        self.idle_timeout_s = limits.idle_timeout
        self.write_timeout_s = limits.write_timeout
        self.requests_max = limits.requests_per_connection
        self.has_http1 = "http1" in spec.protocols
        self.has_http2 = "http2" in spec.protocols
        self.options = config.forwarded
        self.trusted = TrustedNetworks(config.trusted_proxies)
        self.tracing = tracing
        """None: traces are neither made nor kept, and a client's goes on as it came."""
        self.response_time = config.response_time
        self.tells_trace = tracing is not None and bool(tracing.tells)
        self.request_id_name = config.request_id.header.lower().encode("ascii")
        self.request_id_prefix = self.request_id_name + b": "
        said = {self.request_id_name, b"x-response-time"}
        self.answer_names = frozenset(said if self.response_time else {self.request_id_name})
        """What we say with every answer; of services that say it too it is left out."""
        self.heads: HeadCache[Prepared] = HeadCache()
        self.heads_trusted: HeadCache[Prepared] = HeadCache()
        self._match = plan.router.match
        self._listener_name = spec.label
        self._pages = error_pages
        self._has_cors = any(route.has_cors for route in routes)
        # What never travels on as it came: the gateway says these itself.
        own = OWN_NAMES | {self.request_id_name} | told_of(config)
        if tracing is not None:
            own |= tracing.names
        token = config.explain_token
        self._explain_token = token.encode() if token else None
        self._dropped = own | forwarded.FORWARDING_NAMES
        self._dropped_trusted = own | forwarded.REPLACED_NAMES
        self._host_blocks: dict[str, bytes] = {}
        self._refused: dict[Refusal, Prepared] = {}

    def is_trusted(self, ip: str) -> bool:
        return ip in self.trusted

    def forwarded_block(self, ip: str, *, is_tls: bool, protocol: bytes = b"1.1") -> bytes:
        scheme = "https" if is_tls else "http"
        return forwarded.connection_block(ip, scheme, self.options, protocol)

    def error_page(self, ex: Exchange, status: int, reason: str) -> tuple[bytes, bytes] | None:
        """Content type and body of the page configured for a status, or None."""
        page = self._pages.get(status) or self._pages.get(f"{status // 100}xx")
        if page is None:
            return None
        content_type, text = page
        text = (
            text.replace("{status}", str(status))
            .replace("{reason}", reason)
            .replace("{request_id}", ex.request_id.decode("latin-1"))
        )
        return content_type, text.encode()

    def prepare(self, head: RequestHead, client_ip: str, *, trusted: bool) -> Prepared:
        """Match and render a head. `client_ip` is the peer's; a trusted peer may name another."""
        prep = Prepared(self, head)
        if trusted:
            prep.trusted_forwarding = True
            received = find(head.headers, self.request_id_name)
            if received is not None and REQUEST_ID.fullmatch(received):
                prep.received_id = received
            known = forwarded.client(
                client_ip, head.scheme, head.headers, self.trusted, self.options
            )
            client_ip = known.ip
            prep.scheme = known.scheme
        else:
            prep.host_block = self._host_blocks.get(head.authority) or self._host_block(
                head.authority
            )
        is_challenge = self._challenge is not None and head.path.startswith(CHALLENGE_PREFIX)
        if is_challenge and self._challenge is not None and head.method in ("GET", "HEAD"):
            shown = self._challenge(head.path)
            if shown is not None:
                prep.is_cacheable = False
                self._read_trace(prep, head)
                prep.answer_with((_challenge_head(shown), shown))
                return prep
        found = self._found(head, client_ip, prep.scheme)
        prep.is_cacheable = not found.client_bound and not is_challenge
        asked = find(head.headers, EXPLAIN) if self._explain_token is not None else None
        if asked is not None and hmac.compare_digest(asked, self._explain_token or b""):
            prep.explanation = self._explain(found)
        self._read_trace(prep, head)
        if not isinstance(found, Matched):
            if head.path == "*":
                # RFC 9110 9.3.7: about the server as a whole; with no route for it, that is us.
                prep.answer_with(_OPTIONS_ALL)
            elif found.allow:
                allow = ", ".join(found.allow).encode("ascii")
                prep.refuse(405, "the path is known, the method is not", ((b"allow", allow),))
            else:
                prep.refuse(404, "no route matches")
            return prep
        route = self.routes[found.index]
        if head.method in COUNTED and route.service is not None and self._ends_here(prep, head):
            return prep
        if (
            head.method == "TRACE"
            and "TRACE" not in self.plan.config.routes[found.index].match.methods
        ):
            # A service that echoes would show the client what services alone are told. A route
            # that names the method has asked for it.
            prep.refuse(405, "TRACE is not answered here", _OPTIONS_ALL[0].headers)
            return prep
        prep.params = found.params
        prep.lead_to(route)
        return prep

    def _read_trace(self, prep: Prepared, head: RequestHead) -> None:
        if self.tracing is not None:
            prep.trace = self.tracing.of_head(head.headers, trusted=prep.trusted_forwarding)
            if prep.trace is None:
                prep.quick_floor = self.tracing.quick_floor
        else:
            prep.trace_id = _trace_id(head)
            prep.makes_trace = prep.trace_id is None

    def _ends_here(self, prep: Prepared, head: RequestHead) -> bool:
        """Whether a request that counts its hops may take no more: then we are who it is for."""
        left = hops_left(head.headers)
        if isinstance(left, Refusal):
            prep.refuse(left.status, left.reason)
        elif left != 0:
            return False
        elif head.method == "OPTIONS":
            prep.answer_with(_OPTIONS_ALL)
        else:
            # To send a request back would show what hops before us have put into it.
            prep.refuse(405, "TRACE is not answered here", _OPTIONS_ALL[0].headers)
        return True

    def _found(self, head: RequestHead, client_ip: str, scheme: str) -> Matched | Missed:
        """The router's answer. Paths that a method of authentication owns belong to a route that
        names it: to the one that would take them anyway, else to the first. A browser's preflight
        belongs to the request that it announces.
        """
        owners = self._owned.get(head.path)
        if owners is not None:
            found = self._match(self._asked(head, head.method, client_ip, scheme))
            if isinstance(found, Matched) and found.index in owners:
                return found
            return Matched(owners[0], {}, client_bound=found.client_bound)
        if head.method == "OPTIONS" and self._has_cors:
            asked = find(head.headers, b"access-control-request-method")
            if asked is not None and find(head.headers, b"origin") is not None:
                announced = asked.decode("latin-1")
                found = self._match(self._asked(head, announced, client_ip, scheme))
                if isinstance(found, Matched) and self.routes[found.index].has_cors:
                    return found
        return self._match(self._asked(head, head.method, client_ip, scheme))

    def _asked(self, head: RequestHead, method: str, client_ip: str, scheme: str) -> MatchInput:
        return MatchInput(
            method,
            head.host,
            head.path,
            head.query,
            head.headers,
            client_ip,
            scheme,
            self._listener_name,
        )

    def _explain(self, found: Matched | Missed) -> bytes:
        """The part of `x-headgate-explain` that is the same for every request with this head."""
        if not isinstance(found, Matched):
            return b"route=none"
        route = self.routes[found.index]
        policies = ",".join(f"{policy}:{origin}" for policy, _, origin in route.plan.policies)
        said = f'route="{_quotable(route.name)}"; target="{_quotable(route.plan.target)}"'
        return f'{said}; policies="{policies}"'.encode("ascii")

    def _host_block(self, authority: str) -> bytes:
        block = forwarded.host_block(authority, self.options)
        if len(self._host_blocks) >= _HOSTS_KEPT:
            self._host_blocks.clear()
        self._host_blocks[authority] = block
        return block

    def refused(self, refusal: Refusal) -> Prepared:
        """A stand-in for a request whose head could not be taken."""
        prep = self._refused.get(refusal)
        if prep is None:
            prep = Prepared(self, RequestHead("-", "", "", "", "", (), keep_alive=False))
            prep.refuse(refusal.status, refusal.reason)
            if len(self._refused) < 64:
                self._refused[refusal] = prep
        return prep

    def kept(self, fields: Sequence[Header], *, trusted: bool) -> list[Header]:
        """Without what the gateway says itself."""
        dropped = self._dropped_trusted if trusted else self._dropped
        # Servers with a CGI-like environment read `x_auth_subject` as `x-auth-subject`.
        return [
            field
            for field in fields
            if (name := field[0]) not in dropped
            and (b"_" not in name or name.replace(b"_", b"-") not in dropped)
        ]

    def forward(self, prep: Prepared, route: RouteRuntime, service: ServiceRuntime) -> Forward:
        """The request as it goes upstream."""
        head = prep.head
        plan = route.plan
        path = head.path
        if plan.change_path is not None and path != "*":
            path = plan.change_path(path, prep.params)
        kept = self.kept(head.headers, trusted=prep.trusted_forwarding)
        if self.tracing is not None:
            if head.get(BAGGAGE) is not None:
                kept = list(kept_baggage(kept))
        elif prep.makes_trace:
            kept = [field for field in kept if field[0] not in _TRACE_FIELDS]
        if head.method in COUNTED:
            kept = counted_down(kept)
        host = plan.host or service.host
        if host == "preserve":
            host = head.authority
        elif host == "instance":
            host = ""
        upgrade = head.upgrade if head.upgrade in plan.upgrades else None
        if upgrade == "websocket" and head.method != "GET":
            upgrade = None  # RFC 6455 4.1: an instance that agreed all the same would be wrong
        return Forward(
            head.method,
            f"{path}?{head.query}" if head.has_query else path,
            host,
            tuple(kept),
            length=head.length,
            scheme=head.scheme,
            expects_continue=head.expects_continue,
            upgrade=upgrade,
            te_trailers=head.te_trailers,
        )


def _quotable(text: str) -> str:
    """Text for a quoted string in a header: names are the operator's and may be anything."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)


def read_error_pages(
    specs: Mapping[int | str, ErrorPageSpec],
) -> dict[int | str, tuple[bytes, str]]:
    """Content type and text of each configured page; files are read here, once a plan."""
    pages: dict[int | str, tuple[bytes, str]] = {}
    for status, spec in specs.items():
        text = spec.body
        if text is None and spec.file is not None:
            with open(spec.file, encoding="utf-8") as file:  # noqa: PTH123 - FilePath is text
                text = file.read()
        pages[status] = (spec.type.encode("latin-1"), text or "")
    return pages


def _trace_id(head: RequestHead) -> bytes | None:
    """The trace id of a valid `traceparent`, else None: then the trace begins here.

    W3C Trace Context 3.2: several fields, version ff, all-zero ids or a version 00 with more
    behind it are invalid; a higher version may have more.
    """
    value = head.get(b"traceparent")
    if value is None:
        return None
    found = _TRACEPARENT.fullmatch(value)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[4]):
        return None
    if found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    return found[2]
