"""Who is let in: the steps that ask before everything else does.

Theory of operation
-------------------
    shed -> bans -> addresses -> bots -> early hooks -> authentication -> access -> filters

A verdict on who asks depends on the request's head and on time alone for most methods, so it is
kept with the head as a `Passport`: the identity, until when it may be believed, and the request as
it goes to each service, without credentials and with what the service is told. For a head seen
before, authentication is one comparison of times and one of generations.

What must hold: nothing is kept beyond the token's own end, a change of keys or a revocation (the
method's generation says so), nor where a method looked at more than the head.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

from headgate.gateway import problem
from headgate.gateway.credentials import (
    is_shown,
    kept_query,
    may_hold,
    stripped,
    strips_of,
    without_query,
)
from headgate.gateway.steps import STOP, Flow
from headgate.security.access import Asked
from headgate.security.method import TOLD, Instead, Refused, Strips, Verified
from headgate.wire.message import Forward

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from headgate.gateway.filtered import FilteredExchange
    from headgate.gateway.filters.base import Filter
    from headgate.gateway.filters.chain import RequestHook
    from headgate.gateway.identity_headers import Telling
    from headgate.gateway.parts import WorkerParts
    from headgate.gateway.policed import PolicedExchange
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.route import RouteRuntime
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.steps import Answer, Step
    from headgate.plan.guards import AuthPlan
    from headgate.security.access import Access
    from headgate.security.addresses import Addresses
    from headgate.security.bans import Bans
    from headgate.security.bots import Bots
    from headgate.security.denied import Denied
    from headgate.security.identity import Identity
    from headgate.security.method import Finding, Header, Method

_wall: Final = time.time  # noqa: TID251 - tokens live in wall time
_FINDINGS: Final = (Verified, Refused, Instead)


class Passport:
    """What a request head was found to be worth.

    It stands in the head's `Prepared`, and therefore does not hold that: what points at each other
    is freed by the collector alone, and most heads come once.
    """

    __slots__ = (
        "_copies",
        "_more",
        "_places",
        "_strips",
        "_telling",
        "denied",
        "forwards",
        "generation",
        "identity",
        "memo",
        "query",
        "since",
        "until",
    )

    def __init__(
        self,
        prep: Prepared,
        identity: Identity | None,
        until: float,
        generation: int,
        strips: Strips | None,
        places: Strips,
        telling: Telling,
        more: tuple[Header, ...] = (),
    ) -> None:
        """`places` is where credentials may stand, `strips` what of it no service gets."""
        self._more = more
        self.identity = identity
        self.since = _wall()
        """A clock that is set back extends nothing."""
        self.until = until
        self.generation = generation
        self.denied: Denied | bool | None = False
        """What access rules said, where that follows from head and identity; False: not asked."""
        query = prep.head.query
        self.query = kept_query(query, strips.query) if strips is not None else query
        """What is left of the query without credentials."""
        self._strips = strips
        self._telling = telling
        self._places = places
        self.forwards: dict[str, Forward] = {}
        """The request as services get it, by their names, once `forward_to` has made it."""
        self.memo: dict[object, str] = {}
        """What policies make of the identity, under keys of their own."""
        self._copies: dict[str, Forward] = {}

    def forward_to(self, service: ServiceRuntime, prep: Prepared) -> Forward | None:
        """The request as this service gets it: without credentials, with who asks."""
        known = self.forwards.get(service.name)
        if known is None:
            plain = prep.plain_to(service)
            if plain is None or prep.route is None:
                return None
            known = self._stamped(plain, prep.route, service.name, self._strips, self._more)
            self.forwards[service.name] = known
        return known

    def copy_to(self, service: ServiceRuntime, prep: Prepared) -> Forward | None:
        """The request as a mirror gets it: without credentials also where services get them."""
        if self._strips is not None and not self._more:
            return self.forward_to(service, prep)
        known = self._copies.get(service.name)
        if known is None:
            plain = prep.plain_to(service)
            if plain is None or prep.route is None:
                return None
            known = self._stamped(plain, prep.route, service.name, self._places, ())
            self._copies[service.name] = known
        return known

    def copied(self, fields: tuple[Header, ...], told: Sequence[Header]) -> tuple[Header, ...]:
        """What filters have made of a service's fields, as a mirror's."""
        if self._strips is None or self._more:
            fields = tuple(
                field for field in stripped(fields, self._places) if field[0] not in TOLD
            )
        return self.retold(fields, told)

    def retold(self, fields: tuple[Header, ...], told: Sequence[Header]) -> tuple[Header, ...]:
        """What filters have made of one service's fields, as another's: `told` are its own."""
        return self._telling.retold(fields, told) if self.identity is not None else fields

    def _stamped(
        self,
        plain: Forward,
        route: RouteRuntime,
        service: str,
        strips: Strips | None,
        more: Sequence[Header],
    ) -> Forward:
        """Without credentials, with who asks and with the route's own edits."""
        fields: Sequence[Header] = plain.headers
        target = plain.target
        if strips is not None:
            fields = stripped(fields, strips)
            if strips.query:
                target = without_query(target, strips.query)
        identity = self.identity
        told = self._telling.fields(identity, service, _wall()) if identity is not None else ()
        fields = (*fields, *told, *more)
        if route.edits is not None:
            fields = tuple(route.edits.apply_constant(fields))
        return Forward(
            plain.method,
            target,
            plain.authority,
            fields,
            length=plain.length,
            scheme=plain.scheme,
            expects_continue=plain.expects_continue,
            upgrade=plain.upgrade,
            te_trailers=plain.te_trailers,
        )


