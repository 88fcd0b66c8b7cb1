"""The tokens of the admin API: those of the file, and those made at run time.

Theory of operation
-------------------
A token is `hg_`, eight letters by which people tell tokens apart, `_`, and 256 random bits. Only
its SHA-256 is kept: with that many bits nothing slower is needed, and looking for it in a table of
hashes tells nothing by the time it takes. What is made at run time is in `admin-tokens.json` in the
state directory, written whole or not at all; a file that cannot be read is moved aside and told,
and its tokens are refused: better nobody than anybody.

The token in `admin-token` (or `admin.token`) is as it always was, and is an admin's.

When a token was last used is noted in memory and written once a minute at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from headgate.config.admin import AdminSpec, AdminTokenSpec
from headgate.control.admin.roles import Role

__all__ = ["Caller", "Token", "TokenBook", "TokenRefused", "digest_of"]

FILE: Final = "admin-tokens.json"
TOKENS_MAX: Final = 1000
SAVE_EVERY_S: Final = 60.0
LONGEST: Final = 1024
_LETTERS: Final = string.ascii_lowercase + "234567"
_HASH_FILE_BYTES: Final = 4096

log = logging.getLogger("headgate.control")


class TokenRefused(ValueError):
    """A token cannot be made so; the text says why."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    """As the audit log says it."""
    role: Role
    kind: Literal["token", "certificate", "user", "nobody"] = "token"
    token_id: str = ""
    services: tuple[str, ...] = ()
    """Of the role `service`: those that it speaks for; none named: for all."""

    def speaks_for(self, service: str) -> bool:
        return not self.services or service in self.services


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Not the token."""

    id: str
    name: str
    role: Role
    digest: str
    source: Literal["file", "made"]
    made_at: float | None = None
    made_by: str = ""
    expires: float | None = None
    last_used: float | None = None
    services: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Token({self.id!r}, {self.name!r}, {self.role.value!r})"

    def is_over(self, wall: float) -> bool:
        return self.expires is not None and wall >= self.expires


def digest_of(token: str) -> str:
    return hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).hexdigest()


