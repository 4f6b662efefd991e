"""What a user of a lake is: an e-mail, a tenant, scopes, limits, and the hash of an API key.

A key is 256 random bits that are shown once; the table holds its SHA-256. Slow, salted hashes protect passwords, which
can be guessed; nobody guesses 256 bits, so a fast one gives nothing away and every call can afford it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import Field, StringConstraints, field_validator, model_validator

from timedb.times import format_time
from timedb.wire import WireModel

__all__ = ["SCOPES", "LabelLimits", "NewUser", "Scope", "User", "UserAddress", "key_digest", "new_key"]

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

LabelLimits = Mapping[str, str | list[str]]
"""What the labels of a series must be: for each of these keys this text, or one of these."""

_KEY_BYTES = 32
_KEY_PREFIX = "tdb_"  # so that scanners for leaked secrets know one when they see it
_MAX_CHARS = 255
_ADDRESS = re.compile(r"[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+")

Label = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_CHARS)]
LabelText = Annotated[str, StringConstraints(max_length=_MAX_CHARS)]
LabelTexts = Annotated[list[LabelText], Field(min_length=1)]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MAX_CHARS)]


def new_key() -> str:
    """An API key that nobody has: 256 random bits as base64url text behind a fixed prefix."""
    return _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def key_digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _as_uuid(value: str | None) -> str | None:
    try:
        return None if value is None else str(UUID(value))
    except ValueError:
        raise ValueError("is not a UUID") from None


class NewUser(WireModel):
    """A user that is to be made.

    Attributes:
        email: Who it is; what the user writes carries it as ``created_by`` and ``changed_by``.
        tenant_id: UUID text; None makes a new tenant.
        scopes: What the key may do.
        labels: To which series the key is limited; none: it may use all of the tenant's.
    """

    email: Email
    tenant_id: str | None = None
    scopes: list[Scope] = Field(default_factory=lambda: [*SCOPES[:2]], min_length=1)
    labels: dict[Label, LabelText | LabelTexts] = Field(default_factory=dict)

    _tenant_id_is_a_uuid = field_validator("tenant_id")(_as_uuid)

    @field_validator("email")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError("is not an e-mail address")
        return value

    @model_validator(mode="after")
    def _limits_fit_the_scopes(self) -> Self:
        if self.labels and "admin" in self.scopes:
            raise ValueError("scopes: 'admin' is about whole tables, so it does not go with labels")
        return self


class UserAddress(WireModel):
    """Which user is meant: the one of a ``user_id``, or of an ``email`` where only one tenant has it."""

    email: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None

    _ids_are_uuids = field_validator("tenant_id", "user_id")(_as_uuid)

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.email is None) == (self.user_id is None):
            raise ValueError("needs either email or user_id, to say which user")
        return self

    def fits(self, user: User) -> bool:
        """Whether a user may be the one that is meant."""
        return (
            self.user_id in (None, user.user_id)
            and self.tenant_id in (None, user.tenant_id)
            and (self.email is None or self.email.strip().casefold() == user.email.casefold())
        )


@dataclass(frozen=True, slots=True)
class User:
    """One row of the users table.

    Attributes:
        user_id: UUID text.
        tenant_id: UUID text.
        email: Unique in its tenant, for good: users are deactivated, never deleted.
        scopes: Those that the key has, a space between them.
        labels: :data:`LabelLimits` as JSON text.
        key_hash: Hexadecimal SHA-256 of the key.
        active: Whether the key opens anything.
        created_time: UTC.
        changed_time: When the key or ``active`` was last changed, UTC.
    """

    user_id: str
    tenant_id: str
    email: str
    scopes: str
    labels: str
    key_hash: str = field(repr=False)
    active: bool
    created_time: datetime
    changed_time: datetime

    def may(self, scope: Scope) -> bool:
        """Whether the key has a scope."""
        return scope in self.scopes.split()

    @property
    def limits(self) -> LabelLimits | None:
        """To which series the key is limited; None where it is not."""
        found: LabelLimits = json.loads(self.labels)
        return found or None

    def to_dict(self) -> dict[str, Any]:
        """What people see of a user; nothing of the key."""
        return {
            "user_id": self.user_id,
            "tenant_id": self.tenant_id,
            "email": self.email,
            "scopes": self.scopes.split(),
            "labels": json.loads(self.labels),
            "is_active": self.active,
            "created_time": format_time(self.created_time),
            "changed_time": format_time(self.changed_time),
        }
