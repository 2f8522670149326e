"""The JSON of the people API."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from anabranch.console.people.roles import Role

LONGEST = 366 * 24 * 3600
Lifetime = Annotated[float, Field(ge=60, le=LONGEST, allow_inf_nan=False)]
# Longer than a password may be, so that its length is refused in words.
Password = Annotated[SecretStr, Field(max_length=1000)]
Name = Annotated[str, StringConstraints(max_length=200)]


class LoginIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    password: Password


class LogoutIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    everywhere: bool = Field(default=False, description="end all sessions of the account")


class MayOut(BaseModel):
    """What pages should offer; what is allowed is decided with each request."""

    add_channels: bool
    pull_sources: bool = Field(description="name URLs and files as a source")
    operate: bool
    accounts: bool
    tokens: bool


class MeOut(BaseModel):
    """Who one is."""

    signed_in: bool
    name: str | None
    role: Role | None
    by: Literal["session", "token", "operator_token"] | None
    may: MayOut
    expires: float | None = Field(description="when the session ends, seconds since the epoch")
    accounts: bool = Field(description="whether the site has any account to sign in to")


class PasswordIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old: Password
    new: Password


class AccountIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, Field(description="a-z, 0-9 and '-', at most 40")]
    role: Role
    password: Annotated[Password, Field(description="10 to 200 characters")]


class AccountPatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    password: Password | None = None


class AccountOut(BaseModel):
    name: str
    role: Role
    created: float
    seen: float | None = Field(description="the last login")
    channels: list[str] = Field(description="that it owns")


class AccountsOut(BaseModel):
    accounts: list[AccountOut]


class TokenIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(max_length=200)]
    role: Role | None = Field(default=None, description="default: the account's; never higher")
    expires_in_s: Lifetime | None = None
    account: Name | None = Field(default=None, description="whose; admins only")


class TokenOut(BaseModel):
    id: str
    name: str
    role: Role
    account: str
    created: float
    expires: float | None
    used: float | None = Field(description="the last use, to some minutes")


class NewTokenOut(TokenOut):
    secret: str = Field(description="told once")


class TokensOut(BaseModel):
    tokens: list[TokenOut]


class ViewersOut(BaseModel):
    """Who was let in to a channel."""

    accounts: list[str]


class ShareIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(max_length=200)] = ""
    expires_in_s: Lifetime | None = 7 * 24 * 3600


class ShareOut(BaseModel):
    id: str
    name: str
    created: float
    expires: float | None
    used: float | None = Field(description="the last use, to some minutes")


class NewShareOut(ShareOut):
    secret: str = Field(description="told once; the bearer with which the channel is watched")
    url: str = Field(description="of the page; the secret is in its fragment")


class SharesOut(BaseModel):
    shares: list[ShareOut]
