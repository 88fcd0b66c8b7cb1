"""Log-in by OpenID Connect as a way of authentication.

Theory of operation. For a request with a session the verdict comes out of a table. The paths of the
log-in itself (`own_paths`) are answered here, later where the provider must be asked. Whoever shows
no session, or one that is over, shows nothing: a browser that goes to a page is sent to the log-in
path, which is local and leads on to the provider, and everybody else gets 401.

`ask` knows neither the time nor the provider, which is why it sends browsers there first.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from headgate.security.login import flow
from headgate.security.login.keeper import Keeper
from headgate.security.login.pages import plain, redirect
from headgate.security.login.provider import Provider
from headgate.security.login.rules import LoginRules
from headgate.security.login.sealing import Sealer, keys_of
from headgate.security.login.sessions import CookieNames, cookie_text
from headgate.security.login.steps import MAX_LOGOUT_BODY, Steps, Visit
from headgate.security.method import ACCESS_TOKEN, Finding, Header, Instead, Method, Shown, Strips

if TYPE_CHECKING:
    import ssl

    from headgate.security.login.assertion import ClientKey
    from headgate.security.method import Parts


class LoginMethod(Method):
    """`kept_key` brings the key that cookies are sealed with where the rules have no secrets; it
    is called when the method is started or first used, not when it is built.
    """

    def __init__(
        self,
        rules: LoginRules,
        *,
        kept_key: Callable[[], bytes] | None = None,
        trust: ssl.SSLContext | None = None,
        client_key: ClientKey | None = None,
        clock: Callable[[], float] = time.time,  # noqa: TID251 - for news, which bring no time
    ) -> None:
        self.name = rules.name
        self.rules = rules
        self.own_paths: tuple[str, ...] = rules.own_paths
        """Paths that this method answers, on every host of routes that name it."""
        self.bodies: Mapping[str, int] = (
            {rules.back_channel_path: MAX_LOGOUT_BODY} if rules.back_channel_path else {}
        )
        """Own paths whose body is read, up to so many bytes, and given to `answer`."""
        self._kept_key = kept_key
        self._sealer: Sealer | None = None
        self._provider = Provider(rules, trust=trust, client_key=client_key)
        self._keeper = Keeper(rules, self._provider, self._seals, clock)
        self._keeper.on_moved = self._moved
        self._steps = Steps(rules, self._keeper, self._provider)
        self._own = frozenset(rules.own_paths)
        self._parts: Parts | None = None
        names = (self._keeper.plain, self._keeper.secure)
        self.strips = Strips(cookies=names[0].all | names[1].all)
        public = urlsplit(rules.public_url)
        self._public_host = public.netloc.lower()
        self._fixed: CookieNames | None = None
        if rules.public_url:
            self._fixed = names[public.scheme == "https"]

    def _moved(self, generation: int) -> None:
        self.generation = generation

    def _seals(self) -> Sealer:
        if self._sealer is None:
            rules = self.rules
            if rules.secrets:
                keys = keys_of(rules.secrets)
            elif self._kept_key is not None:
                keys = (self._kept_key(),)
            else:
                keys = (secrets.token_bytes(32),)
            purpose = f"{rules.name}\0{rules.issuer}\0{rules.client_id}".encode()
            self._sealer = Sealer(keys, purpose)
        return self._sealer

    def start(self, parts: Parts) -> None:
        self._parts = parts
        self._seals()
        self._keeper.start(parts)

    def close(self) -> None:
        if self._parts is not None:
            self._parts.spawn(self._close_later())

    async def _close_later(self) -> None:
        # Log-ins that are under way belong to the plan that is going, and may finish.
        try:
            await asyncio.sleep(self.rules.timeout_s)
        finally:
            await self._provider.close()

    # -- requests ----------------------------------------------------------------------------

    def verify(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        if shown.path in self._own:
            return self._answer(shown, wall)
        text = b""
        for name, value in shown.headers:
            if name == b"cookie":
                text = value if not text else text + b"; " + value
        if not text:
            return None
        return self._keeper.verdict(text, self._names(shown), wall)

    def _names(self, shown: Shown) -> CookieNames:
        if self._fixed is not None:
            return self._fixed
        return self._keeper.secure if shown.is_tls else self._keeper.plain

    def ask(self, shown: Shown) -> Instead | None:
        """A way to log in, for a person; None for a program."""
        fields = dict(reversed(list(shown.headers)))
        if not flow.is_navigation(shown.method, fields):
            return None
        to = flow.local_path(shown.target, self.own_paths) or self.rules.after_login
        address = f"{self.rules.login_path}?to={quote(to, safe='/')}"
        if self._public_host and shown.authority.lower() != self._public_host:
            # The provider sends browsers back to the public address, where their cookies must be.
            address = f"{self.rules.public_url.rstrip('/')}{address}"
        return redirect(address)

    def _answer(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        rules, path, method = self.rules, shown.path, shown.method
        if path == rules.back_channel_path:
            if method != "POST":
                return plain(405, "a logout token is expected", (("allow", "POST"),))
            return plain(501, "logout tokens are not read on this listener")
        # No HEAD on the callback: whoever previews an address must not use up its code.
        if path == rules.logout_path:
            allowed: tuple[str, ...] = ("GET", "POST")
        else:
            allowed = ("GET", "HEAD") if path == rules.login_path else ("GET",)
        if method not in allowed:
            return plain(405, "not like this", (("allow", ", ".join(allowed)),))
        origin = flow.origin_of(rules.public_url, shown.is_tls, shown.authority)
        visit = Visit(shown, self._names(shown), origin, wall)
        if path == rules.login_path:
            return self._steps.begin(visit)
        if path == rules.callback_path:
            return self._steps.come_back(visit)
        return self._steps.log_out(visit)

    async def answer(self, shown: Shown, body: bytes, wall: float) -> Instead:
        """The answer to a request for one of `bodies`, once its body is here."""
        fields = dict(reversed(list(shown.headers)))
        if shown.method != "POST":
            return plain(405, "a logout token is expected", (("allow", "POST"),))
        return await self._steps.be_logged_out(body, fields.get(b"content-type", b""), wall)

    def access_token_of(self, shown: Shown, wall: float) -> str:
        """The access token of the session that is shown, for the service behind; empty unless
        `pass_token` was said. It may be seconds from its end.
        """
        if not self.rules.pass_token:
            return ""
        session = self._keeper.session(cookie_text(shown.headers), self._names(shown), wall)
        return "" if session is None else session.access_token

    def told(self, shown: Shown, wall: float) -> tuple[Header, ...]:
        token = self.access_token_of(shown, wall)
        return ((ACCESS_TOKEN, token.encode("latin-1")),) if token.isascii() and token else ()

    def snapshot(self, wall: float) -> dict[str, Any]:
        return {
            "issuer": self.rules.issuer,
            "fetches": self._provider.fetches,
            **self._steps.counts,
            **self._keeper.snapshot(),
        }
