"""Which certificates a listener serves: from files, of the local authority, or from ACME.

What makes and judges certificates is imported where it is needed: a worker that shows an identity
of the mesh, which its agent keeps, does without.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.config.acme import acme_domains
from headgate.errors import ConfigInvalid
from headgate.security.service_identity.contexts import own_files
from headgate.wire.certificate_files import read_own
from headgate.wire.tls import TlsProfile, alpn_of, client_authorities, load_certificates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.config import Config
    from headgate.errors import Fault
    from headgate.wire.local_ca import LocalCertificate
    from headgate.wire.tls import Certificate


def served_certificates(
    config: Config,
) -> dict[str, tuple[tuple[Certificate, ...], TlsProfile]]:
    """The certificates of each listener that speaks TLS, by its bind. Raises ConfigInvalid."""
    stores: dict[str, tuple[tuple[Certificate, ...], TlsProfile]] = {}
    wall = time.time()  # noqa: TID251 - certificates live in wall time
    for spec in config.listeners:
        tls = spec.tls
        if tls is None:
            continue
        authorities = tls.client_ca_file
        profile = TlsProfile(
            alpn_of(spec.protocols),
            tls.min_version,
            tls.ciphers,
            client_authorities(authorities) if authorities is not None else None,
            tls.client_certificate == "require",
        )
        if tls.certificate == "local":
            names = {host for route in config.routes for host in route.match.host}
            made = _local(config, names, wall)
            files = [(str(made.path), str(made.path))]
        elif tls.certificate == "acme":
            from headgate.security.certificates.store import serving_files

            domains = acme_domains(config)
            directory = config.acme.directory if config.acme is not None else ""
            state_dir = Path(config.state_dir or ".headgate")
            files, lacking = serving_files(state_dir, directory, domains)
            if lacking or not files:
                made = _local(config, domains, wall)
                files.append((str(made.path), str(made.path)))
        elif tls.certificate == "mesh":
            bundle, pair = mesh_identity(config, wall)
            needed = tls.client_certificate == "require"
            profile = replace(
                profile, client_ca=bundle, is_client_certificate_needed=needed, resumes=False
            )
            files = [(pair, pair)]
        elif tls.cert_file is not None:
            files = [(tls.cert_file, tls.key_file or tls.cert_file)]
        else:
            files = [(pair.cert_file, pair.key_file or pair.cert_file) for pair in tls.certificates]
        own = tls.certificate == "mesh" and files[0][0] == str(own_files(config.state_dir).identity)
        certificates, faults = load_certificates(files, profile, wall, own=own)
        errors = tuple(fault for fault in faults if fault.level == "error")
        if errors:
            raise ConfigInvalid(errors)
        stores[spec.bind] = (certificates, profile)
    return stores


def mesh_identity(config: Config, wall: float) -> tuple[str, str]:
    """Whom clients of the mesh are known by, and the file of our own identity there.

    Until control has made the first one, it is the local authority on both sides: clients of the
    mesh do not trust it, and nobody has a certificate by it to show.
    """
    own = own_files(config.state_dir)
    faults: list[Fault] = []
    pair = str(own.identity)
    if own.identity.exists() and read_own(pair, faults) is not None:
        with contextlib.suppress(ConfigInvalid):  # as one that is not there yet
            return client_authorities(str(own.bundle)), pair
    made = _local(config, (), wall)
    return client_authorities(str(made.ca_path)), str(made.path)


def _local(config: Config, names: Iterable[str], wall: float) -> LocalCertificate:
    """Of the authority of this machine."""
    from headgate.wire import local_ca  # it makes keys, and is heavy

    return local_ca.ensure(Path(config.state_dir or ".headgate"), names, wall)
