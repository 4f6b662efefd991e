"""Who calls, and what a caller may do. While the lake has no users everybody may do everything."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timedb.contract.errors import Forbidden, Unauthenticated
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.storage.users.users import SCOPES, LabelLimits, Scope

if TYPE_CHECKING:
    from timedb.storage import Lake, Tenant

__all__ = ["ANY_KEY", "METHODS", "Access", "Caller", "Credentials", "authenticate", "authorise", "recheck", "tenant_of"]

KEY_HEADER = "x-api-key"
AUTHORIZATION_HEADER = "authorization"
_BASIC, _BEARER = "basic", "bearer"
_RECHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Access:
    """What a key needs for a call.

    Attributes:
        scope: The scope; None: any valid key will do.
        limited: Whether a key that is limited to some labels may make the call, on the series that it sees.
    """

    scope: Scope | None
    limited: bool = False

    @property
    def writes(self) -> bool:
        """Whether the call may change something."""
        return self.scope in ("write", "admin")


METHODS: dict[str, Access] = {
    "do_put": Access("write", limited=True),
    "do_get": Access("read", limited=True),
    "get_flight_info": Access("read", limited=True),
    "get_schema": Access("read", limited=True),
    "list_flights": Access("read", limited=True),
    "list_actions": Access(None, limited=True),
    "do_exchange": Access("read", limited=True),
}
"""What the methods of Flight need; one that is not here is for nobody. ``do_action`` needs what its action needs."""

ANY_KEY = Access(None, limited=True)
"""What a call needs that tells and changes nothing of the lake."""


class Credentials:
    """The API keys that came with a call, shown to nobody: in ``x-api-key``, as a bearer token, or as the password of
    any user (RFC 7617), as drivers of databases send it.

    Args:
        headers: Of the call, names in lower case.
    """

    __slots__ = ("_keys",)

    def __init__(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        sent = [key for key in map(_text, headers.get(KEY_HEADER, ())) if key]
        for value in map(_text, headers.get(AUTHORIZATION_HEADER, ())):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == _BEARER and token.strip():
                sent.append(token.strip())
            if scheme.lower() == _BASIC and (password := _password(token.strip())):
                sent.append(password)
        self._keys = frozenset(sent)

    def __repr__(self) -> str:
        return "Credentials(…)"

    def key(self) -> str | None:
        """The key; None where there is none, or where there are several, of which nobody can say which one counts."""
        return next(iter(self._keys)) if len(self._keys) == 1 else None


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call runs.

    Attributes:
        tenant_id: UUID text.
        principal: The e-mail of the key; None while the lake is open.
        scopes: What the key may do.
        limits: To which series it is limited; None where it is not.
    """

    tenant_id: str
    principal: str | None
    scopes: frozenset[Scope] = frozenset(SCOPES)
    limits: LabelLimits | None = None


def authenticate(lake: Lake, credentials: Credentials) -> Caller:
    """Who calls. While the lake has no users everybody is the open tenant, and a key that is sent is ignored.

    Raises:
        Unauthenticated: the lake has users, and the call no key, several, or one that is not valid.
    """
    if not lake.has_users:
        return Caller(OPEN_TENANT_ID, None)
    key = credentials.key()
    user = None if key is None else lake.users.find(key)
    if user is None:
        raise Unauthenticated()
    return Caller(user.tenant_id, user.email, frozenset(scope for scope in SCOPES if user.may(scope)), user.limits)


def recheck(lake: Lake, credentials: Credentials, caller: Caller) -> Callable[[], None]:
    """A check for calls that last: whether the key is still what it was when the call began.

    It looks once a second at most, and raises Unauthenticated where the key has been revoked meanwhile.
    """
    looked = time.monotonic()

    def check() -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked >= _RECHECK_SECONDS:
            looked = now
            if authenticate(lake, credentials) != caller:
                raise Unauthenticated()

    return check


def authorise(caller: Caller, access: Access | None) -> None:
    """Let a caller pass.

    Args:
        caller: Who calls.
        access: What the call needs; None: nobody may make it.

    Raises:
        Forbidden: the key lacks the scope, or is limited to some labels and the call is not.
    """
    if caller.principal is None:
        return
    if access is None or (access.scope is not None and access.scope not in caller.scopes):
        wanted = "" if access is None else f": it needs the scope {access.scope!r}"
        raise Forbidden(f"the key may not do this{wanted}")
    if caller.limits is not None and not access.limited:
        raise Forbidden("the key is limited to series of some labels, and this is about all of them")


def tenant_of(lake: Lake, caller: Caller) -> Tenant:
    """The caller's tenant, as far as the caller may see it."""
    tenant = lake.tenant(caller.tenant_id)
    if caller.limits is None or caller.principal is None:
        return tenant
    return tenant.limited_to(caller.limits, caller.principal)


def _password(token: str) -> str:
    token += "=" * (-len(token) % 4)  # Go's drivers leave the padding out
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[2].strip()
    except (binascii.Error, ValueError):
        return ""


def _text(value: str | bytes) -> str:
    return (value if isinstance(value, str) else value.decode("latin-1")).strip()
