"""`headgate secrets`: keep secrets in an encrypted file that may lie beside the configuration.

A value is never an argument, since every user of the machine reads the arguments of every process;
it is asked for, or read from standard input. `get` and `edit` are the only commands that show
values: the one on standard output, the other to an editor, by way of a file in memory that nobody
else can open and that is gone when the editor ends, whichever way it ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import typer
import yaml

from headgate.errors import HeadgateError
from headgate.security.secrets.envelope import (
    FileKey,
    Key,
    Passphrase,
    check_name,
    check_value,
    parse_key,
)
from headgate.security.secrets.errors import SecretFileError
from headgate.security.secrets.secret_file import (
    SecretFile,
    read_key_file,
    read_passphrase_file,
    write_key_file,
)

__all__ = ["secrets"]

secrets = typer.Typer(
    help="Keep secrets in an encrypted file, for ${secret:NAME}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

KEY_VARIABLE: Final = "HEADGATE_SECRETS_KEY"
_MAX_INPUT: Final = 1024 * 1024
_MEMORY: Final = ("/dev/shm",)  # noqa: S108 - nothing of it is shared: a private folder is made
_HEAD: Final = (
    "# NAME: value, as YAML. Save and close the editor to keep it; an empty file keeps all.\n"
)

File = Annotated[Path, typer.Argument(help="The encrypted file, secrets.enc for one.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and _ . -")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        "-k",
        help=f"The key. By default {KEY_VARIABLE}, or FILE with .key for its ending.",
    ),
]
PassFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="The passphrase, in place of being asked.")
]


@secrets.command("init")
def init(
    file: File,
    key_file: KeyFile = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Open it with a passphrase, not with a key file.")
    ] = False,
    passphrase_file: PassFile = None,
) -> None:
    """Make an empty file, and a key file that opens it."""
    key, note = _new_key(file, key_file, passphrase or passphrase_file is not None, passphrase_file)
    try:
        SecretFile(file).create(key)
    except BaseException:
        if isinstance(note, Path):
            note.unlink(missing_ok=True)
        raise
    print(f"made {file}")
    if isinstance(note, Path):
        print(f"made {note}: keep it out of the repository, and a copy of it in a safe place")


@secrets.command("set")
def set_secret(
    file: File, name: Name, key_file: KeyFile = None, passphrase_file: PassFile = None
) -> None:
    """Add a secret or replace it. The value is asked for, or all of standard input."""
    check_name(name)
    store = SecretFile(file)
    key = _key(store, key_file, passphrase_file)
    value = _value(name)
    check_value(name, value)
    with store.change(key) as draft:
        is_new = name not in draft.values
        draft.set(name, value)
    print(f"{'added' if is_new else 'replaced'} {name}", file=sys.stderr)


@secrets.command("get")
def get(file: File, name: Name, key_file: KeyFile = None, passphrase_file: PassFile = None) -> None:
    """Print a secret."""
    store = SecretFile(file)
    values = store.read(_key(store, key_file, passphrase_file)).values
    if name not in values:
        raise HeadgateError(f"{file}: there is no secret {name}")
    sys.stdout.write(values[name])
    if sys.stdout.isatty():
        sys.stdout.write("\n")
    sys.stdout.flush()


@secrets.command("list")
def list_secrets(file: File) -> None:
    """Show the names. That takes no key."""
    for name in SecretFile(file).head().names:
        print(name)


@secrets.command("rm")
def remove(
    file: File, name: Name, key_file: KeyFile = None, passphrase_file: PassFile = None
) -> None:
    """Remove a secret."""
    store = SecretFile(file)
    with store.change(_key(store, key_file, passphrase_file)) as draft:
        draft.remove(name)
    print(f"removed {name}", file=sys.stderr)


@secrets.command("edit")
def edit(file: File, key_file: KeyFile = None, passphrase_file: PassFile = None) -> None:
    """Open all secrets in $VISUAL or $EDITOR, and keep what it saved."""
    store = SecretFile(file)
    with store.change(_key(store, key_file, passphrase_file)) as draft:
        found = _edited(draft.values, file)
        if found is None:
            print("nothing changed", file=sys.stderr)
            return
        gone = sorted(set(draft.values) - set(found))
        draft.values.clear()
        draft.values.update(found)
    print(f"{len(found)} secrets kept", file=sys.stderr)
    if gone:
        print(f"removed {', '.join(gone)}", file=sys.stderr)


@secrets.command("rotate-key")
def rotate_key(
    file: File,
    key_file: KeyFile = None,
    passphrase_file: PassFile = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option("--new-key-file", help="Where the new key goes. By default over the old one."),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Change to a passphrase, or to another one.")
    ] = False,
    new_passphrase_file: Annotated[
        Path | None, typer.Option("--new-passphrase-file", help="The new one, if not asked for.")
    ] = None,
) -> None:
    """Encrypt the file anew with a new key. The old key opens old copies still."""
    store = SecretFile(file)
    old = _key(store, key_file, passphrase_file)
    wants_words = passphrase or new_passphrase_file is not None
    if wants_words:
        with store.change(old) as draft:
            draft.key = _new_passphrase(new_passphrase_file)
        print(f"{file} has a new passphrase")
        return
    target = new_key_file or key_file or _beside(file)
    # The new key is on the disk before anything needs it, and takes its place afterwards.
    spot = new_key_file or target.with_name(f"{target.name}.new")
    if new_key_file is None:
        spot.unlink(missing_ok=True)
    fresh = FileKey.generate()
    write_key_file(spot, fresh)
    try:
        with store.change(old) as draft:
            draft.key = fresh
    except BaseException:
        spot.unlink(missing_ok=True)  # nothing was encrypted with it
        raise
    if spot != target:
        spot.replace(target)
    print(f"{file} has a new key: {target}")


# -- keys ---------------------------------------------------------------------------------


def _beside(file: Path) -> Path:
    return file.with_suffix(".key")


def _key(store: SecretFile, key_file: Path | None, passphrase_file: Path | None) -> Key:
    """What opens the file."""
    if store.head().kind == "scrypt":
        if passphrase_file is not None:
            return read_passphrase_file(passphrase_file)
        if not sys.stdin.isatty():
            raise HeadgateError(f"{store.path}: opens with a passphrase; give --passphrase-file")
        return Passphrase(getpass.getpass("Passphrase: "))
    if key_file is not None:
        return read_key_file(key_file)
    if text := os.environ.get(KEY_VARIABLE):
        try:
            return parse_key(text)
        except SecretFileError as error:
            raise HeadgateError(f"{KEY_VARIABLE}: {error}") from None
    return read_key_file(_beside(store.path))


def _new_key(
    file: Path, key_file: Path | None, wants_words: bool, passphrase_file: Path | None
) -> tuple[Key, Path | None]:
    """A key for a new file, and the key file if one was made. One that exists is used."""
    if os.path.lexists(file):
        raise HeadgateError(f"{file}: exists already")
    if wants_words:
        if key_file is not None:
            raise typer.BadParameter("a key file or a passphrase, not both")
        return _new_passphrase(passphrase_file), None
    place = key_file or _beside(file)
    if place.exists():
        print(f"using the key in {place}", file=sys.stderr)
        return read_key_file(place), None
    key = FileKey.generate()
    write_key_file(place, key)
    return key, place


def _new_passphrase(file: Path | None) -> Passphrase:
    if file is not None:
        words = read_passphrase_file(file)
    elif sys.stdin.isatty():
        words = Passphrase(getpass.getpass("New passphrase: "))
        if getpass.getpass("Once more: ") != words.text:
            raise HeadgateError("the two are not the same")
    else:
        raise HeadgateError("there is nobody to ask for a passphrase; give a file of it")
    words.check()
    return words


# -- values -------------------------------------------------------------------------------


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{name}: ")
    data = sys.stdin.buffer.read(_MAX_INPUT + 1)
    if len(data) > _MAX_INPUT:
        raise HeadgateError(f"{name}: is too large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise HeadgateError(f"{name}: is not text; encode it, as base64 for one") from None
    return text.removesuffix("\n").removesuffix("\r")


def _as_yaml(values: dict[str, str]) -> str:
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, default_flow_style=False)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, as certificates are best read."""


