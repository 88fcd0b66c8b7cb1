"""What the entries under `auth` have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from headgate.config.fields import Spec, Text, refuse
from headgate.config.forms import OneOrMore

__all__ = ["Found", "GrantedSpec", "Realm"]

Found = tuple[tuple[str | int, ...], str, str, bool]
"""A fault between fields: place, message, hint, whether it is only a warning."""


def _realm(value: str) -> str:
    if not value.isascii() or not value.isprintable() or '"' in value or "\\" in value:
        raise refuse("cannot stand in a header: printable ASCII without quotes")
    return value


Realm = Annotated[Text, AfterValidator(_realm)]


class GrantedSpec(Spec):
    """What holds for whoever shows a credential."""

    tier: Text = ""
    """The consumer's tier, for limits that know several."""

    roles: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Roles, for `allow`."""

    scopes: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Scopes, for `allow`."""

    groups: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Groups, for `allow`."""
