"""A small OpenID provider over real HTTP, and what else a test of log-ins needs.

`Provider` does what the standards say, and what a test makes it do wrong: `twist` changes the
claims of ID tokens, `answers` replaces the answer of an endpoint, `gate` holds the token endpoint.
`Site` serves a `LoginMethod` the way a gateway does, so that a real client with a real cookie jar
can log in. `Visitor` is that client.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import httpx
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from headgate.security.login.method import LoginMethod
from headgate.security.login.rules import LoginRules
from headgate.security.method import Instead, Refused, Verified

EVENT = "http://schemas.openid.net/event/backchannel-logout"
SECRET = "a secret of cookies that is long enough for anybody"


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


_KEYS: list[rsa.RSAPrivateKey] = []


def key_number(number: int) -> rsa.RSAPrivateKey:
    """Keys are dear; every test shares them."""
    while len(_KEYS) <= number:
        _KEYS.append(_make_key())
    return _KEYS[number]


@dataclass
class Grant:
    user: str
    nonce: str | None
    challenge: str
    redirect_uri: str
    scope: str
    sid: str
    is_used: bool = False


@dataclass
class Provider:
    client_id: str = "shop"
    client_secret: str = "s:cr%t/+ä"
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    user: str = "ada"
    """Who is logged in at the provider; empty asks for consent and is refused."""
    expires_in: int = 300
    clock: Callable[[], float] = time.time
    twist: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    answers: dict[str, Callable[[web.Request], Any]] = field(default_factory=dict)
    metadata_more: dict[str, Any] = field(default_factory=dict)
    says_issuer: bool = True
    rotates: bool = True
    gate: asyncio.Event | None = None
    key: int = 0
    listed: tuple[int, ...] = (0,)
    issuer: str = ""
    calls: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    refresh_tokens: dict[str, Grant] = field(default_factory=dict)
    access_tokens: dict[str, Grant] = field(default_factory=dict)

    def sign(self, claims: Mapping[str, Any], *, key: int | None = None, **head: Any) -> str:
        number = self.key if key is None else key
        header = {"alg": "RS256", "typ": "JWT", "kid": f"k{number}", **head}
        signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        private = key_number(number)
        return f"{signed}.{b64(private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def logout_token(self, **claims: Any) -> str:
        now = int(self.clock())
        body = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": {EVENT: {}},
            **claims,
        }
        return self.sign({k: v for k, v in body.items() if v is not None}, typ="logout+jwt")

    # -- endpoints ---------------------------------------------------------------------------

    async def _discovery(self, _: web.Request) -> web.Response:
        at = self.issuer
        return web.json_response(
            {
                "issuer": at,
                "authorization_endpoint": f"{at}/authorize?tenant=1",
                "token_endpoint": f"{at}/token",
                "jwks_uri": f"{at}/keys",
                "userinfo_endpoint": f"{at}/userinfo",
                "end_session_endpoint": f"{at}/end",
                "revocation_endpoint": f"{at}/revoke",
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": self.says_issuer,
                **self.metadata_more,
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        keys = []
        for number in self.listed:
            numbers = key_number(number).public_key().public_numbers()
            n = b64(numbers.n.to_bytes(256, "big"))
            keys.append({"kty": "RSA", "kid": f"k{number}", "use": "sig", "n": n, "e": "AQAB"})
        return web.json_response({"keys": keys})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = request.query
        back = {"state": asked["state"]}
        if self.says_issuer:
            back["iss"] = self.issuer
        assert asked["client_id"] == self.client_id and asked["tenant"] == "1"
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        if not self.user:
            back |= {"error": "access_denied", "error_description": "<b>no</b>"}
        else:
            code = secrets.token_urlsafe(16)
            self.grants[code] = Grant(
                self.user,
                asked.get("nonce"),
                asked["code_challenge"],
                asked["redirect_uri"],
                asked["scope"],
                secrets.token_hex(4),
            )
            back["code"] = code
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode(back)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        if self.gate is not None:
            await self.gate.wait()
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "refresh_token":
            found = self.refresh_tokens.get(form["refresh_token"])
            if found is None:
                return web.json_response({"error": "invalid_grant"}, status=400)
            if self.rotates:
                del self.refresh_tokens[form["refresh_token"]]
            return self._grant(found, is_refresh=True)
        found = self.grants.get(form["code"])
        digest = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if found is None or found.is_used or digest != found.challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if form["redirect_uri"] != found.redirect_uri:
            return web.json_response({"error": "invalid_grant"}, status=400)
        found.is_used = True
        return self._grant(found, is_refresh=False)

    def _is_client(self, request: web.Request, form: Mapping[str, str]) -> bool:
        said = request.headers.get("authorization", "")
        if said.startswith("Basic "):
            client, _, secret = b64decode(said[6:]).decode().partition(":")
            return (unquote(client), unquote(secret)) == (self.client_id, self.client_secret)
        if "client_assertion" in form:
            return form["client_id"] == self.client_id  # its signature is looked at by the test
        secret = form.get("client_secret", "")
        return form.get("client_id") == self.client_id and secret == self.client_secret

    def _grant(self, found: Grant, *, is_refresh: bool) -> web.Response:
        now = self.clock()
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        if is_refresh and not self.rotates:
            refresh = ""
        claims = {
            "iss": self.issuer,
            "aud": self.client_id,
            "sub": found.user,
            "sid": found.sid,
            "iat": int(now),
            "exp": int(now) + self.expires_in,
            "at_hash": b64(hashlib.sha256(access.encode()).digest()[:16]),
            **self.users.get(found.user, {}),
        }
        if not is_refresh and found.nonce is not None:
            claims["nonce"] = found.nonce
        self.access_tokens[access] = found
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": found.scope,
            "id_token": self.sign(self.twist(claims)),
        }
        if refresh and "offline_access" in found.scope:
            self.refresh_tokens[refresh] = found
            answer["refresh_token"] = refresh
        return web.json_response(answer)

    async def _userinfo(self, request: web.Request) -> web.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = self.access_tokens.get(token)
        if found is None:
            return web.json_response({"error": "invalid_token"}, status=401)
        return web.json_response({"sub": found.user, "email": f"{found.user}@example.org"})

    async def _revoke(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        self.refresh_tokens.pop(form["token"], None)
        return web.Response()

    async def _end(self, request: web.Request) -> web.Response:
        self.forms.append(dict(request.query))
        return web.Response(text="bye")

    def _counted(self, name: str, handler: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.calls.append(name)
            said = self.answers.get(name)
            if said is None:
                return await handler(request)
            made = said(request)
            return await made if asyncio.iscoroutine(made) else made

        return answer

    def app(self) -> web.Application:
        app = web.Application()
        for name, path, handler in (
            ("discovery", "/.well-known/openid-configuration", self._discovery),
            ("keys", "/keys", self._keys),
            ("authorize", "/authorize", self._authorize),
            ("userinfo", "/userinfo", self._userinfo),
            ("end", "/end", self._end),
        ):
            app.router.add_get(path, self._counted(name, handler))
        app.router.add_post("/token", self._counted("token", self._token))
        app.router.add_post("/revoke", self._counted("revoke", self._revoke))
        return app


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, max_field_size=65536)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- the gateway's part -------------------------------------------------------------------------


@dataclass
class Seen:
    """A request as a method sees it."""

    method: str = "GET"
    target: str = "/"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    authority: str = "shop.example"
    is_tls: bool = False
    client_ip: str = "127.0.0.1"
    certificate: bytes | None = None
    request_id: str = "request-7"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        return self.authority.partition(":")[0]


class News:
    """The board that several workers share."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Callable[[Mapping[str, Any]], None]]] = []
        self.retained: dict[tuple[str, str], Mapping[str, Any]] = {}

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None) -> None:
        message = json.loads(json.dumps(message))
        if retain is not None:
            self.retained[topic, retain] = message
        for said, hear in list(self.heard):
            if said == topic:
                hear(message)


