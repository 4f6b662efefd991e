"""What the Python client can do with runs that are in: look them up, withdraw them, restore them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from timedb.client.arguments import texts
from timedb.client.receipt import Receipt
from timedb.client.selection import message_of
from timedb.contract.wire import GetRun, ListRuns, RestoreRun, WireModel, WithdrawRun

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from timedb.client.selection import Time

__all__ = ["RunCalls", "warn_if_withdrawn"]


class RunCalls(ABC):
    """The part of :class:`~timedb.client.Client` that is about runs."""

    @abstractmethod
    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Send an action; its answer."""

    def withdraw_run(
        self,
        run_id: str | UUID,
        *,
        reason: str | None = None,
        series_ids: str | UUID | Iterable[str | UUID] | None = None,
    ) -> int:
        """Withdraw a run that was wrong, or some of its series: the next best values win again. Nothing is erased.

        Returns:
            Rows withdrawn; 0 where none stood any more.

        Raises:
            NotFound: there is no such run.

        Examples:
            >>> client.withdraw_run("wind-2", reason="wrong weather")
            2
            >>> client.read(series_keys="wind")["value"].to_list()  # the run before answers again
            [5.0, 6.5]
        """
        fields = {"run_id": run_id, "reason": reason, "series_ids": texts(series_ids)}
        return int(self.call("withdraw_run", message_of(WithdrawRun, fields))["withdrawn"])

    def restore_run(
        self,
        run_id: str | UUID,
        *,
        reason: str | None = None,
        series_ids: str | UUID | Iterable[str | UUID] | None = None,
    ) -> dict[str, Any]:
        """Undo the withdrawals of a run, or of some of its series: what they took stands again.

        Rows come back with the value, annotation and tags that they had, or that corrections have given them since.
        Rows that were retracted one by one stay retracted.

        Args:
            run_id: The run.
            reason: Becomes the annotation of the rows that come back; None: they keep their own.
            series_ids: Only these series.

        Returns:
            ``{"restored": rows, "left_retracted": rows}``.

        Raises:
            NotFound: there is no such run.

        Examples:
            >>> client.restore_run("wind-2")
            {'restored': 2, 'left_retracted': 0}
        """
        fields = {"run_id": run_id, "reason": reason, "series_ids": texts(series_ids)}
        return self.call("restore_run", message_of(RestoreRun, fields))

    def get_run(self, run_id: str | UUID) -> dict[str, Any]:
        """One run. ``withdrawn_rows`` of its rows are withdrawn; ``withdrawn`` is None while one of its rows stands,
        else ``{"time", "changed_by", "reason"}`` of what took the last ones.

        Raises:
            NotFound: there is none.

        Examples:
            >>> client.get_run("wind-1")["known_time"]
            '2024-12-31T18:00:00.000000+00:00'
        """
        return self.call("get_run", message_of(GetRun, {"run_id": run_id}))

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Runs as of :meth:`get_run`, newest first; ``start`` (inclusive) and ``end`` (exclusive) bound their
        run_start_time.

        Examples:
            >>> [run["run_id"] for run in client.list_runs(limit=2)]
            ['band-1', 'meter-1']
        """
        fields = {"workflow_id": workflow_id, "start": start, "end": end, "limit": limit}
        runs: list[dict[str, Any]] = self.call("list_runs", message_of(ListRuns, fields))["runs"]
        return runs


def warn_if_withdrawn(receipt: Receipt, level: int) -> None:
    """Warn where the upload was in already and has been withdrawn: it stays invisible.

    Args:
        receipt: Of the upload.
        level: How many calls up the warning points; 1 is the caller.
    """
    if text := receipt.withdrawal_text("restore_run"):
        warnings.warn(text, UserWarning, stacklevel=level + 1)
