"""The commands of the command line, by their full names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from timedb.cli import app

__all__ = ["COMMANDS"]


def _commands_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in getattr(group, "commands", {}).items():
        yield prefix + name, command
        yield from _commands_of(command, f"{prefix}{name} ")


COMMANDS: dict[str, Any] = dict(_commands_of(typer.main.get_command(app)))
