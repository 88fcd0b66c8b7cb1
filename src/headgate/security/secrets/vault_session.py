"""One Vault, asked by a thread that may wait: requests by hvac, answers and errors in our words.

Theory of operation
-------------------
    ask(call) -> call(client) -> its answer
                  403            -> is the token still good? no: log in again, once; ask again
                  anything else  -> a VaultError that says whose fault it is

There is one token for all threads. A log-in is made under a lock; whoever waited for it finds the
token changed and does not log in again. Nothing is read from this user's environment or home
(`VAULT_TOKEN`, `~/.vault-token`, proxies, `.netrc`): a session does what its rules say.

No redirects: the library would send the token along to wherever an answer points.

`requests` limits the wait for each piece of an answer and not for the whole of it, so the body is
read here, against a deadline and a bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate.errors import ExtraMissing
from headgate.security.secrets.errors import (
    VaultAway,
    VaultDenied,
    VaultError,
    VaultMissing,
    VaultRefused,
    VaultSealed,
)
from headgate.security.secrets.lease import seconds_of
from headgate.security.secrets.vault_rules import AppRole, VaultRules

__all__ = ["LoggedIn", "VaultSession"]

Answer = TypeVar("Answer")

MAX_ANSWER: Final = 32 * 1024 * 1024
_MAX_TOKEN_FILE: Final = 16 * 1024
_SHOWN: Final = 200
_LOG_IN_GAP_S: Final = 1.0
"""A policy that forbids is no reason to log in again and again."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The token as Vault describes it. Times are those of `time.monotonic`."""

    token: str = field(repr=False)
    generation: int
    at: float
    ttl_s: float
    """0.0: it does not expire."""
    renewable: bool
    is_ours: bool
    """We logged in for it, so it is ours to give back."""