class Look:
    """What a request shows, for methods and guards."""

    __slots__ = ("_ex", "_head")

    def __init__(self, ex: PolicedExchange) -> None:
        self._ex = ex
        self._head = ex.prep.head

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def target(self) -> str:
        return self._head.target

    @property
    def path(self) -> str:
        return self._head.path

    @property
    def query(self) -> str:
        return self._head.query

    @property
    def host(self) -> str:
        return self._head.host

    @property
    def authority(self) -> str:
        return self._head.authority

    @property
    def headers(self) -> Sequence[Header]:
        return self._head.headers

    @property
    def client_ip(self) -> str:
        return self._ex.client_ip

    @property
    def is_tls(self) -> bool:
        return self._ex.is_secure

    @property
    def certificate(self) -> bytes | None:
        return self._ex.down.certificate


# -- the steps -------------------------------------------------------------------------------------


def denied(ex: PolicedExchange, found: Denied) -> Flow:
    """Answer, or cut off, who may not."""
    ex.error = found.policy if not found.detail else f"{found.policy}: {found.detail}"
    if found.is_cut:
        ex.cut(found.policy, ex.error)
    else:
        ex.refuse(found.status, found.reason, retry_after_s=found.retry_after_s)
    return STOP


def barring(bans: Bans, parts: WorkerParts) -> Step:
    def bar(ex: PolicedExchange) -> Answer:
        found = bans.check(ex.client_ip, ex.started)
        if found is None:
            return None
        parts.count("bans", "denied")
        return denied(ex, found)

    return bar


def by_address(addresses: Addresses, parts: WorkerParts) -> Step:
    def look_at_address(ex: PolicedExchange) -> Answer:
        found = addresses.check(ex.client_ip)
        if found is None:
            return None
        parts.count("addresses", "denied")
        return denied(ex, found)

    return look_at_address


def by_kind(bots: Bots, parts: WorkerParts) -> Step:
    tag = bots.tag_header

    def look_at_kind(ex: PolicedExchange) -> Answer:
        found, standing = bots.examine(Look(ex), ex.started)
        if found is None:
            if tag is not None:
                ex.stamp(tag, standing.cls.encode("ascii"))
            return None
        parts.count("bots", "denied")
        parts.suspect(ex.client_ip, "bot")
        return denied(ex, found)

    return look_at_kind


def refuse_unsaid(ex: PolicedExchange) -> Answer:
    """`auth.deny_by_default`: the route does not say whom it lets in."""
    ex.error = "auth: the route says nothing and auth.deny_by_default is on"
    ex.refuse(403, "not allowed")
    return STOP


