"""A client of ACME (RFC 8555): one certificate for one name, step by step, in asyncio.

Theory of operation
-------------------
Every request is signed and spends a nonce; each answer brings the next one. A nonce that the
authority no longer knows (`badNonce`) is an accident of the protocol: the request is signed anew
with the nonce that came with the refusal, up to `NONCE_TRIES` times (RFC 8555 6.5).

`order` goes on from where an order stands, so it may be called again after a crash with the URL
and the key that were kept: `pending` is answered by the challenge, `ready` by our request,
`processing` is waited for, `valid` is fetched. Waits between looks grow, follow Retry-After and end
at one deadline; nothing here sleeps in a thread, and all of it can be cancelled at any await.

What must survive a crash is handed out before the step that needs it (`on_order`), and the caller
shows the challenge before the authority is told to look (`show`), and takes it down in any case.

The authority is not trusted to be quick, small or well-meaning: answers are bounded, redirects are
not followed, nothing is read from the environment, and every URL it names must be https.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from headgate.security.certificates.acme import (
    AcmeFailed,
    Authorization,
    Challenge,
    Directory,
    Order,
    ari_id,
    key_authorization,
    make_csr,
    read_authorization,
    read_chain,
    read_directory,
    read_order,
    read_problem,
    retry_after_s,
)
from headgate.security.certificates.jose import AccountKey, b64, bind_account, unb64
from headgate.security.certificates.rules import AcmeRules

if TYPE_CHECKING:
    import httpx
    from cryptography import x509

__all__ = ["AcmeClient", "Shown", "open_acme"]

REQUEST_S: Final = 30.0
ORDER_S: Final = 300.0
NONCE_TRIES: Final = 30
MAX_BYTES: Final = 1 << 20
FIRST_LOOK_S: Final = 0.5
LONGEST_LOOK_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What the authority is to find."""

    domain: str
    token: str
    authorization: str


