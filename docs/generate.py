"""Writes the pages of docs/ that the code already knows: the settings and the commands.

``make docs`` runs it; a test fails where a page is stale.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import typer
from pydantic_settings import BaseSettings

from timedb.cli.main import app
from timedb.settings import ClientSettings, ServerSettings

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; edit the code instead. -->\n"


def settings_page() -> str:
    """docs/settings.md."""
    head = (
        "# Settings\n\nEach is an environment variable; where a command has an option for it, the option wins. "
        "A value that does not fit is an error that names the variable.\n"
    )
    server = "A server process:\n\n" + settings_table(ServerSettings)
    client = "A client (a gateway and `timedb serve` never read the key):\n\n" + settings_table(ClientSettings)
    return "\n".join([NOTE + head, server, client])


def settings_table(settings: type[BaseSettings]) -> str:
    """A table of one class of settings."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `TIMEDB_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def cli_page() -> str:
    """docs/cli.md: what the commands and their options say of themselves."""
    group = typer.main.get_command(app)
    sections = [f"{NOTE}# The command line\n\n{inspect.cleandoc(group.help or '')}\n"]
    sections += [command_section(name, command) for name, command in getattr(group, "commands", {}).items()]
    return "\n".join(sections)


def command_section(name: str, command: Any) -> str:
    """One command: its usage, what it does, its options."""
    options = [each for each in command.params if each.param_type_name == "option"]
    arguments = [(each.metavar or each.name).upper() for each in command.params if each not in options]
    text = f"## timedb {name}\n\n`timedb {' '.join([name, *arguments, *(['[OPTIONS]'] if options else [])])}`\n"
    text += f"\n{inspect.cleandoc(command.help or '')}\n"
    rows = [f"| `{', '.join([*each.opts, *each.secondary_opts])}` | {each.help or ''} |" for each in options]
    return text + ("\n| option | |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else "")


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    return {DOCS / "settings.md": settings_page(), DOCS / "cli.md": cli_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(DOCS.parent))
