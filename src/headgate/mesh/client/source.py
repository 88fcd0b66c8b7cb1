"""Where a mesh is: what `Mesh(source)` and `register` are given, or the environment says.

Theory of operation
-------------------
A source is a file or folder with the gateway's configuration, or the URL of control. A file says
what the services are and how they are called; control says which instances there are now. With a
file, control is the one that runs it on this machine, found by the socket in its state directory;
`HEADGATE_URL` names another. The environment is asked for what the program does not say:

    HEADGATE_FILE    the file
    HEADGATE_URL     control: http://host:9900, https://host:9900 or unix:/path/control.sock
    HEADGATE_TOKEN   a token of the role `service` for it; none is needed on the socket

The file is read without asking any vault: calls need no secrets of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.cache.gateway_http import Gateway
from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.plan.calls import CallPlan

__all__ = ["Source", "control_of", "source_of"]

_URLS: Final = ("http://", "https://", "unix:")
_SOCKET: Final = "control.sock"
_DEFAULT_FILE: Final = "headgate.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    text: str
    """For people."""
    plans: Mapping[str, CallPlan] = field(default_factory=dict)
    """The services of the file."""
    control: Gateway | None = None
    is_file_alone: bool = False
    """Nobody else can be asked: services that are not named here are none."""
    zone: str = ""


def source_of(
    given: str | os.PathLike[str] | Source | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Source:
    """What is given, else what the environment says. Raises ConfigInvalid for a faulty file, and
    HeadgateError when nothing says where the mesh is.
    """
    if isinstance(given, Source):
        return given
    env = os.environ if environ is None else environ
    file: str | None = None
    if given is not None:
        text = os.fspath(given)
        if text.startswith(_URLS):
            url = url or text
        else:
            file = text
    else:
        file = env.get("HEADGATE_FILE") or None
    if url is None and (given is None or file is not None):
        url = env.get("HEADGATE_URL") or None
    if file is None and url is None:
        if not Path(_DEFAULT_FILE).is_file():
            raise HeadgateError(
                "nothing says where the mesh is: give a file or the URL of control, as in "
                'Mesh("headgate.yaml") or Mesh("http://control:9900"), or set HEADGATE_FILE or '
                "HEADGATE_URL"
            )
        file = _DEFAULT_FILE
    control = control_at(url, token, env) if url is not None else None
    if file is None:
        return Source(control.text if control is not None else "", control=control)
    return _of_file(file, control)


def control_at(url: str, token: str | None, env: Mapping[str, str]) -> Gateway:
    try:
        return Gateway.at(url, token if token is not None else env.get("HEADGATE_TOKEN", ""))
    except ValueError as error:
        raise HeadgateError(str(error)) from None


def control_of(
    given: str | os.PathLike[str] | None = None,
    *,
    token: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Gateway:
    """Where to register. Reads a file only if nothing else says it."""
    env = os.environ if environ is None else environ
    if given is not None and os.fspath(given).startswith(_URLS):
        return control_at(os.fspath(given), token, env)
    if given is None and env.get("HEADGATE_URL"):
        return control_at(env["HEADGATE_URL"], token, env)
    source = source_of(given, token=token, environ=env)
    if source.control is None:
        raise HeadgateError(f"{source.text} says nothing of control; set HEADGATE_URL")
    return source.control


def _of_file(file: str, control: Gateway | None) -> Source:
    from headgate.config import load
    from headgate.plan.calls import of_config

    if not Path(file).exists():
        raise HeadgateError(f"there is no file {file}")
    config = load(file, offline=True).config
    if control is None and config.state_dir:
        control = Gateway.at(f"unix:{Path(config.state_dir).absolute() / _SOCKET}", "")
    alone = control is None
    return Source(file, of_config(config), control, is_file_alone=alone, zone=config.zone)
