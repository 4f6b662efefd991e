"""What a user of a lake is: an e-mail, a tenant, scopes, limits, and the hash of an API key.

A key is 256 random bits that are shown once; the table holds its SHA-256. Slow, salted hashes protect passwords, which
can be guessed; nobody guesses 256 bits, so a fast one gives nothing away and every call can afford it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID, uuid4

from pydantic import Field, StringConstraints, field_validator, model_validator

from timedb.contract.errors import InvalidRequest
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import format_time
from timedb.contract.wire import WireModel

__all__ = [
    "SCOPES",
    "LabelLimits",
    "NewUser",
    "Scope",
    "User",
    "UserAddress",
    "UserChange",
    "choose_tenant",
    "key_digest",
    "labels_text",
    "new_key",
    "scopes_text",
    "tenants_to_choose",
]

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

LabelLimits = Mapping[str, str | list[str]]
"""What the labels of a series must be: for each of these keys this text, or one of these."""

_KEY_BYTES = 32
_KEY_PREFIX = "tdb_"  # so that scanners for leaked secrets know one when they see it
_MAX_CHARS = 255
_ADMIN_IS_WHOLE = "scopes: 'admin' is about whole tables, so it does not go with labels"
_ADDRESS = re.compile(r"[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+")

_TENANTS_LISTED = 10

Label = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_CHARS)]
LabelText = Annotated[str, StringConstraints(max_length=_MAX_CHARS)]
LabelTexts = Annotated[list[LabelText], Field(min_length=1)]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MAX_CHARS)]
Scopes = Annotated[list[Scope], Field(min_length=1)]
Limits = dict[Label, LabelText | LabelTexts]


def new_key() -> str:
    """An API key that nobody has: 256 random bits as base64url text behind a fixed prefix."""
    return _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def key_digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def scopes_text(scopes: Collection[Scope]) -> str:
    """Scopes as the table holds them."""
    return " ".join(scope for scope in SCOPES if scope in scopes)


def labels_text(labels: LabelLimits) -> str:
    """Limits as the table holds them."""
    return json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def tenants_to_choose(users: Collection[User], with_data: Collection[str]) -> dict[str, list[str]]:
    """The tenants, with the e-mails of their users, of which a new user has to be given one; empty where none need be.

    Args:
        users: Those that the lake has.
        with_data: The tenants for which it keeps anything.
    """
    there = sorted({*with_data, *(user.tenant_id for user in users)})
    if len(there) < 2 or (not users and OPEN_TENANT_ID in there):
        return {}
    return {one: [user.email for user in users if user.tenant_id == one] for one in there}


def choose_tenant(new: NewUser, users: Collection[User], with_data: Collection[str]) -> str:
    """The tenant that a new user gets.

    The one that was named, or a new one where that was asked for. Else the first user of a lake that was used while it
    was open gets what was written then; others get the only tenant that there is; in a lake without any a new one.

    Args:
        new: The user.
        users: Those that the lake has.
        with_data: The tenants for which it keeps anything.

    Raises:
        InvalidRequest: there are several; lists them.
    """
    if new.tenant_id is not None:
        return new.tenant_id
    there = {*with_data, *(user.tenant_id for user in users)}
    if new.new_tenant or not there:
        return str(uuid4())
    if choices := tenants_to_choose(users, with_data):
        listed = [f"{tenant} ({', '.join(emails) or 'no users'})" for tenant, emails in choices.items()]
        more = f", and {len(listed) - _TENANTS_LISTED} more" if len(listed) > _TENANTS_LISTED else ""
        raise InvalidRequest(
            f"tenant_id: the lake has {len(listed)} tenants, and nothing says whose data the key is to open; name one "
            f"(tenant_id), or ask for a new one (new_tenant): {', '.join(listed[:_TENANTS_LISTED])}{more}"
        )
    return there.pop() if len(there) == 1 else OPEN_TENANT_ID


def _as_uuid(value: str | None) -> str | None:
    try:
        return None if value is None else str(UUID(value))
    except ValueError:
        raise ValueError("is not a UUID") from None


class NewUser(WireModel):
    """A user that is to be made.

    Attributes:
        email: Who it is; what the user writes carries it as ``created_by`` and ``changed_by``.
        tenant_id: UUID text; None: see :func:`choose_tenant`.
        new_tenant: Whether the user gets a tenant that nobody else has.
        scopes: What the key may do.
        labels: To which series the key is limited; none: it may use all of the tenant's.
    """

    email: Email
    tenant_id: str | None = None
    new_tenant: bool = False
    scopes: Scopes = Field(default_factory=lambda: [*SCOPES[:2]])
    labels: Limits = Field(default_factory=dict)

    _tenant_id_is_a_uuid = field_validator("tenant_id")(_as_uuid)

    @field_validator("email")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError("is not an e-mail address")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.labels and "admin" in self.scopes:
            raise ValueError(_ADMIN_IS_WHOLE)
        if self.new_tenant and self.tenant_id is not None:
            raise ValueError("tenant_id: a new tenant has an id of its own; leave one of the two out")
        return self


class UserChange(WireModel):
    """What is to change of a user; a field left out stays, ``labels: {}`` takes the limits away."""

    tenant_id: str | None = None
    scopes: Scopes | None = None
    labels: Limits | None = None

    _tenant_id_is_a_uuid = field_validator("tenant_id")(_as_uuid)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.tenant_id is None and self.scopes is None and self.labels is None:
            raise ValueError("nothing to change: name a tenant, scopes or labels")
        return self

    def of(self, user: User) -> User:
        """The user with the change.

        Raises:
            InvalidRequest: the scopes and the labels do not go together.
        """
        new = replace(
            user,
            tenant_id=self.tenant_id or user.tenant_id,
            scopes=user.scopes if self.scopes is None else scopes_text(self.scopes),
            labels=user.labels if self.labels is None else labels_text(self.labels),
        )
        if new.limits and new.may("admin"):
            raise InvalidRequest(_ADMIN_IS_WHOLE)
        return new


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
        changed_time: When anything of it was last changed, UTC.
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
