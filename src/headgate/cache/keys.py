"""Keys from calls: a template of the parameters, or the function's name and all its arguments.

Theory of operation. A template such as "user:{user_id}" or "cart:{user.id}:{lang}" is compiled into
a function with the signature of the one it is for, so that Python itself binds the arguments and a
key costs little more than its f-string.

No two calls with different values have one key. In what replaces a placeholder, `%`, `:` and `*`
and every mark of the template's own text are written as `%` and two digits: ("a:b", "c") and
("a", "b:c") differ, and a value cannot bring a `*` into a pattern. So two placeholders must have a
mark between them that is neither a letter nor a digit. A number and its text are the same in a
template ("user:42" either way, as whoever deletes it writes it), and so are other plain values
(UUIDs, dates); what no text can be (None, bytes, lists) begins with a `%z` that no text has.

The default key tells types apart as well: f(1), f("1"), f(1.0) and f(True) are four keys. It is
`module.name(arguments)`, and beyond KEY_CHARS the arguments are replaced by their SHA-256.

What has no lasting text (an object that is no value) is refused, and named: its address or `repr`
would make keys that never match, or that match by accident. An object may have `__cache_key__()`,
which answers with a value that can be a key.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import difflib
import enum
import fractions
import functools
import hashlib
import inspect
import keyword
import pathlib
import re
import string
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.cache.errors import KeyUnusable

__all__ = ["KEY_CHARS", "TemplateInvalid", "canonical", "check_key", "compile_key", "compile_texts"]

KEY_CHARS: Final = 512
"""Beyond this the arguments of a default key are hashed."""
KEY_MAX: Final = 2048
"""As long as an invalidation can name."""

_DEPTH_MAX: Final = 20
_ALWAYS: Final = "%:*"
_INNER: Final = re.compile(r"[%,()\[\]{}='\x00-\x20\x7f]")
_PATH: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class TemplateInvalid(ValueError):
    """A template that cannot be: found when the function is decorated."""


def check_key(key: object) -> None:
    """KeyUnusable, which says why, if this is no key."""
    if not isinstance(key, str):
        raise KeyUnusable(f"a key is a text, not {type(key).__name__}: {str(key)[:100]!r}")
    if not key:
        raise KeyUnusable("a key cannot be empty")
    if len(key) > KEY_MAX:
        raise KeyUnusable(
            f"a key of {len(key)} characters; the most is {KEY_MAX}: hash a part of it"
        )
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise KeyUnusable(f"a key that is no valid text: {key[:100]!r}") from None


# ---- values as text


def canonical(value: Any, depth: int = 0) -> str:
    """A text that no different value has, whatever its type; KeyUnusable if there is none."""
    kind = type(value)
    if kind is int or kind is bool or value is None or kind is float or kind is complex:
        return repr(value)
    if kind is str:
        return f"'{_INNER.sub(_percent, value)}'"
    if depth > _DEPTH_MAX:
        raise KeyUnusable(f"an argument is nested more than {_DEPTH_MAX} deep; give a key template")
    return _canonical(value, depth + 1)


def _canonical(value: object, depth: int) -> str:
    own = getattr(value, "__cache_key__", None)
    if own is not None and not isinstance(value, type):
        return f"{_name(type(value))}({canonical(own(), depth)})"
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, type):
        return _name(value)
    kind = type(value)
    if kind in _PLAIN:
        return f"{kind.__name__}({_INNER.sub(_percent, str(value))})"
    if isinstance(value, (bytes, bytearray)):
        return f"{kind.__name__}({value.hex()})"
    if isinstance(value, pathlib.PurePath):
        return f"path({_INNER.sub(_percent, str(value))})"
    if dataclasses.is_dataclass(value):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        inner = ",".join(f"{name}={canonical(each, depth)}" for name, each in fields)
        return f"{_name(kind)}({inner})"
    if isinstance(value, (list, tuple)):
        name = "" if kind is tuple else "list" if kind is list else _name(kind)
        return f"{name}({','.join(canonical(each, depth) for each in value)})"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(canonical(each, depth) for each in value))}}}"
    if isinstance(value, Mapping):
        pairs = sorted(
            f"{canonical(name, depth)}={canonical(each, depth)}" for name, each in value.items()
        )
        return f"{{{','.join(pairs)}}}" if pairs else "{=}"
    if isinstance(value, (str, int, float)):
        # A subclass of its own: what it adds is not seen, so that its name must be.
        return f"{_name(kind)}({_INNER.sub(_percent, str(value))})"
    raise KeyUnusable(
        f"{_name(kind)} has no text that would last; name an attribute in the template "
        '("user:{user.id}"), give key= a function, or define __cache_key__()'
    )


_PLAIN: Final = frozenset(
    {
        uuid.UUID,
        decimal.Decimal,
        fractions.Fraction,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
    }
)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _quoter(marks: str) -> Callable[[object], str]:
    """How a value is written in a template whose own text has these marks."""
    find = re.compile(f"[{re.escape(''.join(sorted(set(_ALWAYS + marks))))}]")
    search, replace = find.search, find.sub

    def quote(value: Any) -> str:
        kind = type(value)
        text: str
        if kind is str:
            text = value
        elif kind is int or kind is float or kind in _PLAIN or kind is bool:
            text = str(value)
        elif isinstance(value, enum.Enum):
            text = f"{kind.__qualname__}.{value.name}"
        elif isinstance(value, (str, int, float, pathlib.PurePath)):
            # The text itself, even of an enum-like class with a str() of its own.
            text = str.__str__(value) if isinstance(value, str) else str(value)
        else:
            # Every `%` of a text is followed by two hexadecimal digits; `z` is neither a digit nor
            # can it be a mark.
            return "%z" + replace(_percent, canonical(value))
        return text if search(text) is None else replace(_percent, text)

    return quote


# ---- templates


@functools.lru_cache(maxsize=256)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Literal text, and the path that follows it (None at the end)."""
    try:
        found = tuple(string.Formatter().parse(template))
    except ValueError as error:
        raise TemplateInvalid(f"key template {template!r}: {error}") from None
    parts: list[tuple[str, str | None]] = []
    for literal, path, spec, conversion in found:
        if path is not None and (spec or conversion):
            raise TemplateInvalid(
                f"key template {template!r}: {{{path}}} may have neither a format nor a "
                "conversion; give key= a function"
            )
        if path is not None and not _PATH.fullmatch(path):
            raise TemplateInvalid(
                f"key template {template!r}: {{{path}}} is not a parameter or an attribute of one; "
                "write {user_id} or {user.id}"
            )
        parts.append((literal, path))
    return tuple(parts)


