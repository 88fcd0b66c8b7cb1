"""Sessions at work: opened and remembered, sealed anew, renewed, ended.

Theory of operation
-------------------
Opening a cookie costs a decryption, so what was opened is kept by the bytes of the cookie, with the
verdict ready. It serves until something needs doing (`Lifetimes.settled_until`) or the generation
moves; then `look` decides again, and `look` alone:

    over, ended, or renewed in vain      -> None: no session, log in
    renewed of late, by whoever          -> the new session, and its cookies
    due                                  -> a renewal, shared by all requests of the session
    about to look idle, or an old key    -> the same session, sealed anew
    else                                 -> the verdict again

While the provider is away a session is served until its access ends, then answered 503: it may
well go on afterwards, so it is not thrown away.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import weakref
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from headgate.security.login.ended import Ended
from headgate.security.login.failed import LoginFailed
from headgate.security.login.flow import b64url
from headgate.security.login.mapping import identity_of, kept, names_of, subject_of, tier_of
from headgate.security.login.renewing import Outcome, Renewals, Renewed, tag_of
from headgate.security.login.sessions import (
    CHUNK_BYTES,
    CLOCK_S,
    MAX_CHUNKS,
    CookieNames,
    Lifetimes,
    Session,
    clear_all,
    cut,
    joined,
)
from headgate.security.method import Finding, Refused, Verified
from headgate.security.tokens.revocations import TOPIC as REVOKED
from headgate.security.tokens.revocations import retain_key, revocation

if TYPE_CHECKING:
    from headgate.security.identity import Identity
    from headgate.security.login.provider import Provider, Tokens
    from headgate.security.login.rules import LoginRules
    from headgate.security.login.sealing import Sealer
    from headgate.security.method import Parts

NEWS: Final = "login"
"""The topic on which workers speak of sessions."""
MOST_OPENED: Final = 4096
MOST_OPENED_BYTES: Final = 8 * 1024 * 1024
TAIL_BYTES: Final = 32
"""The end of a sealed text, by which it is found: most of it is the seal, which no two share."""
NEWS_WAIT_S: Final = 1.0
_RETAINED: Final = 2048
"""How many logouts the board keeps for workers that start later."""
_AWAY: Final = Refused(
    "provider_away", "the identity provider cannot be reached; try again later", status=503
)


class _Opened:
    __slots__ = (
        "generation",
        "is_of_old_key",
        "sealed",
        "session",
        "since",
        "tag",
        "until",
        "verified",
    )

    def __init__(
        self, sealed: bytes, session: Session, verified: Verified, tag: str, is_of_old_key: bool
    ) -> None:
        self.sealed = sealed
        self.session = session
        self.verified = verified
        self.is_of_old_key = is_of_old_key
        self.tag = tag
        self.since = session.seen - CLOCK_S
        self.until = verified.until
        self.generation = -1
        """Up to which end it was looked at. What an old key sealed never is, but sealed anew."""


class Shared:
    """What outlives a reload: what ended and what was renewed, and who hears of both."""

    def __init__(self, max_age_s: float, clock: Callable[[], float]) -> None:
        self.ended = Ended(max_age_s)
        self.renewals = Renewals()
        self.own = secrets.token_hex(8)
        self.keeper: Keeper | None = None
        """The latest: it opens what other workers tell."""
        self._all: weakref.WeakSet[Keeper] = weakref.WeakSet()
        self._clock = clock

    def join(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._all.add(keeper)

    def moved(self) -> None:
        """Something ended: also for a plan that is going and still has connections."""
        for keeper in list(self._all):
            keeper.on_moved(self.ended.generation)

    def hear_revoked(self, message: Mapping[str, Any]) -> None:
        keeper = self.keeper
        if keeper is not None and self.ended.hear(message, keeper.rules.issuer, self._clock()):
            self.moved()

    def hear_news(self, message: Mapping[str, Any]) -> None:
        keeper = self.keeper
        if keeper is None or message.get("name") != keeper.rules.name:
            return
        if message.get("by") == self.own:
            return
        tag, wall = message.get("tag"), self._clock()
        match message.get("kind"):
            case "session":
                if self.ended.hear(message, keeper.rules.issuer, wall):
                    self.moved()
            case "renewing" if isinstance(tag, str) and len(tag) <= 64:
                self.renewals.claim(tag, wall)
            case "renewed" if isinstance(tag, str) and len(tag) <= 64:
                keeper.hear_renewed(tag, message.get("sealed"), wall)


class Keeper:
    def __init__(
        self,
        rules: LoginRules,
        provider: Provider,
        sealer: Callable[[], Sealer],
        clock: Callable[[], float] = time.time,  # noqa: TID251 - news come without a request
    ) -> None:
        self.rules = rules
        self.provider = provider
        self.plain = CookieNames(rules.cookie_name, is_secure=False)
        self.secure = CookieNames(rules.cookie_name, is_secure=True)
        self.lifetimes = Lifetimes(rules.idle_s, rules.max_age_s, rules.refresh_before_s)
        self.shared = Shared(rules.max_age_s, clock)
        self._ended = self.shared.ended
        self.on_moved: Callable[[int], None] = lambda _: None
        self.sealer = sealer
        self._parts: Parts | None = None
        self._opened: dict[bytes, _Opened] = {}
        self._opened_bytes = 0

    def start(self, parts: Parts) -> None:
        rules = self.rules
        key = ("login", rules.name, rules.issuer, rules.client_id)
        self._parts = parts
        self.shared = parts.keep(key, lambda: self.shared)
        self.shared.join(self)
        self._ended = self.shared.ended
        self.shared.ended.keep_s = max(self.shared.ended.keep_s, rules.max_age_s)
        self.on_moved(self._ended.generation)
        parts.subscribe(REVOKED, self.shared.hear_revoked)
        parts.subscribe(NEWS, self.shared.hear_news)

    # -- verdicts ----------------------------------------------------------------------------

    def verdict(self, text: bytes, names: CookieNames, wall: float) -> Finding | Awaitable[Finding]:
        """Who shows these cookies. Called for every request."""
        sealed = joined(text, names.session)
        if sealed is None:
            return None
        opened = self._opened.get(sealed[-TAIL_BYTES:])
        if opened is None or opened.sealed != sealed:
            opened = self._open(sealed)
            if opened is None:
                return None
        if opened.since <= wall < opened.until and opened.generation == self._ended.generation:
            return opened.verified
        return self._look(opened, text, names, wall)

    def session(self, text: bytes, names: CookieNames, wall: float) -> Session | None:
        """The session of these cookies if it is neither over nor ended, as it was renewed last."""
        sealed = joined(text, names.session)
        opened = None if sealed is None else self._open(sealed)
        if opened is None or self.lifetimes.is_over(opened.session, wall):
            return None
        session = opened.session
        renewed = self._known(opened, wall)
        if isinstance(renewed, Renewed):
            session = renewed.session
        return None if self._ended.is_ended(session) else session

    def _open(self, sealed: bytes) -> _Opened | None:
        if len(sealed) > CHUNK_BYTES * MAX_CHUNKS:
            return None
        sealer = self.sealer()
        text = sealer.open(sealed, b"session")
        session = None if text is None else Session.from_bytes(text)
        if session is None:
            return None
        return self._keep(sealed, session, is_of_old_key=not sealer.is_current(sealed))

    def _keep(self, sealed: bytes, session: Session, *, is_of_old_key: bool = False) -> _Opened:
        verified = Verified(self._identity(session), self.lifetimes.settled_until(session))
        tag = tag_of(session) if session.refresh_token else ""
        opened = _Opened(sealed, session, verified, tag, is_of_old_key)
        cache, tail = self._opened, sealed[-TAIL_BYTES:]
        before = cache.pop(tail, None)
        if before is not None:
            self._opened_bytes -= len(before.sealed)
        cache[tail] = opened
        self._opened_bytes += len(sealed)
        while len(cache) > MOST_OPENED or self._opened_bytes > MOST_OPENED_BYTES:
            self._opened_bytes -= len(cache.pop(next(iter(cache))).sealed)
        return opened

    def _look(
        self, opened: _Opened, text: bytes, names: CookieNames, wall: float
    ) -> Finding | Awaitable[Finding]:
        session, lifetimes = opened.session, self.lifetimes
        if lifetimes.is_over(session, wall) or self._ended.is_ended(session):
            return None
        if opened.tag:
            outcome = self._known(opened, wall)
            if isinstance(outcome, Renewed):
                return self._renewed(outcome, text, names, wall)
            if wall >= lifetimes.refresh_at(session):
                if outcome is not None:
                    return self._not_renewed(outcome, opened, wall)
                return self._renew(opened, text, names, wall)
        if opened.is_of_old_key or wall >= lifetimes.touch_at(session):
            return self._touched(session, text, names, wall)
        opened.generation = self._ended.generation
        return opened.verified

    def _known(self, opened: _Opened, wall: float) -> Outcome | None:
        if not opened.tag:
            return None
        outcome = self.shared.renewals.known(opened.tag, wall)
        if isinstance(outcome, Renewed) and outcome.session.id != opened.session.id:
            return None  # news over the board: whoever writes there must not swap people
        return outcome

    def _touched(self, session: Session, text: bytes, names: CookieNames, wall: float) -> Verified:
        try:
            session, sealed = self.seal(replace(session, seen=wall))
        except LoginFailed:  # a digit more in a time, and it does not fit; it was good until now
            return Verified(self._identity(session), 0.0)
        verified = self._keep(sealed, session).verified
        return Verified(verified.identity, 0.0, self.cookies(sealed, names, text))

    def _identity(self, session: Session) -> Identity:
        return identity_of(session, self.rules.name, self.lifetimes.end(session))

    # -- renewal -----------------------------------------------------------------------------

    def _renewed(
        self, renewed: Renewed, text: bytes, names: CookieNames, wall: float
    ) -> Verified | None:
        session = renewed.session
        if self.lifetimes.is_over(session, wall) or self._ended.is_ended(session):
            return None
        identity = self._identity(session)
        return Verified(identity, 0.0, self.cookies(renewed.sealed, names, text))

    def _not_renewed(self, failure: LoginFailed, opened: _Opened, wall: float) -> Finding:
        if wall < opened.session.access_until:
            # What is known of the user holds until then, whoever was refused what.
            return Verified(opened.verified.identity, 0.0)
        # Later may help with the one; with the other only a log-in does, or says what is wrong.
        return _AWAY if failure.kind in {"away", "busy"} else None

    async def _renew(
        self, opened: _Opened, text: bytes, names: CookieNames, wall: float
    ) -> Finding:
        tag, renewals = opened.tag, self.shared.renewals
        if renewals.is_claimed(tag, wall):
            if wall < opened.session.access_until:
                return Verified(opened.verified.identity, 0.0)
            news = await renewals.wait_news(tag, wall, NEWS_WAIT_S)
            if news is not None and news.session.id == opened.session.id:
                return self._renewed(news, text, names, wall)
        outcome: Outcome
        try:
            async with asyncio.timeout(4.0 * self.rules.timeout_s + 1.0):
                outcome = await renewals.once(
                    tag, lambda: self._spawn(self._ask(opened.session, tag, wall))
                )
        except TimeoutError:
            outcome = LoginFailed("away", "the renewal takes too long")
        is_lost = isinstance(outcome, LoginFailed) and outcome.kind == "refused"
        if is_lost and wall >= opened.session.access_until and self._parts is not None:
            # Another worker may have been first, and is about to say so.
            outcome = await renewals.wait_news(tag, wall, NEWS_WAIT_S) or outcome
        if isinstance(outcome, LoginFailed):
            return self._not_renewed(outcome, opened, wall)
        if outcome.session.id != opened.session.id:
            return None
        return self._renewed(outcome, text, names, wall)

    async def _ask(self, session: Session, tag: str, wall: float) -> None:
        """Renew it, and tell everybody what came of it, whatever that is."""
        renewals = self.shared.renewals
        outcome: Outcome = LoginFailed("away", "the renewal was broken off")
        try:
            self._tell({"kind": "renewing", "tag": tag})
            tokens = await self.provider.refresh(session.refresh_token, wall)
            session, sealed = self.seal(await self._from_refresh(session, tokens, wall))
            self._keep(sealed, session)
            outcome = Renewed(session, sealed, wall)
            renewals.renewed += 1
            self._tell({"kind": "renewed", "tag": tag, "sealed": sealed.decode("ascii")})
        except LoginFailed as failure:
            outcome = failure
            renewals.refused += 1
            self.note("login_renewal_failed", {"why": failure.kind, "detail": failure.detail})
        finally:
            renewals.settle(tag, outcome, wall)

    def hear_renewed(self, tag: str, sealed: object, wall: float) -> None:
        if not isinstance(sealed, str) or not sealed.isascii():
            return
        opened = self._open(sealed.encode())
        if opened is not None:
            renewed = Renewed(opened.session, sealed.encode(), wall)
            self.shared.renewals.settle(tag, renewed, wall)

    # -- sessions from tokens ----------------------------------------------------------------

    async def from_login(self, tokens: Tokens, nonce: str, wall: float) -> Session:
        rules = self.rules
        claims: dict[str, Any] = {}
        if rules.openid:
            claims = await self.provider.id_claims(tokens, nonce, wall)
        told = await self._userinfo(tokens, str(claims.get("sub", "")))
        issued = claims.get("iat", 0.0)
        sid = claims.get("sid")
        claims = {**told, **claims}
        names = rules.claim_names
        subject = subject_of(claims, names)
        sub = claims.get("sub")
        return Session(
            id=b64url(secrets.token_bytes(16)),
            subject=subject,
            started=wall,
            seen=wall,
            sub=sub if isinstance(sub, str) and sub != subject else "",
            issued=float(issued),
            sid=sid if isinstance(sid, str) and len(sid) <= 512 else "",
            roles=names_of(claims, names.roles),
            groups=names_of(claims, names.groups),
            scopes=names_of(claims, names.scopes) or _granted(tokens),
            tier=tier_of(claims, names),
            claims=kept(claims, rules.claims),
            access_until=self._access_until(tokens, claims, wall),
            access_from=wall,
            refresh_token=tokens.refresh_token if rules.refresh else "",
            id_token=tokens.id_token if rules.keep_id_token else "",
            nonce=nonce if rules.refresh and tokens.refresh_token else "",
            access_token=tokens.access_token if rules.pass_token else "",
        )

    async def _from_refresh(self, session: Session, tokens: Tokens, wall: float) -> Session:
        rules, names = self.rules, self.rules.claim_names
        sub = session.sub or session.subject
        claims: dict[str, Any] = {}
        if rules.openid and tokens.id_token:
            # OpenID Connect Core 1.0 section 12.2: the same user, and the same log-in.
            claims = await self.provider.id_claims(tokens, None, wall)
            if claims["sub"] != sub:
                raise LoginFailed("refused", "the renewed ID token is of another user")
            if claims.get("nonce", session.nonce) != session.nonce:
                raise LoginFailed("refused", "the renewed ID token belongs to another log-in")
        told = await self._userinfo(tokens, sub if rules.openid else "")
        is_all = bool(claims) or not rules.openid
        claims = {**told, **claims}
        if claims and is_all and subject_of(claims, names) != session.subject:
            raise LoginFailed("refused", "what was renewed is of another user")

        def still(name: str, before: tuple[str, ...]) -> tuple[str, ...]:
            # Without a new ID token, what it said before still stands.
            found = names_of(claims, name)
            return found if found or is_all else before

        return replace(
            session,
            seen=wall,
            roles=still(names.roles, session.roles),
            groups=still(names.groups, session.groups),
            scopes=still(names.scopes, ()) or _granted(tokens) or session.scopes,
            tier=tier_of(claims, names) or ("" if is_all else session.tier),
            claims=kept(claims, rules.claims)
            if is_all
            else {**session.claims, **kept(claims, rules.claims)},
            access_until=self._access_until(tokens, claims, wall),
            access_from=wall,
            refresh_token=tokens.refresh_token or session.refresh_token,
            id_token=(tokens.id_token or session.id_token) if rules.keep_id_token else "",
            access_token=tokens.access_token if rules.pass_token else "",
        )

    async def _userinfo(self, tokens: Tokens, sub: str) -> dict[str, Any]:
        if not self.rules.userinfo and self.rules.openid:
            return {}
        told = await self.provider.userinfo(tokens.access_token)
        if sub and told.get("sub") != sub:
            raise LoginFailed("invalid", "the userinfo endpoint speaks of another user")
        return told

    def _access_until(self, tokens: Tokens, claims: Mapping[str, Any], wall: float) -> float:
        if not self.rules.refresh:
            return 0.0
        if tokens.expires_in:
            return wall + tokens.expires_in
        return float(claims.get("exp", 0.0)) if tokens.id_token else 0.0

    # -- cookies -----------------------------------------------------------------------------

    def seal(self, session: Session) -> tuple[Session, bytes]:
        """The session as it fits: what is only of use at the log-out goes first."""
        sealed = self.sealer().seal(session.to_bytes(), b"session")
        if len(sealed) > CHUNK_BYTES * MAX_CHUNKS and session.id_token:
            session = replace(session, id_token="")
            sealed = self.sealer().seal(session.to_bytes(), b"session")
        if len(sealed) > CHUNK_BYTES * MAX_CHUNKS:
            raise LoginFailed(
                "too_large",
                f"the session needs {len(sealed)} bytes of cookies and may have "
                f"{CHUNK_BYTES * MAX_CHUNKS}; keep fewer `claims`, or ask for fewer `scopes`",
            )
        return session, sealed

    def cookies(self, sealed: bytes, names: CookieNames, shown: bytes) -> tuple[bytes, ...]:
        made = cut(sealed, names, shown)
        if made is None:
            raise LoginFailed("too_large", "the session does not fit into cookies")
        return made

    # -- ends --------------------------------------------------------------------------------

    def end(
        self, session: Session, text: bytes, names: CookieNames, wall: float
    ) -> tuple[bytes, ...]:
        """Log out: here, in every worker, and in copies of the cookie."""
        self._ended.end("session", session.id, wall, wall)
        self.shared.moved()
        message = {"kind": "session", "value": session.id, "before": wall}
        message["issuer"] = self.rules.issuer
        slot = zlib.crc32(session.id.encode()) % _RETAINED
        self._tell(message, retain=f"{self.rules.name}:ended:{slot}")
        if session.refresh_token and self._parts is not None:
            self._parts.spawn(self._revoke(session.refresh_token, wall))
        return clear_all(names, text)

    async def _revoke(self, refresh_token: str, wall: float) -> None:
        try:
            await self.provider.revoke(refresh_token, wall)
        except LoginFailed as failure:
            self.note("login_revocation_failed", {"detail": failure.detail})

    def end_of_provider(self, kind: str, value: str, at: float, wall: float) -> None:
        """The provider says that this session of its own, or this user, is logged out."""
        # Whole seconds on its side: what began in the very second is over too.
        before = at + 1.0
        self._ended.end(kind, value, before, wall)
        self.shared.moved()
        message = revocation(
            "sid" if kind == "sid" else "sub",
            value,
            wall=wall,
            last_s=self.rules.max_age_s,
            before=before,
            issuer=self.rules.issuer,
        )
        if self._parts is not None:
            self._parts.publish(REVOKED, message, retain=retain_key(message))

    # -- the process -------------------------------------------------------------------------

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """A line in the log of security events."""
        if self._parts is not None:
            self._parts.note(kind, {"method": self.rules.name, **fields})

    def _tell(self, message: Mapping[str, Any], retain: str | None = None) -> None:
        if self._parts is not None:
            told = {**message, "name": self.rules.name, "by": self.shared.own}
            self._parts.publish(NEWS, told, retain)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        if self._parts is None:
            work.close()
            raise LoginFailed("away", "the method has not been started")
        self._parts.spawn(work)

    def snapshot(self) -> dict[str, Any]:
        renewals = self.shared.renewals
        return {
            "opened": len(self._opened),
            "opened_bytes": self._opened_bytes,
            "ended": len(self.shared.ended),
            "renewed": renewals.renewed,
            "refused": renewals.refused,
        }


def _granted(tokens: Tokens) -> tuple[str, ...]:
    return names_of({"scope": tokens.scope}, "scope")
