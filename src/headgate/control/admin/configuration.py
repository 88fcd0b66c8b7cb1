"""The configuration over the API: read, try, compare, apply, and go back.

Theory of operation
-------------------
`GET /api/config` has an ETag, of what serves and of the file as it is on the disk; a change names
it in `If-Match`, so that neither another client nor an editor loses what it wrote.

A change is a text. It is written beside the file and tried there as a reload would try it; what was
tried takes the file's place, and a reload follows. When any worker refuses, the old file comes back
and the old configuration has never stopped serving. One change at a time; a client that leaves does
not stop one that has begun.

Whoever may not write gets a smaller trial: names in Vault are not looked up and plugins are not
loaded, because a text may say where Vault is and which code to run.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from headgate.config import Loaded, load
from headgate.control.admin import models
from headgate.control.admin.audit import actor_of
from headgate.control.admin.etags import answer, check_match, etag
from headgate.control.admin.models import Answer
from headgate.control.admin.paging import Cursor, Limit, page
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.roles import Role
from headgate.control.auditing import shown_changes
from headgate.control.config_file import NotWritable
from headgate.control.config_history import in_words
from headgate.control.control import Control
from headgate.control.fault_rows import fault_text
from headgate.control.redaction import brought_in, redact
from headgate.control.trial import folder_of, trial
from headgate.errors import ConfigInvalid, Fault, HeadgateError

__all__ = ["add_configuration"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_TEXT: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The file's text: YAML, or JSON, which is YAML too.",
        "content": {
            "application/yaml": {
                "schema": {"type": "string"},
                "example": "listeners: [{bind: 127.0.0.1:8080}]\n"
                "routes: [{name: hello, match: {path: /}, respond: {body: hello}}]\n",
            }
        },
    }
}
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class ConfigChange(Answer):
    path: str
    before: Any = None
    after: Any = None
    changed: str = ""
    """`a secret`, when the values may not be shown."""


class ConfigDiff(Answer):
    count: int
    """How many changes there are; the first hundred are listed."""
    words: list[str]
    """The same as sentences."""
    changes: list[ConfigChange]


class ConfigVerdict(Answer):
    ok: bool
    faults: list[models.Fault] = Field(default_factory=list)
    warnings: list[models.Fault] = Field(default_factory=list)
    diff: ConfigDiff | None = None
    """What it would change; null with faults."""


class ConfigVersion(Answer):
    number: int
    at: float
    """In seconds since 1970."""
    reason: str
    """Who or what brought it."""
    ok: bool
    generation: int
    words: list[str]
    """What it changed against the version before it."""
    faults: list[str]
    """Why it was refused."""
    is_restorable: bool
    why_not: str = ""


class ConfigVersions(Answer):
    versions: list[ConfigVersion]
    """The newest first."""
    next: str | None = None
    total: int


class ConfigVersionWhole(ConfigVersion):
    document: dict[str, Any]
    """With references in place of their values, and `***` for other secrets."""


_DIFF: dict[int | str, dict[str, Any]] = {
    422: {"description": "The text has faults", "content": _PROBLEM}
}
_WRITE: dict[int | str, dict[str, Any]] = {
    403: {"description": "`admin.config_writes` is off", "content": _PROBLEM},
    409: {"description": "The file cannot be written, or not restored", "content": _PROBLEM},
    412: {"description": "It has changed since it was read", "content": _PROBLEM},
    422: {"description": "The text has faults, or a worker refused it", "content": _PROBLEM},
    428: {"description": "If-Match is missing", "content": _PROBLEM},
    507: {"description": "The disk is full", "content": _PROBLEM},
}


class _Writing:
    """One change at a time."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[models.Reload]] = set()

    async def apply(
        self, request: Request, text: Callable[[], Any], what: str, *, is_tag_required: bool
    ) -> models.Reload:
        control = self._control
        if not control.current.config.admin.config_writes:
            raise Problem(
                403,
                "the file is not written by this API; set admin.config_writes: on in it, or change "
                "it in place and reload",
            )
        reason = f"{what} by {actor_of(request.scope)}"
        work = self._apply(request, text, reason, is_tag_required=is_tag_required)
        # A task of its own: a client that leaves must not end it between the file and the reload.
        task = asyncio.get_running_loop().create_task(work, name="config write")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _apply(
        self, request: Request, text: Callable[[], Any], reason: str, *, is_tag_required: bool
    ) -> models.Reload:
        control = self._control
        file = control.versions.file
        async with self._lock:
            check_match(
                request, await asyncio.to_thread(_tag, control), is_required=is_tag_required
            )
            content: bytes = await asyncio.to_thread(text)
            draft: Path | None = None
            try:
                draft = await asyncio.to_thread(file.draft, content)
                try:
                    loaded = await asyncio.to_thread(_try, draft, control)
                except ConfigInvalid as error:
                    raise _faulty(_named(error.faults, draft, file.path)) from error
                del loaded
                # Whoever comes after us, if we are killed in between, will know from this.
                await asyncio.to_thread(control.versions.begin_change, reason)
                try:
                    backup = await asyncio.to_thread(file.swap, draft)
                except BaseException:
                    await asyncio.to_thread(control.versions.end_change)
                    raise
            except NotWritable as error:
                raise Problem(409, str(error)) from error
            except OSError as error:
                raise _no_room(error) from error
            finally:
                if draft is not None:
                    draft.unlink(missing_ok=True)
            try:
                result = await control.reload(reason)
            except BaseException:
                await asyncio.to_thread(file.restore, backup)
                await asyncio.to_thread(control.versions.end_change)
                raise
            if not result.ok:
                await asyncio.to_thread(file.restore, backup)
            await asyncio.to_thread(control.versions.end_change)
            if not result.ok:
                raise Problem(
                    422,
                    "refused, and the file is as it was: "
                    + "; ".join(fault_text(fault) for fault in result.faults),
                    generation=result.generation,
                    faults=result.faults,
                )
            return models.Reload.model_validate(asdict(result))


