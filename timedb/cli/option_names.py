"""Errors in the words of the command line: what the contract calls a field, the user typed as an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand

from timedb.contract.errors import TimeDBError

__all__ = ["OptionCommand", "speak_of_options"]

_CALLED = {
    "series_keys": "series",
    "series_ids": "series_id",
    "series_key": "series",
    "actual_key": "actual",
    "actual_labels": "actual_label",
    "reference_labels": "reference_label",
    "url": "flight_url",
    "run_id": "run",
    "series_id": "series",
    "target": "lake",
}
"""What the contract calls it → the parameter of a command."""
_SETTINGS = {"TIMEDB_REST_PORT": ("rest_port", "port")}
_ADD_LABELS = re.compile(r"add (?:actual_|reference_)?labels[^:]*(?=:)")
_RELATIVE = re.compile(r"^relative(?= and )|(?<=lead_time and )relative")
_RESAMPLE = re.compile(r"^resample(?= )")
_LISTS = re.compile(r"; (?:did you mean|there are|it has|say which of) ")


class OptionCommand(TyperCommand):
    """A command whose errors name its options."""

    def invoke(self, ctx: Any) -> Any:
        """Run it.

        Raises:
            TimeDBError: as the command does, with options in the place of fields.
        """
        try:
            return super().invoke(ctx)
        except TimeDBError as error:
            raise _in_options(error, ctx) from None


def speak_of_options(app: typer.Typer) -> None:
    """Have every command of an app, and of the apps in it, name options in its errors."""
    for command in app.registered_commands:
        command.cls = OptionCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            speak_of_options(group.typer_instance)


def _in_options(error: TimeDBError, ctx: typer.Context) -> TimeDBError:
    options = {
        str(each.name): max(each.opts, key=len)
        for each in ctx.command.params
        if each.param_type_name == "option" and each.name
    }
    arguments = {
        str(each.name): each.metavar or str(each.name).upper()
        for each in ctx.command.params
        if each.param_type_name == "argument"
    }
    typed = options | arguments
    fields = options | {field: typed[name] for field, name in _CALLED.items() if name in typed and field not in typed}
    uploads = "value" in options  # of whose file's columns errors speak, too
    if uploads:
        from timedb.contract.columns import UPLOAD_COLUMNS  # with Pydantic, which no help needs

        columns = set(UPLOAD_COLUMNS)
        if _is_typed("series", ctx):
            columns.discard("series_key")
        fields = {name: option for name, option in fields.items() if name not in columns}
    said = _ADD_LABELS.sub(lambda _: _label_advice(error.detail, options), error.detail).removeprefix("relative: ")
    said = _RESAMPLE.sub("--period", _RELATIVE.sub("--days-ahead and --window-length", said))
    told = type(error)(said, field=error.field, request_id=error.request_id)
    field = (told.field or "").removeprefix("relative.").removeprefix("resample.")
    name = _setting_as_option(field, ctx, options) if field.startswith("TIMEDB_") else fields.get(field)
    if name is not None:
        told = told.of_field(name)
    if uploads:
        return told
    said, rest = told.detail, ""
    if found := _LISTS.search(said):
        said, rest = said[: found.start()], said[found.start() :]
    return type(error)(_fields_as_options(said, fields) + rest, field=name, request_id=error.request_id)


def _fields_as_options(text: str, fields: Mapping[str, str]) -> str:
    """Replace names of fields with ``_``, which no word of prose has; never what is quoted."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        return fields[name] if name in fields and ("_" in name or match["path"]) else match[0]

    pattern = (
        r"(?P<quoted>'[^']*'|\"[^\"]*\"|\{.*\})|(?<![\w./-])(?P<path>relative\.|resample\.)?(?P<name>[a-z_]+)(?![\w/-])"
    )
    return re.sub(pattern, lambda match: match[0] if match["quoted"] else replace(match), text)


def _setting_as_option(setting: str, ctx: typer.Context, options: Mapping[str, str]) -> str | None:
    """The option that was typed for a setting, if one was."""
    names = _SETTINGS.get(setting, (setting.removeprefix("TIMEDB_").lower(),))
    return next((options.get(each) for each in names if _is_typed(each, ctx)), None)


def _is_typed(name: str, ctx: typer.Context) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _label_advice(detail: str, options: Mapping[str, str]) -> str:
    """Which option tells series of one name apart."""
    if detail.startswith("actual_key") and "actual_id" in options:
        return "say which with --actual-id or --actual-label KEY=VALUE; their labels"
    if detail.startswith("reference_key"):
        return "say which with --reference-label KEY=VALUE"
    if "label_value" in options:
        return "say which with --label-value KEY=TEXT or --label KEY=COLUMN"
    if "labels" in options:
        return "say which with --label KEY=VALUE"
    return "add labels"
