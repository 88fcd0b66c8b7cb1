"""Files of signing keys: shared secrets and public keys, by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from headgate.security.entries import BadEntry, Fields, parse_document, with_line
from headgate.security.identity import Identity
from headgate.security.signatures import SigningKey, read_public, read_secret

_FIELDS: Final = (
    "secret",
    "secrets",
    "public_key",
    "public_keys",
    "consumer",
    "tier",
    "roles",
    "scopes",
    "groups",
    "note",
)
_LONGEST_ID: Final = 256
_MAX_LIVE: Final = 4


def read_signing_keys(
    given: object, method: str, where: Sequence[str | int] = ("keys",)
) -> dict[str, SigningKey]:
    """Judge a mapping of key ids to keys; BadEntry says which and why, and quotes none."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadEntry(where, "must be a mapping of key ids")
    return {
        str(id_): _read_one(str(id_), Fields(entry, (*where, str(id_)), _FIELDS), method)
        for id_, entry in given.items()
    }


def read_signing_file(content: bytes, method: str) -> dict[str, SigningKey]:
    """The keys of a file with `keys:` at its top. ValueError with line and entry."""
    document = parse_document(content)
    if document is None:
        return {}
    if not isinstance(document, Mapping) or set(document) != {"keys"}:
        raise ValueError("expected `keys` and nothing else at the top")
    try:
        return read_signing_keys(document["keys"], method)
    except BadEntry as error:
        raise ValueError(with_line(content, error)) from None


def _read_one(id_: str, fields: Fields, method: str) -> SigningKey:
    if not id_ or len(id_) > _LONGEST_ID or not all(" " <= char <= "~" for char in id_):
        raise BadEntry(fields.where, f"an id has up to {_LONGEST_ID} printable ASCII characters")
    secrets = _each(fields, ("secret", "secrets"))
    publics = _each(fields, ("public_key", "public_keys"))
    if bool(secrets) == bool(publics):
        raise BadEntry(fields.where, "needs either secrets or public_keys")
    if len(secrets) + len(publics) > _MAX_LIVE:
        raise BadEntry(fields.where, f"has more than {_MAX_LIVE} keys; take old ones out")
    consumer = fields.text("consumer") or id_
    identity = Identity(
        subject=consumer,
        consumer=consumer,
        api_key=id_,
        tier=fields.text("tier"),
        method=method,
        roles=fields.words("roles"),
        scopes=fields.words("scopes"),
        groups=fields.words("groups"),
    )
    made_secrets, made_publics = [], []
    for name, text in secrets:
        try:
            made_secrets.append(read_secret(text))
        except ValueError as error:
            raise fields.fault(name, str(error)) from None
    for name, text in publics:
        try:
            made_publics.append(read_public(text))
        except ValueError as error:
            raise fields.fault(name, str(error)) from None
    return SigningKey(id_, identity, tuple(made_secrets), tuple(made_publics))


def _each(fields: Fields, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, text) for name in names for text in fields.texts(name)]
