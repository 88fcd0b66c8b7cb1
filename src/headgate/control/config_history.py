"""The versions of the configuration: what served when, who brought it, what was refused.

Theory of operation
-------------------
Each reload that changed something, and each that was refused, is one file in `config-history` in
the state directory: written whole or not at all, numbered, the oldest going first. Files, not a
database: there are a hundred, one is written in minutes at the least, and a spoilt one spoils no
other.

What is kept holds no secret that we know of:

- the *document*, with references resolved and then hidden again as in `redaction`: for reading and
  comparing;
- the *text* of the file, with its references as they stand there: for going back. A text in which a
  secret stands as it is, and not as a reference, is not kept; that version can be looked at, and to
  go back to it is refused, with the fields in question. A rollback so restores references and
  never values.

A version that cannot be written (a full disk) is told, waits in memory and is tried again, once a
minute and before the next one; reloads go on. Of those that wait the oldest is lost and counted
when they become too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from headgate.control.auditing import shown_changes
from headgate.control.config_file import ConfigFile
from headgate.control.redaction import redact
from headgate.control.reload import ReloadResult

__all__ = ["ConfigHistory", "Version", "in_words", "literal_secrets"]

FOLDER: Final = "config-history"
KEY: Final = "key"
CHANGING: Final = "changing"
AGAIN_S: Final = 60.0
MOST_BYTES: Final = 64 * 1024 * 1024
_NUMBERED: Final = re.compile(r"(\d{6,9})\.json")
_REFERENCE: Final = re.compile(r"\$\{(?:env|file|vault|secret):[^{}]+\}")
_LONGEST_HIDDEN: Final = 7
_SCHEMES: Final = frozenset({"", "bearer", "basic", "token"})
_WORDS_MAX: Final = 50
_TOLD: Final = 5
_LONGEST_LINE: Final = 500
_MOST_UNWRITTEN: Final = 10

log = logging.getLogger("headgate.control")


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at: float
    """Wall time."""
    reason: str
    """Who or what brought it."""
    ok: bool
    generation: int
    words: tuple[str, ...] = ()
    """What it changed."""
    faults: tuple[str, ...] = ()
    """Why it was refused."""
    is_restorable: bool = False
    why_not: str = ""
    bytes: int = 0

    @property
    def said(self) -> str:
        """In a line."""
        told = "; ".join((self.words if self.ok else self.faults)[:_TOLD])
        return f"{self.reason}: {'' if self.ok else 'refused: '}{told}"[:_LONGEST_LINE]


@dataclass(frozen=True, slots=True)
class Kept:
    """A version with what it holds."""

    version: Version
    document: dict[str, Any] = field(repr=False)
    text: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A reload on its way to being a version; without secrets."""

    result: ReloadResult
    shown: dict[str, Any] = field(repr=False)
    text: str | None = field(repr=False)
    why_not: str


