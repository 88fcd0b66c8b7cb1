"""Errors of the admin API as problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

__all__ = ["Problem", "install", "problem"]

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """Raised by an endpoint to answer with a problem."""

    def __init__(self, status: int, detail: str, **members: Any) -> None:
        self.status = status
        self.detail = detail
        self.members = members
        super().__init__(status, detail)


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> JSONResponse:
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(
        {**content, **members}, status, {"cache-control": "no-store", **(headers or {})}, MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Have every error of this app answered as a problem."""

    @app.exception_handler(Problem)
    async def _known(_request: Request, error: Problem) -> Response:
        return problem(error.status, error.detail, **error.members)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        # Never the input itself: it may be a header with a credential.
        faults = [
            {"where": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors()
        ]
        return problem(422, "the request does not have the form that /docs shows", faults=faults)

    @app.exception_handler(Exception)
    async def _unknown(_request: Request, _error: Exception) -> Response:
        return problem(500, "a fault of Headgate; the log of the control process has the details")
