"""Calling a function of a service: `await users.call("get_user", id=42)`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HeadgateError
from headgate.mesh.client.answering import encoded, what_it_says
from headgate.mesh.client.failures import CallFailed
from headgate.mesh.client.openapi import Document, request_of

if TYPE_CHECKING:
    from headgate.mesh.client.service import Service

__all__ = ["Functions"]

_PATH: Final = "/openapi.json"
_AGAIN_S: Final = 30.0
"""A service that learns a function while we run is asked for its document again."""


class Functions:
    """The functions of one service, by its document."""

    def __init__(self, service: Service, source: object = None) -> None:
        self._service = service
        self._source = source
        self._document: Document | None = None
        self._read_at = 0.0

    async def call(self, function: str, arguments: Mapping[str, Any]) -> Any:
        service = self._service
        document = self._document or await self._read()
        operation = document.find(function)
        if operation is None and self._is_remote and monotonic() - self._read_at > _AGAIN_S:
            document = await self._read()
            operation = document.find(function)
        if operation is None:
            raise document.unknown(function, service.name)
        what = f"{service.name}.{function}"
        asked = request_of(operation, arguments, what, document.prefix)
        response = await service.request(
            asked.method,
            asked.path,
            params=asked.params,
            headers=asked.headers,
            json=encoded(asked.json),
            data=asked.data,
        )
        if response.is_error:
            said = what_it_says(response) or operation.says(response.status_code)
            raise CallFailed(what, response, said)
        return _content(response)

    @property
    def _is_remote(self) -> bool:
        return self._source is None or (
            isinstance(self._source, str)
            and self._source.startswith("/")
            and not _is_file(self._source)
        )

    async def _read(self) -> Document:
        name = self._service.name
        source = self._source
        if isinstance(source, Mapping):
            where, content = "its document", source
        elif source is not None and not self._is_remote:
            where = str(source)
            content = _of_file(Path(os.fspath(source)))  # type: ignore[call-overload]
        else:
            where = str(source or _PATH)
            response = await self._service.get(where)
            if response.is_error:
                raise CallFailed(
                    f"{name} {where}", response, "give its document: service(..., openapi=...)"
                )
            try:
                content = response.json()
            except (ValueError, RecursionError) as error:
                raise HeadgateError(f"{name}: {where} is no JSON") from error
        try:
            self._document = Document(content)
        except ValueError as error:
            raise HeadgateError(f"{name}: {where} {error}") from None
        self._read_at = monotonic()
        return self._document


def _is_file(name: str) -> bool:
    return Path(name).is_file()


def _of_file(path: Path) -> Any:
    try:
        text = path.read_text()
    except OSError as error:
        raise HeadgateError(f"{path} cannot be read: {error.strerror}") from None
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise HeadgateError(f"{path} is no JSON: {error}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise HeadgateError(f"{path} is no YAML: {error}") from None


def _content(response: Any) -> Any:
    """What was answered, as Python has it."""
    if response.status_code == 204 or not response.content:
        return None
    kind = response.headers.get("content-type", "")
    if "json" in kind:
        return response.json()
    return response.text if kind.startswith("text/") else response.content
