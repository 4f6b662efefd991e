"""Bodies with tables as people have them: the options of files, as query parameters of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from timedb.client.frames import open_data
from timedb.contract.errors import InvalidRequest
from timedb.contract.times import parse_time
from timedb.contract.wire import quoted
from timedb.files.table_files import TableLimits
from timedb.layouts.layout import Layout, as_argument
from timedb.layouts.opening import open_source
from timedb.layouts.options import FILE_OPTIONS, FileOption
from timedb.layouts.prepared import prepare_table, run_fields
from timedb.layouts.spool import Spool

__all__ = ["LAYOUT_OPTIONS", "LaidOut", "layout_parameters", "layout_said", "prepared_body"]

_OF_THE_RUN = ("known_time", "run_start_time")
LAYOUT_OPTIONS: dict[str, FileOption] = {each.name: each for each in FILE_OPTIONS if each.over_rest}
"""The options of files that a body may have; two of them are fields of the run, too, which may name a column."""
_RUN = ("run_id", "run_params", "workflow_id", "unit", "create_series", "skip_unchanged", "run_finish_time")
# As the Python client and the command line send them: the same file is the same run, whichever door it comes through.
_SENT_BY_CLIENTS = {"create_series": True, "skip_unchanged": False}
_WORDS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A body that was read by its layout.

    Attributes:
        fields: Of the upload's command.
        rows: How many values there are.
        reader: The values.
    """

    fields: dict[str, Any]
    rows: int
    reader: pa.RecordBatchReader


def layout_said(parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The options of a file that are among the parameters of a call.

    Raises:
        InvalidRequest: one is no truth value or number where it has to be, or comes twice.
    """
    said: dict[str, Any] = {}
    for name, text in parameters:
        option = LAYOUT_OPTIONS.get(name)
        if option is None or (name in _OF_THE_RUN and _is_time(text)):
            continue
        if option.kind == "texts":
            said.setdefault(name, []).append(text)
            continue
        if name in said:
            raise InvalidRequest(f"{name}: is given more than once", field=name)
        said[name] = _value(option, text)
    return said


def _is_time(text: str) -> bool:
    try:
        parse_time(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text, naive_is_utc=True)
    except ValueError:
        return False
    return True


def _value(option: FileOption, text: str) -> Any:
    if option.kind == "flag":
        if text.lower() not in _WORDS:
            raise InvalidRequest(f"{option.name}: {quoted(text)} is not true or false", field=option.name)
        return _WORDS[text.lower()]
    if option.kind == "count":
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise InvalidRequest(f"{option.name}: {quoted(text)} is not a whole number", field=option.name)
        return int(text)
    return text


def prepared_body(
    body: bytes, kind: str, said: dict[str, Any], fields: dict[str, Any], limits: TableLimits, spool: Spool
) -> LaidOut:
    """Read a body whole by its layout; times without an offset are UTC unless the query says a zone.

    Args:
        body: The table.
        kind: Its format.
        said: The options.
        fields: What the query says of the run.
        limits: What the table may hold.
        spool: Where its rows are kept.

    Raises:
        InvalidRequest: names line, column, text and the parameter that helps.
        TooLarge: the table holds more.
    """
    layout = Layout.of(said, as_argument, zone="UTC")
    opened = open_source(pa.BufferReader(body), kind, "body", layout, limits)
    prepared = prepare_table(opened, layout, spool)
    times = {name: fields[name] for name in _OF_THE_RUN if name in fields}
    run = run_fields(prepared, {name: fields[name] for name in _RUN if name in fields}, "body", layout)
    if "run_id" not in fields and times:
        run["run_id"] = prepared.digest({**{name: run[name] for name in run if name != "run_id"}, **times})
    return LaidOut({**_SENT_BY_CLIENTS, **run, **times}, prepared.rows, open_data(prepared.reader()).open())


def layout_parameters(described: Callable[[FileOption], dict[str, Any]]) -> list[dict[str, Any]]:
    """The query parameters of a body's layout, but those that the run has anyway.

    Args:
        described: An option → its parameter in the document.
    """
    return [described(each) for name, each in LAYOUT_OPTIONS.items() if name not in _OF_THE_RUN]