def add_configuration(router: APIRouter, control: Control) -> None:
    writing = _Writing(control)

    @router.get("/api/config", tags=["configuration"], response_model=models.Config)
    async def config(request: Request) -> Response:
        """The configuration that serves, without its secrets. Its ETag is for `If-Match`."""
        current = control.current
        content = models.Config(
            generation=current.generation,
            file=control.start.config_file,
            loaded_at=current.loaded_at,
            files=list(current.outline.files),
            document=redact(current.document, current.outline.hidden),
        )
        tag = await asyncio.to_thread(_tag, control)
        return answer(request, content.model_dump(mode="json"), tag=tag)

    @router.post("/api/config/validate", tags=["configuration"], openapi_extra=_TEXT)
    async def validate(request: Request) -> ConfigVerdict:
        """Every fault of a text with its line, and what it would change. Changes nothing."""
        try:
            loaded, faults = await _tried(request, control)
        except ConfigInvalid as error:
            return ConfigVerdict(
                ok=False,
                faults=[_fault(one) for one in error.faults if one.level == "error"],
                warnings=[_fault(one) for one in error.faults if one.level != "error"],
            )
        return ConfigVerdict(
            ok=True,
            warnings=[_fault(one) for one in faults],
            diff=_against(control, loaded),
        )

    @router.post("/api/config/diff", tags=["configuration"], openapi_extra=_TEXT, responses=_DIFF)
    async def diff(request: Request) -> ConfigDiff:
        """What a text would change in what serves now."""
        try:
            loaded, _faults = await _tried(request, control)
        except ConfigInvalid as error:
            raise _faulty(error.faults) from error
        return _against(control, loaded)

    @router.put("/api/config", tags=["configuration"], openapi_extra=_TEXT, responses={**_WRITE})
    async def put(request: Request) -> models.Reload:
        """Write the file and reload. All workers take it up, or the file stays as it was."""
        text = await request.body()
        return await writing.apply(request, lambda: text, "PUT /api/config", is_tag_required=True)

    @router.get("/api/config/history", tags=["configuration"])
    async def history(
        request: Request, response: Response, limit: Limit = 100, cursor: Cursor = ""
    ) -> ConfigVersions:
        """The versions that served, and those that were refused."""
        versions = await asyncio.to_thread(control.versions.versions)
        found = page(versions, limit=limit, cursor=cursor, key=lambda one: -one.number)
        response.headers.update(found.headers(request))
        rows = [ConfigVersion.model_validate(_row(one)) for one in found.items]
        return ConfigVersions(versions=rows, next=found.next, total=found.total)

    @router.get(
        "/api/config/history/{number}",
        tags=["configuration"],
        responses={404: {"description": "There is no such version", "content": _PROBLEM}},
    )
    async def version(number: int) -> ConfigVersionWhole:
        """One version, without its secrets."""
        kept = await _kept(control, number)
        return ConfigVersionWhole.model_validate({**_row(kept.version), "document": kept.document})

    @router.get(
        "/api/config/diff",
        tags=["configuration"],
        responses={404: {"description": "There is no such version", "content": _PROBLEM}},
    )
    async def between(
        before: Annotated[int, Query(alias="from", description="A version")],
        to: Annotated[int | None, Query(description="Another; by default what serves")] = None,
    ) -> ConfigDiff:
        """What is different between two versions. A secret that changed may not show."""
        old = (await _kept(control, before)).document
        if to is None:
            new = redact(control.current.document, control.current.outline.hidden)
            new.pop("state_dir", None)
        else:
            new = (await _kept(control, to)).document
        return _diff(*shown_changes(old, new, ()))

    @router.post(
        "/api/config/rollback/{number}",
        tags=["configuration"],
        responses={**_WRITE, 404: {"description": "There is no such version", "content": _PROBLEM}},
    )
    async def rollback(number: int, request: Request) -> models.Reload:
        """Write the file as it was in a version, and reload. References are restored as they
        stood, and bring in what they name today. A version in which secrets stood as they are was
        not kept whole, and is refused.
        """
        kept = await _kept(control, number)
        if kept.text is None:
            why = kept.version.why_not or "its text was not kept"
            raise Problem(409, f"version {number} cannot be restored: {why}")
        text = kept.text.encode()
        return await writing.apply(
            request, lambda: text, f"rollback to version {number}", is_tag_required=False
        )


