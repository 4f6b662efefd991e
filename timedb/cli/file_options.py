"""The options of a file as options of commands."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import typer

from timedb.layouts.options import FILE_OPTIONS, RUN_OPTIONS, FileOption

__all__ = ["LayoutAsked", "RunAsked", "file_parameter", "options_typed"]

LayoutAsked = Annotated[dict[str, Any], FILE_OPTIONS]
"""How a file is laid out. A parameter of this kind is all these options at once, by name."""
RunAsked = Annotated[dict[str, Any], RUN_OPTIONS]


def file_parameter(option: FileOption) -> inspect.Parameter:
    """The parameter of a command that is this option."""
    name = f"--{option.name.replace('_', '-')}"
    metavar = option.metavar or ("LENGTH" if option.kind == "length" else None)
    if option.kind == "flag":
        info = typer.Option(name, help=option.help)
        annotation, default = Annotated[bool, info], False
    else:
        words: Any = Literal[option.words] if option.words else None
        kind: Any = {"texts": list[str], "count": int, "word": words}.get(option.kind, str)
        info = typer.Option(name, metavar=metavar, help=option.help, min=0 if option.kind == "count" else None)
        annotation, default = Annotated[kind | None, info], None
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def options_typed(*groups: dict[str, Any]) -> dict[str, Any]:
    """What was typed of them; what was not is left out."""
    typed = {name: value for group in groups for name, value in group.items()}
    return {name: value for name, value in typed.items() if value not in (None, False, [], ())}
