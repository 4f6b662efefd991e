"""``timedb users``: who may call a lake, straight in its folder; no server needs to run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from timedb.cli.options import AsJson, labels_of
from timedb.cli.output import confirm, say, show

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]
Email = Annotated[str | None, typer.Option("--email", "-e", help="Which user.")]
UserId = Annotated[str | None, typer.Option("--user-id", metavar="UUID", help="Which user, instead of --email.")]
TenantId = Annotated[
    str | None,
    typer.Option("--tenant-id", "-t", metavar="UUID", help="Of which tenant, where several have such a user."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

users = typer.Typer(no_args_is_help=True, help="Make and revoke API keys. Servers that run take note within a second.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("create", create),
        ("list", list_users),
        ("regenerate-key", regenerate_key),
        ("deactivate", deactivate),
        ("activate", activate),
    ):
        users.command(name)(command)
    app.add_typer(users, name="users")


def create(
    email: Annotated[str, typer.Option("--email", "-e", help="Who it is; unique within the tenant.")],
    tenant_id: Annotated[
        str | None, typer.Option("--tenant-id", "-t", metavar="UUID", help="Whose data the key opens. [a new tenant]")
    ] = None,
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
    """Make a user and print its key, once. The first one makes the lake and asks every call for a key, for good."""
    from timedb import sdk

    limits: Any = labels_of(labels) or None
    user = sdk.create_user(email, tenant_id=tenant_id, scopes=scope or None, labels=limits, lake=lake)
    if tenant_id is None:
        _tell_of_open_data(lake)
    _show_with_key(user, as_json=json)


def list_users(
    tenant_id: Annotated[
        str | None, typer.Option("--tenant-id", "-t", metavar="UUID", help="Only users of this tenant.")
    ] = None,
    include_inactive: Annotated[
        bool, typer.Option("--include-inactive", help="Also users whose key has been deactivated.")
    ] = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """List the users."""
    from timedb import sdk

    show(sdk.list_users(tenant_id=tenant_id, include_inactive=include_inactive, lake=lake), as_json=json)


def regenerate_key(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    yes: Yes = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Give a user a new key and print it, once. The old one opens nothing any more."""
    from timedb import sdk

    confirm(f"Give {email or user_id} a new key, and let the old one open nothing any more?", yes=yes)
    user = sdk.regenerate_api_key(email, user_id=user_id, tenant_id=tenant_id, lake=lake)
    _show_with_key(user, as_json=json)


def deactivate(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    yes: Yes = False,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Let a user's key open nothing any more."""
    from timedb import sdk

    confirm(f"Let the key of {email or user_id} open nothing any more?", yes=yes)
    show(sdk.deactivate_user(email, user_id=user_id, tenant_id=tenant_id, lake=lake), as_json=json)


def activate(
    email: Email = None,
    user_id: UserId = None,
    tenant_id: TenantId = None,
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Let a deactivated user's key open the lake again."""
    from timedb import sdk

    show(sdk.activate_user(email, user_id=user_id, tenant_id=tenant_id, lake=lake), as_json=json)


def _show_with_key(user: dict[str, Any], *, as_json: bool) -> None:
    show(user, as_json=as_json)
    say("Keep the api_key now: only its hash is stored, so nobody can show it again.")


def _tell_of_open_data(lake: str | None) -> None:
    from storage import Lake as StoredLake
    from timedb.identity import OPEN_TENANT_ID
    from timedb.settings import ServerSettings, load_settings

    settings = load_settings(ServerSettings, lake=lake)
    opened = StoredLake.open(settings.lake, settings, create=False)
    if opened.has_tenant(OPEN_TENANT_ID):
        say(f"This is a new tenant; what was written while the lake was open is seen with --tenant-id {OPEN_TENANT_ID}")
    opened.close()
