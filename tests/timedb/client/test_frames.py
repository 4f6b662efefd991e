"""Frames as uploads: types of the wire, batches of a good size, errors that name the column."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.timedb.conftest import T0, frame
from timedb.client import frames
from timedb.client.frames import open_data
from timedb.contract.errors import InvalidRequest

IDENTIFIER = pa.dictionary(pa.int32(), pa.string())


def sent(data: object) -> pa.Table:
    """What goes over the wire."""
    return open_data(data).open().read_all()


def test_text_goes_out_in_plain_types() -> None:
    data = frame("load", [1.0, 2.0]).with_columns(
        series_key=pl.col("series_key").cast(pl.Categorical), annotation=pl.lit("x"), tags=pl.Series([["a"], None])
    )
    table = sent(data)
    assert table.schema.field("series_key").type == IDENTIFIER
    assert table.schema.field("annotation").type == pa.string()
    assert table.schema.field("tags").type == pa.list_(pa.string())
    assert table.to_pylist() == data.with_columns(pl.col("series_key").cast(pl.String)).to_dicts()


@pytest.mark.parametrize("value_type", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("index_type", [pa.int8(), pa.uint32(), pa.int64()])
def test_dictionaries_of_any_make_become_one(index_type: pa.DataType, value_type: pa.DataType) -> None:
    keys = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], index_type), pa.array(["a", "b"], value_type))
    table = sent(pa.table({"series_key": keys}))
    assert table.schema.field("series_key").type == IDENTIFIER
    assert table["series_key"].to_pylist() == ["b", None, "a"]


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.string_view()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 1), pa.list_(pa.null())],
)
def test_lists_of_any_make_become_one(kind: pa.DataType) -> None:
    tags = [[None]] if kind.value_type == pa.null() else [["a"]]
    table = sent(pa.table({"tags": pa.array(tags, kind)}))
    assert table.schema.field("tags").type == pa.list_(pa.string())
    assert table["tags"].to_pylist() == tags


def test_a_frame_in_crumbs_goes_out_in_few_batches() -> None:
    crumbs = [pa.record_batch({"series_key": pa.array([str(i % 7)]).dictionary_encode()}) for i in range(10_000)]
    batches = list(open_data(pa.Table.from_batches(crumbs)).open())
    assert len(batches) == 1
    assert batches[0].column(0).to_pylist() == [str(i % 7) for i in range(10_000)]


def test_a_large_frame_goes_out_in_batches_of_bounded_size() -> None:
    rows = 3 * frames.MAX_BATCH_ROWS + 5
    batches = list(open_data(pl.DataFrame({"value": range(rows)})).open())
    assert max(batch.num_rows for batch in batches) == frames.MAX_BATCH_ROWS
    assert pa.Table.from_batches(batches)["value"].to_pylist() == list(range(rows))


def test_wide_rows_go_out_in_batches_of_bounded_bytes() -> None:
    batches = list(open_data(pl.DataFrame({"annotation": ["x" * 10_000] * 3_000})).open())
    assert sum(batch.num_rows for batch in batches) == 3_000
    assert max(batch.nbytes for batch in batches) <= frames.MAX_BATCH_BYTES


def test_an_empty_frame_keeps_its_columns() -> None:
    table = sent(frame("load", []))
    assert table.num_rows == 0
    assert table.column_names == ["series_key", "valid_time", "value"]


def test_only_tables_and_frames_can_be_sent_again() -> None:
    data = frame("load", [1.0])
    assert open_data(data).repeatable
    assert open_data(data.to_pandas()).repeatable
    assert open_data(data.to_arrow()).repeatable
    assert not open_data(data.to_arrow().to_reader()).repeatable


def test_what_a_reader_raises_keeps_its_class() -> None:
    class Broken(Exception):
        pass

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"value": [1.0]})
        raise Broken

    reader = pa.RecordBatchReader.from_batches(pa.schema([("value", pa.float64())]), batches())
    with pytest.raises(Broken):
        sent(reader)


def test_a_named_index_of_pandas_is_a_column_and_an_unnamed_one_is_not() -> None:
    data = frame("load", [1.0, 2.0, 3.0]).to_pandas()
    assert set(sent(data.set_index("valid_time")).column_names) == {"valid_time", "series_key", "value"}
    assert sent(data[data["value"] > 1]).column_names == ["series_key", "valid_time", "value"]
    both = data.set_index(["series_key", "valid_time"])
    assert set(sent(both).column_names) == {"valid_time", "series_key", "value"}


class Streamless:
    """Arrow data of one batch, as libraries without pyarrow hand it out."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self._batch.__arrow_c_array__(requested_schema)


def test_a_single_arrow_array_will_do() -> None:
    batch = pa.record_batch({"value": [1.0]})
    assert sent(Streamless(batch)).to_batches() == [batch]


NAIVE = datetime(2025, 1, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame("load", [1.0]).with_columns(colour=1, size=2), "colour: unknown column; there are series_id"),
        (frame("load", [1.0]).with_columns(valid_time=pl.lit(NAIVE)), "valid_time: its times have no time zone"),
        (pd.DataFrame({"known_time": [NAIVE]}), "known_time: its times have no time zone"),
        (pd.DataFrame([[1, 2]], columns=["value", "value"]), "value: the column is there twice"),
        (pa.table([[1], [2]], names=["value", "value"]), "value: the column is there twice"),
        (pd.DataFrame({"value": [1, "x"]}), "data: .*value"),
        (pd.DataFrame({"value": [1]}, index=pd.Index([T0], name="hour")), "hour: unknown column"),
        (frame("load", [1.0]).lazy(), "LazyFrame is neither a data frame nor Arrow data; collect"),
        (frame("load", [1.0])["value"], "Series is not tabular"),
        ([{"value": 1}], "list is neither a data frame nor Arrow data"),
        (None, "NoneType is neither"),
    ],
)
def test_what_cannot_be_uploaded_is_named(data: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        open_data(data)
