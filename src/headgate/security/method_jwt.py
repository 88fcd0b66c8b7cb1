"""Authentication by JWT: finds the token, verifies it, remembers what it found.

Theory of operation. `verify` answers at once for every token whose key is known. A token that was
verified before costs one look into a dictionary; the entry is believed for `max_age_s`, never
beyond the token's `exp`, not after the keys have changed (then all entries go), and not after a
revocation (then each is asked about again when it is next shown). Two cases wait, within a bound:
no keys are known yet, and the token is of a key that a fetch may bring.

What is not a JWT, and what says that it is of another issuer, is left to the next method. All else
that does not hold is refused here, in the words of RFC 6750 section 3.

`generation` moves with keys and revocations, for whoever keeps verdicts outside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from headgate.security.method import Finding, Method, Parts, Refused, Shown, Verified
from headgate.security.tokens.cache import Entry, TokenCache
from headgate.security.tokens.fetch import trust
from headgate.security.tokens.identify import identity_of
from headgate.security.tokens.keys import KeySet, KeysUnusable, secret_keys
from headgate.security.tokens.remote import RemoteKeys
from headgate.security.tokens.revocations import TOPIC, Revocations
from headgate.security.tokens.rules import HMAC_ALGORITHMS, JwtRules
from headgate.security.tokens.shown import Places
from headgate.security.tokens.source import (
    Clock,
    FileKeys,
    FixedKeys,
    KeySource,
    log,
    wall_clock,
)
from headgate.security.tokens.verify import (
    BAD_SIGNATURE,
    UNKNOWN_KEY,
    Flaw,
    Token,
    judge,
    looks_like_token,
    read,
    seek_key,
    signature_flaw,
)

REFUSED_FOR_S: Final = 30.0
_MAX_REFUSED: Final = 1000
_MAX_REFUSED_BYTES: Final = 4 * 1024 * 1024
_REVOKED: Final = Flaw("revoked", "the token has been revoked")
_SEVERAL: Final = "several tokens are shown; send one, in one place"


class RevokedFeed:
    """The revocations that a process has heard of; one for all methods, over all reloads."""

    def __init__(self, clock: Clock = wall_clock) -> None:
        self.revocations = Revocations()
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []

    def hear(self, message: Mapping[str, Any]) -> None:
        lost = self.revocations.lost
        if self.revocations.take(message, self._clock()):
            for listener in tuple(self._listeners):
                listener()
        now_lost = self.revocations.lost
        if now_lost != lost and now_lost & (now_lost - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
            log.warning(
                "more than %d tokens are revoked at once; %d revocations were given up before "
                "their time: give tokens shorter lives",
                len(self.revocations),
                now_lost,
            )

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)


class JwtMethod(Method):
    """Raises ValueError where keys that are at hand (secrets, a file) must not be used."""

    def __init__(
        self, rules: JwtRules, *, clock: Clock = wall_clock, source: KeySource | None = None
    ) -> None:
        self.name = rules.name
        self.rules = rules
        self._clock = clock
        self._token_rules = rules.token
        self._source = source or _source(rules, clock)
        self._wait_s = rules.remote.wait_s if rules.remote is not None else 0.0
        self._places = Places(rules.header, rules.cookies, rules.query)
        self._header = self._places.header
        self._needs_scheme = self._places.needs_scheme
        self._is_header_only = self._places.is_header_only
        self.strips = self._places.strips
        self.challenge = f'Bearer realm="{_quoted(rules.realm)}"'
        self._verified: TokenCache[Verified] = TokenCache(rules.max_cached, rules.max_cached_bytes)
        self._refused: TokenCache[Refused] = TokenCache(_MAX_REFUSED, _MAX_REFUSED_BYTES)
        self._feed = RevokedFeed(clock)
        self._revocations = self._feed.revocations
        self._refusals: dict[Flaw, Refused] = {}
        self._unavailable = Refused(
            "keys_unknown", "keys of the issuer are not known yet", self.challenge, 503
        )
        self._several = Refused(
            "several_tokens",
            _SEVERAL,
            f'{self.challenge}, error="invalid_request", error_description="{_SEVERAL}"',
            400,
        )

    # -- the request path ----------------------------------------------------------------------

    def verify(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        if self._is_header_only:
            field: bytes | None = None
            name = self._header
            for key, value in shown.headers:
                if key == name:
                    if field is not None:
                        return self._find(shown, wall)
                    field = value
            if field is None:
                return None
            if field.startswith(b"Bearer "):  # almost all of them
                text = field[7:]
            else:
                return self._find(shown, wall)
        else:
            return self._find(shown, wall)
        entry = self._verified.get(text)
        if (
            entry is not None
            and entry.since <= wall < entry.until
            and entry.revision == self._revocations.revision
        ):
            return entry.value
        return self._look(text, wall)

    def _find(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        """Wherever it may stand, however it is written."""
        found = self._places.find(shown)
        if isinstance(found, bytes):
            return self._look(found, wall)
        return self._several if found else None

    def _look(self, text: bytes, wall: float) -> Finding | Awaitable[Finding]:
        text = text.strip(b" ")
        entry = self._verified.get(text)
        if entry is not None and entry.since <= wall < entry.until:
            return self._look_again(text, entry, wall)
        if not looks_like_token(text):
            return None
        refused = self._refused.get(text)
        if refused is not None and refused.since <= wall < refused.until:
            return refused.value
        token = read(text, self._token_rules)
        if token is None:
            return None
        if isinstance(token, Flaw):
            return self._refusal(token)
        flaw = judge(token, self._token_rules, wall)
        if flaw is not None:
            return self._refusal(flaw)
        keys = self._source.keys
        if keys is None:
            waiting = self._source.wait_first(self._wait_s)
            return self._unavailable if waiting is None else self._later(waiting, text, token)
        found = seek_key(token, keys)
        if found is UNKNOWN_KEY and token.kid is not None:
            waiting = self._source.wait_for(token.kid, wall, self._wait_s)
            if waiting is not None:
                return self._later(waiting, text, token)
        if isinstance(found, Flaw):
            return self._refusal(found)
        finding = self._settle(text, token, keys, wall)
        if finding is self._refusals.get(BAD_SIGNATURE) and not (token.kid and found[0].kid):
            # Where no name says which key is meant, a new one shows like this.
            waiting = self._source.wait_for("", wall, self._wait_s)
            if waiting is not None:
                return self._later(waiting, text, token)
        return finding

    def _look_again(self, text: bytes, entry: Entry[Verified], wall: float) -> Finding:
        """Somebody has been revoked since: this one?"""
        revision = self._revocations.revision
        if entry.revision != revision:
            identity = entry.value.identity
            if self._revocations.is_revoked(identity.claims, wall, identity.subject):
                self._verified.drop(text)
                return self._refusal(_REVOKED)
            entry.revision = revision
        return entry.value

    async def _later(self, waiting: Awaitable[None], text: bytes, token: Token) -> Finding:
        """Once more, after news of keys or without any."""
        await waiting
        wall = self._clock()  # time has passed
        keys = self._source.keys
        if keys is None:
            return self._unavailable
        flaw = judge(token, self._token_rules, wall)
        if flaw is not None:
            return self._refusal(flaw)
        return self._settle(text, token, keys, wall)

    def _settle(self, text: bytes, token: Token, keys: KeySet, wall: float) -> Finding:
        found = seek_key(token, keys)
        if isinstance(found, Flaw):
            return self._refusal(found)
        if signature_flaw(token, found) is not None:
            refused = self._refusal(BAD_SIGNATURE)
            until = wall + REFUSED_FOR_S
            self._refused.put(text, Entry(refused, wall, until, 0))
            return refused
        identity = identity_of(token.claims, self.rules.claims, self.name)
        if isinstance(identity, Flaw):
            return self._refusal(identity)
        if self._revocations.is_revoked(token.claims, wall, identity.subject):
            return self._refusal(_REVOKED)
        until = wall + self.rules.max_age_s
        if identity.expires is not None and identity.expires < until:
            until = identity.expires
        if until <= wall:  # it has expired and lives by the leeway: for this request only
            return Verified(identity, 0.0)
        verified = Verified(identity, until)
        self._verified.put(text, Entry(verified, wall, until, self._revocations.revision))
        return verified

    def _refusal(self, flaw: Flaw) -> Refused:
        known = self._refusals.get(flaw)
        if known is None:
            known = Refused(
                flaw.error,
                flaw.reason,
                f'{self.challenge}, error="invalid_token", '
                f'error_description="{_quoted(flaw.reason)}"',
            )
            if len(self._refusals) < 100:  # there are fewer: flaws hold nothing of a token
                self._refusals[flaw] = known
        return known

    # -- beside the requests -------------------------------------------------------------------

    def start(self, parts: Parts) -> None:
        made = self._source
        if made.key is not None:
            self._source = parts.keep(made.key, lambda: made)
        self._source.use(parts, self._keys_changed)
        clock = self._clock
        self._feed = parts.keep(("revoked tokens",), lambda: RevokedFeed(clock))
        self._revocations = self._feed.revocations
        self._feed.listen(self._revoked)
        parts.subscribe(TOPIC, self._feed.hear)

    def close(self) -> None:
        self._source.leave(self._keys_changed)
        self._feed.unlisten(self._revoked)
        self._verified.clear()
        self._refused.clear()

    def _keys_changed(self) -> None:
        self.generation += 1
        self._verified.clear()
        self._refused.clear()

    def _revoked(self) -> None:
        self.generation += 1

    def snapshot(self, wall: float) -> dict[str, Any]:
        return {
            "kind": "jwt",
            "issuers": sorted(self._token_rules.issuers),
            "algorithms": sorted(self._token_rules.algorithms),
            "keys": self._source.snapshot(wall),
            "verified": {"count": len(self._verified), "bytes": self._verified.bytes},
            "refused": {"count": len(self._refused), "bytes": self._refused.bytes},
            "revoked": self._revocations.snapshot(),
            "generation": self.generation,
        }


def _source(rules: JwtRules, clock: Clock) -> KeySource:
    allowed = rules.token.algorithms
    if rules.secrets:
        wanted = allowed & frozenset(HMAC_ALGORITHMS)
        # All three are what nobody has chosen: then the secret's length decides.
        named = wanted != frozenset(HMAC_ALGORITHMS)
        return FixedKeys(secret_keys(rules.secrets, rules.secret_encoding, allowed, named=named))
    if rules.keys_file is not None:
        try:
            source = FileKeys(rules.keys_file, rules.poll_s)
        except KeysUnusable as error:
            raise KeysUnusable(f"keys_file: {error}") from None
        keys = source.keys
        if keys is not None and not any(key.algorithms & allowed for key in keys.keys):
            offered = sorted({name for key in keys.keys for name in key.algorithms})
            raise KeysUnusable(
                "keys_file: none of its keys is for an allowed algorithm; "
                f"write algorithms: [{', '.join(offered)}]"
            )
        return source
    if rules.remote is not None:
        if rules.remote.ca_file is not None:
            trust(rules.remote.ca_file)
        return RemoteKeys(rules.remote, clock=clock)
    raise KeysUnusable("it has no keys: write keys, keys_file or secret")


def _quoted(text: str) -> str:
    """For a quoted string of a challenge: what cannot stand there is left out."""
    return "".join(each for each in text if " " <= each <= "~" and each not in '"\\')
