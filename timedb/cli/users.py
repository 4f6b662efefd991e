"""``timedb users``: who may call a lake, straight in its folder; no server needs to run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.options import AsJson, labels_of
from timedb.cli.output import confirm, say, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]
Email = Annotated[str | None, typer.Option("--email", "-e", help="Which user.")]
UserId = Annotated[str | None, typer.Option("--user-id", metavar="UUID", help="Which user, instead of --email.")]
TenantId = Annotated[
    str | None,
    typer.Option(
        "--tenant", "--tenant-id", "-t", metavar="UUID", help="Of which tenant, where several have such a user."
    ),
]
Scopes = Annotated[list[str] | None, typer.Option("--scope", help="read, write or admin; may be repeated.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_FIRST = ("email", "tenant_id", "scopes", "labels", "is_active")

users = typer.Typer(no_args_is_help=True, help="Make and revoke API keys. Servers that run take note within a second.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for name, command in (
        ("create", create),
        ("list", list_users),
        ("update", update),
        ("regenerate-key", regenerate_key),
        ("deactivate", deactivate),
        ("activate", activate),
    ):
        users.command(name)(command)
    app.add_typer(users, name="users")


def create(
    email: Annotated[str, typer.Option("--email", "-e", help="Who it is; unique within the tenant.")],
    tenant_id: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            "--tenant-id",
            "-t",
            metavar="UUID",
            help="Whose data the key opens. [the only tenant, or what was written while the lake was open]",
        ),
    ] = None,
    new_tenant: Annotated[bool, typer.Option("--new-tenant", help="A tenant that nobody else has.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; may be repeated. [read and write]")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="KEY=VALUE", help="Limit the key to series with this label; twice for either value."
        ),
    ] = None,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Make a user and print its key, once. The first one asks every call for a key, for good.

    A lake is made only where --lake or TIMEDB_LAKE says where it is. Where the lake has several tenants, it asks which.

    Example: timedb users create --email ann@example.com --scope read --scope write
    """
    from timedb.run import users as accounts

    was_there = _is_there(lake)
    if tenant_id is None and not new_tenant and was_there and sys.stdin.isatty():
        tenant_id, new_tenant = _ask_tenant(accounts.tenants_to_choose(lake))
    limits: Any = labels_of(labels) or None
    user = accounts.create_user(
        email, tenant_id=tenant_id, new_tenant=new_tenant, scopes=scope or None, labels=limits, lake=lake
    )
    _tell_where(user, lake, made=not was_there)
    _show_with_key(user, as_json=json)


def update(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    to_tenant: Annotated[
        str | None, typer.Option("--to-tenant", metavar="UUID", help="The tenant whose data the key opens from now on.")
    ] = None,
    scope: Scopes = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="KEY=VALUE", help="Limit the key to series with this label; twice for either value."
        ),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Limit the key to no labels any more.")] = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Change a user's tenant, scopes or labels. The key stays, and what was written with it stays where it is.

    Example: timedb users update --email ann@example.com --scope read
    """
    from timedb.contract.errors import InvalidRequest
    from timedb.run import users as accounts

    if no_labels and labels:
        raise InvalidRequest("--no-labels: takes all labels away, so it does not go with --label")
    limits: Any = {} if no_labels else labels_of(labels) or None
    user = accounts.update_user(
        email,
        user_id=user_id,
        tenant_id=tenant_id,
        to_tenant=to_tenant,
        scopes=scope or None,
        labels=limits,
        lake=lake,
    )
    show(user, as_json=json)


def list_users(
    tenant_id: Annotated[
        str | None, typer.Option("--tenant", "--tenant-id", "-t", metavar="UUID", help="Only users of this tenant.")
    ] = None,
    include_inactive: Annotated[
        bool, typer.Option("--include-inactive", help="Also users whose key has been deactivated.")
    ] = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """List the users with their tenants; also say which tenants with data nobody has a key to.

    Example: timedb users list --include-inactive
    """
    from timedb.run import users as accounts

    found = accounts.list_users(tenant_id=tenant_id, include_inactive=include_inactive, lake=lake)
    # What people look for comes first; programs go by the names.
    show(
        found if json else [{name: user[name] for name in dict.fromkeys((*_FIRST, *user))} for user in found],
        as_json=json,
    )
    for tenant in accounts.tenants_of(lake):
        if not tenant["users"] and tenant_id in (None, tenant["tenant_id"]):
            say(f"nobody has a key to the tenant {_described(tenant['tenant_id'])}")


def regenerate_key(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    yes: Yes = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Give a user a new key and print it, once. The old one opens nothing any more.

    Example: timedb users regenerate-key --email ann@example.com
    """
    from timedb.run import users as accounts

    confirm(f"Give {email or user_id} a new key, and let the old one open nothing any more?", yes=yes)
    user = accounts.regenerate_api_key(email, user_id=user_id, tenant_id=tenant_id, lake=lake)
    _show_with_key(user, as_json=json)


def deactivate(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    yes: Yes = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Let a user's key open nothing any more.

    Example: timedb users deactivate --email ann@example.com
    """
    from timedb.run import users as accounts

    confirm(f"Let the key of {email or user_id} open nothing any more?", yes=yes)
    show(accounts.deactivate_user(email, user_id=user_id, tenant_id=tenant_id, lake=lake), as_json=json)


def activate(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Let a deactivated user's key open the lake again.

    Example: timedb users activate --email ann@example.com
    """
    from timedb.run import users as accounts

    show(accounts.activate_user(email, user_id=user_id, tenant_id=tenant_id, lake=lake), as_json=json)


def _show_with_key(user: dict[str, Any], *, as_json: bool) -> None:
    show(user, as_json=as_json)
    say("Keep the api_key now: only its hash is stored, so nobody can show it again.")


def _ask_tenant(tenants: Mapping[str, Sequence[str]]) -> tuple[str | None, bool]:
    """Which of several tenants, or whether a new one; neither where there is nothing to choose."""
    if not tenants:
        return None, False
    say("The lake has several tenants. Whose data shall the key open?")
    for number, (tenant, emails) in enumerate(tenants.items(), 1):
        say(f"  {number}  {_described(tenant)}: {', '.join(emails) or 'no users'}")
    say(f"  {len(tenants) + 1}  a new one")
    choices: dict[int, str | None] = dict(enumerate([*tenants, None], 1))
    while (number := typer.prompt("Number", type=int, err=True)) not in choices:
        say(f"there is no {number}")
    return choices[number], choices[number] is None


def _described(tenant_id: str) -> str:
    from timedb.contract.identity import OPEN_TENANT_ID

    return f"{tenant_id} (what was written while the lake was open)" if tenant_id == OPEN_TENANT_ID else tenant_id


def _is_there(lake: str | None) -> bool:
    from timedb.contract.errors import NotFound
    from timedb.run import users as accounts

    try:
        accounts.list_users(lake=lake)
    except NotFound:
        return False
    return True


def _tell_where(user: dict[str, Any], lake: str | None, *, made: bool) -> None:
    from timedb.contract.settings import ServerSettings, load_settings, local_path
    from timedb.run import users as accounts

    address = load_settings(ServerSettings, lake=lake).lake
    path = local_path(address)
    say(f"{'made' if made else 'changed'} the lake at {address if path is None else path.absolute()}")
    (tenant,) = (each for each in accounts.tenants_of(lake) if each["tenant_id"] == user["tenant_id"])
    others = [email for email in tenant["users"] if email != user["email"]]
    beside = f", as those of {', '.join(others)}" if others else ""
    say(f"the key opens the tenant {_described(tenant['tenant_id'])}{beside}; without a key nothing opens any more")
