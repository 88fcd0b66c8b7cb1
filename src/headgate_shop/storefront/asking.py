"""One question to another service, whatever becomes of it.

Theory of operation
-------------------
A page is made of answers of several services, and none of them may take the page down with it. So
`ask` never raises for what happens between services: it answers a `Reply`, which is an answer, a
refusal with a problem, or that the service is away. What a page then does about it stands in the
page. Only a cancelled request passes through.

`away` is: no answer in time, no instance, an open breaker, a 5xx, a 429, or a body that is not JSON
where JSON was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate.observe import logs

__all__ = ["AWAY", "Reply", "ask"]

log = logs.get("shop.storefront")


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    """0: nobody answered."""
    data: Any = None
    tags: tuple[str, ...] = ()
    """What the answer was made of (`Cache-Tag`)."""

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_away(self) -> bool:
        return self.status == 0 or self.status >= 500 or self.status == 429

    @property
    def code(self) -> str:
        """By which a program tells refusals apart."""
        return self.member("code")

    @property
    def detail(self) -> str:
        return self.member("detail")

    def member(self, name: str) -> str:
        found = self.data.get(name) if isinstance(self.data, Mapping) else None
        return found if isinstance(found, str) else ""


AWAY: Final = Reply(0)


async def ask(
    mesh: Mesh,
    service: str,
    method: str,
    path: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str | int] | None = None,
    json: object = None,
) -> Reply:
    try:
        answer = await mesh.service(service).request(
            method,
            path,
            params=params,
            json=json,
            headers={"accept": "application/json", **(headers or {})},
            timeout=timeout_s,
        )
    except HeadgateError as error:
        log.warning("a service is away", asked=service, path=path, why=str(error))
        return AWAY
    status = answer.status_code
    try:
        data = answer.json() if answer.content else None
    except (ValueError, RecursionError):
        log.warning("a service answered what is not JSON", asked=service, path=path, status=status)
        return Reply(status) if status >= 400 else AWAY
    tags = answer.headers.get("cache-tag", "")
    return Reply(status, data, tuple(tag.strip() for tag in tags.split(",") if tag.strip()))
