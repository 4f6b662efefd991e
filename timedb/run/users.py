"""Who may call a lake: users with API keys, made and changed straight in its folder. No server has to run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.sdk import create

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from timedb.storage import Lake
    from timedb.storage.users.users import UserAddress

__all__ = [
    "activate_user",
    "create_user",
    "create_with_users",
    "deactivate_user",
    "list_users",
    "regenerate_api_key",
    "tenants_of",
    "tenants_to_choose",
    "update_user",
]


def create_with_users(lake: str | None = None) -> None:
    """Make the lake, and ask every call for an API key from now on and for good; keys are made by :func:`create_user`.

    Args:
        lake: As of :func:`timedb.create`; one that is there already keeps what is in it.

    Raises:
        InvalidRequest: the place holds something else.

    Examples:
        >>> td.create_with_users(f"{folder}/with-users")
        Creating database schema...
        ✓ ...
    """
    create(lake)
    with _opened(lake) as opened:
        opened.enable_users()
    print("✓ Users are on: every call needs an API key; td.create_user() or timedb users create makes one")


def create_user(
    email: str,
    *,
    tenant_id: str | UUID | None = None,
    new_tenant: bool = False,
    scopes: Iterable[str] | None = None,
    labels: Mapping[str, str | list[str]] | None = None,
    lake: str | None = None,
) -> dict[str, Any]:
    """Make a user with an API key. The first one closes the lake to everybody else.

    Where neither ``tenant_id`` nor ``new_tenant`` says whose data the key opens, the first user of a lake that was
    used while it was open gets the tenant of what was written then; others get the only tenant that there is; in a
    lake without any a new one. Among several one has to be named.

    Args:
        email: Who it is; what is written with the key carries it as ``changed_by``. One user a tenant.
        tenant_id: The tenant, whose data the key opens.
        new_tenant: Whether the user gets a tenant that nobody else has.
        scopes: Of ``read``, ``write`` (uploads, corrections, series) and ``admin`` (upkeep, retention); None: the
            first two.
        labels: Limits the key to the series with these labels: a value, or a list of which any will do.
        lake: As of :func:`timedb.create`. Where there is none, it is made if it is named here or in ``TIMEDB_LAKE``.

    Returns:
        ``user_id``, ``tenant_id``, ``email``, ``scopes``, ``labels``, ``is_active``, ``created_time``,
        ``changed_time`` and ``api_key``, which is kept nowhere: only its hash is.

    Raises:
        InvalidRequest: names the argument that does not fit, or the tenants of which one has to be named.
        Conflict: the tenant has a user of that e-mail.
        NotFound: there is no lake, and none is named.

    Examples:
        >>> user = td.create_user("bo@example.com", scopes=["read"], new_tenant=True, lake=closed)
        >>> with td.connect(url, api_key=user["api_key"]) as client:
        ...     client.health()
        {'ok': True}
    """
    from timedb.contract.wire import parse_object
    from timedb.storage.users.users import NewUser

    fields = {
        "email": email,
        "tenant_id": None if tenant_id is None else str(tenant_id),
        "new_tenant": new_tenant,
        "scopes": None if scopes is None else list(scopes),
        "labels": None if labels is None else dict(labels),
    }
    new = parse_object(NewUser, {name: value for name, value in fields.items() if value is not None}, what="user")
    with _opened(lake, make=True) as opened:
        return opened.create_user(new)


def update_user(
    email: str | None = None,
    *,
    user_id: str | UUID | None = None,
    tenant_id: str | UUID | None = None,
    to_tenant: str | UUID | None = None,
    scopes: Iterable[str] | None = None,
    labels: Mapping[str, str | list[str]] | None = None,
    lake: str | None = None,
) -> dict[str, Any]:
    """Change what a user's key opens, within a second or so on every server; the key stays, what is None stays.

    What was written with the key stays where it was written.

    Args:
        email: Which user.
        user_id: Which user, in place of the e-mail.
        tenant_id: Of which tenant, where several have a user of that e-mail.
        to_tenant: The tenant whose data the key opens from now on.
        scopes: What the key may do from now on.
        labels: To which series it is limited from now on; ``{}``: to none.
        lake: As of :func:`timedb.create`.

    Returns:
        The user.

    Raises:
        NotFound: there is no such user, or no lake.
        InvalidRequest: the arguments do not say which user, or nothing that is to change.
        Conflict: the tenant has a user of that e-mail.

    Examples:
        >>> td.update_user("ann@example.com", scopes=["read"], lake=closed)["scopes"]
        ['read']
    """
    from timedb.contract.wire import parse_object
    from timedb.storage.users.users import UserChange

    fields = {
        "tenant_id": None if to_tenant is None else str(to_tenant),
        "scopes": None if scopes is None else list(scopes),
        "labels": None if labels is None else dict(labels),
    }
    change = parse_object(UserChange, {name: value for name, value in fields.items() if value is not None}, what="user")
    with _opened(lake) as opened:
        return opened.users.update(_user_address(email, user_id, tenant_id), change)


def tenants_of(lake: str | None = None) -> list[dict[str, Any]]:
    """The tenants of a lake: ``tenant_id``, the e-mails of those whose key opens it as ``users``, and ``has_data``.

    Args:
        lake: As of :func:`timedb.create`.

    Raises:
        NotFound: there is no lake.
    """
    with _opened(lake) as opened:
        users, kept = opened.users.list_users(), set(opened.tenants_with_data())
        return [
            {
                "tenant_id": tenant_id,
                "users": [user["email"] for user in users if user["tenant_id"] == tenant_id],
                "has_data": tenant_id in kept,
            }
            for tenant_id in sorted({*kept, *(user["tenant_id"] for user in users)})
        ]


def tenants_to_choose(lake: str | None = None) -> dict[str, list[str]]:
    """The tenants, with the e-mails of their users, of which :func:`create_user` wants one named; empty if it does not.

    Args:
        lake: As of :func:`timedb.create`.

    Raises:
        NotFound: there is no lake.
    """
    with _opened(lake) as opened:
        return opened.users.tenants_to_choose(opened.tenants_with_data())


def list_users(
    *, tenant_id: str | UUID | None = None, include_inactive: bool = False, lake: str | None = None
) -> list[dict[str, Any]]:
    """The users, oldest first; fields as of :func:`create_user`, without the key.

    Args:
        tenant_id: Only those of this tenant.
        include_inactive: Also those whose key has been deactivated.
        lake: As of :func:`timedb.create`.

    Raises:
        NotFound: there is no lake.

    Examples:
        >>> "ann@example.com" in [user["email"] for user in td.list_users(include_inactive=True, lake=closed)]
        True
    """
    with _opened(lake) as opened:
        return opened.users.list_users(None if tenant_id is None else str(tenant_id), include_inactive=include_inactive)


def regenerate_api_key(
    email: str | None = None,
    *,
    user_id: str | UUID | None = None,
    tenant_id: str | UUID | None = None,
    lake: str | None = None,
) -> dict[str, Any]:
    """Give a user a new key; the old one opens nothing any more, within a second or so on every server.

    Args:
        email: Which user.
        user_id: Which user, in place of the e-mail.
        tenant_id: Of which tenant, where several have a user of that e-mail.
        lake: As of :func:`timedb.create`.

    Returns:
        As :func:`create_user`.

    Raises:
        NotFound: there is no such user, or no lake.
        InvalidRequest: the arguments do not say which user.

    Examples:
        >>> key = td.regenerate_api_key("ann@example.com", lake=closed)["api_key"]
    """
    with _opened(lake) as opened:
        return opened.users.regenerate_key(_user_address(email, user_id, tenant_id))


def deactivate_user(
    email: str | None = None,
    *,
    user_id: str | UUID | None = None,
    tenant_id: str | UUID | None = None,
    lake: str | None = None,
) -> dict[str, Any]:
    """Let a user's key open nothing any more, within a second or so on every server; arguments and errors as
    :func:`regenerate_api_key`.

    Returns:
        The user.

    Examples:
        >>> td.deactivate_user("ann@example.com", lake=closed)["is_active"]
        False
    """
    with _opened(lake) as opened:
        return opened.users.set_active(_user_address(email, user_id, tenant_id), False)


def activate_user(
    email: str | None = None,
    *,
    user_id: str | UUID | None = None,
    tenant_id: str | UUID | None = None,
    lake: str | None = None,
) -> dict[str, Any]:
    """Let a deactivated user's key open the lake again; arguments and errors as :func:`regenerate_api_key`.

    Returns:
        The user.

    Examples:
        >>> td.activate_user("ann@example.com", lake=closed)["is_active"]
        True
    """
    with _opened(lake) as opened:
        return opened.users.set_active(_user_address(email, user_id, tenant_id), True)


def _user_address(email: str | None, user_id: str | UUID | None, tenant_id: str | UUID | None) -> UserAddress:
    from timedb.contract.wire import parse_object
    from timedb.storage.users.users import UserAddress

    fields = {"email": email, "user_id": user_id, "tenant_id": tenant_id}
    return parse_object(
        UserAddress, {name: str(value) for name, value in fields.items() if value is not None}, what="user"
    )


@contextmanager
def _opened(lake: str | None, *, make: bool = False) -> Iterator[Lake]:
    """The lake for a moment; no tenant of it is opened. It is made only if it is named, not in passing."""
    from timedb.contract.errors import NotFound
    from timedb.storage import Lake

    settings = load_settings(ServerSettings, lake=lake)
    named = "lake" in settings.model_fields_set
    try:
        opened = Lake.open(settings.lake, settings, create=make and named)
    except NotFound as error:
        if make and not named:
            raise NotFound(
                f"{error.detail}, and none is made unless it is named: --lake, TIMEDB_LAKE or lake= say where it is"
            ) from None
        raise
    try:
        yield opened
    finally:
        opened.close()
