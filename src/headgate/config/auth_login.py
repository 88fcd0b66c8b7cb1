"""Browsers that log in with an identity provider."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field

from headgate.config.fields import Duration, FilePath, Flag, Spec, Text, Wait
from headgate.config.forms import OneOrMore
from headgate.security.login.flow import is_local
from headgate.security.login.rules import (
    RESERVED_PARAMETERS,
    SHORTEST_SECRET,
    ClaimNames,
    ClientAuth,
    Endpoints,
    LoginRules,
)

__all__ = ["LoginClaimsSpec", "LoginEndpointsSpec", "LoginSpec", "problems", "problems_between"]

_DEFAULT: Final = LoginRules(issuer="", client_id="")
_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Problem = tuple[tuple[str | int, ...], str, str, bool]


class LoginEndpointsSpec(Spec):
    """Where a provider without discovery is asked."""

    authorize: Text
    """Where browsers are sent to log in."""

    token: Text
    """Where codes are exchanged for tokens."""

    keys: Text = ""
    """Its key set (JWKS). Needed with `openid`."""

    userinfo: Text = ""
    """Who a token belongs to. Needed without `openid`."""

    end_session: Text = ""
    """Where browsers are sent to log out."""

    revoke: Text = ""
    """Where refresh tokens are given back when somebody logs out (RFC 7009)."""


class LoginClaimsSpec(Spec):
    """Which claims of the ID token, or of the userinfo endpoint, say what. A dot steps into an
    object: `realm_access.roles`. Each but `subject` may be a list, or text with spaces between.
    """

    subject: Text = _DEFAULT.claim_names.subject
    """Who it is. It must never be given to another user: `email` often can be."""

    roles: Text = _DEFAULT.claim_names.roles
    """The roles that `allow` asks for."""

    groups: Text = _DEFAULT.claim_names.groups
    """The groups that `allow` asks for."""

    scopes: Text = _DEFAULT.claim_names.scopes
    """The scopes. Without such a claim they are those that the token endpoint granted."""

    tier: Text = _DEFAULT.claim_names.tier
    """The tier, for limits that know several. By default there is none."""


class LoginSpec(Spec):
    """Log-in by OpenID Connect (authorization code with PKCE), with sessions in encrypted cookies.

    Browsers that go to a page without a session are sent to the provider and come back to the
    page; everything else without a session gets 401. The paths below must be reachable on each
    host that logs in; register the callback with the provider as
    `https://HOST/.headgate/login/callback`.
    """

    name: Text = "login"
    """What routes, logs and metrics call it. Needed when there are several."""

    issuer: Text
    """The provider, exactly as it names itself: `https://id.example/realms/shop`. What there is
    to know is found at `/.well-known/openid-configuration` below it."""

    client_id: Text
    """What the provider calls this gateway."""

    client_secret: Text | None = None
    """Proves that it is this gateway; as `${env:NAME}` or `${file:PATH}`. Without one, and without
    a key, it is a public client: PKCE alone protects the log-in."""

    client_key_file: FilePath | None = None
    """A private key (PEM; RSA, EC or Ed25519) that proves it instead of a secret."""

    client_key_id: Text = ""
    """The key's `kid`, where the provider asks for it."""

    client_auth: Literal["auto", "basic", "post", "private_key_jwt", "none"] = "auto"
    """How it is proved at the token endpoint. `auto` goes by what is set here and what the
    provider says it supports."""

    scopes: Annotated[tuple[Text, ...], OneOrMore, Field(min_length=1)] = _DEFAULT.scopes
    """What to ask for. Many providers give a refresh token only for `offline_access`."""

    parameters: dict[Text, Text] = {}
    """More parameters for the provider's log-in page, such as `prompt` or `audience`."""

    secret: Annotated[tuple[Text, ...], OneOrMore] = ()
    """What cookies are encrypted with: at least 32 random characters, `openssl rand -base64 32`.
    Of several the first encrypts and all decrypt, so put a new one first and remove the old one
    when `max_age` is over. Without one, a key is made and kept in the state directory; machines
    behind one name must share a secret."""

    openid: Flag = True
    """Take the user from an ID token. Without it (plain OAuth 2.0) the userinfo endpoint says who
    it is, and `claims_from.subject` must name a claim that it has."""

    endpoints: LoginEndpointsSpec | None = None
    """For providers without discovery."""

    userinfo: Flag = _DEFAULT.userinfo
    """Also ask the userinfo endpoint, for claims that the ID token does not have."""

    public_url: Text = _DEFAULT.public_url
    """How browsers reach this: `https://shop.example`. Needed where TLS ends before the gateway;
    by default it is the host that they ask for."""

    login_path: Text = _DEFAULT.login_path
    """Begins a log-in; `?to=/path` says where to go afterwards."""

    callback_path: Text = _DEFAULT.callback_path
    """Where the provider sends browsers back to."""

    logout_path: Text = _DEFAULT.logout_path
    """Ends the session; for a link or a form's POST on pages of the same host."""

    back_channel_path: Text = _DEFAULT.back_channel_path
    """Where the provider says that a user or session was logged out (Back-Channel Logout 1.0);
    `/.headgate/login/ended`, for instance. Off by default."""

    after_login: Text = _DEFAULT.after_login
    """Where to go when nothing else was asked for."""

    after_logout: Text = _DEFAULT.after_logout
    """Where to go after logging out: a path, or an address that is registered with the provider.
    By default a plain page says so."""

    end_provider_session: Flag = _DEFAULT.end_provider_session
    """Also log out at the provider, where it can. Otherwise the next log-in asks for nothing."""

    cookie: Text = _DEFAULT.cookie
    """What cookies are called; by default `hg_` and the name. On https `__Host-` goes before it."""

    idle: Wait = _DEFAULT.idle_s
    """A session ends when nothing was asked for that long."""

    max_age: Wait = _DEFAULT.max_age_s
    """A session ends that long after the log-in, whatever happens."""

    login_timeout: Wait = _DEFAULT.pending_s
    """How long a log-in may take."""

    refresh: Flag = _DEFAULT.refresh
    """Renew what is known of the user before the access token ends, where the provider gives a
    refresh token. A provider that refuses ends the session."""

    refresh_before: Wait = _DEFAULT.refresh_before_s
    """How long before. Tokens that live for less than twice of it are renewed at their half."""

    claims_from: LoginClaimsSpec = LoginClaimsSpec()
    """Which claims make the identity."""

    claims: Annotated[tuple[Text, ...], OneOrMore] = _DEFAULT.claims
    """Claims that the session keeps, for `allow`, headers and logs. All of it must fit into
    cookies, 15 KB in all."""

    keep_id_token: Flag = _DEFAULT.keep_id_token
    """Keep the ID token, which some providers want to see at the log-out."""

    pass_token: Flag = _DEFAULT.pass_token
    """Send the access token to services in `x-forwarded-access-token`, for those that call others
    in the user's name. It is kept in the session for that."""

    timeout: Wait = _DEFAULT.timeout_s
    """For each request to the provider."""

    leeway: Duration = _DEFAULT.leeway_s
    """How far the clocks may differ."""

    ca_file: FilePath | None = None
    """Authorities that the provider's certificate may be of, in place of the system's."""

    insecure_http: Flag = _DEFAULT.insecure_http
    """Allow a provider without https. Whoever is on the way can log in as anybody; only for trying
    things out. An issuer on this machine needs no such leave."""

    def rules(self) -> LoginRules:
        """What the gateway works with."""
        claims, endpoints = self.claims_from, self.endpoints
        how: ClientAuth = self.client_auth
        return LoginRules(
            issuer=self.issuer,
            client_id=self.client_id,
            name=self.name,
            client_secret=self.client_secret or "",
            client_auth=how,
            scopes=self.scopes,
            parameters=dict(self.parameters),
            secrets=self.secret,
            openid=self.openid,
            endpoints=None
            if endpoints is None
            else Endpoints(
                endpoints.authorize,
                endpoints.token,
                endpoints.keys,
                endpoints.userinfo,
                endpoints.end_session,
                endpoints.revoke,
            ),
            userinfo=self.userinfo,
            public_url=self.public_url.rstrip("/"),
            login_path=self.login_path,
            callback_path=self.callback_path,
            logout_path=self.logout_path,
            back_channel_path=self.back_channel_path,
            after_login=self.after_login,
            after_logout=self.after_logout,
            end_provider_session=self.end_provider_session,
            cookie=self.cookie,
            idle_s=self.idle,
            max_age_s=self.max_age,
            pending_s=self.login_timeout,
            refresh=self.refresh,
            refresh_before_s=self.refresh_before,
            claim_names=ClaimNames(
                claims.subject, claims.roles, claims.groups, claims.scopes, claims.tier
            ),
            claims=self.claims,
            keep_id_token=self.keep_id_token,
            pass_token=self.pass_token,
            timeout_s=self.timeout,
            leeway_s=self.leeway,
            insecure_http=self.insecure_http or _is_loopback(self.issuer),
        )


