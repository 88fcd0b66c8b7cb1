"""A configuration tried out before anybody serves it: everything that only building finds.

The text may be good and a plugin, its options or a certificate may not be. `headgate run`, a
reload and the check of a file all build the same things here, in the process that can still tell
file and line: a worker knows only the document. Certificates that a worker makes itself
(`certificate: local`) are not tried, as a check writes nothing.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from headgate.config import CertificateSpec, Loaded
from headgate.errors import ConfigInvalid, Fault
from headgate.gateway.compile import compile_plan
from headgate.plan.build import build
from headgate.plan.plan import Plan
from headgate.wire.tls import HTTP1, TlsProfile, alpn_of, load_certificates, upstream_context

__all__ = ["certificate_faults", "folder_of", "import_from", "located", "trial"]

_STEP = re.compile(r"\[(\d+)\]|\[\"([^\"]*)\"\]|([^.\[\]]+)")


class Tried(NamedTuple):
    plan: Plan
    warnings: tuple[Fault, ...]
    """What building found that works and should be looked at."""


def trial(loaded: Loaded, config_file: Path) -> Tried:
    """The plan, after its filters and certificates have been loaded once. Raises ConfigInvalid
    with all that is wrong with any of them.
    """
    plan = build(loaded.config)
    wall = time.time()  # noqa: TID251 - certificates live in wall time
    warnings: tuple[Fault, ...] = ()
    faults = [fault for fault in certificate_faults(loaded, wall) if fault.level == "error"]
    try:
        compiled = compile_plan(plan, folder_of(config_file))
        warnings = tuple(located(loaded, compiled.warnings))
    except ConfigInvalid as error:
        faults = [*located(loaded, error.faults), *faults]
    if faults:
        raise ConfigInvalid(tuple(sorted(faults, key=lambda one: (one.file, one.line, one.column))))
    return Tried(plan, warnings)


def certificate_faults(loaded: Loaded, wall: float) -> tuple[Fault, ...]:
    """What is wrong with the certificates and keys that the file names, and what soon will be."""
    return tuple(_certificate_faults(loaded, wall))


def _certificate_faults(loaded: Loaded, wall: float) -> Iterator[Fault]:
    for index, listener in enumerate(loaded.config.listeners):
        tls = listener.tls
        if tls is None or tls.certificate is not None:
            continue
        loc: tuple[str | int, ...] = ("listeners", index, "tls")
        pairs = [((), tls)] if tls.cert_file is not None else list(_each(tls.certificates))
        profile = TlsProfile(alpn_of(listener.protocols), tls.min_version, tls.ciphers)
        files = [(str(pair.cert_file), str(pair.key_file or pair.cert_file)) for _, pair in pairs]
        for fault in load_certificates(files, profile, wall)[1]:
            here = next(
                (
                    step
                    for (step, _), named in zip(pairs, files, strict=True)
                    if fault.file in named
                ),
                (),
            )
            yield _named(loaded, (*loc, *here), fault)
    for name, service in loaded.config.services.items():
        if not service.tls.model_fields_set:
            continue
        try:
            upstream_context(service.tls, HTTP1)
        except ConfigInvalid as error:
            for fault in error.faults:
                yield _named(loaded, ("services", name, "tls"), fault)


def _each(
    pairs: Iterable[CertificateSpec],
) -> Iterator[tuple[tuple[str | int, ...], CertificateSpec]]:
    for index, pair in enumerate(pairs):
        yield ("certificates", index), pair


def _named(loaded: Loaded, loc: tuple[str | int, ...], fault: Fault) -> Fault:
    """A fault of a certificate's file, at the place of the configuration that names it."""
    message = f"{fault.file} {fault.message}" if fault.file else fault.message
    return replace(loaded.fault(loc, message, fault.hint), level=fault.level)


def located(loaded: Loaded, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults with file and line, for those that came without."""
    return tuple(_located(loaded, fault) for fault in faults)


def _located(loaded: Loaded, fault: Fault) -> Fault:
    if fault.line or not fault.where:
        return fault
    loc = tuple(
        int(index) if index else key or name for index, key, name in _STEP.findall(fault.where)
    )
    found = loaded.fault(loc, fault.message, fault.hint)
    return replace(found, level=fault.level, where=fault.where)


def folder_of(config_file: Path) -> Path:
    return config_file if config_file.is_dir() else config_file.parent


def import_from(folder: Path) -> None:
    """Let plugins beside the file be imported: last, so that they take nobody's place."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