class Authentication:
    """One route's way of finding out who asks."""

    def __init__(
        self, methods: Sequence[Method], plan: AuthPlan, telling: Telling, parts: WorkerParts
    ) -> None:
        self._methods = tuple(methods)
        self._first = methods[0]
        self._is_one = len(methods) == 1
        self._anonymous = plan.anonymous
        self._always = plan.always
        # One that looked at more than the head might have said another thing of the next request.
        self._is_kept = [
            all(method.is_of_head for method in methods[:count])
            for count in range(1, len(methods) + 1)
        ]
        self._telling = telling
        self._parts = parts
        self._shown = strips_of(methods)
        """Where credentials may stand."""
        self._strips = None if plan.pass_credentials else self._shown
        self._owned = frozenset(path for method in methods for path in method.own_paths)
        self._challenges = tuple(
            (b"www-authenticate", method.challenge.encode("latin-1"))
            for method in methods
            if method.challenge
        )

    def step(self, ex: PolicedExchange) -> Answer:
        passport = ex.prep.passport
        if passport is not None:
            generation = self._first.generation if self._is_one else self._generation()
            if passport.generation == generation and passport.since <= _wall() < passport.until:
                ex.admit(passport)
                return None
        return self._look(ex, 0, None)

    def _look(self, ex: PolicedExchange, at: int, refused: Refused | None) -> Answer:
        """Ask the methods from `at` on. Several may stand: the first that accepts decides."""
        look = Look(ex)
        wall = _wall()
        is_owned = look.path in self._owned
        for index in range(at, len(self._methods)):
            method = self._methods[index]
            if is_owned and look.path not in method.own_paths:
                continue  # whoever it is, only the owner answers here
            # Before the look, so that a change while it waits for an answer is not missed.
            generation = method.generation if self._is_one else self._generation()
            if look.method == "POST" and look.path in method.bodies:
                return self._with_body(ex, method, look)
            got = method.verify(look, wall)
            if got is None:
                continue
            if got.__class__ is Verified:
                self._admit(ex, look, index, got, generation, wall)
                return None
            if isinstance(got, _FINDINGS):
                taken = self._take(ex, index, got, generation)
                if not isinstance(taken, Refused):
                    return taken
                refused = refused or taken
                continue
            return self._later(ex, index, got, generation, refused)
        return self._nobody(ex, look, refused)

    async def _with_body(self, ex: PolicedExchange, method: Method, look: Look) -> Flow:
        """The method answers once it has read what was sent."""
        body = await ex.whole_body(method.bodies[look.path])
        if ex.finished:
            return STOP
        if body is None:
            ex.refuse(413, "the body is too large for what is asked here")
            return STOP
        got = await method.answer(look, body, _wall())
        if not ex.finished:
            self._parts.count(method.name, "answered")
            ex.answer_instead(got.status, got.headers, got.body)
        return STOP

    def _generation(self) -> int:
        return sum([method.generation for method in self._methods])

    async def _later(
        self,
        ex: PolicedExchange,
        index: int,
        awaitable: Awaitable[Finding],
        generation: int,
        refused: Refused | None,
    ) -> Flow | None:
        got = await awaitable
        if ex.finished:
            return STOP
        if got is not None:
            taken = self._take(ex, index, got, generation)
            if not isinstance(taken, Refused):
                return taken
            refused = refused or taken
        rest = self._look(ex, index + 1, refused)
        if rest is None or isinstance(rest, Flow):
            return rest
        return await rest

    def _take(
        self,
        ex: PolicedExchange,
        index: int,
        got: Verified | Refused | Instead,
        generation: int,
    ) -> Refused | Flow | None:
        """Let it in, or answer, or hand the refusal back: the next method may accept."""
        method = self._methods[index]
        if isinstance(got, Verified):
            self._admit(ex, Look(ex), index, got, generation, _wall())
            return None
        if isinstance(got, Instead):
            self._parts.count(method.name, "answered")
            ex.answer_instead(got.status, got.headers, got.body)
            return STOP
        self._parts.count(method.name, got.error)
        return got

    def _admit(
        self,
        ex: PolicedExchange,
        look: Look,
        index: int,
        got: Verified,
        generation: int,
        wall: float,
    ) -> None:
        identity = got.identity
        method = self._methods[index]
        self._parts.count(method.name, "verified")
        prep = ex.prep
        until = min(got.until, wall + self._telling.holds_for_s())
        more = method.told(look, wall)
        passport = Passport(
            prep, identity, until, generation, self._strips, self._shown, self._telling, more
        )
        if got.until and self._is_kept[index]:
            prep.passport = passport
        for value in got.set_cookies:
            ex.add_line(b"set-cookie: %b\r\n" % value)
        ex.admit(passport)

    def _nobody(self, ex: PolicedExchange, look: Look, refused: Refused | None) -> Answer:
        """No method accepts what was shown."""
        if look.path in self._owned:
            ex.refuse(404, "nothing is here")
            return STOP
        if refused is None and is_shown(look, self._shown):
            # Nobody takes it for theirs: of another issuer, or no token at all.
            refused = Refused("not_ours", "the credentials are not known here")
        if refused is None:
            for method in self._methods:
                instead = method.ask(look)
                if instead is not None and not self._anonymous:
                    ex.answer_instead(instead.status, instead.headers, instead.body)
                    return STOP
            if self._anonymous:
                self._let_in(ex, look, has_shown=False)
                return None
            self._parts.count(self._first.name, "missing")
            ex.error = "auth: nothing shown"
            ex.answer(problem.render(ex, 401, "authentication is needed", headers=self._challenges))
            return STOP
        if self._always:
            self._let_in(ex, look, has_shown=True)
            return None
        ex.error = f"auth: {refused.error}"
        if refused.status < 500 and refused.error not in _HONEST:
            self._parts.suspect(ex.client_ip, "bad_credentials")
        challenges = self._challenges
        if refused.challenge:
            challenges = ((b"www-authenticate", refused.challenge.encode("latin-1", "replace")),)
        ex.answer(
            problem.render(
                ex,
                refused.status,
                refused.reason,
                headers=challenges if refused.status == 401 else (),
            )
        )
        return STOP

    def _let_in(self, ex: PolicedExchange, look: Look, *, has_shown: bool) -> None:
        """Nobody we know may come in too."""
        self._parts.count("anonymous", "verified")
        if self._strips is not None and (has_shown or may_hold(look, self._strips)):
            # What means nothing here, as the cookie of a session that is over, may still mean
            # something to who reads a service's log.
            strips, places = self._strips, self._shown
            ex.admit(Passport(ex.prep, None, 0.0, 0, strips, places, self._telling))