def _check_template(template: str, names: tuple[str, ...], what: str) -> str:
    """The marks of its text; TemplateInvalid says what is wrong."""
    if "%" in template:
        raise TemplateInvalid(
            f"key template {template!r}: % is what values are quoted with; use another mark"
        )
    marks = ""
    seen = False
    for literal, path in _parts(template):
        own = "".join(each for each in literal if not each.isalnum())
        if seen and path is not None and not own:
            raise TemplateInvalid(
                f"key template {template!r}: nothing parts {{{path}}} from the one before it, so "
                f'that different values would have one key; write ":" between them'
            )
        marks += own
        if path is None:
            continue
        seen = True
        name = path.partition(".")[0]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = (
                f"did you mean {{{path.replace(name, near[0], 1)}}}?" if near else _offered(names)
            )
            raise TemplateInvalid(f"key template {template!r}: {what} has no {name!r}; {hint}")
    return marks


def _offered(names: tuple[str, ...]) -> str:
    return "there is " + ", ".join(f"{{{name}}}" for name in names) if names else "it takes nothing"


def compile_key(
    function: Callable[..., Any], template: str | Callable[..., str] | None, prefix: str = ""
) -> Callable[..., str]:
    """A function with the signature of this one that answers with the key of a call."""
    if template is None:
        return _compile_default(function, prefix)
    if callable(template):
        return _checked_call(template, prefix)
    if type(template) is not str or not template:
        raise TemplateInvalid(f"key={template!r}: write a template or give a function")
    made: Callable[..., str] = _compile_template(function, (template,), prefix, "one")
    return made


def compile_texts(
    function: Callable[..., Any], templates: tuple[str, ...]
) -> Callable[..., tuple[str, ...]]:
    """The same for several texts, such as tags, at once."""
    made: Callable[..., tuple[str, ...]] = _compile_template(function, templates, "", "all")
    return made


def _checked_call(make: Callable[..., str], prefix: str) -> Callable[..., str]:
    def key(*args: Any, **kwargs: Any) -> str:
        made = make(*args, **kwargs)
        check_key(made)
        return prefix + made

    return key