def _is_loopback(address: str) -> bool:
    try:
        return urlsplit(address).hostname in _LOOPBACK
    except ValueError:
        return False


def _address_fault(address: str, *, may_be_http: bool) -> tuple[str, str] | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return "is no address", "write https://id.example"
    if parts.scheme not in {"https", "http"} or not parts.hostname or not address.isprintable():
        return "is no http or https address", "write https://id.example"
    if parts.username is not None or parts.fragment:
        return "must have no user, password or fragment", ""
    if parts.scheme == "http" and not may_be_http and parts.hostname not in _LOOPBACK:
        return (
            "is not https: whoever is on the way can log in as anybody",
            "use https, or say `insecure_http: true` to try things out",
        )
    return None


def problems(spec: LoginSpec) -> Iterator[Problem]:
    """What is wrong beyond single fields: (place, message, hint, whether it is a warning)."""
    yield from _provider_problems(spec)
    yield from _client_problems(spec)
    yield from _path_problems(spec)
    yield from _session_problems(spec)


def _provider_problems(spec: LoginSpec) -> Iterator[Problem]:
    addresses: list[tuple[tuple[str | int, ...], str]] = [(("issuer",), spec.issuer)]
    if spec.endpoints is not None:
        for name in ("authorize", "token", "keys", "userinfo", "end_session", "revoke"):
            value = getattr(spec.endpoints, name)
            if value:
                addresses.append((("endpoints", name), value))
        if spec.openid and not spec.endpoints.keys:
            yield ("endpoints",), "ID tokens need `keys` to be verified with", "", False
        if (spec.userinfo or not spec.openid) and not spec.endpoints.userinfo:
            yield ("endpoints",), "`userinfo` is missing", "it says who has logged in", False
    for loc, address in addresses:
        fault = _address_fault(address, may_be_http=spec.insecure_http)
        if fault is not None:
            yield loc, f"the address {fault[0]}", fault[1], False
    if "?" in spec.issuer:
        yield ("issuer",), "an issuer has no query", "", False
    if spec.openid and "openid" not in spec.scopes:
        yield (
            ("scopes",),
            "without the scope `openid` there is no ID token",
            "add it, or say `openid: false`",
            False,
        )
    if not spec.openid and spec.back_channel_path:
        yield ("back_channel_path",), "needs `openid`", "", False
    for name in spec.parameters:
        if name in RESERVED_PARAMETERS:
            yield ("parameters", name), f"`{name}` is set by the log-in itself", "", False


