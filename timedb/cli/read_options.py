"""The options of the contract's reads as options of commands, and what was typed for them as fields of a message."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from timedb.cli.file_options import file_parameter
from timedb.cli.options import instant_of_option
from timedb.contract.read_options import ACCURACY, READ, ROWS, ReadOption, nested
from timedb.layouts.options import FileOption

__all__ = ["AllVersions", "Asked", "Compared", "Filters", "Rows", "fields_typed", "with_read_options"]

Asked = Annotated[dict[str, Any], READ]
"""What a read of values was asked for. A parameter of this kind is all these options at once, by name."""
Rows = Annotated[dict[str, Any], ROWS]
Filters = Annotated[dict[str, Any], tuple(each for each in ROWS if each.name not in ("as_of", "token"))]
"""Those of a call that gives what was written, as it was."""
Compared = Annotated[dict[str, Any], ACCURACY]
"""What accuracy was asked for, beside the rows."""
AllVersions = Annotated[dict[str, Any], tuple(each for each in READ if each.name == "all_versions")]
_TYPES = {"count": int, "flag": bool}
_METAVARS = {"time": "TIME", "length": "LENGTH"}


def with_read_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of the kinds of this module are their options, each in its place."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups = {each.name: options for each in parameters if (options := _options_of(each))}
    spread: list[inspect.Parameter] = []
    for each in parameters:
        spread += map(_parameter, groups[each.name]) if each.name in groups else [each]

    @wraps(command)
    def run(**typed: Any) -> None:
        for group, options in groups.items():
            typed[group] = {each.name: typed.pop(each.name) for each in options}
        command(**typed)

    run.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined] # inspect asks for it
    run.__annotations__ = {each.name: each.annotation for each in spread}
    return run


def _options_of(parameter: inspect.Parameter) -> tuple[ReadOption | FileOption, ...]:
    found = next(iter(getattr(parameter.annotation, "__metadata__", ())), ())
    return found if isinstance(found, tuple) else ()


def _parameter(option: ReadOption | FileOption) -> inspect.Parameter:
    if isinstance(option, FileOption):
        return file_parameter(option)
    kind = _TYPES.get(option.kind, str)
    names = [f"--{option.name.replace('_', '-')}"]
    if option.kind == "texts":
        names.append(names[0].removesuffix("s"))  # of which each is one
    info = typer.Option(*names, metavar=option.metavar or _METAVARS.get(option.kind), help=option.option)
    if kind is bool:
        annotation, default = Annotated[bool, info], False
    elif option.kind == "texts":
        annotation, default = Annotated[list[str] | None, info], None
    else:
        annotation, default = Annotated[kind | None, info], None
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def fields_typed(time_zone: str | None, *groups: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a message that options say.

    Args:
        time_zone: What ``--time-zone`` says: of the times, of the parts of a read that have a zone.
        groups: Parameters of the kinds of this module.

    Raises:
        InvalidRequest: an option does not fit, or is there without another.
    """
    if time_zone is not None:
        from timedb.files.cells import check_time_zone

        check_time_zone("--time-zone", time_zone)
    typed = {name: value for group in groups for name, value in group.items()}
    for each in (*ROWS, *READ, *ACCURACY):
        if each.kind == "time" and each.name in typed:
            option = f"--{each.name.replace('_', '-')}"
            typed[each.name] = instant_of_option(option, typed[each.name], time_zone)
        elif each.kind == "texts":
            typed[each.name] = typed.get(each.name) or None
    return nested(typed, time_zone, zone_is_gate=False)
