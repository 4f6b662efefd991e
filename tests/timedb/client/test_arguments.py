"""Arguments from numpy, pandas and the standard library mean the same."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from timedb.client.arguments import corrections, plain, texts
from timedb.contract.errors import InvalidRequest

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
ID = "61b44610-49df-5ec0-91bd-dbdbd49e8f1a"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (pd.Timestamp("2025-01-01T12:00Z"), NOON),
        (NOON, NOON),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (UUID(ID), ID),
        (("a", np.int64(1)), ["a", 1]),
        ({"run": {"at": pd.Timestamp("2025-01-01T12:00Z"), "n": [np.int8(1)]}}, {"run": {"at": NOON, "n": [1]}}),
        ("text", "text"),
        (None, None),
        (date(2025, 1, 1), date(2025, 1, 1)),
        (np.datetime64("2025-01-01"), date(2025, 1, 1)),
        (pd.NaT, None),
        (np.datetime64("NaT", "us"), None),
    ],
)
def test_values_become_plain(value: object, meaning: object) -> None:
    result = plain("field", value)
    assert result == meaning
    assert type(result) is type(meaning)


def test_a_time_finer_than_a_microsecond_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"run_params\.at: '2025-01-01 .*001\+00:00' is finer than a microsecond"):
        plain("run_params", {"at": pd.Timestamp("2025-01-01T00:00:00.000000001Z")})


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("load", ["load"]),
        (UUID(ID), [ID]),
        ([UUID(ID), "x"], [ID, "x"]),
        (pl.Series(["a", "b"]), ["a", "b"]),
        (pd.Index(["a"]), ["a"]),
        (None, None),
        (5, 5),
    ],
)
def test_one_text_or_several(value: object, meaning: object) -> None:
    assert texts(value) == meaning


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_time_of_numpy_has_no_zone(unit: Literal["s", "us", "ns"]) -> None:
    with pytest.raises(InvalidRequest, match=r"start_valid: '2025-01-01T12:00.*' of numpy has no time zone"):
        plain("start_valid", np.datetime64("2025-01-01T12:00", unit))


ROW = {"value_id": "x", "value": 1.0}


@pytest.mark.parametrize(
    ("updates", "reason"),
    [
        (pl.DataFrame([ROW]), r"updates: DataFrame is a table; pass its rows, as to_dicts\(\) of Polars"),
        (pd.DataFrame([ROW]), r"updates: DataFrame is a table; .*to_dict\('records'\) of pandas"),
        (pa.Table.from_pylist([ROW]), "updates: Table is a table"),
        (ROW, "updates: dict is not a list of corrections"),
        ("text", "updates: str is not a list of corrections"),
        (5, "updates: int is not a list of corrections"),
        ([ROW, "value"], "updates.1: 'value' is not a mapping"),
    ],
)
def test_what_is_no_list_of_corrections_says_what_to_pass(updates: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{reason}"):
        corrections(updates)


def test_rows_of_data_frames_are_corrections() -> None:
    row = {"series_id": ID, "valid_time": NOON, "value": 1.5, "tags": None}
    assert corrections(pl.DataFrame([row]).to_dicts()) == [row]
    frame = pd.DataFrame([{**row, "known_time": pd.NaT}])
    assert corrections(frame.to_dict("records")) == [{**row, "known_time": None}]