class VaultSession:
    """Blocking, and safe to be shared by threads."""

    def __init__(self, rules: VaultRules) -> None:
        if problems := rules.problems():
            raise VaultRefused("; ".join(problems))
        self.rules = rules
        self.logged_in: LoggedIn | None = None
        self._generation = 0
        self._lock = threading.Lock()
        self._client: Any = None
        self._hvac: Any = None

    def __repr__(self) -> str:
        return f"VaultSession({self.rules.url!r})"

    # ---- asking

    def ask(self, call: Callable[[Any], Answer], what: str, *, wrap: str | None = None) -> Answer:
        """What `call(client)` answers, logged in. Raises a VaultError that begins with `what`."""
        client = self._opened()
        before = self.logged_in or self._log_in(None)
        try:
            return self._asked(client, call, what)
        except VaultDenied:
            if not self._is_refreshed(client, before):
                raise
        return self._asked(client, call, what)

    def _asked(self, client: Any, call: Callable[[Any], Answer], what: str) -> Answer:
        try:
            return call(client)
        except VaultError:
            raise
        except Exception as error:  # noqa: BLE001 - the library raises what it likes
            raise self._translated(error, what) from None

    def _is_refreshed(self, client: Any, before: LoggedIn) -> bool:
        """After a refusal: whether there is another token to try with."""
        if self.logged_in is not before:
            return True
        if time.monotonic() - before.at < _LOG_IN_GAP_S:
            return False
        try:
            self._asked(client, lambda one: one.auth.token.lookup_self(), "the token")
        except VaultDenied:
            return self._log_in(before) is not before
        return False

    # ---- logging in

    def log_in(self) -> LoggedIn:
        """A new token, whatever the present one is good for."""
        self._opened()
        return self._log_in(self.logged_in)

    def _log_in(self, before: LoggedIn | None) -> LoggedIn:
        with self._lock:
            if self.logged_in is not before and self.logged_in is not None:
                return self.logged_in
            now = time.monotonic()
            login = self.rules.login
            if isinstance(login, AppRole):
                found = self._by_role(login, now)
            else:
                token = login.token if login.file is None else _line_of(login.file, "token_file")
                found = self._by_token(token, now, before)
            self.logged_in = found
            self._client.token = found.token
            return found

    def _by_role(self, role: AppRole, now: float) -> LoggedIn:
        self._generation += 1
        secret_id = role.secret_id or None
        if role.secret_id_file is not None:
            secret_id = _line_of(role.secret_id_file, "secret_id_file")
        client = self._new_client("")
        try:
            answer = client.auth.approle.login(
                role_id=role.role_id,
                secret_id=secret_id,
                use_token=False,
                mount_point=role.mount,
            )
            auth = answer["auth"]
            return LoggedIn(
                auth["client_token"],
                self._generation,
                now,
                seconds_of(auth["lease_duration"]),
                bool(auth["renewable"]),
                is_ours=True,
            )
        except (self._hvac.exceptions.InvalidRequest, self._hvac.exceptions.Forbidden):
            raise VaultDenied(
                f"{self.rules.url}: the log-in by AppRole was refused: role_id or secret_id is "
                "wrong, expired or used up"
            ) from None
        except (KeyError, TypeError, ValueError):
            raise VaultAway(f"{self.rules.url}: answered a log-in with something else") from None
        except Exception as error:  # noqa: BLE001 - likewise
            raise self._translated(error, "the log-in by AppRole") from None

    def _by_token(self, token: str, now: float, before: LoggedIn | None) -> LoggedIn:
        if before is None or before.token != token:
            self._generation += 1  # otherwise what it made lives on
        client = self._new_client(token)
        try:
            data = client.auth.token.lookup_self()["data"]
            ttl_s, renewable = seconds_of(data["ttl"]), bool(data.get("renewable"))
        except self._hvac.exceptions.Forbidden:
            raise VaultDenied(
                f"{self.rules.url}: the token is refused: it is wrong, expired or revoked"
            ) from None
        except (KeyError, TypeError, ValueError):
            raise VaultAway(f"{self.rules.url}: answered with something else") from None
        except Exception as error:  # noqa: BLE001 - likewise
            raise self._translated(error, "the token") from None
        return LoggedIn(token, self._generation, now, ttl_s, renewable, is_ours=False)

    def renew(self) -> LoggedIn:
        """The same token for longer, if Vault lets it live."""
        before = self.logged_in
        if before is None:
            return self.log_in()
        now = time.monotonic()

        def asked(client: Any) -> tuple[float, bool]:
            auth = client.auth.token.renew_self()["auth"]
            return seconds_of(auth["lease_duration"]), bool(auth["renewable"])

        ttl_s, renewable = self._asked(self._opened(), asked, "renewing the token")
        with self._lock:
            if self.logged_in is before:
                self.logged_in = LoggedIn(
                    before.token,
                    before.generation,
                    now,
                    ttl_s,
                    renewable,
                    before.is_ours,
                )
            return self.logged_in or before

    def log_out(self) -> None:
        """Give back a token that we logged in for; with it end the leases it made."""
        found, self.logged_in = self.logged_in, None
        if found is not None and found.is_ours and self._client is not None:
            try:
                self._asked(self._client, lambda one: one.auth.token.revoke_self(), "logging out")
            except VaultError:
                pass  # it expires by itself

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.adapter.close()

    # ---- hvac

    def _opened(self) -> Any:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._new_client("")
        return self._client

    def _new_client(self, token: str) -> Any:
        try:
            import hvac  # type: ignore[import-untyped]  # no stubs
            import requests
            from requests.adapters import HTTPAdapter
        except ImportError:
            raise ExtraMissing("vault", "Vault") from None
        self._hvac = hvac
        rules = self.rules
        session = _session(requests, HTTPAdapter, rules)
        verify: bool | str = True if rules.ca_file is None else str(rules.ca_file)
        session.verify = verify
        return hvac.Client(
            url=rules.url.rstrip("/"),
            token=token,
            verify=verify,
            timeout=rules.timeout_s,
            allow_redirects=False,
            namespace=rules.namespace or None,
            session=session,
        )

    def _translated(self, error: Exception, what: str) -> VaultError:
        """The library's exception in our words, without anything secret."""
        import requests

        kinds = self._hvac.exceptions
        place = self.rules.url
        if isinstance(error, kinds.Forbidden | kinds.Unauthorized):
            return VaultDenied(f"{what}: {place} denies it: the policy of the token does not allow")
        if isinstance(error, kinds.InvalidPath):
            said = _said(error)
            return VaultMissing(f"{what}: {place} has no such path{said}")
        if isinstance(error, kinds.VaultDown):
            if "sealed" in _said(error).lower():
                return VaultSealed(f"{what}: {place} is sealed")
            return VaultAway(f"{what}: {place} serves nobody now{_said(error)}")
        if isinstance(error, kinds.VaultNotInitialized):
            return VaultSealed(f"{what}: {place} is not initialised")
        if isinstance(error, kinds.InvalidRequest | kinds.ParamValidationError):
            return VaultRefused(f"{what}: {place} refuses the request{_said(error)}")
        if isinstance(error, kinds.VaultError):
            return VaultAway(f"{what}: {place} fails{_said(error)}")
        if isinstance(error, requests.exceptions.SSLError):
            return VaultAway(
                f"{what}: {place} shows a certificate that is not trusted; ca_file says which "
                "authority is"
            )
        if isinstance(error, requests.exceptions.Timeout):
            return VaultAway(f"{what}: {place} did not answer within {self.rules.timeout_s:g} s")
        if isinstance(error, requests.exceptions.ConnectionError):
            return VaultAway(f"{what}: {place} cannot be reached")
        if isinstance(error, requests.exceptions.RequestException | OSError):
            return VaultAway(f"{what}: {place}: {type(error).__name__}")
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            # A redirect, an HTML page of a proxy: no answer of Vault.
            return VaultAway(f"{what}: {place} answered something that is not Vault's")
        raise error


