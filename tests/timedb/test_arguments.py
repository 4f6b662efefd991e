"""Arguments from numpy, pandas and the standard library mean the same."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pytest

from timedb.arguments import plain, texts
from timedb.errors import InvalidRequest

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
