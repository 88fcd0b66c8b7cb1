"""How partners answer what they do not take: in words of their own, each in another shape."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from headgate_shop.partners.mood import Refusal

__all__ = ["Refused", "answer_refusals"]


class Refused(Exception):
    """Raised by a partner's handler, answered as it says."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(f"{status}")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refusal = Refusal(status, body, named)


def answer_refusals(api: FastAPI) -> None:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, Refused):
            raise error
        one = error.refusal
        return JSONResponse(one.body, one.status, headers=dict(one.headers))

    api.add_exception_handler(Refused, answer)