def _session(requests: Any, adapter_class: Any, rules: VaultRules) -> Any:
    """A session of its own that trusts no environment and whose answers are bounded."""

    class Bounded(adapter_class):  # type: ignore[misc]  # the class is loaded on use
        def send(self, request: Any, **named: Any) -> Any:
            deadline = time.monotonic() + rules.timeout_s
            response = super().send(request, **{**named, "stream": True})
            chunks: list[bytes] = []
            size = 0
            for chunk in response.iter_content(64 * 1024):
                size += len(chunk)
                if size > MAX_ANSWER:
                    response.close()
                    raise requests.exceptions.ContentDecodingError("the answer is too large")
                if time.monotonic() > deadline:
                    response.close()
                    raise requests.exceptions.ReadTimeout("too slow")
                chunks.append(chunk)
            response._content = b"".join(chunks)  # noqa: SLF001 - where requests keeps it
            response._content_consumed = True  # noqa: SLF001
            return response

    session = requests.Session()
    session.trust_env = False
    bounded = Bounded(pool_connections=1, pool_maxsize=rules.threads, max_retries=0)
    session.mount("http://", bounded)
    session.mount("https://", bounded)
    return session


def _said(error: Any) -> str:
    """What Vault gives as the reason. It quotes no values; long pages of proxies are cut."""
    errors = getattr(error, "errors", None)
    first = errors[0] if isinstance(errors, list) and errors else ""
    text = " ".join(str(first).split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return f": {text[:_SHOWN]}" if text else ""


def _line_of(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise VaultDenied(f"the {name} {path} cannot be read: {reason}") from None
    text = data[:_MAX_TOKEN_FILE].decode("ascii", "replace").strip()
    if not text or not text.isprintable() or " " in text or len(data) > _MAX_TOKEN_FILE:
        raise VaultDenied(f"the {name} {path} does not hold one word")
    return text
