"""The client's calls that correct values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from timedb.client.arguments import corrections, plain
from timedb.client.connection import BatchSource
from timedb.client.frames import open_data
from timedb.client.retrying import UPLOAD_ATTEMPTS, retrying
from timedb.client.selection import message_of
from timedb.contract.columns import CORRECTION_COLUMNS
from timedb.contract.errors import OutcomeUnknown
from timedb.contract.wire import CorrectCommand, UpdateValues, UploadCommand, WireModel, parse_object

__all__ = ["CorrectionCalls"]


class CorrectionCalls(ABC):
    """Corrections, item by item or as a table."""

    @abstractmethod
    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Do an action of the contract; one result."""

    @abstractmethod
    def send(self, command: UploadCommand | CorrectCommand, reader: BatchSource) -> dict[str, Any]:
        """Send a table, once; the receipt of the contract."""

    def update_values(self, updates: Iterable[Mapping[str, Any]], *, update_id: str | None = None) -> dict[str, Any]:
        """Correct values: all of them or none.

        Args:
            updates: Each says which row (``value_id``, or ``valid_time`` and ``series_id`` or ``series_key``, beside
                it ``labels``; narrowed by ``run_id``, ``known_time``, ``valid_time_end``) and what becomes of it
                (``value``, ``annotation``, ``tags``, ``retracted``): left out stays, None clears. Of a data frame pass
                its rows, say ``frame.to_dicts()``.
            update_id: Names the batch, so that a retry answers as the first time.

        Returns:
            ``{"updated": [...], "skipped_no_ops": [...]}`` of ``{"value_id", "run_id", "tenant_id", "valid_time",
            "series_id"}``.

        Raises:
            InvalidRequest: names the item and the field that does not fit.
            OutcomeUnknown: the server did not answer to the end.

        Examples:
            >>> change = {"series_key": "wind", "valid_time": day, "value": 5.75, "annotation": "meter was reset"}
            >>> client.update_values([change])["updated"][0]["run_id"]
            'wind-2'
        """
        items: list[dict[str, Any]] = corrections(updates)  # plain by now: there may be many, so not looked at again
        fields = {} if update_id is None else {"update_id": plain("update_id", update_id)}
        return self.call("update_values", parse_object(UpdateValues, {"updates": items, **fields}))

    def correct(self, data: Any, *, update_id: str | None = None, create: bool = False) -> dict[str, Any]:
        """Correct the values that a table names: all of them or none.

        Busy servers and lost connections are tried again, as an upload does.

        Args:
            data: As of an upload. Columns that say which row: ``series_id`` or ``series_key`` (beside it
                ``labels``) and ``valid_time``, where needed ``valid_time_end``, ``known_time`` and ``run_id`` (null:
                the winner); or ``value_id``. Columns that say what becomes of it: ``value``, ``annotation``, ``tags``,
                ``retracted``; one that is not there stays, null clears.
            update_id: Names the batch, so that a retry answers as the first time; None: a new one.
            create: Whether a row that does not exist is made, where its run is; else it is an error.

        Returns:
            ``{"update_id", "rows", "updated", "created", "skipped_no_ops", "change_time", "table_version"}``; the last
            two are None where nothing changed.

        Raises:
            NotFound: a row, run or series does not exist.
            InvalidRequest: names the column, the row and the value that does not fit.
            OutcomeUnknown: the server did not answer to the end; correct again with the update_id that the error names.

        Examples:
            >>> rows = pl.DataFrame({"series_key": "wind", "valid_time": hours, "tags": [["checked"], ["checked"]]})
            >>> client.correct(rows)["updated"]
            2
        """
        command = message_of(CorrectCommand, {"update_id": update_id or str(uuid4()), "create": create})
        content = open_data(data, CORRECTION_COLUMNS)
        attempts = UPLOAD_ATTEMPTS if content.repeatable else 1
        try:
            receipt: dict[str, Any] = retrying(attempts)(lambda: self.send(command, content.open()))
        except OutcomeUnknown as error:
            raise OutcomeUnknown(
                f"{error.detail}; correct the same again with update_id={command.update_id!r} to settle it",
                request_id=error.request_id,
            ) from None
        return receipt