def _signature(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        found = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise TemplateInvalid(
            f"{function!r} does not say what it takes; give key= a function"
        ) from None
    for each in found:
        if not each.name.isidentifier() or keyword.iskeyword(each.name):
            raise TemplateInvalid(
                f"{function!r} has a parameter named {each.name!r}; give key= a function"
            )
    return found


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _compile_template(
    function: Callable[..., Any], templates: tuple[str, ...], prefix: str, want: str
) -> Any:
    parameters = _signature(function)
    names = tuple(each.name for each in parameters)
    what = f"{getattr(function, '__qualname__', repr(function))}()"
    known: dict[str, Any] = {}
    taken = set(names)
    own = _Own(text=_free("text", taken), whole=_free("whole", taken))
    known[own.text], known[own.whole] = str, int
    texts = []
    for template in templates:
        quote = _free("quote", taken)
        known[quote] = _quoter(_check_template(template, names, what))
        texts.append(_expression(template, prefix, quote, own))
    body = texts[0] if want == "one" else "(" + "".join(f"{text}, " for text in texts) + ")"
    return _built(function, parameters, body, known, taken)


_STARS: Final[dict[Any, str]] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Own:
    """What `str` and `int` are called where parameters may have these names."""

    text: str
    whole: str


def _expression(template: str, prefix: str, quote: str, own: _Own) -> str:
    pieces = [repr(prefix)] if prefix else []
    for literal, path in _parts(template):
        if literal:
            pieces.append(repr(literal))
        if path is None:
            continue
        piece = f"{quote}({path})"
        if "." not in path:
            # A plain number, the most usual of keys, needs no quoting and no call.
            piece = f"({own.text}({path}) if {path}.__class__ is {own.whole} else {piece})"
        pieces.append(piece)
    return "''.join((" + "".join(f"{piece}, " for piece in pieces) + "))"


def _built(
    function: Callable[..., Any],
    parameters: tuple[inspect.Parameter, ...],
    body: str,
    known: dict[str, Any],
    taken: set[str],
) -> Any:
    """Compile a function of the same parameters that answers with `body`.

    Nothing of the user's text gets into the source but names that are identifiers, and literals as
    `repr` writes them.
    """
    shown = []
    is_starred = False
    for number, each in enumerate(parameters):
        if each.kind is each.VAR_POSITIONAL:
            is_starred = True
        if each.kind is each.KEYWORD_ONLY and not is_starred:
            is_starred = True
            shown.append("*")
        name = each.name
        if each.default is not each.empty:
            default = _free(f"default_{number}", taken)
            known[default] = each.default
            name += f"={default}"
        shown.append(_STARS.get(each.kind, "") + name)
        is_last = number + 1 == len(parameters)
        if each.kind is each.POSITIONAL_ONLY and (
            is_last or parameters[number + 1].kind is not each.POSITIONAL_ONLY
        ):
            shown.append("/")
    source = f"def key_of({', '.join(shown)}):\n    return {body}\n"
    exec(compile(source, "<key template>", "exec"), known)  # noqa: S102 - see above
    made = known["key_of"]
    # A wrong call fails here before it reaches the function; it is to read as if it had.
    name = getattr(function, "__name__", "key_of")
    qualified = getattr(function, "__qualname__", name)
    made.__code__ = made.__code__.replace(co_name=name, co_qualname=qualified)
    made.__name__, made.__qualname__ = name, qualified
    return made


def _compile_default(function: Callable[..., Any], prefix: str) -> Callable[..., str]:
    parameters = _signature(function)
    name = f"{function.__module__}.{function.__qualname__}"
    taken = {each.name for each in parameters}
    full = _free("full", taken)
    first = parameters[0].name if parameters else ""
    is_method = first in ("self", "cls") and "." in name.rpartition("<locals>.")[2]

    def key(values: tuple[object, ...]) -> str:
        try:
            inner = ",".join([canonical(each) for each in values])
        except KeyUnusable as error:
            where = f"{name}(): {error}"
            if is_method:
                where += f"; the default key of a method holds {first}, a template may leave it out"
            raise KeyUnusable(where) from None
        if len(inner) > KEY_CHARS:
            inner = "sha256 " + hashlib.sha256(inner.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{prefix}{name}({inner})"

    body = f"{full}(({''.join(f'{each.name}, ' for each in parameters)}))"
    made: Callable[..., str] = _built(function, parameters, body, {full: key}, taken)
    return made
