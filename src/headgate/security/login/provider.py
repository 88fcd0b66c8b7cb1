"""The identity provider over HTTP: discovery, keys, token and userinfo endpoint.

Theory of operation
-------------------
What the provider says of itself, and its keys, are fetched when they are first needed, kept for an
hour, and kept for as long as it takes while the provider is away. One request at a time fetches
each; after a failure the next COOLDOWN_S fail at once, so that a provider that is down is not
asked by every visitor, and none of them waits for a time-out in turn. A token signed with an
unknown key fetches the keys anew, at most once in KEY_COOLDOWN_S.

Every request has a deadline and a bound on its answer, follows no redirect and believes no
compression. An endpoint must be https unless the operator allows plain http.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from headgate.security.login.failed import LoginFailed
from headgate.security.login.mapping import json_object
from headgate.security.login.rules import Endpoints, LoginRules
from headgate.security.login.signed import KeyUnknown, verify_id_token, verify_logout_token
from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.keys import KeySet, KeysUnusable

if TYPE_CHECKING:
    import ssl

    import httpx

    from headgate.security.login.assertion import ClientKey

T = TypeVar("T")

MAX_ANSWER_BYTES: Final = 512 * 1024
KEEP_S: Final = 3600.0
COOLDOWN_S: Final = 5.0
KEY_COOLDOWN_S: Final = 30.0
MAX_CONNECTIONS: Final = 32
_LONGEST_TOKEN: Final = 32 * 1024
# What a token endpoint says of a grant that is worth nothing any more. `invalid_request` and the
# like are faults of the configuration, and no reason to end somebody's session.
_REFUSALS: Final = frozenset({"invalid_grant", "access_denied", "interaction_required"})


@dataclass(frozen=True, slots=True)
class Metadata:
    endpoints: Endpoints
    says_issuer: bool = False
    """RFC 9207: its answers name it."""
    client_auth: frozenset[str] = frozenset({"client_secret_basic"})


@dataclass(frozen=True, slots=True)
class Tokens:
    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    scope: str = ""
    expires_in: float = 0.0


class Provider:
    def __init__(
        self,
        rules: LoginRules,
        *,
        trust: ssl.SSLContext | None = None,
        client_key: ClientKey | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._trust = trust
        self._client_key = client_key
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._lock = asyncio.Lock()
        self._making = asyncio.Lock()
        self._is_closed = False
        self._metadata: Metadata | None = None
        self._metadata_at = 0.0
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._failed: dict[str, tuple[float, LoginFailed]] = {}
        """By what was fetched: when it failed last, and how."""
        self.fetches = 0

    # -- what it says of itself --------------------------------------------------------------

    async def metadata(self) -> Metadata:
        known = self._metadata
        if known is not None and self._clock() < self._metadata_at + KEEP_S:
            return known
        async with self._lock:
            known = self._metadata
            if known is not None and self._clock() < self._metadata_at + KEEP_S:
                return known
            try:
                self._metadata = await self._unless_failing("discovery", self._discover)
            except LoginFailed:
                if known is None:
                    raise
                return known
            self._metadata_at = self._clock()
            return self._metadata

    async def _discover(self) -> Metadata:
        rules = self._rules
        if rules.endpoints is not None:
            return Metadata(self._checked(rules.endpoints))
        address = f"{rules.issuer.rstrip('/')}/.well-known/openid-configuration"
        said = json_object(await self._ask("GET", address), f"the answer of {address}")
        if said.get("issuer") != rules.issuer:
            raise LoginFailed(
                "invalid",
                f"{address} is of another issuer; `issuer` must be spelled as the provider does",
            )
        texts = {
            name: value
            for name, value in said.items()
            if isinstance(value, str) and name.endswith(("_endpoint", "_uri"))
        }
        methods = said.get("code_challenge_methods_supported")
        if isinstance(methods, list) and "S256" not in methods:
            raise LoginFailed("invalid", "the identity provider does not support PKCE with S256")
        auth = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return Metadata(
            self._checked(
                Endpoints(
                    authorize=texts.get("authorization_endpoint", ""),
                    token=texts.get("token_endpoint", ""),
                    keys=texts.get("jwks_uri", ""),
                    userinfo=texts.get("userinfo_endpoint", ""),
                    end_session=texts.get("end_session_endpoint", ""),
                    revoke=texts.get("revocation_endpoint", ""),
                )
            ),
            says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
            client_auth=frozenset(str(each) for each in auth)
            if isinstance(auth, list)
            else frozenset(),
        )

    def _checked(self, found: Endpoints) -> Endpoints:
        needed = {"authorize": found.authorize, "token": found.token}
        if self._rules.openid:
            needed["keys"] = found.keys
        if self._rules.userinfo or not self._rules.openid:
            needed["userinfo"] = found.userinfo
        for name, address in needed.items():
            if not address:
                raise LoginFailed("invalid", f"the identity provider names no {name} endpoint")
        for address in (*needed.values(), found.end_session, found.revoke):
            if address:
                self._must_be_safe(address)
        return found

    def _must_be_safe(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            is_whole = bool(parts.hostname) and parts.username is None
            is_whole = is_whole and address.isascii() and address.isprintable()
            is_whole = is_whole and " " not in address
            scheme = parts.scheme
        except ValueError:
            is_whole, scheme = False, ""
        if is_whole and (scheme == "https" or (scheme == "http" and self._rules.insecure_http)):
            return
        raise LoginFailed("invalid", f"the endpoint {address[:200]!r} is no https address")

    async def _unless_failing(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        failed = self._failed.get(what)
        if failed is not None and self._clock() < failed[0] + COOLDOWN_S:
            raise LoginFailed(failed[1].kind, failed[1].detail)
        try:
            found = await work()
        except LoginFailed as error:
            self._failed[what] = (self._clock(), error)
            raise
        self._failed.pop(what, None)
        return found

    # -- its keys ----------------------------------------------------------------------------

    async def _signers(self, *, is_unknown: bool = False) -> KeySet:
        """Its keys; with `is_unknown`, new ones if the last are old enough to ask again."""
        metadata = await self.metadata()
        async with self._lock:
            known = self._keys
            keep_s = KEY_COOLDOWN_S if is_unknown else KEEP_S
            if known is not None and self._clock() < self._keys_at + keep_s:
                return known
            try:
                self._keys = await self._unless_failing(
                    "keys", lambda: self._fetch_keys(metadata.endpoints.keys)
                )
            except LoginFailed:
                if known is None:
                    raise
                return known
            self._keys_at = self._clock()
            return self._keys

    async def _fetch_keys(self, address: str) -> KeySet:
        try:
            return read_jwks(await self._ask("GET", address), is_public=True, is_strict=False)
        except KeysUnusable as error:
            raise LoginFailed("invalid", f"the keys at {address}: {error}") from None

    async def id_claims(self, tokens: Tokens, nonce: str | None, wall: float) -> dict[str, Any]:
        rules = self._rules

        def verified(keys: KeySet) -> dict[str, Any]:
            return verify_id_token(
                tokens.id_token,
                keys,
                issuer=rules.issuer,
                client_id=rules.client_id,
                nonce=nonce,
                access_token=tokens.access_token,
                wall=wall,
                leeway_s=rules.leeway_s,
            )

        return await self._with_keys(verified)

    async def ended_by(self, token: str, wall: float) -> tuple[Sequence[tuple[str, str]], float]:
        """What a logout token ends: see `signed.verify_logout_token`."""
        rules = self._rules

        def verified(keys: KeySet) -> tuple[Sequence[tuple[str, str]], float]:
            return verify_logout_token(
                token,
                keys,
                issuer=rules.issuer,
                client_id=rules.client_id,
                wall=wall,
                leeway_s=rules.leeway_s,
            )

        return await self._with_keys(verified)

    async def _with_keys(self, verify: Callable[[KeySet], T]) -> T:
        try:
            return verify(await self._signers())
        except KeyUnknown:
            return verify(await self._signers(is_unknown=True))

    # -- tokens ------------------------------------------------------------------------------

    async def exchange(self, code: str, verifier: str, redirect_uri: str, wall: float) -> Tokens:
        """RFC 6749 section 4.1.3, with the verifier of RFC 7636."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        tokens = await self._tokens(form, wall)
        if self._rules.openid and not tokens.id_token:
            raise LoginFailed(
                "invalid", "the token endpoint gave no ID token; is `openid` among the scopes?"
            )
        return tokens

    async def refresh(self, refresh_token: str, wall: float) -> Tokens:
        """RFC 6749 section 6."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self._tokens(form, wall)

    async def revoke(self, refresh_token: str, wall: float) -> None:
        """RFC 7009: a refresh token may outlive the provider's own session."""
        metadata = await self.metadata()
        if metadata.endpoints.revoke:
            form = {"token": refresh_token, "token_type_hint": "refresh_token"}
            headers = self._authenticate(form, metadata, wall)
            await self._ask("POST", metadata.endpoints.revoke, headers=headers, form=form)

    async def _tokens(self, form: dict[str, str], wall: float) -> Tokens:
        metadata = await self.metadata()
        address = metadata.endpoints.token
        headers = self._authenticate(form, metadata, wall)
        body = await self._ask("POST", address, headers=headers, form=form)
        said = json_object(body, "the answer of the token endpoint")
        if "error" in said:  # some say so with status 200
            raise _refusal(address, 400, body)
        access = said.get("access_token")
        if not isinstance(access, str) or not 0 < len(access) <= _LONGEST_TOKEN:
            raise LoginFailed("invalid", "the token endpoint gave no access token")
        if str(said.get("token_type", "")).lower() != "bearer":
            raise LoginFailed("invalid", "the token endpoint gave tokens that are no bearer tokens")
        lasts = said.get("expires_in", 0.0)
        if isinstance(lasts, str) and lasts.isdecimal() and len(lasts) < 12:
            lasts = int(lasts)  # some write it as text
        if type(lasts) not in {int, float} or not 0 <= lasts < 2.0**40:
            lasts = 0.0
        return Tokens(
            access,
            _short_text(said.get("refresh_token")),
            _short_text(said.get("id_token")),
            _short_text(said.get("scope")),
            float(lasts),
        )

    def _authenticate(
        self, form: dict[str, str], metadata: Metadata, wall: float
    ) -> dict[str, str]:
        """RFC 6749 section 2.3.1, RFC 7523 section 2.2."""
        rules = self._rules
        how = rules.client_auth
        if how == "auto":
            if self._client_key is not None:
                how = "private_key_jwt"
            elif not rules.client_secret:
                how = "none"
            else:
                is_post = metadata.client_auth == {"client_secret_post"} or (
                    "client_secret_post" in metadata.client_auth
                    and "client_secret_basic" not in metadata.client_auth
                )
                how = "post" if is_post else "basic"
        if how == "basic":
            pair = f"{quote(rules.client_id, safe='')}:{quote(rules.client_secret, safe='')}"
            return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        form["client_id"] = rules.client_id
        if how == "post":
            form["client_secret"] = rules.client_secret
        elif how == "private_key_jwt" and self._client_key is not None:
            form["client_assertion_type"] = _ASSERTION
            form["client_assertion"] = self._client_key.assertion(
                rules.client_id, metadata.endpoints.token, wall
            )
        return {}

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """OpenID Connect Core 1.0 section 5.3."""
        metadata = await self.metadata()
        headers = {"authorization": f"Bearer {access_token}"}
        body = await self._ask("GET", metadata.endpoints.userinfo, headers=headers)
        return json_object(body, "the answer of the userinfo endpoint")

    # -- the wire ----------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> bytes:
        import httpx

        self.fetches += 1
        sent = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                http = await self._client()
                async with http.stream(method, address, headers=sent, data=form) as answer:
                    if answer.headers.get("content-encoding", "identity") != "identity":
                        raise LoginFailed("invalid", f"{address} compresses without being asked to")
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > MAX_ANSWER_BYTES:
                            raise LoginFailed("invalid", f"the answer of {address} is too large")
                    status = answer.status_code
        except TimeoutError:
            raise LoginFailed(
                "away", f"{address} did not answer within {self._rules.timeout_s:g} s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise LoginFailed("away", f"{address} failed: {type(error).__name__}") from None
        except RuntimeError:  # the client was closed under a request that was still under way
            raise LoginFailed("away", f"{address} failed: the configuration has changed") from None
        if status == 200:
            return bytes(body)
        raise _refusal(address, status, bytes(body))

    async def _client(self) -> httpx.AsyncClient:
        async with self._making:
            if self._is_closed:
                raise LoginFailed("away", "the configuration has changed")
            if self._http is None:
                # Importing it and reading the authorities of the system takes a tenth of a second.
                self._http = await asyncio.to_thread(self._make_client)
            return self._http

    def _make_client(self) -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(
            verify=self._trust if self._trust is not None else True,
            timeout=self._rules.timeout_s,
            follow_redirects=False,
            trust_env=False,
            # None is kept: a code or refresh token that is sent into a connection that is just
            # being closed is lost, and log-ins are too rare for it to matter.
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
            headers={"user-agent": "headgate"},
        )

    async def close(self) -> None:
        async with self._making:
            self._is_closed = True
            http, self._http = self._http, None
        if http is not None:
            await http.aclose()


_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def _short_text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST_TOKEN else ""


def _refusal(address: str, status: int, body: bytes) -> LoginFailed:
    """RFC 6749 section 5.2, and what else may come."""
    if status >= 500 or status in {408, 429}:
        return LoginFailed("away", f"{address} answered {status}")
    try:
        error = json_object(body, "it").get("error", "")
    except LoginFailed:
        error = ""
    if not isinstance(error, str) or not 0 < len(error) <= 64 or not error.isprintable():
        return LoginFailed("invalid", f"{address} answered {status}")
    if error in _REFUSALS:
        return LoginFailed("refused", f"{address} answered {status}: {error}")
    if error in {"temporarily_unavailable", "slow_down", "server_error"}:
        return LoginFailed("away", f"{address} answered {status}: {error}")
    return LoginFailed("invalid", f"{address} answered {status}: {error}")