class ConfigHistory:
    def __init__(self, state_dir: Path, config_file: Path) -> None:
        self._folder = state_dir / FOLDER
        self.file = ConfigFile(config_file)
        self._most = 100
        self._versions: list[Version] | None = None
        self._latest: dict[str, Any] | None = None
        self._trouble = ""
        self._cut_off = ""
        self._spoilt: list[str] = []
        self._key = b""
        self._unwritten: deque[_Unwritten] = deque()
        self._writing = threading.Lock()
        self.lost = 0

    def take(self, most: int) -> None:
        self._most = most

    def worries(self) -> Iterable[str]:
        if self._trouble:
            yield f"versions of the configuration cannot be kept: {self._trouble}"
        if self._spoilt:
            yield f"{len(self._spoilt)} kept versions are spoilt and were moved aside"
        if self._cut_off:
            yield (
                f"{self._cut_off} was cut off: the file may differ from what serves; reload to take"
                f" it up, or put {self.file.path.name}.bak in its place first"
            )

    # -- changes under way ---------------------------------------------------------------------

    def begin_change(self, reason: str) -> None:
        """The file is about to be another than what serves. Blocks for one file."""
        with contextlib.suppress(OSError):  # a full disk: then the change itself will not go far
            self._prepare()
            self._put(self._folder / CHANGING, reason.encode("utf-8", "replace")[:_LONGEST_LINE])

    def end_change(self) -> None:
        """What serves is of the file again."""
        self._cut_off = ""
        with contextlib.suppress(OSError):
            (self._folder / CHANGING).unlink(missing_ok=True)

    def _look_for_change(self, started: float) -> None:
        """One that a process before this had begun in this run and did not end."""
        path = self._folder / CHANGING
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < started:
                path.unlink()  # the run has read the file since
                return
            said = path.read_bytes()[:_LONGEST_LINE].decode("utf-8", "replace")
            self._cut_off = "".join(each for each in said if each.isprintable()) or "a change"

    # -- keeping -------------------------------------------------------------------------------

    def look(self) -> bytes | None:
        """The file as it is, before it is read for a reload. Runs on a thread."""
        return self.file.read()

    def begin(
        self,
        started: float,
        generation: int,
        document: Mapping[str, Any],
        hidden: Sequence[tuple[str, str]],
    ) -> None:
        """Keep what serves at the start, if it is news."""
        self._look_for_change(started)
        text = self.file.read()
        with contextlib.suppress(OSError):
            if self.file.path.stat().st_mtime > started:
                text = None  # it was written since, and is not what was loaded
        result = ReloadResult(ok=True, generation=generation, reason="the start", at=started)
        self._kept(text, result, document, hidden)

    def keep(
        self,
        text: bytes | None,
        result: ReloadResult,
        document: Mapping[str, Any],
        hidden: Sequence[tuple[str, str]],
    ) -> Version | None:
        """After a reload: the version it made, if it changed anything or was refused. `text` is the
        file as it was before; `document` what serves now.
        """
        if result.ok and self._cut_off:
            self.end_change()
        return self._kept(text, result, document, hidden)

    def _kept(
        self,
        text: bytes | None,
        result: ReloadResult,
        document: Mapping[str, Any],
        hidden: Sequence[tuple[str, str]],
    ) -> Version | None:
        shown: dict[str, Any] = {}
        kept_text, why_not = None, "it was refused"
        if result.ok:
            shown = redact({key: document[key] for key in document if key != "state_dir"}, hidden)
            kept_text, why_not = self._text_of(text, hidden)
        with self._writing:
            self._unwritten.append(_Unwritten(result, shown, kept_text, why_not))
            made = self._write_all()
            while len(self._unwritten) > _MOST_UNWRITTEN:
                self._unwritten.popleft()
                self.lost += 1
            return made

    async def keep_trying(self, every_s: float = AGAIN_S) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            if not self._unwritten:
                continue
            try:
                await asyncio.to_thread(self.try_again)
            except Exception:
                log.exception("versions of the configuration could not be written")

    def try_again(self) -> None:
        """Write what could not be written before. Blocks for some files."""
        with self._writing:
            if self._unwritten:
                self._write_all()

    def _write_all(self) -> Version | None:
        """Write what waits, the oldest first; the version that the newest made."""
        made = None
        while self._unwritten:
            try:
                made = self._keep(self._unwritten[0])
            except OSError as error:
                why = error.strerror or str(error)
                if why != self._trouble:
                    log.error("a version of the configuration cannot be kept: %s", why)  # noqa: TRY400
                self._trouble = why
                return None
            self._unwritten.popleft()
        self._trouble = ""
        return made

    def _keep(self, waiting: _Unwritten) -> Version | None:
        result, shown = waiting.result, waiting.shown
        versions = self._all()
        number = versions[-1].number + 1 if versions else 1
        if not result.ok:
            faults = tuple(str(fault.get("message", ""))[:500] for fault in result.faults[:20])
            made = Version(
                number,
                result.at,
                result.reason,
                ok=False,
                generation=result.generation,
                faults=faults,
                why_not=waiting.why_not,
            )
            self._write(Kept(made, {}, None))
            return made
        before = self._last_document()
        if before is not None and before == shown and versions:
            return None
        rows, _count = shown_changes(before, shown, ()) if before is not None else ([], 0)
        words = tuple(in_words(rows)) if before is not None else ("the first version",)
        made = Version(
            number,
            result.at,
            result.reason,
            ok=True,
            generation=result.generation,
            words=words[:_WORDS_MAX],
            is_restorable=waiting.text is not None,
            why_not=waiting.why_not,
        )
        self._write(Kept(made, shown, waiting.text))
        self._latest = shown
        return made

    def _text_of(
        self, text: bytes | None, hidden: Sequence[tuple[str, str]]
    ) -> tuple[str | None, str]:
        """The text if it may be kept, or why not."""
        if text is None:
            return None, "it is not one file, or the file changed while it was read"
        if self.file.read() != text:
            return None, "the file changed while it was read"
        try:
            content = text.decode("utf-8-sig")
            raw = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        except (ValueError, yaml.YAMLError, RecursionError):
            return None, "its text cannot be looked through for secrets"
        found = list(literal_secrets(raw))
        if found:
            shown = ", ".join(found[:5])
            return None, f"secrets stand in it as they are, and not as references: {shown}"
        if any(len(value) > _LONGEST_HIDDEN and value in content for value, _ in hidden):
            return None, "the value of a reference stands in it as it is"
        return content, ""

    # -- reading -------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Newest first. Reads the folder the first time."""
        return list(reversed(self._all()))

    def get(self, number: int) -> Kept | None:
        """A version whole. Blocks for one file."""
        if not any(one.number == number for one in self._all()):
            return None
        return self._read(self._path(number))

    def tag_of_file(self) -> str:
        """Changes with the file; nobody can guess at its secrets by it."""
        text = self.file.read()
        if text is None:
            return ""
        return hmac.new(self._own_key(), text, hashlib.sha256).hexdigest()

    def _own_key(self) -> bytes:
        if not self._key:
            path = self._folder / KEY
            with contextlib.suppress(OSError):
                self._key = path.read_bytes()
            if len(self._key) != 32:
                self._key = secrets.token_bytes(32)
                with contextlib.suppress(OSError):
                    self._prepare()
                    self._put(path, self._key)
        return self._key

    def _last_document(self) -> dict[str, Any] | None:
        if self._latest is None:
            for version in reversed(self._all()):
                if version.ok and (found := self._read(self._path(version.number))) is not None:
                    self._latest = found.document
                    break
        return self._latest

    def _all(self) -> list[Version]:
        if self._versions is None:
            found = []
            with contextlib.suppress(OSError):
                for path in sorted(self._folder.iterdir()):
                    if _NUMBERED.fullmatch(path.name):
                        kept = self._read(path)
                        if kept is not None:
                            found.append(kept.version)
            self._versions = sorted(found, key=lambda one: one.number)
        return self._versions

    def _read(self, path: Path) -> Kept | None:
        try:
            row = json.loads(path.read_bytes())
            said = row["version"]
            version = Version(
                **{**said, "words": tuple(said["words"]), "faults": tuple(said["faults"])}
            )
            if version.number != int(path.stem):
                raise ValueError(path.name)
            document, text = row["document"], row["text"]
            if not isinstance(document, dict) or not isinstance(text, str | None):
                raise TypeError(path.name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            log.warning("%s is spoilt and is moved aside", path)
            self._spoilt.append(path.name)
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".spoilt"))
            return None
        return Kept(version, document, text)

    # -- files ---------------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _write(self, kept: Kept) -> None:
        self._prepare()
        versions = self._all()
        content = json.dumps(
            {"version": asdict(kept.version), "document": kept.document, "text": kept.text}
        ).encode("utf-8", "surrogatepass")
        self._put(self._path(kept.version.number), content)
        versions.append(_with_size(kept.version, len(content)))
        total = sum(one.bytes for one in versions)
        while len(versions) > self._most or (total > MOST_BYTES and len(versions) > 1):
            gone = versions.pop(0)
            total -= gone.bytes
            with contextlib.suppress(OSError):  # the new one is written all the same
                self._path(gone.number).unlink(missing_ok=True)

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _with_size(version: Version, size: int) -> Version:
    return Version(
        **{name: getattr(version, name) for name in Version.__slots__ if name != "bytes"},
        bytes=size,
    )


