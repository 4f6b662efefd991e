"""The options of a read, said once, and the doors that make theirs from them."""

from __future__ import annotations

import typer.main

from timedb.cli.main import app
from timedb.contract.read_options import ACCURACY, READ, ROWS, Compared, Rows, Selection
from timedb.contract.wire import AccuracyCommand, ReadCommand, Relative, Resample, Selecting
from timedb.rest_gateway.ask.reads import AccuracyQuery, ValuesQuery

# What has a shape of its own at each door.
SHAPED = {"series_ids", "series_keys", "labels", "view", "columns", "names", "ordered", "limit", "after"}
SHAPED_IN_ACCURACY = {"actual_id", "actual_key", "actual_labels", "reference_labels", "horizon"}
FLIGHT_ALONE = {"compression", "identifiers"}


def test_keyword_arguments_are_the_fields_of_the_message() -> None:
    assert set(Selection.__annotations__) == set(ReadCommand.model_fields)
    assert set(Rows.__annotations__) == set(Selecting.model_fields)
    named = {"horizon", "actual_id", "actual_key"}
    assert set(Compared.__annotations__) == set(AccuracyCommand.model_fields) - named


def test_every_field_is_an_option_or_made_of_some() -> None:
    options = {each.part_of or each.name for each in (*ROWS, *READ)}
    assert options == set(ReadCommand.model_fields) - SHAPED - FLIGHT_ALONE
    assert {each.name for each in ROWS} == set(Selecting.model_fields) - SHAPED - FLIGHT_ALONE
    own = set(AccuracyCommand.model_fields) - set(Selecting.model_fields) - SHAPED_IN_ACCURACY
    assert {each.part_of or each.name for each in ACCURACY} == own
    for part, message in (("relative", Relative), ("resample", Resample)):
        assert {each.name for each in READ if each.part_of == part} == set(message.model_fields) - {"time_zone"}


def test_every_door_has_them() -> None:
    commands = typer.main.get_group(app).commands
    rows, read = ({each.name for each in options} for options in (ROWS, READ))
    assert rows | read <= set(ValuesQuery.model_fields)
    compared = {each.name for each in ACCURACY}
    assert rows | compared | SHAPED_IN_ACCURACY <= set(AccuracyQuery.model_fields)
    assert compared <= {each.name for each in commands["accuracy"].params}
    assert rows | read <= {each.name for each in commands["read"].params}
    for command in ("accuracy", "export"):
        assert rows <= {each.name for each in commands[command].params}
