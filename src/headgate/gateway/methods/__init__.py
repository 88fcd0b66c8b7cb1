"""The entries under `auth` made into methods: one file a family, loaded when a plan names it.

A builder takes what the file says of one entry and answers the `Method`, or raises ValueError with
the reason in plain words. It starts nothing: configurations are also built only to be checked.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from headgate.config.authenticating import auth_methods
from headgate.errors import ConfigInvalid, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.config import Config
    from headgate.security.method import Method

_BUILDERS: Final = {
    "jwt": ("jwt", "build"),
    "api_key": ("keys", "build_api_key"),
    "basic": ("keys", "build_basic"),
    "signature": ("keys", "build_signature"),
    "certificate": ("keys", "build_certificate"),
    "introspection": ("keys", "build_introspection"),
    "login": ("login", "build"),
}


def build_methods(config: Config) -> dict[str, Method]:
    """Every method that the file describes, by name. Raises ConfigInvalid with all faults."""
    state_dir = Path(config.state_dir or ".headgate")
    made: dict[str, Method] = {}
    faults: list[Fault] = []
    for name, (kind, spec) in auth_methods(config.auth).items():
        try:
            more = {"state_dir": state_dir} if kind == "login" else {}
            made[name] = _builder(kind)(spec, **more)
            made[name].name = name
        except (ValueError, ImportError) as error:
            at = getattr(config.auth, kind).index(spec)
            faults.append(Fault("", 0, 0, f"auth.{kind}[{at}]", str(error)))
    if faults:
        raise ConfigInvalid(tuple(faults))
    return made


def _builder(kind: str) -> Callable[..., Method]:
    module, function = _BUILDERS[kind]
    found = getattr(import_module(f"headgate.gateway.methods.{module}"), function)
    return cast("Callable[..., Method]", found)