def _client_problems(spec: LoginSpec) -> Iterator[Problem]:
    if not spec.client_id:
        yield ("client_id",), "the client id is empty", "", False
    how = spec.client_auth
    if how in {"basic", "post"} and not spec.client_secret:
        yield ("client_auth",), f"`{how}` needs a `client_secret`", "", False
    if how == "private_key_jwt" and spec.client_key_file is None:
        yield ("client_auth",), "`private_key_jwt` needs a `client_key_file`", "", False
    if spec.client_secret is not None and not spec.client_secret.strip():
        yield ("client_secret",), "the secret is empty", "", False
    if spec.client_secret and spec.client_key_file is not None:
        yield ("client_key_file",), "there is a `client_secret` too", "keep one of them", False
    if how == "none" and (spec.client_secret or spec.client_key_file is not None):
        yield ("client_auth",), "`none` uses neither secret nor key", "remove them", False


def _path_problems(spec: LoginSpec) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in ("login_path", "callback_path", "logout_path", "back_channel_path"):
        path = getattr(spec, name)
        if not path and name == "back_channel_path":
            continue
        if not is_local(path) or "?" in path or "%" in path or path.endswith("/"):
            yield (name,), "is no path such as /.headgate/login", "", False
        elif path in seen:
            yield (name,), f"is the same as `{seen[path]}`", "each needs its own", False
        seen.setdefault(path, name)
    if not is_local(spec.after_login):
        yield ("after_login",), "is no local path such as /", "", False
    if spec.after_logout and not is_local(spec.after_logout):
        fault = _address_fault(spec.after_logout, may_be_http=True)
        if fault is not None:
            yield ("after_logout",), "is neither a local path nor an http(s) address", "", False
    if spec.public_url:
        fault = _address_fault(spec.public_url, may_be_http=True)
        if fault is None and (
            urlsplit(spec.public_url).path.strip("/") or urlsplit(spec.public_url).query
        ):
            fault = ("has more than scheme and host", "write https://shop.example")
        if fault is not None:
            yield ("public_url",), f"the address {fault[0]}", fault[1], False
    if spec.cookie and not _COOKIE.fullmatch(spec.cookie):
        yield ("cookie",), "may have letters, digits, - and _ only, 64 at most", "", False


def _session_problems(spec: LoginSpec) -> Iterator[Problem]:
    for index, secret in enumerate(spec.secret):
        if len(secret) < SHORTEST_SECRET:
            yield (
                ("secret", index),
                f"a secret needs at least {SHORTEST_SECRET} characters",
                "make one with `openssl rand -base64 32`",
                False,
            )
    if len(set(spec.secret)) != len(spec.secret):
        yield ("secret",), "a secret stands twice", "", False
    if spec.idle > spec.max_age:
        yield ("idle",), "is longer than `max_age`, so it never matters", "", True
    if spec.leeway > 300.0:
        yield ("leeway",), "is over five minutes", "set the clocks right (NTP) instead", True


def problems_between(specs: Sequence[LoginSpec]) -> Iterator[Problem]:
    """What is wrong between several: the place begins with the index among them."""
    paths: dict[str, str] = {}
    cookies: dict[str, str] = {}
    for index, spec in enumerate(specs):
        rules = spec.rules()
        for name in ("login_path", "callback_path", "logout_path", "back_channel_path"):
            path = getattr(spec, name)
            if path and paths.setdefault(path, spec.name) != spec.name:
                yield (
                    (index, name),
                    f"`{paths[path]}` has the same path",
                    f"give each its own, such as /.headgate/{spec.name}/...",
                    False,
                )
        if cookies.setdefault(rules.cookie_name, spec.name) != spec.name:
            yield (
                (index, "cookie"),
                f"`{cookies[rules.cookie_name]}` has cookies of the same name",
                "give each its own `cookie`",
                False,
            )