@dataclass(slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def open_acme(rules: AcmeRules, key: AccountKey, account_url: str | None) -> AcmeClient:
    """A client that has read the directory. Raises AcmeFailed; close what it returns."""

    def make() -> httpx.AsyncClient:
        try:
            import httpx
        except ImportError:
            raise AcmeFailed('ACME needs the "acme" extra: pip install "headgate[acme]"') from None
        try:
            trust = ssl.create_default_context(cafile=rules.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise AcmeFailed(
                f"acme.ca_file {rules.ca_file} has no certificates of authorities: {error}"
            ) from None
        return httpx.AsyncClient(
            verify=trust, trust_env=False, follow_redirects=False, timeout=httpx.Timeout(REQUEST_S)
        )

    http = await asyncio.to_thread(make)
    client = AcmeClient(http, rules, key, account_url)
    try:
        await client.start()
    except BaseException:
        await http.aclose()
        raise
    return client


class AcmeClient:
    """Speaks for one account to one authority. Made by `open_acme`."""

    def __init__(
        self, http: httpx.AsyncClient, rules: AcmeRules, key: AccountKey, account_url: str | None
    ) -> None:
        self._http = http
        self._rules = rules
        self._key = key
        self._nonce: str | None = None
        self._directory: Directory | None = None
        self.account_url = account_url

    async def start(self) -> None:
        answer = await self._send("GET", self._rules.directory)
        if answer.status != 200:
            raise self._refused(answer)
        self._directory = read_directory(answer.body)

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def directory(self) -> Directory:
        if self._directory is None:
            raise RuntimeError("the directory is read by start")
        return self._directory

    async def register(self) -> str:
        """The URL of our account, which is made if there is none for the key."""
        payload: dict[str, Any] = {"termsOfServiceAgreed": True}
        if self._rules.email:
            payload["contact"] = [f"mailto:{each}" for each in self._rules.email]
        if self._rules.binding_id is not None and self._rules.binding_key is not None:
            try:
                secret = unb64(self._rules.binding_key)
            except ValueError:
                raise AcmeFailed("acme.external_account.secret is not base64url") from None
            payload["externalAccountBinding"] = bind_account(
                self._key, self.directory.new_account, self._rules.binding_id, secret
            )
        elif self.directory.needs_binding:
            raise AcmeFailed(
                "the authority wants accounts bound to one that it knows already; "
                "write what it gave you in acme.external_account"
            )
        self.account_url = None
        answer = await self._post(self.directory.new_account, payload)
        url = answer.headers.get("location", "")
        if urlsplit(url).scheme != "https":
            raise AcmeFailed("the authority names no https URL of our account")
        self.account_url = url
        return url

    async def order(
        self,
        domain: str,
        key_pem: bytes,
        order_url: str | None,
        *,
        on_order: Callable[[str], Awaitable[None]],
        show: Callable[[Shown], Awaitable[None]],
    ) -> bytes:
        """The chain of a new certificate, PEM. With `order_url` that order is gone on with."""
        try:
            async with asyncio.timeout(ORDER_S):
                return await self._order(domain, key_pem, order_url, on_order, show)
        except TimeoutError:
            raise AcmeFailed(f"the order for {domain} was not done in {ORDER_S:g} s") from None

    async def _order(
        self,
        domain: str,
        key_pem: bytes,
        order_url: str | None,
        on_order: Callable[[str], Awaitable[None]],
        show: Callable[[Shown], Awaitable[None]],
    ) -> bytes:
        order = await self._kept(order_url) if order_url is not None else None
        if order is None or order_url is None:
            answer = await self._post(
                self.directory.new_order, {"identifiers": [{"type": "dns", "value": domain}]}
            )
            order = read_order(answer.body)
            order_url = answer.headers.get("location", "")
            if urlsplit(order_url).scheme != "https":
                raise AcmeFailed("the authority names no https URL of our order")
            await on_order(order_url)
        has_asked = False
        look_s = FIRST_LOOK_S
        while True:
            match order.status:
                case "pending":
                    for url in order.authorizations:
                        await self._authorize(url, show)
                case "ready" if not has_asked:
                    has_asked = True
                    csr = b64(make_csr(key_pem, domain))
                    answer = await self._post(order.finalize, {"csr": csr})
                    order = read_order(answer.body)
                    continue
                case "valid":
                    if order.certificate is None:
                        raise AcmeFailed("the authority's order is valid and has no certificate")
                    answer = await self._post(order.certificate, None)
                    return read_chain(answer.body, key_pem, domain)
                case "ready" | "processing":
                    pass
                case _:
                    raise order.failure or AcmeFailed(f"the order for {domain} is {order.status}")
            answer = await self._post(order_url, None)
            order = read_order(answer.body)
            if order.status in ("pending", "processing") or (order.status == "ready" and has_asked):
                look_s = await self._wait(answer, look_s)

    async def _kept(self, url: str) -> Order | None:
        """An order of before, if it can still be gone on with."""
        try:
            order = read_order((await self._post(url, None)).body)
        except AcmeFailed as error:
            if error.status not in (403, 404) or error.kind == "rateLimited":
                raise
            return None  # forgotten, or not ours
        return order if order.status != "invalid" else None

    async def _authorize(self, url: str, show: Callable[[Shown], Awaitable[None]]) -> None:
        kind = self._rules.challenge
        found = read_authorization((await self._post(url, None)).body, kind)
        if found.status == "valid":
            return
        challenge = found.challenge
        if found.status != "pending":
            raise _unseen(found)
        if challenge is None:
            raise AcmeFailed(f"the authority offers no {kind} for {found.domain}")
        if challenge.status == "pending":
            await self._answer(found, challenge, show)
        look_s = FIRST_LOOK_S
        while True:
            answer = await self._post(url, None)
            found = read_authorization(answer.body, kind)
            if found.status == "valid":
                return
            if found.status != "pending":
                raise _unseen(found)
            look_s = await self._wait(answer, look_s)

    async def _answer(
        self,
        found: Authorization,
        challenge: Challenge,
        show: Callable[[Shown], Awaitable[None]],
    ) -> None:
        said = key_authorization(self._key, challenge.token)
        await show(Shown(found.domain, challenge.token, said))
        await self._post(challenge.url, {})

    async def revoke(self, leaf_der: bytes, reason: int) -> None:
        """Declare a certificate of ours void (RFC 8555 7.6)."""
        payload = {"certificate": b64(leaf_der), "reason": reason}
        try:
            await self._post(self.directory.revoke, payload)
        except AcmeFailed as error:
            if error.kind != "alreadyRevoked":
                raise

    async def renewal_window(self, leaf: x509.Certificate) -> tuple[float, float] | None:
        """When the authority would like this one renewed (RFC 9773); None where it does not say."""
        name = ari_id(leaf)
        if self.directory.renewal_info is None or name is None:
            return None
        answer = await self._send("GET", f"{self.directory.renewal_info.rstrip('/')}/{name}")
        if answer.status != 200:
            return None
        return _window(answer.body)

    # -- requests -----------------------------------------------------------------------------

    async def _post(self, url: str, payload: Mapping[str, Any] | None) -> _Answer:
        for _ in range(NONCE_TRIES):
            nonce = self._nonce or await self._new_nonce()
            self._nonce = None
            body = self._key.sign(url, nonce, payload, self.account_url)
            answer = await self._send("POST", url, body)
            if answer.status < 300:
                return answer
            refused = self._refused(answer)
            if refused.kind != "badNonce":
                raise refused
        raise AcmeFailed(f"the authority took none of {NONCE_TRIES} nonces", kind="badNonce")

    async def _new_nonce(self) -> str:
        answer = await self._send("HEAD", self.directory.new_nonce)
        nonce, self._nonce = self._nonce, None
        if answer.status not in (200, 204):
            raise self._refused(answer)
        if nonce is None:
            raise AcmeFailed("the authority gives no nonce")
        return nonce

    async def _send(self, method: str, url: str, body: bytes | None = None) -> _Answer:
        import httpx

        headers = {"user-agent": "headgate", "accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = "application/jose+json"
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}"
        try:
            async with (
                asyncio.timeout(REQUEST_S),
                self._http.stream(method, url, content=body, headers=headers) as response,
            ):
                got = bytearray()
                async for piece in response.aiter_raw():
                    got += piece
                    if len(got) > MAX_BYTES:
                        raise AcmeFailed(f"{where} answers more than {MAX_BYTES} bytes")
                nonce = response.headers.get("replay-nonce")
                # RFC 8555 6.5.1: base64url, or it is to be ignored.
                if nonce and nonce.isascii() and nonce.replace("-", "").replace("_", "").isalnum():
                    self._nonce = nonce
                return _Answer(response.status_code, response.headers, bytes(got))
        except TimeoutError:
            raise AcmeFailed(f"{where} did not answer within {REQUEST_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
            raise AcmeFailed(f"{where} cannot be asked: {said[:200]}") from None

    def _refused(self, answer: _Answer) -> AcmeFailed:
        wait_s = retry_after_s(answer.headers.get("retry-after"), _wall())
        return read_problem(answer.status, answer.body, wait_s)

    async def _wait(self, answer: _Answer, look_s: float) -> float:
        """Wait for the next look; the answer is the wait after that."""
        asked_s = retry_after_s(answer.headers.get("retry-after"), _wall())
        await asyncio.sleep(min(asked_s, ORDER_S) if asked_s else look_s)
        return min(look_s * 1.5, LONGEST_LOOK_S)


def _unseen(found: Authorization) -> AcmeFailed:
    why = f": {found.failure}" if found.failure is not None else ""
    return AcmeFailed(f"{found.domain} is {found.status}{why}", is_validation=True)


def _window(body: bytes) -> tuple[float, float] | None:
    import json
    from datetime import datetime

    try:
        said = json.loads(body)["suggestedWindow"]
        start, end = (datetime.fromisoformat(said[name]).timestamp() for name in ("start", "end"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return (start, end) if start < end else None


def _wall() -> float:
    return time.time()  # noqa: TID251  dates of HTTP
