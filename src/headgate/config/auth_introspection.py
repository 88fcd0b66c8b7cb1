"""Opaque tokens that their issuer is asked about."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from headgate.config.auth_common import Found, Realm
from headgate.config.fields import Duration, FilePath, Flag, Positive, Spec, Text, Wait, text_of
from headgate.config.forms import OneOrMore
from headgate.security.introspection import IntrospectionRules

__all__ = ["IntrospectionSpec", "introspection_problems"]

_I: Final = IntrospectionRules()


class IntrospectionSpec(Spec):
    """Opaque bearer tokens that their issuer is asked about (RFC 7662)."""

    name: Text = "introspection"
    """What routes, logs and metrics call it. Needed when there are several."""

    url: Text
    """The issuer's introspection endpoint."""

    client_id: Text = ""
    """Who we are to the issuer."""

    client_secret: Text = ""
    """Our secret there; for `bearer`, a token. Keep it out of the file:
    `${env:INTROSPECTION_SECRET}`."""

    client_auth: Annotated[Literal["basic", "post", "bearer", "none"], BeforeValidator(text_of)] = (
        "basic"
    )
    """How we say who we are: in `Authorization` (`basic`), in the form (`post`), or by a token of
    our own (`bearer`)."""

    ca_file: FilePath | None = None
    """The authorities that the issuer's certificate is checked against; by default the usual."""

    timeout: Wait = _I.timeout_s
    """For one question, with its waiting."""

    max_age: Wait = _I.max_age_s
    """How long an active token is believed, never beyond its `exp`. A token that is revoked holds
    on for as long."""

    negative: Duration = _I.negative_s
    """How long a token that is not active is not asked about again."""

    when_away: Annotated[Literal["refuse", "accept_cached"], BeforeValidator(text_of)] = "refuse"
    """What happens while the issuer does not answer: 503, or tokens that were active lately are
    believed for `stale` more."""

    stale: Duration = _I.stale_s
    """For `accept_cached`: how much longer than `max_age`."""

    remembered: Annotated[Positive, Field(le=1_000_000)] = _I.remembered_max
    """Tokens remembered in each worker, at about 2 KB each."""

    concurrency: Annotated[Positive, Field(le=1000)] = _I.concurrency
    """Questions at one time, in each worker."""

    skip_jwt: Flag = False
    """Leave tokens that look like a JWT to other methods."""

    issuer: Text = ""
    """What the answer must say as `iss`, if anything."""

    audience: Annotated[tuple[Text, ...], OneOrMore] = ()
    """One of these must be in the answer's `aud`."""

    subject: Annotated[tuple[Text, ...], OneOrMore, Field(min_length=1)] = _I.subject
    """Which member of the answer is the subject: the first that is there."""

    roles_claim: Text = ""
    """The member of the answer that has roles: a list, or words between blanks."""

    groups_claim: Text = ""
    """The member of the answer that has groups."""

    tier_claim: Text = ""
    """The member of the answer that has the tier."""

    realm: Realm = "api"
    """What `WWW-Authenticate` calls this place."""

    def rules(self) -> IntrospectionRules:
        """What the method goes by."""
        return IntrospectionRules(
            name=self.name,
            url=self.url,
            client_id=self.client_id,
            client_auth=self.client_auth,
            ca_file=self.ca_file or "",
            realm=self.realm,
            timeout_s=self.timeout,
            max_age_s=self.max_age,
            negative_s=self.negative,
            stale_s=self.stale,
            when_away=self.when_away,
            remembered_max=self.remembered,
            concurrency=self.concurrency,
            skip_jwt=self.skip_jwt,
            issuer=self.issuer,
            audience=self.audience,
            subject=self.subject,
            roles_claim=self.roles_claim,
            groups_claim=self.groups_claim,
            tier_claim=self.tier_claim,
        )


def introspection_problems(spec: IntrospectionSpec) -> Iterator[Found]:
    """What is wrong between its fields."""
    try:
        parts = urlsplit(spec.url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in {"http", "https"} or not host:
        yield ("url",), "{value} is not a URL; write https://issuer.example/introspect", "", False
    elif parts.username is not None or parts.password is not None:
        yield ("url",), "has a password in it", "use client_id and client_secret", False
    elif parts.scheme == "http" and not _is_here(host):
        yield ("url",), "{value} sends tokens and our secret in plain", "use https", True
    if spec.client_auth in {"basic", "post"} and not (spec.client_id and spec.client_secret):
        yield ("client_auth",), "needs client_id and client_secret", "", False
    if spec.client_auth == "bearer" and not spec.client_secret:
        yield ("client_auth",), "needs client_secret, which is the token", "", False


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
