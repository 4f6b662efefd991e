"""An example of each command, for the end of its help."""

from __future__ import annotations

import typer

__all__ = ["EXAMPLES", "show_examples"]

EXAMPLES = {
    "serve": "timedb serve --lake ./timedb-data",
    "api": "timedb api --port 8000 --flight-url grpc://127.0.0.1:8815",
    "create": "timedb create --lake ./timedb-data",
    "delete": "timedb delete --lake ./timedb-data",
    "status": "timedb status --json",
    "series": "timedb series --search wind --label site=north",
    "maintain": "timedb maintain",
    "upload": "timedb upload forecast.csv --valid-time hour --value mw --series wind --known-time issued",
    "read": "timedb read --series wind --start-valid 2025-01-01T00:00Z -o wind.csv",
    "export": "timedb export history.parquet --series wind",
    "accuracy": "timedb accuracy --actual wind-measured --series wind --horizon 6h",
    "sql": "timedb sql --lake ./timedb-data --dialect duckdb",
    "doctor": "timedb doctor --lake ./timedb-data",
    "upgrade": "timedb upgrade --lake ./timedb-data",
    "backup": "timedb backup /mnt/backup/today --lake ./timedb-data",
    "restore": "timedb restore /mnt/backup/today --lake ./restored",
    "retention": "timedb retention rules.json --apply",
    "import flexmeasures": "timedb import flexmeasures postgresql://ann@db.example.com/flexmeasures --dry-run",
    "import timely-beliefs": "timedb import timely-beliefs postgresql://ann@db.example.com/beliefs --dry-run",
    "users create": "timedb users create --email ann@example.com --lake ./timedb-data",
    "users list": "timedb users list --include-inactive",
    "users update": "timedb users update --email ann@example.com --scope read",
    "users regenerate-key": "timedb users regenerate-key --email ann@example.com",
    "users deactivate": "timedb users deactivate --email ann@example.com",
    "users activate": "timedb users activate --email ann@example.com",
}
"""Command → how it is typed; of a command that is not here its own help has one."""


def show_examples(app: typer.Typer, prefix: str = "") -> None:
    """Add the examples to the help of the commands of an app, and of the apps in it."""
    for command in app.registered_commands:
        assert command.callback is not None  # an app's commands are functions
        name = prefix + (command.name or command.callback.__name__.replace("_", "-"))
        if name in EXAMPLES and "Example:" not in (command.callback.__doc__ or ""):
            command.epilog = f"Example: {EXAMPLES[name]}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            show_examples(group.typer_instance, f"{group.name} ")