# -- trying ----------------------------------------------------------------------------------


async def _tried(request: Request, control: Control) -> tuple[Loaded, tuple[Fault, ...]]:
    """The text of the request, loaded; Problem or ConfigInvalid."""
    text = await request.body()
    caller = request.scope.get("state", {}).get("caller")
    is_whole = caller is None or caller.role is Role.ADMIN
    file = control.versions.file

    def work() -> tuple[Loaded, tuple[Fault, ...]]:
        draft = file.draft(text)
        try:
            if is_whole:
                loaded, warnings = _try(draft, control)
            else:
                loaded = load(draft, offline=True)
                warnings = loaded.warnings
        except ConfigInvalid as error:
            raise ConfigInvalid(_named(error.faults, draft, file.path)) from error
        finally:
            draft.unlink(missing_ok=True)
        return loaded, _named(warnings, draft, file.path)

    try:
        return await asyncio.to_thread(work)
    except NotWritable as error:
        raise Problem(409, f"it is tried beside the file, and {error}") from error
    except OSError as error:
        raise _no_room(error) from error
    except ConfigInvalid:
        raise
    except HeadgateError as error:
        raise Problem(422, str(error)) from error


def _try(draft: Path, control: Control) -> tuple[Loaded, tuple[Fault, ...]]:
    """As a reload would. Runs on a thread."""
    loaded = load(draft)
    _plan, warnings = trial(loaded, draft)
    control.access.try_tls(loaded.config.admin, folder_of(draft))
    return loaded, (*loaded.warnings, *warnings)


def _named(faults: tuple[Fault, ...], draft: Path, file: Path) -> tuple[Fault, ...]:
    """Faults as of the file, which is what the reader knows."""

    def own(text: str) -> str:
        return text.replace(str(draft), str(file)).replace(draft.name, file.name)

    return tuple(
        replace(one, file=own(one.file), message=own(one.message), hint=own(one.hint))
        for one in faults
    )


def _fault(fault: Fault) -> models.Fault:
    known = models.Fault.model_fields
    return models.Fault.model_validate(
        {name: value for name, value in asdict(fault).items() if name in known}
    )


def _faulty(faults: tuple[Fault, ...]) -> Problem:
    errors = [one for one in faults if one.level == "error"]
    return Problem(
        422,
        "; ".join(str(one) for one in errors[:20]),
        faults=[_fault(one).model_dump() for one in errors],
    )


def _no_room(error: OSError) -> Problem:
    if error.errno in _FULL:
        return Problem(507, "the disk is full: nothing was changed; make room and try again")
    return Problem(409, f"the file cannot be written: {error.strerror or error}")


# -- comparing -------------------------------------------------------------------------------


def _against(control: Control, loaded: Loaded) -> ConfigDiff:
    current = control.current
    hidden = (*current.outline.hidden, *brought_in(loaded.files, kept=loaded.hidden))
    own = {"state_dir", "workers"}
    before = {key: value for key, value in current.document.items() if key not in own}
    after = {key: value for key, value in loaded.document.items() if key not in own}
    return _diff(*shown_changes(before, after, hidden))


def _diff(rows: list[dict[str, Any]], count: int) -> ConfigDiff:
    changes = [ConfigChange.model_validate(row) for row in rows]
    return ConfigDiff(count=count, words=in_words(rows), changes=changes)


def _tag(control: Control) -> str:
    """Blocks for the file. Without the generation: a reload that changes nothing keeps it."""
    current = control.current
    shown = redact(current.document, current.outline.hidden)
    return etag([shown, control.versions.tag_of_file()])


async def _kept(control: Control, number: int) -> Any:
    found = await asyncio.to_thread(control.versions.get, number)
    if found is None:
        raise Problem(404, f"there is no version {number}; see /api/config/history")
    return found


def _row(version: Any) -> Mapping[str, Any]:
    row = asdict(version)
    del row["bytes"]
    return row
