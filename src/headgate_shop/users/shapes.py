"""What the users API takes and says."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Address", "ProfileIn", "ProfileOut", "Registration", "RolesIn", "UserPage"]

USER_ID: Final = r"^[A-Za-z0-9]{1,32}$"
ROLE: Final = r"^[a-z][a-z0-9_-]{0,30}$"


def _printable(text: str) -> str:
    stripped = text.strip()
    for place, sign in enumerate(stripped, 1):
        if not sign.isprintable():
            raise ValueError(f"the character U+{ord(sign):04X} at {place} cannot be written")
    return stripped


def _said(text: str) -> str:
    if not text:
        raise ValueError("there is nothing in it")
    return text


Plain = AfterValidator(_printable)
Name = Annotated[str, Field(max_length=200), Plain, AfterValidator(_said)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Registration(_Body):
    email: str = Field(min_length=3, max_length=320)
    password: str = Field(min_length=1, max_length=4096)
    name: Annotated[str, Field(max_length=200), Plain] = ""


class TokenIn(_Body):
    token: str = Field(min_length=1, max_length=512)


class Address(_Body):
    name: Annotated[str, Field(max_length=200), Plain] = ""
    street: Annotated[str, Field(max_length=200), Plain] = ""
    city: Annotated[str, Field(max_length=100), Plain] = ""
    postcode: Annotated[str, Field(max_length=20), Plain] = ""
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$")
    """Two letters, ISO 3166."""


class ProfileIn(_Body):
    name: Name
    phone: Annotated[str, Field(max_length=40, pattern=r"^[0-9 +()./-]*$"), Plain] = ""
    address: Address = Address()


class ProfileOut(BaseModel):
    id: str
    email: str
    name: str
    phone: str
    address: dict[str, str]


class UserOut(BaseModel):
    id: str
    email: str
    name: str
    roles: list[str]
    is_active: bool
    has_mfa: bool
    created_at: float
    last_login_at: float | None


class UserPage(BaseModel):
    items: list[UserOut]
    next: str | None


class RolesIn(_Body):
    roles: list[Annotated[str, Field(pattern=ROLE)]] = Field(max_length=20)


class AuditOut(BaseModel):
    items: list[dict[str, Any]]


class StepOut(BaseModel):
    service: str
    state: str
    tries: int
    why: str


class ErasureOut(BaseModel):
    id: str
    state: str
    services: list[StepOut]