def literal_secrets(raw: Any, path: str = "", name: str = "") -> Iterator[str]:
    """Where in a document as it was written secrets stand as they are."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield from literal_secrets(value, f"{path}.{key}" if path else str(key), str(key))
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from literal_secrets(value, f"{path}[{index}]", name)
    elif isinstance(raw, str | int | float) and not isinstance(raw, bool):
        text = str(raw)
        # A default after `:-` is a value, and the name of a variable is none.
        left = _REFERENCE.sub(lambda found: found[0].partition(":-")[2].removesuffix("}"), text)
        # Of `Bearer ${env:TOKEN}` the name of the scheme is left, which is none either.
        if left.strip().lower() not in _SCHEMES and redact(left, (), name) != left:
            yield path


_NAMED: Final = re.compile(
    r"^(routes|listeners|services)(?:\[(?:name|bind)=([^\]]*)\]|\.([^.\[]+)|\[\"([^\"]*)\"\])(.*)$"
)


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Changes as sentences; those of one route or service beside each other."""
    return [_sentence(row) for row in rows]


def _sentence(row: Mapping[str, Any]) -> str:
    path = str(row["path"])
    found = _NAMED.match(path)
    what, rest = path, ""
    if found is not None:
        kind, name, plain, quoted, rest = found.groups()
        what = f"{kind.removesuffix('s')} {name or plain or quoted}"
        rest = rest.lstrip(".")
    subject = f"{what}: {rest}" if rest else what
    if "changed" in row:
        return f"{subject} changed (a secret)"
    if "before" not in row:
        return f"{subject} added" if not rest and found else f"{subject} = {_brief(row['after'])}"
    if "after" not in row:
        return f"{subject} removed"
    return f"{subject} {_brief(row['before'])} -> {_brief(row['after'])}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
