"""The batches of a read with the labels of each row's series beside them, as an upload takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from timedb.client.selection import message_of
from timedb.contract.wire import ListSeries

if TYPE_CHECKING:
    from timedb.client import Client
    from timedb.client.read_stream import ReadStream

__all__ = ["LabelledBatches"]


class LabelledBatches:
    """Iterates over batches that have a column ``labels`` in front: JSON text; null where a series has none.

    Attributes:
        schema: Of the batches.
    """

    def __init__(self, client: Client, stream: ReadStream) -> None:
        self.schema: pa.Schema = stream.schema.insert(0, pa.field("labels", pa.string()))
        self._client = client
        self._stream = stream
        self._known: dict[str, str | None] = {}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._stream:
            ids = batch.column("series_id")
            self._learn([each for each in ids.dictionary.to_pylist() if each not in self._known])
            texts = pa.array([self._known.get(each) for each in ids.dictionary.to_pylist()], pa.string())
            yield pa.RecordBatch.from_arrays([texts.take(ids.indices), *batch.columns], schema=self.schema)

    def _learn(self, series_ids: list[str]) -> None:
        if series_ids:
            found = self._client.call("list_series", message_of(ListSeries, {"series_ids": series_ids}))
            for series in found["series"]:
                labels = json.dumps(series["labels"], ensure_ascii=False) if series["labels"] else None
                self._known[series["series_id"]] = labels