_HONEST: Final = frozenset({"expired", "early", "not_covered", "no_nonce", "missing"})
"""Mistakes that honest clients make, which count against nobody."""


def allowing(access: Access, parts: WorkerParts) -> Step:
    def allow(ex: PolicedExchange) -> Answer:
        passport = ex.passport
        if passport is not None and access.is_of_head:
            found = passport.denied
            if found is False:
                found = passport.denied = access.check(passport.identity, _asked(ex))
        else:
            found = access.check(ex.identity, _asked(ex))
        if found is None or isinstance(found, bool):
            return None
        parts.count("allow", "denied")
        return denied(ex, found)

    return allow


def _asked(ex: PolicedExchange) -> Asked:
    head = ex.prep.head
    return Asked(
        head.method,
        head.path,
        ex.prep.params,
        ex.client_ip,
        _wall(),
        host=head.host,
        is_tls=ex.is_secure,
        headers=head.headers,
    )


def hooked(filters: Sequence[Filter]) -> list[Step]:
    """Early hooks of filters as steps."""
    return [_early(each.on_request) for each in filters]


def _early(hook: RequestHook) -> Step:
    def call(ex: PolicedExchange) -> Answer:
        # A route whose filters have hooks makes no other exchanges: see `Prepared.lead_to`.
        return cast("FilteredExchange", ex).hook_early(hook)

    return call
