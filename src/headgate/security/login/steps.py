"""The paths of a log-in: begin it, come back from the provider, log out, be logged out.

Theory of operation. Every step decides from the request, the sealed cookies in it and what the
provider says, and answers; nothing of a visitor is kept here but the states that are being
exchanged right now, so that a callback that arrives twice asks the provider once. (A code that is
shown twice may make a provider revoke what it gave for it: RFC 6749 section 4.1.2.)

What a person gets to see never depends on text of the address bar alone: an error is only spoken
of when its state belongs to a log-in that this browser began.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote

from headgate.security.login import flow
from headgate.security.login.failed import LoginFailed
from headgate.security.login.flow import Pending, Tries
from headgate.security.login.pages import page, plain, redirect
from headgate.security.login.sessions import (
    CookieNames,
    clear_all,
    cleared,
    cookie_of,
    cookie_text,
)
from headgate.security.method import Instead, Shown

if TYPE_CHECKING:
    from headgate.security.login.keeper import Keeper
    from headgate.security.login.provider import Provider
    from headgate.security.login.rules import LoginRules

MOST_EXCHANGES: Final = 64
MOST_USED: Final = 4096
MAX_LOGOUT_BODY: Final = 64 * 1024
_MOST_PENDING_READ: Final = 16


class Visit:
    """What the steps need of a request."""

    __slots__ = (
        "client_ip",
        "cookies",
        "fields",
        "method",
        "names",
        "origin",
        "query",
        "reference",
        "wall",
    )

    def __init__(self, shown: Shown, names: CookieNames, origin: str | None, wall: float) -> None:
        self.client_ip = shown.client_ip
        self.method = shown.method
        self.query = shown.query
        self.fields: dict[bytes, bytes] = dict(reversed(list(shown.headers)))
        self.cookies = cookie_text(shown.headers)
        self.names = names
        self.origin = origin
        self.wall = wall
        said = getattr(shown, "request_id", "")
        self.reference = said if isinstance(said, str) and said else secrets.token_hex(8)
        """By which an operator finds what happened in the log."""


class Steps:
    def __init__(self, rules: LoginRules, keeper: Keeper, provider: Provider) -> None:
        self._rules = rules
        self._keeper = keeper
        self._provider = provider
        self._exchanges: dict[str, asyncio.Event] = {}
        self._used: dict[str, None] = {}
        self.counts = {"begun": 0, "done": 0, "failed": 0, "logged_out": 0, "ended": 0}

    # -- begin -------------------------------------------------------------------------------

    async def begin(self, visit: Visit) -> Instead:
        rules, wall, names = self._rules, visit.wall, visit.names
        asked = _asked(visit.query)
        to = flow.local_path(asked.get("to", ""), rules.own_paths) or rules.after_login
        if visit.origin is None:
            return self._failed(visit, 400, "This address cannot be logged in at.")
        tries = self._tries(visit)
        cookies: list[bytes] = []
        if "again" in asked:
            cookies.append(cleared(names.tries, names))
        elif tries.is_loop(wall):
            text = (
                f"You have been logged in {flow.LOOP_COUNT} times within a minute, and each time "
                "your browser came back without its session. Cookies may be blocked for this site, "
                "or the service behind it asks to log in again whatever happens."
            )
            return self._failed(visit, 403, text, to)
        try:
            metadata = await self._provider.metadata()
        except LoginFailed as failure:
            return self._broken(visit, failure, to)
        pending = self._new_pending(visit, to)
        shown = self._pendings(visit)
        for slot in flow.slots_to_clear(shown, wall, rules.pending_s, pending.slot):
            cookies.append(cleared(names.pending[slot], names))
        sealed = self._keeper.sealer().seal(pending.to_bytes(), b"pending")
        lasts = b"; Max-Age=%d" % max(int(rules.pending_s), 1)
        cookies.append(names.pending[pending.slot] + b"=" + sealed + lasts + names.attributes)
        self.counts["begun"] += 1
        address = flow.authorization_url(
            metadata.endpoints.authorize,
            client_id=rules.client_id,
            redirect_uri=visit.origin + rules.callback_path,
            scopes=rules.scopes,
            pending=pending,
            parameters=rules.parameters,
            with_nonce=rules.openid,
        )
        return redirect(address, cookies)

    def _new_pending(self, visit: Visit, to: str) -> Pending:
        pending = flow.new_pending(secrets.token_bytes(96), to, visit.wall)
        for _ in range(8):  # rather not in the place of another tab's
            if visit.names.pending[pending.slot] + b"=" not in visit.cookies:
                break
            pending = flow.new_pending(secrets.token_bytes(96), to, visit.wall)
        return pending

    def _pendings(self, visit: Visit) -> dict[int, Pending | None]:
        """Log-ins that this browser began. Of absurdly many most are not even read."""
        found: dict[int, Pending | None] = {}
        read = 0
        for slot, name in enumerate(visit.names.pending):
            if name + b"=" not in visit.cookies:
                continue
            read += 1
            found[slot] = self._pending(visit, slot) if read <= _MOST_PENDING_READ else None
        return found

    def _pending(self, visit: Visit, slot: int) -> Pending | None:
        sealed = cookie_of(visit.cookies, visit.names.pending[slot])
        text = None if sealed is None else self._keeper.sealer().open(sealed, b"pending")
        return None if text is None else Pending.from_bytes(text)

    def _tries(self, visit: Visit) -> Tries:
        sealed = cookie_of(visit.cookies, visit.names.tries)
        text = None if sealed is None else self._keeper.sealer().open(sealed, b"tries")
        return Tries() if text is None else Tries.from_bytes(text)

    # -- come back ---------------------------------------------------------------------------

    async def come_back(self, visit: Visit) -> Instead:
        rules, wall, names = self._rules, visit.wall, visit.names
        returned = flow.read_callback(visit.query)
        if isinstance(returned, str):
            return self._failed(visit, 400, returned)
        pending = self._pending(visit, flow.slot_of(returned.state))
        if pending is None or pending.state != returned.state or visit.origin is None:
            return await self._stray(visit)
        gone = cleared(names.pending[pending.slot], names)
        if not pending.is_alive(wall, rules.pending_s):
            text = "You took longer to log in than is allowed."
            return self._failed(visit, 400, text, pending.to, cookies=(gone,))
        try:
            metadata = await self._provider.metadata()
        except LoginFailed as failure:
            return self._broken(visit, failure, pending.to)
        fault = flow.issuer_fault(returned.issuer, rules.issuer, metadata.says_issuer)
        if fault:
            self._note(visit, "login_issuer_differs", fault)
            return self._failed(visit, 400, fault, pending.to, cookies=(gone,))
        if returned.error:
            return self._said_no(visit, returned, pending, gone)
        if returned.state in self._exchanges or returned.state in self._used:
            return await self._stray(visit, pending.to)
        if len(self._exchanges) >= MOST_EXCHANGES:
            busy = LoginFailed("busy", f"{MOST_EXCHANGES} log-ins are being finished already")
            return self._broken(visit, busy, pending.to)
        event = self._exchanges[returned.state] = asyncio.Event()
        try:
            return await self._finish(visit, returned.code, pending, gone)
        except LoginFailed as failure:
            return self._broken(visit, failure, pending.to, cookies=(gone,))
        finally:
            del self._exchanges[returned.state]
            self._used[returned.state] = None
            while len(self._used) > MOST_USED:
                del self._used[next(iter(self._used))]
            event.set()

    async def _finish(self, visit: Visit, code: str, pending: Pending, gone: bytes) -> Instead:
        rules, keeper, wall, names = self._rules, self._keeper, visit.wall, visit.names
        address = f"{visit.origin}{rules.callback_path}"
        tokens = await self._provider.exchange(code, pending.verifier, address, wall)
        session = await keeper.from_login(tokens, pending.nonce, wall)
        session, sealed = keeper.seal(session)
        tries = self._tries(visit).succeeded(wall).to_bytes()
        tried = names.tries + b"=" + keeper.sealer().seal(tries, b"tries")
        lasts = b"; Max-Age=%d" % int(flow.LOOP_WINDOW_S)
        self.counts["done"] += 1
        self._tell(visit, "logged_in", subject=session.subject)
        # A path that was local when it was sealed may be one of our own after a reload.
        to = flow.local_path(pending.to, rules.own_paths) or rules.after_login
        made = keeper.cookies(sealed, names, visit.cookies)
        return redirect(to, (*made, gone, tried + lasts + names.attributes))

    async def _stray(self, visit: Visit, to: str = "") -> Instead:
        """A callback that belongs to no log-in of this browser, or to one that is done."""
        to = to or self._rules.after_login
        returned = flow.read_callback(visit.query)
        event = None if isinstance(returned, str) else self._exchanges.get(returned.state)
        if event is not None:  # the same one twice: the other answer brings the session
            try:
                async with asyncio.timeout(self._rules.timeout_s):
                    await event.wait()
            except TimeoutError:
                pass
            return redirect(to)
        if self._keeper.session(visit.cookies, visit.names, visit.wall) is not None:
            return redirect(to)
        text = (
            "This log-in was not begun in this browser, is done already, or was begun too long "
            "ago. If it happens each time, cookies may be blocked for this site."
        )
        return self._failed(visit, 400, text)

    def _said_no(
        self, visit: Visit, returned: flow.Returned, pending: Pending, gone: bytes
    ) -> Instead:
        self._note(visit, "login_refused", returned.error)
        away = returned.error in {"temporarily_unavailable", "server_error"}
        text = f"The identity provider says: {returned.error}."
        if returned.description:
            text += f" ({returned.description})"
        status = 503 if away else 403
        return self._failed(visit, status, text, pending.to, cookies=(gone,))

    # -- log out -----------------------------------------------------------------------------

    async def log_out(self, visit: Visit) -> Instead:
        rules, names, wall = self._rules, visit.names, visit.wall
        is_own = visit.origin is not None and flow.is_own_site(visit.origin, visit.fields)
        if not is_own:
            # Another site may send anybody here; only the person decides.
            status = 403 if visit.method == "POST" else 200
            return page(
                status,
                "Log out?",
                "Another page sent you here.",
                post_to=rules.logout_path,
                again_text="Log out",
            )
        session = self._keeper.session(visit.cookies, names, wall)
        cookies: tuple[bytes, ...] = (cleared(names.tries, names),)
        if session is None:
            cookies = (*clear_all(names, visit.cookies), *cookies)
        else:
            cookies = (*self._keeper.end(session, visit.cookies, names, wall), *cookies)
            self.counts["logged_out"] += 1
            self._tell(visit, "logged_out", subject=session.subject)
        address = await self._end_session_address(visit, session.id_token if session else "")
        if session is not None and address:
            return redirect(address, cookies, 303)
        if rules.after_logout:
            return redirect(rules.after_logout, cookies, 303)
        text = "You are logged out."
        again = self._again(rules.after_login)
        return page(200, "Logged out", text, again=again, again_text="Log in", cookies=cookies)

    async def _end_session_address(self, visit: Visit, id_token: str) -> str:
        """OpenID Connect RP-Initiated Logout 1.0; empty when the provider has no such thing."""
        rules = self._rules
        if not rules.end_provider_session:
            return ""
        try:
            endpoint = (await self._provider.metadata()).endpoints.end_session
        except LoginFailed:
            return ""
        if not endpoint:
            return ""
        query = {"client_id": rules.client_id}
        if id_token:
            query["id_token_hint"] = id_token
        if rules.after_logout and visit.origin:
            is_path = rules.after_logout.startswith("/")
            after = f"{visit.origin}{rules.after_logout}" if is_path else rules.after_logout
            query["post_logout_redirect_uri"] = after
        return flow.with_query(endpoint, query)

    async def be_logged_out(self, body: bytes, content_type: bytes, wall: float) -> Instead:
        """OpenID Connect Back-Channel Logout 1.0 section 2.5 to 2.8."""
        form = content_type.partition(b";")[0].strip().lower()
        if form != b"application/x-www-form-urlencoded" or len(body) > MAX_LOGOUT_BODY:
            return plain(400, "a logout token is expected, as a form")
        try:
            said = parse_qs(body.decode("ascii"), max_num_fields=16, errors="strict")
        except ValueError:
            return plain(400, "a logout token is expected, as a form")
        tokens = said.get("logout_token", [])
        if len(tokens) != 1:
            return plain(400, "one logout_token is expected")
        try:
            ends, at = await self._provider.ended_by(tokens[0], wall)
        except LoginFailed as failure:
            self._keeper.note("logout_token_refused", {"detail": failure.detail})
            if failure.kind == "away":
                return plain(503, "the keys of the identity provider cannot be fetched")
            return plain(400, "the logout token is not taken")
        for kind, value in ends:
            self._keeper.end_of_provider(kind, value, at, wall)
            self._keeper.note("ended_by_provider", {kind: value})
            self.counts["ended"] += 1
        return plain(200, "")

    # -- what went wrong ---------------------------------------------------------------------

    def _broken(
        self, visit: Visit, failure: LoginFailed, to: str, cookies: tuple[bytes, ...] = ()
    ) -> Instead:
        self._note(visit, "login_failed", failure.detail)
        status, text = _WORDS[failure.kind]
        return self._failed(visit, status, text, to, cookies=cookies)

    def _failed(
        self, visit: Visit, status: int, text: str, to: str = "", cookies: tuple[bytes, ...] = ()
    ) -> Instead:
        self.counts["failed"] += 1
        return page(
            status,
            "Log-in failed",
            text,
            again=self._again(to or self._rules.after_login),
            reference=visit.reference,
            cookies=cookies,
            more=(("retry-after", "5"),) if status == 503 else (),
        )

    def _again(self, to: str) -> str:
        return f"{self._rules.login_path}?again=1&to={quote(to, safe='/')}"

    def _note(self, visit: Visit, kind: str, detail: str) -> None:
        self._tell(visit, kind, detail=detail)

    def _tell(self, visit: Visit, kind: str, **more: str) -> None:
        told = {"reference": visit.reference, "client_ip": visit.client_ip, **more}
        self._keeper.note(kind, told)


_NOT_UNDERSTOOD: Final = (
    "The identity provider and this gateway do not understand each other. "
    "Whoever runs this site finds the reason in the log, by the reference below."
)
_TOO_MUCH: Final = (
    "What the identity provider says of you is too much to be kept in cookies. "
    "Whoever runs this site must ask for fewer claims."
)
_WORDS: Final[Mapping[str, tuple[int, str]]] = {
    "away": (503, "The identity provider cannot be reached. Please try again in a moment."),
    "busy": (503, "Too many people are logging in at once. Please try again in a moment."),
    "refused": (403, "The identity provider does not take this log-in (any more)."),
    "invalid": (502, _NOT_UNDERSTOOD),
    "too_large": (502, _TOO_MUCH),
}


def _asked(query: str) -> dict[str, str]:
    """The parameters of the log-in path; of doubles the first."""
    try:
        found = parse_qs(query, keep_blank_values=True, max_num_fields=16, errors="strict")
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}
