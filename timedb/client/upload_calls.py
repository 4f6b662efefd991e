"""The client's call that writes values: a data frame of any make as one run."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from timedb.client.connection import BatchSource
from timedb.client.frames import UploadData, open_data
from timedb.client.progress import CountedBatches, Progress, RowCount, counting
from timedb.client.receipt import Receipt
from timedb.client.retrying import RETRIED, UPLOAD_ATTEMPTS, retrying
from timedb.client.run_calls import warn_if_withdrawn
from timedb.client.selection import Time, message_of
from timedb.contract.errors import OutcomeUnknown
from timedb.contract.wire import CorrectCommand, UploadCommand

if TYPE_CHECKING:
    from uuid import UUID

    from timedb.client.wide_frames import Wide

__all__ = ["UploadCalls"]


class UploadCalls(ABC):
    """The part of :class:`~timedb.client.Client` that uploads."""

    @abstractmethod
    def send(self, command: UploadCommand | CorrectCommand, reader: BatchSource) -> dict[str, Any]:
        """Send a table, once; the receipt of the contract."""

    def upload(
        self,
        data: Any,
        *,
        wide: Wide = False,
        run_id: str | UUID | None = None,
        workflow_id: str | None = None,
        run_start_time: Time | None = None,
        run_finish_time: Time | None = None,
        known_time: Time | None = None,
        run_params: Mapping[str, Any] | None = None,
        create_series: bool = True,
        skip_unchanged: bool = False,
        unit: str | None = None,
        progress: Progress = False,
    ) -> Receipt:
        """Write one run of values: all of them or none.

        Busy servers and lost connections are tried again under the same run_id, so that nothing is ever doubled;
        data that can be read only once (a reader, a DuckDB relation) is sent once.

        Args:
            data: A Polars, pandas or pyarrow table, a ``pa.RecordBatchReader``, a DuckDB relation, or any object with
                ``__arrow_c_stream__``. Columns: ``series_id`` or ``series_key`` (beside it ``labels``: a struct or map
                of texts, or JSON text), ``valid_time``, ``value``; optionally ``valid_time_end``, ``known_time``,
                ``annotation``, ``tags``. A pandas index that has a name counts as a column, and a ``DatetimeIndex`` as
                ``valid_time`` where there is none. Times need a time zone.
            wide: The frame has a column for each series, of that name: True: every column that is none of those above;
                a list: those named. There is no ``series_key`` and ``value`` then; a null is a value that is missing.
            run_id: Names the run; the same run_id with the same rows is a retry, which adds nothing. None: a new one. A
                retry of a run that is withdrawn, in part or whole, warns (``UserWarning``): that stays invisible.
            workflow_id: What made the run.
            run_start_time: When it ran; None: now.
            run_finish_time: When it ended.
            known_time: When the values became known, unless the rows say so; None: now.
            run_params: Anything that JSON can say, at most 100 levels deep.
            create_series: Whether names that do not exist yet become series; else they are an error.
            skip_unchanged: Leave out rows that say the same as the one known just before. It is as if they had never
                been sent: a run that arrives later and was known in between, or a later correction or withdrawal of the
                row before, is then answered in their place. Where that may happen, send every row.
            unit: Of all values; they are converted to the unit of their series, and new series get it. None: the
                values have the units of their series.
            progress: As of ``read``; the rows that have been sent.

        Raises:
            InvalidRequest: names the column, the row and the value that does not fit.
            Conflict: the run_id is taken by a run with other content.
            OutcomeUnknown: the server did not answer to the end; upload again with the run_id that the error names.

        Examples:
            >>> day = datetime(2025, 1, 1, tzinfo=UTC)
            >>> hours = [day, day + timedelta(hours=1)]
            >>> rows = pl.DataFrame({"series_key": "wind", "valid_time": hours, "value": [5.0, 6.5]})
            >>> client.upload(rows, run_id="wind-1", known_time=day - timedelta(hours=6)).rows
            2
            >>> later = rows.with_columns(value=pl.Series([5.5, 7.0]))
            >>> client.upload(later, run_id="wind-2", known_time=day).series_ids.keys()
            dict_keys(['wind'])
            >>> sites = pl.DataFrame({"valid_time": hours, "north": [1.0, 2.0], "south": [3.0, 4.0]})
            >>> sorted(client.upload(sites, wide=True, known_time=day).series_ids)
            ['north', 'south']
        """
        fields = {
            "run_id": run_id or str(uuid4()),
            "workflow_id": workflow_id,
            "run_start_time": run_start_time,
            "run_finish_time": run_finish_time,
            "known_time": known_time,
            "run_params": run_params,
            "create_series": create_series,
            "skip_unchanged": skip_unchanged,
            "unit": unit,
        }
        command, content = message_of(UploadCommand, fields), open_data(data, wide=wide)
        total = len(data) if content.repeatable and wide is False and hasattr(data, "__len__") else None
        with counting(progress, "Uploading", total) as count:
            receipt = Receipt.from_message(self._send_safely(command, content, count))
        warn_if_withdrawn(receipt, level=2)
        return receipt

    def _send_safely(self, command: UploadCommand, data: UploadData, count: RowCount | None) -> dict[str, Any]:
        unknown = threading.Event()

        def attempt() -> dict[str, Any]:
            if count is not None:
                count.restart()
            try:
                return self.send(command, data.open() if count is None else CountedBatches(data.open(), count))
            except OutcomeUnknown:
                unknown.set()
                raise

        try:
            return retrying(UPLOAD_ATTEMPTS if data.repeatable else 1)(attempt)
        except RETRIED as error:
            if not unknown.is_set():
                raise
            raise OutcomeUnknown(
                f"{error.detail}; upload the same again with run_id={command.run_id!r} to settle it",
                request_id=error.request_id,
            ) from None
