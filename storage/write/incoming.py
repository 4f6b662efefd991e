"""The two ways in for runs: one a call, whatever its size, and many over one stream."""

from __future__ import annotations

import pyarrow as pa

from timedb.contract.settings import ServerSettings
from timedb.contract.wire import UploadCommand
from timedb.storage.commit.lane import CommitLane
from timedb.storage.delta.table import Table
from timedb.storage.memory.budget import Memory
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.write.appends import AppendQueue, Appends
from timedb.storage.write.runs import Writer
from timedb.storage.write.unchanged import UnchangedFilter
from timedb.storage.write.uploads import Upload

__all__ = ["IncomingRuns"]


class IncomingRuns:
    """Begins uploads and streams of runs of one tenant.

    Args:
        values: The values table.
        lane: The tenant's commit lane.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        settings: Limits.
        memory: Of which large runs take a share.
    """

    def __init__(
        self, values: Table, lane: CommitLane, bucket_digits: int | None, settings: ServerSettings, memory: Memory
    ) -> None:
        self._values = values
        self._lane = lane
        self._bucket_digits = bucket_digits
        self._settings = settings
        self._memory = memory
        self._skip_unchanged = UnchangedFilter(values, bucket_digits)
        # Half of what may wait in the lane, so that streams leave room for other writers.
        self._queue = AppendQueue(lane, max_in_lane=max(1, settings.max_queued_writes // 2))

    def upload(self, command: UploadCommand, schema: pa.Schema, writer: Writer) -> Upload:
        """Begin to receive a run; arguments and errors as of :class:`Upload`."""
        return Upload(
            command,
            schema,
            writer=writer,
            store=self._values.store,
            bucket_digits=self._bucket_digits,
            submit=self._lane.submit,
            skip_unchanged=self._skip_unchanged,
            newest=self._newest,
            settings=self._settings,
            memory=self._memory,
        )

    def appends(self, schema: pa.Schema, writer: Writer, max_run_bytes: int) -> Appends:
        """Begin to receive a stream of runs; arguments and errors as of :class:`Appends`."""
        return Appends(
            schema,
            queue=self._queue,
            skip_unchanged=self._skip_unchanged,
            newest=self._newest,
            writer=writer,
            settings=self._settings,
            memory=self._memory,
            max_run_bytes=max_run_bytes,
        )

    @property
    def queued(self) -> int:
        """Runs of streams that are not in the commit lane yet."""
        return self._queue.queued

    def close(self) -> None:
        """Line up in the lane what is there whole, take no more; before the lane is closed."""
        self._queue.close()

    def _newest(self) -> int:
        return self._values.snapshot().transactions.get(CHANGE_TIME, 0)