def _text(dumper: yaml.SafeDumper, value: str) -> Any:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _parsed(text: str) -> dict[str, str]:
    """Names and values out of an editor. Raises SecretFileError, without values."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise SecretFileError(f"line {line} is not YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise SecretFileError("this is not YAML") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise SecretFileError("this is not NAME: value, one after the other")
    found: dict[str, str] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise SecretFileError(f"line {line}: a value is text")
        # As it is written: 0123 and yes are secrets and no numbers or booleans.
        try:
            check_name(key.value)
            check_value(key.value, value.value)
        except SecretFileError as error:
            raise SecretFileError(f"line {line}: {error}") from None
        if key.value in found:
            raise SecretFileError(f"line {line}: {key.value} stands there twice")
        found[key.value] = value.value
    return found


# -- the editor ---------------------------------------------------------------------------


def _edited(values: dict[str, str], file: Path) -> dict[str, str] | None:
    """What an editor made of them; None when it changed nothing."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with _private() as folder:
        path = folder / "secrets.yaml"
        text = _HEAD + (_as_yaml(values) if values else "")
        _write_private(path, text)
        while True:
            _run(editor, path)
            try:
                edited = path.read_text(errors="replace")
            except OSError:
                raise HeadgateError(f"{editor[0]} removed the file; nothing was kept") from None
            if edited == text or not edited.strip():
                return None
            try:
                return _parsed(edited)
            except SecretFileError as error:
                print(f"headgate: {error}", file=sys.stderr)
                if not (sys.stdin.isatty() and typer.confirm("Edit it again?", default=True)):
                    raise HeadgateError(f"{file} was left as it is") from None


@contextlib.contextmanager
def _private() -> Iterator[Path]:
    """A folder in memory for ourselves alone, emptied whatever happens."""
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), *_MEMORY]
    home = next((place for place in places if place and os.access(place, os.W_OK)), None)
    if home is None:
        print("headgate: no file system in memory here: the disk may keep traces", file=sys.stderr)
    before = {
        number: signal.signal(number, _leave)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    folder = Path(tempfile.mkdtemp(prefix="headgate-", dir=home))  # mode 0700
    try:
        yield folder
    finally:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    size = path.stat().st_size
                    with path.open("r+b") as file:
                        file.write(bytes(size))
                        file.flush()
                        os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _run(editor: list[str], path: Path) -> None:
    try:
        done = subprocess.run([*editor, str(path)], check=False)
    except OSError as error:
        reason = (error.strerror or "cannot be started").lower()
        raise HeadgateError(f"{editor[0]}: {reason}; set EDITOR") from None
    if done.returncode:
        raise HeadgateError(f"{editor[0]} ended with {done.returncode}; nothing was kept")