class Worker:
    """What a process lends to methods."""

    def __init__(self, news: News | None = None) -> None:
        self.news = news or News()
        self.kept: dict[tuple[object, ...], Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.notes: list[tuple[str, dict[str, Any]]] = []

    def spawn(self, work: Any) -> object:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def keep(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        self.news.publish(topic, message, retain)

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        for (said, _), message in list(self.news.retained.items()):
            if said == topic:
                hear(message)
        owner = getattr(hear, "__self__", None)
        self.news.heard = [
            each
            for each in self.news.heard
            if each[0] != topic or getattr(each[1], "__self__", None) is not owner
        ]
        self.news.heard.append((topic, hear))

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        raise AssertionError("a log-in suspects nobody")

    def count(self, policy: str, outcome: str) -> None: ...

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.notes.append((kind, dict(fields)))

    async def end(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Site:
    """Serves a method the way a gateway does; its pages say who asked."""

    method: LoginMethod

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.offset_s = 0.0
        self.is_tls = False
        self.origin = ""

    def wall(self) -> float:
        return time.time() + self.offset_s

    async def answer(self, request: web.Request) -> web.Response:
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        seen = Seen(request.method, request.raw_path, headers, request.host, self.is_tls)
        method, wall = self.method, self.wall()
        if seen.path in method.bodies:
            return _written(await method.answer(seen, await request.read(), wall))
        found = method.verify(seen, wall)
        if found is not None and not isinstance(found, (Verified, Refused, Instead)):
            found = await found
        if found is None:
            found = method.ask(seen) or Refused("nobody", "log in")
        if isinstance(found, Instead):
            return _written(found)
        if isinstance(found, Refused):
            return web.json_response({"error": found.error}, status=found.status)
        identity = found.identity
        response = web.json_response(
            {
                "subject": identity.subject,
                "roles": sorted(identity.roles),
                "groups": sorted(identity.groups),
                "scopes": sorted(identity.scopes),
                "claims": dict(identity.claims),
                "path": request.raw_path,
                "token": method.access_token_of(seen, wall),
            }
        )
        for cookie in found.set_cookies:
            response.headers.add("set-cookie", cookie.decode())
        return response

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        return app


def _written(found: Instead) -> web.Response:
    response = web.Response(status=found.status, body=found.body)
    for name, value in found.headers:
        if name == "content-type":
            response.content_type = value.partition(";")[0]
        else:
            response.headers.add(name, value)
    return response


class Visitor(httpx.AsyncClient):
    """A browser, as far as a log-in can tell."""

    def __init__(self, **more: Any) -> None:
        super().__init__(
            follow_redirects=True,
            trust_env=False,
            timeout=20.0,
            headers={
                "accept": "text/html,*/*;q=0.8",
                "sec-fetch-mode": "navigate",
                "sec-fetch-site": "none",
            },
            **more,
        )

    def named(self, text: str) -> list[str]:
        return [each.name for each in self.cookies.jar if text in each.name]


@dataclass
class Scene:
    provider: Provider
    method: LoginMethod
    worker: Worker
    site: Site
    url: str
    """Of the site."""


@contextlib.asynccontextmanager
async def scene(
    provider: Provider | None = None,
    *,
    news: News | None = None,
    worker: Worker | None = None,
    **rules: Any,
) -> AsyncIterator[Scene]:
    """A provider, a worker and a site, all on this machine."""
    provider = provider or Provider()
    async with contextlib.AsyncExitStack() as stack:
        if not provider.issuer:
            provider.issuer = await stack.enter_async_context(served(provider.app()))
        said: dict[str, Any] = {
            "issuer": provider.issuer,
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            "secrets": (SECRET,),
            "insecure_http": True,
            "scopes": ("openid", "offline_access"),
            "timeout_s": 5.0,
            "back_channel_path": "/.headgate/ended",
            **rules,
        }
        worker = worker or Worker(news)
        site = Site(worker)
        method = site.method = LoginMethod(LoginRules(**said), clock=site.wall)
        method.start(worker)
        site.origin = await stack.enter_async_context(served(site.app()))
        try:
            yield Scene(provider, method, worker, site, site.origin)
        finally:
            await method._provider.close()
            await worker.end()


def query_of(url: object) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(str(url)).query).items()}