class TokenBook:
    """All tokens but the first one. One object, used on the loop; it blocks for a small file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._made: dict[str, Token] = {}
        self._filed: dict[str, Token] = {}
        self._by_file: list[tuple[Path, AdminTokenSpec]] = []
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._by_digest: dict[str, Token] = {}
        self._used: dict[str, float] = {}
        self._saved_at = 0.0
        self.trouble = ""
        self._read()

    # -- asking --------------------------------------------------------------------------------

    def known(self, presented: str, wall: float) -> Caller | None:
        """Whose token this is, if it is good now."""
        if not presented or len(presented) > LONGEST:
            return None
        if self._by_file:
            self._look_again()
        token = self._by_digest.get(digest_of(presented))
        if token is None or token.is_over(wall):
            return None
        self._used[token.id] = wall
        if wall - self._saved_at > SAVE_EVERY_S and token.source == "made":
            self._saved_at = wall
            with contextlib.suppress(OSError):
                self._write()
        return Caller(f"token/{token.name}", token.role, "token", token.id, token.services)

    def all(self) -> list[Token]:
        """Each with when it was last used, by name."""
        found = [*self._filed.values(), *self._made.values()]
        return sorted(
            (replace(one, last_used=self._used.get(one.id, one.last_used)) for one in found),
            key=lambda one: (one.name, one.id),
        )

    def get(self, token_id: str) -> Token | None:
        return next((one for one in self.all() if one.id == token_id), None)

    # -- changing ------------------------------------------------------------------------------

    def make(
        self,
        name: str,
        role: Role,
        *,
        by: str,
        wall: float,
        expires: float | None = None,
        services: tuple[str, ...] = (),
    ) -> tuple[str, Token]:
        """A new token, and what is known of it. OSError when it cannot be kept."""
        if any(one.name == name for one in self.all() if not one.is_over(wall)) or name == "admin":
            raise TokenRefused(f'there is a token named "{name}" already')
        if services and role is not Role.SERVICE:
            raise TokenRefused("only the role service is for certain services")
        if expires is not None and expires <= wall:
            raise TokenRefused("it would have expired before it was made")
        self._made = {key: one for key, one in self._made.items() if not self._is_stale(one, wall)}
        if len(self._made) >= TOKENS_MAX:
            raise TokenRefused(f"there are {TOKENS_MAX} tokens already; revoke some")
        token_id = "".join(secrets.choice(_LETTERS) for _ in range(8))
        text = f"hg_{token_id}_{secrets.token_urlsafe(32)}"
        made = Token(
            token_id, name, role, digest_of(text), "made", wall, by, expires, services=services
        )
        before = dict(self._made)
        self._made[token_id] = made
        try:
            self._write()
        except OSError:
            self._made = before
            raise
        self._index()
        return text, made

    def revoke(self, token_id: str) -> Token | None:
        """Refuse it from now on; None if no token made at run time has this id.

        OSError when that cannot be written: then it is refused until control is started again.
        """
        gone = self._made.pop(token_id, None)
        if gone is None:
            return None
        self._index()
        self._used.pop(token_id, None)
        self._write()
        return gone

    def take(self, spec: AdminSpec, base: Path) -> None:
        """After a reload: the tokens that the file names."""
        self._filed = {}
        self._by_file = []
        self._stamps = {}
        for one in spec.tokens:
            if one.token_hash_file is not None:
                self._by_file.append((base / one.token_hash_file, one))
                continue
            digest = one.hash if one.hash is not None else digest_of(one.token or "")
            self._file(one, digest)
        self._look_again()
        self._index()

    def close(self) -> None:
        if self._made and self._used:
            with contextlib.suppress(OSError):
                self._write()

    # -- keeping -------------------------------------------------------------------------------

    @staticmethod
    def _is_stale(token: Token, wall: float) -> bool:
        """Long over: it was shown in the list for a week, so that nobody wonders."""
        return token.expires is not None and wall > token.expires + 7 * 86_400

    def _file(self, spec: AdminTokenSpec, digest: str) -> None:
        token_id = f"file:{spec.name}"
        self._filed[token_id] = Token(
            token_id,
            spec.name,
            Role(spec.role),
            digest,
            "file",
            expires=spec.expires,
            services=spec.services,
        )

    def _look_again(self) -> None:
        """Read the files of hashes that have changed."""
        changed = False
        for path, spec in self._by_file:
            try:
                found = path.stat()
                stamp = (found.st_mtime_ns, found.st_ino)
                if self._stamps.get(path) == stamp:
                    continue
                with path.open("rb") as file:
                    line = file.read(_HASH_FILE_BYTES).split(b"\n", 1)[0]
                digest = line.decode("ascii").strip().lower().removesuffix("\r")
                digest = digest.removeprefix("sha256:").split(" ", 1)[0]
                if len(digest) != 64 or any(letter not in string.hexdigits for letter in digest):
                    raise ValueError
            except (OSError, ValueError):
                stamp, digest = (0, 0), ""
                if self._stamps.get(path) == stamp:
                    continue
                log.error("%s has no SHA-256 of an admin token on its first line", path)  # noqa: TRY400
            self._stamps[path] = stamp
            changed = True
            if digest:
                self._file(spec, digest)
            else:
                self._filed.pop(f"file:{spec.name}", None)
        if changed:
            self._index()

    def _index(self) -> None:
        everything: Iterable[Token] = (*self._made.values(), *self._filed.values())
        self._by_digest = {one.digest: one for one in everything if one.digest}

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_bytes())
            rows = [_token_of(row) for row in content["tokens"]]
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell(f"{self._path} cannot be read ({error.strerror}); its tokens are refused")
            return
        except (ValueError, KeyError, TypeError, RecursionError):
            aside = self._path.with_name(f"{FILE}.spoilt")
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            self._tell(f"{FILE} is spoilt and was moved to {aside.name}; its tokens are refused")
            return
        self._made = {one.id: one for one in rows[:TOKENS_MAX]}
        self._index()

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        log.error("%s", trouble)

    def _write(self) -> None:
        rows = [asdict(one) for one in self.all() if one.source == "made"]
        draft = self._path.with_name(f".{FILE}.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(json.dumps({"format": 1, "tokens": rows}, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _token_of(row: Any) -> Token:
    services = tuple(row.get("services", ()))
    made = Token(**{**row, "role": Role(row["role"]), "source": "made", "services": services})
    checks: tuple[Callable[[], bool], ...] = (
        lambda: all(isinstance(one, str) for one in (made.id, made.name, made.digest, *services)),
        lambda: len(made.digest) == 64,
        lambda: made.expires is None or isinstance(made.expires, int | float),
    )
    if not all(check() for check in checks):
        raise ValueError(made.id)
    return made
